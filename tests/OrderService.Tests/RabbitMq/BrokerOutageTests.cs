using System.Collections.Concurrent;
using OrderService.Inbox;
using OrderService.Outbox;
using OrderService.RabbitMq;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.RabbitMq;

/// <summary>A broker that these tests may stop, freeze and starve.</summary>
public sealed class DisturbedBrokerFixture : IAsyncLifetime
{
    public RabbitMqContainerFixture Broker { get; } = new();

    public ValueTask InitializeAsync() => Broker.InitializeAsync();

    public ValueTask DisposeAsync() => Broker.DisposeAsync();
}

public sealed class BrokerOutageTests(DisturbedBrokerFixture disturbed) : IClassFixture<DisturbedBrokerFixture>
{
    private readonly RabbitMqContainerFixture fixture = disturbed.Broker;

    [Fact]
    public async Task A_memory_alarm_stops_publishing_and_leaves_settling_alone()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => options.ConfirmTimeout = TimeSpan.FromSeconds(2));
        await broker.DeclareAsync();
        await broker.PublishAsync(TopologyNames.Orders, 10);
        await using var subscription = broker.Subscribe(TopologyNames.Orders);
        _ = subscription.RunAsync(TestBroker.Stopping);
        var first = await subscription.Deliveries.ReadAsync(TestBroker.Stopping);
        await using var publisher = broker.Publisher();
        Assert.IsType<PublishOutcome.Confirmed>(await publisher.PublishAsync(Message(), TestBroker.Stopping));
        await Eventually.TrueAsync(() => subscription.State.InHand == 11);

        await broker.ControlAsync("set_vm_memory_high_watermark", "0");
        try
        {
            var during = await publisher.PublishAsync(Message(), TestBroker.Stopping);
            Assert.Contains("takes no publishes", Assert.IsType<PublishOutcome.Unknown>(during).Reason, StringComparison.Ordinal);
            Assert.NotNull(publisher.State.Blocked);

            await subscription.SettleAsync(first, Settlement.Acknowledge);
            await Eventually.TrueAsync(async () => (await UnacknowledgedAsync(broker)) == 10);
            Assert.Equal(1, subscription.State.Generation);
        }
        finally
        {
            await broker.ControlAsync("set_vm_memory_high_watermark", "0.6");
        }

        await Eventually.TrueAsync(() => publisher.State.Blocked is null);
        Assert.IsType<PublishOutcome.Confirmed>(await publisher.PublishAsync(Message(), TestBroker.Stopping));
        Assert.Null(publisher.State.LastError);
    }

    [Fact]
    public async Task A_broker_that_stops_and_starts_costs_no_confirmed_message()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await using var subscription = broker.Subscribe(TopologyNames.Orders);
        var running = subscription.RunAsync(TestBroker.Stopping);
        await using var publisher = broker.Publisher(broker.Topology.DeclareAsync);
        var confirmed = new ConcurrentDictionary<string, bool>();
        var arrived = new ConcurrentDictionary<string, bool>();
        using var enough = new CancellationTokenSource();
        Task consuming = Task.Run(async () =>
        {
            await foreach (var delivery in subscription.Deliveries.ReadAllAsync(TestBroker.Stopping))
            {
                if (delivery.Generation.IsAlive)
                {
                    arrived[delivery.Properties.MessageId!] = true;
                    await subscription.SettleAsync(delivery, Settlement.Acknowledge);
                }
            }
        }, TestBroker.Stopping);
        Task publishing = Task.Run(async () =>
        {
            while (!enough.IsCancellationRequested)
            {
                var message = Message();
                if (await publisher.PublishAsync(message, TestBroker.Stopping) is PublishOutcome.Confirmed)
                {
                    confirmed[message.MessageId] = true;
                }
            }
        }, TestBroker.Stopping);
        await Eventually.TrueAsync(() => confirmed.Count > 20);

        await broker.ControlAsync("stop_app");
        await Eventually.TrueAsync(() => subscription.State.Phase == SubscriptionPhase.Connecting && !publisher.State.Connected);
        await broker.ControlAsync("start_app");

        await Eventually.TrueAsync(() => subscription.State.Phase == SubscriptionPhase.Consuming);
        var before = confirmed.Count;
        await Eventually.TrueAsync(() => confirmed.Count > before + 20);
        await enough.CancelAsync();
        await publishing;
        await Eventually.TrueAsync(() => confirmed.Keys.All(arrived.ContainsKey));
        await subscription.StopConsumingAsync(TestBroker.Stopping);
        await running;
        await consuming;
    }

    [Fact]
    public async Task A_delivery_held_beyond_the_brokers_patience_costs_one_generation()
    {
        await PatienceAsync("1000");
        try
        {
            await using var broker = await TestBroker.StartAsync(fixture);
            await broker.DeclareAsync();
            await broker.PublishAsync(TopologyNames.Orders, 1);
            await using var subscription = broker.Subscribe(TopologyNames.Orders);
            _ = subscription.RunAsync(TestBroker.Stopping);
            var slow = await subscription.Deliveries.ReadAsync(TestBroker.Stopping);

            var again = await subscription.Deliveries.ReadAsync(TestBroker.Stopping);

            Assert.False(slow.Generation.IsAlive);
            Assert.True(again.Redelivered);
            await subscription.SettleAsync(slow, Settlement.Acknowledge);
            await subscription.SettleAsync(again, Settlement.Acknowledge);
            Assert.Equal(1, subscription.State.Acknowledged);
        }
        finally
        {
            await PatienceAsync("1800000");
        }

        async Task PatienceAsync(string milliseconds) =>
            await fixture.ExecAsync("rabbitmqctl", "eval", $"application:set_env(rabbit, consumer_timeout, {milliseconds}), application:set_env(rabbit, channel_tick_interval, 500).");
    }

    [Fact]
    public async Task A_queue_that_lost_its_leader_without_a_word_is_noticed_and_consumed_again_when_it_has_one()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => options.StallAfter = TimeSpan.FromSeconds(1));
        await broker.DeclareAsync();
        await using var subscription = broker.Subscribe(TopologyNames.Orders);
        _ = subscription.RunAsync(TestBroker.Stopping);
        await Eventually.TrueAsync(() => subscription.State.Phase == SubscriptionPhase.Consuming);

        await MemberAsync("stop_server");
        try
        {
            await Eventually.TrueAsync(() => subscription.State.LastError?.Contains("no leader", StringComparison.Ordinal) == true);
            await Eventually.TrueAsync(() => subscription.State.Phase == SubscriptionPhase.Connecting);
        }
        finally
        {
            await MemberAsync("restart_server");
        }

        await Eventually.TrueAsync(() => subscription.State.Phase == SubscriptionPhase.Consuming);
        await Eventually.HoldsAsync(() => broker.PublishAsync(TopologyNames.Orders, 1));
        Assert.True((await subscription.Deliveries.ReadAsync(TestBroker.Stopping)).Generation.IsAlive);

        // The queue has one member, which is its leader.
        async Task MemberAsync(string call) =>
            Assert.Equal("ok", (await broker.ControlAsync("-q", "eval", $"ra:{call}(quorum_queues, {{list_to_atom(\"{broker.VirtualHost}_orders\"), node()}}).")).Trim());
    }

    [Fact]
    public async Task A_broker_that_freezes_is_noticed_by_both_sides_and_used_again_when_it_thaws()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options =>
        {
            options.Heartbeat = TimeSpan.FromSeconds(5);
            options.ConfirmTimeout = TimeSpan.FromSeconds(2);
        });
        await broker.DeclareAsync();
        await using var subscription = broker.Subscribe(TopologyNames.Orders);
        _ = subscription.RunAsync(TestBroker.Stopping);
        await using var publisher = broker.Publisher();
        Assert.IsType<PublishOutcome.Confirmed>(await publisher.PublishAsync(Message(), TestBroker.Stopping));
        await subscription.Deliveries.ReadAsync(TestBroker.Stopping);

        await fixture.PauseAsync();
        try
        {
            Assert.IsType<PublishOutcome.Unknown>(await publisher.PublishAsync(Message(), TestBroker.Stopping));
            await Eventually.TrueAsync(() => subscription.State.Phase == SubscriptionPhase.Connecting, TimeSpan.FromSeconds(40));
        }
        finally
        {
            await fixture.UnpauseAsync();
        }

        await Eventually.TrueAsync(() => subscription.State.Phase == SubscriptionPhase.Consuming, TimeSpan.FromSeconds(60));
        await Eventually.TrueAsync(async () => await publisher.PublishAsync(Message(), TestBroker.Stopping) is PublishOutcome.Confirmed, TimeSpan.FromSeconds(60));
        Assert.True((await subscription.Deliveries.ReadAsync(TestBroker.Stopping)).Generation.IsAlive);
    }

    private static OutgoingMessage Message() => new() { Exchange = "", RoutingKey = TopologyNames.Orders, MessageId = $"{Guid.NewGuid()}", Body = "{}"u8.ToArray() };

    private static async Task<int> UnacknowledgedAsync(TestBroker broker)
    {
        var list = await broker.ControlAsync("list_queues", "-p", broker.VirtualHost, "--quiet", "--no-table-headers", "name", "messages_unacknowledged");
        var line = list.Split('\n').First(row => row.StartsWith("orders\t", StringComparison.Ordinal));
        return int.Parse(line.Split('\t')[1], System.Globalization.CultureInfo.InvariantCulture);
    }
}

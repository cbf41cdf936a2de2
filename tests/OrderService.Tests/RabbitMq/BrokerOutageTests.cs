using System.Collections.Concurrent;
using System.Net;
using System.Net.Http.Json;
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
    public async Task A_message_that_the_broker_finds_too_large_is_refused_and_its_like_are_not_even_sent()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await using var publisher = broker.Publisher();
        Assert.IsType<PublishOutcome.Confirmed>(await publisher.PublishAsync(Message(), TestBroker.Stopping));
        var since = publisher.State.Since;
        static OutgoingMessage Large() => new() { Exchange = "", RoutingKey = TopologyNames.Orders, MessageId = $"{Guid.NewGuid()}", Body = new byte[20_001] };
        await fixture.LimitMessagesAsync(20_000);
        try
        {
            var before = Enumerable.Range(0, 20).Select(_ => publisher.PublishAsync(Message(), TestBroker.Stopping)).ToList();
            var large = publisher.PublishAsync(Large(), TestBroker.Stopping);
            var after = Enumerable.Range(0, 20).Select(_ => publisher.PublishAsync(Message(), TestBroker.Stopping)).ToList();

            Assert.Equal("the body has 20001 bytes; the broker takes at most 20000 (its max_message_size)", Assert.IsType<PublishOutcome.Refused>(await large).Reason);
            Assert.All(await Task.WhenAll(before.Concat(after)), outcome => Assert.False(outcome is PublishOutcome.Refused or PublishOutcome.Unknown { IsUnanswered: true }, $"{outcome}"));
            var unknown = publisher.State.Unknown;
            var steady = publisher.PublishAsync(Message(), TestBroker.Stopping);
            Assert.IsType<PublishOutcome.Refused>(await publisher.PublishAsync(Large(), TestBroker.Stopping));
            Assert.IsType<PublishOutcome.Confirmed>(await steady);
            Assert.Equal((since, unknown), (publisher.State.Since, publisher.State.Unknown));
        }
        finally
        {
            await fixture.LimitMessagesAsync(PropertyMapping.BodyLimit);
        }
    }

    [Fact]
    public async Task What_the_broker_finds_too_large_ends_or_waits_by_itself_and_holds_nothing_else_up()
    {
        const string Big = "BIG-1";
        var address = await fixture.AddVirtualHostAsync();
        // Without a relay nothing leaves until the broker's limit is lower than what waits.
        await using var service = await ReleaseService.StartAsync(address, settings: new() { ["Roles"] = "orders,dead-letters,api" });
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        var lines = string.Join(',', Enumerable.Range(0, 400).Select(number => $$"""{"sku":"{{new string('K', 50)}}-{{number}}","quantity":2,"unitPrice":49.90}"""));
        await shop.PublishAsync(
            TestMessage.Of("order.place", "big", $$"""{"orderId":"{{Big}}","customerId":"C-7","currency":"EUR","lines":[{{lines}}]}"""),
            TestMessage.Of("order.place", "broken", $$"""{"orderId":"BROKEN-1","customerId":"C-7","currency":"EUR","lines":[{{lines}}],"unknown":1}"""),
            TestMessage.Place("A-1"));
        await Eventually.TrueAsync(async () => await service.OrderStatusAsync(Big) == "placed" && await service.OrderStatusAsync("A-1") == "placed");
        await shop.PublishAsync(TestMessage.Of("order.cancel", "cancel-big", $$"""{"orderId":"{{Big}}","reason":"no"}"""));
        await Eventually.TrueAsync(async () => await service.OrderStatusAsync(Big) == "cancelled");
        await Eventually.TrueAsync(async () => (await service.AllAsync("/api/dead-letters")).Count == 1);
        var letter = (await service.AllAsync("/api/dead-letters"))[0].GetProperty("id").GetInt64();
        using var replay = await service.Http.PostAsJsonAsync($"/api/dead-letters/{letter}/replay", new { reason = "again" }, TestBroker.Stopping);
        Assert.Equal(HttpStatusCode.Accepted, replay.StatusCode);
        Assert.Equal(0, await service.StopAsync());
        service.Settings.Remove("Roles");
        await fixture.LimitMessagesAsync(20_000);
        try
        {
            await service.StartAgainAsync();

            await Eventually.TrueAsync(async () => (await service.GetAsync($"/api/dead-letters/{letter}")).GetProperty("status").GetString() == "parked");
            Assert.Contains("the broker takes at most 20000", (await service.GetAsync($"/api/dead-letters/{letter}")).GetRawText(), StringComparison.Ordinal);
            using var discard = await service.Http.PostAsJsonAsync($"/api/dead-letters/{letter}/discard", new { reason = "too large" }, TestBroker.Stopping);
            Assert.Equal(HttpStatusCode.Accepted, discard.StatusCode);

            await Eventually.HoldsAsync(async () =>
            {
                var waiting = Assert.Single((await service.GetAsync("/api/relay")).GetProperty("items").EnumerateArray());
                Assert.Equal(("unsendable", 2, Big), (waiting.GetProperty("routingKey").GetString(), waiting.GetProperty("events").GetInt32(), waiting.GetProperty("orderId").GetString()));
                var (status, health) = await service.HealthAsync();
                Assert.Equal(HttpStatusCode.OK, status);
                Assert.Contains("the broker takes at most 20000", health, StringComparison.Ordinal);
            });
            await shop.PublishAsync(TestMessage.Place("A-2"));
            await Eventually.TrueAsync(() => shop.Heard.Count(heard => heard.Type == "ORDER_PLACED") == 2);
            Assert.DoesNotContain(shop.Heard, heard => heard.Body.Contains(Big, StringComparison.Ordinal));
        }
        finally
        {
            await fixture.LimitMessagesAsync(PropertyMapping.BodyLimit);
        }

        // The limit was learned on this connection; a new one asks anew.
        await fixture.ExecAsync("rabbitmqctl", "close_all_connections", "-p", new Uri(address).AbsolutePath[1..], "the limit is higher now");
        await using var listener = await TestProducer.ConnectAsync(address);
        await listener.ListenAsync();
        await service.WaitUntilReadyAsync();
        using var release = await service.Http.PostAsJsonAsync("/api/relay/unsendable/release", new { reason = "max_message_size is higher" }, TestBroker.Stopping);
        Assert.Equal(HttpStatusCode.Accepted, release.StatusCode);
        await Eventually.TrueAsync(() => listener.Heard.Count == 2);
        Assert.Equal(["ORDER_PLACED", "ORDER_CANCELLED"], listener.Heard.Select(heard => heard.Type));
        await Eventually.TrueAsync(async () => (await service.GetAsync("/api/relay")).GetProperty("items").GetArrayLength() == 0);
        Assert.Contains("relay.release", (await service.GetAsync("/api/audit")).GetRawText(), StringComparison.Ordinal);
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

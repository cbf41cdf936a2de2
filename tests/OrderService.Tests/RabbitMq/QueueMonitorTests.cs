using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Time.Testing;
using OrderService.Inbox;
using OrderService.RabbitMq;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.RabbitMq;

public sealed class QueueMonitorTests(RabbitMqContainerFixture fixture)
{
    [Fact]
    public async Task Depth_and_consumers_are_read_over_amqp_alone()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => options.QueuePollInterval = TimeSpan.FromSeconds(0.2));
        using var monitor = Monitor(broker);
        await monitor.StartAsync(TestBroker.Stopping);
        await Eventually.TrueAsync(() => monitor.Depths.Any(depth => depth is { Queue: TopologyNames.Orders, Exists: false }));

        await broker.DeclareAsync();
        await broker.PublishAsync(TopologyNames.DeadLetters, 3);
        await using var subscription = broker.Subscribe(TopologyNames.Orders);
        _ = subscription.RunAsync(TestBroker.Stopping);

        await Eventually.TrueAsync(() => monitor.Depths.Any(depth => depth is { Queue: TopologyNames.DeadLetters, Ready: 3, Unacknowledged: null }));
        await Eventually.TrueAsync(() => monitor.Depths.Any(depth => depth is { Queue: TopologyNames.Orders, Exists: true, Consumers: 1 }));
        await Eventually.TrueAsync(() => monitor.LastError is null);
        await monitor.StopAsync(TestBroker.Stopping);
    }

    [Fact]
    public async Task With_the_management_api_unacknowledged_messages_and_unsafe_policies_are_known()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => options.QueuePollInterval = TimeSpan.FromSeconds(0.2));
        await broker.DeclareAsync();
        await broker.PublishAsync(TopologyNames.Orders, 5);
        await using var subscription = broker.Subscribe(TopologyNames.Orders, prefetch: 2);
        _ = subscription.RunAsync(TestBroker.Stopping);
        broker.Options.ManagementUri = fixture.ManagementUri.ToString();
        await broker.ControlAsync("set_policy", "-p", broker.VirtualHost, "shorten", "^orders$", """{"max-length":10,"overflow":"drop-head"}""", "--apply-to", "queues");
        using var monitor = Monitor(broker);
        await monitor.StartAsync(TestBroker.Stopping);

        await Eventually.TrueAsync(() => monitor.Depths.Any(depth => depth is { Queue: TopologyNames.Orders, Ready: 3, Unacknowledged: 2, Total: 5 }));
        IReadOnlyList<string>? unsafePolicies = null;
        await Eventually.TrueAsync(() => (unsafePolicies = monitor.UnsafePolicies)?.Count == 2);
        Assert.Contains(unsafePolicies!, sentence => sentence.StartsWith("The policy 'shorten' sets overflow to drop-head on the queue 'orders'", StringComparison.Ordinal));
        await monitor.StopAsync(TestBroker.Stopping);
    }

    [Fact]
    public async Task The_oldest_message_is_known_by_what_the_process_itself_took_out()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => options.QueuePollInterval = TimeSpan.FromSeconds(0.2));
        await broker.DeclareAsync();
        await using var subscription = broker.Subscribe(TopologyNames.Orders, prefetch: 6);
        using var monitor = Monitor(broker, queue => queue == TopologyNames.Orders ? subscription : null);
        await monitor.StartAsync(TestBroker.Stopping);
        await Eventually.TrueAsync(() => monitor.Depths.Any(depth => depth is { Queue: TopologyNames.Orders, Exists: true, Ready: 0, OldestSince: null }));

        await broker.PublishAsync(TopologyNames.Orders, 10);
        var first = await WaitAsync(monitor, depth => depth is { Ready: 10, OldestSince: not null });
        await broker.PublishAsync(TopologyNames.Orders, 10, first: 11);
        var second = await WaitAsync(monitor, depth => depth is { Ready: 20 });
        Assert.Equal(first.OldestSince, second.OldestSince);
        Assert.True(first.OldestSince <= first.At);

        _ = subscription.RunAsync(TestBroker.Stopping);
        Assert.Equal(first.OldestSince, (await WaitAsync(monitor, depth => depth is { Ready: 14, Consumers: 2 })).OldestSince);
        for (var taken = 0; taken < 5; taken++)
        {
            await subscription.SettleAsync(await subscription.Deliveries.ReadAsync(TestBroker.Stopping), Settlement.Acknowledge);
        }

        // The first ten are settled or in hand; the oldest is one of those that came later.
        var third = await WaitAsync(monitor, depth => depth is { Ready: 10 });
        Assert.InRange(third.OldestSince!.Value, first.At, second.At);
        Assert.NotEqual(first.OldestSince, third.OldestSince);
        await monitor.StopAsync(TestBroker.Stopping);
    }

    [Fact]
    public async Task Where_others_consume_too_the_oldest_message_is_known_with_the_management_api_alone()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => options.QueuePollInterval = TimeSpan.FromSeconds(0.2));
        await broker.DeclareAsync();
        await using var stranger = broker.Subscribe(TopologyNames.Orders, prefetch: 5);
        _ = stranger.RunAsync(TestBroker.Stopping);
        using var without = Monitor(broker);
        await without.StartAsync(TestBroker.Stopping);
        await WaitAsync(without, depth => depth is { Consumers: 1 });
        // Stays open: the broker forgets what a channel published that closes before its figures are collected.
        await using var producer = await broker.ProducerAsync();
        await TestBroker.PublishAsync(producer, TopologyNames.Orders, 10);

        Assert.Null((await WaitAsync(without, depth => depth is { Ready: 5 })).OldestSince);
        await without.StopAsync(TestBroker.Stopping);
        broker.Options.ManagementUri = fixture.ManagementUri.ToString();
        using var with = Monitor(broker);
        await with.StartAsync(TestBroker.Stopping);
        var known = await WaitAsync(with, depth => depth is { Ready: 5, OldestSince: not null });
        Assert.Equal(10, known.Published);
        await with.StopAsync(TestBroker.Stopping);
    }

    [Theory]
    [InlineData(5, "5 messages are ready by the count of another connection, and none was delivered for 1 s")]
    [InlineData(0, "the queue has no consumer by the count of another connection, to a node that knows no leader of it or another one")]
    public async Task A_subscription_of_which_is_heard_elsewhere_what_it_does_not_see_is_built_anew(int messages, string reason)
    {
        await using var broker = await TestBroker.StartAsync(fixture, options =>
        {
            options.QueuePollInterval = TimeSpan.FromSeconds(0.2);
            options.StallAfter = TimeSpan.FromSeconds(1);
        });
        await broker.DeclareAsync();
        await broker.PublishAsync(TopologyNames.Orders, messages);
        // What the monitor reads of orders stands for the news of a new leader; this subscription's own node says that its queue is empty and well.
        await using var subscription = broker.Subscribe(TopologyNames.DeadLetters);
        _ = subscription.RunAsync(TestBroker.Stopping);
        using var monitor = Monitor(broker, queue => queue == TopologyNames.Orders ? subscription : null);
        await monitor.StartAsync(TestBroker.Stopping);

        await Eventually.TrueAsync(() => subscription.State.LastError == reason);
        await Eventually.TrueAsync(() => subscription.State is { Phase: SubscriptionPhase.Consuming, Generation: > 1 });
        await monitor.StopAsync(TestBroker.Stopping);
    }

    [Fact]
    public async Task With_several_nodes_it_asks_another_one_every_minute()
    {
        await using var broker = await TestBroker.StartWithTwoNamesAsync(fixture);
        await broker.DeclareAsync();
        var clock = new FakeTimeProvider();
        using var monitor = Monitor(broker, clock: clock);
        await monitor.StartAsync(TestBroker.Stopping);
        await Eventually.TrueAsync(() => monitor.Depths.Count > 0);
        var first = "";
        await Eventually.TrueAsync(async () => (first = await PortAsync()).Length > 0);

        clock.Advance(TimeSpan.FromSeconds(59));
        await Eventually.TrueAsync(() => monitor.Depths[0].At == clock.GetUtcNow());
        Assert.Equal(first, await PortAsync());
        clock.Advance(TimeSpan.FromSeconds(30));

        await Eventually.TrueAsync(async () => await PortAsync() is { Length: > 0 } now && now != first);
        await monitor.StopAsync(TestBroker.Stopping);

        // The client's end of the connection, as the broker sees it.
        async Task<string> PortAsync() =>
            (await broker.ControlAsync("-q", "list_connections", "--no-table-headers", "vhost", "peer_port", "client_properties"))
                .Split('\n').FirstOrDefault(line => line.StartsWith(broker.VirtualHost, StringComparison.Ordinal) && line.Contains("watches", StringComparison.Ordinal))?.Split('\t')[1] ?? "";
    }

    private static async Task<QueueDepth> WaitAsync(QueueMonitor monitor, Func<QueueDepth, bool> wanted)
    {
        QueueDepth? found = null;
        await Eventually.TrueAsync(() => (found = monitor.Depths.FirstOrDefault(depth => depth.Queue == TopologyNames.Orders && wanted(depth))) is not null);
        return found!;
    }

    private static QueueMonitor Monitor(TestBroker broker, Func<string, QueueSubscription?>? own = null, TimeProvider? clock = null) =>
        new(broker.Connector, broker.Topology, Microsoft.Extensions.Options.Options.Create(broker.Options), own ?? (_ => null), clock ?? TimeProvider.System, NullLogger<QueueMonitor>.Instance);
}

using Microsoft.Extensions.Logging.Abstractions;
using OrderService.RabbitMq;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.RabbitMq;

public sealed class QueueMonitorTests(RabbitMqContainerFixture fixture)
{
    [Fact]
    public async Task Depth_and_consumers_are_read_over_amqp_alone()
    {
        await using TestBroker broker = await TestBroker.StartAsync(fixture, options => options.QueuePollInterval = TimeSpan.FromSeconds(0.2));
        using QueueMonitor monitor = Monitor(broker);
        await monitor.StartAsync(TestBroker.Stopping);
        await Eventually.TrueAsync(() => monitor.Depths.Any(depth => depth is { Queue: TopologyNames.Orders, Exists: false }));

        await broker.DeclareAsync();
        await broker.PublishAsync(TopologyNames.DeadLetters, 3);
        await using QueueSubscription subscription = broker.Subscribe(TopologyNames.Orders);
        _ = subscription.RunAsync(TestBroker.Stopping);

        await Eventually.TrueAsync(() => monitor.Depths.Any(depth => depth is { Queue: TopologyNames.DeadLetters, Ready: 3, Unacknowledged: null }));
        await Eventually.TrueAsync(() => monitor.Depths.Any(depth => depth is { Queue: TopologyNames.Orders, Exists: true, Consumers: 1 }));
        Assert.Null(monitor.LastError);
        await monitor.StopAsync(TestBroker.Stopping);
    }

    [Fact]
    public async Task With_the_management_api_unacknowledged_messages_and_unsafe_policies_are_known()
    {
        await using TestBroker broker = await TestBroker.StartAsync(fixture, options => options.QueuePollInterval = TimeSpan.FromSeconds(0.2));
        await broker.DeclareAsync();
        await broker.PublishAsync(TopologyNames.Orders, 5);
        await using QueueSubscription subscription = broker.Subscribe(TopologyNames.Orders, prefetch: 2);
        _ = subscription.RunAsync(TestBroker.Stopping);
        broker.Options.ManagementUri = fixture.ManagementUri.ToString();
        await broker.ControlAsync("set_policy", "-p", broker.VirtualHost, "shorten", "^orders$", """{"max-length":10,"overflow":"drop-head"}""", "--apply-to", "queues");
        using QueueMonitor monitor = Monitor(broker);
        await monitor.StartAsync(TestBroker.Stopping);

        await Eventually.TrueAsync(() => monitor.Depths.Any(depth => depth is { Queue: TopologyNames.Orders, Ready: 3, Unacknowledged: 2, Total: 5 }));
        await Eventually.TrueAsync(() => monitor.UnsafePolicies.Count == 2);
        Assert.Contains(monitor.UnsafePolicies, sentence => sentence.StartsWith("The policy 'shorten' sets overflow to drop-head on the queue 'orders'", StringComparison.Ordinal));
        await monitor.StopAsync(TestBroker.Stopping);
    }

    private static QueueMonitor Monitor(TestBroker broker) =>
        new(broker.Connector, Microsoft.Extensions.Options.Options.Create(broker.Options), TimeProvider.System, NullLogger<QueueMonitor>.Instance);
}

using OrderService.Inbox;
using OrderService.Kafka;
using OrderService.RabbitMq;

namespace OrderService.Deadlines;

public static class DeadlinesSetup
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan Lately = TimeSpan.FromSeconds(5);

    /// <summary>Cancels unpaid orders in this process, when that is switched on. It takes orders in itself, so that it knows whether they are.</summary>
    public static IServiceCollection AddDeadlines(this IServiceCollection services, IConfiguration configuration)
    {
        if (string.IsNullOrEmpty(configuration[$"{OrdersOptions.Section}:{nameof(OrdersOptions.CancelUnpaidAfter)}"]))
        {
            return services;
        }
        services.AddSingleton<SendCommand>(provider =>
        {
            var publisher = provider.GetRequiredKeyedService<ConfirmedPublisher>(TopologyNames.Orders);
            return message => publisher.TryPublishAsync(message, Patience);
        });
        services.AddSingleton(provider =>
        {
            var (watch, subscriptions) = (provider.GetRequiredService<IntakeWatch>(), provider.GetRequiredService<OrderSubscriptions>());
            var kafka = provider.GetService<KafkaIntake>();
            var (monitor, topology) = (provider.GetRequiredService<QueueMonitor>(), provider.GetRequiredService<Topology>());
            return new IntakeCalm(() => Obstacle(watch, subscriptions, monitor, kafka), () => Orders(monitor, topology));
        });
        services.AddSingleton<UnpaidRound>();
        return services.AddHostedService<UnpaidWorker>();
    }

    private static string? Obstacle(IntakeWatch watch, OrderSubscriptions subscriptions, QueueMonitor monitor, KafkaIntake? kafka) =>
        watch.WhyPaused
        ?? (subscriptions.States.FirstOrDefault(state => state is not { Phase: SubscriptionPhase.Consuming, Stalled: false, SilentSince: null }) is { } state
            ? $"the queue {state.Queue} is not consumed: {state.HoldReason ?? state.LastError ?? "not yet"}" : null)
        ?? (monitor.Unconsumed is [var left, ..] ? left : null)
        ?? (kafka?.WasEmptyWithin(Lately) == false ? "the topic of orders was not seen empty lately, or this instance has no partition of it" : null);

    // One that was not there at the last reading may come back full.
    private static QueueDepth? Orders(QueueMonitor monitor, Topology topology)
    {
        var read = monitor.Depths.Count(depth => depth.Exists && topology.OrderQueues.Contains(depth.Queue));
        return monitor.LastError is null && read == topology.OrderQueues.Count ? monitor.Orders : null;
    }
}

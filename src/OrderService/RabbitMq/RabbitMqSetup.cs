using Microsoft.Extensions.Options;
using OrderService.Inbox;
using OrderService.Observability;

namespace OrderService.RabbitMq;

public static class RabbitMqSetup
{
    /// <summary>
    /// Registers <see cref="BrokerConnector"/>, <see cref="Topology"/>, two <see cref="ConfirmedPublisher"/> (for events, and by the key <c>orders</c> for orders over HTTP), <see cref="QueueMonitor"/> (not yet hosted),
    /// <see cref="OrderSubscriptions"/> and, by the queue's name as key, a <see cref="QueueSubscription"/> for <c>orders.dlq</c>. Nothing connects before it is used.
    /// </summary>
    public static IServiceCollection AddRabbitMq(this IServiceCollection services)
    {
        services.AddOptions<RabbitMqOptions>().BindConfiguration(RabbitMqOptions.Section).ValidateOnStart();
        services.AddSingleton<IValidateOptions<RabbitMqOptions>, RabbitMqOptionsValidator>();
        services.AddSingleton<BrokerConnector>();
        services.AddSingleton<Topology>();
        services.AddSingleton(provider => new QueueMonitor(
            provider.GetRequiredService<BrokerConnector>(),
            provider.GetRequiredService<Topology>(),
            provider.GetRequiredService<IOptions<RabbitMqOptions>>(),
            queue => queue == TopologyNames.DeadLetters
                ? provider.GetRequiredKeyedService<QueueSubscription>(queue)
                : provider.GetRequiredService<OrderSubscriptions>().To(queue),
            provider.GetRequiredService<TimeProvider>(),
            provider.GetRequiredService<ILogger<QueueMonitor>>()));
        services.AddSingleton(provider => Publish(provider, "publishes events"));
        services.AddSingleton(provider => provider.GetRequiredService<ConfirmedPublisher>().ForRelay());
        // A queue that holds up events uses up their window and their connection; orders over HTTP have their own.
        services.AddKeyedSingleton(TopologyNames.Orders, (provider, _) => Publish(provider, "publishes orders"));
        services.AddSingleton<SubscriberQueues>();
        services.AddSingleton<OrderConsumer>();
        services.AddSingleton(provider =>
        {
            IReadOnlyList<string> queues = provider.GetRequiredService<Topology>().OrderQueues;
            var room = Room(provider, queues.Count);
            // What is larger is refused, and the broker brings its bytes to the dead letters.
            return new OrderSubscriptions([.. queues.Select(queue => Subscribe(provider, queue, room, EnvelopeDecoder.MaxBodyBytes))]);
        });
        services.AddKeyedSingleton(TopologyNames.DeadLetters, (provider, _) => Subscribe(provider, TopologyNames.DeadLetters, Room(provider, 1), int.MaxValue));
        return services;
    }

    /// <summary>Tells which events wait, in the process that relays them.</summary>
    public static IServiceCollection AddStuckReport(this IServiceCollection services) => services.AddHostedService<StuckReport>();

    /// <summary>Consumes <c>orders</c>, and its partitions, in this process. Register it last: what is registered last stops first.</summary>
    public static IServiceCollection AddOrderConsumer(this IServiceCollection services) =>
        services
            .AddSingleton(provider =>
            {
                var orders = provider.GetRequiredService<OrderSubscriptions>();
                return new IntakeValve(TopologyNames.Orders, orders.Pause, orders.Resume, () => orders.States.Sum(state => state.InHand));
            })
            .AddHostedService<Backlogs>().AddHostedService(provider => provider.GetRequiredService<OrderConsumer>());

    private static ConfirmedPublisher Publish(IServiceProvider provider, string purpose) => new(
        provider.GetRequiredService<BrokerConnector>(),
        provider.GetRequiredService<IOptions<RabbitMqOptions>>(),
        provider.GetRequiredService<TimeProvider>(),
        provider.GetRequiredService<ILogger<ConfirmedPublisher>>(),
        provider.GetRequiredService<Topology>().DeclareAsync,
        purpose,
        provider.GetService<MessagingMetrics>());

    private static BytesInHand Room(IServiceProvider provider, int sharers) => new(provider.GetRequiredService<IOptions<RabbitMqOptions>>().Value.MaxBytesInHand, sharers);

    private static QueueSubscription Subscribe(IServiceProvider provider, string queue, BytesInHand room, int keepsUpTo) => new(
        provider.GetRequiredService<BrokerConnector>(),
        queue,
        provider.GetRequiredService<IOptions<RabbitMqOptions>>().Value.PrefetchOf(queue),
        provider.GetRequiredService<TimeProvider>(),
        provider.GetRequiredService<ILogger<QueueSubscription>>(),
        provider.GetRequiredService<Topology>().DeclareAsync,
        room,
        keepsUpTo,
        provider.GetRequiredService<Troubles>());
}

using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using OrderService.RabbitMq;

namespace OrderService.Bench.Contestants;

internal static class ServiceTopology
{
    /// <summary>The arguments the service gives to the queue <c>orders</c>.</summary>
    public static IReadOnlyDictionary<string, object?> OrdersArguments { get; } =
        new Topology(Options.Create(new RabbitMqOptions()), NullLogger<Topology>.Instance).Queues.Single(queue => queue.Name == TopologyNames.Orders).Arguments;
}

using System.Globalization;

namespace OrderService.RabbitMq;

/// <summary>The names of docs/messages.md, section 1.</summary>
public static class TopologyNames
{
    /// <summary>Quorum queue: commands in.</summary>
    public const string Orders = Inbox.IntakeQueues.Orders;

    /// <summary>Fanout exchange bound to <see cref="Orders"/>, for producers without rights on the default exchange.</summary>
    public const string OrdersIn = Outbox.CommandExchange.Name;

    /// <summary>
    /// Consistent-hash exchange in front of <c>orders.1</c>, <c>orders.2</c> and so on (<see cref="RabbitMqOptions.Partitions"/>); the routing key is the order id.
    /// What it can't place goes to <see cref="OrdersIn"/>.
    /// </summary>
    public const string OrdersPartitioned = "orders.partitioned";

    /// <summary>Quorum queue: dead letters.</summary>
    public const string DeadLetters = Inbox.IntakeQueues.DeadLetters;

    /// <summary>Quorum queue without a consumer: dead letters whose headers the client library can't read, kept for an operator.</summary>
    public const string Unreadable = "orders.unreadable";

    /// <summary>Topic exchange: events out.</summary>
    public const string OrderEvents = Outbox.EventExchange.Name;

    /// <summary>Alternate exchange of <see cref="OrderEvents"/> and the queue behind it: events nobody subscribed to.</summary>
    public const string UnroutedEvents = "order-events.unrouted";

    /// <summary>Quorum queue: a share of the commands, by order id.</summary>
    /// <param name="number">From 1.</param>
    public static string Partition(int number) => string.Create(CultureInfo.InvariantCulture, $"{Orders}.{number}");

    /// <summary><c>orders.1</c>, <c>orders.2</c> and so on, whether or not the settings name it.</summary>
    public static bool IsPartition(string queue) =>
        queue.StartsWith(Orders + ".", StringComparison.Ordinal) && queue.AsSpan(Orders.Length + 1) is { Length: > 0 } number && !number.ContainsAnyExceptInRange('0', '9');
}

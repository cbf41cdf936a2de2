namespace OrderService.RabbitMq;

/// <summary>The names of docs/messages.md, section 1.</summary>
public static class TopologyNames
{
    /// <summary>Quorum queue: commands in.</summary>
    public const string Orders = "orders";

    /// <summary>Fanout exchange bound to <see cref="Orders"/>, for producers without rights on the default exchange.</summary>
    public const string OrdersIn = "orders.in";

    /// <summary>Quorum queue: dead letters.</summary>
    public const string DeadLetters = "orders.dlq";

    /// <summary>Quorum queue without a consumer: dead letters whose headers the client library can't read, kept for an operator.</summary>
    public const string Unreadable = "orders.unreadable";

    /// <summary>Topic exchange: events out.</summary>
    public const string OrderEvents = "order-events";

    /// <summary>Alternate exchange of <see cref="OrderEvents"/> and the queue behind it: events nobody subscribed to.</summary>
    public const string UnroutedEvents = "order-events.unrouted";
}

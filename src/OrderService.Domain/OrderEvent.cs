namespace OrderService.Domain;

/// <summary>The events' names in the store and in CloudEvents' <c>type</c>.</summary>
public static class EventType
{
    public const string Placed = "ORDER_PLACED";
    public const string PaymentReceived = "ORDER_PAYMENT_RECEIVED";
    public const string Paid = "ORDER_PAID";
    public const string Shipped = "ORDER_SHIPPED";
    public const string Delivered = "ORDER_DELIVERED";
    public const string Cancelled = "ORDER_CANCELLED";

    /// <summary>Published only, never stored in a stream: a command the order's state did not allow.</summary>
    public const string CommandRefused = "ORDER_COMMAND_REFUSED";
}

/// <summary>The routing keys on the exchange <c>order-events</c>. All have two words, so that <c>order.*</c> binds to everything.</summary>
public static class EventRoutingKey
{
    public const string Placed = "order.placed";
    public const string PaymentReceived = "order.payment_received";
    public const string Paid = "order.paid";
    public const string Shipped = "order.shipped";
    public const string Delivered = "order.delivered";
    public const string Cancelled = "order.cancelled";
    public const string CommandRefused = "order.command-refused";

    /// <summary>The routing key of an event type.</summary>
    /// <exception cref="ArgumentException">The type is not one of <see cref="EventType"/>.</exception>
    public static string Of(string eventType) => TryOf(eventType) ?? throw new ArgumentException($"There is no event type {eventType}.", nameof(eventType));

    /// <summary>The same; null for a type that this version does not know.</summary>
    public static string? TryOf(string eventType) => eventType switch
    {
        EventType.Placed => Placed,
        EventType.PaymentReceived => PaymentReceived,
        EventType.Paid => Paid,
        EventType.Shipped => Shipped,
        EventType.Delivered => Delivered,
        EventType.Cancelled => Cancelled,
        EventType.CommandRefused => CommandRefused,
        _ => null,
    };
}

/// <summary>What happened to an order, for ever. The order's id and the version belong to the stream, not to the event.</summary>
public abstract record OrderEvent
{
    private OrderEvent() { }

    /// <summary>One of <see cref="EventType"/>.</summary>
    public abstract string Type { get; }

    /// <summary>One of <see cref="EventRoutingKey"/>.</summary>
    public abstract string RoutingKey { get; }

    /// <param name="CustomerId">Who buys.</param>
    /// <param name="Currency">The currency of every amount.</param>
    /// <param name="Lines">1 to 500 positions.</param>
    /// <param name="TotalMinor">The sum over the lines, in minor units.</param>
    /// <param name="Email">Personal data: stored, never published.</param>
    /// <param name="PlacedAt">When the customer ordered, by the shop's clock.</param>
    public sealed record Placed(
        string CustomerId, Currency Currency, IReadOnlyList<OrderLine> Lines, long TotalMinor, string? Email, DateTimeOffset? PlacedAt)
        : OrderEvent
    {
        public override string Type => EventType.Placed;
        public override string RoutingKey => EventRoutingKey.Placed;
    }

    /// <summary>A payment came. Every amount has exactly the decimals of the order's currency.</summary>
    /// <param name="PaymentReference">What the payment is called where it was made; an order has it once.</param>
    /// <param name="Amount">What this payment brought; 0 when it named no amount and nothing was open.</param>
    /// <param name="TotalPaid">What all payments brought so far, this one included.</param>
    /// <param name="Due">What is still open; 0 when the total is reached or passed.</param>
    /// <param name="Overpaid">What was paid beyond the total; null when nothing was.</param>
    public sealed record PaymentReceived(string PaymentReference, decimal Amount, decimal TotalPaid, decimal Due, decimal? Overpaid) : OrderEvent
    {
        public override string Type => EventType.PaymentReceived;
        public override string RoutingKey => EventRoutingKey.PaymentReceived;
    }

    /// <summary>The payments reach the total: once for an order, right behind the payment that did it.</summary>
    /// <remarks>Versions before the event <see cref="PaymentReceived"/> wrote this one alone, for the only payment an order could have.</remarks>
    /// <param name="PaymentReference">The payment that reached the total.</param>
    /// <param name="Amount">What that payment brought, with exactly the decimals of the order's currency; old streams may lack it.</param>
    public sealed record Paid(string PaymentReference, decimal? Amount) : OrderEvent
    {
        public override string Type => EventType.Paid;
        public override string RoutingKey => EventRoutingKey.Paid;
    }

    public sealed record Shipped(string? Carrier, string? TrackingNumber) : OrderEvent
    {
        public override string Type => EventType.Shipped;
        public override string RoutingKey => EventRoutingKey.Shipped;
    }

    public sealed record Delivered : OrderEvent
    {
        public override string Type => EventType.Delivered;
        public override string RoutingKey => EventRoutingKey.Delivered;
    }

    public sealed record Cancelled(string Reason) : OrderEvent
    {
        public override string Type => EventType.Cancelled;
        public override string RoutingKey => EventRoutingKey.Cancelled;
    }
}

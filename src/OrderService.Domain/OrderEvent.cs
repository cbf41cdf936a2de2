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
    public const string PaymentAuthorized = "ORDER_PAYMENT_AUTHORIZED";
    public const string Refunded = "ORDER_REFUNDED";
    public const string PartlyShipped = "ORDER_PARTLY_SHIPPED";
    public const string ShipmentDelivered = "ORDER_SHIPMENT_DELIVERED";
    public const string Returned = "ORDER_RETURNED";
    public const string LinesCancelled = "ORDER_LINES_CANCELLED";
    public const string Amended = "ORDER_AMENDED";
    public const string Held = "ORDER_HELD";
    public const string Released = "ORDER_RELEASED";

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
    public const string PaymentAuthorized = "order.payment_authorized";
    public const string Refunded = "order.refunded";
    public const string PartlyShipped = "order.partly_shipped";
    public const string ShipmentDelivered = "order.shipment_delivered";
    public const string Returned = "order.returned";
    public const string LinesCancelled = "order.lines_cancelled";
    public const string Amended = "order.amended";
    public const string Held = "order.held";
    public const string Released = "order.released";
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
        EventType.PaymentAuthorized => PaymentAuthorized,
        EventType.Refunded => Refunded,
        EventType.PartlyShipped => PartlyShipped,
        EventType.ShipmentDelivered => ShipmentDelivered,
        EventType.Returned => Returned,
        EventType.LinesCancelled => LinesCancelled,
        EventType.Amended => Amended,
        EventType.Held => Held,
        EventType.Released => Released,
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
    /// <param name="TotalMinor">What the order costs, in minor units.</param>
    /// <param name="Personal">Stored under the customer's key; null where there is none, and where whoever read the event did not open it.</param>
    /// <param name="PlacedAt">When the customer ordered, by the shop's clock.</param>
    public sealed record Placed(
        string CustomerId, Currency Currency, IReadOnlyList<OrderLine> Lines, long TotalMinor, PersonalData? Personal, DateTimeOffset? PlacedAt)
        : OrderEvent
    {
        public override string Type => EventType.Placed;

        /// <summary>What the order has beyond its lines; null for a plain one.</summary>
        public OrderDetails? Details { get; init; }

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

        /// <summary>The authorization that it was captured of; null for any other payment.</summary>
        public string? Authorization { get; init; }
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

    /// <summary>All goods of the order are on their way.</summary>
    public sealed record Shipped(string? Carrier, string? TrackingNumber) : OrderEvent
    {
        public override string Type => EventType.Shipped;
        public override string RoutingKey => EventRoutingKey.Shipped;

        /// <summary>What the shipment is called, where it has a name.</summary>
        public string? ShipmentId { get; init; }

        /// <summary>What was in the last of several shipments, nothing when the rest was cancelled; null when the whole order was in one.</summary>
        public IReadOnlyList<LineQuantity>? Lines { get; init; }
    }

    public sealed record Delivered : OrderEvent
    {
        public override string Type => EventType.Delivered;
        public override string RoutingKey => EventRoutingKey.Delivered;

        /// <summary>The shipment that arrived last, where they are told one by one.</summary>
        public string? ShipmentId { get; init; }
    }

    public sealed record Cancelled(string Reason) : OrderEvent
    {
        public override string Type => EventType.Cancelled;
        public override string RoutingKey => EventRoutingKey.Cancelled;
    }

    /// <summary>Money is set aside for the order and may be captured.</summary>
    /// <param name="Amount">What this authorization allows.</param>
    /// <param name="TotalAuthorized">What all authorizations allow that was not captured.</param>
    public sealed record PaymentAuthorized(string PaymentReference, decimal Amount, decimal TotalAuthorized) : OrderEvent
    {
        public override string Type => EventType.PaymentAuthorized;
        public override string RoutingKey => EventRoutingKey.PaymentAuthorized;
    }

    /// <summary>Money went back.</summary>
    /// <param name="TotalRefunded">What all refunds took back so far, this one included.</param>
    /// <param name="PaymentReference">The payment it is of, where it was named.</param>
    public sealed record Refunded(string RefundReference, decimal Amount, decimal TotalRefunded, string? PaymentReference, string? Reason) : OrderEvent
    {
        public override string Type => EventType.Refunded;
        public override string RoutingKey => EventRoutingKey.Refunded;
    }

    /// <summary>A part of the goods left; more is to follow.</summary>
    public sealed record PartlyShipped(string ShipmentId, IReadOnlyList<LineQuantity> Lines, string? Carrier, string? TrackingNumber) : OrderEvent
    {
        public override string Type => EventType.PartlyShipped;
        public override string RoutingKey => EventRoutingKey.PartlyShipped;
    }

    /// <summary>One of several shipments arrived; others are still on their way or to come.</summary>
    public sealed record ShipmentDelivered(string ShipmentId) : OrderEvent
    {
        public override string Type => EventType.ShipmentDelivered;
        public override string RoutingKey => EventRoutingKey.ShipmentDelivered;
    }

    /// <summary>Goods came back.</summary>
    public sealed record Returned(string ReturnId, IReadOnlyList<LineQuantity> Lines, string Reason) : OrderEvent
    {
        public override string Type => EventType.Returned;
        public override string RoutingKey => EventRoutingKey.Returned;
    }

    /// <summary>A part of the goods will not be shipped.</summary>
    /// <param name="Amount">What the order costs less by it.</param>
    /// <param name="Total">What the order costs now.</param>
    public sealed record LinesCancelled(IReadOnlyList<LineQuantity> Lines, string Reason, decimal Amount, decimal Total) : OrderEvent
    {
        public override string Type => EventType.LinesCancelled;
        public override string RoutingKey => EventRoutingKey.LinesCancelled;
    }

    /// <summary>The order as it is from now on: its lines, and what it has beyond them.</summary>
    public sealed record Amended(Currency Currency, IReadOnlyList<OrderLine> Lines, long TotalMinor, OrderDetails? Details) : OrderEvent
    {
        public override string Type => EventType.Amended;
        public override string RoutingKey => EventRoutingKey.Amended;
    }

    /// <summary>Nothing is shipped until the order is released.</summary>
    public sealed record Held(string Reason) : OrderEvent
    {
        public override string Type => EventType.Held;
        public override string RoutingKey => EventRoutingKey.Held;
    }

    public sealed record Released : OrderEvent
    {
        public override string Type => EventType.Released;
        public override string RoutingKey => EventRoutingKey.Released;
    }
}

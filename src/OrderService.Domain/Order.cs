namespace OrderService.Domain;

/// <summary>An order as its stream tells it: the fold of its events. <see cref="Version"/> is the number of events folded.</summary>
public sealed record Order
{
    private Order(string orderId) => OrderId = orderId;

    public string OrderId { get; }

    public OrderStatus Status { get; private init; }

    /// <summary>The version of the last event; 0 when there is none.</summary>
    public long Version { get; private init; }

    public string? CustomerId { get; private init; }

    public Currency? Currency { get; private init; }

    public IReadOnlyList<OrderLine> Lines { get; private init; } = [];

    /// <summary>In minor units of <see cref="Currency"/>.</summary>
    public long TotalMinor { get; private init; }

    /// <summary>Personal data.</summary>
    public string? Email { get; private init; }

    public DateTimeOffset? PlacedAt { get; private init; }

    public string? PaymentReference { get; private init; }

    public decimal? PaidAmount { get; private init; }

    public string? Carrier { get; private init; }

    public string? TrackingNumber { get; private init; }

    public string? CancelReason { get; private init; }

    /// <summary>The order before its first event.</summary>
    public static Order None(string orderId) => new(orderId);

    /// <summary>What a stream's head alone tells: enough for <see cref="OrderDecider"/>, and nothing else is filled in.</summary>
    /// <param name="orderId">The order.</param>
    /// <param name="status">The status after the last event.</param>
    /// <param name="version">The version of the last event.</param>
    /// <param name="currency">The order's currency; null only for an order without events.</param>
    public static Order AtHead(string orderId, OrderStatus status, long version, Currency? currency) =>
        new(orderId) { Status = status, Version = version, Currency = currency };

    /// <summary>Folds a whole stream, oldest event first.</summary>
    public static Order Fold(string orderId, IEnumerable<OrderEvent> events)
    {
        ArgumentNullException.ThrowIfNull(events);

        var order = None(orderId);
        foreach (var happened in events)
        {
            order = order.Apply(happened);
        }

        return order;
    }

    /// <summary>The order after one more event. Events are facts: nothing is checked here, the decider did that.</summary>
    public Order Apply(OrderEvent happened) => happened switch
    {
        OrderEvent.Placed placed => this with
        {
            Status = OrderStatus.Placed,
            Version = Version + 1,
            CustomerId = placed.CustomerId,
            Currency = placed.Currency,
            Lines = placed.Lines,
            TotalMinor = placed.TotalMinor,
            Email = placed.Email,
            PlacedAt = placed.PlacedAt,
        },
        OrderEvent.Paid paid => this with
        {
            Status = OrderStatus.Paid,
            Version = Version + 1,
            PaymentReference = paid.PaymentReference,
            PaidAmount = paid.Amount,
        },
        OrderEvent.Shipped shipped => this with
        {
            Status = OrderStatus.Shipped,
            Version = Version + 1,
            Carrier = shipped.Carrier,
            TrackingNumber = shipped.TrackingNumber,
        },
        OrderEvent.Delivered => this with { Status = OrderStatus.Delivered, Version = Version + 1 },
        OrderEvent.Cancelled cancelled => this with
        {
            Status = OrderStatus.Cancelled,
            Version = Version + 1,
            CancelReason = cancelled.Reason,
        },
        _ => throw new ArgumentOutOfRangeException(nameof(happened), "There is no such event."),
    };
}

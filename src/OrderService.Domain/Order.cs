using System.Collections.Immutable;

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

    /// <summary>The payment that came last.</summary>
    public string? PaymentReference { get; private init; }

    /// <summary>What each payment brought, by its reference; null where that was not read (see <see cref="AtHead"/>).</summary>
    public ImmutableDictionary<string, long>? Payments { get; private init; }

    /// <summary>What all payments brought, in minor units.</summary>
    public long PaidMinor { get; private init; }

    /// <summary>What is still open, in minor units.</summary>
    public long DueMinor => Math.Max(0, TotalMinor - PaidMinor);

    /// <summary>What was paid beyond the total, in minor units.</summary>
    public long OverpaidMinor => Math.Max(0, PaidMinor - TotalMinor);

    /// <summary>The stream says that the order is paid. It stays said when the order is shipped or cancelled.</summary>
    public bool IsPaid { get; private init; }

    public string? Carrier { get; private init; }

    public string? TrackingNumber { get; private init; }

    public string? CancelReason { get; private init; }

    /// <summary>The order before its first event.</summary>
    public static Order None(string orderId) => new(orderId) { Payments = NoPayments };

    /// <summary>
    /// What a stream's head alone tells: enough for <see cref="OrderDecider"/>, and nothing else is filled in.
    /// For a payment it also takes <see cref="WithPayments"/>.
    /// </summary>
    /// <param name="orderId">The order.</param>
    /// <param name="status">The status after the last event.</param>
    /// <param name="version">The version of the last event.</param>
    /// <param name="currency">The order's currency; null only for an order without events.</param>
    /// <param name="totalMinor">What the order costs, in minor units.</param>
    public static Order AtHead(string orderId, OrderStatus status, long version, Currency? currency, long totalMinor) =>
        new(orderId) { Status = status, Version = version, Currency = currency, TotalMinor = totalMinor };

    /// <summary>A head and what was paid: the stream's events of payments, oldest first.</summary>
    public Order WithPayments(IEnumerable<OrderEvent> payments)
    {
        ArgumentNullException.ThrowIfNull(payments);

        var order = this with { Payments = NoPayments, PaidMinor = 0, IsPaid = false };
        foreach (var payment in payments)
        {
            order = order.Apply(payment);
        }

        // The head has counted these events already.
        return order with { Version = Version, Status = Status };
    }

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
        OrderEvent.PaymentReceived payment => WithPayment(payment.PaymentReference, Minor(payment.Amount)) with { Version = Version + 1 },
        OrderEvent.Paid paid => Settled(paid) with { Version = Version + 1 },
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

    private static readonly ImmutableDictionary<string, long> NoPayments = ImmutableDictionary.Create<string, long>(StringComparer.Ordinal);

    // A shipped order stays shipped, whenever its payment comes.
    private Order Settled(OrderEvent.Paid paid) => Counted(paid) with
    {
        IsPaid = true,
        Status = Status == OrderStatus.Placed ? OrderStatus.Paid : Status,
    };

    /// <summary>
    /// The payment behind an <c>ORDER_PAID</c> has an event of its own in front of it. Old streams lack that one: there the order counts
    /// as paid in full, whatever amount was named.
    /// </summary>
    private Order Counted(OrderEvent.Paid paid)
    {
        if (Payments is not null && Payments.ContainsKey(paid.PaymentReference))
        {
            return this;
        }

        var amount = paid.Amount is { } named ? Minor(named) : TotalMinor;
        var counted = WithPayment(paid.PaymentReference, amount);
        return counted with { PaidMinor = Math.Max(counted.PaidMinor, TotalMinor) };
    }

    private Order WithPayment(string reference, long amountMinor) => this with
    {
        PaymentReference = reference,
        Payments = Payments?.SetItem(reference, amountMinor),
        PaidMinor = PaidMinor + amountMinor,
    };

    // The decider lets only amounts through that fit; what fits no currency counts as nothing.
    private long Minor(decimal amount) => Currency is { } currency && Money.TryToMinor(amount, currency, out var minor) ? minor : 0;
}

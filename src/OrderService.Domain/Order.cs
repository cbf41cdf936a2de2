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

    /// <summary>What the order has beyond its lines; null for a plain one.</summary>
    public OrderDetails? Details { get; private init; }

    /// <summary>In minor units of <see cref="Currency"/>.</summary>
    public long TotalMinor { get; private init; }

    /// <summary>Null where there is none, and where whoever read the stream did not open it.</summary>
    public PersonalData? Personal { get; private init; }

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

    /// <summary>What befell it beyond the plain course; null where nothing did, or where it was not read (see <see cref="AtHead"/>).</summary>
    public OrderProgress? Progress { get; private init; }

    /// <summary>The head of its stream is not enough to decide on it: its stream has events beyond the plain course.</summary>
    public bool NeedsStream { get; private init; }

    /// <summary>It is the fold of a whole stream.</summary>
    public bool IsWhole { get; private init; }

    public PaymentStatus PaymentStatus => Payments is null ? PaymentAtHead : PaymentNow;

    public FulfillmentStatus FulfillmentStatus => Progress is { } progress && (progress.Shipments.Count > 0 || progress.Cancelled.Count > 0)
        ? Fulfilled(progress)
        : Status is OrderStatus.Shipped or OrderStatus.Delivered ? FulfillmentStatus.Fulfilled : FulfillmentStatus.Unfulfilled;

    public bool IsHeld => Progress is { IsHeld: true };

    /// <summary>Money is missing: for a plain order its status says so.</summary>
    public bool IsPaymentDue => TotalMinor > 0 && (Payments is null ? Status == OrderStatus.Placed : DueMinor > 0);

    /// <summary>Where the pieces of each line are. Only of a whole order.</summary>
    public IReadOnlyList<LineGoods> Goods => (Progress ?? OrderProgress.None).GoodsOf(Lines);

    public string? Carrier { get; private init; }

    public string? TrackingNumber { get; private init; }

    public string? CancelReason { get; private init; }

    /// <summary>The order before its first event.</summary>
    public static Order None(string orderId) => new(orderId) { Payments = NoPayments, IsWhole = true };

    /// <summary>
    /// What a stream's head alone tells: enough for <see cref="OrderDecider"/>, and nothing else is filled in.
    /// For a payment it also takes <see cref="WithPayments"/>.
    /// </summary>
    /// <param name="orderId">The order.</param>
    /// <param name="status">The status after the last event.</param>
    /// <param name="version">The version of the last event.</param>
    /// <param name="currency">The order's currency; null only for an order without events.</param>
    /// <param name="totalMinor">What the order costs, in minor units.</param>
    /// <param name="payment">How much of it is paid.</param>
    public static Order AtHead(string orderId, OrderStatus status, long version, Currency? currency, long totalMinor, PaymentStatus payment = PaymentStatus.Unpaid) =>
        new(orderId) { Status = status, Version = version, Currency = currency, TotalMinor = totalMinor, PaymentAtHead = payment };

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
            Details = placed.Details,
            TotalMinor = placed.TotalMinor,
            Personal = placed.Personal,
            PlacedAt = placed.PlacedAt,
        },
        OrderEvent.PaymentReceived payment => Received(payment) with { Version = Version + 1 },
        OrderEvent.Paid paid => Settled(paid) with { Version = Version + 1 },
        OrderEvent.Shipped shipped => WithLastShipment(shipped) with
        {
            Status = OrderStatus.Shipped,
            Version = Version + 1,
            Carrier = shipped.Carrier ?? Carrier,
            TrackingNumber = shipped.TrackingNumber ?? TrackingNumber,
        },
        OrderEvent.Delivered => this with { Status = OrderStatus.Delivered, Version = Version + 1, Progress = Progress?.AllDelivered() },
        OrderEvent.Cancelled cancelled => this with
        {
            Status = OrderStatus.Cancelled,
            Version = Version + 1,
            CancelReason = cancelled.Reason,
        },
        _ => Beyond(happened) with { Version = Version + 1, NeedsStream = true },
    };

    /// <summary>The events beyond the plain course.</summary>
    private Order Beyond(OrderEvent happened) => happened switch
    {
        OrderEvent.Amended amended => this with { Lines = amended.Lines, Details = amended.Details, TotalMinor = amended.TotalMinor },
        OrderEvent.LinesCancelled cancelled => this with { TotalMinor = Minor(cancelled.Total), Progress = (Progress ?? OrderProgress.None).Cancel(cancelled.Lines) },
        OrderEvent.PartlyShipped shipped => this with
        {
            Carrier = shipped.Carrier ?? Carrier,
            TrackingNumber = shipped.TrackingNumber ?? TrackingNumber,
            Progress = (Progress ?? OrderProgress.None).Ship(new Shipment(shipped.ShipmentId, shipped.Lines, shipped.Carrier, shipped.TrackingNumber, false)),
        },
        _ when (Progress ?? OrderProgress.None).Apply(happened, Minor) is { } progress => this with { Progress = progress },
        _ => throw new ArgumentOutOfRangeException(nameof(happened), "There is no such event."),
    };

    private static readonly ImmutableDictionary<string, long> NoPayments = ImmutableDictionary.Create<string, long>(StringComparer.Ordinal);

    private PaymentStatus PaymentAtHead { get; init; }

    private PaymentStatus PaymentNow => Progress is { RefundedMinor: > 0 and var refunded }
        ? refunded >= PaidMinor ? PaymentStatus.Refunded : PaymentStatus.PartlyRefunded
        : PaidMinor > TotalMinor ? PaymentStatus.Overpaid
        : PaidMinor == TotalMinor ? PaymentStatus.Paid
        : PaidMinor > 0 ? PaymentStatus.PartlyPaid
        : Progress is { AuthorizedMinor: > 0 } ? PaymentStatus.Authorized : PaymentStatus.Unpaid;

    private FulfillmentStatus Fulfilled(OrderProgress progress)
    {
        long open = 0, shipped = 0, returned = 0;
        foreach (var line in progress.GoodsOf(Lines))
        {
            open += line.Open;
            shipped += line.Shipped;
            returned += line.Returned;
        }

        return returned > 0 ? returned == shipped && open == 0 ? FulfillmentStatus.Returned : FulfillmentStatus.PartlyReturned
            : shipped == 0 ? FulfillmentStatus.Unfulfilled
            : open == 0 ? FulfillmentStatus.Fulfilled : FulfillmentStatus.PartlyFulfilled;
    }

    /// <summary>See <see cref="OrderProgress.NextShipmentId"/>.</summary>
    public string NextShipmentId() => (Progress ?? OrderProgress.None).NextShipmentId();

    /// <summary>The shipment of that name; null when there is none.</summary>
    public Shipment? Shipment(string shipmentId) => Progress?.Shipments.Find(shipment => shipment.ShipmentId == shipmentId);

    // Of a plain order the lines are known only where the whole stream was read, and only there somebody asks for them.
    private Order WithLastShipment(OrderEvent.Shipped shipped)
    {
        if (!IsWhole || shipped.Lines is { Count: 0 })
        {
            return this;
        }

        var progress = Progress ?? OrderProgress.None;
        var lines = shipped.Lines ?? [.. progress.GoodsOf(Lines).Where(line => line.Open > 0).Select(line => new LineQuantity(line.LineId, line.Open))];
        return this with
        {
            Progress = progress.Ship(new Shipment(shipped.ShipmentId ?? progress.NextShipmentId(), lines, shipped.Carrier, shipped.TrackingNumber, false)),
        };
    }

    private Order Received(OrderEvent.PaymentReceived payment)
    {
        var amount = Minor(payment.Amount);
        var order = WithPayment(payment.PaymentReference, amount);
        return payment.Authorization is { } authorization && order.Progress is { } progress
            ? order with { Progress = progress with { Captured = progress.Captured.SetItem(authorization, progress.Captured.GetValueOrDefault(authorization) + amount) } }
            : order;
    }

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

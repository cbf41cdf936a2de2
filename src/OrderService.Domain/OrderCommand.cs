namespace OrderService.Domain;

/// <summary>The commands' names in the AMQP property <c>type</c>.</summary>
public static class CommandType
{
    public const string Place = "order.place";
    public const string Authorize = "order.authorize";
    public const string Capture = "order.capture";
    public const string Pay = "order.pay";
    public const string Amend = "order.amend";
    public const string Hold = "order.hold";
    public const string Release = "order.release";
    public const string Ship = "order.ship";
    public const string Deliver = "order.deliver";
    public const string Return = "order.return";
    public const string Cancel = "order.cancel";
    public const string Refund = "order.refund";

    /// <summary>All of them, in the order of an order's life: so early ones are decided (<see cref="OrderCommand.LifecycleRank"/>).</summary>
    public static IReadOnlyList<string> All { get; } = [Place, Authorize, Capture, Pay, Amend, Hold, Release, Ship, Deliver, Return, Cancel, Refund];

    // Plain comparisons first: nearly every message is one of these.
    public static bool IsKnown(string? type) => type is Place or Pay or Ship or Deliver or Cancel || (type is not null && All.Contains(type));
}

/// <summary>One position of an order.</summary>
/// <param name="Sku">What is bought: <c>[A-Za-z0-9._-]{1,64}</c>.</param>
/// <param name="Quantity">Pieces, 1 to 1,000,000.</param>
/// <param name="UnitPriceMinor">The price of one piece in minor units of the order's currency, 0 to <see cref="Money.MaxMinor"/>.</param>
public readonly record struct OrderLine(string Sku, int Quantity, long UnitPriceMinor)
{
    /// <summary>What else the shop said about it; null for most.</summary>
    public LineDetails? Details { get; init; }
}

/// <summary>What somebody wants done to an order. There is no other command.</summary>
public abstract record OrderCommand
{
    private OrderCommand(string orderId) => OrderId = orderId;

    /// <summary>The order it is about: <c>[A-Za-z0-9._-]{1,64}</c>.</summary>
    public string OrderId { get; }

    /// <summary>The version the sender saw; the command is refused when the order is at another. Null where it does not matter.</summary>
    public long? ExpectedVersion { get; init; }

    /// <summary>The name on the wire, one of <see cref="CommandType"/>.</summary>
    public abstract string Type { get; }

    /// <summary>
    /// Commands that came before their order are decided in this order once it appears, whatever order they came in: as
    /// <see cref="CommandType.All"/> has them, but cancelled lines before what is left is shipped.
    /// The command that places an order has -1: it is what the others wait for.
    /// </summary>
    public abstract int LifecycleRank { get; }

    /// <summary>The head of the stream is not enough to decide it.</summary>
    public virtual bool NeedsStream => false;

    /// <param name="OrderId">The order to create.</param>
    /// <param name="CustomerId">Who buys.</param>
    /// <param name="Currency">The currency of every amount.</param>
    /// <param name="Lines">1 to 500 positions.</param>
    /// <param name="Personal">Who it is for and where to; null where the message says nothing of it.</param>
    /// <param name="PlacedAt">When the customer ordered, by the shop's clock.</param>
    public sealed record Place(
        string OrderId, string CustomerId, Currency Currency, IReadOnlyList<OrderLine> Lines, PersonalData? Personal, DateTimeOffset? PlacedAt)
        : OrderCommand(OrderId)
    {
        public override string Type => CommandType.Place;

        /// <summary>What the shop said beyond the lines; null where it said nothing.</summary>
        public OrderDetails? Details { get; init; }

        /// <summary>Nothing but articles, quantities and prices.</summary>
        public bool IsPlain => Pricing.IsPlain(Lines, Details);

        public override int LifecycleRank => -1;
    }

    /// <param name="OrderId">The order that was paid.</param>
    /// <param name="PaymentReference">What the payment is called where it was made.</param>
    /// <param name="Amount">What was paid, in the order's currency; its decimals are checked when the command is decided.</param>
    public sealed record Pay(string OrderId, string PaymentReference, decimal? Amount) : OrderCommand(OrderId)
    {
        public override string Type => CommandType.Pay;
        public override int LifecycleRank => 1;
    }

    /// <param name="ShipmentId">What the shipment is called; numbered when null.</param>
    /// <param name="Lines">What is in it; all that is open when null.</param>
    public sealed record Ship(string OrderId, string? Carrier, string? TrackingNumber, string? ShipmentId = null, IReadOnlyList<LineQuantity>? Lines = null) : OrderCommand(OrderId)
    {
        public override string Type => CommandType.Ship;
        public override int LifecycleRank => 5;
        public override bool NeedsStream => !IsPlain;

        /// <summary>All that is open, as it was always shipped.</summary>
        public bool IsPlain => ShipmentId is null && Lines is null;
    }

    /// <param name="ShipmentId">The shipment that arrived; the whole order when null.</param>
    public sealed record Deliver(string OrderId, string? ShipmentId = null) : OrderCommand(OrderId)
    {
        public override string Type => CommandType.Deliver;
        public override int LifecycleRank => 6;
        public override bool NeedsStream => ShipmentId is not null;
    }

    /// <param name="Lines">What is cancelled; the whole order when null.</param>
    public sealed record Cancel(string OrderId, string Reason, IReadOnlyList<LineQuantity>? Lines = null) : OrderCommand(OrderId)
    {
        public override string Type => CommandType.Cancel;
        public override int LifecycleRank => Lines is null ? 8 : 2;
        public override bool NeedsStream => Lines is not null;
    }

    /// <param name="PaymentReference">What the authorization is called where it was made.</param>
    public sealed record Authorize(string OrderId, string PaymentReference, decimal Amount) : OrderCommand(OrderId)
    {
        public override string Type => CommandType.Authorize;
        public override int LifecycleRank => 0;
        public override bool NeedsStream => true;
    }

    /// <param name="PaymentReference">The authorization.</param>
    /// <param name="CaptureReference">What the payment is called; as the authorization when null.</param>
    /// <param name="Amount">All that is left of the authorization when null.</param>
    public sealed record Capture(string OrderId, string PaymentReference, string? CaptureReference, decimal? Amount) : OrderCommand(OrderId)
    {
        public override string Type => CommandType.Capture;
        public override int LifecycleRank => 1;
        public override bool NeedsStream => true;
    }

    /// <param name="RefundReference">What the refund is called where it was made.</param>
    /// <param name="PaymentReference">The payment it is of; of all when null.</param>
    public sealed record Refund(string OrderId, string RefundReference, decimal Amount, string? PaymentReference, string? Reason) : OrderCommand(OrderId)
    {
        public override string Type => CommandType.Refund;
        public override int LifecycleRank => 9;
        public override bool NeedsStream => true;
    }

    /// <summary>Changes what is ordered, as long as nothing was shipped or cancelled; what is null stays as it is.</summary>
    public sealed record Amend(
        string OrderId, IReadOnlyList<AmendedLine>? Lines, IReadOnlyList<KeyValuePair<string, string>>? Attributes, decimal? ShippingCost, IReadOnlyList<Discount>? Discounts, decimal? Total)
        : OrderCommand(OrderId)
    {
        public override string Type => CommandType.Amend;
        public override int LifecycleRank => 2;
        public override bool NeedsStream => true;
    }

    public sealed record Hold(string OrderId, string Reason) : OrderCommand(OrderId)
    {
        public override string Type => CommandType.Hold;
        public override int LifecycleRank => 3;
        public override bool NeedsStream => true;
    }

    public sealed record Release(string OrderId) : OrderCommand(OrderId)
    {
        public override string Type => CommandType.Release;
        public override int LifecycleRank => 4;
        public override bool NeedsStream => true;
    }

    /// <param name="Lines">At least one.</param>
    public sealed record Return(string OrderId, string ReturnId, IReadOnlyList<LineQuantity> Lines, string Reason) : OrderCommand(OrderId)
    {
        public override string Type => CommandType.Return;
        public override int LifecycleRank => 7;
        public override bool NeedsStream => true;
    }
}

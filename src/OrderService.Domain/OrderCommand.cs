namespace OrderService.Domain;

/// <summary>The commands' names in the AMQP property <c>type</c>.</summary>
public static class CommandType
{
    public const string Place = "order.place";
    public const string Pay = "order.pay";
    public const string Ship = "order.ship";
    public const string Deliver = "order.deliver";
    public const string Cancel = "order.cancel";

    /// <summary>All five, in the order of an order's life.</summary>
    public static IReadOnlyList<string> All { get; } = [Place, Pay, Ship, Deliver, Cancel];

    public static bool IsKnown(string? type) => type is Place or Pay or Ship or Deliver or Cancel;
}

/// <summary>One position of an order.</summary>
/// <param name="Sku">What is bought: <c>[A-Za-z0-9._-]{1,64}</c>.</param>
/// <param name="Quantity">Pieces, 1 to 1,000,000.</param>
/// <param name="UnitPriceMinor">The price of one piece in minor units of the order's currency, 0 to <see cref="Money.MaxMinor"/>.</param>
public readonly record struct OrderLine(string Sku, int Quantity, long UnitPriceMinor);

/// <summary>What somebody wants done to an order. There is no sixth command.</summary>
public abstract record OrderCommand
{
    private OrderCommand(string orderId) => OrderId = orderId;

    /// <summary>The order it is about: <c>[A-Za-z0-9._-]{1,64}</c>.</summary>
    public string OrderId { get; }

    /// <summary>The name on the wire, one of <see cref="CommandType"/>.</summary>
    public abstract string Type { get; }

    /// <summary>
    /// Commands that came before their order are decided in this order once it appears, whatever order they came in: pay 0, ship 1,
    /// deliver 2, cancel 3. The command that places an order has -1: it is what the others wait for.
    /// </summary>
    public abstract int LifecycleRank { get; }

    /// <param name="OrderId">The order to create.</param>
    /// <param name="CustomerId">Who buys.</param>
    /// <param name="Currency">The currency of every amount.</param>
    /// <param name="Lines">1 to 500 positions.</param>
    /// <param name="Email">Personal data: stored with the order, never logged, never published.</param>
    /// <param name="PlacedAt">When the customer ordered, by the shop's clock.</param>
    public sealed record Place(
        string OrderId, string CustomerId, Currency Currency, IReadOnlyList<OrderLine> Lines, string? Email, DateTimeOffset? PlacedAt)
        : OrderCommand(OrderId)
    {
        public override string Type => CommandType.Place;
        public override int LifecycleRank => -1;
    }

    /// <param name="OrderId">The order that was paid.</param>
    /// <param name="PaymentReference">What the payment is called where it was made.</param>
    /// <param name="Amount">What was paid, in the order's currency; its decimals are checked when the command is decided.</param>
    public sealed record Pay(string OrderId, string PaymentReference, decimal? Amount) : OrderCommand(OrderId)
    {
        public override string Type => CommandType.Pay;
        public override int LifecycleRank => 0;
    }

    public sealed record Ship(string OrderId, string? Carrier, string? TrackingNumber) : OrderCommand(OrderId)
    {
        public override string Type => CommandType.Ship;
        public override int LifecycleRank => 1;
    }

    public sealed record Deliver(string OrderId) : OrderCommand(OrderId)
    {
        public override string Type => CommandType.Deliver;
        public override int LifecycleRank => 2;
    }

    public sealed record Cancel(string OrderId, string Reason) : OrderCommand(OrderId)
    {
        public override string Type => CommandType.Cancel;
        public override int LifecycleRank => 3;
    }
}

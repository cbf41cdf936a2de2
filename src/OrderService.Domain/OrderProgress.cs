using System.Collections.Immutable;

namespace OrderService.Domain;

/// <summary>Goods on their way.</summary>
/// <param name="Lines">What is in it.</param>
public sealed record Shipment(string ShipmentId, IReadOnlyList<LineQuantity> Lines, string? Carrier, string? TrackingNumber, bool IsDelivered);

/// <summary>Goods that came back.</summary>
public sealed record GoodsReturn(string ReturnId, IReadOnlyList<LineQuantity> Lines, string Reason);

/// <summary>Money that went back.</summary>
/// <param name="PaymentReference">The payment it is of, where it was named.</param>
public sealed record Refund(string RefundReference, long AmountMinor, string? PaymentReference, string? Reason);

/// <summary>Where the pieces of a line are.</summary>
public readonly record struct LineGoods(string LineId, int Ordered, int Cancelled, int Shipped, int Returned)
{
    /// <summary>Still to be shipped.</summary>
    public int Open => Ordered - Cancelled - Shipped;
}

/// <summary>What befell an order beyond the plain course from placed to delivered.</summary>
public sealed record OrderProgress
{
    // Before None, which is made of them.
    private static readonly ImmutableDictionary<string, int> NoPieces = ImmutableDictionary.Create<string, int>(StringComparer.Ordinal);
    private static readonly ImmutableDictionary<string, long> NoAmounts = ImmutableDictionary.Create<string, long>(StringComparer.Ordinal);

    public static OrderProgress None { get; } = new();

    public ImmutableList<Shipment> Shipments { get; init; } = [];

    public ImmutableList<GoodsReturn> Returns { get; init; } = [];

    public ImmutableList<Refund> Refunds { get; init; } = [];

    /// <summary>Pieces that were cancelled, by line.</summary>
    public ImmutableDictionary<string, int> Cancelled { get; init; } = NoPieces;

    /// <summary>What may be captured, by the reference of the payment; in minor units.</summary>
    public ImmutableDictionary<string, long> Authorized { get; init; } = NoAmounts;

    /// <summary>What was captured of that.</summary>
    public ImmutableDictionary<string, long> Captured { get; init; } = NoAmounts;

    /// <summary>Nothing is shipped until it is released.</summary>
    public bool IsHeld { get; init; }

    public string? HoldReason { get; init; }

    public long RefundedMinor => Refunds.Sum(refund => refund.AmountMinor);

    /// <summary>What is authorized and not captured.</summary>
    public long AuthorizedMinor => Authorized.Sum(pair => Math.Max(0, pair.Value - Captured.GetValueOrDefault(pair.Key)));

    /// <summary>Where the pieces of each line are.</summary>
    public IReadOnlyList<LineGoods> GoodsOf(IReadOnlyList<OrderLine> lines)
    {
        ArgumentNullException.ThrowIfNull(lines);

        var shipped = Sum(Shipments.SelectMany(shipment => shipment.Lines));
        var returned = Sum(Returns.SelectMany(back => back.Lines));
        var goods = new LineGoods[lines.Count];
        for (var index = 0; index < goods.Length; index++)
        {
            var id = LineIds.Of(lines, index);
            goods[index] = new LineGoods(id, lines[index].Quantity, Cancelled.GetValueOrDefault(id), shipped.GetValueOrDefault(id), returned.GetValueOrDefault(id));
        }

        return goods;
    }

    /// <summary>A number that no shipment has yet, counted from 1.</summary>
    public string NextShipmentId()
    {
        for (var number = Shipments.Count + 1; ; number++)
        {
            var id = number.ToString(System.Globalization.CultureInfo.InvariantCulture);
            if (!Shipments.Exists(shipment => shipment.ShipmentId == id))
            {
                return id;
            }
        }
    }

    internal OrderProgress Ship(Shipment shipment) => this with { Shipments = Shipments.Add(shipment) };

    internal OrderProgress AllDelivered() => this with { Shipments = Shipments.ConvertAll(shipment => shipment with { IsDelivered = true }) };

    internal OrderProgress Cancel(IReadOnlyList<LineQuantity> lines)
    {
        var cancelled = Cancelled;
        foreach (var (id, quantity) in lines)
        {
            cancelled = cancelled.SetItem(id, cancelled.GetValueOrDefault(id) + quantity);
        }

        return this with { Cancelled = cancelled };
    }

    /// <summary>What follows from events that change nothing but this; null for any other.</summary>
    internal OrderProgress? Apply(OrderEvent happened, Func<decimal, long> minor) => happened switch
    {
        OrderEvent.PaymentAuthorized authorized => this with { Authorized = Authorized.SetItem(authorized.PaymentReference, minor(authorized.Amount)) },
        OrderEvent.Refunded refunded => this with
        {
            Refunds = Refunds.Add(new Refund(refunded.RefundReference, minor(refunded.Amount), refunded.PaymentReference, refunded.Reason)),
        },
        OrderEvent.ShipmentDelivered delivered => this with
        {
            Shipments = Shipments.ConvertAll(shipment => shipment.ShipmentId == delivered.ShipmentId ? shipment with { IsDelivered = true } : shipment),
        },
        OrderEvent.Returned returned => this with { Returns = Returns.Add(new GoodsReturn(returned.ReturnId, returned.Lines, returned.Reason)) },
        OrderEvent.Held held => this with { IsHeld = true, HoldReason = held.Reason },
        OrderEvent.Released => this with { IsHeld = false, HoldReason = null },
        _ => null,
    };

    private static Dictionary<string, int> Sum(IEnumerable<LineQuantity> quantities)
    {
        var sum = new Dictionary<string, int>(StringComparer.Ordinal);
        foreach (var (id, quantity) in quantities)
        {
            sum[id] = sum.GetValueOrDefault(id) + quantity;
        }

        return sum;
    }
}

/// <summary>How much of an order is paid. The numbers are stored.</summary>
public enum PaymentStatus
{
    Unpaid = 0,
    Paid = 1,
    Authorized = 2,
    PartlyPaid = 3,
    Overpaid = 4,
    PartlyRefunded = 5,
    Refunded = 6,
}

/// <summary>How much of an order is with the customer. The numbers are stored.</summary>
public enum FulfillmentStatus
{
    Unfulfilled = 0,
    Fulfilled = 1,
    PartlyFulfilled = 2,
    PartlyReturned = 3,
    Returned = 4,
}

/// <summary>Both as they are written: lower case, words joined by underscores.</summary>
public static class PartialStatusNames
{
    private static readonly (PaymentStatus Status, string Name)[] payment =
    [
        (PaymentStatus.Unpaid, "unpaid"), (PaymentStatus.Authorized, "authorized"), (PaymentStatus.PartlyPaid, "partly_paid"), (PaymentStatus.Paid, "paid"),
        (PaymentStatus.Overpaid, "overpaid"), (PaymentStatus.PartlyRefunded, "partly_refunded"), (PaymentStatus.Refunded, "refunded"),
    ];

    private static readonly (FulfillmentStatus Status, string Name)[] fulfillment =
    [
        (FulfillmentStatus.Unfulfilled, "unfulfilled"), (FulfillmentStatus.PartlyFulfilled, "partly_fulfilled"), (FulfillmentStatus.Fulfilled, "fulfilled"),
        (FulfillmentStatus.PartlyReturned, "partly_returned"), (FulfillmentStatus.Returned, "returned"),
    ];

    public static IReadOnlyList<string> Payment { get; } = [.. payment.Select(pair => pair.Name)];

    public static IReadOnlyList<string> Fulfillment { get; } = [.. fulfillment.Select(pair => pair.Name)];

    public static string ToWire(this PaymentStatus status) => payment.First(pair => pair.Status == status).Name;

    public static string ToWire(this FulfillmentStatus status) => fulfillment.First(pair => pair.Status == status).Name;

    public static PaymentStatus? ParsePayment(string name) => payment.Where(pair => pair.Name == name).Select(pair => (PaymentStatus?)pair.Status).FirstOrDefault();

    public static FulfillmentStatus? ParseFulfillment(string name) => fulfillment.Where(pair => pair.Name == name).Select(pair => (FulfillmentStatus?)pair.Status).FirstOrDefault();
}

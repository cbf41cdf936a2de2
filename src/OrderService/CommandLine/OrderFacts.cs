using System.Globalization;
using OrderService.Domain;

namespace OrderService.CommandLine;

/// <summary>An order's lines, money and goods as <c>order show</c> prints them. Of texts from outside only ids: nothing that a terminal would obey.</summary>
internal static class OrderFacts
{
    private const int MostLines = 20;

    public static IEnumerable<string> Of(Order order)
    {
        if (order.Currency is not { } currency)
        {
            return [];
        }
        return
        [
            $"customer {order.CustomerId}, {Count(order.Lines.Count, "line")}, {Money.Format(order.TotalMinor, currency)} {currency}",
            .. Lines(order, currency),
            .. Payments(order, currency),
            .. Goods(order),
        ];
    }

    private static IEnumerable<string> Lines(Order order, Currency currency)
    {
        var goods = order.Goods;
        for (var index = 0; index < Math.Min(MostLines, order.Lines.Count); index++)
        {
            var (line, where) = (order.Lines[index], goods[index]);
            var moved = string.Join(", ", new[] { (where.Shipped, "shipped"), (where.Cancelled, "cancelled"), (where.Returned, "returned") }.Where(part => part.Item1 > 0 && part.Item1 < line.Quantity)
                .Select(part => string.Create(CultureInfo.InvariantCulture, $"{part.Item1} {part.Item2}")));
            yield return string.Create(CultureInfo.InvariantCulture, $"{line.Quantity,7} x {line.Sku,-24} {Money.Format(line.UnitPriceMinor, currency),14}{(moved.Length == 0 ? "" : "  " + moved)}");
        }
        if (order.Lines.Count > MostLines)
        {
            yield return $"and {order.Lines.Count - MostLines} more lines";
        }
    }

    private static IEnumerable<string> Payments(Order order, Currency currency)
    {
        if (order.Payments is { Count: > 0 } payments)
        {
            var over = order.OverpaidMinor > 0 ? $", {Money.Format(order.OverpaidMinor, currency)} overpaid" : "";
            yield return $"paid {Money.Format(order.PaidMinor, currency)} {currency} in {Count(payments.Count, "payment")}, due {Money.Format(order.DueMinor, currency)}{over}";
        }
        if (order.Progress is { AuthorizedMinor: > 0 and var authorized })
        {
            yield return $"{Money.Format(authorized, currency)} {currency} may be captured";
        }
        if (order.Progress is { Refunds: { Count: > 0 } refunds } progress)
        {
            yield return $"refunded {Money.Format(progress.RefundedMinor, currency)} {currency} in {Count(refunds.Count, "refund")}";
        }
    }

    private static IEnumerable<string> Goods(Order order)
    {
        if (order.NeedsStream)
        {
            yield return $"payment {Words(order.PaymentStatus.ToWire())}, goods {Words(order.FulfillmentStatus.ToWire())}{(order.IsHeld ? ", held" : "")}";
        }
        foreach (var shipment in order.NeedsStream && order.Progress is { } progress ? progress.Shipments : [])
        {
            yield return $"shipment {shipment.ShipmentId}: {Pieces(shipment.Lines)}{(shipment.IsDelivered ? ", delivered" : "")}";
        }
        foreach (var back in order.Progress?.Returns ?? [])
        {
            yield return $"return {back.ReturnId}: {Pieces(back.Lines)}";
        }
    }

    private static string Pieces(IReadOnlyList<LineQuantity> lines) => string.Join(", ", lines.Select(line => string.Create(CultureInfo.InvariantCulture, $"{line.Quantity} of line {line.LineId}")));

    private static string Words(string status) => status.Replace('_', ' ');

    private static string Count(int count, string one) => string.Create(CultureInfo.InvariantCulture, $"{count} {one}{(count == 1 ? "" : "s")}");
}

using System.Globalization;
using OrderService.Domain;

namespace OrderService.Notifications;

/// <summary>An order's lines and how they add up to its total, for the customer.</summary>
internal static class OrderSum
{
    public static IEnumerable<string> Of(OrderEvent.Placed placed)
    {
        var code = placed.Currency.Code;
        foreach (var line in placed.Lines)
        {
            yield return Text($"  {line.Quantity} x {line.Details?.Name ?? line.Sku}  {Money.ToDecimal(line.UnitPriceMinor, placed.Currency)} {code}");
            if (line.Details?.Discount is > 0 and var discount)
            {
                yield return Text($"    less {discount} {code}");
            }
        }
        yield return "";
        if (placed.Details is { } details)
        {
            foreach (var extra in Extras(details, code))
            {
                yield return extra;
            }
        }
        yield return Text($"Total: {Money.ToDecimal(placed.TotalMinor, placed.Currency)} {code}");
        foreach (var tax in placed.Details?.Taxes.Where(tax => tax.Included) ?? [])
        {
            yield return Text($"  of which tax ({tax.Rate} %): {tax.Amount} {code}");
        }
    }

    private static IEnumerable<string> Extras(OrderDetails details, string code)
    {
        if (details.ShippingCost is { } cost)
        {
            yield return Text($"Shipping: {cost} {code}");
        }
        foreach (var discount in details.Discounts)
        {
            yield return Text($"Discount{(discount.Code is null ? "" : $" {discount.Code}")}: -{discount.Amount} {code}");
        }
        foreach (var tax in details.Taxes.Where(tax => !tax.Included))
        {
            yield return Text($"Tax ({tax.Rate} %): {tax.Amount} {code}");
        }
    }

    private static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}

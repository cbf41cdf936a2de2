namespace OrderService.Domain;

/// <summary>A line of an amendment, whose currency only the order knows.</summary>
public sealed record AmendedLine(string Sku, int Quantity, decimal UnitPrice, LineDetails? Details);

/// <summary>What may be changed in an order, and what it costs then.</summary>
internal static class AmendRules
{
    public static Decision Amend(Order order, OrderCommand.Amend amend, OrderRules rules)
    {
        if (order.Status is not (OrderStatus.Placed or OrderStatus.Paid) || order.Progress is { Shipments.Count: > 0 } or { Cancelled.Count: > 0 })
        {
            return new Decision.Refused(
                RefusalCode.WrongStatus, $"The order is {order.Status.ToWire()}; order.amend applies only to an order that is placed or paid and of which nothing was shipped or cancelled.");
        }

        var currency = order.Currency!;
        var lines = order.Lines;
        if (amend.Lines is { } amended)
        {
            if (Exact(amended, currency) is not { } exact)
            {
                return new Decision.Refused(RefusalCode.AmountPrecision, $"A unitPrice has more decimals than {currency.Code} has ({currency.Decimals}), or is larger than any order may cost.");
            }

            if (LineIds.Twice(exact) is { } twice)
            {
                return new Decision.Refused(RefusalCode.LineConflict, $"Two lines have the lineId {twice}.");
            }

            lines = exact;
        }

        var priced = Pricing.TryPrice(currency, lines, Details(order, amend), rules.TaxRounding, checkTotal: true, out var fault);
        return priced is null
            ? new Decision.Refused(CodeOf(fault!.Kind), fault.Detail)
            : new Decision.Accepted(new OrderEvent.Amended(currency, priced.Lines, priced.TotalMinor, priced.Details), MoneyRules.PaidBy(order, priced.TotalMinor));
    }

    private static OrderDetails? Details(Order order, OrderCommand.Amend amend)
    {
        if (amend is { Attributes: null, ShippingCost: null, Discounts: null, Total: null })
        {
            return order.Details;
        }

        var details = order.Details ?? OrderDetails.None;
        return details with
        {
            Attributes = amend.Attributes ?? details.Attributes,
            ShippingCost = amend.ShippingCost ?? details.ShippingCost,
            Discounts = amend.Discounts ?? details.Discounts,
            Total = amend.Total,
        };
    }

    private static OrderLine[]? Exact(IReadOnlyList<AmendedLine> amended, Currency currency)
    {
        var lines = new OrderLine[amended.Count];
        for (var index = 0; index < lines.Length; index++)
        {
            var line = amended[index];
            if (!Money.TryToMinor(line.UnitPrice, currency, out var minor))
            {
                return null;
            }

            lines[index] = new OrderLine(line.Sku, line.Quantity, minor) { Details = line.Details };
        }

        return lines;
    }

    private static string CodeOf(PricingFaultKind kind) => kind switch
    {
        PricingFaultKind.Precision => RefusalCode.AmountPrecision,
        PricingFaultKind.OutOfRange => RefusalCode.AmountOutOfRange,
        _ => RefusalCode.TotalMismatch,
    };
}

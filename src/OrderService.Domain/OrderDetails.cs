namespace OrderService.Domain;

/// <summary>The tax of a line or of the shipping.</summary>
/// <param name="Rate">In percent, 0 to 100 with at most four decimals: 19, 7.7.</param>
/// <param name="Amount">What the shop says it is, with the decimals of the currency; null where it is to be computed.</param>
/// <param name="Included">The price holds the tax; else it comes on top.</param>
public sealed record Tax(decimal Rate, decimal? Amount, bool Included);

/// <summary>What of an order's price is tax, for one rate.</summary>
public sealed record TaxSum(decimal Rate, bool Included, decimal Amount);

/// <summary>A deduction from the whole order.</summary>
/// <param name="Code">The coupon, where there was one.</param>
public sealed record Discount(decimal Amount, string? Code, string? Name);

/// <summary>What a shop may say about a line beyond article, quantity and price. Amounts are exact; <see cref="Pricing"/> checks them.</summary>
public sealed record LineDetails
{
    /// <summary>The line's name in shipments, returns and cancellations; null where it is numbered.</summary>
    public string? LineId { get; init; }

    public string? Name { get; init; }

    /// <summary>Of the whole line, not of one piece.</summary>
    public decimal? Discount { get; init; }

    public Tax? Tax { get; init; }

    public IReadOnlyList<KeyValuePair<string, string>> Attributes { get; init; } = [];
}

/// <summary>What a shop may say about an order beyond its lines.</summary>
public sealed record OrderDetails
{
    public static OrderDetails None { get; } = new();

    public decimal? ShippingCost { get; init; }

    public Tax? ShippingTax { get; init; }

    public IReadOnlyList<Discount> Discounts { get; init; } = [];

    /// <summary>The total as the shop has it, to be compared with the sum; only in commands.</summary>
    public decimal? Total { get; init; }

    /// <summary>By rate; only in events.</summary>
    public IReadOnlyList<TaxSum> Taxes { get; init; } = [];

    public string? Channel { get; init; }

    public IReadOnlyList<KeyValuePair<string, string>> Attributes { get; init; } = [];

    /// <summary>What the order is called elsewhere, by the kind of name: <c>purchaseOrder</c>, <c>invoice</c>.</summary>
    public IReadOnlyList<KeyValuePair<string, string>> ExternalReferences { get; init; } = [];
}

/// <summary>Pieces of a line.</summary>
public readonly record struct LineQuantity(string LineId, int Quantity);

/// <summary>The names of an order's lines.</summary>
public static class LineIds
{
    /// <summary>The name the shop gave, else the line's place, counted from 1.</summary>
    public static string Of(IReadOnlyList<OrderLine> lines, int index)
    {
        ArgumentNullException.ThrowIfNull(lines);
        return lines[index].Details?.LineId ?? (index + 1).ToString(System.Globalization.CultureInfo.InvariantCulture);
    }

    /// <summary>The first name that two lines would have; null when all differ.</summary>
    public static string? Twice(IReadOnlyList<OrderLine> lines)
    {
        ArgumentNullException.ThrowIfNull(lines);

        var names = new HashSet<string>(StringComparer.Ordinal);
        for (var index = 0; index < lines.Count; index++)
        {
            if (!names.Add(Of(lines, index)))
            {
                return Of(lines, index);
            }
        }

        return null;
    }
}

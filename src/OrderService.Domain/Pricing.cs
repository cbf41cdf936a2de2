using System.Globalization;

namespace OrderService.Domain;

/// <summary>How taxes are rounded to what the currency has: each line's, or once for all lines of a rate.</summary>
public enum TaxRounding
{
    LineHalfUp,
    LineHalfEven,
    OrderHalfUp,
    OrderHalfEven,
}

/// <summary>Why an order can't be priced as it is.</summary>
public enum PricingFaultKind
{
    Precision,
    OutOfRange,
    TotalMismatch,
}

/// <param name="Pointer">The JSON pointer of the member it is about.</param>
/// <param name="Detail">One sentence that says what is wrong and how to mend it.</param>
public sealed record PricingFault(PricingFaultKind Kind, string Pointer, string Detail);

/// <summary>What an order costs, and how that comes about.</summary>
/// <param name="Lines">The lines, each with the tax that falls on it alone where taxes are rounded by line.</param>
/// <param name="LineTotals">What each line adds to the total.</param>
/// <param name="Details">What the shop said, with the taxes by rate; null for an order that has nothing but lines.</param>
public sealed record Priced(long TotalMinor, IReadOnlyList<OrderLine> Lines, IReadOnlyList<long> LineTotals, OrderDetails? Details);

/// <summary>
/// Adds an order up: quantities times prices, less discounts, shipping, taxes on top. Exact, in whole minor units; only a tax is ever rounded.
/// </summary>
public sealed class Pricing
{
    // A rate of 100 %.
    private const int Whole = 1_000_000;

    private readonly Currency currency;
    private readonly TaxRounding rounding;
    private readonly Dictionary<(decimal Rate, bool Included), (Int128 Exact, Int128 Fixed)> taxes = [];
    private PricingFault? fault;

    private Pricing(Currency currency, TaxRounding rounding) => (this.currency, this.rounding) = (currency, rounding);

    private bool ByLine => rounding is TaxRounding.LineHalfUp or TaxRounding.LineHalfEven;

    /// <summary>An order without anything beyond its lines is the sum of these.</summary>
    public static bool IsPlain(IReadOnlyList<OrderLine> lines, OrderDetails? details)
    {
        ArgumentNullException.ThrowIfNull(lines);

        if (details is not null)
        {
            return false;
        }

        for (var index = 0; index < lines.Count; index++)
        {
            if (lines[index].Details is not null)
            {
                return false;
            }
        }

        return true;
    }

    /// <param name="checkTotal">Whether a total that the shop named has to be the sum.</param>
    public static Priced? TryPrice(
        Currency currency, IReadOnlyList<OrderLine> lines, OrderDetails? details, TaxRounding rounding, bool checkTotal, out PricingFault? fault)
    {
        ArgumentNullException.ThrowIfNull(currency);
        ArgumentNullException.ThrowIfNull(lines);

        var pricing = new Pricing(currency, rounding);
        var priced = pricing.Price(lines, details, checkTotal);
        fault = pricing.fault;
        return fault is null ? priced : null;
    }

    private Priced? Price(IReadOnlyList<OrderLine> lines, OrderDetails? details, bool checkTotal)
    {
        var sum = Int128.Zero;
        var totals = new long[lines.Count];
        var taxed = new OrderLine[lines.Count];
        for (var index = 0; index < lines.Count; index++)
        {
            if (Line(lines[index], $"/lines/{index}", out taxed[index]) is not { } line)
            {
                return null;
            }

            totals[index] = line;
            sum += line;
        }

        if (details is not null)
        {
            sum += Amount(details.ShippingCost, "/shippingCost") ?? 0;
            sum += Shipping(details);
            for (var index = 0; index < details.Discounts.Count; index++)
            {
                sum -= Amount(details.Discounts[index].Amount, $"/discounts/{index}/amount") ?? 0;
            }
        }

        if (fault is not null)
        {
            return null;
        }

        if (!ByLine)
        {
            // What came on top by line above is what each line bears; the order bears the sum that is rounded once.
            sum += OnTop() - onTopByLine;
        }

        if (sum < 0)
        {
            return Fail(PricingFaultKind.OutOfRange, "/discounts", "The discounts are more than the order costs; make them smaller.");
        }

        if (sum > Money.MaxMinor)
        {
            return Fail(PricingFaultKind.OutOfRange, "/lines", $"The order adds up to more than {Money.MaxMinor} minor units of the currency; split it.");
        }

        return Agree((long)sum, details, checkTotal) ? new Priced((long)sum, taxed, totals, WithTaxes(lines, details)) : null;
    }

    private Int128 onTopByLine;

    private long? Line(OrderLine line, string pointer, out OrderLine taxed)
    {
        taxed = line;
        var gross = (Int128)line.Quantity * line.UnitPriceMinor;
        if (line.Details is not { } details)
        {
            return Fits(gross, pointer);
        }

        var discount = Amount(details.Discount, pointer + "/discount") ?? 0;
        if (discount > gross)
        {
            Fail(PricingFaultKind.OutOfRange, pointer + "/discount", "The discount is more than its line costs; make it smaller.");
        }

        var net = gross - discount;
        if (Fits(net, pointer) is null || fault is not null)
        {
            return null;
        }

        taxed = line with { Details = details with { Discount = details.Discount is { } given ? Exact(given) : null } };
        if (details.Tax is not { } tax)
        {
            return (long)net;
        }

        var amount = Taxed(tax, net, pointer + "/tax");
        taxed = taxed with { Details = taxed.Details! with { Tax = tax with { Amount = ByLine || tax.Amount is not null ? Money.ToDecimal((long)amount, currency) : null } } };
        return Fits(net + (tax.Included ? 0 : amount), pointer);
    }

    private Int128 Shipping(OrderDetails details)
    {
        if (details.ShippingTax is not { } tax)
        {
            return 0;
        }

        var amount = Taxed(tax, Amount(details.ShippingCost, "/shippingCost") ?? 0, "/shippingTax");
        return tax.Included ? 0 : amount;
    }

    /// <summary>The tax upon a price, rounded; and noted for the sum of its rate.</summary>
    private Int128 Taxed(Tax tax, Int128 price, string pointer)
    {
        Int128? given = Amount(tax.Amount, pointer + "/amount");
        if (given > price)
        {
            Fail(PricingFaultKind.OutOfRange, pointer + "/amount", "The tax is more than what it is on; make it smaller.");
        }

        var amount = given ?? Divide(price * Units(tax.Rate), Denominator(tax.Rate, tax.Included));
        var (exact, whole) = taxes.GetValueOrDefault((tax.Rate, tax.Included));
        taxes[(tax.Rate, tax.Included)] = given is null && !ByLine ? (exact + price, whole) : (exact, whole + amount);
        if (!tax.Included)
        {
            onTopByLine += amount;
        }

        return amount;
    }

    private Int128 OnTop()
    {
        var sum = Int128.Zero;
        foreach (var (rate, parts) in taxes)
        {
            sum += rate.Included ? 0 : SumOf(rate, parts);
        }

        return sum;
    }

    private Int128 SumOf((decimal Rate, bool Included) rate, (Int128 Exact, Int128 Fixed) parts) =>
        parts.Fixed + Divide(parts.Exact * Units(rate.Rate), Denominator(rate.Rate, rate.Included));

    private OrderDetails? WithTaxes(IReadOnlyList<OrderLine> lines, OrderDetails? details)
    {
        if (IsPlain(lines, details))
        {
            return null;
        }

        return (details ?? OrderDetails.None) with
        {
            Total = null,
            ShippingTax = details?.ShippingTax is { } tax && tax.Amount is { } given ? tax with { Amount = Exact(given) } : details?.ShippingTax,
            ShippingCost = details?.ShippingCost is { } cost ? Exact(cost) : null,
            Discounts = details is null ? [] : [.. details.Discounts.Select(discount => discount with { Amount = Exact(discount.Amount) })],
            Taxes = [.. taxes.OrderBy(pair => pair.Key).Select(pair => new TaxSum(pair.Key.Rate, pair.Key.Included, Money.ToDecimal((long)SumOf(pair.Key, pair.Value), currency)))],
        };
    }

    private decimal Exact(decimal amount) => Money.WithDecimalsOf(amount, currency) ?? amount;

    private bool Agree(long sum, OrderDetails? details, bool checkTotal)
    {
        if (Amount(details?.Total, "/total") is not { } total)
        {
            return fault is null;
        }

        if (!checkTotal || total == sum)
        {
            return true;
        }

        Fail(
            PricingFaultKind.TotalMismatch, "/total",
            string.Create(CultureInfo.InvariantCulture, $"total is {Money.Format(total, currency)} and the order adds up to {Money.Format(sum, currency)} {currency.Code}; mend the one that is wrong, or leave total out."));
        return false;
    }

    private long? Fits(Int128 amount, string pointer)
    {
        if (amount <= Money.MaxMinor)
        {
            return (long)amount;
        }

        Fail(PricingFaultKind.OutOfRange, pointer, $"The line adds up to more than {Money.MaxMinor} minor units of the currency; split the order.");
        return null;
    }

    private long? Amount(decimal? amount, string pointer)
    {
        if (amount is not { } given)
        {
            return null;
        }

        if (Money.TryToMinor(given, currency, out var minor))
        {
            return minor;
        }

        if (decimal.Round(given, currency.Decimals) != given)
        {
            Fail(PricingFaultKind.Precision, pointer, $"{pointer} has more decimals than {currency.Code} has ({currency.Decimals}); round it.");
        }
        else
        {
            Fail(PricingFaultKind.OutOfRange, pointer, $"{pointer} must be at most {Money.MaxMinor} minor units of the currency.");
        }

        return null;
    }

    private Int128 Divide(Int128 numerator, int denominator)
    {
        var (quotient, rest) = Int128.DivRem(numerator, denominator);
        var isUp = (2 * rest).CompareTo(denominator) switch
        {
            > 0 => true,
            < 0 => false,
            _ => rounding is TaxRounding.LineHalfUp or TaxRounding.OrderHalfUp || Int128.IsOddInteger(quotient),
        };
        return isUp ? quotient + 1 : quotient;
    }

    private static int Units(decimal rate) => (int)(rate * (Whole / 100));

    private static int Denominator(decimal rate, bool included) => included ? Whole + Units(rate) : Whole;

    // The first fault counts.
    private Priced? Fail(PricingFaultKind kind, string pointer, string detail)
    {
        fault ??= new PricingFault(kind, pointer, detail);
        return null;
    }
}

using System.Globalization;

namespace OrderService.Domain;

/// <summary>Arithmetic on amounts in minor units (cents for EUR, yen for JPY). Nothing here rounds and nothing here throws for an amount that does not fit.</summary>
public static class Money
{
    /// <summary>The largest unit price and the largest total, in minor units. Fifteen digits: what every JSON reader keeps exactly, doubles included.</summary>
    public const long MaxMinor = 999_999_999_999_999;

    /// <summary>The most decimals any currency has.</summary>
    public const int MaxDecimals = 4;

    private static readonly long[] PowersOfTen = [1, 10, 100, 1_000, 10_000];

    /// <summary>
    /// <paramref name="coefficient"/> times ten to the power of minus <paramref name="scale"/>, in minor units of a currency with
    /// <paramref name="decimals"/> decimals.
    /// </summary>
    /// <returns>False when the amount has more decimals than the currency or is beyond <see cref="MaxMinor"/>.</returns>
    public static bool TryToMinor(long coefficient, int scale, int decimals, out long minor)
    {
        minor = 0;
        if (scale < 0 || scale > decimals || decimals > MaxDecimals)
        {
            return false;
        }

        var product = (Int128)coefficient * PowersOfTen[decimals - scale];
        if (product > MaxMinor || product < -MaxMinor)
        {
            return false;
        }

        minor = (long)product;
        return true;
    }

    /// <summary>An exact decimal in minor units; trailing zeros do not count as decimals.</summary>
    /// <returns>False when the amount has more decimals than the currency or is beyond <see cref="MaxMinor"/>.</returns>
    public static bool TryToMinor(decimal amount, Currency currency, out long minor)
    {
        ArgumentNullException.ThrowIfNull(currency);

        minor = 0;
        if (decimal.Abs(amount) > MaxMinor)
        {
            return false;
        }

        // Rounded first: a product with more digits than a decimal holds would be rounded silently.
        var rounded = decimal.Round(amount, currency.Decimals);
        var scaled = rounded * PowersOfTen[currency.Decimals];
        if (rounded != amount || decimal.Abs(scaled) > MaxMinor)
        {
            return false;
        }

        minor = (long)scaled;
        return true;
    }

    /// <summary>Minor units as a decimal with exactly the currency's decimals: 9980 EUR is <c>99.80</c>.</summary>
    public static decimal ToDecimal(long minor, Currency currency)
    {
        ArgumentNullException.ThrowIfNull(currency);
        var magnitude = (UInt128)Int128.Abs(minor);
        return new decimal((int)(uint)magnitude, (int)(uint)(magnitude >> 32), 0, minor < 0, (byte)currency.Decimals);
    }

    /// <summary>Minor units as people and JSON write them: 9980 EUR is <c>99.80</c>, 1500 JPY is <c>1500</c>.</summary>
    public static string Format(long minor, Currency currency) =>
        ToDecimal(minor, currency).ToString(CultureInfo.InvariantCulture);

    /// <summary>The same amount, written with exactly the currency's decimals (49.9 becomes 49.90). Null when it has more decimals than the currency.</summary>
    public static decimal? WithDecimalsOf(decimal amount, Currency currency) =>
        TryToMinor(amount, currency, out var minor) ? ToDecimal(minor, currency) : null;

    /// <summary>Adds up quantity times unit price over all lines.</summary>
    /// <returns>False when the sum is beyond <see cref="MaxMinor"/>; the total is then 0.</returns>
    public static bool TryTotal(IReadOnlyList<OrderLine> lines, out long totalMinor)
    {
        ArgumentNullException.ThrowIfNull(lines);

        var sum = Int128.Zero;
        for (var index = 0; index < lines.Count; index++)
        {
            sum += (Int128)lines[index].Quantity * lines[index].UnitPriceMinor;
        }

        var fits = sum <= MaxMinor && sum >= -MaxMinor;
        totalMinor = fits ? (long)sum : 0;
        return fits;
    }

    /// <summary>The same amount without zeros at its end: 49.90 and 49.9 are one.</summary>
    public static decimal WithoutZeros(decimal amount) => amount / 1.0000000000000000000000000000m;
}

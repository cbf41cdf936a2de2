using OrderService.Domain;

namespace OrderService.Inbox;

/// <summary>
/// An amount read from its digits: <see cref="Coefficient"/> times ten to the power of minus <see cref="Scale"/>. No floating point, no
/// rounding: a number with more digits than anybody could mean is told apart from one that is merely large.
/// </summary>
/// <param name="Coefficient">Not a multiple of ten unless the scale is 0; beyond every limit (<see cref="TooLarge"/>) where it would not fit.</param>
/// <param name="Scale">The decimals the value really has: 49.900 has one, 5e-1 has one, 1e3 has none.</param>
internal readonly record struct AmountToken(long Coefficient, int Scale)
{
    public const long TooLarge = long.MaxValue;

    /// <summary>A scale no currency has.</summary>
    private const int TooPrecise = int.MaxValue;

    /// <summary>Reads a JSON number that the JSON reader found well formed.</summary>
    /// <returns>False for a negative one, and for minus zero: an amount carries no sign.</returns>
    public static bool TryParse(ReadOnlySpan<byte> token, out AmountToken amount)
    {
        amount = default;
        if (token[0] == '-')
        {
            return false;
        }

        var coefficient = 0L;
        var started = false;
        var pendingZeros = 0L;
        var fraction = 0L;
        var fractionAtLast = 0L;
        var inFraction = false;
        var index = 0;
        for (; index < token.Length && token[index] is not ((byte)'e' or (byte)'E'); index++)
        {
            if (token[index] == '.')
            {
                inFraction = true;
                continue;
            }

            if (inFraction)
            {
                fraction++;
            }

            var digit = token[index] - '0';
            if (digit == 0)
            {
                pendingZeros++;
                continue;
            }

            // Zeros count only once a digit follows them; before the first digit they never do.
            var zeros = started ? pendingZeros : 0;
            pendingZeros = 0;
            coefficient = Append(coefficient, zeros, digit);
            started = true;
            fractionAtLast = inFraction ? fraction : 0;
        }

        if (!started)
        {
            return true;
        }

        // Zeros after the last digit of an integer are part of its size, not of its digits.
        var scale = fractionAtLast - Exponent(token[index..]);
        if (fractionAtLast == 0)
        {
            scale -= pendingZeros - fraction;
        }

        if (scale < 0)
        {
            coefficient = Append(coefficient, Math.Min(-scale, 20) - 1, 0);
            scale = 0;
        }

        amount = new AmountToken(coefficient, scale > Money.MaxDecimals ? TooPrecise : (int)scale);
        return true;
    }

    private static long Append(long coefficient, long zeros, int digit)
    {
        if (coefficient == TooLarge || (coefficient > 0 && zeros > 18))
        {
            return TooLarge;
        }

        var grown = (Int128)coefficient;
        for (var step = 0; step <= zeros; step++)
        {
            grown *= 10;
        }

        grown += digit;
        return grown >= TooLarge ? TooLarge : (long)grown;
    }

    /// <summary>The exponent, cut off far beyond every amount so that it cannot overflow.</summary>
    private static long Exponent(ReadOnlySpan<byte> text)
    {
        if (text.IsEmpty)
        {
            return 0;
        }

        text = text[1..];
        var negative = text[0] == '-';
        if (text[0] is (byte)'-' or (byte)'+')
        {
            text = text[1..];
        }

        const long Far = 1_000_000_000;
        var exponent = 0L;
        foreach (var digit in text)
        {
            exponent = Math.Min((exponent * 10) + digit - '0', Far);
        }

        return negative ? -exponent : exponent;
    }
}

using System.Buffers;
using System.Globalization;

namespace OrderService.Inbox;

/// <summary>What ids, texts, addresses and times may look like.</summary>
internal static class TextRules
{
    public const int MaxIdLength = 64;
    public const int MaxEmailLength = 254;

    public const string IdRule = "1 to 64 of the characters A-Z a-z 0-9 . _ -";

    private const string IdAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

    private static readonly SearchValues<byte> IdBytes = SearchValues.Create([.. IdAlphabet.Select(letter => (byte)letter)]);
    private static readonly SearchValues<char> IdCharacters = SearchValues.Create(IdAlphabet);

    public static bool IsId(ReadOnlySpan<byte> text) => text.Length is >= 1 and <= MaxIdLength && !text.ContainsAnyExcept(IdBytes);

    public static bool IsId(ReadOnlySpan<char> text) => text.Length is >= 1 and <= MaxIdLength && !text.ContainsAnyExcept(IdCharacters);

    /// <summary>Control characters, direction overrides, zero-width characters: what makes an id look like another one.</summary>
    public static bool HasInvisible(ReadOnlySpan<char> text)
    {
        foreach (var character in text)
        {
            if (char.IsControl(character) || char.GetUnicodeCategory(character)
                is UnicodeCategory.Format or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator)
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>Free text may be in any script and direction; of the control characters only line feed and tab.</summary>
    public static bool HasForbiddenControl(ReadOnlySpan<char> text)
    {
        foreach (var character in text)
        {
            if (char.IsControl(character) && character is not ('\n' or '\t'))
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>A free text of 1 to <paramref name="maxLength"/> characters that are not all blank.</summary>
    public static bool IsText(string text, int maxLength) => text.Length <= maxLength && !string.IsNullOrWhiteSpace(text) && !HasForbiddenControl(text);

    /// <summary>Whether a text is one plausible mail address. Quoted local parts and address literals are refused: nobody's customers have them.</summary>
    public static bool IsEmail(ReadOnlySpan<char> text)
    {
        if (text.Length is < 3 or > MaxEmailLength)
        {
            return false;
        }

        var at = text.IndexOf('@');
        return at is >= 1 and <= 64 && IsLocalPart(text[..at]) && IsDomain(text[(at + 1)..]);
    }

    /// <summary>
    /// RFC 3339 with an offset, a real date, the years 2000 to 2100: <c>2026-01-31T12:00:00.5+01:00</c>. Fractions beyond 100 ns are cut off.
    /// </summary>
    public static bool TryTime(ReadOnlySpan<byte> text, out DateTimeOffset time)
    {
        time = default;
        if (text.Length is < 20 or > 35
            || text[4] != '-' || text[7] != '-' || (text[10] | 0x20) != 't' || text[13] != ':' || text[16] != ':'
            || !TryNumber(text[..4], out var year) || !TryNumber(text[5..7], out var month) || !TryNumber(text[8..10], out var day)
            || !TryNumber(text[11..13], out var hour) || !TryNumber(text[14..16], out var minute) || !TryNumber(text[17..19], out var second)
            || year is < 2000 or > 2100 || month is < 1 or > 12 || day < 1 || day > DateTime.DaysInMonth(year, month)
            || hour > 23 || minute > 59 || second > 59)
        {
            return false;
        }

        text = text[19..];
        var ticks = 0L;
        if (text[0] == '.')
        {
            var digits = text[1..].IndexOfAnyExceptInRange((byte)'0', (byte)'9');
            if (digits is < 1 or > 9)
            {
                return false;
            }

            for (var index = 1; index <= 7; index++)
            {
                ticks = (ticks * 10) + (index <= digits ? text[index] - '0' : 0);
            }

            text = text[(digits + 1)..];
        }

        if (!TryOffset(text, out var offset))
        {
            return false;
        }

        time = new DateTimeOffset(new DateTime(year, month, day, hour, minute, second).AddTicks(ticks), offset);
        return true;
    }

    private static bool TryOffset(ReadOnlySpan<byte> text, out TimeSpan offset)
    {
        offset = TimeSpan.Zero;
        if (text.Length == 1)
        {
            return (text[0] | 0x20) == 'z';
        }

        if (text.Length != 6 || text[0] is not ((byte)'+' or (byte)'-') || text[3] != ':'
            || !TryNumber(text[1..3], out var hours) || !TryNumber(text[4..6], out var minutes)
            || minutes > 59 || (hours * 60) + minutes > 14 * 60)
        {
            return false;
        }

        offset = TimeSpan.FromMinutes((text[0] == '-' ? -1 : 1) * ((hours * 60) + minutes));
        return true;
    }

    private static bool TryNumber(ReadOnlySpan<byte> digits, out int number)
    {
        number = 0;
        foreach (var digit in digits)
        {
            if (digit is < (byte)'0' or > (byte)'9')
            {
                return false;
            }

            number = (number * 10) + digit - '0';
        }

        return true;
    }

    private static bool IsLocalPart(ReadOnlySpan<char> text)
    {
        var afterDot = true;
        foreach (var character in text)
        {
            if (character == '.')
            {
                if (afterDot)
                {
                    return false;
                }

                afterDot = true;
                continue;
            }

            if (!char.IsLetterOrDigit(character) && !"!#$%&'*+-/=?^_`{|}~".Contains(character))
            {
                return false;
            }

            afterDot = false;
        }

        return !afterDot;
    }

    private static bool IsDomain(ReadOnlySpan<char> text)
    {
        foreach (var range in text.Split('.'))
        {
            var label = text[range];
            if (label.Length is < 1 or > 63 || label[0] == '-' || label[^1] == '-')
            {
                return false;
            }

            foreach (var character in label)
            {
                if (!char.IsLetterOrDigit(character) && character != '-')
                {
                    return false;
                }
            }
        }

        return true;
    }
}

using System.Text;

namespace OrderService.Inbox;

/// <summary>
/// Short texts that come again and again, as a shop's article numbers do: the same bytes give the same string for as long as no other text has taken its place.
/// Thousands of orders in hand then share what would be most of their objects.
/// </summary>
internal static class RecurringText
{
    // At 64 characters each, what an id may have, 1.2 MB; for the usual ten, a quarter of that.
    private static readonly string?[] places = new string?[8192];

    /// <param name="ascii">ASCII.</param>
    public static string Of(ReadOnlySpan<byte> ascii)
    {
        var hash = new HashCode();
        hash.AddBytes(ascii);
        ref var place = ref places[(uint)hash.ToHashCode() % (uint)places.Length];
        if (place is { } known && Ascii.Equals(ascii, known))
        {
            return known;
        }
        var text = Encoding.ASCII.GetString(ascii);
        place = text;
        return text;
    }
}

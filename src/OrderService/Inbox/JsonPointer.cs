using System.Globalization;
using System.Text.Json;

namespace OrderService.Inbox;

/// <summary>Places in a JSON document (RFC 6901).</summary>
internal static class JsonPointer
{
    public static bool IsOne(string? text) => text is "" || text?[0] == '/';

    /// <summary>The names and indexes on the way to the place.</summary>
    public static IEnumerable<string> Tokens(string pointer) => pointer.Length == 0 ? [] : pointer[1..].Split('/').Select(Unescape);

    public static string Escape(string name) => name.Replace("~", "~0", StringComparison.Ordinal).Replace("/", "~1", StringComparison.Ordinal);

    public static string Unescape(string token) => token.Replace("~1", "/", StringComparison.Ordinal).Replace("~0", "~", StringComparison.Ordinal);

    /// <summary>Whether a token is an index of an array: digits without a zero in front.</summary>
    /// <param name="last">The highest that is allowed.</param>
    public static bool TryIndex(string token, int last, out int index) =>
        int.TryParse(token, NumberStyles.None, CultureInfo.InvariantCulture, out index) && index <= last && (token.Length == 1 || token[0] != '0');

    /// <returns>Null when there is nothing.</returns>
    public static JsonElement? Find(JsonElement root, string pointer)
    {
        var at = root;
        foreach (var token in Tokens(pointer))
        {
            if (at.ValueKind == JsonValueKind.Object && at.TryGetProperty(token, out var member))
            {
                at = member;
            }
            else if (at.ValueKind == JsonValueKind.Array && TryIndex(token, at.GetArrayLength() - 1, out var index))
            {
                at = at[index];
            }
            else
            {
                return null;
            }
        }

        return at;
    }
}

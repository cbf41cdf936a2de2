using System.Text;
using OrderService.Inbox;

namespace OrderService.Admin;

/// <summary>The header <c>Idempotency-Key</c> of draft-ietf-httpapi-idempotency-key-header: a quoted string, taken bare too.</summary>
internal static class IdempotencyKey
{
    public const string Header = "Idempotency-Key";

    /// <summary>Reads the header; <paramref name="key"/> is null when there is none.</summary>
    /// <returns>False when it can't be a key.</returns>
    public static bool TryRead(HttpRequest request, out string? key)
    {
        key = null;
        var values = request.Headers[Header];
        // An empty one is absent, as an empty message_id is.
        if (values.Count == 0 || (values.Count == 1 && values[0] is null or "" or "\"\""))
        {
            return true;
        }
        key = values.Count == 1 ? Unquote(values[0] ?? "") : null;
        return EnvelopeDecoder.IsKey(key);
    }

    private static string? Unquote(string value)
    {
        if (!value.StartsWith('"'))
        {
            return value;
        }
        if (value.Length < 2 || !value.EndsWith('"'))
        {
            return null;
        }
        var text = new StringBuilder(value.Length);
        for (var index = 1; index < value.Length - 1; index++)
        {
            var character = value[index];
            if (character == '"')
            {
                return null;
            }
            if (character == '\\')
            {
                index++;
                if (index >= value.Length - 1 || value[index] is not ('"' or '\\'))
                {
                    return null;
                }
                character = value[index];
            }
            text.Append(character);
        }
        return text.ToString();
    }
}

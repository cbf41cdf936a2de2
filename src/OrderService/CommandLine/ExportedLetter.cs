using System.Text;
using System.Text.Json;
using OrderService.Inbox;
using OrderService.Outbox;

namespace OrderService.CommandLine;

/// <summary>
/// A line of <c>dlq export</c> given to <c>publish</c>: the letter's message under the letter's own key, so that it takes effect once and the
/// letter closes by itself. What would only become a dead letter again is refused and not sent.
/// </summary>
internal static class ExportedLetter
{
    /// <summary>Null when the line is no exported letter; otherwise its message or what is wrong with it.</summary>
    public static (OutgoingMessage? Message, string? Mistake)? Read(ReadOnlySpan<byte> line)
    {
        // Most lines are something else, and there may be millions: a look that costs little.
        if (line.IndexOf("\"letter\""u8) < 0)
        {
            return null;
        }
        try
        {
            using var document = JsonDocument.Parse(line.ToArray(), new JsonDocumentOptions { MaxDepth = 128 });
            var root = document.RootElement;
            if (root.ValueKind != JsonValueKind.Object || !root.TryGetProperty("letter", out var letter) || letter.ValueKind != JsonValueKind.Object
                || root.TryGetProperty("orderId", out _))
            {
                return null;
            }
            var id = letter.TryGetProperty("id", out var number) ? number.GetRawText() : "?";
            return Text(letter, "key") is { } key && Body(root) is { } body
                ? Checked(id, key, Text(letter, "type"), Text(letter, "correlationId"), body)
                : (null, $"letter {id} lacks its key or its body: export it again, or replay it with orderservice dlq replay {id}");
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException or FormatException)
        {
            return null;
        }
    }

    private static (OutgoingMessage?, string?) Checked(string id, string key, string? type, string? correlationId, byte[] body)
    {
        var decoded = EnvelopeDecoder.Decode(new MessageProperties { MessageId = key, Type = type }, body);
        return decoded is Decoded.Invalid invalid
            ? (null, $"letter {id} would be a dead letter again ({invalid.Rejection.Reason}): {invalid.Rejection.Detail}")
            : (MessageFile.Message(type, body, key, correlationId), null);
    }

    private static byte[]? Body(JsonElement root) => Text(root, "body") is { } text ? Encoding.UTF8.GetBytes(text)
        : Text(root, "bodyBase64") is { } base64 ? Convert.FromBase64String(base64)
        : null;

    private static string? Text(JsonElement parent, string name) =>
        parent.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;
}

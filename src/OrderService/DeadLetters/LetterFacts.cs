using System.Text.Json;
using OrderService.Domain;
using OrderService.Inbox;

namespace OrderService.DeadLetters;

/// <summary>What a dead letter is about in terms of the business, as far as its body can be read. Nothing here is trusted; it groups and adds up.</summary>
/// <param name="ValueMinor">The order's value in minor units of <paramref name="Currency"/>; only with a currency.</param>
public sealed record LetterFacts(string? OrderId, string? CustomerId, string? Currency, long? ValueMinor)
{
    // What is larger is looked at with a reader that needs no memory of its own: a document of it would need several times its size.
    private const int LongestBody = EnvelopeDecoder.MaxBodyBytes;

    private static readonly JsonDocumentOptions Lenient = new() { AllowTrailingCommas = true, CommentHandling = JsonCommentHandling.Skip, MaxDepth = 64 };

    public static LetterFacts None { get; } = new(null, null, null, null);

    /// <summary>Reads leniently: a body that was refused for one field may still name the order, the customer and the prices. Never throws.</summary>
    public static LetterFacts Read(string? type, ReadOnlyMemory<byte> body)
    {
        if (body.IsEmpty)
        {
            return None;
        }
        var orderId = BodySyntax.FindOrderId(body.Span);
        if (body.Length > LongestBody)
        {
            return None with { OrderId = orderId };
        }
        try
        {
            var start = body.Length - BodySyntax.WithoutByteOrderMark(body.Span).Length;
            using var document = JsonDocument.Parse(body[start..], Lenient);
            var root = document.RootElement;
            if (root.ValueKind != JsonValueKind.Object)
            {
                return None with { OrderId = orderId };
            }
            var customerId = Text(root, "customerId") is { } customer && TextRules.IsId(customer) ? customer : null;
            if (!Domain.Currency.TryGet(Text(root, "currency"), out var currency))
            {
                return new LetterFacts(orderId, customerId, null, null);
            }
            var value = string.IsNullOrEmpty(type) || type == CommandType.Place ? Total(root, currency) : null;
            return new LetterFacts(orderId, customerId, value is null ? null : currency.Code, value);
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException or FormatException or OverflowException or ArgumentException)
        {
            return None with { OrderId = orderId };
        }
    }

    private static long? Total(JsonElement root, Currency currency)
    {
        // What the shop itself says it costs, with shipping, discounts and taxes.
        if (root.TryGetProperty("total", out var said) && said.ValueKind == JsonValueKind.Number && said.TryGetDecimal(out var whole) && whole >= 0
            && Money.TryToMinor(whole, currency, out var told))
        {
            return told;
        }
        if (!root.TryGetProperty("lines", out var lines) || lines.ValueKind != JsonValueKind.Array)
        {
            return null;
        }
        var total = 0m;
        var any = false;
        foreach (var line in lines.EnumerateArray())
        {
            if (line.ValueKind == JsonValueKind.Object
                && line.TryGetProperty("quantity", out var quantity) && quantity.ValueKind == JsonValueKind.Number && quantity.TryGetInt32(out var pieces) && pieces > 0
                && line.TryGetProperty("unitPrice", out var price) && price.ValueKind == JsonValueKind.Number && price.TryGetDecimal(out var amount) && amount >= 0)
            {
                total += pieces * amount;
                any = true;
            }
        }
        return any && Money.TryToMinor(decimal.Round(total, currency.Decimals), currency, out var minor) ? minor : null;
    }

    private static string? Text(JsonElement root, string name) =>
        root.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;
}

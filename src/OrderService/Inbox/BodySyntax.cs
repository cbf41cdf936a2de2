using System.Text.Json;
using System.Text.Unicode;

namespace OrderService.Inbox;

/// <summary>What can be said about a body without knowing which command it is.</summary>
internal static class BodySyntax
{
    private static readonly JsonReaderOptions Lenient = new() { MaxDepth = int.MaxValue };

    /// <summary>One UTF-8 byte order mark is no content; a second one is.</summary>
    public static ReadOnlySpan<byte> WithoutByteOrderMark(ReadOnlySpan<byte> body) =>
        body.StartsWith((ReadOnlySpan<byte>)[0xEF, 0xBB, 0xBF]) ? body[3..] : body;

    /// <summary>
    /// A section amqp-value (0x77) or amqp-sequence (0x76) of AMQP 1.0, which the broker hands out as it came: the sender sent a text or a
    /// list instead of bytes. No JSON begins with a zero byte.
    /// </summary>
    public static bool IsAmqpSection(ReadOnlySpan<byte> body) => body.Length > 3 && body[0] == 0 && body[1] switch
    {
        // A small number as descriptor, and the same as eight bytes.
        0x53 => body[2] is 0x76 or 0x77,
        0x80 => body.Length > 10 && body[2..9].IndexOfAnyExcept((byte)0) < 0 && body[9] is 0x76 or 0x77,
        _ => false,
    };

    /// <summary>Valid UTF-8 that is not UTF-16 or UTF-32 in disguise: ASCII letters between zero bytes are valid UTF-8 as well.</summary>
    public static bool IsUtf8(ReadOnlySpan<byte> body) =>
        body[0] != 0 && (body.Length == 1 || body[1] != 0) && Utf8.IsValid(body);

    /// <summary>With a byte order mark, or with a zero byte in one of the first two places.</summary>
    public static bool LooksLikeUtf16(ReadOnlySpan<byte> body) => body is [0xFF, 0xFE, ..] or [0xFE, 0xFF, ..] or [0, _, ..] or [_, 0, ..];

    /// <summary>
    /// Reads a whole body that was found wanting, to prefer the more basic fault: what is no JSON at all is <c>malformed_json</c> even
    /// if its first member was unknown as well.
    /// </summary>
    /// <returns>Null when the syntax is in order.</returns>
    public static Rejection? Diagnose(ReadOnlySpan<byte> body)
    {
        var reader = new Utf8JsonReader(body, Lenient);
        try
        {
            while (reader.Read())
            {
                switch (reader.TokenType)
                {
                    case JsonTokenType.StartObject or JsonTokenType.StartArray when reader.CurrentDepth >= EnvelopeDecoder.MaxDepth:
                        return new Rejection(
                            RejectionReason.DepthExceeded, $"The body is nested deeper than {EnvelopeDecoder.MaxDepth} levels; flatten it.", null);

                    case JsonTokenType.String or JsonTokenType.PropertyName when reader.ValueIsEscaped && HasLoneSurrogate(reader.ValueSpan):
                        return new Rejection(
                            RejectionReason.InvalidEncoding,
                            $"The string at byte {reader.TokenStartIndex} holds half of a surrogate pair (\\ud800 to \\udfff); send whole characters.",
                            null);
                }
            }

            return null;
        }
        catch (JsonException exception)
        {
            return new Rejection(
                RejectionReason.MalformedJson,
                $"The body is not valid JSON at line {exception.LineNumber + 1}, byte {exception.BytePositionInLine + 1}; send one JSON object without comments or trailing commas.",
                null);
        }
    }

    /// <summary>The first member <c>orderId</c> of a body that may be broken further on; null unless it is a valid id. It only groups dead letters.</summary>
    public static string? FindOrderId(ReadOnlySpan<byte> body)
    {
        if (body.Length > EnvelopeDecoder.MaxBodyBytes)
        {
            body = body[..EnvelopeDecoder.MaxBodyBytes];
        }

        var reader = new Utf8JsonReader(WithoutByteOrderMark(body), Lenient);
        try
        {
            if (!reader.Read() || reader.TokenType != JsonTokenType.StartObject)
            {
                return null;
            }

            while (reader.Read())
            {
                if (reader.CurrentDepth == 1 && reader.TokenType == JsonTokenType.PropertyName && reader.ValueTextEquals("orderId"u8))
                {
                    return reader.Read() && reader.TokenType == JsonTokenType.String && reader.ValueSpan.Length <= 6 * TextRules.MaxIdLength
                        && reader.GetString() is { } id && TextRules.IsId(id)
                            ? id
                            : null;
                }
            }
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException)
        {
            // Broken before an id was seen.
        }

        return null;
    }

    /// <summary>Whether the raw text of a JSON string has an escaped surrogate without its other half. Linear, and it never throws.</summary>
    private static bool HasLoneSurrogate(ReadOnlySpan<byte> raw)
    {
        var at = 0;
        while (at < raw.Length)
        {
            if (raw[at] != '\\')
            {
                at++;
            }
            else if (!IsEscapedSurrogate(raw, at, out var high))
            {
                at += 2;
            }
            else if (!high || !IsEscapedSurrogate(raw, at + 6, out var secondIsHigh) || secondIsHigh)
            {
                return true;
            }
            else
            {
                at += 12;
            }
        }

        return false;
    }

    private static bool IsEscapedSurrogate(ReadOnlySpan<byte> raw, int at, out bool high)
    {
        high = false;
        if (raw.Length < at + 6 || raw[at] != '\\' || raw[at + 1] != 'u' || (raw[at + 2] | 0x20) != 'd')
        {
            return false;
        }

        var third = raw[at + 3] | 0x20;
        high = third is '8' or '9' or 'a' or 'b';
        return high || third is >= 'c' and <= 'f';
    }
}

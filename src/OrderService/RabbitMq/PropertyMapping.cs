using System.Collections;
using System.Globalization;
using System.Text;
using System.Text.Unicode;
using OrderService.Inbox;
using OrderService.Outbox;
using RabbitMQ.Client;

namespace OrderService.RabbitMq;

/// <summary>Between the client's properties and our own. Reading never throws, whatever a producer wrote; writing refuses what would harm the connection.</summary>
internal static class PropertyMapping
{
    /// <summary>One frame carries all properties; larger ones end the whole connection. 16 KiB is far below every broker's frame and far above what we send.</summary>
    public const int HeaderBudget = 16 * 1024;

    /// <summary>RabbitMQ's own limit (max_message_size); a larger one closes the channel under everybody else's publishes.</summary>
    public const int BodyLimit = 16 * 1024 * 1024;

    private const int DepthLimit = 32;

    public static MessageProperties Read(IReadOnlyBasicProperties from) => new()
    {
        MessageId = from.MessageId,
        CorrelationId = from.CorrelationId,
        Type = from.Type,
        ContentType = from.ContentType,
        ContentEncoding = from.ContentEncoding,
        AppId = from.AppId,
        UserId = from.UserId,
        ReplyTo = from.ReplyTo,
        Expiration = from.Expiration,
        Timestamp = from.IsTimestampPresent() ? from.Timestamp.UnixTime : null,
        DeliveryMode = from.IsDeliveryModePresent() ? (byte)from.DeliveryMode : (byte)0,
        Priority = from.Priority,
        Headers = from.Headers is { Count: > 0 } headers ? ReadTable(headers, 0) : null,
    };

    /// <summary>About how much memory a message needs beside its body.</summary>
    public static int SizeOf(MessageProperties properties) => 512 + (properties.Headers is { } headers ? SizeOf(headers, 0) : 0);

    private static int SizeOf(object? value, int depth)
    {
        var size = 32;
        switch (value)
        {
            case string text:
                size += 2 * text.Length;
                break;
            case byte[] bytes:
                size += bytes.Length;
                break;
            case IReadOnlyDictionary<string, object?> table when depth <= DepthLimit:
                foreach (var (name, item) in table)
                {
                    size += 64 + (2 * name.Length) + SizeOf(item, depth + 1);
                }

                break;
            case IEnumerable list when depth <= DepthLimit:
                foreach (var item in list)
                {
                    size += SizeOf(item, depth + 1);
                }

                break;
        }

        return size;
    }

    /// <summary>The broker's count of returns. Any producer can write the header, so it counts only on a message that was returned.</summary>
    public static int ReadDeliveryCount(MessageProperties properties, bool redelivered)
    {
        if (!redelivered || properties.Headers is null || !properties.Headers.TryGetValue("x-delivery-count", out var value))
        {
            return 0;
        }

        var count = value switch
        {
            byte n => n,
            sbyte n => n,
            short n => n,
            ushort n => n,
            int n => n,
            uint n => n,
            long n => n,
            _ => 0,
        };
        return (int)Math.Clamp(count, 0, int.MaxValue);
    }

    private static Dictionary<string, object?> ReadTable(IDictionary<string, object?> table, int depth)
    {
        var copy = new Dictionary<string, object?>(table.Count, StringComparer.Ordinal);
        foreach (var entry in table)
        {
            copy[entry.Key] = ReadValue(entry.Value, depth);
        }

        return copy;
    }

    private static object? ReadValue(object? value, int depth) => value switch
    {
        // AMQP's long strings are bytes. Text is what is UTF-8; the rest stays what it is.
        byte[] bytes => Utf8.IsValid(bytes) ? Encoding.UTF8.GetString(bytes) : bytes,
        BinaryTableValue binary => binary.Bytes,
        AmqpTimestamp timestamp => ReadTimestamp(timestamp.UnixTime),
        IDictionary<string, object?> table => depth < DepthLimit ? ReadTable(table, depth + 1) : null,
        IList list => depth < DepthLimit ? ReadList(list, depth + 1) : null,
        _ => value,
    };

    private static List<object?> ReadList(IList list, int depth)
    {
        var copy = new List<object?>(list.Count);
        foreach (var item in list)
        {
            copy.Add(ReadValue(item, depth));
        }

        return copy;
    }

    private static object ReadTimestamp(long seconds) => seconds is >= -62_135_596_800 and <= 253_402_300_799 ? DateTimeOffset.FromUnixTimeSeconds(seconds) : seconds;

    /// <summary>Makes fresh client properties, or says why the message can't be sent.</summary>
    public static BasicProperties? Write(OutgoingMessage message, out string? refusal)
    {
        refusal = CheckName("exchange", message.Exchange)
            ?? CheckName("routing key", message.RoutingKey)
            ?? (message.MessageId.Length == 0 ? "the message id is empty" : CheckName("message id", message.MessageId))
            ?? CheckName("content type", message.ContentType)
            ?? CheckName("content encoding", message.ContentEncoding)
            ?? CheckName("correlation id", message.CorrelationId)
            ?? CheckName("type", message.Type)
            ?? CheckName("app id", message.AppId)
            ?? (message.Body.Length > BodyLimit ? $"the body has {message.Body.Length} bytes; the broker takes at most {BodyLimit}" : null);
        if (refusal is not null)
        {
            return null;
        }

        var properties = new BasicProperties { Persistent = true, MessageId = message.MessageId };
        if (message.ContentType is not null)
        {
            properties.ContentType = message.ContentType;
        }

        if (message.ContentEncoding is not null)
        {
            properties.ContentEncoding = message.ContentEncoding;
        }

        if (message.CorrelationId is not null)
        {
            properties.CorrelationId = message.CorrelationId;
        }

        if (message.Type is not null)
        {
            properties.Type = message.Type;
        }

        if (message.AppId is not null)
        {
            properties.AppId = message.AppId;
        }

        if (message.Timestamp is { } timestamp)
        {
            properties.Timestamp = new AmqpTimestamp(timestamp.ToUnixTimeSeconds());
        }

        if (message.Headers is { Count: > 0 } headers)
        {
            var size = 0;
            properties.Headers = WriteTable(headers, 0, ref size, ref refusal);
            if (refusal is null && size > HeaderBudget)
            {
                refusal = $"the headers need {size} bytes; at most {HeaderBudget} are sent";
            }
        }

        return refusal is null ? properties : null;
    }

    // AMQP's short strings. The common case, ASCII well below the limit, costs one comparison.
    private static string? CheckName(string what, string? text) =>
        text is null || text.Length <= 85 || Encoding.UTF8.GetByteCount(text) <= 255 ? null : $"the {what} is longer than 255 bytes";

    private static Dictionary<string, object?> WriteTable(IEnumerable<KeyValuePair<string, object?>> table, int depth, ref int size, ref string? refusal)
    {
        var copy = new Dictionary<string, object?>(StringComparer.Ordinal);
        size += 5;
        foreach ((var key, var value) in table)
        {
            refusal ??= CheckName("name of a header", key);
            size += 2 + Encoding.UTF8.GetByteCount(key);
            copy[key] = WriteValue(value, depth, ref size, ref refusal);
            if (refusal is not null)
            {
                break;
            }
        }

        return copy;
    }

    private static object? WriteValue(object? value, int depth, ref int size, ref string? refusal)
    {
        switch (value)
        {
            case null:
                size += 1;
                return null;
            case string text:
                size += 5 + Encoding.UTF8.GetByteCount(text);
                return text;
            case byte[] bytes:
                size += 5 + bytes.Length;
                return bytes;
            case bool or byte or sbyte or short or ushort or int or uint or long or float or double:
                size += 9;
                return value;
            case decimal number:
                // AMQP's decimals have 32 bits; what does not fit goes as text rather than not at all.
                size += 35;
                return FitsAmqp(number) ? number : number.ToString(CultureInfo.InvariantCulture);
            case DateTimeOffset time:
                size += 9;
                return new AmqpTimestamp(time.ToUnixTimeSeconds());
            case IReadOnlyDictionary<string, object?> table when depth < DepthLimit:
                return WriteTable(table, depth + 1, ref size, ref refusal);
            case IEnumerable list when depth < DepthLimit && value is not IDictionary:
                size += 5;
                var copy = new List<object?>();
                foreach (var item in list)
                {
                    copy.Add(WriteValue(item, depth + 1, ref size, ref refusal));
                }

                return copy;
            default:
                refusal ??= depth < DepthLimit ? $"a header has a value of type {value.GetType().Name}, which AMQP does not know" : "the headers are nested too deeply";
                return null;
        }
    }

    private static bool FitsAmqp(decimal number)
    {
        Span<int> bits = stackalloc int[4];
        decimal.GetBits(number, bits);
        return bits[2] == 0 && bits[1] == 0 && bits[0] >= 0;
    }
}

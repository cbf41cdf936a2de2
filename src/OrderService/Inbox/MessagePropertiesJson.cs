using System.Buffers;
using System.Globalization;
using System.Text;
using System.Text.Json;

namespace OrderService.Inbox;

/// <summary>
/// A message's properties as JSON, the form in which they are stored beside its bytes: AMQP names as members, headers as an object.
/// Header bytes that are UTF-8 become text; others an object <c>{"base64": "..."}</c>.
/// </summary>
public static class MessagePropertiesJson
{
    private static readonly UTF8Encoding Strict = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    public static string Write(MessageProperties properties)
    {
        var buffer = new ArrayBufferWriter<byte>(256);
        using (var writer = new Utf8JsonWriter(buffer))
        {
            writer.WriteStartObject();
            Put(writer, "message_id", properties.MessageId);
            Put(writer, "correlation_id", properties.CorrelationId);
            Put(writer, "type", properties.Type);
            Put(writer, "content_type", properties.ContentType);
            Put(writer, "content_encoding", properties.ContentEncoding);
            Put(writer, "app_id", properties.AppId);
            Put(writer, "user_id", properties.UserId);
            Put(writer, "reply_to", properties.ReplyTo);
            Put(writer, "expiration", properties.Expiration);
            if (properties.Timestamp is { } timestamp)
            {
                writer.WriteNumber("timestamp", timestamp);
            }
            if (properties.DeliveryMode != 0)
            {
                writer.WriteNumber("delivery_mode", properties.DeliveryMode);
            }
            if (properties.Priority != 0)
            {
                writer.WriteNumber("priority", properties.Priority);
            }
            if (properties.Headers is { Count: > 0 } headers)
            {
                writer.WriteStartObject("headers");
                foreach (var (name, value) in headers)
                {
                    writer.WritePropertyName(name);
                    Value(writer, value);
                }
                writer.WriteEndObject();
            }
            writer.WriteEndObject();
        }
        return Encoding.UTF8.GetString(buffer.WrittenSpan);
    }

    /// <summary>Reads what <see cref="Write"/> wrote; header texts come back as strings.</summary>
    public static MessageProperties Read(string json)
    {
        using var document = JsonDocument.Parse(json);
        var root = document.RootElement;
        return new MessageProperties
        {
            MessageId = Text(root, "message_id"),
            CorrelationId = Text(root, "correlation_id"),
            Type = Text(root, "type"),
            ContentType = Text(root, "content_type"),
            ContentEncoding = Text(root, "content_encoding"),
            AppId = Text(root, "app_id"),
            UserId = Text(root, "user_id"),
            ReplyTo = Text(root, "reply_to"),
            Expiration = Text(root, "expiration"),
            Timestamp = root.TryGetProperty("timestamp", out var timestamp) ? timestamp.GetInt64() : null,
            DeliveryMode = root.TryGetProperty("delivery_mode", out var mode) ? mode.GetByte() : (byte)0,
            Priority = root.TryGetProperty("priority", out var priority) ? priority.GetByte() : (byte)0,
            Headers = root.TryGetProperty("headers", out var headers) ? Table(headers) : null,
        };
    }

    private static void Put(Utf8JsonWriter writer, string name, string? value)
    {
        if (value is not null)
        {
            writer.WriteString(name, value);
        }
    }

    private static void Value(Utf8JsonWriter writer, object? value)
    {
        switch (value)
        {
            case null: writer.WriteNullValue(); break;
            case string text: writer.WriteStringValue(text); break;
            case byte[] bytes: Bytes(writer, bytes); break;
            case bool flag: writer.WriteBooleanValue(flag); break;
            case sbyte or byte or short or ushort or int or uint or long: writer.WriteNumberValue(Convert.ToInt64(value, CultureInfo.InvariantCulture)); break;
            case DateTimeOffset time: writer.WriteStringValue(time); break;
            case decimal number: writer.WriteNumberValue(number); break;
            case IDictionary<string, object?> table:
                writer.WriteStartObject();
                foreach (var (name, inner) in table)
                {
                    writer.WritePropertyName(name);
                    Value(writer, inner);
                }
                writer.WriteEndObject();
                break;
            case System.Collections.IEnumerable list:
                writer.WriteStartArray();
                foreach (var inner in list)
                {
                    Value(writer, inner);
                }
                writer.WriteEndArray();
                break;
            default: writer.WriteStringValue(Convert.ToString(value, CultureInfo.InvariantCulture)); break;
        }
    }

    private static void Bytes(Utf8JsonWriter writer, byte[] bytes)
    {
        try
        {
            writer.WriteStringValue(Strict.GetString(bytes));
        }
        catch (ArgumentException)
        {
            writer.WriteStartObject();
            writer.WriteBase64String("base64", bytes);
            writer.WriteEndObject();
        }
    }

    private static string? Text(JsonElement root, string name) => root.TryGetProperty(name, out var value) ? value.GetString() : null;

    private static Dictionary<string, object?> Table(JsonElement element)
    {
        var table = new Dictionary<string, object?>(StringComparer.Ordinal);
        foreach (var member in element.EnumerateObject())
        {
            table[member.Name] = FromJson(member.Value);
        }
        return table;
    }

    private static object? FromJson(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.String => value.GetString(),
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        JsonValueKind.Number => value.TryGetInt64(out var whole) ? whole : value.GetDouble(),
        JsonValueKind.Array => value.EnumerateArray().Select(FromJson).ToList(),
        JsonValueKind.Object when value.EnumerateObject().Count() == 1 && value.TryGetProperty("base64", out var base64) && base64.TryGetBytesFromBase64(out var bytes) => bytes,
        JsonValueKind.Object => Table(value),
        _ => null,
    };
}

using System.Globalization;
using System.Text.Json;
using OrderService.Domain;
using OrderService.Store;

namespace OrderService.Outbox;

/// <summary>What surrounds an event's data when it is published. All of it is stored, so a second rendering gives the same bytes.</summary>
/// <param name="EventId">CloudEvents <c>id</c> and AMQP <c>message_id</c>: consumers deduplicate by it.</param>
/// <param name="Type">One of <see cref="EventType"/>.</param>
/// <param name="OrderId"><c>subject</c> and <c>partitionkey</c>.</param>
/// <param name="Version">The version in the order's stream, from 1; null for a refusal, which is in no stream.</param>
/// <param name="Time">When it was recorded; written in UTC with milliseconds.</param>
/// <param name="CorrelationId">The whole conversation.</param>
/// <param name="CausationId">The idempotency key of the message that caused it.</param>
/// <param name="TraceParent">The W3C trace context, if there is one.</param>
/// <param name="Epoch">The store's epoch in which it was recorded; written from the second on.</param>
public readonly record struct CloudEventHead(
    string EventId,
    string Type,
    string OrderId,
    long? Version,
    DateTimeOffset Time,
    string CorrelationId,
    string CausationId,
    string? TraceParent,
    long Epoch = StoreEpoch.First);

/// <summary>Renders events as CloudEvents 1.0, structured JSON, without personal data unless the caller adds it.</summary>
public static class CloudEventWriter
{
    /// <summary>AMQP's <c>content_type</c> of what this writes.</summary>
    public const string ContentType = "application/cloudevents+json";

    /// <summary>CloudEvents' <c>source</c>.</summary>
    public const string Source = "/order-service";

    private static readonly JsonEncodedText DataMember = JsonEncodedText.Encode("data");

    /// <summary>An event that was just decided.</summary>
    /// <param name="more">Adds members to the data.</param>
    public static byte[] Write(in CloudEventHead head, OrderEvent happened, Action<Utf8JsonWriter>? more = null)
    {
        var writer = Begin(head);
        writer.WritePropertyName(DataMember);
        EventSerializer.WriteData(happened, writer, more: more);
        return End(writer, head);
    }

    /// <summary>An event from the store; members that this version does not know are published as they are.</summary>
    /// <param name="head">What surrounds the data.</param>
    /// <param name="storedData">The event's data as <see cref="EventSerializer"/> wrote it.</param>
    /// <param name="more">Adds members to the data.</param>
    public static byte[] Write(in CloudEventHead head, ReadOnlySpan<byte> storedData, Action<Utf8JsonWriter>? more = null)
    {
        var writer = Begin(head);
        writer.WritePropertyName(DataMember);
        CopyWithoutPersonalData(storedData, writer, more);
        return End(writer, head);
    }

    /// <summary>An <c>ORDER_COMMAND_REFUSED</c>: <c>data</c> is <c>{orderId, command, code, reason, status}</c>.</summary>
    /// <param name="head">What surrounds the data, with <see cref="EventType.CommandRefused"/> and without a version.</param>
    /// <param name="command">One of <see cref="CommandType"/>.</param>
    /// <param name="refused">Why.</param>
    /// <param name="status">Where the order stood, and still stands.</param>
    public static byte[] WriteRefusal(in CloudEventHead head, string command, Decision.Refused refused, OrderStatus status)
    {
        ArgumentNullException.ThrowIfNull(refused);

        var writer = Begin(head);
        writer.WriteStartObject(DataMember);
        writer.WriteString("orderId"u8, head.OrderId);
        writer.WriteString("command"u8, command);
        writer.WriteString("code"u8, refused.Code);
        writer.WriteString("reason"u8, refused.Reason);
        writer.WriteString("status"u8, status.ToWire());
        writer.WriteEndObject();
        return End(writer, head);
    }

    private static Utf8JsonWriter Begin(in CloudEventHead head)
    {
        var writer = JsonScratch.Begin();
        writer.WriteStartObject();
        writer.WriteString("specversion"u8, "1.0"u8);
        writer.WriteString("id"u8, head.EventId);
        writer.WriteString("source"u8, Source);
        writer.WriteString("type"u8, head.Type);
        writer.WriteString("subject"u8, head.OrderId);

        Span<byte> time = stackalloc byte[24];
        head.Time.UtcDateTime.TryFormat(time, out var length, "yyyy-MM-dd'T'HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture);
        writer.WriteString("time"u8, time[..length]);

        writer.WriteString("datacontenttype"u8, "application/json"u8);
        return writer;
    }

    private static byte[] End(Utf8JsonWriter writer, in CloudEventHead head)
    {
        if (head.Version is { } version)
        {
            writer.WriteNumber("sequence"u8, version);
        }

        if (head.Epoch > StoreEpoch.First)
        {
            writer.WriteNumber("epoch"u8, head.Epoch);
        }

        writer.WriteString("correlationid"u8, head.CorrelationId);
        writer.WriteString("causationid"u8, head.CausationId);
        writer.WriteString("partitionkey"u8, head.OrderId);
        if (head.TraceParent is { } traceParent)
        {
            writer.WriteString("traceparent"u8, traceParent);
        }

        writer.WriteEndObject();
        return JsonScratch.End();
    }

    private static void CopyWithoutPersonalData(ReadOnlySpan<byte> data, Utf8JsonWriter writer, Action<Utf8JsonWriter>? more)
    {
        var reader = new Utf8JsonReader(data);
        reader.Read();
        writer.WriteStartObject();
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            var personal = reader.ValueTextEquals(EventSerializer.PersonalMember) || reader.ValueTextEquals(EventSerializer.PlainMember);
            var name = reader.ValueSpan;
            var escaped = reader.ValueIsEscaped ? reader.GetString() : null;
            reader.Read();
            var start = (int)reader.TokenStartIndex;
            reader.Skip();
            if (personal)
            {
                continue;
            }

            if (escaped is null)
            {
                writer.WritePropertyName(name);
            }
            else
            {
                writer.WritePropertyName(escaped);
            }

            writer.WriteRawValue(data[start..(int)reader.BytesConsumed], skipInputValidation: true);
        }

        more?.Invoke(writer);
        writer.WriteEndObject();
    }
}

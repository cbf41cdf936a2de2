using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using OrderService.Domain;
using OrderService.Store;

namespace OrderService.Outbox;

/// <summary>A message that is published and not stored as an event: its outbox row carries it whole.</summary>
/// <param name="Headers">Texts only.</param>
public sealed record Announcement(
    string Exchange, string RoutingKey, string MessageId, string? ContentType, string? ContentEncoding, string? CorrelationId, string? Type,
    Dictionary<string, string>? Headers)
{
    /// <summary>The row that announces a refused command.</summary>
    public static OutboxRow Refusal(
        OrderCommand command, Decision.Refused refused, OrderStatus status, string key, string correlationId, string? traceContext, long now, long epoch = StoreEpoch.First)
    {
        var id = $"{command.OrderId}.refused.{Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(key)).AsSpan(0, 8))}{StoreEpoch.Suffix(epoch)}";
        var head = new CloudEventHead(
            id, EventType.CommandRefused, command.OrderId, null, DateTimeOffset.FromUnixTimeMilliseconds(now), correlationId, key, TraceText.Parent(traceContext), epoch);
        var message = new Announcement(
            EventExchange.Name, EventRoutingKey.CommandRefused, id, CloudEventWriter.ContentType, null, correlationId, EventType.CommandRefused,
            TraceText.Headers<string>(traceContext));
        return new OutboxRow(OutboxKind.Announcement, command.OrderId, 0, null, message.ToJson(), CloudEventWriter.WriteRefusal(head, command.Type, refused, status), now);
    }

    /// <summary>What is published.</summary>
    /// <param name="state">Comes back with the outcome.</param>
    public OutgoingMessage ToMessage(ReadOnlyMemory<byte> body, string? orderId, object? state = null) => new()
    {
        Exchange = Exchange,
        RoutingKey = RoutingKey,
        OrderId = orderId,
        MessageId = MessageId,
        Body = body,
        ContentType = ContentType,
        ContentEncoding = ContentEncoding,
        CorrelationId = CorrelationId,
        Type = Type,
        Headers = Headers?.ToDictionary(header => header.Key, header => (object?)header.Value),
        State = state,
    };

    public string ToJson() => JsonSerializer.Serialize(this, AnnouncementJson.Default.Announcement);

    public static Announcement Parse(string json) =>
        JsonSerializer.Deserialize(json, AnnouncementJson.Default.Announcement) ?? throw new InvalidDataException("An outbox row has no message.");
}

[JsonSerializable(typeof(Announcement))]
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
internal sealed partial class AnnouncementJson : JsonSerializerContext;

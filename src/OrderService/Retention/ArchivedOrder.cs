using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using OrderService.Domain;
using OrderService.Projections;
using OrderService.Store;

namespace OrderService.Retention;

/// <summary>An order as a line of the archive: all that was in the store of it.</summary>
/// <param name="Keys">The idempotency keys of its messages.</param>
internal sealed record ArchivedOrder(
    string OrderId, string Status, long Version, string CustomerId, string Currency, long TotalMinor, DateTimeOffset RecordedAt, DateTimeOffset UpdatedAt,
    IReadOnlyList<ArchivedEvent> Events, IReadOnlyList<string> Keys, IReadOnlyList<ArchivedLine> History)
{
    public static ArchivedOrder Of(ClosedOrder order) => new(
        order.Summary.OrderId, order.Summary.Status.ToWire(), order.Summary.Version, order.Summary.CustomerId, order.Summary.Currency, order.Summary.TotalMinor,
        DateTimeOffset.FromUnixTimeMilliseconds(order.Summary.PlacedAt), DateTimeOffset.FromUnixTimeMilliseconds(order.Summary.UpdatedAt),
        [.. order.Events.Select(ArchivedEvent.Of)], order.Keys,
        [.. order.History.Select(line => new ArchivedLine(DateTimeOffset.FromUnixTimeMilliseconds(line.At), line.Kind, line.Detail, line.Key))]);

    /// <summary>The events as the store had them.</summary>
    public IReadOnlyList<RecordedEvent> Stream() => [.. Events.Select(one => one.ToRecorded(OrderId))];

    /// <summary>What is wrong with it, a sentence; null when every event is as it was written.</summary>
    public string? Mistake()
    {
        var hash = EventHash.Genesis;
        var order = Order.None(OrderId);
        foreach (var recorded in Stream())
        {
            if (recorded.Version != order.Version + 1)
            {
                return $"Version {order.Version + 1} is missing.";
            }
            hash = EventHash.Next(
                hash, OrderId, recorded.Version, recorded.Type, recorded.Data.Span, recorded.CorrelationId, recorded.CausationId, recorded.TraceContext, recorded.RecordedAt);
            if (!hash.AsSpan().SequenceEqual(recorded.Hash))
            {
                return $"Its event {recorded.Version} is not what was written: its hash does not fit.";
            }
            try
            {
                order = order.Apply(EventSerializer.Read(recorded.Type, recorded.Data.Span));
            }
            catch (InvalidDataException exception)
            {
                return $"Its event {recorded.Version} can't be read: {exception.Message}";
            }
        }
        return order.Version != Version || order.Status.ToWire() != Status ? $"Its events add up to {order.Status.ToWire()} at version {order.Version}, not to {Status} at version {Version}." : null;
    }
}

/// <summary>An event with its exact bytes: as text where they are text, else as base64.</summary>
/// <param name="TraceContext">See <see cref="TraceText"/>; part of the hash.</param>
/// <param name="Hash">In hexadecimal.</param>
internal sealed record ArchivedEvent(
    long Position, long Version, string Type, long RecordedAt, string CorrelationId, string CausationId, string? TraceContext, string? Data, string? DataBase64, string Hash)
{
    private static readonly UTF8Encoding Strict = new(false, throwOnInvalidBytes: true);

    public static ArchivedEvent Of(RecordedEvent recorded)
    {
        var text = TextOf(recorded.Data.Span);
        return new ArchivedEvent(
            recorded.Position, recorded.Version, recorded.Type, recorded.RecordedAt, recorded.CorrelationId, recorded.CausationId, recorded.TraceContext,
            text, text is null ? Convert.ToBase64String(recorded.Data.Span) : null, Convert.ToHexStringLower(recorded.Hash));
    }

    public RecordedEvent ToRecorded(string orderId) => new(
        orderId, Version, Type, DataBase64 is null ? Encoding.UTF8.GetBytes(Data ?? "") : Convert.FromBase64String(DataBase64), CorrelationId, CausationId, TraceContext, RecordedAt,
        Convert.FromHexString(Hash)) { Position = Position };

    private static string? TextOf(ReadOnlySpan<byte> data)
    {
        try
        {
            return Strict.GetString(data);
        }
        catch (DecoderFallbackException)
        {
            return null;
        }
    }
}

/// <summary>A line of an order's history.</summary>
internal sealed record ArchivedLine(DateTimeOffset At, string Kind, string Detail, string? Key);

/// <summary>A stretch of a day's file that was written at once: a gzip file of its own, so that the whole is one too.</summary>
/// <param name="Sha256">Of these bytes, in hexadecimal.</param>
/// <param name="Previous">The SHA-256 of the manifest's line before this one: a line that is taken out is missed.</param>
internal sealed record ArchivedPart(string File, long Offset, long Length, string Sha256, string Previous, DateTimeOffset WrittenAt, IReadOnlyList<string> Orders);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(ArchivedOrder))]
[JsonSerializable(typeof(ArchivedPart))]
internal sealed partial class ArchiveJson : JsonSerializerContext;

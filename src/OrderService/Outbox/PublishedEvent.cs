using System.Globalization;
using System.Text;
using System.Text.Json;
using OrderService.Domain;
using OrderService.Store;

namespace OrderService.Outbox;

/// <summary>An event as the broker's subscribers get it.</summary>
internal static class PublishedEvent
{
    public static CloudEventHead Head(RecordedEvent recorded) => new(
        recorded.EventId, recorded.Type, recorded.OrderId, recorded.Version, DateTimeOffset.FromUnixTimeMilliseconds(recorded.RecordedAt),
        recorded.CorrelationId, recorded.CausationId, recorded.TraceParent, recorded.Epoch);

    public static byte[] Render(RecordedEvent recorded) => CloudEventWriter.Write(Head(recorded), recorded.Data.Span);

    /// <summary>The same with what is personal, as far as it can be opened.</summary>
    /// <param name="isMasked">Says only that it is there.</param>
    public static byte[] RenderWithPersonal(RecordedEvent recorded, OpenSealed open, bool isMasked) =>
        CloudEventWriter.Write(Head(recorded), recorded.Data.Span, Personal(recorded, open, isMasked));

    /// <summary>Adds the personal members to an event's data; null where it has none.</summary>
    public static Action<Utf8JsonWriter>? Personal(RecordedEvent recorded, OpenSealed open, bool isMasked = false)
    {
        if (recorded.Type != EventType.Placed || EventSerializer.Read(recorded.Type, recorded.Data.Span, open) is not OrderEvent.Placed { Personal: { } personal })
        {
            return null;
        }
        return isMasked ? writer => PersonalJson.WriteMasked(writer, personal) : writer => PersonalJson.WriteMembers(writer, personal);
    }

    /// <summary>The same with <c>position</c>, <c>orderId</c> and <c>version</c> in front, for readers of the log.</summary>
    /// <param name="open">For those who see what is personal.</param>
    public static string RenderWithPosition(RecordedEvent recorded, OpenSealed? open = null)
    {
        var published = Encoding.UTF8.GetString(open is null ? Render(recorded) : RenderWithPersonal(recorded, open, isMasked: false));
        // Ids have no character that JSON escapes.
        return string.Create(CultureInfo.InvariantCulture,
            $"{{\"position\":{recorded.Position},\"orderId\":\"{recorded.OrderId}\",\"version\":{recorded.Version},{published.AsSpan(1)}");
    }
}

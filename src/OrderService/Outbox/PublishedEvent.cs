using System.Globalization;
using System.Text;
using OrderService.Store;

namespace OrderService.Outbox;

/// <summary>An event as the broker's subscribers get it.</summary>
internal static class PublishedEvent
{
    public static CloudEventHead Head(RecordedEvent recorded) => new(
        recorded.EventId, recorded.Type, recorded.OrderId, recorded.Version, DateTimeOffset.FromUnixTimeMilliseconds(recorded.RecordedAt),
        recorded.CorrelationId, recorded.CausationId, recorded.TraceParent, recorded.Epoch);

    public static byte[] Render(RecordedEvent recorded) => CloudEventWriter.Write(Head(recorded), recorded.Data.Span);

    /// <summary>The same with <c>position</c>, <c>orderId</c> and <c>version</c> in front, for readers of the log.</summary>
    public static string RenderWithPosition(RecordedEvent recorded)
    {
        var published = Encoding.UTF8.GetString(Render(recorded));
        // Ids have no character that JSON escapes.
        return string.Create(CultureInfo.InvariantCulture,
            $"{{\"position\":{recorded.Position},\"orderId\":\"{recorded.OrderId}\",\"version\":{recorded.Version},{published.AsSpan(1)}");
    }
}

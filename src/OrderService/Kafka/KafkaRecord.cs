using System.Text;
using System.Text.Unicode;
using Confluent.Kafka;
using OrderService.Inbox;

namespace OrderService.Kafka;

/// <summary>A record in hand, with its headers as the properties that a delivery would have.</summary>
/// <param name="MayBeAgain">It may have been handed out before: it is among the first after its partition was assigned.</param>
internal sealed record KafkaRecord(TopicPartitionOffset Place, ReadOnlyMemory<byte> Body, MessageProperties Properties, bool MayBeAgain) : IInboxMessage
{
    /// <summary>Reads what came; never throws, whatever a producer wrote. The record's key says which partition, not which message, so it is not the idempotency key.</summary>
    public static KafkaRecord Of(ConsumeResult<byte[], byte[]> result, bool mayBeAgain) =>
        new(result.TopicPartitionOffset, result.Message.Value ?? [], Read(result), mayBeAgain);

    private static MessageProperties Read(ConsumeResult<byte[], byte[]> result)
    {
        string? messageId = null, correlationId = null, type = null, contentType = null, contentEncoding = null;
        var headers = new Dictionary<string, object?>(StringComparer.Ordinal);
        // Of several headers with one name the last counts, as Kafka's own clients have it.
        foreach (var header in result.Message.Headers ?? [])
        {
            var value = header.GetValueBytes();
            switch (header.Key)
            {
                case "message_id":
                    messageId = Text(value);
                    break;
                case "correlation_id":
                    correlationId = Text(value);
                    break;
                case "type":
                    type = Text(value);
                    break;
                case "content_type" or "content-type":
                    contentType = Text(value);
                    break;
                case "content_encoding":
                    contentEncoding = Text(value);
                    break;
                default:
                    headers[header.Key] = value is null ? null : Utf8.IsValid(value) ? Encoding.UTF8.GetString(value) : value;
                    break;
            }
        }
        // Where it came from, for whoever looks at its dead letter.
        headers["kafka-topic"] = result.Topic;
        headers["kafka-partition"] = result.Partition.Value;
        headers["kafka-offset"] = result.Offset.Value;
        return new MessageProperties
        {
            MessageId = messageId,
            CorrelationId = correlationId,
            Type = type,
            ContentType = contentType,
            ContentEncoding = contentEncoding,
            Timestamp = result.Message.Timestamp.Type == TimestampType.NotAvailable ? null : result.Message.Timestamp.UnixTimestampMs / 1000,
            Headers = headers,
        };
    }

    // What is not UTF-8 becomes a text that no key, type or content type can be, and is refused as such.
    private static string? Text(byte[]? value) => value is null ? null : Encoding.UTF8.GetString(value);
}

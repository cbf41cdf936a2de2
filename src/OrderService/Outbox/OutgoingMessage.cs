namespace OrderService.Outbox;

/// <summary>A message on its way to the broker; always persistent, always mandatory.</summary>
public sealed class OutgoingMessage
{
    /// <summary>The exchange; empty is the default exchange, whose routing key is a queue's name.</summary>
    public required string Exchange { get; init; }

    public required string RoutingKey { get; init; }

    /// <summary>AMQP <c>message_id</c>; also how a returned message is recognised. Not empty; at most 255 bytes of UTF-8.</summary>
    public required string MessageId { get; init; }

    public required ReadOnlyMemory<byte> Body { get; init; }

    public string? ContentType { get; init; } = "application/json";
    public string? ContentEncoding { get; init; }
    public string? CorrelationId { get; init; }

    /// <summary>AMQP <c>type</c>: the command or the event's name.</summary>
    public string? Type { get; init; }

    public string? AppId { get; init; }
    public DateTimeOffset? Timestamp { get; init; }

    /// <summary>Values: null, bool, the integer types up to long, float, double, decimal, string, byte[], DateTimeOffset, and lists and tables of them. At most 16 KiB together.</summary>
    public IReadOnlyDictionary<string, object?>? Headers { get; init; }

    /// <summary>The order that a command is about, where that is known: with <c>RabbitMq:Partitions</c> what is meant for the queue <c>orders</c> goes to the order's partition.</summary>
    public string? OrderId { get; init; }

    /// <summary>Whatever the sender wants back with the outcome; never looked at.</summary>
    public object? State { get; init; }
}

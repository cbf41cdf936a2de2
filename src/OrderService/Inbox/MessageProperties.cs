namespace OrderService.Inbox;

/// <summary>The AMQP properties a message arrived with, free of the client library's types.</summary>
/// <remarks>
/// Header values are one of: null, bool, byte, sbyte, short, ushort, int, uint, long, float, double, decimal, string (text that is valid UTF-8),
/// byte[] (anything else), DateTimeOffset or long (a timestamp in and out of the calendar's range),
/// <c>IReadOnlyList&lt;object?&gt;</c>, <c>IReadOnlyDictionary&lt;string, object?&gt;</c>.
/// </remarks>
public sealed class MessageProperties
{
    public static MessageProperties Empty { get; } = new();

    public string? MessageId { get; init; }
    public string? CorrelationId { get; init; }
    public string? Type { get; init; }
    public string? ContentType { get; init; }
    public string? ContentEncoding { get; init; }
    public string? AppId { get; init; }
    public string? UserId { get; init; }
    public string? ReplyTo { get; init; }

    /// <summary>Time to live in milliseconds, as text, as AMQP has it.</summary>
    public string? Expiration { get; init; }

    /// <summary>Seconds since 1970.</summary>
    public long? Timestamp { get; init; }

    /// <summary>2 is persistent, 1 transient, 0 not set.</summary>
    public byte DeliveryMode { get; init; }

    public byte Priority { get; init; }

    public IReadOnlyDictionary<string, object?>? Headers { get; init; }
}

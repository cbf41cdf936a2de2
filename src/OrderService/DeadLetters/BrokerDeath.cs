using System.Text;
using OrderService.Inbox;
using OrderService.RabbitMq;

namespace OrderService.DeadLetters;

/// <summary>What the broker wrote on a message when it moved it out of one of our queues.</summary>
/// <param name="Reason"><c>rejected</c>, <c>delivery_limit</c>, <c>expired</c> or <c>maxlen</c>.</param>
public sealed record BrokerDeath(string Queue, string Reason)
{
    /// <summary>
    /// The latest death in a queue that feeds the inbox; null for a letter that came another way. Anybody may send such a header, so it counts only as RabbitMQ writes it: each
    /// entry with time, exchange and routing keys, and the first death once more in headers of its own
    /// (https://www.rabbitmq.com/docs/dlx#effects).
    /// </summary>
    public static BrokerDeath? Find(MessageProperties properties)
    {
        if (properties.Headers is not { } headers || headers.GetValueOrDefault("x-death") is not System.Collections.IEnumerable deaths || deaths is string or byte[])
        {
            return null;
        }
        BrokerDeath? latest = null;
        var isFirstTold = false;
        foreach (var death in deaths)
        {
            if (death is not IReadOnlyDictionary<string, object?> entry || Read(entry) is not { } read)
            {
                return null;
            }
            isFirstTold |= Text(headers.GetValueOrDefault("x-first-death-queue")) == read.Queue && Text(headers.GetValueOrDefault("x-first-death-reason")) == read.Reason;
            if (latest is null && IsOurs(read.Queue))
            {
                latest = read;
            }
        }
        return isFirstTold ? latest : null;
    }

    /// <summary>An entry as RabbitMQ writes it; null for any other.</summary>
    private static BrokerDeath? Read(IReadOnlyDictionary<string, object?> entry) =>
        Text(entry.GetValueOrDefault("queue")) is { } queue && Text(entry.GetValueOrDefault("reason")) is { } reason
            && Text(entry.GetValueOrDefault("exchange")) is not null && entry.GetValueOrDefault("count") is long
            && entry.GetValueOrDefault("time") is not null && entry.GetValueOrDefault("routing-keys") is System.Collections.IEnumerable and not (string or byte[])
                ? new BrokerDeath(queue, reason)
                : null;

    /// <summary>Why a message died that no rejection explains.</summary>
    public Rejection Explain() => Reason switch
    {
        "delivery_limit" => new Rejection(RejectionReason.DeliveryLimit,
            "The broker gave it up after too many returns to the queue: connections or processes ended while it was in hand. Replay it.", null),
        "expired" => new Rejection(RejectionReason.Expired, "It was older than its time to live before it could be processed. Replay it if it still counts.", null),
        "maxlen" => new Rejection(RejectionReason.InternalError, $"The queue {Queue} was full and dropped it; its arguments are not those of this service. Run: orderservice topology --check", null),
        "rejected" => new Rejection(RejectionReason.InternalError, "It was rejected, but the reason was not recorded: another program consumes the queue, or the store was set back. Replay it.", null),
        _ => new Rejection(RejectionReason.InternalError, "The broker gave it up for a reason that this version does not know.", null),
    };

    // Also the queues of a partitioned intake: orders.1, orders.2 and so on.
    private static bool IsOurs(string queue) => queue == TopologyNames.Orders || TopologyNames.IsPartition(queue);

    private static string? Text(object? value) => value switch
    {
        string text => text,
        byte[] bytes => Encoding.UTF8.GetString(bytes),
        _ => null,
    };
}

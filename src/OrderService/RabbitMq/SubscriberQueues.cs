using System.Globalization;
using System.Text.Json;

namespace OrderService.RabbitMq;

/// <summary>Finds out which of the subscribers' queues takes nothing. AMQP does not tell, so it needs the management API.</summary>
public sealed class SubscriberQueues(BrokerConnector connector) : IDisposable
{
    private const int MostQueues = 50;
    private readonly ManagementApi? management = ManagementApi.Open(connector);

    public void Dispose() => management?.Dispose();

    /// <summary>Why a message with this routing key is refused, queue by queue.</summary>
    /// <returns>One sentence for each queue that refuses it; empty where none is seen to; null where that can't be known, without the management API for instance.</returns>
    public async Task<IReadOnlyList<string>?> FindAsync(string routingKey, CancellationToken cancellationToken)
    {
        if (management is null)
        {
            return null;
        }

        try
        {
            var found = new List<string>();
            foreach (var queue in await BoundAsync(routingKey, cancellationToken))
            {
                using var document = await management.GetAsync("queues", queue, "", cancellationToken);
                if (document.RootElement is { ValueKind: JsonValueKind.Object } described && Explain(queue, described) is { } sentence)
                {
                    found.Add(sentence);
                }
            }

            return found;
        }
        catch (ManagementException)
        {
            // The monitor of the queues says why it can't be asked.
            return null;
        }
    }

    /// <summary>Whether a topic binding wants the routing key: <c>*</c> is one word, <c>#</c> any number of them.</summary>
    internal static bool Matches(string pattern, string routingKey)
    {
        return Match(pattern.Split('.'), routingKey.Split('.'));

        static bool Match(ReadOnlySpan<string> pattern, ReadOnlySpan<string> words) => pattern switch
        {
            [] => words.IsEmpty,
            ["#", .. var rest] => Match(rest, words) || (!words.IsEmpty && Match(pattern, words[1..])),
            [var word, .. var rest] => !words.IsEmpty && (word == "*" || word == words[0]) && Match(rest, words[1..]),
        };
    }

    /// <summary>What keeps a queue from taking a message, as the management API describes it; null when nothing is seen.</summary>
    internal static string? Explain(string name, JsonElement queue)
    {
        if (Text(queue, "state") is { } state and ("down" or "crashed" or "stopped" or "minority"))
        {
            return $"The queue {name} is {state}.";
        }

        if (Text(queue, "type") == "quorum" && queue.TryGetProperty("leader", out _) && queue.TryGetProperty("online", out var online) && online.ValueKind == JsonValueKind.Array
            && queue.TryGetProperty("members", out var members) && members.ValueKind == JsonValueKind.Array && online.GetArrayLength() * 2 <= members.GetArrayLength())
        {
            return string.Create(CultureInfo.InvariantCulture, $"The queue {name} has no leader: {online.GetArrayLength()} of its {members.GetArrayLength()} members are online.");
        }

        var consumers = Number(queue, "consumers") is { } count ? string.Create(CultureInfo.InvariantCulture, $", and {(count == 0 ? "nobody consumes" : count == 1 ? "1 consumer" : $"{count} consumers")}") : "";
        if (Limit(queue, "max-length") is { } most && Number(queue, "messages_ready") is { } ready && ready >= most)
        {
            return string.Create(CultureInfo.InvariantCulture, $"The queue {name} is full: {ready} of at most {most} messages{consumers}.");
        }

        if (Limit(queue, "max-length-bytes") is { } mostBytes && Number(queue, "message_bytes_ready") is { } bytes && bytes > mostBytes * 9 / 10)
        {
            return string.Create(CultureInfo.InvariantCulture, $"The queue {name} is full: {bytes} of at most {mostBytes} bytes{consumers}.");
        }

        return null;
    }

    private async Task<IReadOnlyList<string>> BoundAsync(string routingKey, CancellationToken cancellationToken)
    {
        if (routingKey == TopologyNames.Orders)
        {
            // Straight to the queue.
            return [routingKey];
        }

        using var document = await management!.GetAsync("exchanges", TopologyNames.OrderEvents, "/bindings/source", cancellationToken);
        return document.RootElement is not { ValueKind: JsonValueKind.Array } bindings
            ? []
            : [.. bindings.EnumerateArray()
                .Where(binding => Text(binding, "destination_type") == "queue" && Text(binding, "routing_key") is { } pattern && Matches(pattern, routingKey))
                .Select(binding => Text(binding, "destination")).OfType<string>().Distinct(StringComparer.Ordinal).Take(MostQueues)];
    }

    private static string? Text(JsonElement from, string name) =>
        from.ValueKind == JsonValueKind.Object && from.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;

    private static long? Number(JsonElement from, string name) =>
        from.ValueKind == JsonValueKind.Object && from.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.Number && value.TryGetInt64(out var number) ? number : null;

    /// <summary>The smaller of the queue's own limit and its policy's, where it refuses what is beyond.</summary>
    private static long? Limit(JsonElement queue, string name)
    {
        var arguments = queue.TryGetProperty("arguments", out var own) ? own : default;
        var policy = queue.TryGetProperty("effective_policy_definition", out var definition) ? definition : default;
        var refuses = (Text(arguments, "x-overflow") ?? Text(policy, "overflow"))?.StartsWith("reject-publish", StringComparison.Ordinal) == true;
        long?[] limits = [Number(arguments, "x-" + name), Number(policy, name)];
        return refuses ? limits.Min() : null;
    }
}

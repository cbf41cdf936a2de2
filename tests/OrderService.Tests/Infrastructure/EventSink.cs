using System.Text.Json;
using RabbitMQ.Client;

namespace OrderService.Tests.Infrastructure;

/// <summary>A durable queue that collects every event, so that what was published while the broker failed can be counted afterwards.</summary>
public static class EventSink
{
    private const string Queue = "sink";

    /// <param name="type"><c>quorum</c> in a cluster. With one broker <c>classic</c>: RabbitMQ 4.0.5 killed soon after a quorum queue was declared may come back with a channel that waits for that queue's leader for ever.</param>
    public static async Task BindAsync(string address, string type)
    {
        await using var connection = await new ConnectionFactory { Uri = new Uri(address) }.CreateConnectionAsync();
        await using var channel = await connection.CreateChannelAsync();
        await channel.QueueDeclareAsync(Queue, durable: true, exclusive: false, autoDelete: false, new Dictionary<string, object?> { ["x-queue-type"] = type });
        await channel.QueueBindAsync(Queue, "order-events", "#");
    }

    /// <summary>The ids of all events in it, copies included. A broker that has just lost a member may fail a read; it is begun anew then.</summary>
    public static async Task<List<string>> DrainAsync(string address)
    {
        List<string> ids = [];
        await Eventually.HoldsAsync(async () => ids = await ReadAllAsync(address));
        return ids;
    }

    /// <summary>Nothing is acknowledged, so that a read that fails in the middle takes nothing away.</summary>
    private static async Task<List<string>> ReadAllAsync(string address)
    {
        await using var connection = await new ConnectionFactory { Uri = new Uri(address) }.CreateConnectionAsync();
        await using var channel = await connection.CreateChannelAsync();
        var ids = new List<string>();
        while (await channel.BasicGetAsync(Queue, autoAck: false) is { } message)
        {
            using var json = JsonDocument.Parse(message.Body);
            ids.Add(json.RootElement.GetProperty("id").GetString()!);
        }
        return ids;
    }
}

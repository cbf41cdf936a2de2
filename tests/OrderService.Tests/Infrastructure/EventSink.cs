using System.Text.Json;
using RabbitMQ.Client;

namespace OrderService.Tests.Infrastructure;

/// <summary>A durable queue that collects every event, so that what was published while the broker failed can be counted afterwards.</summary>
public static class EventSink
{
    private const string Queue = "sink";

    public static async Task BindAsync(string address)
    {
        await using var connection = await new ConnectionFactory { Uri = new Uri(address) }.CreateConnectionAsync();
        await using var channel = await connection.CreateChannelAsync();
        await channel.QueueDeclareAsync(Queue, durable: true, exclusive: false, autoDelete: false, new Dictionary<string, object?>
        {
            ["x-queue-type"] = "quorum",
            // Every read returns all of it, and 20 returns would be the end of a message.
            ["x-delivery-limit"] = 1_000_000,
        });
        await channel.QueueBindAsync(Queue, "order-events", "#");
    }

    /// <summary>
    /// Waits until so many different events are in it, copies aside. A read may fail on a broker that has just come back, and what it held is on its way back to the queue when the next one begins.
    /// </summary>
    public static Task HoldsAsync(string address, int events) =>
        Eventually.HoldsAsync(async () => Assert.Equal(events, (await ReadAllAsync(address)).Distinct().Count()), TimeSpan.FromSeconds(30));

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

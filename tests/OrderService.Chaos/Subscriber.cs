using System.Collections.Concurrent;
using System.Text.Json;
using RabbitMQ.Client;
using RabbitMQ.Client.Events;

namespace OrderService.Chaos;

/// <summary>An event as a subscriber received it.</summary>
internal sealed record HeardEvent(string Id, string Type, string OrderId, long? Sequence, string? Cause);

/// <summary>A subscriber with a durable queue of its own on <c>order-events</c>, bound before anything is sent; keeps everything in the order of arrival.</summary>
internal sealed class Subscriber : IAsyncDisposable
{
    private const string Queue = "chaos.events";
    private readonly ConcurrentQueue<HeardEvent> heard = new();
    private readonly IConnection connection;
    private readonly IChannel channel;

    private Subscriber(IConnection connection, IChannel channel) => (this.connection, this.channel) = (connection, channel);

    public IReadOnlyCollection<HeardEvent> Heard => heard;

    public static async Task<Subscriber> StartAsync(World world)
    {
        var connection = await world.ConnectAsync("subscribes");
        var channel = await connection.CreateChannelAsync();
        var subscriber = new Subscriber(connection, channel);
        await channel.QueueDeclareAsync(Queue, durable: true, exclusive: false, autoDelete: false);
        await channel.QueueBindAsync(Queue, "order-events", "#");
        var consumer = new AsyncEventingBasicConsumer(channel);
        consumer.ReceivedAsync += (_, delivery) =>
        {
            using var json = JsonDocument.Parse(delivery.Body);
            var root = json.RootElement;
            subscriber.heard.Enqueue(new HeardEvent(
                root.GetProperty("id").GetString()!, root.GetProperty("type").GetString()!, root.GetProperty("subject").GetString()!,
                root.TryGetProperty("sequence", out var sequence) ? (sequence.ValueKind == JsonValueKind.Number ? sequence.GetInt64() : long.Parse(sequence.GetString()!, System.Globalization.CultureInfo.InvariantCulture)) : null,
                root.TryGetProperty("causationid", out var cause) ? cause.GetString() : null));
            return Task.CompletedTask;
        };
        await channel.BasicConsumeAsync(Queue, autoAck: true, consumer);
        return subscriber;
    }

    public async ValueTask DisposeAsync()
    {
        await channel.DisposeAsync();
        await connection.DisposeAsync();
    }
}

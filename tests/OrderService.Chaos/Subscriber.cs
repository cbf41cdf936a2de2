using System.Collections.Concurrent;
using System.Globalization;
using System.Security.Cryptography;
using System.Text.Json;
using RabbitMQ.Client;
using RabbitMQ.Client.Events;
using RabbitMQ.Client.Exceptions;

namespace OrderService.Chaos;

/// <summary>An event as a subscriber received it.</summary>
/// <param name="Epoch">The header <c>x-relay-epoch</c>: the lease's number of whoever published it.</param>
/// <param name="Hash">Of the body's bytes: copies are the same, byte for byte.</param>
internal sealed record HeardEvent(string Id, string Type, string OrderId, long? Sequence, string? Cause, long? Epoch, string Hash);

/// <summary>
/// A subscriber with a durable queue of its own on <c>order-events</c>, bound before anything is sent; keeps everything in the order of arrival. It acknowledges what it has noted, so
/// that nothing is lost when its own connection breaks; what the broker hands out a second time because of that is no copy.
/// </summary>
internal sealed class Subscriber : IAsyncDisposable
{
    private readonly string queue;
    private readonly ConcurrentQueue<HeardEvent> heard = new();
    private readonly ConcurrentDictionary<string, byte> ids = new();
    private readonly World world;
    private readonly CancellationTokenSource stop = new();
    private Task listening = Task.CompletedTask;

    private Subscriber(World world, string queue) => (this.world, this.queue) = (world, queue);

    public IReadOnlyCollection<HeardEvent> Heard => heard;

    /// <summary>How many different events were heard.</summary>
    public int Distinct => ids.Count;

    /// <param name="queue">It is declared and bound unless it is there.</param>
    /// <param name="binding">Which routing keys it gets.</param>
    public static async Task<Subscriber> StartAsync(World world, string queue = "chaos.events", string binding = "#")
    {
        var subscriber = new Subscriber(world, queue);
        var connection = await world.ConnectAsync("subscribes");
        var channel = await connection.CreateChannelAsync();
        await channel.QueueDeclareAsync(queue, durable: true, exclusive: false, autoDelete: false);
        await channel.QueueBindAsync(queue, "order-events", binding);
        subscriber.listening = subscriber.ListenAsync(connection, channel);
        return subscriber;
    }

    public async ValueTask DisposeAsync()
    {
        await stop.CancelAsync();
        await listening;
        stop.Dispose();
    }

    private async Task ListenAsync(IConnection connection, IChannel channel)
    {
        while (true)
        {
            var ended = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            using var stopping = stop.Token.Register(() => ended.TrySetResult());
            try
            {
                channel.ChannelShutdownAsync += (_, _) => Task.FromResult(ended.TrySetResult());
                var consumer = new AsyncEventingBasicConsumer(channel);
                consumer.ReceivedAsync += async (_, delivery) =>
                {
                    Note(delivery);
                    await channel.BasicAckAsync(delivery.DeliveryTag, false);
                };
                await channel.BasicQosAsync(0, 1000, false);
                await channel.BasicConsumeAsync(queue, autoAck: false, consumer);
                await ended.Task;
            }
            catch (Exception exception) when (exception is OperationInterruptedException or IOException)
            {
                world.Progress.Report($"the subscriber's connection broke: {exception.GetType().Name}");
            }
            await connection.AbandonAsync();
            try
            {
                connection = await world.ConnectPatientlyAsync("subscribes", stop.Token);
                channel = await connection.CreateChannelAsync(cancellationToken: stop.Token);
            }
            catch (OperationCanceledException)
            {
                return;
            }
            catch (Exception exception) when (exception is OperationInterruptedException or IOException)
            {
                world.Progress.Report($"the subscriber's channel can't be opened: {exception.GetType().Name}");
            }
        }
    }

    private void Note(BasicDeliverEventArgs delivery)
    {
        using var json = JsonDocument.Parse(delivery.Body);
        var root = json.RootElement;
        var id = root.GetProperty("id").GetString()!;
        var isNew = ids.TryAdd(id, 0);
        if (!isNew && delivery.Redelivered)
        {
            return;
        }
        heard.Enqueue(new HeardEvent(
            id, root.GetProperty("type").GetString()!, root.GetProperty("subject").GetString()!,
            root.TryGetProperty("sequence", out var sequence) ? Number(sequence) : null,
            root.TryGetProperty("causationid", out var cause) ? cause.GetString() : null,
            delivery.BasicProperties.Headers?.TryGetValue("x-relay-epoch", out var epoch) == true ? Convert.ToInt64(epoch, CultureInfo.InvariantCulture) : null,
            Convert.ToHexStringLower(SHA256.HashData(delivery.Body.Span))));
    }

    private static long Number(JsonElement value) => value.ValueKind == JsonValueKind.Number ? value.GetInt64() : long.Parse(value.GetString()!, CultureInfo.InvariantCulture);
}

using System.Text.Json;
using RabbitMQ.Client;
using RabbitMQ.Client.Events;

namespace Samples;

/// <summary>Prints each event once, in the order of its order's stream.</summary>
internal static class Consume
{
    public static async Task<int> RunAsync(string queue, int howMany)
    {
        var factory = new ConnectionFactory { Uri = new Uri(Environment.GetEnvironmentVariable("AMQP_URI") ?? "amqp://guest:guest@localhost:5672/") };
        await using var connection = await factory.CreateConnectionAsync();
        await using var channel = await connection.CreateChannelAsync();
        await channel.QueueDeclareAsync(queue, durable: true, exclusive: false, autoDelete: false, new Dictionary<string, object?> { ["x-queue-type"] = "quorum" });
        await channel.QueueBindAsync(queue, "order-events", "order.*");
        await channel.BasicQosAsync(0, 100, global: false);

        // In a real consumer this is a table with a unique key, written in the transaction of whatever the event changes.
        var seen = new HashSet<string>();
        var done = new TaskCompletionSource();
        var consumer = new AsyncEventingBasicConsumer(channel);
        consumer.ReceivedAsync += async (_, delivery) =>
        {
            using var message = JsonDocument.Parse(delivery.Body);
            var happened = message.RootElement;
            if (seen.Add(happened.GetProperty("id").GetString()!))
            {
                Console.WriteLine($"{happened.GetProperty("type")} {happened.GetProperty("subject")} {(happened.TryGetProperty("sequence", out var sequence) ? sequence : "-")}");
            }
            // Only now: what was not acknowledged comes again.
            await channel.BasicAckAsync(delivery.DeliveryTag, multiple: false);
            if (seen.Count == howMany)
            {
                done.TrySetResult();
            }
        };
        await channel.BasicConsumeAsync(queue, autoAck: false, consumer);
        Console.WriteLine($"waiting for events in {queue}");
        await done.Task;
        return 0;
    }
}

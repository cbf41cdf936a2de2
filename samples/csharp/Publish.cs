using System.Text;
using RabbitMQ.Client;
using RabbitMQ.Client.Exceptions;

namespace Samples;

/// <summary>Publishes an order and waits until the broker has it.</summary>
internal static class Publish
{
    public static async Task<int> RunAsync(string orderId)
    {
        var factory = new ConnectionFactory { Uri = new Uri(Environment.GetEnvironmentVariable("AMQP_URI") ?? "amqp://guest:guest@localhost:5672/") };
        await using var connection = await factory.CreateConnectionAsync();
        // With tracking BasicPublishAsync returns when the broker has confirmed, and throws when it did not.
        await using var channel = await connection.CreateChannelAsync(new CreateChannelOptions(publisherConfirmationsEnabled: true, publisherConfirmationTrackingEnabled: true));
        var order = $$"""{"orderId":"{{orderId}}","customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}]}""";
        var properties = new BasicProperties
        {
            Type = "order.place",
            // The key is yours: after a crash or a time-out send the same message again, with the same key, and it counts once.
            MessageId = $"place-{orderId}",
            ContentType = "application/json",
            Persistent = true,
            Timestamp = new AmqpTimestamp(TimeProvider.System.GetUtcNow().ToUnixTimeSeconds()),
        };
        try
        {
            // "mandatory": a queue that is not there is told, instead of the order being lost.
            await channel.BasicPublishAsync("", "orders", mandatory: true, properties, Encoding.UTF8.GetBytes(order));
        }
        catch (PublishException exception)
        {
            await Console.Error.WriteLineAsync(exception.IsReturn ? $"{orderId} was returned: there is no queue \"orders\"" : $"{orderId} was not taken; send it again");
            return 1;
        }
        Console.WriteLine($"confirmed {orderId}");
        return 0;
    }
}

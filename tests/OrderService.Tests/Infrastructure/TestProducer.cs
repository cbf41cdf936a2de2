using System.Text;
using RabbitMQ.Client;
using RabbitMQ.Client.Exceptions;

namespace OrderService.Tests.Infrastructure;

/// <summary>A message that a test sends.</summary>
public sealed record TestMessage(string? Type, string? Key, byte[] Body)
{
    public Action<BasicProperties>? More { get; init; }

    public static TestMessage Place(string orderId, string? key = null, string customerId = "C-7") => new(
        null, key ?? $"key-{orderId}",
        Encoding.UTF8.GetBytes($$"""{"orderId":"{{orderId}}","customerId":"{{customerId}}","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}]}"""));

    public static TestMessage Of(string type, string key, string json) => new(type, key, Encoding.UTF8.GetBytes(json));

    public static TestMessage Ship(string orderId) => Of("order.ship", $"ship-{orderId}", $$"""{"orderId":"{{orderId}}"}""");
}

/// <summary>Another program's view of the broker: publishes with confirms and listens to events, with a client and a connection of its own.</summary>
public sealed class TestProducer : IAsyncDisposable
{
    private readonly IConnection connection;
    private readonly IChannel channel;
    private readonly List<(string Id, string Type, string? Cause, string Body)> heard = [];

    private TestProducer(IConnection connection, IChannel channel) => (this.connection, this.channel) = (connection, channel);

    public static async Task<TestProducer> ConnectAsync(string broker)
    {
        var connection = await new ConnectionFactory { Uri = new Uri(broker) }.CreateConnectionAsync();
        var channel = await connection.CreateChannelAsync(new CreateChannelOptions(
            publisherConfirmationsEnabled: true, publisherConfirmationTrackingEnabled: true));
        return new TestProducer(connection, channel);
    }

    /// <summary>
    /// A producer as it should be: what was not confirmed is sent again with the same key, over whichever address answers, until all of it is confirmed.
    /// </summary>
    public static Task PublishUntilConfirmedAsync(IReadOnlyList<string> addresses, IEnumerable<TestMessage> messages) =>
        UntilConfirmedAsync(addresses, messages, (shop, chunk) => shop.PublishAsync(chunk));

    /// <summary>The same through the exchange in front of the partitions.</summary>
    public static Task PublishByOrderUntilConfirmedAsync(IReadOnlyList<string> addresses, IEnumerable<(string OrderId, TestMessage Message)> messages) =>
        UntilConfirmedAsync(addresses, messages, (shop, chunk) => shop.PublishByOrderAsync(chunk));

    private static async Task UntilConfirmedAsync<T>(IReadOnlyList<string> addresses, IEnumerable<T> messages, Func<TestProducer, T[], Task> publish)
    {
        var waiting = messages.ToList();
        while (waiting.Count > 0)
        {
            try
            {
                await using var shop = await ConnectAnywhereAsync(addresses);
                foreach (var chunk in waiting.Chunk(100).ToList())
                {
                    await publish(shop, chunk).WaitAsync(TimeSpan.FromSeconds(30));
                    waiting.RemoveRange(0, chunk.Length);
                }
            }
            catch (Exception exception) when (exception is OperationInterruptedException or BrokerUnreachableException or PublishException or IOException or TimeoutException)
            {
                // Not confirmed: it may or may not be there, so it goes out again.
            }
        }
    }

    private static async Task<TestProducer> ConnectAnywhereAsync(IReadOnlyList<string> addresses)
    {
        TestProducer? connected = null;
        await Eventually.HoldsAsync(
            async () =>
            {
                foreach (var address in addresses)
                {
                    try
                    {
                        connected = await ConnectAsync(address);
                        return;
                    }
                    catch (BrokerUnreachableException)
                    {
                        // The next one.
                    }
                }
                Assert.Fail("No broker answers.");
            },
            TimeSpan.FromSeconds(60));
        return connected!;
    }

    /// <summary>What came out of <c>order-events</c> since <see cref="ListenAsync"/>, in its order.</summary>
    public IReadOnlyList<(string Id, string Type, string? Cause, string Body)> Heard
    {
        get
        {
            lock (heard)
            {
                return [.. heard];
            }
        }
    }

    /// <summary>Publishes into <c>orders</c> and waits for every confirm.</summary>
    public async Task PublishAsync(params IEnumerable<TestMessage> messages)
    {
        var confirms = new List<Task>();
        foreach (var message in messages)
        {
            confirms.Add(SendAsync("", "orders", message));
        }
        await Task.WhenAll(confirms);
    }

    /// <summary>Publishes to the exchange in front of the partitions, as a producer that knows the order's id, and waits for every confirm.</summary>
    public async Task PublishByOrderAsync(params IEnumerable<(string OrderId, TestMessage Message)> messages)
    {
        var confirms = new List<Task>();
        foreach (var (orderId, message) in messages)
        {
            confirms.Add(SendAsync("orders.partitioned", orderId, message));
        }
        await Task.WhenAll(confirms);
    }

    private Task SendAsync(string exchange, string routingKey, TestMessage message)
    {
        var properties = new BasicProperties { MessageId = message.Key, Type = message.Type, DeliveryMode = DeliveryModes.Persistent };
        message.More?.Invoke(properties);
        return channel.BasicPublishAsync(exchange, routingKey, mandatory: true, properties, message.Body).AsTask();
    }

    /// <summary>As plain as a producer can be: JSON and nothing else.</summary>
    public Task PublishBareAsync(string json) =>
        channel.BasicPublishAsync("", "orders", Encoding.UTF8.GetBytes(json)).AsTask();

    /// <summary>Binds a queue of its own to every event, once the service has declared where they go.</summary>
    public async Task ListenAsync()
    {
        await Eventually.HoldsAsync(async () =>
        {
            // A channel that asked for what is not there is closed.
            await using var passive = await connection.CreateChannelAsync();
            await passive.ExchangeDeclarePassiveAsync("order-events");
        });
        var listening = await connection.CreateChannelAsync();
        var queue = await listening.QueueDeclareAsync();
        await listening.QueueBindAsync(queue.QueueName, "order-events", "#");
        var consumer = new RabbitMQ.Client.Events.AsyncEventingBasicConsumer(listening);
        consumer.ReceivedAsync += (_, delivery) =>
        {
            var body = Encoding.UTF8.GetString(delivery.Body.Span);
            using var json = System.Text.Json.JsonDocument.Parse(body);
            lock (heard)
            {
                heard.Add((delivery.BasicProperties.MessageId!, delivery.BasicProperties.Type!, json.RootElement.GetProperty("causationid").GetString(), body));
            }
            return Task.CompletedTask;
        };
        await listening.BasicConsumeAsync(queue.QueueName, autoAck: true, consumer);
    }

    public async Task<uint> DepthAsync(string queue)
    {
        await using var passive = await connection.CreateChannelAsync();
        return await passive.MessageCountAsync(queue);
    }

    public async ValueTask DisposeAsync()
    {
        await channel.DisposeAsync();
        await connection.DisposeAsync();
    }
}

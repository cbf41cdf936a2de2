using System.Collections.Concurrent;
using System.Text;
using OrderService.Tests.Infrastructure;
using RabbitMQ.Client;
using RabbitMQ.Client.Events;

namespace OrderService.Tests.Outside;

/// <summary>A message that the broker can't put into words of AMQP 0.9.1: it closes the connection each time it is to hand it out.</summary>
public sealed class UndeliverableJourneys(RabbitMqContainerFixture broker)
{
    private const int Orders = 4000;

    // Few enough to be in hand together with the poison behind them.
    private const int Before = 1500;

    // What comes again, and one portion of what is taken in portions then.
    private const int MostReturns = 3;

    [Fact]
    public async Task It_moves_on_alone_past_good_orders_and_letters_and_a_person_hears_of_it()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var webhook = await FakeWebhook.StartAsync();
        await using var service = await ReleaseService.StartAsync(address, settings: new Dictionary<string, string>
        {
            ["RabbitMq__DeliveryLimit"] = "8",
            ["Alerts__Webhook__Enabled"] = "true",
            ["Alerts__Webhook__Url"] = webhook.Url.ToString(),
            ["Alerts__Webhook__Secret"] = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            ["Alerts__Webhook__AllowedHosts__0"] = "127.0.0.1",
        });
        await service.StopAsync();
        await using var shop = await TestProducer.ConnectAsync(address);
        await PlaceAsync(shop, 1, Before);
        await using (var sender = await Amqp10Sender.ConnectAsync(address, "orders"))
        {
            await sender.SendAsync("poison"u8.ToArray(), ("tenant", Amqp10Sender.Uuid(Guid.NewGuid())));
        }
        await PlaceAsync(shop, Before + 1, Orders - Before);
        await shop.PublishAsync(TestMessage.Of("order.place", "broken", "{"));
        await using var deliveries = await Deliveries.WatchAsync(broker, address);

        await service.StartAgainAsync();

        // It passes orders, then orders.dlq, and ends where nobody reads.
        await Eventually.TrueAsync(async () => await shop.DepthAsync("orders.unreadable") == 1, TimeSpan.FromSeconds(180));
        await Eventually.TrueAsync(async () => (await service.GetAsync("/api/stats")).GetProperty("totals").GetProperty("accepted").GetInt64() == Orders);
        Assert.Equal(Orders, (await service.AllAsync("/api/orders")).Count);
        await Eventually.TrueAsync(() => deliveries.ByBody.Count > Orders);
        // The first end returned some of them, or nothing shows that the others returned few.
        Assert.Contains(deliveries.ByBody.Values, times => times > 1);
        Assert.All(deliveries.ByBody, body => Assert.InRange(body.Value, 1, 1 + MostReturns));
        // The broken one comes last, and is parked a moment after it was decided.
        await Eventually.HoldsAsync(async () =>
        {
            Assert.Equal("broken", Assert.Single(await service.AllAsync("/api/dead-letters")).GetProperty("key").GetString());
            Assert.Equal((0u, 0u), (await shop.DepthAsync("orders"), await shop.DepthAsync("orders.dlq")));
        });
        await Eventually.HoldsAsync(() =>
        {
            var alerts = string.Join('\n', webhook.Received.Select(received => Encoding.UTF8.GetString(received.Body)));
            Assert.Contains("A message at the head of orders can", alerts, StringComparison.Ordinal);
            Assert.Contains("A message at the head of orders.dlq can", alerts, StringComparison.Ordinal);
            Assert.Contains("1 message can", alerts, StringComparison.Ordinal);
            return Task.CompletedTask;
        });
        Assert.Equal(0, await service.StopAsync());
    }

    private static Task PlaceAsync(TestProducer shop, int first, int count) =>
        shop.PublishAsync(Enumerable.Range(first, count).Select(number => TestMessage.Place($"A-{number}")));

    /// <summary>How often the broker handed out each message of <c>orders</c> that it could, by its own trace. What it can't hand out it can't trace either.</summary>
    private sealed class Deliveries(IConnection connection) : IAsyncDisposable
    {
        public ConcurrentDictionary<string, int> ByBody { get; } = new();

        public static async Task<Deliveries> WatchAsync(RabbitMqContainerFixture broker, string address)
        {
            var connection = await new ConnectionFactory { Uri = new Uri(address) }.CreateConnectionAsync();
            var deliveries = new Deliveries(connection);
            var channel = await connection.CreateChannelAsync();
            var queue = await channel.QueueDeclareAsync();
            await channel.QueueBindAsync(queue.QueueName, "amq.rabbitmq.trace", "deliver.orders");
            var consumer = new AsyncEventingBasicConsumer(channel);
            consumer.ReceivedAsync += (_, delivery) =>
            {
                deliveries.ByBody.AddOrUpdate(Encoding.UTF8.GetString(delivery.Body.Span), 1, (_, times) => times + 1);
                return Task.CompletedTask;
            };
            await channel.BasicConsumeAsync(queue.QueueName, autoAck: true, consumer);
            await broker.ExecAsync("rabbitmqctl", "trace_on", "-p", new Uri(address).AbsolutePath[1..]);
            return deliveries;
        }

        public ValueTask DisposeAsync() => connection.DisposeAsync();
    }
}

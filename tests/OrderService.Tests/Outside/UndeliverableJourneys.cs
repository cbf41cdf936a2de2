using System.Text;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>A message that the broker can't put into words of AMQP 0.9.1: it closes the connection each time it is to hand it out.</summary>
public sealed class UndeliverableJourneys(RabbitMqContainerFixture broker)
{
    private const int Orders = 600;

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
        await PlaceAsync(shop, 1, Orders / 2);
        await using (var sender = await Amqp10Sender.ConnectAsync(address, "orders"))
        {
            await sender.SendAsync("poison"u8.ToArray(), ("tenant", Amqp10Sender.Uuid(Guid.NewGuid())));
        }
        await PlaceAsync(shop, (Orders / 2) + 1, Orders / 2);
        await shop.PublishAsync(TestMessage.Of("order.place", "broken", "{"));

        await service.StartAgainAsync();

        // It passes orders, then orders.dlq, and ends where nobody reads.
        await Eventually.TrueAsync(async () => await shop.DepthAsync("orders.unreadable") == 1, TimeSpan.FromSeconds(180));
        await Eventually.HoldsAsync(async () => Assert.Equal(Orders, (await service.AllAsync("/api/orders")).Count));
        var letter = Assert.Single(await service.AllAsync("/api/dead-letters"));
        Assert.Equal("broken", letter.GetProperty("key").GetString());
        Assert.Equal((0u, 0u), (await shop.DepthAsync("orders"), await shop.DepthAsync("orders.dlq")));
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
}

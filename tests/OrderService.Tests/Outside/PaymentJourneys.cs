using System.Text.Json;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>Payments add up, and one that an order does not take is heard of.</summary>
public sealed class PaymentJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task Payments_add_up_and_a_refused_one_is_heard_of_even_after_a_crash(StoreKind store)
    {
        var address = await broker.AddVirtualHostAsync();
        await using var webhook = await FakeWebhook.StartAsync();
        await using var service = await ReleaseService.StartAsync(address, store, postgres, new Dictionary<string, string>
        {
            // Nothing looks for alerts until the next start.
            ["Alerts__PollInterval"] = "00:01:00",
            ["Alerts__Webhook__Enabled"] = "true",
            ["Alerts__Webhook__Url"] = webhook.Url.ToString(),
            ["Alerts__Webhook__Secret"] = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            ["Alerts__Webhook__AllowedHosts__0"] = "127.0.0.1",
        });
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();

        // Two payments come before their order, and one comes twice under two keys.
        await shop.PublishAsync(Pay("A-1", "P-1", "0.01"), Pay("A-1", "P-2", "50"));
        await shop.PublishAsync(TestMessage.Place("A-1"), Pay("A-1", "P-1", "0.010", "again"));
        await Eventually.HoldsAsync(async () =>
        {
            var order = await service.GetAsync("/api/orders/A-1");
            Assert.Equal(("placed", "50.01", "49.79", "0.00"), (order.GetProperty("status").GetString(), Text(order, "paid"), Text(order, "due"), Text(order, "overpaid")));
        });
        await shop.PublishAsync(TestMessage.Ship("A-1"));
        await shop.PublishAsync(TestMessage.Of("order.deliver", "deliver", """{"orderId":"A-1"}"""));
        await Eventually.TrueAsync(async () => await service.OrderStatusAsync("A-1") == "delivered");
        await shop.PublishAsync(Pay("A-1", "P-3", null), Pay("A-1", "P-4", "0.20"));
        await Eventually.HoldsAsync(async () =>
        {
            var order = await service.GetAsync("/api/orders/A-1");
            Assert.Equal(("delivered", "100.00", "0.00", "0.20"), (order.GetProperty("status").GetString(), Text(order, "paid"), Text(order, "due"), Text(order, "overpaid")));
        });
        await shop.PublishAsync(TestMessage.Place("A-2"), TestMessage.Of("order.cancel", "cancel", """{"orderId":"A-2","reason":"x"}"""));
        await Eventually.TrueAsync(async () => await service.OrderStatusAsync("A-2") == "cancelled");
        await shop.PublishAsync(Pay("A-2", "P-5", "99.80"), Pay("A-1", "P-2", "50.01", "conflict"));
        await Eventually.TrueAsync(() => shop.Heard.Count(heard => heard.Type == "ORDER_COMMAND_REFUSED") == 2);
        await service.KillAsync();
        service.Settings["Alerts__PollInterval"] = "00:00:00.100";
        await service.StartAgainAsync();

        Assert.Equal(
            [
                "ORDER_PLACED", "0.01 0.01 99.79", "50.00 50.01 49.79", "ORDER_SHIPPED", "ORDER_DELIVERED", "49.79 99.80 0.00", "ORDER_PAID",
                "0.20 100.00 0.00 0.20",
            ],
            shop.Heard.Where(heard => heard.Id.StartsWith("A-1.", StringComparison.Ordinal) && heard.Type != "ORDER_COMMAND_REFUSED").DistinctBy(heard => heard.Id).Select(Told));
        await Eventually.TrueAsync(() => !webhook.Received.IsEmpty);
        var alert = System.Text.Encoding.UTF8.GetString(Assert.Single(webhook.Received).Body);
        Assert.Contains("2 payments were refused", alert, StringComparison.Ordinal);
        Assert.Contains("A-1", alert, StringComparison.Ordinal);
        Assert.Contains("A-2", alert, StringComparison.Ordinal);

        var (exit, shown, error) = await service.RunAsync("order", "show", "A-1");
        Assert.True(exit == 0, error);
        Assert.Contains("paid 100.00 EUR in 4 payments, due 0.00, 0.20 overpaid", shown, StringComparison.Ordinal);
        var why = await service.GetAsync("/api/why/A-1");
        Assert.Equal("The order is delivered (version 8). 100.00 of 99.80 EUR paid, 0.20 EUR too much.", why.GetProperty("state").GetString());
        Assert.Equal(["Nothing; the order is delivered, and that is its end."], why.GetProperty("next").EnumerateArray().Select(sentence => sentence.GetString()));
        Assert.Equal(0, await service.StopAsync());
    }

    private static TestMessage Pay(string orderId, string reference, string? amount, string? key = null) => TestMessage.Of(
        "order.pay", key ?? reference, $$"""{"orderId":"{{orderId}}","paymentReference":"{{reference}}"{{(amount is null ? "" : $",\"amount\":{amount}")}}}""");

    private static string Text(JsonElement order, string name) => order.GetProperty(name).GetRawText();

    private static string Told((string Id, string Type, string? Cause, string Body) heard)
    {
        if (heard.Type != "ORDER_PAYMENT_RECEIVED")
        {
            return heard.Type;
        }
        using var json = JsonDocument.Parse(heard.Body);
        return string.Join(' ', json.RootElement.GetProperty("data").EnumerateObject().Skip(1).Select(member => member.Value.GetRawText()));
    }
}

using System.Text.Json;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>An order as shops have it: taxed and discounted, authorized and captured, sent in parts, partly sent back and refunded.</summary>
public sealed class ShopJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    private const string Order =
        """
        {"orderId":"A-1","customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90,"lineId":"kb","name":"Keyboard","tax":{"rate":19,"included":true}},{"sku":"M-01","quantity":1,"unitPrice":10.00}],
         "shippingCost":4.90,"discounts":[{"amount":4.70,"code":"SPRING"}],"total":110.00,"channel":"web","attributes":{"market":"DE"}}
        """;

    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task An_order_is_captured_sent_in_parts_and_partly_refunded_and_a_wrong_total_is_a_dead_letter(StoreKind store)
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, store, postgres, new Dictionary<string, string>
        {
            ["Orders__SearchableAttributes__0"] = "channel",
            ["Orders__RequirePaymentBeforeShipping"] = "true",
        });
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();

        // The authorization comes before its order.
        await shop.PublishAsync(
            TestMessage.Of("order.authorize", "auth", """{"orderId":"A-1","paymentReference":"AUTH","amount":110}"""),
            TestMessage.Of("order.place", "place", Order),
            TestMessage.Of("order.place", "wrong", Order.Replace("A-1", "A-2", StringComparison.Ordinal).Replace("110.00", "110.01", StringComparison.Ordinal)));
        await StandsAsync("placed", "authorized", "unfulfilled");
        await shop.PublishAsync(TestMessage.Of("order.ship", "early", """{"orderId":"A-1"}"""));
        await Eventually.TrueAsync(() => shop.Heard.Any(heard => heard.Type == "ORDER_COMMAND_REFUSED" && heard.Body.Contains("payment-required", StringComparison.Ordinal)));
        await shop.PublishAsync(TestMessage.Of("order.capture", "capture", """{"orderId":"A-1","paymentReference":"AUTH","captureReference":"CAP-1"}"""));
        await StandsAsync("paid", "paid", "unfulfilled");
        await shop.PublishAsync(TestMessage.Of("order.ship", "s1", """{"orderId":"A-1","shipmentId":"S-1","lines":[{"lineId":"kb","quantity":1}]}"""));
        await StandsAsync("paid", "paid", "partly_fulfilled");
        await shop.PublishAsync(TestMessage.Of("order.ship", "s2", """{"orderId":"A-1","carrier":"DHL","trackingNumber":"T-2"}"""));
        await StandsAsync("shipped", "paid", "fulfilled");
        await shop.PublishAsync(
            TestMessage.Of("order.return", "back", """{"orderId":"A-1","returnId":"R-1","lines":[{"lineId":"kb","quantity":1}],"reason":"too small"}"""),
            TestMessage.Of("order.return", "too-many", """{"orderId":"A-1","returnId":"R-2","lines":[{"lineId":"kb","quantity":2}],"reason":"too small"}"""));
        await shop.PublishAsync(TestMessage.Of("order.refund", "refund", """{"orderId":"A-1","refundReference":"REF-1","amount":49.90,"paymentReference":"CAP-1"}"""));
        await StandsAsync("shipped", "partly_refunded", "partly_returned");

        Assert.Equal(
            [
                "ORDER_PLACED", "ORDER_PAYMENT_AUTHORIZED", "ORDER_PAYMENT_RECEIVED", "ORDER_PAID", "ORDER_PARTLY_SHIPPED", "ORDER_SHIPPED", "ORDER_RETURNED", "ORDER_REFUNDED",
            ],
            (await EventsAsync()).DistinctBy(heard => heard.Id).Select(heard => heard.Type));
        await Eventually.TrueAsync(() => shop.Heard.Any(heard => heard.Type == "ORDER_COMMAND_REFUSED" && heard.Body.Contains(
            "Of line kb at most 1 can come back (2 shipped, 1 returned before); 2 were asked for.", StringComparison.Ordinal)));
        var found = await service.GetAsync("/api/orders?attribute=channel:web&fulfillmentStatus=partly_returned");
        Assert.Equal(["A-1"], found.GetProperty("items").EnumerateArray().Select(order => order.GetProperty("orderId").GetString()));
        await Eventually.HoldsAsync(async () =>
        {
            var letter = Assert.Single((await service.GetAsync("/api/dead-letters?reason=total_mismatch")).GetProperty("items").EnumerateArray());
            Assert.Equal("A-2", letter.GetProperty("orderId").GetString());
            Assert.Contains("total is 110.01 and the order adds up to 110.00 EUR", letter.GetRawText(), StringComparison.Ordinal);
        });

        // What it says survives a crash, and the store is what its events say.
        await service.KillAsync();
        await service.StartAgainAsync();
        await StandsAsync("shipped", "partly_refunded", "partly_returned");
        var (exit, shown, error) = await service.RunAsync("order", "show", "A-1");
        Assert.True(exit == 0, error);
        Assert.Contains("refunded 49.90 EUR in 1 refund", shown, StringComparison.Ordinal);
        Assert.Contains("shipment S-1: 1 of line kb", shown, StringComparison.Ordinal);
        var why = await service.GetAsync("/api/why/A-1");
        Assert.Equal(
            "The order is shipped (version 8). 110.00 of 110.00 EUR paid, 0.00 EUR due. 49.90 EUR were refunded. It is partly returned: 3 of 3 pieces shipped, 0 open, 1 returned.",
            why.GetProperty("state").GetString());
        var (verified, report, trouble) = await service.RunAsync("verify");
        Assert.True(verified == 0, report + trouble);
        Assert.Equal(0, await service.StopAsync());

        Task StandsAsync(string status, string payment, string fulfillment) => Eventually.HoldsAsync(async () =>
        {
            var order = await service.GetAsync("/api/orders/A-1");
            Assert.Equal((status, payment, fulfillment), (Text(order, "status"), Text(order, "paymentStatus"), Text(order, "fulfillmentStatus")));
        });

        async Task<List<(string Id, string Type, string? Cause, string Body)>> EventsAsync()
        {
            await Eventually.TrueAsync(() => shop.Heard.Any(heard => heard.Type == "ORDER_REFUNDED"));
            return [.. shop.Heard.Where(heard => heard.Id.StartsWith("A-1.", StringComparison.Ordinal) && heard.Type != "ORDER_COMMAND_REFUSED")];
        }
    }

    private static string? Text(JsonElement order, string name) => order.TryGetProperty(name, out var value) ? value.GetString() : null;
}

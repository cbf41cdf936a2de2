using System.Net;
using System.Net.Http.Json;
using System.Text;
using OrderService.Tests.Inbox;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>Producers that can't change their JSON: their orders take effect, once, and what is wrong with them is a letter of the bytes that came.</summary>
public sealed class MappingJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    private const string Topic = "x-shopify-topic";

    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task Orders_of_other_shapes_take_effect_once(StoreKind store)
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(
            address, store, postgres, new() { ["Inbox__MappingFile"] = CommandMappingTests.Sample("mapping.json") });
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        var shopify = await File.ReadAllBytesAsync(CommandMappingTests.Sample("shopify-order.json"), Token);
        var woo = await File.ReadAllBytesAsync(CommandMappingTests.Sample("woocommerce-order.json"), Token);

        // The payment comes first and waits, in its own shape; copies have no key but their bytes.
        await shop.PublishAsync(TestMessage.Of("payment.captured", "pay-1", """{"id":"pi_1","amount_received":10730,"metadata":{"order":"SH-1001"}}"""));
        await Eventually.HoldsAsync(async () => Assert.Equal(1, (await service.GetAsync("/api/stats")).GetProperty("deferred").GetProperty("waiting").GetInt64()));
        await shop.PublishAsync(Shopify(shopify), Shopify(shopify), new TestMessage("woocommerce.order.created", null, woo));

        await Eventually.HoldsAsync(async () => Assert.Equal("paid", await service.OrderStatusAsync("SH-1001")));
        await Eventually.HoldsAsync(async () => Assert.Equal("placed", await service.OrderStatusAsync("WC-727")));
        Assert.Equal(107.30m, (await service.GetAsync("/api/orders/SH-1001")).GetProperty("total").GetDecimal());
        await Eventually.HoldsAsync(() =>
        {
            Assert.Equal(2, shop.Heard.Count(heard => heard.Type == "ORDER_PLACED"));
            return Task.CompletedTask;
        });
        Assert.Empty(await service.AllAsync("/api/dead-letters?status=parked"));

        // An unknown currency: a letter with the bytes that came, mended in its own shape.
        var broken = Encoding.UTF8.GetBytes(Encoding.UTF8.GetString(shopify).Replace("EUR", "EURO", StringComparison.Ordinal).Replace("#1001", "#1002", StringComparison.Ordinal));
        await shop.PublishAsync(Shopify(broken));
        await Eventually.HoldsAsync(async () => Assert.Single(await service.AllAsync("/api/dead-letters?status=parked")));
        var letter = (await service.AllAsync("/api/dead-letters?status=parked"))[0];
        Assert.Equal(("currency_unknown", "SH-1002"), (letter.GetProperty("reason").GetString(), letter.GetProperty("orderId").GetString()));
        Assert.Contains("shopify-order", letter.GetProperty("detail").GetString(), StringComparison.Ordinal);
        var id = letter.GetProperty("id").GetInt64();
        Assert.Equal(broken, await service.Http.GetByteArrayAsync($"/api/dead-letters/{id}/body", Token));
        var mended = Encoding.UTF8.GetString(broken).Replace("EURO", "EUR", StringComparison.Ordinal);
        using var replayed = await service.Http.PostAsJsonAsync($"/api/dead-letters/{id}/replay", new { body = mended, reason = "a typing error in the shop" }, Token);
        Assert.True(replayed.StatusCode == HttpStatusCode.Accepted, await replayed.Content.ReadAsStringAsync(Token));
        await Eventually.HoldsAsync(async () => Assert.Equal("placed", await service.OrderStatusAsync("SH-1002")));

        // The command line shows the same.
        var (taken, shown, _) = await service.RunAsync("map", CommandMappingTests.Sample("shopify-order.json"), "--header", $"{Topic}=orders/create");
        Assert.Equal(0, taken);
        Assert.Contains("\"orderId\": \"SH-1001\"", shown, StringComparison.Ordinal);
        var (unknown, _, why) = await service.RunAsync("map", CommandMappingTests.Sample("shopify-order.json"));
        Assert.Equal(1, unknown);
        Assert.Contains("shopify-order, shopify-cancellation", why, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_file_with_a_mistake_stops_the_start_and_names_the_place()
    {
        await using var service = await ReleaseService.StartAsync(
            "amqp://guest:guest@127.0.0.1:1/", settings: new() { ["Inbox__MappingFile"] = "mapping.json" }, waitUntilReady: false);

        Assert.Equal(78, await service.WaitForExitAsync());
        Assert.Contains("Inbox:MappingFile: mapping.json can't be read", service.Output, StringComparison.Ordinal);
    }

    private static TestMessage Shopify(byte[] body) => new(null, null, body) { More = properties => properties.Headers = new Dictionary<string, object?> { [Topic] = "orders/create" } };

    private static CancellationToken Token => TestContext.Current.CancellationToken;
}

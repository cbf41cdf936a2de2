using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>An order that nobody pays is cancelled by the service itself, once, and never in place of a payment that was sent.</summary>
public sealed class UnpaidJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    private static CancellationToken Stopping => TestContext.Current.CancellationToken;

    private static readonly Dictionary<string, string> Hasty = new(StringComparer.Ordinal)
    {
        ["Orders__CancelUnpaidAfter"] = "00:00:03",
        ["RabbitMq__QueuePollInterval"] = "00:00:00.500",
    };

    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task An_unpaid_order_is_cancelled_once_and_a_paid_one_is_not(StoreKind store)
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, store, postgres, Hasty);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();

        await shop.PublishAsync(TestMessage.Place("paid"), Pay("paid"), TestMessage.Place("partly"), Pay("partly", "0.01"), TestMessage.Place("unpaid"));
        await Eventually.TrueAsync(async () => await service.OrderStatusAsync("unpaid") == "cancelled");
        // The next round has been there, too.
        await shop.PublishAsync(TestMessage.Place("later"));
        await Eventually.TrueAsync(async () => await service.OrderStatusAsync("later") == "cancelled");

        Assert.Equal(("paid", "placed"), (await service.OrderStatusAsync("paid"), await service.OrderStatusAsync("partly")));
        await Eventually.TrueAsync(() => Told(shop, "unpaid").SequenceEqual(["ORDER_PLACED", "ORDER_CANCELLED"]));
        var cancelled = JsonDocument.Parse(shop.Heard.First(heard => heard is { Type: "ORDER_CANCELLED", Id: "unpaid.2" }).Body).RootElement;
        Assert.Equal("Not paid in time.", cancelled.GetProperty("data").GetProperty("reason").GetString());
        Assert.Empty(await service.AllAsync("/api/dead-letters"));
        Assert.Equal(0, await service.StopAsync());
    }

    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task While_intake_is_paused_nothing_is_sent_and_a_payment_that_waits_in_the_queue_comes_first(StoreKind store)
    {
        var address = await broker.AddVirtualHostAsync();
        // Long enough for the pause to come first.
        var settings = new Dictionary<string, string>(Hasty) { ["Orders__CancelUnpaidAfter"] = "00:00:08" };
        await using var service = await ReleaseService.StartAsync(address, store, postgres, settings);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        await shop.PublishAsync(TestMessage.Place("paid"), TestMessage.Place("unpaid"));
        await Eventually.TrueAsync(async () => await service.OrderStatusAsync("unpaid") == "placed");

        await IntakeAsync(service, "pause");
        await Eventually.TrueAsync(async () => (await OrdersIntakeAsync(service)).GetProperty("drained").GetBoolean());
        await shop.PublishAsync(Pay("paid"));
        // Both are overdue then, by more than a round.
        await Eventually.TrueAsync(async () => await PausedForAsync(service) > TimeSpan.FromSeconds(12));
        Assert.Equal(1u, await shop.DepthAsync("orders"));
        // The payment waits over a restart, after which the queue has not been counted yet.
        Assert.Equal(0, await service.StopAsync());
        await service.StartAgainAsync();
        Assert.Equal(1u, await shop.DepthAsync("orders"));
        await IntakeAsync(service, "resume");

        await Eventually.TrueAsync(async () => await service.OrderStatusAsync("unpaid") == "cancelled");
        Assert.Equal("paid", await service.OrderStatusAsync("paid"));
        await Eventually.TrueAsync(() => Told(shop, "paid").SequenceEqual(["ORDER_PLACED", "ORDER_PAYMENT_RECEIVED", "ORDER_PAID"]));
        await Eventually.TrueAsync(() => Told(shop, "unpaid").SequenceEqual(["ORDER_PLACED", "ORDER_CANCELLED"]));
    }

    [Fact]
    public async Task Several_instances_cancel_once()
    {
        const int Orders = 40;
        var address = await broker.AddVirtualHostAsync();
        await using var one = await ReleaseService.StartAsync(address, StoreKind.Postgres, postgres, Hasty);
        await using var other = await ReleaseService.StartAsync(
            address, settings: new Dictionary<string, string>(Hasty) { ["Store__ConnectionString"] = one.Settings["Store__ConnectionString"] });
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        await shop.PublishAsync(Enumerable.Range(1, Orders).Select(number => TestMessage.Place($"A-{number}")));

        await Eventually.TrueAsync(() => shop.Heard.Where(heard => heard.Type == "ORDER_CANCELLED").DistinctBy(heard => heard.Id).Count() == Orders);
        // One more round of each of them.
        await shop.PublishAsync(TestMessage.Place("later"));
        await Eventually.TrueAsync(async () => await one.OrderStatusAsync("later") == "cancelled");

        Assert.Equal(2 * (Orders + 1), (await one.GetAsync("/api/events?after=0&limit=500")).GetProperty("items").GetArrayLength());
        foreach (var number in Enumerable.Range(1, Orders))
        {
            Assert.Equal(["ORDER_PLACED", "ORDER_CANCELLED"], Told(shop, $"A-{number}"));
        }
        Assert.DoesNotContain(shop.Heard, heard => heard.Type == "ORDER_COMMAND_REFUSED");
        Assert.Empty(await one.AllAsync("/api/dead-letters"));
    }

    private static TestMessage Pay(string orderId, string? amount = null) => TestMessage.Of(
        "order.pay", $"pay-{orderId}", $$"""{"orderId":"{{orderId}}","paymentReference":"P-{{orderId}}"{{(amount is null ? "" : $",\"amount\":{amount}")}}}""");

    /// <summary>What was told of an order, once each.</summary>
    private static IEnumerable<string> Told(TestProducer shop, string orderId) =>
        shop.Heard.Where(heard => heard.Id.StartsWith($"{orderId}.", StringComparison.Ordinal)).DistinctBy(heard => heard.Id).Select(heard => heard.Type);

    private static async Task<TimeSpan> PausedForAsync(ReleaseService service) =>
        DateTimeOffset.UtcNow - (await OrdersIntakeAsync(service)).GetProperty("since").GetDateTimeOffset();

    private static async Task<JsonElement> OrdersIntakeAsync(ReleaseService service) =>
        (await service.GetAsync("/api/intake")).GetProperty("items").EnumerateArray().First(item => item.GetProperty("queue").GetString() == "orders");

    private static async Task IntakeAsync(ReleaseService service, string what)
    {
        using var answer = await service.Http.PostAsJsonAsync($"/api/intake/{what}", new { reason = "the disk is changed" }, Stopping);
        Assert.Equal(HttpStatusCode.OK, answer.StatusCode);
    }
}

using System.Net;
using System.Text.Json;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>Somebody changes the store so that it refuses rows. Orders and letters are held and nobody is blamed; only what fails alone while others go through is a letter.</summary>
public sealed class StoreRefusesJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    private static readonly TimeSpan Soon = TimeSpan.FromSeconds(60);

    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task What_the_store_refuses_to_everybody_is_held_and_what_it_refuses_to_one_is_that_ones_letter(StoreKind store)
    {
        await using var service = await ReleaseService.StartAsync(await broker.AddVirtualHostAsync(), store, postgres);
        await using var shop = await TestProducer.ConnectAsync(service.Settings["RabbitMq__Uri"]);
        var administrator = new StoreAdministrator(service, store);
        var code = store == StoreKind.Sqlite ? "1811" : "23514, constraint added_later of";

        // Each table that an order needs, with a long queue; then a lone order in an idle shop.
        foreach (var (table, count) in new[] { ("events", 60), ("outbox", 1), ("inbox", 3) })
        {
            await administrator.RefuseAsync(table);
            await shop.PublishAsync(Enumerable.Range(0, count).Select(number => TestMessage.Place($"{table}-{number}")));
            await NotReadyAsync(service, code);
            Assert.Equal((0, null), (await LettersAsync(service), await service.OrderStatusAsync($"{table}-0")));
            await administrator.TakeAsync(table);
            await Eventually.TrueAsync(async () => await PlacedAsync(service, table, count) == count, Soon);
            await service.WaitUntilReadyAsync(Soon);
        }
        Assert.Equal(0, await LettersAsync(service));

        // A rejection that can't be written: the broken message is held, good orders go on, and the process lives.
        await administrator.RefuseAsync("rejections");
        await shop.PublishAsync([TestMessage.Of("order.place", "broken-1", "{"), .. Enumerable.Range(0, 20).Select(number => TestMessage.Place($"beside-{number}"))]);
        await Eventually.TrueAsync(async () => await PlacedAsync(service, "beside", 20) == 20, Soon);
        await NotReadyAsync(service, code);
        Assert.False(service.HasExited, service.Output);
        await administrator.TakeAsync("rejections");
        await Eventually.TrueAsync(async () => await LettersAsync(service) == 1, Soon);
        await service.WaitUntilReadyAsync(Soon);

        // Letters that can't be parked are tried again, and nobody has to restart anything.
        await administrator.RefuseAsync("dead_letters");
        await shop.PublishAsync([TestMessage.Of("order.place", "broken-2", "{"), TestMessage.Place("after-0")]);
        await NotReadyAsync(service, code);
        await Eventually.TrueAsync(async () => await PlacedAsync(service, "after", 1) == 1, Soon);
        Assert.Equal(1, await LettersAsync(service));
        await administrator.TakeAsync("dead_letters");
        await Eventually.TrueAsync(async () => await LettersAsync(service) == 2, Soon);
        await service.WaitUntilReadyAsync(Soon);

        // One order alone is refused, while its neighbours go through: that one is at fault.
        await administrator.RefuseAsync("orders", "order_id = 'one-5'");
        await shop.PublishAsync(Enumerable.Range(0, 20).Select(number => TestMessage.Place($"one-{number}")));
        await Eventually.TrueAsync(async () => await PlacedAsync(service, "one", 20) == 19 && await LettersAsync(service) == 3, Soon);
        var letter = Assert.Single(await service.AllAsync("/api/dead-letters?reason=internal_error"));
        Assert.Contains(store == StoreKind.Sqlite ? "1811" : "23514", letter.GetProperty("detail").GetString(), StringComparison.Ordinal);
        await service.WaitUntilReadyAsync(Soon);

        Assert.DoesNotContain("secret-value", service.Output, StringComparison.Ordinal);
        Assert.Contains(code, service.Output, StringComparison.Ordinal);
        Assert.Equal(0, await service.StopAsync());
    }

    private static Task NotReadyAsync(ReleaseService service, string code) => Eventually.HoldsAsync(
        async () =>
        {
            var (status, body) = await service.HealthAsync();
            Assert.Equal(HttpStatusCode.ServiceUnavailable, status);
            Assert.Contains("store:", body, StringComparison.Ordinal);
            Assert.Contains(code, body, StringComparison.Ordinal);
            Assert.DoesNotContain("secret-value", body, StringComparison.Ordinal);
        },
        Soon);

    private static async Task<int> LettersAsync(ReleaseService service) => (await service.AllAsync("/api/dead-letters")).Count;

    private static async Task<int> PlacedAsync(ReleaseService service, string prefix, int count)
    {
        var placed = 0;
        for (var number = 0; number < count; number++)
        {
            placed += await service.OrderStatusAsync($"{prefix}-{number}") == "placed" ? 1 : 0;
        }
        return placed;
    }
}

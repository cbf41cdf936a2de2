using System.Net;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>What the release binary does when nothing goes wrong, on both stores: the control for every other journey here.</summary>
public sealed class PlainJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task Good_orders_take_effect_once_and_a_broken_one_becomes_a_letter(StoreKind store)
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, store, postgres);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();

        await shop.PublishAsync(TestMessage.Place("A-1"), TestMessage.Place("A-1"), TestMessage.Place("A-2"), TestMessage.Of("order.place", "broken", "{"));

        await Eventually.TrueAsync(() => shop.Heard.Count == 2);
        Assert.Equal("placed", await service.OrderStatusAsync("A-1"));
        Assert.Equal("placed", await service.OrderStatusAsync("A-2"));
        await Eventually.TrueAsync(async () => (await service.AllAsync("/api/dead-letters")).Count == 1);
        var (status, body) = await service.HealthAsync();
        Assert.True(status == HttpStatusCode.OK, body);
        Assert.Equal(0, await service.StopAsync());
    }
}

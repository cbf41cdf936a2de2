using System.Text.Json;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Journeys;

/// <summary>Several processes of the service on one queue and one PostgreSQL, as <c>docker compose --profile scale up</c> runs them.</summary>
public sealed class SeveralInstancesJourneys(RabbitMqContainerFixture broker)
{
    private const int Orders = 150;
    private static readonly TimeSpan Long = TimeSpan.FromMinutes(2);

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task One_freezes_and_wakes_another_is_killed_and_every_order_still_lives_its_life_once_and_in_order()
    {
        var address = await broker.AddVirtualHostAsync();
        var settings = new Dictionary<string, string>(StringComparer.Ordinal)
        {
            ["Store__ConnectionString"] = await TestStore.AddPostgresDatabaseAsync(),
            ["Outbox__LeaseDuration"] = "00:00:03",
            ["RabbitMq__Heartbeat"] = "00:00:05",
        };
        // All three start on an empty database at once.
        var instances = await Task.WhenAll(Enumerable.Range(0, 3).Select(_ => RunningService.StartAsync(address, settings, waitUntilReady: false)));
        try
        {
            await Task.WhenAll(instances.Select(instance => instance.WaitUntilReadyAsync(Long)));
            await using var shop = await TestProducer.ConnectAsync(address);
            await using var partner = await TestProducer.ConnectAsync(address);
            await shop.ListenAsync();
            var random = new Random(7);
            // Both send everything, each in an order of its own; some commands come long before their order.
            TestMessage[] Messages() => [.. Enumerable.Range(0, Orders)
                .SelectMany(number => new[]
                {
                    TestMessage.Place($"A-{number}"),
                    TestMessage.Of("order.pay", $"pay-{number}", $$"""{"orderId":"A-{{number}}","paymentReference":"P-{{number}}"}"""),
                    TestMessage.Ship($"A-{number}"),
                })
                .OrderBy(_ => random.Next())];
            var (first, second) = (Messages(), Messages());

            var sending = Task.WhenAll(SendSlowlyAsync(shop, first), SendSlowlyAsync(partner, second));
            await Eventually.TrueAsync(() => shop.Heard.Count > Orders / 3, Long);
            await instances[0].FreezeAsync();
            await Eventually.TrueAsync(async () => await instances[2].ScalarAsync<long>("SELECT count(*) FROM events") > Orders, Long);
            await instances[1].KillAsync();
            await sending;
            // The last one alone gets everything done that the others don't hold any more.
            await Eventually.TrueAsync(async () => await instances[2].ScalarAsync<long>("SELECT count(*) FROM relay_leases WHERE owner = (SELECT owner FROM relay_members ORDER BY expires_at DESC LIMIT 1)") == 16, Long);
            await instances[0].ThawAsync();
            await instances[1].StartAgainAsync(waitUntilReady: false);

            await Eventually.TrueAsync(async () => await instances[2].ScalarAsync<long>("SELECT count(*) FROM inbox WHERE outcome IN (1, 2)") == 3 * Orders, Long);
            await Eventually.TrueAsync(async () => await instances[2].ScalarAsync<long>("SELECT count(*) FROM outbox") == 0, Long);
            await Task.WhenAll(instances.Select(instance => instance.WaitUntilReadyAsync(Long)));
            foreach (var instance in instances)
            {
                Assert.Equal(0, await instance.StopAsync());
            }

            Assert.Equal(0, await instances[2].ScalarAsync<long>("SELECT count(*) FROM deferred"));
            Assert.Equal(0, await instances[2].ScalarAsync<long>("SELECT count(*) FROM rejections"));
            Assert.Equal(0, await instances[2].ScalarAsync<long>("SELECT count(*) FROM relay_leases WHERE owner <> ''"));
            var stored = await instances[2].ColumnAsync<string>("SELECT order_id || '.' || version FROM events");
            // Each order's payment has two events.
            Assert.Equal(await instances[2].ScalarAsync<long>("SELECT count(*) FROM inbox WHERE outcome = 1") + Orders, stored.Count);
            Assert.Equal(Orders, await instances[2].ScalarAsync<long>("SELECT count(*) FROM orders"));
            await AssertFirstOccurrencesAreInOrderAsync(shop, stored);
        }
        finally
        {
            foreach (var instance in instances)
            {
                await instance.DisposeAsync();
            }
        }
    }

    private static async Task SendSlowlyAsync(TestProducer producer, TestMessage[] messages)
    {
        using var pause = new PeriodicTimer(TimeSpan.FromMilliseconds(50));
        foreach (var few in messages.Chunk(10))
        {
            await producer.PublishAsync(few);
            await pause.WaitForNextTickAsync(Token);
        }
    }

    private static async Task AssertFirstOccurrencesAreInOrderAsync(TestProducer producer, List<string> stored)
    {
        await Eventually.TrueAsync(() => producer.Heard.Where(heard => heard.Type != "ORDER_COMMAND_REFUSED").Select(heard => heard.Id).ToHashSet().SetEquals(stored), Long);
        var versions = new Dictionary<string, long>(StringComparer.Ordinal);
        foreach (var heard in producer.Heard.Where(heard => heard.Type != "ORDER_COMMAND_REFUSED").DistinctBy(heard => heard.Id))
        {
            using var json = JsonDocument.Parse(heard.Body);
            var orderId = json.RootElement.GetProperty("subject").GetString()!;
            var version = json.RootElement.GetProperty("sequence").GetInt64();
            Assert.Equal(versions.GetValueOrDefault(orderId) + 1, version);
            versions[orderId] = version;
        }
    }
}

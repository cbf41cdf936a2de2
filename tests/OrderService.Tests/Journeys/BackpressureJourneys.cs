using System.Globalization;
using Microsoft.Data.Sqlite;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Journeys;

/// <summary>More comes in than the store can take.</summary>
public sealed class BackpressureJourneys(RabbitMqContainerFixture broker)
{
    private const int Messages = 200_000;

    [Fact]
    public async Task A_store_that_stands_still_leaves_200_000_messages_in_the_queue_and_memory_flat()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);
        var atStart = service.ResidentBytes;

        await using (await HoldStoreAsync(service))
        {
            // One message sent many times: the backlog is what counts, and its end is quickly checked.
            var copies = Enumerable.Repeat(TestMessage.Place("A-1"), 5000).ToList();
            var most = atStart;
            for (var published = 0; published < Messages; published += copies.Count)
            {
                await shop.PublishAsync(copies);
                most = Math.Max(most, service.ResidentBytes);
            }
            Assert.True(most - atStart < 150L << 20, string.Create(CultureInfo.InvariantCulture, $"Memory grew from {atStart >> 20} to {most >> 20} MiB."));
            Assert.Equal(0, await service.ScalarAsync<long>("SELECT count(*) FROM events"));
            await Eventually.TrueAsync(async () => !await service.IsReadyAsync());
        }

        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT coalesce(sum(copies), 0) FROM inbox") == Messages - 1, TimeSpan.FromMinutes(4));
        Assert.Equal(1, await service.ScalarAsync<long>("SELECT count(*) FROM events"));
        Assert.Equal(0, await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters"));
        Assert.True(service.ResidentBytes - atStart < 150L << 20);
        await service.WaitUntilReadyAsync();
    }

    [Fact]
    public async Task Partitions_share_what_the_broker_hands_out_so_that_several_need_no_more_memory_than_one()
    {
        const int Prefetch = 12;
        const int Orders = 300;
        string[] partitions = ["orders.1", "orders.2", "orders.3"];
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address, new() { ["RabbitMq__Prefetch"] = $"{Prefetch}", ["RabbitMq__Partitions"] = $"{partitions.Length}" });
        await using var shop = await TestProducer.ConnectAsync(address);
        await using (await HoldStoreAsync(service))
        {
            await shop.PublishByOrderAsync(Enumerable.Range(0, Orders).Select(number => ($"A-{number}", TestMessage.Place($"A-{number}"))));
            await Eventually.TrueAsync(async () => await DepthAsync() == Orders - Prefetch);
        }

        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM events") == Orders);

        async Task<long> DepthAsync()
        {
            var depth = 0L;
            foreach (var partition in partitions)
            {
                depth += await shop.DepthAsync(partition);
            }
            return depth;
        }
    }

    [Fact]
    public async Task A_batch_is_at_most_half_of_what_the_broker_hands_out_so_that_the_other_half_can_arrive()
    {
        const int Prefetch = 10;
        const int Orders = 100;
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address, new() { ["RabbitMq__Prefetch"] = Prefetch.ToString(CultureInfo.InvariantCulture) });
        await using var shop = await TestProducer.ConnectAsync(address);
        await using (await HoldStoreAsync(service))
        {
            await shop.PublishAsync(Enumerable.Range(0, Orders).Select(number => TestMessage.Place($"A-{number}")));
            // All that it may have in hand is in hand, so that the next batch could take all of it.
            await Eventually.TrueAsync(async () => await shop.DepthAsync("orders") == Orders - Prefetch);
        }

        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM events") == Orders);
        await Eventually.HoldsAsync(async () =>
        {
            var (batches, messages) = await BatchesAsync(service);
            Assert.Equal(Orders, messages);
            Assert.InRange(batches, Orders / (Prefetch / 2), Orders);
        });
    }

    /// <summary>Another program that holds the store's write lock until it is disposed: every commit has to wait.</summary>
    private static async Task<SqliteConnection> HoldStoreAsync(RunningService service)
    {
        var blocker = new SqliteConnection($"Data Source={Path.Combine(service.Folder, "orders.db")};Pooling=False");
        await blocker.OpenAsync(TestContext.Current.CancellationToken);
        // Disposing the connection rolls it back.
        _ = blocker.BeginTransaction(deferred: false);
        return blocker;
    }

    /// <summary>How many batches were committed, and how many messages were in them.</summary>
    private static async Task<(long Batches, long Messages)> BatchesAsync(RunningService service)
    {
        var metrics = (await service.Http.GetStringAsync(new Uri("/metrics", UriKind.Relative), TestContext.Current.CancellationToken)).Split('\n');
        return (Sample("count"), Sample("sum"));

        long Sample(string name) =>
            long.Parse(Assert.Single(metrics, line => line.StartsWith($"orders_batch_size_{name}", StringComparison.Ordinal)).Split(' ')[1], CultureInfo.InvariantCulture);
    }
}

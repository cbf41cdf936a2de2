using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Journeys;

/// <summary>The process dies by SIGKILL at every named point of the flow; afterwards nothing is lost and nothing is there twice.</summary>
public sealed class CrashJourneys(RabbitMqContainerFixture broker)
{
    // One before the commit, one after it: what came back is decided before it can come back again.
    private static readonly string[] Points =
    [
        "inbox-before-begin", "relay-before-publish", "inbox-decoded", "relay-after-publish", "store-decided",
        "relay-after-confirm", "store-written", "relay-after-mark", "inbox-after-commit", "inbox-after-ack",
    ];

    /// <summary>A queue of orders waits at each start, and each start but the last is killed at the next point.</summary>
    [Theory]
    [InlineData("Sqlite")]
    [InlineData("Postgres")]
    public async Task A_kill_at_any_point_loses_nothing_and_doubles_nothing(string store)
    {
        const int Orders = 40;
        const int Broken = 5;
        var address = await broker.AddVirtualHostAsync();
        var settings = store == "Postgres" ? new Dictionary<string, string> { ["Store__ConnectionString"] = await TestStore.AddPostgresDatabaseAsync() } : null;
        await using var service = await RunningService.StartAsync(address, settings);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        await service.KillAsync();

        foreach (var point in Points)
        {
            await shop.PublishAsync(Enumerable.Range(0, Orders).SelectMany(number => new[] { TestMessage.Ship($"{point}-{number}"), TestMessage.Place($"{point}-{number}") }));
            await shop.PublishAsync(Enumerable.Range(0, Broken).Select(number => TestMessage.Of("order.explode", $"broken-{point}-{number}", $$"""{"orderId":"B-{{number}}"}""")));
            await service.StartAgainAsync($"{point}=kill", waitUntilReady: false);
            await service.WaitForExitAsync();
        }
        await service.StartAgainAsync("");

        await Eventually.HoldsAsync(async () =>
        {
            Assert.Equal(2 * Orders * Points.Length, await service.ScalarAsync<long>("SELECT count(*) FROM events"));
            Assert.Equal(0, await service.ScalarAsync<long>("SELECT count(*) FROM outbox"));
            Assert.Equal(2 * Orders * Points.Length, shop.Heard.Select(heard => heard.Id).Distinct().Count());
            Assert.Equal(Broken * Points.Length, await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE status = 'parked' AND reason = 'unknown_command'"));
        });
        Assert.Equal(Broken * Points.Length, await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters"));
        Assert.Equal(1, await service.ScalarAsync<long>("SELECT count(*) FROM alerts WHERE kind = 'first'"));
        Assert.Equal((0u, 0u), (await shop.DepthAsync("orders"), await shop.DepthAsync("orders.dlq")));
        // First occurrences in stream order, and every copy the same bytes.
        foreach (var stream in shop.Heard.GroupBy(heard => heard.Id[..heard.Id.LastIndexOf('.')]))
        {
            Assert.Equal(["ORDER_PLACED", "ORDER_SHIPPED"], stream.DistinctBy(heard => heard.Id).Select(heard => heard.Type));
        }
        Assert.All(shop.Heard.GroupBy(heard => heard.Id), copies => Assert.Single(copies.Select(copy => copy.Body).Distinct()));
    }

    [Fact]
    public async Task A_kill_while_a_start_takes_the_store_over_does_not_keep_the_next_one_from_it()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.PublishAsync(Enumerable.Range(0, 50).Select(number => TestMessage.Place($"A-{number}")));
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM events") == 50);
        // Its newest commits are in the log alone.
        await service.KillAsync();

        await service.StartAgainAsync("store-claimed=kill", waitUntilReady: false);
        await service.WaitForExitAsync();
        await service.StartAgainAsync();

        Assert.Equal(50, await service.ScalarAsync<long>("SELECT count(*) FROM events"));
        Assert.False(service.HasExited);
    }

    [Fact]
    public async Task A_message_that_kills_the_process_is_found_and_its_neighbours_go_through()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);
        await service.KillAsync();
        await shop.PublishAsync(Enumerable.Range(0, 30).Select(number => TestMessage.Place(number == 15 ? "KILLER" : $"A-{number}")));

        // The kill above is an end that the message does not explain: up to four starts more than the seven without one (docs/decisions/0022).
        for (var starts = 0; starts < 11 && await service.ScalarAsync<long>("SELECT count(*) FROM rejections") == 0; starts++)
        {
            await service.StartAgainAsync("inbox-decoded=kill@KILLER", waitUntilReady: false);
            await Eventually.TrueAsync(async () => service.HasExited || await service.ScalarAsync<long>("SELECT count(*) FROM rejections") > 0);
        }

        await Eventually.HoldsAsync(async () =>
        {
            Assert.Equal(["crash_suspect"], await service.ColumnAsync<string>("SELECT reason FROM dead_letters WHERE status = 'parked'"));
            Assert.Equal(29, await service.ScalarAsync<long>("SELECT count(*) FROM events"));
        });
        Assert.Equal(0, await service.ScalarAsync<long>("SELECT count(*) FROM events WHERE order_id = 'KILLER'"));
        Assert.False(service.HasExited);
    }

    [Fact]
    public async Task A_stop_under_load_ends_with_0_and_loses_nothing()
    {
        const int Orders = 3000;
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);

        var publishing = shop.PublishAsync(Enumerable.Range(0, Orders).Select(number => TestMessage.Place($"A-{number}")));
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM events") > 100);
        var exitCode = await service.StopAsync();
        await publishing;
        var atStop = await service.ScalarAsync<long>("SELECT count(*) FROM events");
        await service.StartAgainAsync();

        Assert.Equal(0, exitCode);
        Assert.InRange(atStop, 100, Orders);
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM events") == Orders);
        Assert.Equal(0, await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters"));
    }
}

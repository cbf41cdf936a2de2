using OrderService.Tests.CommandLine;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Journeys;

/// <summary>What an operator does after the cause is mended: the real binary, a real broker, a file as the store.</summary>
public sealed class ReplayJourneys(RabbitMqContainerFixture broker)
{
    [Fact]
    public async Task Thirty_letters_are_replayed_from_the_command_line_through_a_killed_service_each_once()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address, new() { ["Orders__DeferFor"] = "00:00:01" });
        await using var shop = await TestProducer.ConnectAsync(address);
        var orders = Enumerable.Range(1, 30).Select(number => $"A-{number}").ToList();
        var store = new Dictionary<string, string> { ["Store__Path"] = Path.Combine(service.Folder, "orders.db"), ["RabbitMq__Uri"] = address };

        await shop.PublishAsync(orders.Select(TestMessage.Ship));
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE status = 'parked' AND reason = 'order_unknown'") == 30, TimeSpan.FromSeconds(60));
        await shop.PublishAsync(orders.Select(order => TestMessage.Place(order)));
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM orders") == 30, TimeSpan.FromSeconds(60));

        var forecast = await Binary.RunAsync(["dlq", "replay", "--all", "--reason", "order_unknown", "--what-if"], store);
        Assert.Contains("30  succeeds", forecast.Output, StringComparison.Ordinal);
        Assert.Equal(0, await service.ScalarAsync<long>("SELECT count(*) FROM replays"));

        var replay = Binary.RunAsync(["dlq", "replay", "--all", "--reason", "order_unknown", "--rate", "10", "--because", "the orders are there now", "--yes"], store);
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM replays") > 6, TimeSpan.FromSeconds(60));
        await service.KillAsync();
        await service.StartAgainAsync();
        var replayed = await replay;

        Assert.True(replayed.ExitCode == 0, $"{replayed.Output}\n{replayed.Error}");
        Assert.Contains("Replay 1 is done: 30 succeeded, 0 failed, 0 under way, 0 skipped, 0 untouched of 30", replayed.Output, StringComparison.Ordinal);
        Assert.Equal(30, await service.ScalarAsync<long>("SELECT count(*) FROM replays WHERE job_id = 1 AND outcome = 'resolved'"));
        Assert.Equal(30, await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE status = 'resolved'"));
        foreach (var order in orders)
        {
            Assert.Equal(["ORDER_PLACED", "ORDER_SHIPPED"], (await service.StreamAsync(order)).Select(recorded => recorded.Type));
        }

        var jobs = await Binary.RunAsync(["dlq", "jobs"], store);
        Assert.Contains("the orders are there now", jobs.Output, StringComparison.Ordinal);
        var cancel = await Binary.RunAsync(["dlq", "job", "1", "--cancel"], store);
        Assert.Equal(1, cancel.ExitCode);
        Assert.Contains("Replay 1 is done by the service since", cancel.Error, StringComparison.Ordinal);
    }
}

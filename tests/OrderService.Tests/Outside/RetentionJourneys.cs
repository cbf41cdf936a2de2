using System.Text.Json;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>A store that is kept at its bound: closed orders leave it for the archive, and what is open stays.</summary>
public sealed class RetentionJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task Closed_orders_leave_for_the_archive_while_others_come_and_late_copies_have_no_effect(StoreKind store)
    {
        const int Closed = 60;
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, store, postgres);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        await shop.PublishAsync(Enumerable.Range(1, Closed).Select(number => TestMessage.Place($"A-{number}")));
        await shop.PublishAsync(Enumerable.Range(1, Closed).Select(number => TestMessage.Of("order.cancel", $"cancel-{number}", $$"""{"orderId":"A-{{number}}","reason":"x"}""")));
        await shop.PublishAsync(TestMessage.Place("open"), new TestMessage(null, "poison", "{"u8.ToArray()));
        await Eventually.TrueAsync(() => shop.Heard.Count == (2 * Closed) + 1);
        await Eventually.HoldsAsync(async () => Assert.Single((await service.GetAsync("/api/dead-letters")).GetProperty("items").EnumerateArray()));
        await Eventually.TrueAsync(async () => (await service.GetAsync("/api/stats")).GetProperty("outbox").GetProperty("pending").GetInt64() == 0);
        Assert.Equal(0, await service.StopAsync());

        // Two years later; meanwhile nobody says what is kept for how long.
        var administrator = new StoreAdministrator(service, store);
        foreach (var sql in (string[])["UPDATE orders SET placed_at = placed_at - 63072000000, updated_at = updated_at - 63072000000", "UPDATE inbox SET decided_at = decided_at - 63072000000"])
        {
            await administrator.ExecuteAsync(sql, sql);
        }
        var (exit, said, error) = await service.RunAsync("retention");
        Assert.True(exit == 0, error);
        Assert.Contains("kept for ever", Line(said, "closed_orders"), StringComparison.Ordinal);
        service.Settings["Retention__ClosedOrders"] = "365";
        (exit, _, error) = await service.RunAsync("retention", "--dry-run");
        Assert.Equal(78, exit);
        Assert.Contains("Retention:ClosedOrders: set Retention:ArchiveFolder", error, StringComparison.Ordinal);
        service.Settings["Retention__ArchiveFolder"] = Path.Combine(service.Folder, "archive");
        (exit, said, error) = await service.RunAsync("retention", "--dry-run");
        Assert.True(exit == 0, error);
        Assert.Contains($" {Closed} older than 365 days would go", Line(said, "closed_orders"), StringComparison.Ordinal);
        Assert.Contains(" 0 older than 90 days", Line(said, "settled_dead_letters"), StringComparison.Ordinal);

        service.Settings["Retention__Interval"] = "00:00:01";
        await service.StartAgainAsync();
        // New orders come all the while.
        await shop.PublishAsync(Enumerable.Range(1, 300).Select(number => TestMessage.Place($"B-{number}")));
        await Eventually.HoldsAsync(async () => Assert.Equal(Closed, await service.CounterAsync("orders_retention_removed_total", "kind=\"closed_orders\"")));
        await Eventually.TrueAsync(async () => await service.OrderStatusAsync("B-300") == "placed");
        await Eventually.HoldsAsync(async () =>
        {
            var retention = await service.GetAsync("/api/retention");
            Assert.Equal(0, retention.GetProperty("items").EnumerateArray().Single(item => item.GetProperty("kind").GetString() == "closed_orders").GetProperty("rows").GetInt64());
            Assert.Contains((await service.GetAsync("/api/audit?action=retention")).GetProperty("items").EnumerateArray(), entry => entry.GetProperty("detail").GetString() == $"{Closed} closed_orders");
        });
        Assert.Equal((null, "placed"), (await service.OrderStatusAsync("A-1"), await service.OrderStatusAsync("open")));
        Assert.Single((await service.GetAsync("/api/dead-letters")).GetProperty("items").EnumerateArray());

        // A late copy, the same order anew, and a command for it.
        var heard = shop.Heard.Count;
        await shop.PublishAsync(TestMessage.Place("A-1"), TestMessage.Place("A-1", "another-key"), TestMessage.Ship("A-2"));
        await Eventually.TrueAsync(() => shop.Heard.Skip(heard).Count(event_ => event_.Type == "ORDER_COMMAND_REFUSED") == 2);
        Assert.All(shop.Heard.Skip(heard), event_ => Assert.Equal("ORDER_COMMAND_REFUSED", event_.Type));
        Assert.All(shop.Heard.Skip(heard), event_ => Assert.Contains("order-archived", event_.Body, StringComparison.Ordinal));
        Assert.Null(await service.OrderStatusAsync("A-1"));
        Assert.Single((await service.GetAsync("/api/dead-letters")).GetProperty("items").EnumerateArray());

        // What is left verifies, what went is in the archive, and readers pass over the gap.
        (exit, said, error) = await service.RunAsync("verify");
        Assert.True(exit == 0, said + error);
        Assert.Contains("301 orders with 301 events checked: all is as it was written", said, StringComparison.Ordinal);
        (exit, said, error) = await service.RunAsync("verify", "--archive", service.Settings["Retention__ArchiveFolder"]);
        Assert.True(exit == 0, said + error);
        Assert.Contains($"{Closed} orders with {2 * Closed} events in 1 files checked: all is as it was written", said, StringComparison.Ordinal);
        (exit, said, error) = await service.RunAsync("order", "show", "A-7", "--archive", service.Settings["Retention__ArchiveFolder"]);
        Assert.True(exit == 0, error);
        Assert.Contains("Order A-7 is cancelled (version 2)", said, StringComparison.Ordinal);
        (exit, _, error) = await service.RunAsync("order", "show", "open", "--archive", service.Settings["Retention__ArchiveFolder"]);
        Assert.Equal(1, exit);
        Assert.Contains("no order open in the archive", error, StringComparison.Ordinal);
        var positions = (await service.GetAsync("/api/events?after=0&limit=500")).GetProperty("items").EnumerateArray().Select(item => item.GetProperty("position").GetInt64()).ToList();
        Assert.Equal(301, positions.Count);
        Assert.Equal(positions.Order(), positions);
        Assert.Equal(0, await service.StopAsync());
    }

    private static string Line(string output, string kind) => output.Split('\n').Single(line => line.StartsWith(kind, StringComparison.Ordinal));
}

using System.Globalization;
using System.Text.Json;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>A shop that outgrows SQLite, and one that goes back: what is seen from outside before and after is the same.</summary>
public sealed class MovingJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    private const int Orders = 300;

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_store_moves_to_PostgreSQL_and_back_with_orders_letters_and_positions_and_no_message_has_two_effects()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        await shop.PublishAsync([.. Placed("A"), TestMessage.Of("order.place", "broken", "{"), TestMessage.Ship("A-1")]);
        await Eventually.TrueAsync(async () => (await service.AllAsync("/api/orders")).Count == Orders && (await service.AllAsync("/api/dead-letters")).Count == 1);
        await Eventually.TrueAsync(async () => await service.OrderStatusAsync("A-1") == "shipped");
        var file = service.Settings["Store__Path"];
        var database = await postgres.AddDatabaseAsync();
        var secret = Path.Combine(service.Folder, "connection-string");
        await File.WriteAllTextAsync(secret, database + "\n", Now);

        var refused = await service.RunAsync("store", "copy", "--to", "Postgres", "--connection-string-file", secret);
        Assert.Equal(78, refused.ExitCode);
        Assert.Contains("Another process serves the store", refused.Error, StringComparison.Ordinal);
        Assert.Equal(2, (await service.RunAsync("store", "copy", "--to", "Postgres", "--path", file)).ExitCode);
        var before = await SeenAsync(service);
        Assert.Equal(0, await service.StopAsync());
        // The shop does not stop.
        await shop.PublishAsync(Placed("B"));

        var copied = await service.RunAsync("store", "copy", "--to", "Postgres", "--connection-string-file", secret);
        Assert.True(copied.ExitCode == 0, copied.Output + copied.Error);
        Assert.Contains("all is as it was written", copied.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("tests-password", copied.Output + copied.Error, StringComparison.Ordinal);
        service.Settings.Remove("Store__Path");
        service.Settings["Store__Provider"] = "Postgres";
        service.Settings["Store__ConnectionString"] = database;
        await service.StartAgainAsync();

        // Late copies are duplicates still.
        await shop.PublishAsync(Placed("A"));
        await Eventually.TrueAsync(async () => (await service.AllAsync("/api/orders")).Count == 2 * Orders && await shop.DepthAsync("orders") == 0);
        Assert.Equal(before, (await SeenAsync(service)).Take(before.Count));
        var moved = await SeenAsync(service);
        Assert.Equal(0, (await service.RunAsync("verify")).ExitCode);
        Assert.Equal(0, await service.StopAsync());

        var back = Path.Combine(service.Folder, "back.db");
        var returned = await service.RunAsync("store", "copy", "--to", "Sqlite", "--path", back);
        Assert.True(returned.ExitCode == 0, returned.Output + returned.Error);
        service.Settings.Remove("Store__ConnectionString");
        service.Settings["Store__Provider"] = "Sqlite";
        service.Settings["Store__Path"] = back;
        await service.StartAgainAsync();
        Assert.Equal(moved, await SeenAsync(service));
        await shop.PublishAsync([.. Placed("B"), .. Placed("C")]);
        await Eventually.TrueAsync(async () => (await service.AllAsync("/api/orders")).Count == 3 * Orders && await shop.DepthAsync("orders") == 0);
        var sizes = await service.RunAsync("store", "sizes", "--json");
        var tables = JsonDocument.Parse(sizes.Output).RootElement.GetProperty("tables").EnumerateArray().ToDictionary(table => table.GetProperty("table").GetString()!, table => table.GetProperty("rows").GetInt64());
        Assert.Equal((3 * Orders) + 1, tables["events"]);
        Assert.Equal(3 * Orders, tables["orders"]);

        // A subscriber has each event, and never one id with two contents.
        await Eventually.TrueAsync(() => shop.Heard.Select(heard => heard.Id).Distinct().Count() >= (3 * Orders) + 1);
        Assert.All(shop.Heard.GroupBy(heard => heard.Id), same => Assert.Single(same.Select(heard => heard.Body).Distinct()));
    }

    /// <summary>All events by position, and the dead letter, as a reader of the API has them.</summary>
    private static async Task<List<string>> SeenAsync(ReleaseService service)
    {
        var letter = Assert.Single(await service.AllAsync("/api/dead-letters")).GetProperty("id");
        using var body = await service.Http.GetAsync(new Uri($"/api/dead-letters/{letter}/body", UriKind.Relative), Now);
        return [$"{letter} {await body.Content.ReadAsStringAsync(Now)}", .. (await service.AllAsync("/api/events")).Select(one => one.GetRawText())];
    }

    private static IEnumerable<TestMessage> Placed(string prefix) =>
        Enumerable.Range(1, Orders).Select(number => TestMessage.Place(string.Create(CultureInfo.InvariantCulture, $"{prefix}-{number}")));
}

using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>An operator stops the intake for maintenance, and lets it go on.</summary>
public sealed class IntakeJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    private static CancellationToken Stopping => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task What_is_in_hand_when_intake_is_paused_is_finished_and_the_rest_waits_over_a_restart(StoreKind store)
    {
        const int Orders = 3000;
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, store, postgres);
        await using var shop = await TestProducer.ConnectAsync(address);
        var sending = shop.PublishAsync(Enumerable.Range(1, Orders).Select(number => TestMessage.Place($"A-{number}")));
        await Eventually.TrueAsync(async () => await AcceptedAsync(service) > 0);

        using (var paused = await service.Http.PostAsJsonAsync("/api/intake/pause", new { reason = "the disk is changed" }, Stopping))
        {
            Assert.Equal(HttpStatusCode.OK, paused.StatusCode);
        }
        await sending;
        await Eventually.HoldsAsync(async () => Assert.All(await IntakeAsync(service), item =>
            Assert.Equal(("paused", true, 0), (item.GetProperty("state").GetString(), item.GetProperty("drained").GetBoolean(), item.GetProperty("inHand").GetInt32()))));
        var decided = await AcceptedAsync(service);
        // Nothing is lost between the hand and the queue.
        await Eventually.HoldsAsync(async () => Assert.Equal(Orders, decided + await ReadyAsync(service, "orders")));

        // Refused ones wait as well, and orders over HTTP are taken for later.
        await shop.PublishAsync(new TestMessage(null, "poison", "{"u8.ToArray()));
        using (var placed = await service.Http.PostAsJsonAsync("/api/orders", JsonDocument.Parse(TestMessage.Place("H-1").Body).RootElement, Stopping))
        {
            Assert.Equal(HttpStatusCode.Accepted, placed.StatusCode);
        }
        var (code, health) = await service.HealthAsync();
        Assert.Equal((HttpStatusCode.OK, "paused"), (code, JsonDocument.Parse(health).RootElement.GetProperty("status").GetString()));
        Assert.Contains("Intake of orders is paused", health, StringComparison.Ordinal);
        Assert.Equal(2, await service.CounterAsync("orders_intake_paused"));
        Assert.Equal(["paused", "paused"], (await service.GetAsync("/api/stats")).GetProperty("intake").EnumerateArray().Select(item => item.GetProperty("state").GetString()));

        Assert.Equal(0, await service.StopAsync());
        await service.StartAgainAsync();
        await Eventually.HoldsAsync(async () => Assert.Equal(Orders + 2, decided + await ReadyAsync(service, "orders")));
        Assert.Equal((0L, null), (await AcceptedAsync(service), await service.OrderStatusAsync("H-1")));

        var (exit, status, error) = await service.RunAsync("intake", "status");
        Assert.True(exit == 0, error);
        Assert.Contains("orders: paused since", status, StringComparison.Ordinal);
        Assert.Contains("by tests: the disk is changed", status, StringComparison.Ordinal);
        (exit, status, error) = await service.RunAsync("intake", "resume", "--queue", "orders", "--reason", "it is changed");
        Assert.True(exit == 0, error);
        Assert.Contains("orders: taken in", status, StringComparison.Ordinal);
        await Eventually.TrueAsync(async () => decided + await AcceptedAsync(service) == Orders + 1 && await ReadyAsync(service, "orders") == 0);
        Assert.Equal("placed", await service.OrderStatusAsync("H-1"));
        Assert.Empty((await service.GetAsync("/api/dead-letters")).GetProperty("items").EnumerateArray());

        using (var resumed = await service.Http.PostAsJsonAsync("/api/intake/resume", new { reason = "all of it" }, Stopping))
        {
            Assert.Equal(HttpStatusCode.OK, resumed.StatusCode);
        }
        await Eventually.HoldsAsync(async () => Assert.Single((await service.GetAsync("/api/dead-letters")).GetProperty("items").EnumerateArray()));
        await Eventually.TrueAsync(async () => (await service.HealthAsync()).Body.Contains("\"status\":\"ready\"", StringComparison.Ordinal));
        Assert.Equal(0, await service.CounterAsync("orders_intake_paused"));
        Assert.Equal(
            ["intake.resume queue orders.dlq", "intake.resume queue orders", "intake.pause queue orders.dlq", "intake.pause queue orders"],
            (await service.AllAsync("/api/audit")).Select(entry => $"{entry.GetProperty("action").GetString()} {entry.GetProperty("subject").GetString()}").Where(entry => entry.StartsWith("intake", StringComparison.Ordinal)));
    }

    [Fact]
    public async Task A_pause_holds_for_every_instance_and_the_command_waits_until_all_have_finished()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var one = await ReleaseService.StartAsync(address, StoreKind.Postgres, postgres);
        await using var other = await ReleaseService.StartAsync(address, settings: new Dictionary<string, string> { ["Store__ConnectionString"] = one.Settings["Store__ConnectionString"] });
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.PublishAsync(Enumerable.Range(1, 500).Select(number => TestMessage.Place($"A-{number}")));

        var (exit, said, error) = await one.RunAsync("intake", "pause", "--reason", "a move", "--wait", "60s");

        Assert.True(exit == 0, error + said);
        Assert.Contains("drained: nothing is in hand", said, StringComparison.Ordinal);
        Assert.Equal(4, said.Split('\n').Count(line => line.EndsWith(": 0 in hand", StringComparison.Ordinal)));
        var decided = await AcceptedAsync(one) + await AcceptedAsync(other);
        await shop.PublishAsync(Enumerable.Range(501, 100).Select(number => TestMessage.Place($"A-{number}")));
        foreach (var service in (ReleaseService[])[one, other])
        {
            await Eventually.HoldsAsync(async () => Assert.Equal(600, decided + await ReadyAsync(service, "orders")));
            Assert.Contains("\"status\":\"paused\"", (await service.HealthAsync()).Body, StringComparison.Ordinal);
        }

        Assert.Equal(0, (await other.RunAsync("intake", "resume", "--reason", "moved")).ExitCode);
        await Eventually.TrueAsync(async () => await AcceptedAsync(one) + await AcceptedAsync(other) == 600);
    }

    private static async Task<long> AcceptedAsync(ReleaseService service) => (await service.GetAsync("/api/stats")).GetProperty("totals").GetProperty("accepted").GetInt64();

    private static async Task<List<JsonElement>> IntakeAsync(ReleaseService service) => [.. (await service.GetAsync("/api/intake")).GetProperty("items").EnumerateArray()];

    private static async Task<long> ReadyAsync(ReleaseService service, string queue) =>
        (await service.GetAsync("/api/queues")).GetProperty("items").EnumerateArray().Single(item => item.GetProperty("name").GetString() == queue).GetProperty("ready").GetInt64();
}

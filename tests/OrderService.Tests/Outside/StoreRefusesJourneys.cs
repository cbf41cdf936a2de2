using System.Net;
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

    /// <summary>Whatever it is that makes the store refuse, it is the store's; both stores at once, since most of the time is the ten seconds before an alert.</summary>
    [Fact]
    public Task A_column_a_sequence_or_a_trigger_that_refuses_every_order_makes_no_order_a_letter_and_is_said_by_name_in_one_alert() =>
        Task.WhenAll(RefuseEveryOrderAsync(StoreKind.Sqlite), RefuseEveryOrderAsync(StoreKind.Postgres));

    private async Task RefuseEveryOrderAsync(StoreKind store)
    {
        await using var hook = await FakeWebhook.StartAsync();
        await using var service = await ReleaseService.StartAsync(await broker.AddVirtualHostAsync(), store, postgres, AlertsTo(hook));
        await using var shop = await TestProducer.ConnectAsync(service.Settings["RabbitMq__Uri"]);
        var administrator = new StoreAdministrator(service, store);
        const int Count = 40;
        // What is done, how it is said, and what takes it back. SQLite takes a NOT NULL column without a default while the table is empty.
        (string Do, string Says, string Undo)[] causes = store == StoreKind.Sqlite
            ?
            [
                ("ALTER TABLE orders ADD COLUMN added_later TEXT NOT NULL", "1299 NOT NULL, constraint orders.added_later", "ALTER TABLE orders DROP COLUMN added_later"),
                ("CREATE TRIGGER added_later BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'secret-value'); END", "1811 trigger", "DROP TRIGGER added_later"),
                ("UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'outbox'", "a table's numbers are used up", "UPDATE sqlite_sequence SET seq = 1000000 WHERE name = 'outbox'"),
            ]
            :
            [
                ("ALTER TABLE orders ADD COLUMN added_later TEXT NOT NULL DEFAULT ''; ALTER TABLE orders ALTER COLUMN added_later DROP DEFAULT",
                    "23502, column added_later of orders", "ALTER TABLE orders DROP COLUMN added_later"),
                ("""
                    CREATE FUNCTION added_later() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''secret-value''; END';
                    CREATE TRIGGER added_later BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION added_later()
                    """,
                    "P0001, function added_later", "DROP TRIGGER added_later ON events"),
                ("DO 'BEGIN EXECUTE format(''ALTER SEQUENCE orders_seq_seq MAXVALUE %s'', nextval(''orders_seq_seq'')); END'", "2200H", "ALTER SEQUENCE orders_seq_seq NO MAXVALUE"),
            ];

        for (var number = 0; number < causes.Length; number++)
        {
            await administrator.ExecuteAsync(causes[number].Do, causes[number].Do);
            await shop.PublishAsync(Enumerable.Range(0, Count).Select(order => TestMessage.Place($"cause{number}-{order}")));
            await NotReadyAsync(service, causes[number].Says);
            if (number == 0)
            {
                await Eventually.TrueAsync(() => !hook.Received.IsEmpty, Soon);
                Assert.Contains(causes[0].Says, Text(hook.Received.First()), StringComparison.Ordinal);
            }
            Assert.Equal((0, number * Count), (await LettersAsync(service), (await service.AllAsync("/api/orders")).Count));
            await administrator.ExecuteAsync(causes[number].Undo, causes[number].Undo);
            await Eventually.TrueAsync(async () => (await service.AllAsync("/api/orders")).Count == (number + 1) * Count, Soon);
            await service.WaitUntilReadyAsync(Soon);
        }

        Assert.Equal(0, await LettersAsync(service));
        Assert.Single(hook.Received);
        Assert.DoesNotContain("secret-value", service.Output, StringComparison.Ordinal);
        Assert.Equal(0, await service.StopAsync());
    }

    /// <summary>Takes a minute, the time that a refused row rests; both stores at once.</summary>
    [Fact]
    public Task Alerts_that_the_store_refuses_hold_up_no_order_are_said_without_the_store_and_leave_once_when_it_takes_them_again() =>
        Task.WhenAll(RefuseAlertsAsync(StoreKind.Sqlite), RefuseAlertsAsync(StoreKind.Postgres));

    private async Task RefuseAlertsAsync(StoreKind store)
    {
        await using var hook = await FakeWebhook.StartAsync();
        await using var service = await ReleaseService.StartAsync(await broker.AddVirtualHostAsync(), store, postgres, AlertsTo(hook));
        await using var shop = await TestProducer.ConnectAsync(service.Settings["RabbitMq__Uri"]);
        var administrator = new StoreAdministrator(service, store);
        var code = store == StoreKind.Sqlite ? "1811" : "23514, constraint added_later of alert_deliveries";
        int Heard(string words) => hook.Received.Count(alert => Text(alert).Contains(words, StringComparison.Ordinal));

        // No alert gets a delivery.
        await administrator.RefuseAsync("alert_deliveries");
        await shop.PublishAsync([TestMessage.Of("order.place", "broken-1", "{"), .. Enumerable.Range(0, 20).Select(number => TestMessage.Place($"beside-{number}"))]);
        await Eventually.TrueAsync(async () => await PlacedAsync(service, "beside", 20) == 20 && await LettersAsync(service) == 1, Soon);
        await Eventually.HoldsAsync(
            async () =>
            {
                var (status, body) = await service.HealthAsync();
                Assert.Equal(HttpStatusCode.OK, status);
                Assert.Contains("store:alerts", body, StringComparison.Ordinal);
                Assert.Contains(code, body, StringComparison.Ordinal);
                Assert.Equal(1, Heard("Alerts wait: the store does not take some of them"));
            },
            Soon);
        Assert.Equal(0, Heard("not valid JSON"));
        await shop.PublishAsync(Enumerable.Range(0, 20).Select(number => TestMessage.Place($"later-{number}")));
        await Eventually.TrueAsync(async () => await PlacedAsync(service, "later", 20) == 20, Soon);

        await administrator.TakeAsync("alert_deliveries");
        await Eventually.TrueAsync(() => Heard("not valid JSON") == 1, TimeSpan.FromSeconds(90));
        await Eventually.HoldsAsync(
            async () =>
            {
                Assert.DoesNotContain("store:", (await service.HealthAsync()).Body, StringComparison.Ordinal);
                Assert.All(
                    (await service.AllAsync("/api/alerts")).SelectMany(alert => alert.GetProperty("deliveries").EnumerateArray()),
                    delivery => Assert.Equal("sent", delivery.GetProperty("status").GetString()));
            },
            TimeSpan.FromSeconds(90));
        Assert.Equal(1, Heard("Alerts wait: the store does not take some of them"));
        Assert.Equal(0, await service.StopAsync());
    }

    private static Dictionary<string, string> AlertsTo(FakeWebhook hook) => new()
    {
        ["Alerts__Webhook__Enabled"] = "true",
        ["Alerts__Webhook__Url"] = hook.Url.ToString(),
        ["Alerts__Webhook__Secret"] = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        ["Alerts__Webhook__AllowedHosts__0"] = "127.0.0.1",
    };

    private static string Text(ReceivedWebhook alert) => System.Text.Encoding.UTF8.GetString(alert.Body);

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

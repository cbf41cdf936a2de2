using System.Net;
using System.Net.Http.Json;
using System.Text;
using Npgsql;
using OrderService.Tests.Infrastructure;
using RabbitMQ.Client;

namespace OrderService.Tests.Outside;

/// <summary>A subscriber's queue that takes nothing: the other subscribers, the other events and the HTTP API do not suffer for it.</summary>
public sealed class FullSubscriberJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    private const double ProbeSeconds = 1;

    /// <summary>Refuses whatever comes after the first message.</summary>
    private static Dictionary<string, object?> RoomForOne => new() { ["x-max-length"] = 1, ["x-overflow"] = "reject-publish" };

    /// <summary>Settings of a service that soon takes silence for a hanging queue.</summary>
    private static Dictionary<string, string> Impatient => new()
    {
        ["Outbox__ProbeInterval"] = TimeSpan.FromSeconds(ProbeSeconds).ToString("c"),
        ["RabbitMq__ConfirmTimeout"] = "00:00:02",
    };

    private static CancellationToken Stopping => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task A_full_queue_holds_up_its_own_events_and_floods_nobody(StoreKind store)
    {
        const int Orders = 300;
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, store, postgres, new()
        {
            ["Outbox__ProbeInterval"] = TimeSpan.FromSeconds(ProbeSeconds).ToString("c"),
            ["RabbitMq__ManagementUri"] = broker.ManagementUri.ToString(),
            ["Api__TrustedProxies__0"] = "127.0.0.1",
            // More is stuck than the relay's memory holds.
            ["Outbox__MaxInMemory"] = "100",
        });
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        await using var other = await OtherSubscriber.BindAsync(address, "full", "order.cancelled", RoomForOne);
        var channel = other.Channel;
        var began = TimeProvider.System.GetTimestamp();

        await shop.PublishAsync(Enumerable.Range(0, Orders).SelectMany(number => new[] { TestMessage.Place($"A-{number}"), Cancel($"A-{number}") }));
        // Refused by the order, and told only after the cancellation that explains it.
        await shop.PublishAsync(Enumerable.Range(0, Orders).Select(number => TestMessage.Ship($"A-{number}")));

        var waiting = (2 * Orders) - 2;
        await Eventually.HoldsAsync(async () =>
        {
            var key = Assert.Single((await service.GetAsync("/api/relay")).GetProperty("items").EnumerateArray());
            Assert.Equal(("order.cancelled", "a queue refuses it"), (key.GetProperty("routingKey").GetString(), key.GetProperty("reason").GetString()));
            Assert.InRange(key.GetProperty("events").GetInt32(), waiting - 2, waiting);
            Assert.Contains("The queue full is full: 1 of at most 1 messages", key.GetProperty("queues").GetRawText(), StringComparison.Ordinal);
            var (status, health) = await service.HealthAsync();
            Assert.Equal(HttpStatusCode.OK, status);
            Assert.Contains("relay:order.cancelled", health, StringComparison.Ordinal);
            Assert.Contains("The queue full is full", health, StringComparison.Ordinal);
        });
        Assert.Equal(Orders, shop.Heard.Count(heard => heard.Type == "ORDER_PLACED"));
        await shop.PublishAsync(TestMessage.Place("NEW-0"));
        await Eventually.TrueAsync(() => shop.Heard.Any(heard => heard.Id == "NEW-0.1"), TimeSpan.FromSeconds(10));
        await ReleaseAsync(service);
        Assert.True(await FailuresAsync(service) > 0);

        // The next process knows what is stuck, and others' events pass by it.
        Assert.Equal(0, await service.StopAsync());
        await service.StartAgainAsync();
        await shop.PublishAsync(TestMessage.Place("NEW-1"));
        await Eventually.TrueAsync(() => shop.Heard.Any(heard => heard.Id == "NEW-1.1"));
        if (store == StoreKind.Sqlite)
        {
            // Written when it has stood for ten seconds, by the same code on both.
            await Eventually.TrueAsync(async () => (await service.AllAsync("/api/alerts")).Any(alert =>
                alert.GetProperty("kind").GetString() == "service" && alert.GetRawText().Contains("order.cancelled", StringComparison.Ordinal)));
        }
        var listed = await service.RunAsync("relay", "list");
        Assert.Contains("order.cancelled", listed.Output, StringComparison.Ordinal);
        Assert.Contains("The queue full is full", listed.Output, StringComparison.Ordinal);
        AssertFewCopies(shop, began);
        // What is refused is not told before the cancellation was.
        var told = shop.Heard.Where(heard => heard.Type == "ORDER_COMMAND_REFUSED").Select(heard => Subject(heard.Body)).ToHashSet();
        Assert.InRange(told.Count, 1, 2);

        await channel.QueueDeleteAsync("full", cancellationToken: Stopping);
        var (exitCode, _, error) = await service.RunAsync("relay", "release", "order.cancelled", "--reason", "the queue is gone");
        Assert.True(exitCode == 0, error);

        await Eventually.TrueAsync(() => shop.Heard.Select(heard => heard.Id).Distinct().Count() == (3 * Orders) + 2);
        Assert.All(shop.Heard.GroupBy(heard => Subject(heard.Body)).Where(order => !order.Key.StartsWith("NEW-", StringComparison.Ordinal)), order => Assert.Equal(
            ["ORDER_PLACED", "ORDER_CANCELLED", "ORDER_COMMAND_REFUSED"], order.DistinctBy(heard => heard.Id).Select(heard => heard.Type)));
        AssertFewCopies(shop, began);
        await Eventually.HoldsAsync(async () =>
        {
            Assert.Equal(0, (await service.GetAsync("/api/relay")).GetProperty("items").GetArrayLength());
            Assert.DoesNotContain("relay:order.cancelled", (await service.HealthAsync()).Body, StringComparison.Ordinal);
        });
        Assert.Equal(0, await service.StopAsync());
    }

    [Fact]
    public async Task Two_instances_together_try_a_refused_key_once_in_an_interval_and_open_it_without_a_flood()
    {
        const int Orders = 300;
        var address = await broker.AddVirtualHostAsync();
        var settings = new Dictionary<string, string> { ["Outbox__ProbeInterval"] = TimeSpan.FromSeconds(ProbeSeconds).ToString("c") };
        await using var first = await ReleaseService.StartAsync(address, StoreKind.Postgres, postgres, settings);
        settings["Store__ConnectionString"] = first.Settings["Store__ConnectionString"];
        await using var second = await ReleaseService.StartAsync(address, settings: settings);
        await SharedAsync(settings["Store__ConnectionString"]);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        await using var other = await OtherSubscriber.BindAsync(address, "full", "order.cancelled", RoomForOne);
        var channel = other.Channel;
        await shop.PublishAsync(Enumerable.Range(0, Orders).SelectMany(number => new[] { TestMessage.Place($"A-{number}"), Cancel($"A-{number}") }));
        await Eventually.HoldsAsync(async () =>
        {
            foreach (var service in new[] { first, second })
            {
                var key = Assert.Single((await service.GetAsync("/api/relay")).GetProperty("items").EnumerateArray());
                Assert.InRange(key.GetProperty("events").GetInt32(), Orders - 3, Orders);
            }
        });
        await Eventually.TrueAsync(() => shop.Heard.Count(heard => heard.Type == "ORDER_PLACED") == Orders);

        var (began, before) = (TimeProvider.System.GetTimestamp(), Copies(shop));
        await Eventually.TrueAsync(() => Copies(shop) >= before + 8);
        var (attempts, elapsed) = (Copies(shop) - before, TimeProvider.System.GetElapsedTime(began).TotalSeconds);
        Assert.True(attempts <= (elapsed / ProbeSeconds) + 2, $"{attempts} attempts in {elapsed:0.0} s");
        Assert.True(await FailuresAsync(first) + await FailuresAsync(second) >= attempts);

        await channel.QueueDeleteAsync("full", cancellationToken: Stopping);
        before = Copies(shop);
        await Eventually.TrueAsync(() => shop.Heard.Select(heard => heard.Id).Distinct().Count() == 2 * Orders);
        // What was under way when each of them closed the key, at most 16 messages each, had been heard once; and an attempt or two that the queue's end came between.
        Assert.InRange(Copies(shop) - before, 0, (2 * 16) + 3);
        Assert.All(shop.Heard.GroupBy(heard => Subject(heard.Body)), order => Assert.Equal(["ORDER_PLACED", "ORDER_CANCELLED"], order.DistinctBy(heard => heard.Id).Select(heard => heard.Type)));
        await Eventually.TrueAsync(async () => (await second.GetAsync("/api/relay")).GetProperty("items").GetArrayLength() == 0);
        Assert.Equal((0, 0), (await second.StopAsync(), await first.StopAsync()));
    }

    [Fact]
    public async Task A_queue_that_hangs_and_gets_everything_holds_everything_up_and_not_the_http_api()
    {
        const int Orders = 50;
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, settings: Impatient);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        await using var other = await OtherSubscriber.BindAsync(address, "hung", "#");
        var channel = other.Channel;
        var virtualHost = new Uri(address).AbsolutePath[1..];
        await broker.HangAsync(virtualHost, "hung");
        var began = TimeProvider.System.GetTimestamp();

        for (var number = 0; number < Orders; number++)
        {
            using var answer = await service.Http.PostAsync(new Uri("/api/orders", UriKind.Relative), Json(TestMessage.Place($"A-{number}")), Stopping);
            Assert.Equal(HttpStatusCode.Accepted, answer.StatusCode);
        }
        await shop.PublishAsync(Enumerable.Range(0, Orders).Select(number => Cancel($"A-{number}")));

        await Eventually.HoldsAsync(async () =>
        {
            var keys = (await service.GetAsync("/api/relay")).GetProperty("items").EnumerateArray().ToList();
            Assert.Contains(keys, key => key.GetProperty("routingKey").GetString() == "order.placed" && key.GetProperty("reason").GetString()!.Contains("no leader or hangs", StringComparison.Ordinal));
            Assert.InRange(keys.Sum(key => key.GetProperty("events").GetInt32()), (2 * Orders) - 1, 2 * Orders);
            var (status, health) = await service.HealthAsync();
            Assert.Equal(HttpStatusCode.OK, status);
            Assert.Contains("relay:order.placed", health, StringComparison.Ordinal);
        });
        AssertFewCopies(shop, began);
        using (var late = await service.Http.PostAsync(new Uri("/api/orders", UriKind.Relative), Json(TestMessage.Place("LATE-1")), Stopping))
        {
            Assert.Equal(HttpStatusCode.Accepted, late.StatusCode);
        }
        await Eventually.TrueAsync(async () => await service.OrderStatusAsync("LATE-1") == "placed");

        await broker.ResumeAsync(virtualHost, "hung");

        await Eventually.TrueAsync(() => shop.Heard.Select(heard => heard.Id).Distinct().Count() == (2 * Orders) + 1);
        await Eventually.TrueAsync(async () => (await service.GetAsync("/api/relay")).GetProperty("items").GetArrayLength() == 0);
        Assert.InRange(await channel.MessageCountAsync("hung", Stopping), (2u * Orders) + 1, 3u * Orders);
        Assert.All(shop.Heard.GroupBy(heard => Subject(heard.Body)).Where(order => order.Key != "LATE-1"), order => Assert.Equal(
            ["ORDER_PLACED", "ORDER_CANCELLED"], order.DistinctBy(heard => heard.Id).Select(heard => heard.Type)));
    }

    [Fact]
    public async Task A_queue_without_a_leader_holds_up_its_own_events_an_alert_names_them_and_they_come_in_order_when_it_has_one()
    {
        const int Orders = 50;
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, settings: Impatient);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        await using var other = await OtherSubscriber.BindAsync(address, "replicated", "order.cancelled", new() { ["x-queue-type"] = "quorum" });
        var channel = other.Channel;
        var virtualHost = new Uri(address).AbsolutePath[1..];

        var reason = "";

        // Its only member here, which is its leader; of three the majority would be gone.
        await MemberAsync("stop_server");
        await shop.PublishAsync(Enumerable.Range(0, Orders).SelectMany(number => new[] { TestMessage.Place($"A-{number}"), Cancel($"A-{number}") }));

        await Eventually.HoldsAsync(async () =>
        {
            var key = Assert.Single((await service.GetAsync("/api/relay")).GetProperty("items").EnumerateArray());
            Assert.Equal("order.cancelled", key.GetProperty("routingKey").GetString());
            // This broker says no where another lets it wait.
            reason = key.GetProperty("reason").GetString()!;
            Assert.Contains(reason, (string[])["a queue refuses it", "a queue that gets it has no leader or hangs"]);
            Assert.Equal(Orders, key.GetProperty("events").GetInt32());
            Assert.Equal(HttpStatusCode.OK, (await service.HealthAsync()).Status);
        });
        // What is published while it stands comes out too.
        await shop.PublishAsync(TestMessage.Place("NEW-1"));
        await Eventually.TrueAsync(() => shop.Heard.Count(heard => heard.Type == "ORDER_PLACED") >= Orders + 1);
        await Eventually.TrueAsync(async () => (await service.AllAsync("/api/alerts")).Any(alert =>
            alert.GetProperty("kind").GetString() == "service"
            && alert.GetRawText().Contains("order.cancelled", StringComparison.Ordinal) && alert.GetRawText().Contains(reason, StringComparison.Ordinal)));

        await MemberAsync("restart_server");

        await Eventually.TrueAsync(() => shop.Heard.Select(heard => heard.Id).Distinct().Count() == (2 * Orders) + 1);
        Assert.All(shop.Heard.GroupBy(heard => Subject(heard.Body)).Where(order => order.Key != "NEW-1"), order => Assert.Equal(
            ["ORDER_PLACED", "ORDER_CANCELLED"], order.DistinctBy(heard => heard.Id).Select(heard => heard.Type)));
        await Eventually.TrueAsync(async () => (await service.GetAsync("/api/relay")).GetProperty("items").GetArrayLength() == 0);
        var replicated = new List<string>();
        while (await channel.BasicGetAsync("replicated", autoAck: true, Stopping) is { } got)
        {
            replicated.Add(Subject(Encoding.UTF8.GetString(got.Body.Span)));
        }
        Assert.Equal(Enumerable.Range(0, Orders).Select(number => $"A-{number}"), replicated.Distinct());

        async Task MemberAsync(string call) => Assert.Contains(
            "ok", await broker.ExecAsync("rabbitmqctl", "-q", "eval", $"ra:{call}(quorum_queues, {{list_to_atom(\"{virtualHost}_replicated\"), node()}})."), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task Several_stuck_events_of_one_order_leave_when_there_is_room(StoreKind store)
    {
        const int Orders = 5;
        const int Payments = 4;
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, store, postgres, new()
        {
            ["Outbox__ProbeInterval"] = TimeSpan.FromSeconds(ProbeSeconds).ToString("c"),
        });
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        await using var other = await OtherSubscriber.BindAsync(address, "full", "order.payment_received", RoomForOne);
        await shop.PublishAsync(Enumerable.Range(0, Orders).SelectMany(number =>
            Enumerable.Range(0, Payments).Select(payment => Pay($"A-{number}", payment)).Prepend(TestMessage.Place($"A-{number}"))));
        await Eventually.TrueAsync(async () => (await service.GetAsync("/api/relay")).GetProperty("items").EnumerateArray().Sum(key => key.GetProperty("events").GetInt32())
            >= Orders * (Payments - 1));

        await other.Channel.QueueDeleteAsync("full", cancellationToken: Stopping);

        await Eventually.TrueAsync(() => shop.Heard.Select(heard => heard.Id).Distinct().Count() == Orders * (Payments + 1));
        Assert.All(shop.Heard.GroupBy(heard => Subject(heard.Body)), order => Assert.Equal(
            Enumerable.Range(1, Payments + 1).Select(version => $"{order.Key}.{version}"), order.Select(heard => heard.Id).Distinct()));
        await Eventually.TrueAsync(async () => (await service.GetAsync("/api/relay")).GetProperty("items").GetArrayLength() == 0);
    }

    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task An_order_with_thousands_of_events_to_tell_does_not_hold_up_the_others(StoreKind store)
    {
        const int Payments = 4_000;
        const int Others = 20;
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, store, postgres, new() { ["Outbox__MaxInMemory"] = "1000" });
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        await shop.PublishAsync(Enumerable.Range(0, Payments).Select(payment => Pay("BIG", payment)).Prepend(TestMessage.Place("BIG")));
        await shop.PublishAsync(Enumerable.Range(0, Others).Select(number => TestMessage.Place($"A-{number}")));

        await Eventually.TrueAsync(() => shop.Heard.Count(heard => heard.Type == "ORDER_PLACED") == Others + 1);
        // What is told of one order comes one by one, so most of it is still to come.
        var told = shop.Heard.Count;
        Assert.True(told < Payments - 1000, $"{told} events were told before the last of the other orders");

        await Eventually.TrueAsync(() => shop.Heard.Count >= Payments + Others + 1, TimeSpan.FromMinutes(2));
        Assert.Equal(
            Enumerable.Range(1, Payments + 1).Select(version => $"BIG.{version}"), shop.Heard.Select(heard => heard.Id).Where(id => id.StartsWith("BIG.", StringComparison.Ordinal)).Distinct());
    }

    /// <summary>An operator behind a proxy has the key tried although there is no room: it is in the audit log with who asked, from where and why.</summary>
    private static async Task ReleaseAsync(ReleaseService service)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, "/api/relay/order.cancelled/release") { Content = JsonContent.Create(new { reason = "is there room?" }) };
        request.Headers.Add("X-Forwarded-Prefix", "/shop");
        request.Headers.Add("X-Forwarded-For", "192.0.2.7");
        using var answer = await service.Http.SendAsync(request, Stopping);
        Assert.Equal((HttpStatusCode.Accepted, "/shop/api/relay"), (answer.StatusCode, answer.Headers.Location?.OriginalString));
        var entry = Assert.Single((await service.GetAsync("/api/audit?action=relay.release")).GetProperty("items").EnumerateArray());
        Assert.Equal(("routing key order.cancelled", "is there room?", "192.0.2.7"), (entry.GetProperty("subject").GetString(), entry.GetProperty("detail").GetString(), entry.GetProperty("address").GetString()));
        Assert.StartsWith("key ", entry.GetProperty("right").GetString(), StringComparison.Ordinal);
    }

    /// <summary>Both instances relay a share of the orders.</summary>
    private static Task SharedAsync(string connectionString) => Eventually.TrueAsync(async () =>
    {
        await using var connection = new NpgsqlConnection(connectionString + ";Pooling=false");
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand("SELECT count(*) FROM (SELECT owner FROM relay_leases WHERE owner <> '' GROUP BY owner HAVING count(*) = 8) AS owners", connection);
        return await command.ExecuteScalarAsync() is 2L;
    });

    private static int Copies(TestProducer shop) => shop.Heard.Count - shop.Heard.Select(one => one.Id).Distinct().Count();

    private static async Task<double> FailuresAsync(ReleaseService service) => await service.CounterAsync("orders_relay_failures_total");

    /// <summary>The bound of the contract, for a probe every second: one copy for each and a hundredth of the events; and those under way when each key closed.</summary>
    private static void AssertFewCopies(TestProducer shop, long began)
    {
        var (heard, copies) = (shop.Heard, Copies(shop));
        var attempts = TimeProvider.System.GetElapsedTime(began).TotalSeconds / ProbeSeconds;
        Assert.True(copies <= (heard.Count * 0.01) + 16 + (2 * attempts), $"{copies} copies of {heard.Count} messages in {attempts} attempts");
    }

    private static TestMessage Cancel(string orderId) => TestMessage.Of("order.cancel", $"cancel-{orderId}", $$"""{"orderId":"{{orderId}}","reason":"no"}""");

    private static TestMessage Pay(string orderId, int payment) => TestMessage.Of(
        "order.pay", $"pay-{orderId}-{payment}", $$"""{"orderId":"{{orderId}}","paymentReference":"P-{{payment}}","amount":0.01}""");

    private static StringContent Json(TestMessage message) => new(Encoding.UTF8.GetString(message.Body), Encoding.UTF8, "application/json");

    private static string Subject(string body)
    {
        using var json = System.Text.Json.JsonDocument.Parse(body);
        return json.RootElement.GetProperty("subject").GetString()!;
    }

    /// <summary>A subscriber with a durable queue and a connection of its own.</summary>
    private sealed class OtherSubscriber(IConnection connection, IChannel channel) : IAsyncDisposable
    {
        public IChannel Channel => channel;

        public static async Task<OtherSubscriber> BindAsync(string address, string queue, string routingKey, Dictionary<string, object?>? arguments = null)
        {
            var connection = await new ConnectionFactory { Uri = new Uri(address) }.CreateConnectionAsync(Stopping);
            var channel = await connection.CreateChannelAsync(cancellationToken: Stopping);
            await channel.QueueDeclareAsync(queue, true, false, false, arguments, cancellationToken: Stopping);
            await channel.QueueBindAsync(queue, "order-events", routingKey, cancellationToken: Stopping);
            return new OtherSubscriber(connection, channel);
        }

        public async ValueTask DisposeAsync()
        {
            await channel.DisposeAsync();
            await connection.DisposeAsync();
        }
    }
}

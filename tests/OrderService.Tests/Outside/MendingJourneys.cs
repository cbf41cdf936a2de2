using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>Letters of other producers are mended, many at a time, and close by themselves when they are sent again by hand.</summary>
public sealed class MendingJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    private const int Many = 12;

    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task What_is_wrong_in_many_letters_alike_is_mended_in_all_of_them(StoreKind store)
    {
        var address = await broker.AddVirtualHostAsync();
        await using var webhook = await FakeWebhook.StartAsync();
        await using var service = await ReleaseService.StartAsync(address, store, postgres, new()
        {
            ["Alerts__Webhook__Enabled"] = "true",
            ["Alerts__Webhook__Url"] = webhook.Url.ToString(),
            ["Alerts__Webhook__Secret"] = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            ["Alerts__Webhook__AllowedHosts__0"] = "127.0.0.1",
            ["Alerts__DigestInterval"] = "01:00:00",
            ["Alerts__PollInterval"] = "00:00:00.200",
        });
        var administrator = new StoreAdministrator(service, store);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.PublishAsync(Enumerable.Range(0, Many).Select(number => Of($"T-{number}", "Shop.Contracts.OrderPlaced, Shop.Contracts")));
        await shop.PublishAsync(Enumerable.Range(0, Many).Select(number => Of($"C-{number}", null, properties => properties.ContentType = "text/plain")));
        await shop.PublishAsync(Enumerable.Range(0, 3).Select(number => Renamed($"R-{number}")));
        // The same key for two orders, an empty key, and a text in an AMQP 1.0 value as the broker hands it out.
        await shop.PublishAsync(TestMessage.Place("K-1", "key"), TestMessage.Place("K-2", "key"), TestMessage.Place("E-1", ""));
        await shop.PublishAsync(new TestMessage("amqp-1.0", null, [0, 0x53, 0x77, 0xA1, 0x10, .. "{\"orderId\":\"Q-1\"}"u8]));
        await Eventually.HoldsAsync(async () => Assert.Equal((2 * Many) + 5, (await ParkedAsync(service)).Count));
        Assert.Equal("placed", await service.OrderStatusAsync("E-1"));
        var incidents = (await ParkedAsync(service)).GroupBy(letter => letter.GetProperty("reason").GetString()!)
            .ToDictionary(group => group.Key, group => group.ToList());

        // The type of a whole incident, over the API: forecast, then a canary.
        var target = new
        {
            filter = new { fingerprint = Fingerprint("unknown_command") },
            patch = new { type = "order.place" },
            reason = "the producer names .NET types",
            ratePerSecond = 1000,
        };
        using var forecast = await service.Http.PostAsJsonAsync("/api/dead-letters/what-if", new { target.filter, target.patch }, Token);
        Assert.Equal(Many, (await ReadAsync(forecast)).GetProperty("outcomes").GetProperty("succeeds").GetInt32());
        using var unpatched = await service.Http.PostAsJsonAsync("/api/dead-letters/what-if", new { target.filter }, Token);
        Assert.Equal(Many, (await ReadAsync(unpatched)).GetProperty("outcomes").GetProperty("still_fails").GetInt32());
        // A patch that mends nothing: the canary stops, and no letter was touched.
        using var wrong = await service.Http.PostAsJsonAsync(
            "/api/dead-letters/replays", new { target.filter, patch = new { type = "order.pay" }, reason = "a guess" }, Token);
        await EndsAsync((await ReadAsync(wrong)).GetProperty("id").GetInt64(), "stopped");
        using var started = await service.Http.PostAsJsonAsync("/api/dead-letters/replays", target, Token);
        var job = (await ReadAsync(started)).GetProperty("id").GetInt64();
        await EndsAsync(job, "done");
        Assert.Equal(Many, (await service.GetAsync($"/api/replays/{job}")).GetProperty("succeeded").GetInt32());
        Assert.Equal("placed", await service.OrderStatusAsync("T-11"));
        foreach (var letter in incidents["unknown_command"])
        {
            // A letter that the wrong patch had touched would have two.
            var attempt = Assert.Single((await service.GetAsync($"/api/dead-letters/{Id(letter)}")).GetProperty("attempts").EnumerateArray());
            var type = attempt.GetProperty("change").GetProperty("type");
            Assert.Equal(
                ("Shop.Contracts.OrderPlaced, Shop.Contracts", "order.place", "resolved"),
                (type.GetProperty("before").GetString(), type.GetProperty("after").GetString(), attempt.GetProperty("outcome").GetString()));
        }

        // The content type, on the command line. One letter of it is sent again from its export before, and closes by itself.
        var (exported, lines, _) = await service.RunAsync("dlq", "export", "--incident", Fingerprint("unsupported_content_type"));
        Assert.Equal((0, Many), (exported, lines.TrimEnd().Split('\n').Length));
        var exportedLine = lines.Split('\n').Single(line => line.Contains("\"C-0\"", StringComparison.Ordinal));
        await File.WriteAllTextAsync(Path.Combine(service.Folder, "one.ndjson"), exportedLine, Token);
        Assert.Equal(0, (await service.RunAsync("publish", "one.ndjson")).ExitCode);
        var byHand = Id(incidents["unsupported_content_type"].Single(letter => letter.GetProperty("orderId").GetString() == "C-0"));
        await Eventually.HoldsAsync(async () => Assert.Equal(
            "superseded", (await service.GetAsync($"/api/dead-letters/{byHand}")).GetProperty("status").GetString()));
        Assert.Contains("is superseded since", (await service.GetAsync($"/api/why/{byHand}")).GetProperty("state").GetString(), StringComparison.Ordinal);
        var (mended, said, failed) = await service.RunAsync(
            "dlq", "replay", "--all", "--yes", "--incident", Fingerprint("unsupported_content_type"),
            "--set", "contentType=application/json", "--rate", "1000");
        Assert.True(mended == 0, said + failed);
        Assert.Contains($"{Many - 1}  succeeds", said, StringComparison.Ordinal);
        Assert.Equal("placed", await service.OrderStatusAsync("C-11"));

        // What was edited in one letter comes back as a patch that fits the others: a renamed member keeps each order's own value.
        var first = Id(incidents["unknown_field"][0]);
        var body = await service.Http.GetStringAsync(new Uri($"/api/dead-letters/{first}/body", UriKind.Relative), Token);
        var renamed = body.Replace("\"customer\":", "\"customerId\":", StringComparison.Ordinal);
        using var check = await service.Http.PostAsJsonAsync($"/api/dead-letters/{first}/check", new { body = renamed }, Token);
        var patch = (await ReadAsync(check)).GetProperty("patch");
        await File.WriteAllTextAsync(Path.Combine(service.Folder, "patch.json"), patch.GetRawText(), Token);
        (mended, said, failed) = await service.RunAsync(
            "dlq", "replay", "--all", "--yes", "--incident", Fingerprint("unknown_field"), "--patch", "patch.json", "--rate", "1000");
        Assert.True(mended == 0, said + failed);
        Assert.Equal("Lovelace-R-2", (await service.GetAsync("/api/orders/R-2")).GetProperty("customerId").GetString());

        // A key that another order has: each gets one of its own.
        using var keyed = await service.Http.PostAsJsonAsync(
            "/api/dead-letters/replays",
            new { filter = new { fingerprint = Fingerprint("key_conflict") }, patch = new { key = "derived" }, reason = "keys of their own" }, Token);
        await EndsAsync((await ReadAsync(keyed)).GetProperty("id").GetInt64(), "done");
        Assert.Equal("placed", await service.OrderStatusAsync("K-2"));

        // The AMQP 1.0 value: its cause by name, and an edited body alone mends it.
        var value = incidents["invalid_encoding"].Single();
        Assert.Contains("AMQP 1.0", value.GetProperty("detail").GetString(), StringComparison.Ordinal);
        using var edited = await service.Http.PostAsJsonAsync(
            $"/api/dead-letters/{Id(value)}/replay", new { body = Encoding.UTF8.GetString(TestMessage.Place("Q-1").Body), reason = "bytes" }, Token);
        Assert.Equal(HttpStatusCode.Accepted, edited.StatusCode);
        await Eventually.HoldsAsync(async () => Assert.Equal("placed", await service.OrderStatusAsync("Q-1")));
        await Eventually.HoldsAsync(async () => Assert.Empty(await ParkedAsync(service)));
        // Every replay that succeeded was counted, and one that fails again is.
        const string Replays = "orders_replays_total";
        Assert.Equal((Many + (Many - 1) + 3 + 1 + 1, 0), (await service.CounterAsync(Replays, "outcome=\"resolved\""), await service.CounterAsync(Replays, "outcome=\"failed\"")));
        var broken = TestMessage.Place("F-1");
        await shop.PublishAsync(broken with { Body = Encoding.UTF8.GetBytes(Encoding.UTF8.GetString(broken.Body).Replace("EUR", "XXX", StringComparison.Ordinal)) });
        await Eventually.HoldsAsync(async () => Assert.Single(await ParkedAsync(service)));
        using var again = await service.Http.PostAsJsonAsync($"/api/dead-letters/{Id((await ParkedAsync(service))[0])}/replay", new { reason = "a guess" }, Token);
        Assert.Equal(HttpStatusCode.Accepted, again.StatusCode);
        await Eventually.HoldsAsync(async () => Assert.Equal(1, await service.CounterAsync(Replays, "outcome=\"failed\"")));

        // Whoever is told by webhook hears of each kind once, when the interval is over of every letter that no alert told of, and again of the one whose replay failed.
        var alerted = (Many * 2) + 5 + 1;
        await PassAsync("dead_letters", "opened_at", TimeSpan.FromHours(1));
        await Eventually.HoldsAsync(() =>
        {
            var alerts = Alerts();
            foreach (var reason in incidents.Keys.Append("currency_unknown"))
            {
                Assert.Single(alerts, alert => Kind(alert) == "first" && Told(alert).Single().GetProperty("reason").GetString() == reason);
            }
            // The one that was sent again by hand needs no telling if the first alert did not name it.
            Assert.InRange(alerts.Sum(alert => alert.GetProperty("letters").GetInt32()), alerted, alerted + 1);
            var digest = Assert.Single(alerts, alert => Kind(alert) == "digest");
            Assert.Equal(1, Told(digest).Single(incident => incident.GetProperty("reason").GetString() == "currency_unknown").GetProperty("letters").GetInt32());
            return Task.CompletedTask;
        });
        // A minute after its last letter an incident of which none is left is over, and the one that still has one is not.
        await PassAsync("incidents", "last_seen", TimeSpan.FromMinutes(1));
        await Eventually.HoldsAsync(() =>
        {
            var over = Alerts().Where(alert => Kind(alert) == "recovery").SelectMany(Told).Select(incident => incident.GetProperty("fingerprint").GetString()!);
            Assert.Equal(incidents.Keys.Select(Fingerprint).Order(), over.Order());
            return Task.CompletedTask;
        });
        await shop.PublishAsync(Of("T-again", "Shop.Contracts.OrderPlaced, Shop.Contracts"));
        await Eventually.TrueAsync(() => Alerts().Any(alert =>
            Kind(alert) == "first" && alert.GetProperty("subject").GetString()!.StartsWith("It is back: ", StringComparison.Ordinal)
            && Told(alert).Single().GetProperty("fingerprint").GetString() == Fingerprint("unknown_command")));
        Assert.DoesNotContain("Lovelace", string.Join('\n', Alerts()), StringComparison.Ordinal);
        // Bodies, edited or not, are in no line of the log.
        Assert.DoesNotContain("Lovelace", service.Output, StringComparison.Ordinal);
        Assert.Equal(0, await service.StopAsync());

        Task EndsAsync(long id, string state) => Eventually.HoldsAsync(async () =>
            Assert.Equal(state, (await service.GetAsync($"/api/replays/{id}")).GetProperty("state").GetString()));

        // As if time had passed since the service wrote it.
        Task PassAsync(string table, string column, TimeSpan time)
        {
            var statement = $"UPDATE {table} SET {column} = {column} - {time.TotalMilliseconds}";
            return administrator.ExecuteAsync(statement, statement);
        }

        List<JsonElement> Alerts() =>
        [
            .. webhook.Received.DistinctBy(request => request.Headers["webhook-id"]).Select(request => JsonDocument.Parse(request.Body).RootElement.GetProperty("data"))
                .Where(alert => Kind(alert) is "first" or "digest" or "recovery"),
        ];

        string Fingerprint(string reason) => incidents[reason][0].GetProperty("fingerprint").GetString()!;
    }

    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task Letters_close_when_their_bytes_are_published_again_with_the_right_type(StoreKind store)
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, store, postgres);
        await using var shop = await TestProducer.ConnectAsync(address);
        // With a key, without one, with one that is none; and a conflict, which no copy of the other order closes.
        await shop.PublishAsync(
            Of("A-1", "Shop.OrderPlaced"), Of("A-2", "Shop.OrderPlaced") with { Key = null }, Of("A-3", null) with { Key = "a b" },
            TestMessage.Place("A-4", "key"), Of("A-5", "Shop.OrderPlaced") with { Key = "key" }, TestMessage.Place("A-6", "key"));
        await Eventually.HoldsAsync(async () => Assert.Equal(5, (await ParkedAsync(service)).Count));

        // As they were exported they would only fail again: nothing is sent.
        var (_, lines, _) = await service.RunAsync("dlq", "export", "--reason", "unknown_command");
        await File.WriteAllTextAsync(Path.Combine(service.Folder, "letters.ndjson"), lines, Token);
        var (exit, said, error) = await service.RunAsync("publish", "letters.ndjson");
        Assert.True(exit == 1, said + error);
        Assert.Contains("0 confirmed, 3 failed", said, StringComparison.Ordinal);
        Assert.Contains("would be a dead letter again (unknown_command)", error, StringComparison.Ordinal);

        await shop.PublishAsync(
            TestMessage.Place("A-1"), TestMessage.Place("A-2") with { Key = null }, TestMessage.Place("A-3", "a-proper-key"), TestMessage.Place("A-4", "key"));

        await Eventually.HoldsAsync(async () => Assert.Equal(
            ["A-5", "A-6"], (await ParkedAsync(service)).Select(letter => letter.GetProperty("orderId").GetString()!).Order()));
        Assert.Equal("placed", await service.OrderStatusAsync("A-3"));
        Assert.Equal(0, await service.StopAsync());
    }

    private static string Kind(JsonElement alert) => alert.GetProperty("kind").GetString()!;

    private static IEnumerable<JsonElement> Told(JsonElement alert) => alert.GetProperty("incidents").EnumerateArray();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private static TestMessage Of(string orderId, string? type, Action<RabbitMQ.Client.BasicProperties>? more = null) =>
        TestMessage.Place(orderId) with { Type = type, More = more };

    private static TestMessage Renamed(string orderId) => TestMessage.Of(
        "order.place", $"key-{orderId}", Encoding.UTF8.GetString(TestMessage.Place(orderId, customerId: $"Lovelace-{orderId}").Body)
            .Replace("\"customerId\":", "\"customer\":", StringComparison.Ordinal));

    private static Task<List<JsonElement>> ParkedAsync(ReleaseService service) => service.AllAsync("/api/dead-letters?status=parked");

    private static long Id(JsonElement letter) => letter.GetProperty("id").GetInt64();

    private static async Task<JsonElement> ReadAsync(HttpResponseMessage response)
    {
        var text = await response.Content.ReadAsStringAsync(Token);
        Assert.True(response.IsSuccessStatusCode, text);
        return JsonDocument.Parse(text).RootElement.Clone();
    }
}

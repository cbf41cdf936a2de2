using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;
using OrderService.CommandLine;
using OrderService.Outbox;
using OrderService.RabbitMq;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Http;

/// <summary>What an operator does with dead letters over HTTP.</summary>
public sealed class DeadLettersOverHttpTests(SharedService shared) : IClassFixture<SharedService>
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    private readonly HttpClient http = shared.Service.Client();

    [Fact]
    public async Task A_broken_order_is_parked_with_its_exact_bytes_edited_replayed_and_resolved()
    {
        var id = NewId();
        var broken = HostedService.Order(id).Replace("EUR", "EURO", StringComparison.Ordinal);
        var letter = await ParkedAsync(id, broken);
        var number = letter.GetProperty("id").GetInt64();
        Assert.Equal("currency_unknown", letter.GetProperty("reason").GetString());
        Assert.Equal("/currency", letter.GetProperty("field").GetString());

        using var body = await http.GetAsync(new Uri($"/api/dead-letters/{number}/body", UriKind.Relative), Now);
        Assert.Equal("application/octet-stream", body.Content.Headers.ContentType?.MediaType);
        Assert.Equal("attachment", body.Content.Headers.ContentDisposition?.DispositionType);
        Assert.Equal("nosniff", body.Headers.GetValues("X-Content-Type-Options").Single());
        Assert.Equal(Encoding.UTF8.GetBytes(broken), await body.Content.ReadAsByteArrayAsync(Now));

        using var zero = await PostAsync($"/api/dead-letters/{number}/replay", new { reason = "a\0b" });
        Assert.Equal(HttpStatusCode.BadRequest, zero.StatusCode);
        using var stillBroken = await PostAsync($"/api/dead-letters/{number}/replay", new { reason = "try", body = broken });
        Assert.Equal(HttpStatusCode.UnprocessableEntity, stillBroken.StatusCode);
        using var replayed = await PostAsync($"/api/dead-letters/{number}/replay", new { reason = "the shop's currency was misspelt", body = HostedService.Order(id) });
        Assert.Equal(HttpStatusCode.Accepted, replayed.StatusCode);
        using var again = await PostAsync($"/api/dead-letters/{number}/replay", new { reason = "twice" });
        Assert.Equal(HttpStatusCode.Conflict, again.StatusCode);

        await Eventually.TrueAsync(async () => (await GetAsync($"/api/dead-letters/{number}")).GetProperty("status").GetString() == "resolved");
        using var order = await http.GetAsync(new Uri($"/api/orders/{id}", UriKind.Relative), Now);
        Assert.Equal(HttpStatusCode.OK, order.StatusCode);
        var audit = await GetAsync("/api/audit?who=anna");
        Assert.Contains(audit.GetProperty("items").EnumerateArray(), entry => entry.GetProperty("detail").GetString() == "the shop's currency was misspelt");
        var attempt = Assert.Single((await GetAsync($"/api/dead-letters/{number}")).GetProperty("attempts").EnumerateArray());
        Assert.Equal(HostedService.Order(id), attempt.GetProperty("body").GetString());
        Assert.Equal(HostedService.Order(id), await http.GetStringAsync(new Uri($"/api/dead-letters/{number}/attempts/{attempt.GetProperty("id").GetInt64()}/body", UriKind.Relative), Now));
    }

    [Fact]
    public async Task The_timeline_and_the_explanation_tell_a_broken_orders_whole_story()
    {
        var id = NewId();
        var number = (await ParkedAsync(id, HostedService.Order(id).Replace("EUR", "EURO", StringComparison.Ordinal))).GetProperty("id").GetInt64();
        var before = await GetAsync($"/api/why/{id}");
        Assert.Contains("parked dead letter", before.GetProperty("state").GetString(), StringComparison.Ordinal);
        Assert.Contains(before.GetProperty("actions").EnumerateArray(), action => action.GetString()!.StartsWith($"orderservice dlq replay {number}", StringComparison.Ordinal));

        using var replayed = await PostAsync($"/api/dead-letters/{number}/replay", new { body = HostedService.Order(id) });
        await Eventually.TrueAsync(async () => (await GetAsync($"/api/dead-letters/{number}")).GetProperty("status").GetString() == "resolved");

        var kinds = (await GetAsync($"/api/orders/{id}/timeline")).GetProperty("items").EnumerateArray().Select(entry => entry.GetProperty("kind").GetString()!).ToList();
        Assert.True(kinds.IndexOf("dead_letter") < kinds.IndexOf("replay") && kinds.IndexOf("replay") < kinds.IndexOf("event"), string.Join(' ', kinds));
        Assert.Contains("placed", (await GetAsync($"/api/why/{id}")).GetProperty("state").GetString(), StringComparison.Ordinal);
        Assert.StartsWith("dead letter", (await GetAsync($"/api/why/{number}")).GetProperty("subject").GetString(), StringComparison.Ordinal);
        using var nothing = await http.GetAsync(new Uri("/api/why/nobody-knows-this", UriKind.Relative), Now);
        Assert.Equal(HttpStatusCode.NotFound, nothing.StatusCode);
    }

    [Fact]
    public async Task A_forecast_tells_what_a_replay_would_do_and_a_canary_stops_by_itself()
    {
        var letters = new List<JsonElement>();
        var customer = "C-" + NewId();
        for (var count = 0; count < 4; count++)
        {
            var id = NewId();
            letters.Add(await ParkedAsync(id, HostedService.Order(id, customer).Replace("\"sku\":\"KB-01\"", "\"sku\":\"KB 01\"", StringComparison.Ordinal)));
        }
        var ids = letters.Select(letter => letter.GetProperty("id").GetInt64()).Order().ToList();

        using var whatIf = await PostAsync("/api/dead-letters/what-if", new { ids });
        var forecast = await HostedService.ReadAsync(whatIf);
        Assert.Equal(4, forecast.GetProperty("count").GetInt64());
        Assert.Equal(4, forecast.GetProperty("outcomes").GetProperty("still_fails").GetInt64());
        Assert.Equal(ids[^1], forecast.GetProperty("upTo").GetInt64());

        using var started = await PostAsync("/api/dead-letters/replays", new { ids, mode = "canary", ratePerSecond = 100, reason = "a try" });
        Assert.Equal(HttpStatusCode.Accepted, started.StatusCode);
        var job = started.Headers.Location!.OriginalString;
        await Eventually.TrueAsync(async () => (await GetAsync(job)).GetProperty("state").GetString() == "stopped");
        var stopped = await GetAsync(job);
        Assert.Equal(1, stopped.GetProperty("sent").GetInt64());
        Assert.Equal(1, stopped.GetProperty("failed").GetInt64());
        Assert.Equal(3, stopped.GetProperty("untouched").GetInt64());
        Assert.Equal(ids[0], stopped.GetProperty("failures")[0].GetProperty("letterId").GetInt64());

        using var cancelled = await PostAsync($"{job}/cancel", new { });
        using var again = await PostAsync($"{job}/cancel", new { });
        Assert.Equal(HttpStatusCode.OK, cancelled.StatusCode);
        Assert.Equal(HttpStatusCode.Conflict, again.StatusCode);
        Assert.Contains("is cancelled by anna since", (await HostedService.ReadAsync(again)).GetProperty("detail").GetString(), StringComparison.Ordinal);
        Assert.All(await Task.WhenAll(ids.Select(async id => (await GetAsync($"/api/dead-letters/{id}")).GetProperty("status").GetString())), status => Assert.Equal("parked", status));
    }

    [Fact]
    public async Task A_job_replays_what_was_mended_each_letter_once_through_a_pause()
    {
        // Commands whose order does not exist become letters at once here; then the orders come.
        await using var service = await shared.AnotherAsync(new() { ["Orders:DeferFor"] = "00:00:01" });
        using var client = service.Client();
        var orders = Enumerable.Range(0, 12).Select(_ => NewId()).ToList();
        foreach (var id in orders)
        {
            using var early = await client.PostAsJsonAsync($"/api/orders/{id}/ship", new { carrier = "DHL" }, Now);
            Assert.Equal(HttpStatusCode.Accepted, early.StatusCode);
        }
        async Task<JsonElement> ReadAsync(string address) => await client.GetFromJsonAsync<JsonElement>(address, Now);
        await Eventually.TrueAsync(async () => (await ReadAsync("/api/dead-letters?reason=order_unknown&status=parked")).GetProperty("total").GetInt64() == orders.Count, TimeSpan.FromSeconds(60));
        foreach (var id in orders)
        {
            using var placed = await client.PostAsync(new Uri("/api/orders", UriKind.Relative), HostedService.Json(HostedService.Order(id)), Now);
        }
        await Eventually.TrueAsync(async () => (await ReadAsync("/api/orders?limit=100")).GetProperty("items").GetArrayLength() == orders.Count);

        var body = new { filter = new { reason = "order_unknown" }, mode = "canary", ratePerSecond = 50, reason = "the orders are there now" };
        using var whatIf = await client.PostAsJsonAsync("/api/dead-letters/what-if", new { body.filter }, Now);
        Assert.Equal(12, (await HostedService.ReadAsync(whatIf)).GetProperty("outcomes").GetProperty("succeeds").GetInt64());
        using var started = await client.PostAsJsonAsync("/api/dead-letters/replays", body, Now);
        var job = started.Headers.Location!.OriginalString;
        using var paused = await client.PostAsJsonAsync($"{job}/pause", new { }, Now);
        using var resumed = await client.PostAsJsonAsync($"{job}/resume", new { }, Now);

        await Eventually.TrueAsync(async () => (await ReadAsync(job)).GetProperty("state").GetString() == "done", TimeSpan.FromSeconds(60));
        var done = await ReadAsync(job);
        Assert.Equal(12, done.GetProperty("succeeded").GetInt64());
        Assert.Equal(0, done.GetProperty("failed").GetInt64());
        foreach (var id in orders)
        {
            var order = await ReadAsync($"/api/orders/{id}");
            Assert.Equal(("shipped", 2L), (order.GetProperty("status").GetString(), order.GetProperty("version").GetInt64()));
        }
        using var nothing = await client.PostAsJsonAsync("/api/dead-letters/replays", body, Now);
        Assert.Equal(HttpStatusCode.Conflict, nothing.StatusCode);
    }

    [Theory]
    [InlineData("{}")]
    [InlineData("""{"ids":[1],"filter":{}}""")]
    [InlineData("""{"ids":[]}""")]
    [InlineData("""{"filter":{"status":"discarded"}}""")]
    [InlineData("""{"filter":{"reason":"nonsense"}}""")]
    [InlineData("""{"filter":{},"mode":"fast"}""")]
    [InlineData("""{"filter":{},"ratePerSecond":0}""")]
    [InlineData("""{"filter":{},"limit":0}""")]
    [InlineData("""{"filter":{},"unknown":1}""")]
    [InlineData("[]")]
    public async Task A_job_that_can_not_be_understood_is_400(string body)
    {
        using var response = await http.PostAsync(new Uri("/api/dead-letters/replays", UriKind.Relative), HostedService.Json(body), Now);

        Assert.Equal(HttpStatusCode.BadRequest, response.StatusCode);
    }

    [Fact]
    public async Task An_incident_is_acknowledged_muted_and_resolved()
    {
        var id = NewId();
        var fingerprint = (await ParkedAsync(id, HostedService.Order(id).Replace("\"quantity\":2", "\"quantity\":2.5", StringComparison.Ordinal))).GetProperty("fingerprint").GetString();

        using var acknowledged = await PostAsync($"/api/incidents/{fingerprint}/acknowledge", new { reason = "on it" });
        using var muted = await PostAsync($"/api/incidents/{fingerprint}/mute", new { until = TimeProvider.System.GetUtcNow().AddHours(1) });
        Assert.Equal("acknowledged", (await HostedService.ReadAsync(acknowledged)).GetProperty("state").GetString());
        Assert.Equal("anna", (await HostedService.ReadAsync(acknowledged)).GetProperty("stateBy").GetString());
        Assert.NotNull((await HostedService.ReadAsync(muted)).GetProperty("mutedUntil").GetString());
        Assert.Contains((await GetAsync("/api/incidents?state=muted")).GetProperty("items").EnumerateArray(), incident => incident.GetProperty("fingerprint").GetString() == fingerprint);
        using var resolved = await PostAsync($"/api/incidents/{fingerprint}/resolve", new { });
        Assert.Equal("resolved", (await HostedService.ReadAsync(resolved)).GetProperty("state").GetString());
        using var nobody = await PostAsync("/api/incidents/nothing/resolve", new { });
        Assert.Equal(HttpStatusCode.NotFound, nobody.StatusCode);
    }

    [Fact]
    public async Task A_channel_is_tried_and_its_answer_shown()
    {
        var channels = await GetAsync("/api/alerts/channels");
        Assert.Equal(["log", "email", "webhook", "slack", "teams"], channels.GetProperty("items").EnumerateArray().Select(channel => channel.GetProperty("name").GetString()!));

        using var log = await PostAsync("/api/alerts/test", new { channel = "log" });
        using var email = await PostAsync("/api/alerts/test", new { channel = "email" });
        using var pigeon = await PostAsync("/api/alerts/test", new { channel = "pigeon" });

        Assert.True((await HostedService.ReadAsync(log)).GetProperty("ok").GetBoolean());
        Assert.Equal(HttpStatusCode.Conflict, email.StatusCode);
        Assert.Equal(HttpStatusCode.NotFound, pigeon.StatusCode);
    }

    [Fact]
    public async Task A_letter_is_discarded_with_a_reason_and_restored()
    {
        var id = NewId();
        var number = (await ParkedAsync(id, HostedService.Order(id).Replace("\"quantity\":2", "\"quantity\":0", StringComparison.Ordinal))).GetProperty("id").GetInt64();

        using var without = await PostAsync($"/api/dead-letters/{number}/discard", new { });
        using var discarded = await PostAsync($"/api/dead-letters/{number}/discard", new { reason = "a test order" });
        using var again = await PostAsync($"/api/dead-letters/{number}/discard", new { reason = "a test order" });
        using var replay = await PostAsync($"/api/dead-letters/{number}/replay", new { });
        using var restored = await PostAsync($"/api/dead-letters/{number}/restore", new { reason = "it was none" });

        Assert.Equal(HttpStatusCode.BadRequest, without.StatusCode);
        Assert.Equal(HttpStatusCode.Accepted, discarded.StatusCode);
        Assert.Equal(HttpStatusCode.Conflict, again.StatusCode);
        Assert.Contains("anna", (await HostedService.ReadAsync(again)).GetProperty("detail").GetString(), StringComparison.Ordinal);
        Assert.Equal(HttpStatusCode.Conflict, replay.StatusCode);
        Assert.Equal(HttpStatusCode.Accepted, restored.StatusCode);
        Assert.Equal("parked", (await HostedService.ReadAsync(restored)).GetProperty("status").GetString());
    }

    [Fact]
    public async Task Many_letters_are_counted_and_then_discarded_in_one_call()
    {
        var broken = new List<long>();
        for (var count = 0; count < 3; count++)
        {
            var id = NewId();
            broken.Add((await ParkedAsync(id, HostedService.Order(id).Replace("\"customerId\":\"C-7\"", "\"customerId\":\"C 7\"", StringComparison.Ordinal))).GetProperty("id").GetInt64());
        }
        var fingerprint = (await GetAsync($"/api/dead-letters/{broken[0]}")).GetProperty("fingerprint").GetString();

        using var counted = await PostAsync("/api/dead-letters/discards", new { filter = new { fingerprint }, dryRun = true });
        var dry = await HostedService.ReadAsync(counted);
        Assert.Equal((3L, broken.Max(), 0L), (dry.GetProperty("count").GetInt64(), dry.GetProperty("upTo").GetInt64(), dry.GetProperty("discarded").GetInt64()));
        using var without = await PostAsync("/api/dead-letters/discards", new { filter = new { fingerprint } });
        Assert.Equal(HttpStatusCode.BadRequest, without.StatusCode);
        using var reporting = shared.Service.Client(HostedService.ReadKey);
        using var forbidden = await reporting.PostAsJsonAsync("/api/dead-letters/discards", new { filter = new { fingerprint }, dryRun = true }, Now);
        Assert.Equal(HttpStatusCode.Forbidden, forbidden.StatusCode);

        using var done = await PostAsync("/api/dead-letters/discards", new { filter = new { fingerprint }, upTo = dry.GetProperty("upTo").GetInt64(), reason = "a test shop" });
        Assert.Equal(3, (await HostedService.ReadAsync(done)).GetProperty("discarded").GetInt64());
        using var again = await PostAsync("/api/dead-letters/discards", new { ids = broken, reason = "a test shop" });
        Assert.Equal(0, (await HostedService.ReadAsync(again)).GetProperty("discarded").GetInt64());

        var incident = await GetAsync($"/api/incidents/{fingerprint}");
        Assert.Equal((3L, 0L), (incident.GetProperty("letters").GetInt64(), incident.GetProperty("parked").GetInt64()));
        Assert.Equal(24, incident.GetProperty("hourly").GetArrayLength());
        Assert.Equal(3, incident.GetProperty("hourly")[23].GetInt64());
        Assert.Contains((await GetAsync("/api/audit?action=dead-letter.discard")).GetProperty("items").EnumerateArray(), entry => entry.GetProperty("detail").GetString() == "3 letters: a test shop" && entry.GetProperty("who").GetString() == "key:anna");
    }

    [Fact]
    public async Task Who_downloads_a_body_or_exports_letters_is_in_the_audit_log_and_what_they_searched_for_is_not()
    {
        var id = NewId();
        var number = (await ParkedAsync(id, HostedService.Order(id).Replace("EUR", "EURO", StringComparison.Ordinal))).GetProperty("id").GetInt64();
        using var reporting = shared.Service.Client(HostedService.ReadKey);

        Assert.NotEmpty(await reporting.GetByteArrayAsync(new Uri($"/api/dead-letters/{number}/body", UriKind.Relative), Now));
        Assert.NotEmpty(await reporting.GetByteArrayAsync(new Uri($"/api/export/dead-letters?format=csv&status=parked&q={id}", UriKind.Relative), Now));

        var read = Assert.Single(
            (await GetAsync("/api/audit?action=dead-letter.body&who=reporting")).GetProperty("items").EnumerateArray(), entry => entry.GetProperty("subject").GetString() == $"dead letter {number}");
        Assert.Equal(("key:reporting", "127.0.0.1"), (read.GetProperty("who").GetString(), read.GetProperty("address").GetString()));
        Assert.StartsWith("key ", read.GetProperty("right").GetString(), StringComparison.Ordinal);
        var exports = await GetAsync("/api/audit?action=dead-letters.export&who=reporting");
        Assert.Contains(exports.GetProperty("items").EnumerateArray(), entry => entry.GetProperty("detail").GetString() == "csv, filtered by status, q");
        Assert.DoesNotContain(id, exports.GetRawText(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("999999999")]
    [InlineData("-1")]
    [InlineData("abc")]
    [InlineData("99999999999999999999")]
    public async Task A_letter_that_is_not_there_is_404(string number)
    {
        using var show = await http.GetAsync(new Uri($"/api/dead-letters/{number}", UriKind.Relative), Now);
        using var body = await http.GetAsync(new Uri($"/api/dead-letters/{number}/body", UriKind.Relative), Now);
        using var replay = await PostAsync($"/api/dead-letters/{number}/replay", new { });
        using var attempt = await http.GetAsync(new Uri($"/api/dead-letters/{number}/attempts/1/body", UriKind.Relative), Now);

        Assert.All([show, body, replay, attempt], response => Assert.Equal(HttpStatusCode.NotFound, response.StatusCode));
    }

    [Fact]
    public async Task Letters_of_one_cause_are_one_incident_and_the_overview_counts_them()
    {
        var (one, two) = (NewId(), NewId());
        var first = await ParkedAsync(one, HostedService.Order(one).Replace("\"customerId\":\"C-7\",", "", StringComparison.Ordinal));
        var second = await ParkedAsync(two, HostedService.Order(two).Replace("\"customerId\":\"C-7\",", "", StringComparison.Ordinal));

        var fingerprint = first.GetProperty("fingerprint").GetString();
        Assert.Equal(fingerprint, second.GetProperty("fingerprint").GetString());
        var incident = await GetAsync($"/api/incidents/{fingerprint}");
        Assert.Equal(2, incident.GetProperty("parked").GetInt64());
        var groups = await GetAsync("/api/dead-letters/groups");
        Assert.Contains(groups.GetProperty("items").EnumerateArray(), group => group.GetProperty("fingerprint").GetString() == fingerprint);
        var list = await GetAsync($"/api/dead-letters?fingerprint={fingerprint}&status=parked&limit=1");
        Assert.Equal(2, list.GetProperty("total").GetInt64());
        Assert.NotNull(list.GetProperty("next").GetString());
        await Eventually.TrueAsync(async () => (await GetAsync("/api/stats?samples=5")).GetProperty("deadLetters").GetProperty("parked").GetInt64() >= 2);
        await Eventually.TrueAsync(async () => (await GetAsync("/api/alerts")).GetProperty("items").GetArrayLength() > 0);
    }

    [Fact]
    public async Task An_export_for_spreadsheets_never_starts_a_formula()
    {
        var id = NewId();
        await ParkedAsync(id, HostedService.Order(id).Replace("49.90", "-49.90", StringComparison.Ordinal));

        var csv = await http.GetStringAsync(new Uri("/api/export/dead-letters?format=csv", UriKind.Relative), Now);
        var lines = (await http.GetStringAsync(new Uri("/api/export/dead-letters?format=ndjson", UriKind.Relative), Now)).Split('\n', StringSplitOptions.RemoveEmptyEntries);

        Assert.Contains(id, csv, StringComparison.Ordinal);
        Assert.DoesNotContain(csv.Split("\r\n").SelectMany(line => line.Split(',')), cell => cell.Length > 0 && cell[0] is '=' or '+' or '-' or '@');
        Assert.All(lines, line => JsonDocument.Parse(line).Dispose());
    }

    private async Task<JsonElement> ParkedAsync(string orderId, string body)
    {
        var outcome = await shared.Service.Services.GetRequiredService<ConfirmedPublisher>().PublishAsync(MessageFile.Message("order.place", Encoding.UTF8.GetBytes(body)), Now);
        Assert.IsType<PublishOutcome.Confirmed>(outcome);
        JsonElement letter = default;
        await Eventually.TrueAsync(async () =>
        {
            var found = (await GetAsync($"/api/dead-letters?q={orderId}")).GetProperty("items");
            if (found.GetArrayLength() == 0)
            {
                return false;
            }
            letter = found[0];
            return true;
        });
        return letter;
    }

    private async Task<JsonElement> GetAsync(string address)
    {
        using var response = await http.GetAsync(new Uri(address, UriKind.Relative), Now);
        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        return await HostedService.ReadAsync(response);
    }

    private Task<HttpResponseMessage> PostAsync(string address, object body) => http.PostAsJsonAsync(address, body, Now);

    private static string NewId() => $"D-{Guid.NewGuid():N}"[..20];
}

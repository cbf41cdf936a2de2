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

        Assert.All([show, body, replay], response => Assert.Equal(HttpStatusCode.NotFound, response.StatusCode));
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

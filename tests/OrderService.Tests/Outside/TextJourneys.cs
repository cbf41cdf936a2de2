using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>Byte order marks, UTF-16 and line breaks at every edge where the service reads text: understood, or refused in one sentence before anything is sent.</summary>
public sealed class TextJourneys(RabbitMqContainerFixture broker)
{
    private static readonly byte[] Mark = [0xEF, 0xBB, 0xBF];

    [Fact]
    public async Task Text_is_understood_or_refused_at_every_edge_and_a_byte_order_mark_makes_no_second_message()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();

        // The queue and HTTP: a copy with a mark and one without are one message.
        var order = Order("A-1");
        byte[] marked = [.. Mark, .. order];
        await shop.PublishAsync(new TestMessage(null, null, marked), new TestMessage(null, null, order));
        var keys = new[] { await KeyAsync(service, marked), await KeyAsync(service, order) };
        Assert.StartsWith("sha256:", keys[0], StringComparison.Ordinal);
        Assert.Equal(keys[0], keys[1]);
        using var utf16 = await service.Http.PostAsync(new Uri("/api/orders", UriKind.Relative), Json(Encoding.Unicode.GetBytes(Encoding.UTF8.GetString(order))), TestContext.Current.CancellationToken);
        Assert.Equal(HttpStatusCode.BadRequest, utf16.StatusCode);
        Assert.Contains("UTF-16", await utf16.Content.ReadAsStringAsync(TestContext.Current.CancellationToken), StringComparison.Ordinal);

        // A file of messages.
        await File.WriteAllBytesAsync(Path.Combine(service.Folder, "windows.ndjson"),
            [.. Encoding.Unicode.GetPreamble(), .. Encoding.Unicode.GetBytes(string.Join("\r\n", Envelope("A-2"), Envelope("A-3"), ""))], TestContext.Current.CancellationToken);
        var published = await service.RunAsync("publish", "windows.ndjson");
        Assert.True(published.ExitCode == 0 && published.Output.Contains("2 confirmed", StringComparison.Ordinal), published.ToString());
        await File.WriteAllBytesAsync(Path.Combine(service.Folder, "bare.ndjson"), Encoding.Unicode.GetBytes(Envelope("A-4") + "\n"), TestContext.Current.CancellationToken);
        var refused = await service.RunAsync("publish", "bare.ndjson");
        Assert.Equal(1, refused.ExitCode);
        Assert.Contains("bare.ndjson can't be read: it is not UTF-8 text", refused.Error, StringComparison.Ordinal);

        // A letter, mended by a file and by HTTP.
        await shop.PublishAsync(TestMessage.Of("order.place", "broken-1", "{"), TestMessage.Of("order.place", "broken-2", "{"));
        List<JsonElement> letters = [];
        await Eventually.TrueAsync(async () => (letters = await service.AllAsync("/api/dead-letters")).Count == 2);
        var ids = letters.Select(letter => letter.GetProperty("id").ToString()).ToList();
        await File.WriteAllBytesAsync(Path.Combine(service.Folder, "utf16.json"), Encoding.Unicode.GetBytes(Encoding.UTF8.GetString(Order("A-5"))), TestContext.Current.CancellationToken);
        var told = await service.RunAsync("dlq", "replay", ids[0], "--edited-body", "utf16.json", "--what-if");
        Assert.Equal(0, told.ExitCode);
        Assert.Contains("UTF-16", told.Output, StringComparison.Ordinal);
        var edit = await service.RunAsync("dlq", "replay", ids[0], "--edited-body", "utf16.json");
        Assert.Equal(1, edit.ExitCode);
        Assert.Contains("UTF-16", edit.Output + edit.Error, StringComparison.Ordinal);
        await File.WriteAllBytesAsync(Path.Combine(service.Folder, "marked.json"), [.. Mark, .. Order("A-5"), (byte)'\r', (byte)'\n'], TestContext.Current.CancellationToken);
        told = await service.RunAsync("dlq", "replay", ids[0], "--edited-body", "marked.json", "--what-if");
        Assert.True(told.ExitCode == 0 && told.Output.Contains("1  succeeds", StringComparison.Ordinal), told.ToString());
        Assert.Equal(2, (await service.AllAsync("/api/dead-letters?status=parked")).Count);
        edit = await service.RunAsync("dlq", "replay", ids[0], "--edited-body", "marked.json");
        Assert.True(edit.ExitCode == 0, edit.ToString());
        byte[] request = [.. Mark, .. JsonSerializer.SerializeToUtf8Bytes(new { body = "\uFEFF" + Encoding.UTF8.GetString(Order("A-6")) + "\r\n" })];
        using var replay = await service.Http.PostAsync(new Uri($"/api/dead-letters/{ids[1]}/replay", UriKind.Relative), Json(request), TestContext.Current.CancellationToken);
        Assert.True(replay.StatusCode == HttpStatusCode.Accepted, await replay.Content.ReadAsStringAsync(TestContext.Current.CancellationToken));
        using var job = await service.Http.PostAsync(new Uri("/api/dead-letters/replays", UriKind.Relative), Json([.. Mark, .. "{\"filter\":{\"reason\":\"no_such\"}}"u8], "application/json; charset=nobody-knows"), TestContext.Current.CancellationToken);
        Assert.Equal(HttpStatusCode.UnsupportedMediaType, job.StatusCode);

        // Everything once, and nothing else.
        await Eventually.TrueAsync(async () => await service.OrderStatusAsync("A-5") == "placed" && await service.OrderStatusAsync("A-6") == "placed");
        await Eventually.HoldsAsync(() =>
        {
            Assert.Equal(["A-1", "A-2", "A-3", "A-5", "A-6"], shop.Heard.Select(heard => JsonDocument.Parse(heard.Body).RootElement.GetProperty("subject").GetString()).Order(StringComparer.Ordinal));
            return Task.CompletedTask;
        });
        await Eventually.HoldsAsync(async () => Assert.Empty(await service.AllAsync("/api/dead-letters?status=parked")));
        Assert.Null(await service.OrderStatusAsync("A-4"));
    }

    private static byte[] Order(string id) => TestMessage.Place(id).Body;

    private static string Envelope(string id) => $$"""{"type":"order.place","messageId":"file-{{id}}","body":{{Encoding.UTF8.GetString(Order(id))}}}""";

    private static ByteArrayContent Json(byte[] body, string contentType = "application/json")
    {
        var content = new ByteArrayContent(body);
        content.Headers.ContentType = MediaTypeHeaderValue.Parse(contentType);
        return content;
    }

    private static async Task<string?> KeyAsync(ReleaseService service, byte[] body)
    {
        using var response = await service.Http.PostAsync(new Uri("/api/orders", UriKind.Relative), Json(body), TestContext.Current.CancellationToken);
        Assert.Equal(HttpStatusCode.Accepted, response.StatusCode);
        return (await response.Content.ReadFromJsonAsync<JsonElement>(TestContext.Current.CancellationToken)).GetProperty("idempotencyKey").GetString();
    }
}

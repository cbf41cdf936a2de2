using System.Net;
using System.Net.Http.Json;
using System.Text;
using OrderService.Notifications;
using OrderService.Tests.Infrastructure;
using OrderService.Tests.Notifications;
using RabbitMQ.Client;

namespace OrderService.Tests.DeadLetters;

/// <summary>Dead letters with the real service and a real broker.</summary>
public sealed class DeadLetterJourneys(RabbitMqContainerFixture broker)
{
    private static TestMessage Broken(int number) => new(null, $"key-{number}", Encoding.UTF8.GetBytes($$"""{"orderId":"A-{{number}}","customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":1.001}]}"""));

    /// <summary>Letters wait at each start, and each start but the last is killed at the next point.</summary>
    [Fact]
    public async Task A_kill_while_letters_are_taken_in_loses_none_and_tells_of_each_once()
    {
        const int Letters = 60;
        string[] points = ["letters-before-begin", "letters-after-commit", "letters-after-ack"];
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);
        await service.KillAsync();

        for (var kill = 0; kill < points.Length; kill++)
        {
            await shop.PublishAsync(Enumerable.Range(kill * Letters, Letters).Select(Broken));
            await service.StartAgainAsync($"{points[kill]}=kill", waitUntilReady: false);
            await service.WaitForExitAsync();
        }
        await service.StartAgainAsync("");

        await Eventually.HoldsAsync(async () =>
        {
            Assert.Equal(points.Length * Letters, await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE status = 'parked'"));
            Assert.Equal((0u, 0u), (await shop.DepthAsync("orders"), await shop.DepthAsync("orders.dlq")));
        });
        Assert.Equal(1, await service.ScalarAsync<long>("SELECT count(*) FROM alerts WHERE kind = 'first'"));
        Assert.Equal(points.Length * Letters, await service.ScalarAsync<long>("SELECT letters FROM incidents"));
        Assert.Equal(0, await service.ScalarAsync<long>("SELECT count(*) FROM rejections WHERE parked = 0 OR body IS NOT NULL"));
    }

    [Fact]
    public async Task A_letter_that_is_edited_and_replayed_becomes_an_order()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        await shop.PublishAsync(Broken(1));
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE status = 'parked'") == 1);

        using var answer = await service.Http.PostAsJsonAsync("/api/dead-letters/1/replay", new { body = Encoding.UTF8.GetString(Broken(1).Body).Replace("1.001", "1.00", StringComparison.Ordinal), reason = "a typing error" }, TestContext.Current.CancellationToken);

        Assert.Equal(HttpStatusCode.Accepted, answer.StatusCode);
        await Eventually.TrueAsync(() => shop.Heard.Count == 1);
        Assert.Equal(("ORDER_PLACED", "key-1"), (shop.Heard[0].Type, shop.Heard[0].Cause));
        await Eventually.HoldsAsync(async () => Assert.Equal(["resolved"], await service.ColumnAsync<string>("SELECT status FROM dead_letters")));
        Assert.Equal(Broken(1).Body, Assert.Single(await service.BodiesAsync("SELECT body FROM dead_letters")));
        Assert.Equal("resolved", await service.ScalarAsync<string>("SELECT outcome FROM replays"));
        // A late copy of the broken original changes nothing any more.
        await shop.PublishAsync(Broken(1));
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT copies FROM dead_letters") == 2);
        Assert.Equal("resolved", await service.ScalarAsync<string>("SELECT status FROM dead_letters"));
    }

    [Fact]
    public async Task A_replay_of_what_is_still_broken_comes_back_and_one_whose_cause_is_mended_does_not()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address, new() { ["Orders__DeferFor"] = "00:00:01" });
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.PublishAsync(Broken(1), TestMessage.Ship("B-1"));
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE status = 'parked'") == 2);
        await shop.PublishAsync(TestMessage.Place("B-1"));
        await Eventually.TrueAsync(async () => (await service.StreamAsync("B-1")).Count == 1);

        foreach (var id in await service.ColumnAsync<long>("SELECT id FROM dead_letters"))
        {
            using var answer = await service.Http.PostAsJsonAsync($"/api/dead-letters/{id}/replay", new { }, TestContext.Current.CancellationToken);
            Assert.Equal(HttpStatusCode.Accepted, answer.StatusCode);
        }

        await Eventually.HoldsAsync(async () =>
        {
            Assert.Equal(["ORDER_PLACED", "ORDER_SHIPPED"], (await service.StreamAsync("B-1")).Select(recorded => recorded.Type));
            Assert.Equal(["failed", "resolved"], await service.ColumnAsync<string>("SELECT outcome FROM replays ORDER BY outcome"));
            Assert.Equal(["amount_precision parked 1", "order_unknown resolved 1"], await service.ColumnAsync<string>("SELECT reason || ' ' || status || ' ' || replays FROM dead_letters ORDER BY reason"));
        });
    }

    [Fact]
    public async Task A_message_that_nobody_can_read_is_told_of_and_seen_in_health_and_stops_nothing()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address, new() { ["RabbitMq__QueuePollInterval"] = "00:00:00.200", ["Alerts__TroublePause"] = "00:00:01" });
        await using var connection = await new ConnectionFactory { Uri = new Uri(address) }.CreateConnectionAsync(TestContext.Current.CancellationToken);
        await using var channel = await connection.CreateChannelAsync(new CreateChannelOptions(true, true), TestContext.Current.CancellationToken);
        await channel.BasicPublishAsync("", "orders.unreadable", mandatory: true, new BasicProperties { Persistent = true }, "{}"u8.ToArray(), TestContext.Current.CancellationToken);

        await Eventually.HoldsAsync(async () => Assert.Equal(
            ["service 1 log sent"], await service.ColumnAsync<string>("SELECT a.kind || ' ' || a.letters || ' ' || d.channel || ' ' || d.status FROM alerts a JOIN alert_deliveries d ON d.alert_id = a.id")));
        using var health = await service.Http.GetAsync(new Uri("/health/ready", UriKind.Relative), TestContext.Current.CancellationToken);
        Assert.Equal(HttpStatusCode.OK, health.StatusCode);
        using var report = System.Text.Json.JsonDocument.Parse(await health.Content.ReadAsStringAsync(TestContext.Current.CancellationToken));
        Assert.True(report.RootElement.GetProperty("checks").GetProperty("unreadable").GetProperty("degraded").GetBoolean());
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.PublishAsync(TestMessage.Place("A-1"));
        await Eventually.TrueAsync(async () => (await service.StreamAsync("A-1")).Count == 1);

        Assert.NotNull(await channel.BasicGetAsync("orders.unreadable", autoAck: true, TestContext.Current.CancellationToken));
        await Eventually.HoldsAsync(async () => Assert.Equal([1L, 0L], await service.ColumnAsync<long>("SELECT letters FROM alerts ORDER BY id")));
    }

    [Fact]
    public async Task An_admin_gets_a_mail_and_a_signed_webhook_and_each_waits_for_its_own_receiver_only()
    {
        await using var mail = new FakeSmtpServer();
        await using var webhook = await FakeWebhook.StartAsync();
        webhook.AnswerWith(500);
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address, new()
        {
            ["Alerts__Email__Enabled"] = "true",
            ["Alerts__Email__Host"] = "127.0.0.1",
            ["Alerts__Email__Port"] = $"{mail.Port}",
            ["Alerts__Email__Security"] = "None",
            ["Alerts__Email__From"] = "orders@example.org",
            ["Alerts__Email__To__0"] = "admin@example.org",
            ["Alerts__Webhook__Enabled"] = "true",
            ["Alerts__Webhook__Url"] = webhook.Url.ToString(),
            ["Alerts__Webhook__Secret"] = NotificationWorld.Secret,
            ["Alerts__Webhook__AllowedHosts__0"] = "127.0.0.1",
            ["Alerts__RetryDelay"] = "00:00:00.100",
        });
        await using var shop = await TestProducer.ConnectAsync(address);

        await shop.PublishAsync(Broken(1));

        await Eventually.TrueAsync(() => mail.Mails.Count == 1 && webhook.Received.Count >= 2);
        webhook.AnswerWith(200);
        await Eventually.HoldsAsync(async () => Assert.Equal(["email sent", "log sent", "webhook sent"], await service.ColumnAsync<string>("SELECT channel || ' ' || status FROM alert_deliveries ORDER BY channel")));
        Assert.Single(mail.Mails);
        Assert.Single(webhook.Received.Select(received => received.Headers["webhook-id"]).Distinct());
        var last = webhook.Received.Last();
        Assert.Equal(
            WebhookSignature.Sign(last.Headers["webhook-id"], DateTimeOffset.FromUnixTimeSeconds(long.Parse(last.Headers["webhook-timestamp"], System.Globalization.CultureInfo.InvariantCulture)), last.Body, NotificationWorld.Secret),
            last.Headers["webhook-signature"]);
        Assert.Contains("\"AlertKind\":\"first\"", service.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("C-7", service.Output + Encoding.UTF8.GetString(last.Body) + mail.Mails.Single(), StringComparison.Ordinal);
    }
}

using System.Globalization;
using System.Net;
using System.Net.Http.Json;
using System.Text;
using OrderService.Tests.Infrastructure;
using RabbitMQ.Client;

namespace OrderService.Tests.Outside;

/// <summary>A counter that nothing counts stays at zero, and whoever has an alert on it never hears of anything: each that the service offers moves.</summary>
public sealed class CounterJourneys(RabbitMqContainerFixture broker)
{
    /// <summary>Counters that other journeys see moving, because what they count takes hours or a reader that stands still.</summary>
    private static readonly Dictionary<string, Type> Elsewhere = new()
    {
        ["orders_retention_removed_total"] = typeof(RetentionJourneys),
        ["orders_log_dropped_total"] = typeof(LogJourneys),
    };

    [Fact]
    public async Task Every_counter_moves()
    {
        await using var hook = await FakeWebhook.StartAsync();
        hook.AnswerWith(500);
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, settings: new()
        {
            ["Alerts__Webhook__Enabled"] = "true",
            ["Alerts__Webhook__Url"] = hook.Url.ToString(),
            ["Alerts__Webhook__Secret"] = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            ["Alerts__Webhook__AllowedHosts__0"] = "127.0.0.1",
            ["Alerts__RetryDelay"] = "00:00:00.200",
            ["Alerts__PollInterval"] = "00:00:00.200",
        });
        await using var shop = await TestProducer.ConnectAsync(address);
        await using var connection = await new ConnectionFactory { Uri = new Uri(address) }.CreateConnectionAsync(TestContext.Current.CancellationToken);
        await using var channel = await connection.CreateChannelAsync(cancellationToken: TestContext.Current.CancellationToken);
        await channel.QueueDeclareAsync(
            "full", durable: true, exclusive: false, autoDelete: false,
            new Dictionary<string, object?> { ["x-max-length"] = 1, ["x-overflow"] = "reject-publish" },
            cancellationToken: TestContext.Current.CancellationToken);
        await channel.QueueBindAsync("full", "order-events", "order.cancelled", cancellationToken: TestContext.Current.CancellationToken);

        var place = TestMessage.Place("A-1");
        await shop.PublishAsync(place, place, TestMessage.Place("A-2"), Cancel("A-1"), Cancel("A-2"),
            TestMessage.Ship("A-1"), TestMessage.Ship("too-early"), Broken("A-3"), Broken("A-4"));
        var letters = await WaitingAsync(service, 2);
        // One is sent again as it is, the other mended.
        await ReplayAsync(service, letters["A-3"], new { reason = "a guess" });
        await ReplayAsync(service, letters["A-4"], new { body = Encoding.UTF8.GetString(TestMessage.Place("A-4").Body), reason = "mended" });
        await Eventually.TrueAsync(() => hook.Received.Count > 1);
        hook.AnswerWith(204);

        await Eventually.HoldsAsync(async () =>
        {
            var counters = await ReadAsync(service);
            Assert.Contains("orders_received_total", counters.Keys);
            Assert.All(Elsewhere.Keys, name => Assert.Contains(name, counters.Keys));
            Assert.Empty(counters.Where(counter => counter.Value == 0 && !Elsewhere.ContainsKey(counter.Key)).Select(counter => counter.Key));
            foreach (var outcome in (string[])["accepted", "refused", "deferred"])
            {
                Assert.True(await service.CounterAsync("orders_processed_total", $"outcome=\"{outcome}\"") > 0, outcome);
            }
            Assert.Equal(
                (1, 1),
                (await service.CounterAsync("orders_replays_total", "outcome=\"resolved\""),
                    await service.CounterAsync("orders_replays_total", "outcome=\"failed\"")));
            Assert.True(await service.CounterAsync("orders_alerts_sent_total", "channel=\"webhook\",outcome=\"retried\"") > 0);
            Assert.True(await service.CounterAsync("orders_alerts_sent_total", "channel=\"webhook\",outcome=\"sent\"") > 0);
        });
    }

    /// <summary>The service's own counters, each with the sum of its series.</summary>
    private static async Task<Dictionary<string, double>> ReadAsync(ReleaseService service)
    {
        var lines = (await service.Http.GetStringAsync(new Uri("/metrics", UriKind.Relative), TestContext.Current.CancellationToken)).Split('\n');
        return lines
            .Where(line => line.StartsWith("# TYPE ", StringComparison.Ordinal) && line.EndsWith(" counter", StringComparison.Ordinal))
            .Select(line => line.Split(' ')[2])
            .Where(name => name.StartsWith("orders_", StringComparison.Ordinal) || name.StartsWith("messaging_", StringComparison.Ordinal))
            .ToDictionary(name => name, name => lines
                .Where(line => line.StartsWith($"{name}{{", StringComparison.Ordinal) || line.StartsWith($"{name} ", StringComparison.Ordinal))
                .Sum(line => double.Parse(line[(line.LastIndexOf(' ') + 1)..], CultureInfo.InvariantCulture)));
    }

    private static TestMessage Cancel(string orderId) =>
        TestMessage.Of("order.cancel", $"cancel-{orderId}", $$"""{"orderId":"{{orderId}}","reason":"changed my mind"}""");

    private static TestMessage Broken(string orderId)
    {
        var place = TestMessage.Place(orderId);
        return place with { Body = Encoding.UTF8.GetBytes(Encoding.UTF8.GetString(place.Body).Replace("EUR", "XXX", StringComparison.Ordinal)) };
    }

    /// <returns>The numbers of the letters that wait, by order.</returns>
    private static async Task<Dictionary<string, long>> WaitingAsync(ReleaseService service, int count)
    {
        Dictionary<string, long> letters = [];
        await Eventually.HoldsAsync(async () =>
        {
            letters = (await service.AllAsync("/api/dead-letters?status=parked"))
                .ToDictionary(letter => letter.GetProperty("orderId").GetString()!, letter => letter.GetProperty("id").GetInt64());
            Assert.Equal(count, letters.Count);
        });
        return letters;
    }

    private static async Task ReplayAsync(ReleaseService service, long letter, object how)
    {
        using var answer = await service.Http.PostAsJsonAsync(
            new Uri($"/api/dead-letters/{letter}/replay", UriKind.Relative), how, TestContext.Current.CancellationToken);
        Assert.Equal(HttpStatusCode.Accepted, answer.StatusCode);
    }
}

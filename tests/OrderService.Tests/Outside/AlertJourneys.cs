using System.Globalization;
using System.Net;
using System.Text;
using Microsoft.AspNetCore.Http;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>Temporary trouble of those who are told is not taken for permanent, and their silence not for success.</summary>
public sealed class AlertJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(45);

    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task Whoever_refuses_for_a_while_gets_everything_in_the_end_once_and_a_channel_that_fails_is_told_by_the_others(StoreKind store)
    {
        await using var mail = new FakeSmtpServer();
        await using var slack = await FakeWebhook.StartAsync();
        await using var hook = await FakeWebhook.StartAsync();
        var address = await broker.AddVirtualHostAsync();
        // The sender is refused, the server is in a bad mood, the chat says no in a 200, and the webhook wants nothing any more.
        mail.Script = line => line.StartsWith("MAIL", StringComparison.Ordinal) ? "550 sender refused" : null;
        slack.Answer = context => context.Response.WriteAsync("invalid_blocks");
        hook.AnswerWith(410);
        await using var service = await ReleaseService.StartAsync(address, store, postgres, new()
        {
            ["Alerts__Email__Enabled"] = "true",
            ["Alerts__Email__Host"] = "127.0.0.1",
            ["Alerts__Email__Port"] = mail.Port.ToString(CultureInfo.InvariantCulture),
            ["Alerts__Email__Security"] = "None",
            ["Alerts__Email__From"] = "orders@shop.example",
            ["Alerts__Email__To__0"] = "slow@shop.example",
            ["Alerts__Email__To__1"] = "admin@shop.example",
            ["Alerts__Slack__Enabled"] = "true",
            ["Alerts__Slack__Url"] = slack.Url.ToString(),
            ["Alerts__Slack__AllowedHosts__0"] = "127.0.0.1",
            ["Alerts__Webhook__Enabled"] = "true",
            ["Alerts__Webhook__Url"] = hook.Url.ToString(),
            ["Alerts__Webhook__Secret"] = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            ["Alerts__Webhook__AllowedHosts__0"] = "127.0.0.1",
            ["Alerts__RetryDelay"] = "00:00:00.200",
            ["Alerts__MaxRetryDelay"] = "00:00:02",
            ["Alerts__PollInterval"] = "00:00:00.200",
            ["Alerts__TroublePause"] = "00:00:01",
            ["OrderConfirmation__Enabled"] = "true",
            ["OrderConfirmation__RetryDelay"] = "00:00:00.200",
            ["OrderConfirmation__MaxRetryDelay"] = "00:00:01",
        });
        await using var shop = await TestProducer.ConnectAsync(address);
        // Confirmations begin with the orders that come after their first look at the log.
        await Eventually.HoldsAsync(async () =>
        {
            await shop.PublishAsync(Place($"A-{Guid.NewGuid():N}", "first@customer.example"));
            Assert.Contains(mail.Commands, line => line.StartsWith("MAIL", StringComparison.Ordinal));
        }, Deadline);
        await shop.PublishAsync(TestMessage.Of("order.place", "broken", "{"), Place("A-1", "full@customer.example"), Place("A-2", "ada@customer.example"));

        await Eventually.HoldsAsync(async () =>
        {
            var waiting = (await service.AllAsync("/api/alerts")).SelectMany(alert => alert.GetProperty("deliveries").EnumerateArray())
                .Where(delivery => delivery.GetProperty("channel").GetString() is not "log" && delivery.GetProperty("attempts").GetInt32() > 0).ToList();
            Assert.Equal(3, waiting.Select(delivery => delivery.GetProperty("channel").GetString()).Distinct().Count());
            Assert.All(waiting, delivery => Assert.Equal("pending", delivery.GetProperty("status").GetString()));
            var channels = (await service.AllAsync("/api/alerts/channels")).ToDictionary(channel => channel.GetProperty("name").GetString()!);
            Assert.Equal("failing", channels["email"].GetProperty("state").GetString());
            Assert.Equal("failing", channels["slack"].GetProperty("state").GetString());
            Assert.Contains("invalid_blocks", channels["slack"].GetProperty("reason").GetString(), StringComparison.Ordinal);
            Assert.Equal("off", channels["webhook"].GetProperty("state").GetString());
            Assert.True(slack.Received.Count > 2);
            var (status, body) = await service.HealthAsync();
            Assert.Equal(HttpStatusCode.OK, status);
            Assert.Contains("alerts:email", body, StringComparison.Ordinal);
            Assert.Contains("alerts:slack", body, StringComparison.Ordinal);
            Assert.Contains("alerts:webhook", body, StringComparison.Ordinal);
            Assert.Contains("mail:customers", body, StringComparison.Ordinal);
        }, Deadline);
        Assert.Empty(mail.Delivered);

        // The sender is welcome again; one admin and one customer are not yet.
        mail.Script = line => line.StartsWith("RCPT TO:<slow", StringComparison.Ordinal) ? "450 4.2.0 greylisted" : line.StartsWith("RCPT TO:<full", StringComparison.Ordinal) ? "452 4.2.2 full" : null;
        await Eventually.HoldsAsync(() =>
        {
            // The failing webhook is told of by mail.
            Assert.Contains(mail.Mails, text => text.Contains("\nSubject: The alert channel webhook is off", StringComparison.Ordinal));
            Assert.Contains(mail.Mails, text => text.Contains("\nSubject: A message is not valid JSON", StringComparison.Ordinal));
            Assert.Contains("ada@customer.example", mail.Delivered);
            Assert.Contains("first@customer.example", mail.Delivered);
            return Task.CompletedTask;
        }, Deadline);
        Assert.DoesNotContain("slow@shop.example", mail.Delivered);

        mail.Script = _ => null;
        slack.Answer = context => context.Response.WriteAsync("ok");
        hook.AnswerWith(204);
        await Eventually.HoldsAsync(async () =>
        {
            var alerts = await service.AllAsync("/api/alerts");
            Assert.All(alerts.SelectMany(alert => alert.GetProperty("deliveries").EnumerateArray()), delivery => Assert.Equal("sent", delivery.GetProperty("status").GetString()));
            var channels = await service.AllAsync("/api/alerts/channels");
            Assert.All(channels.Where(channel => channel.GetProperty("enabled").GetBoolean()), channel => Assert.Equal("ok", channel.GetProperty("state").GetString()));
            Assert.DoesNotContain("alerts:", (await service.HealthAsync()).Body, StringComparison.Ordinal);
            Assert.DoesNotContain("mail:customers", (await service.HealthAsync()).Body, StringComparison.Ordinal);
            Assert.Equal(alerts.Count, mail.Delivered.Count(recipient => recipient == "slow@shop.example"));
            // Whoever had it already was not mailed again.
            Assert.Equal(alerts.Count, mail.Delivered.Count(recipient => recipient == "admin@shop.example"));
            Assert.Equal(1, mail.Delivered.Count(recipient => recipient == "full@customer.example"));
            Assert.Equal(1, mail.Delivered.Count(recipient => recipient == "ada@customer.example"));
            Assert.Contains(hook.Received, request => Encoding.UTF8.GetString(request.Body).Contains("not valid JSON", StringComparison.Ordinal));
        }, Deadline);
        Assert.DoesNotContain("customer.example", service.Output, StringComparison.Ordinal);
    }

    private static TestMessage Place(string orderId, string email) => TestMessage.Of(
        "order.place", orderId, $$"""{"orderId":"{{orderId}}","customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}],"email":"{{email}}"}""");
}

using System.Net;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Time.Testing;
using OrderService.Notifications;
using OrderService.Tests.Infrastructure;
using static OrderService.Tests.Notifications.NotificationWorld;

namespace OrderService.Tests.Notifications;

public sealed class WebhookChannelTests
{
    private static Alert AnAlert() =>
        new(7, AlertKind.First, "0123456789abcdef", "A <b> & `c` failed", AlertText.Plain(Content()), Content(), 1, new DateTimeOffset(2026, 3, 1, 3, 0, 0, TimeSpan.Zero));

    private static WebhookChannel Channel(Uri url, WebhookFormat format = WebhookFormat.Standard, TimeProvider? clock = null, params string[] secrets) => new(
        "webhook", format, url, secrets.Length == 0 ? [Secret] : secrets, WebhookTarget.Handler(["127.0.0.1"]), clock ?? TimeProvider.System);

    [Fact]
    public void The_signature_is_that_of_the_specifications_own_example()
    {
        var signature = WebhookSignature.Sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek", DateTimeOffset.FromUnixTimeSeconds(1614265330), "{\"test\": 2432232314}"u8, Secret);

        Assert.Equal("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", signature);
    }

    [Fact]
    public async Task An_alert_is_posted_signed_with_an_id_that_stays_and_a_timestamp_that_does_not()
    {
        await using var endpoint = await FakeWebhook.StartAsync();
        var clock = new FakeTimeProvider(new DateTimeOffset(2026, 3, 1, 4, 0, 0, TimeSpan.Zero));
        using var channel = Channel(endpoint.Url, clock: clock, secrets: [Secret, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]);

        await channel.SendAsync(AnAlert(), Stopping);
        clock.Advance(TimeSpan.FromMinutes(1));
        await channel.SendAsync(AnAlert(), Stopping);

        var (first, second) = (endpoint.Received.ElementAt(0), endpoint.Received.ElementAt(1));
        Assert.Equal(first.Headers["webhook-id"], second.Headers["webhook-id"]);
        Assert.Equal(first.Body, second.Body);
        Assert.Equal("1772337600", first.Headers["webhook-timestamp"]);
        Assert.Equal("1772337660", second.Headers["webhook-timestamp"]);
        Assert.Equal(2, first.Headers["webhook-signature"].Split(' ').Length);
        Assert.Equal(
            WebhookSignature.Sign(first.Headers["webhook-id"], DateTimeOffset.FromUnixTimeSeconds(1772337600), first.Body, Secret), first.Headers["webhook-signature"].Split(' ')[0]);
        using var json = JsonDocument.Parse(first.Body);
        Assert.Equal("alert.first", json.RootElement.GetProperty("type").GetString());
        Assert.Equal("99.80", json.RootElement.GetProperty("data").GetProperty("held").GetProperty("value")[0].GetProperty("amount").GetString());
    }

    [Theory]
    [InlineData(200)]
    [InlineData(204)]
    public async Task Only_a_success_counts_as_sent(int status)
    {
        await using var endpoint = await FakeWebhook.StartAsync();
        endpoint.AnswerWith(status);
        using var channel = Channel(endpoint.Url);

        Assert.IsType<ChannelAnswer.Sent>(await channel.SendAsync(AnAlert(), Stopping));
    }

    [Theory]
    [InlineData(400)]
    [InlineData(404)]
    [InlineData(500)]
    public async Task An_error_is_tried_again(int status)
    {
        await using var endpoint = await FakeWebhook.StartAsync();
        endpoint.AnswerWith(status);
        using var channel = Channel(endpoint.Url);

        Assert.IsType<ChannelAnswer.Retry>(await channel.SendAsync(AnAlert(), Stopping));
    }

    [Fact]
    public async Task A_redirect_is_an_error_and_is_not_followed()
    {
        await using var endpoint = await FakeWebhook.StartAsync();
        endpoint.Answer = context =>
        {
            context.Response.StatusCode = 307;
            context.Response.Headers.Location = "http://169.254.169.254/latest/meta-data";
            return Task.CompletedTask;
        };
        using var channel = Channel(endpoint.Url);

        Assert.Contains("307", Assert.IsType<ChannelAnswer.Retry>(await channel.SendAsync(AnAlert(), Stopping)).Reason, StringComparison.Ordinal);
        Assert.Single(endpoint.Received);
    }

    [Theory]
    [InlineData(WebhookFormat.Slack, "ok", true)]
    [InlineData(WebhookFormat.Slack, "", true)]
    [InlineData(WebhookFormat.Slack, "invalid_blocks", false)]
    [InlineData(WebhookFormat.Slack, """{"ok":false,"error":"channel_not_found"}""", false)]
    [InlineData(WebhookFormat.Slack, "<html>Please sign in</html>", false)]
    [InlineData(WebhookFormat.Teams, "1", true)]
    [InlineData(WebhookFormat.Teams, """{"status":"queued"}""", true)]
    [InlineData(WebhookFormat.Teams, "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429", false)]
    [InlineData(WebhookFormat.Teams, """{"error":{"code":"TriggerInputSchemaMismatch"}}""", false)]
    [InlineData(WebhookFormat.Standard, "whatever it says", true)]
    public async Task What_a_chat_says_in_a_200_is_read(WebhookFormat format, string answer, bool isSent)
    {
        await using var endpoint = await FakeWebhook.StartAsync();
        endpoint.Answer = context => context.Response.WriteAsync(answer);
        using var channel = Channel(endpoint.Url, format);

        var got = await channel.SendAsync(AnAlert(), Stopping);

        if (isSent)
        {
            Assert.IsType<ChannelAnswer.Sent>(got);
        }
        else
        {
            Assert.Contains(answer[..10], Assert.IsType<ChannelAnswer.Retry>(got).Reason, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task Gone_means_gone_and_too_many_requests_means_later()
    {
        await using var endpoint = await FakeWebhook.StartAsync();
        using var channel = Channel(endpoint.Url);

        endpoint.AnswerWith(410);
        Assert.IsType<ChannelAnswer.Gone>(await channel.SendAsync(AnAlert(), Stopping));
        endpoint.Answer = context =>
        {
            context.Response.StatusCode = 429;
            context.Response.Headers.RetryAfter = "120";
            return Task.CompletedTask;
        };
        Assert.Equal(TimeSpan.FromMinutes(2), Assert.IsType<ChannelAnswer.Retry>(await channel.SendAsync(AnAlert(), Stopping)).After);
    }

    [Fact]
    public async Task An_endpoint_that_never_answers_is_given_ten_seconds()
    {
        await using var endpoint = await FakeWebhook.StartAsync();
        var clock = new FakeTimeProvider();
        endpoint.Answer = context =>
        {
            clock.Advance(TimeSpan.FromSeconds(11));
            return Task.Delay(Timeout.Infinite, context.RequestAborted);
        };
        using var channel = Channel(endpoint.Url, clock: clock);

        Assert.Contains("10 s", Assert.IsType<ChannelAnswer.Retry>(await channel.SendAsync(AnAlert(), Stopping)).Reason, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_body_without_end_is_not_read()
    {
        await using var endpoint = await FakeWebhook.StartAsync();
        endpoint.Answer = async context =>
        {
            var chunk = new byte[64 * 1024];
            while (!context.RequestAborted.IsCancellationRequested)
            {
                await context.Response.Body.WriteAsync(chunk, context.RequestAborted);
            }
        };
        using var channel = Channel(endpoint.Url);

        Assert.IsType<ChannelAnswer.Sent>(await channel.SendAsync(AnAlert(), Stopping));
    }

    [Fact]
    public async Task Slack_and_teams_get_their_own_formats_and_no_markup_out_of_an_alert()
    {
        await using var endpoint = await FakeWebhook.StartAsync();
        using var slack = Channel(endpoint.Url, WebhookFormat.Slack);
        using var teams = Channel(endpoint.Url, WebhookFormat.Teams);

        await slack.SendAsync(AnAlert(), Stopping);
        await teams.SendAsync(AnAlert(), Stopping);

        using var first = JsonDocument.Parse(endpoint.Received.ElementAt(0).Body);
        Assert.Equal("A &lt;b&gt; &amp; `c` failed", first.RootElement.GetProperty("text").GetString());
        Assert.DoesNotContain("<", first.RootElement.GetProperty("blocks")[1].GetProperty("text").GetProperty("text").GetString(), StringComparison.Ordinal);
        using var second = JsonDocument.Parse(endpoint.Received.ElementAt(1).Body);
        var card = second.RootElement.GetProperty("attachments")[0].GetProperty("content");
        Assert.Equal("AdaptiveCard", card.GetProperty("type").GetString());
        Assert.All(card.GetProperty("body").EnumerateArray(), block => Assert.Equal("RichTextBlock", block.GetProperty("type").GetString()));
        Assert.All(endpoint.Received, request => Assert.DoesNotContain("webhook-signature", request.Headers.Keys));
    }

    [Theory]
    [InlineData("http://example.org/hook")]
    [InlineData("ftp://example.org/")]
    [InlineData("file:///etc/passwd")]
    [InlineData("gopher://example.org/")]
    [InlineData("example.org/hook")]
    [InlineData("")]
    [InlineData("https://user:pass@example.org/")]
    [InlineData("https://example.org:22/")]
    [InlineData("https://localhost/")]
    [InlineData("https://localhost./")]
    [InlineData("https://a.localhost/")]
    [InlineData("https://127.1/")]
    [InlineData("https://0x7f.1/")]
    [InlineData("https://2130706433/")]
    [InlineData("https://017700000001/")]
    [InlineData("https://[::1]/")]
    [InlineData("https://[::ffff:169.254.169.254]/")]
    [InlineData("https://[64:ff9b::a00:1]/")]
    [InlineData("https://[2002:7f00:1::]/")]
    [InlineData("https://[fd00::1]/")]
    [InlineData("https://[fe80::1]/")]
    [InlineData("https://0.0.0.0/")]
    [InlineData("https://10.0.0.1/")]
    [InlineData("https://100.64.0.1/")]
    [InlineData("https://169.254.169.254/")]
    [InlineData("https://172.31.255.255/")]
    [InlineData("https://192.168.1.1/")]
    [InlineData("https://224.0.0.1/")]
    [InlineData("https://255.255.255.255/")]
    public void An_address_that_is_not_public_and_https_is_refused_when_it_is_configured(string url) => Assert.NotNull(WebhookTarget.Problem(url, []));

    [Theory]
    [InlineData("https://example.org/hook")]
    [InlineData("https://example.org:8443/hook")]
    [InlineData("https://93.184.215.14/")]
    [InlineData("https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/")]
    public void A_public_https_address_is_fine(string url) => Assert.Null(WebhookTarget.Problem(url, []));

    [Fact]
    public void A_host_that_is_named_may_be_private_and_without_tls() =>
        Assert.Null(WebhookTarget.Problem("http://Receiver.internal:8080/", ["receiver.internal"]));

    [Theory]
    [InlineData("10.1.2.3")]
    [InlineData("127.0.0.1")]
    [InlineData("::ffff:10.1.2.3")]
    [InlineData("fd00::1")]
    public async Task A_name_that_resolves_to_a_private_address_is_not_connected_to(string address)
    {
        using var channel = new WebhookChannel(
            "webhook", WebhookFormat.Standard, new Uri("https://example.org/"), [Secret],
            WebhookTarget.Handler([], (_, _) => Task.FromResult<IPAddress[]>([IPAddress.Parse("93.184.215.14"), IPAddress.Parse(address)])), TimeProvider.System);

        var answer = await channel.SendAsync(AnAlert(), Stopping);

        Assert.Contains("private", Assert.IsType<ChannelAnswer.Retry>(answer).Reason, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_name_is_resolved_once_and_the_address_that_was_checked_is_the_one_that_is_used()
    {
        await using var endpoint = await FakeWebhook.StartAsync();
        var lookups = 0;
        using var channel = new WebhookChannel(
            "webhook", WebhookFormat.Standard, new Uri($"http://receiver.internal:{endpoint.Url.Port}/"), [Secret],
            WebhookTarget.Handler(["receiver.internal"], (_, _) =>
            {
                lookups++;
                return Task.FromResult<IPAddress[]>([IPAddress.Loopback]);
            }),
            TimeProvider.System);

        Assert.IsType<ChannelAnswer.Sent>(await channel.SendAsync(AnAlert(), Stopping));
        Assert.Equal(1, lookups);
        Assert.StartsWith("{", Encoding.UTF8.GetString(endpoint.Received.Single().Body), StringComparison.Ordinal);
    }
}

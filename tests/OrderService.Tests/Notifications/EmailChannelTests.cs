using Microsoft.Extensions.Options;
using OrderService.Notifications;
using OrderService.Tests.Infrastructure;
using static OrderService.Tests.Notifications.NotificationWorld;

namespace OrderService.Tests.Notifications;

public sealed class EmailChannelTests
{
    private static Alert AnAlert(string subject = "Something failed") =>
        new(7, AlertKind.First, "0123456789abcdef", subject, AlertText.Plain(Content()), Content(), 1, new DateTimeOffset(2026, 3, 1, 3, 0, 0, TimeSpan.Zero));

    private static EmailChannel Channel(int port, TimeSpan? timeout = null, string security = "None", params string[] to) => new(
        Options.Create(new AlertsOptions
        {
            Email = new EmailOptions
            {
                Enabled = true,
                Host = "127.0.0.1",
                Port = port,
                Security = security,
                From = "orders@example.org",
                To = to.Length == 0 ? ["admin@example.org"] : to,
                Timeout = timeout ?? TimeSpan.FromSeconds(20),
            },
        }),
        TimeProvider.System);

    [Fact]
    public async Task A_mail_goes_out_as_text_and_html_and_shows_nothing_but_text()
    {
        await using var server = new FakeSmtpServer();

        Assert.Equal(new ChannelAnswer.Sent(), await Channel(server.Port).SendAsync(AnAlert(), Stopping));

        var mail = Assert.Single(server.Mails);
        Assert.Contains("Subject: Something failed\n", mail, StringComparison.Ordinal);
        Assert.Contains("text/plain", mail, StringComparison.Ordinal);
        Assert.Contains("text/html", mail, StringComparison.Ordinal);
        Assert.Contains("Auto-Submitted: auto-generated", mail, StringComparison.Ordinal);
        Assert.Contains("99.80 EUR", mail, StringComparison.Ordinal);
        Assert.Contains("&lt;script&gt;", mail, StringComparison.Ordinal);
        Assert.Equal(["admin@example.org"], server.Recipients);
    }

    [Fact]
    public async Task A_subject_can_add_no_header()
    {
        await using var server = new FakeSmtpServer();

        await Channel(server.Port).SendAsync(AnAlert("order A\r\nBcc: thief@example.com\u202e\u2028x"), Stopping);

        var mail = Assert.Single(server.Mails);
        Assert.DoesNotContain("\nBcc:", mail, StringComparison.Ordinal);
        Assert.Equal(["admin@example.org"], server.Recipients);
    }

    [Fact]
    public async Task An_escalation_goes_to_more_people()
    {
        await using var server = new FakeSmtpServer();
        var channel = new EmailChannel(
            Options.Create(new AlertsOptions
            {
                Email = new EmailOptions
                {
                    Enabled = true, Host = "127.0.0.1", Port = server.Port, Security = "None", From = "orders@example.org", To = ["admin@example.org"], EscalationTo = ["boss@example.org", "ADMIN@example.org"],
                },
            }),
            TimeProvider.System);

        await channel.SendAsync(AnAlert() with { Kind = AlertKind.Escalation }, Stopping);

        Assert.Equal(["admin@example.org", "boss@example.org"], server.Recipients);
    }

    [Fact]
    public async Task What_a_server_says_decides_whether_it_is_tried_again()
    {
        await using var server = new FakeSmtpServer { Mood = SmtpMood.TryLater };
        Assert.Contains("451", Assert.IsType<ChannelAnswer.Retry>(await Channel(server.Port).SendAsync(AnAlert(), Stopping)).Reason, StringComparison.Ordinal);

        server.Mood = SmtpMood.RefuseAll;
        Assert.Contains("550 no such user", Assert.IsType<ChannelAnswer.Refused>(await Channel(server.Port).SendAsync(AnAlert(), Stopping)).Reason, StringComparison.Ordinal);

        server.Mood = SmtpMood.RefuseGone;
        var sent = Assert.IsType<ChannelAnswer.Sent>(await Channel(server.Port, to: ["gone@example.org", "admin@example.org"]).SendAsync(AnAlert(), Stopping));
        Assert.Contains("550", sent.Note, StringComparison.Ordinal);
        Assert.Single(server.Mails);
    }

    [Fact]
    public async Task A_server_that_is_down_hangs_or_offers_no_tls_is_tried_again_later()
    {
        await using var server = new FakeSmtpServer { Mood = SmtpMood.Tarpit };
        Assert.IsType<ChannelAnswer.Retry>(await Channel(server.Port, TimeSpan.FromSeconds(1)).SendAsync(AnAlert(), Stopping));

        server.Mood = SmtpMood.Accept;
        Assert.IsType<ChannelAnswer.Retry>(await Channel(server.Port, security: "StartTls").SendAsync(AnAlert(), Stopping));
        Assert.IsType<ChannelAnswer.Retry>(await Channel(server.Port, security: "Tls").SendAsync(AnAlert(), Stopping));

        server.GoDown();
        Assert.IsType<ChannelAnswer.Retry>(await Channel(server.Port).SendAsync(AnAlert(), Stopping));

        server.ComeBack();
        Assert.IsType<ChannelAnswer.Sent>(await Channel(server.Port).SendAsync(AnAlert(), Stopping));
        Assert.Single(server.Mails);
    }

    [Theory]
    [InlineData("admin@example.org")]
    [InlineData("The Admin <admin@example.org>")]
    public void One_plain_address_is_taken(string text) => Assert.NotNull(EmailChannel.ParseAddress(text));

    [Theory]
    [InlineData("")]
    [InlineData("admin")]
    [InlineData("admin@")]
    [InlineData("a@b\r\nBcc: x@y")]
    [InlineData("\"a\r\nb\"@example.org")]
    [InlineData("\"a b\"@example.org")]
    [InlineData("a@example.org, b@example.org")]
    [InlineData("group: a@example.org;")]
    public void Anything_else_is_no_address(string text) => Assert.Null(EmailChannel.ParseAddress(text));
}

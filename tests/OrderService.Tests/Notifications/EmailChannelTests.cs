using Microsoft.Extensions.Options;
using Microsoft.Extensions.Time.Testing;
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
        new Smtp(TimeProvider.System));

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
    public async Task What_a_mail_server_says_is_kept_without_the_addresses_in_it()
    {
        await using var server = new FakeSmtpServer { Script = line => line.StartsWith("RCPT", StringComparison.Ordinal) ? "550 5.7.1 <admin@example.org>: no relaying for anna.smith+1@example.org" : null };

        var retry = Assert.IsType<ChannelAnswer.Retry>(await Channel(server.Port).SendAsync(AnAlert(), Stopping));

        Assert.Contains("550 5.7.1", retry.Reason, StringComparison.Ordinal);
        Assert.DoesNotContain("example.org", retry.Reason, StringComparison.Ordinal);
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
            new Smtp(TimeProvider.System));

        await channel.SendAsync(AnAlert() with { Kind = AlertKind.Escalation }, Stopping);

        Assert.Equal(["admin@example.org", "boss@example.org"], server.Recipients);
    }

    [Theory]
    [InlineData("GREETING", "554 no")]
    [InlineData("EHLO", "504 not now")]
    [InlineData("MAIL", "550 sender refused")]
    [InlineData("MAIL", "501 5.1.7 bad sender")]
    [InlineData("RCPT", "450 try later")]
    [InlineData("RCPT", "452 4.2.2 mailbox full")]
    [InlineData("RCPT", "550 5.7.1 relaying denied")]
    [InlineData("RCPT", "552 5.2.2 over quota")]
    [InlineData("RCPT", "554 5.7.1 blocked")]
    // The server says so of everybody: that is not believed.
    [InlineData("RCPT", "550 5.1.1 no such user")]
    [InlineData("DATA", "554 no")]
    [InlineData("BODY", "554 5.6.0 refused")]
    public async Task What_concerns_more_than_a_mailbox_is_tried_again(string at, string answer)
    {
        await using var server = new FakeSmtpServer { Script = line => line.StartsWith(at, StringComparison.Ordinal) || (at == "EHLO" && line.StartsWith("HELO", StringComparison.Ordinal)) ? answer : null };
        var channel = Channel(server.Port, to: ["one@example.org", "other@example.org"]);

        var retry = Assert.IsType<ChannelAnswer.Retry>(await channel.SendAsync(AnAlert(), Stopping));

        Assert.Contains(answer[..3], retry.Reason, StringComparison.Ordinal);
        Assert.False(retry.IsOwn);
        server.Script = _ => null;
        Assert.Equal(new ChannelAnswer.Sent(), await channel.SendAsync(AnAlert() with { Recipients = retry.Recipients }, Stopping));
        Assert.Equal(["one@example.org", "other@example.org"], server.Delivered);
    }

    [Fact]
    public async Task Who_has_the_mail_is_not_mailed_again_and_who_has_it_not_is()
    {
        await using var server = new FakeSmtpServer { Script = line => line.StartsWith("RCPT TO:<slow", StringComparison.Ordinal) ? "450 greylisted" : null };
        var channel = Channel(server.Port, to: ["slow@example.org", "admin@example.org"]);

        var retry = Assert.IsType<ChannelAnswer.Retry>(await channel.SendAsync(AnAlert(), Stopping));
        Assert.True(retry is { IsOwn: true, HasReached: true });
        Assert.Contains("1 of 2 recipients have it", retry.Reason, StringComparison.Ordinal);
        var again = Assert.IsType<ChannelAnswer.Retry>(await channel.SendAsync(AnAlert() with { Recipients = retry.Recipients }, Stopping));
        server.Script = _ => null;
        Assert.Equal(new ChannelAnswer.Sent(), await channel.SendAsync(AnAlert() with { Recipients = again.Recipients }, Stopping));

        Assert.Equal(["admin@example.org", "slow@example.org"], server.Delivered);
    }

    [Fact]
    public async Task A_mailbox_that_does_not_exist_is_believed_while_others_are_taken()
    {
        await using var server = new FakeSmtpServer { Mood = SmtpMood.RefuseGone };
        var both = Channel(server.Port, to: ["gone@example.org", "admin@example.org"]);
        var sent = Assert.IsType<ChannelAnswer.Sent>(await both.SendAsync(AnAlert(), Stopping));
        Assert.Contains("550", sent.Note, StringComparison.Ordinal);
        Assert.Single(server.Mails);

        var clock = new FakeTimeProvider();
        var smtp = new Smtp(clock);
        EmailChannel To(string recipient) => new(
            Options.Create(new AlertsOptions { Email = new EmailOptions { Enabled = true, Host = "127.0.0.1", Port = server.Port, Security = "None", From = "orders@example.org", To = [recipient] } }), smtp);
        Assert.IsType<ChannelAnswer.Retry>(await To("gone@example.org").SendAsync(AnAlert(), Stopping));
        Assert.IsType<ChannelAnswer.Sent>(await To("admin@example.org").SendAsync(AnAlert(), Stopping));
        Assert.Contains("550 no such user", Assert.IsType<ChannelAnswer.Refused>(await To("gone@example.org").SendAsync(AnAlert(), Stopping)).Reason, StringComparison.Ordinal);
        clock.Advance(TimeSpan.FromMinutes(10));
        Assert.IsType<ChannelAnswer.Retry>(await To("gone@example.org").SendAsync(AnAlert(), Stopping));
    }

    [Theory]
    [InlineData(550, "no such user", true)]
    [InlineData(550, "5.1.1 <x@example.org>: user unknown", true)]
    [InlineData(551, "user not local", true)]
    [InlineData(550, "5.2.1 mailbox disabled", true)]
    [InlineData(550, "5.7.26 unauthenticated", false)]
    [InlineData(550, "5.2.2 full", false)]
    [InlineData(550, "5.1.8 sender rejected", false)]
    [InlineData(550, "blocked by policy", false)]
    [InlineData(554, "no", false)]
    [InlineData(552, "storage exceeded", false)]
    [InlineData(450, "no such user", false)]
    public void Which_refusals_are_about_the_mailbox(int code, string text, bool isOfMailbox) => Assert.Equal(isOfMailbox, Smtp.IsOfMailbox(code, text));

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

using System.Net.Sockets;
using MailKit;
using MailKit.Net.Smtp;
using MailKit.Security;
using Microsoft.Extensions.Options;
using MimeKit;

namespace OrderService.Notifications;

/// <summary>Mail by SMTP, as text and HTML; one connection for each alert. Recipients come from the settings and from nowhere else.</summary>
public sealed class EmailChannel(IOptions<AlertsOptions> options, TimeProvider clock) : INotificationChannel
{
    private readonly EmailOptions settings = options.Value.Email;

    public string Name => "email";

    public async Task<ChannelAnswer> SendAsync(Alert alert, CancellationToken cancellationToken)
    {
        using var message = Compose(alert);
        using var timeout = new CancellationTokenSource(settings.Timeout, clock);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(timeout.Token, cancellationToken);
        using var client = new Client { Timeout = (int)settings.Timeout.TotalMilliseconds };
        try
        {
            var security = settings.Security switch
            {
                "Tls" => SecureSocketOptions.SslOnConnect,
                "None" => SecureSocketOptions.None,
                _ => SecureSocketOptions.StartTls,
            };
            await client.ConnectAsync(settings.Host, settings.Port, security, either.Token);
            if (!string.IsNullOrEmpty(settings.Username))
            {
                await client.AuthenticateAsync(settings.Username, settings.Password ?? "", either.Token);
            }
            await client.SendAsync(message, either.Token);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            return new ChannelAnswer.Retry($"the mail server did not finish within {settings.Timeout.TotalSeconds:0} s");
        }
        catch (SmtpCommandException exception) when ((int)exception.StatusCode >= 500)
        {
            return new ChannelAnswer.Refused($"the mail server refused it: {AlertText.Line($"{(int)exception.StatusCode} {exception.Message}")}");
        }
        catch (SmtpCommandException exception)
        {
            return new ChannelAnswer.Retry(AlertText.Line($"the mail server answered {(int)exception.StatusCode} {exception.Message}"));
        }
        catch (Exception exception) when (IsTrouble(exception) && !cancellationToken.IsCancellationRequested)
        {
            return new ChannelAnswer.Retry(AlertText.Line($"{exception.GetType().Name}: {exception.Message}"));
        }
        // The mail server has it; how the goodbye goes does not matter any more.
        try
        {
            await client.DisconnectAsync(quit: true, either.Token);
        }
        catch (Exception exception) when (IsTrouble(exception) || exception is OperationCanceledException)
        {
            return new ChannelAnswer.Sent(client.Note);
        }
        return new ChannelAnswer.Sent(client.Note);
    }

    /// <summary>One plain address (<c>name@host</c> or <c>Name &lt;name@host&gt;</c>); null for anything else: groups, lists, control characters, quoted local parts.</summary>
    internal static MailboxAddress? ParseAddress(string text)
    {
        if (text.Length > 320 || text.Any(char.IsControl) || !MailboxAddress.TryParse(text, out var address))
        {
            return null;
        }
        var at = address.Address.LastIndexOf('@');
        return at > 0 && at < address.Address.Length - 1 && !address.Address.Any(character => char.IsControl(character) || character is ' ' or '"' or '\\' or '<' or '>' or ',' or ';')
            ? address
            : null;
    }

    private MimeMessage Compose(Alert alert)
    {
        var message = new MimeMessage
        {
            Subject = AlertText.Line(alert.Subject),
            Date = alert.CreatedAt,
            // The same in every attempt, so that a mailbox can tell a repeat.
            MessageId = $"{alert.MessageId}@orderservice.invalid",
            Body = new BodyBuilder { TextBody = alert.Text, HtmlBody = AlertText.Html(alert.Content) }.ToMessageBody(),
        };
        message.From.Add(ParseAddress(settings.From)!);
        foreach (var recipient in settings.To)
        {
            message.To.Add(ParseAddress(recipient)!);
        }
        message.Headers.Add("Auto-Submitted", "auto-generated");
        return message;
    }

    private static bool IsTrouble(Exception exception) =>
        exception is SocketException or IOException or ProtocolException or CommandException or SslHandshakeException or AuthenticationException or NotSupportedException or TimeoutException
            or ServiceNotConnectedException or ServiceNotAuthenticatedException;

    /// <summary>Goes on when the server refuses one of several recipients.</summary>
    private sealed class Client : SmtpClient
    {
        private readonly List<string> refused = [];
        private SmtpResponse? last;

        public string? Note => refused.Count == 0 ? null : $"refused for {refused.Count} of the recipients: {string.Join("; ", refused)}";

        protected override void OnRecipientNotAccepted(MimeMessage message, MailboxAddress mailbox, SmtpResponse response)
        {
            last = response;
            refused.Add(AlertText.Line($"{(int)response.StatusCode} {response.Response}"));
        }

        protected override void OnNoRecipientsAccepted(MimeMessage message) => throw new SmtpCommandException(
            SmtpErrorCode.RecipientNotAccepted, last?.StatusCode ?? SmtpStatusCode.TransactionFailed, last?.Response ?? "no recipient was accepted");
    }
}

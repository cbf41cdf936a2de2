using System.Net.Sockets;
using MailKit;
using MailKit.Net.Smtp;
using MailKit.Security;
using MimeKit;

namespace OrderService.Notifications;

/// <summary>Hands one message to the mail server of <see cref="EmailOptions"/>; one connection for each message.</summary>
internal static class Smtp
{
    public static async Task<ChannelAnswer> SendAsync(MimeMessage message, EmailOptions settings, TimeProvider clock, CancellationToken cancellationToken)
    {
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

using System.Net;
using System.Net.Sockets;
using System.Text.RegularExpressions;
using MailKit;
using MailKit.Net.Smtp;
using MailKit.Security;
using MimeKit;

namespace OrderService.Notifications;

/// <summary>What became of a mail for one of its recipients.</summary>
internal enum RecipientFate
{
    /// <summary>The mail server has it.</summary>
    Taken,

    /// <summary>The mail server says that this mailbox does not exist or takes nothing, and it took mails for others: no attempt will change that.</summary>
    Refused,

    /// <summary>Anything else.</summary>
    Later,
}

/// <summary>What a mail server made of one message.</summary>
/// <param name="Recipients">By address, with what the server said of it.</param>
/// <param name="Trouble">Why nobody got it, where that is not the recipients' affair.</param>
/// <param name="IsOfServer">The server could not be spoken to at all: other messages would fare no better.</param>
internal sealed record MailOutcome(IReadOnlyDictionary<string, (RecipientFate Fate, string Answer)> Recipients, string? Trouble = null, bool IsOfServer = false);

/// <summary>
/// Hands one message to the mail server of <see cref="EmailOptions"/>; one connection for each message. Only a recipient's own permanent refusal is final; what concerns the sender, the
/// connection, a policy or a quota passes. A server in trouble may refuse every mailbox, so a refusal is believed only while others are taken (docs/decisions/0027).
/// </summary>
public sealed partial class Smtp(TimeProvider clock)
{
    /// <summary>For so long a mail that was taken shows that refusals are the recipients' own.</summary>
    private static readonly TimeSpan Witness = TimeSpan.FromMinutes(10);

    private readonly Lock gate = new();
    private (string Address, long At)? lastTaken;
    private (string Address, long At)? otherTaken;

    /// <summary>Looks a name up; the operating system's way unless a test has another.</summary>
    internal Func<string, CancellationToken, Task<IPAddress[]>>? Resolve { get; init; }

    internal async Task<MailOutcome> SendAsync(MimeMessage message, IReadOnlyList<MailboxAddress> recipients, EmailOptions settings, CancellationToken cancellationToken)
    {
        using var timeout = new CancellationTokenSource(settings.Timeout, clock);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(timeout.Token, cancellationToken);
        var answers = new Dictionary<string, SmtpResponse>(StringComparer.OrdinalIgnoreCase);
        var hasStarted = false;
        try
        {
            using var client = await EveryAddress.ConnectAsync(
                settings.Host, Resolve, (address, token) => ConnectAsync(address, settings, token), late => late.Dispose(), settings.Timeout, clock, either.Token);
            if (!string.IsNullOrEmpty(settings.Username))
            {
                await client.AuthenticateAsync(settings.Username, settings.Password ?? "", either.Token);
            }
            hasStarted = true;
            client.Answers = answers;
            await client.SendAsync(message, message.From.Mailboxes.First(), recipients, either.Token);
            Taken(answers.Where(answer => IsTaken(answer.Value)).Select(answer => answer.Key));
            await SayGoodbyeAsync(client, either.Token);
            return new MailOutcome(Fates(recipients, answers));
        }
        catch (NobodyAcceptedException)
        {
            return new MailOutcome(Fates(recipients, answers));
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            return Failed($"the mail server did not finish within {settings.Timeout.TotalSeconds:0} s", isOfServer: true);
        }
        catch (SmtpCommandException exception)
        {
            return Failed($"the mail server answered {(int)exception.StatusCode} {exception.Message}", isOfServer: !hasStarted);
        }
        catch (Exception exception) when (IsTrouble(exception) && !cancellationToken.IsCancellationRequested)
        {
            return Failed($"{exception.GetType().Name}: {exception.Message}", isOfServer: true);
        }

        // Whoever was accepted did not get it; whoever was refused for good is refused all the same.
        MailOutcome Failed(string why, bool isOfServer)
        {
            var fates = Fates(recipients, answers.Where(answer => !IsTaken(answer.Value)).ToDictionary(StringComparer.OrdinalIgnoreCase));
            return new MailOutcome(fates, AlertText.Line(WithoutAddresses(why)), isOfServer);
        }
    }

    /// <summary>Whether a refusal is about the mailbox itself: not about who sends, what is sent, how much or how often.</summary>
    internal static bool IsOfMailbox(int code, string text)
    {
        if (code is < 500 or > 599)
        {
            return false;
        }
        if (EnhancedCode().Match(text) is { Success: true } enhanced)
        {
            // RFC 3463: 5.1.1 to 5.1.3, 5.1.6 and 5.1.10 are bad addresses, 5.2.1 a mailbox that takes nothing; 5.1.7 and 5.1.8 are the sender's, 5.2.2 is a full one, 5.7 is policy.
            return (enhanced.Groups[1].Value, enhanced.Groups[2].Value) is ("1", "1" or "2" or "3" or "6" or "10") or ("2", "1");
        }
        return code is 550 or 551 or 553 && !Policy().IsMatch(text);
    }

    private Dictionary<string, (RecipientFate Fate, string Answer)> Fates(IReadOnlyList<MailboxAddress> recipients, Dictionary<string, SmtpResponse> answers)
    {
        var fates = new Dictionary<string, (RecipientFate, string)>(StringComparer.OrdinalIgnoreCase);
        foreach (var address in recipients.Select(recipient => recipient.Address))
        {
            if (!answers.TryGetValue(address, out var answer))
            {
                fates[address] = (RecipientFate.Later, "no answer");
                continue;
            }
            var code = (int)answer.StatusCode;
            fates[address] = (IsTaken(answer) ? RecipientFate.Taken : IsOfMailbox(code, answer.Response) && TakesOthers(address) ? RecipientFate.Refused : RecipientFate.Later,
                AlertText.Line(WithoutAddresses($"{code} {answer.Response}")));
        }
        return fates;
    }

    private static bool IsTaken(SmtpResponse answer) => (int)answer.StatusCode is >= 200 and < 300;

    private void Taken(IEnumerable<string> addresses)
    {
        lock (gate)
        {
            foreach (var address in addresses)
            {
                if (lastTaken is { } last && !string.Equals(last.Address, address, StringComparison.OrdinalIgnoreCase))
                {
                    otherTaken = last;
                }
                lastTaken = (address, clock.GetTimestamp());
            }
        }
    }

    private bool TakesOthers(string address)
    {
        lock (gate)
        {
            return IsWitness(lastTaken) || IsWitness(otherTaken);
        }

        bool IsWitness((string Address, long At)? taken) =>
            taken is { } one && !string.Equals(one.Address, address, StringComparison.OrdinalIgnoreCase) && clock.GetElapsedTime(one.At) < Witness;
    }

    /// <summary>As far as the server's greeting and its answer to EHLO.</summary>
    private static async Task<Client> ConnectAsync(IPAddress address, EmailOptions settings, CancellationToken cancellationToken)
    {
        var security = settings.Security switch
        {
            "Tls" => SecureSocketOptions.SslOnConnect,
            "None" => SecureSocketOptions.None,
            _ => SecureSocketOptions.StartTls,
        };
        var client = new Client { Timeout = (int)settings.Timeout.TotalMilliseconds };
        Socket? socket = null;
        try
        {
            socket = await EveryAddress.ConnectAsync(address, settings.Port, cancellationToken);
            await client.ConnectAsync(socket, settings.Host, settings.Port, security, cancellationToken);
            return client;
        }
        catch
        {
            client.Dispose();
            socket?.Dispose();
            throw;
        }
    }

    /// <summary>The mail server has it; how the goodbye goes does not matter any more.</summary>
    private static async Task SayGoodbyeAsync(Client client, CancellationToken cancellationToken)
    {
        try
        {
            await client.DisconnectAsync(quit: true, cancellationToken);
        }
        catch (Exception exception) when (IsTrouble(exception) || exception is OperationCanceledException)
        {
            // It is gone already.
        }
    }

    private static bool IsTrouble(Exception exception) =>
        exception is SocketException or IOException or ProtocolException or CommandException or SslHandshakeException or AuthenticationException or NotSupportedException or TimeoutException
            or ServiceNotConnectedException or ServiceNotAuthenticatedException;

    /// <summary>What a server says names whom the mail was for; who reads alerts, and the log, need not know.</summary>
    internal static string WithoutAddresses(string text) => Address().Replace(text, "(address)");

    [GeneratedRegex(@"[^\s<>@,;:()\[\]""]+@[^\s<>@,;:()\[\]""]+")]
    private static partial Regex Address();

    [GeneratedRegex(@"^\s*5\.(\d{1,3})\.(\d{1,3})\b")]
    private static partial Regex EnhancedCode();

    [GeneratedRegex(
        @"relay|denied|block|black|spam|polic|reput|spf|dkim|dmarc|sender|authenticat|authoriz|credential|quota|full|storage|exceed|too many|rate|limit|later|tempor|try|\bip\b|tls|helo",
        RegexOptions.IgnoreCase)]
    private static partial Regex Policy();

    private sealed class NobodyAcceptedException : Exception;

    /// <summary>Takes down what the server says to each recipient, and goes on when it refuses one of several.</summary>
    private sealed class Client : SmtpClient
    {
        public Dictionary<string, SmtpResponse> Answers { get; set; } = [];

        protected override void OnRecipientAccepted(MimeMessage message, MailboxAddress mailbox, SmtpResponse response) => Answers[mailbox.Address] = response;

        protected override void OnRecipientNotAccepted(MimeMessage message, MailboxAddress mailbox, SmtpResponse response) => Answers[mailbox.Address] = response;

        protected override void OnNoRecipientsAccepted(MimeMessage message) => throw new NobodyAcceptedException();
    }
}

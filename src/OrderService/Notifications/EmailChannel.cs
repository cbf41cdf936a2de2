using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.Extensions.Options;
using MimeKit;

namespace OrderService.Notifications;

/// <summary>
/// Mail by SMTP, as text and HTML; one connection for each attempt. Recipients come from the settings and from nowhere else. An alert is sent when every recipient has it or never will:
/// who has it already is not mailed again.
/// </summary>
public sealed class EmailChannel(IOptions<AlertsOptions> options, Smtp smtp) : INotificationChannel
{
    /// <summary>Beside a recipient who has the mail; beside one who never will stands what the server said.</summary>
    private const string Done = "sent";

    private readonly EmailOptions settings = options.Value.Email;

    public string Name => "email";

    public async Task<ChannelAnswer> SendAsync(Alert alert, CancellationToken cancellationToken)
    {
        var done = alert.Recipients is { } known ? JsonSerializer.Deserialize(known, RecipientJson.Default.DictionaryStringString) ?? [] : [];
        using var message = Compose(alert);
        var left = message.To.Mailboxes.Where(mailbox => !done.ContainsKey(mailbox.Address)).ToList();
        if (left.Count == 0)
        {
            return Finished(done);
        }
        var outcome = await smtp.SendAsync(message, left, settings, cancellationToken);
        var later = new List<string>();
        foreach (var (address, (fate, answer)) in outcome.Recipients)
        {
            switch (fate)
            {
                case RecipientFate.Taken:
                    done[address] = Done;
                    break;
                case RecipientFate.Refused:
                    done[address] = answer;
                    break;
                default:
                    later.Add(answer);
                    break;
            }
        }
        if (later.Count == 0)
        {
            return Finished(done);
        }
        var served = done.Values.Count(value => value == Done);
        var reason = outcome.Trouble ?? $"the mail server answered {string.Join("; ", later.Distinct().Take(3))}";
        return new ChannelAnswer.Retry(served == 0 ? reason : $"{served} of {message.To.Count} recipients have it; to the others {reason}")
        {
            IsOwn = outcome.Trouble is null && outcome.Recipients.Values.Any(recipient => recipient.Fate == RecipientFate.Taken),
            HasReached = served > 0,
            Recipients = done.Count == 0 ? null : JsonSerializer.Serialize(done, RecipientJson.Default.DictionaryStringString),
        };
    }

    private static ChannelAnswer Finished(Dictionary<string, string> done)
    {
        var refused = done.Values.Where(value => value != Done).ToList();
        return refused.Count == 0 ? new ChannelAnswer.Sent()
            : refused.Count == done.Count ? new ChannelAnswer.Refused($"the mail server refused it: {string.Join("; ", refused)}")
            : new ChannelAnswer.Sent($"refused for {refused.Count} of the recipients: {string.Join("; ", refused)}");
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
        foreach (var recipient in alert.Kind == AlertKind.Escalation ? settings.To.Union(settings.EscalationTo, StringComparer.OrdinalIgnoreCase) : settings.To)
        {
            message.To.Add(ParseAddress(recipient)!);
        }
        message.Headers.Add("Auto-Submitted", "auto-generated");
        return message;
    }
}

[JsonSerializable(typeof(Dictionary<string, string>))]
internal sealed partial class RecipientJson : JsonSerializerContext;

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
        return await Smtp.SendAsync(message, settings, clock, cancellationToken);
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

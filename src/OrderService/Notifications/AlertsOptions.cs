using System.Net;
using Microsoft.Extensions.Options;

namespace OrderService.Notifications;

/// <summary>Who is told of dead letters, and how.</summary>
public sealed class AlertsOptions
{
    public const string Section = "Alerts";

    public LogOptions Log { get; init; } = new();
    public EmailOptions Email { get; init; } = new();
    public WebhookOptions Webhook { get; init; } = new();

    /// <summary>A Slack incoming webhook.</summary>
    public ChatOptions Slack { get; init; } = new();

    /// <summary>A Microsoft Teams workflow that takes an adaptive card.</summary>
    public ChatOptions Teams { get; init; } = new();

    /// <summary>How long repeats are gathered before one alert tells of all of them; 10 s to 1 day.</summary>
    public TimeSpan DigestInterval { get; init; } = TimeSpan.FromMinutes(5);

    /// <summary>How many new incidents are told of at once within one <see cref="DigestInterval"/>; the others go into the digest. 1 to 1,000.</summary>
    public int MaxFirstPerInterval { get; init; } = 10;

    /// <summary>How often a process looks for alerts to send; 10 ms to 1 minute.</summary>
    public TimeSpan PollInterval { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>The pause after the first failed attempt; it doubles, with jitter, up to <see cref="MaxRetryDelay"/>.</summary>
    public TimeSpan RetryDelay { get; init; } = TimeSpan.FromSeconds(5);

    public TimeSpan MaxRetryDelay { get; init; } = TimeSpan.FromMinutes(15);

    /// <summary>An alert that a channel could not send for this long is set aside on that channel.</summary>
    public TimeSpan GiveUpAfter { get; init; } = TimeSpan.FromDays(3);

    /// <summary>An incident with parked letters that nobody acknowledged is told of again after this long; 1 minute to 30 days.</summary>
    public TimeSpan RemindAfter { get; init; } = TimeSpan.FromHours(4);

    /// <summary>An incident that nobody acknowledged for this long is told of once as an escalation, also to <see cref="EmailOptions.EscalationTo"/>; 1 minute to 30 days.</summary>
    public TimeSpan EscalateAfter { get; init; } = TimeSpan.FromHours(1);

    /// <summary>Of each trouble of the service itself at most one alert goes out in this time, however often it comes and goes; 1 s to 1 day.</summary>
    public TimeSpan TroublePause { get; init; } = TimeSpan.FromMinutes(5);

    /// <summary>When only what can't wait goes out.</summary>
    public QuietHoursOptions QuietHours { get; init; } = new();

    /// <summary>A channel (<c>email</c>, <c>webhook</c>, <c>slack</c>, <c>teams</c>) that gets only what another channel could not send within <see cref="FallbackAfter"/>.</summary>
    public string? Fallback { get; init; }

    public TimeSpan FallbackAfter { get; init; } = TimeSpan.FromMinutes(15);

    /// <summary>Where people open the admin page, for links in alerts; no link when it is not set.</summary>
    public string? PageUrl { get; init; }
}

/// <summary>
/// Every day at these hours digests, reminders and recovery notices wait; a failure that was not seen before and an escalation go out all the same. What waited goes out at the
/// end: one digest covers all letters of the night.
/// </summary>
public sealed class QuietHoursOptions
{
    /// <summary>When they begin, for instance <c>22:00</c>; there are none without it.</summary>
    public TimeOnly? From { get; init; }

    /// <summary>When they end, for instance <c>07:00</c>; earlier than <see cref="From"/> means the next day.</summary>
    public TimeOnly? To { get; init; }

    /// <summary>Whose clock it is, for instance <c>Europe/Berlin</c>.</summary>
    public string TimeZone { get; init; } = "UTC";

    /// <summary>New failures and escalations wait as well: nobody is woken at all.</summary>
    public bool HoldAll { get; init; }

    internal bool Include(DateTimeOffset moment)
    {
        if (From is not { } from || To is not { } to)
        {
            return false;
        }
        var time = TimeOnly.FromTimeSpan(TimeZoneInfo.ConvertTime(moment, TimeZoneInfo.FindSystemTimeZoneById(TimeZone)).TimeOfDay);
        // From is in, To is not; midnight may lie between them.
        return time.IsBetween(from, to);
    }

    internal bool HoldFirst(DateTimeOffset moment) => HoldAll && Include(moment);
}

public sealed class LogOptions
{
    public bool Enabled { get; init; } = true;
}

/// <summary>Mail through an SMTP server.</summary>
public sealed class EmailOptions
{
    public bool Enabled { get; init; }
    public string Host { get; init; } = "";
    public int Port { get; init; } = 587;

    /// <summary>Lets <c>Security</c> be <c>None</c> to another machine: mail and password cross the network readable.</summary>
    public bool AllowPlaintext { get; init; }

    /// <summary><c>StartTls</c>, <c>Tls</c> (from the first byte), or <c>None</c>, which only a loopback host may have.</summary>
    public string Security { get; init; } = "StartTls";

    /// <summary>No login without it.</summary>
    public string? Username { get; init; }

    public string? Password { get; init; }
    public string From { get; init; } = "";

    /// <summary>1 to 50 addresses.</summary>
    public IList<string> To { get; init; } = [];

    /// <summary>Who is told as well when nobody acknowledged an incident in time; at most 50 addresses.</summary>
    public IList<string> EscalationTo { get; init; } = [];

    /// <summary>For one attempt as a whole; 1 to 120 s.</summary>
    public TimeSpan Timeout { get; init; } = TimeSpan.FromSeconds(30);
}

/// <summary>A signed HTTP POST as in the Standard Webhooks specification.</summary>
public sealed class WebhookOptions
{
    public bool Enabled { get; init; }
    public string Url { get; init; } = "";

    /// <summary><c>whsec_</c> and the base64 of 24 to 64 random bytes.</summary>
    public string Secret { get; init; } = "";

    /// <summary>A second secret that also signs while receivers change over.</summary>
    public string? PreviousSecret { get; init; }

    /// <summary>Host names (or addresses) that may be reached without TLS, or at a private or loopback address.</summary>
    public IList<string> AllowedHosts { get; init; } = [];
}

/// <summary>A chat's incoming webhook; its URL is the secret.</summary>
public sealed class ChatOptions
{
    public bool Enabled { get; init; }
    public string Url { get; init; } = "";

    /// <summary>As in <see cref="WebhookOptions.AllowedHosts"/>.</summary>
    public IList<string> AllowedHosts { get; init; } = [];
}

internal sealed class AlertsOptionsValidator : IValidateOptions<AlertsOptions>
{
    private const int MostRecipients = 50;

    public ValidateOptionsResult Validate(string? name, AlertsOptions options)
    {
        var problems = Problems(options).ToList();
        return problems.Count == 0 ? ValidateOptionsResult.Success : ValidateOptionsResult.Fail(problems);
    }

    private static IEnumerable<string> Problems(AlertsOptions options)
    {
        foreach (var problem in Ranges(options).Concat(Email(options.Email)))
        {
            yield return problem;
        }
        if (options.Webhook.Enabled)
        {
            if (WebhookTarget.Problem(options.Webhook.Url, options.Webhook.AllowedHosts) is { } problem)
            {
                yield return $"Alerts:Webhook:Url {problem}";
            }
            if (WebhookSignature.SecretProblem(options.Webhook.Secret) is { } secret)
            {
                yield return $"Alerts:Webhook:Secret {secret}";
            }
            if (options.Webhook.PreviousSecret is { Length: > 0 } previous && WebhookSignature.SecretProblem(previous) is { } old)
            {
                yield return $"Alerts:Webhook:PreviousSecret {old}";
            }
        }
        if (options.Slack.Enabled && WebhookTarget.Problem(options.Slack.Url, options.Slack.AllowedHosts) is { } slack)
        {
            yield return $"Alerts:Slack:Url {slack}";
        }
        if (options.Teams.Enabled && WebhookTarget.Problem(options.Teams.Url, options.Teams.AllowedHosts) is { } teams)
        {
            yield return $"Alerts:Teams:Url {teams}";
        }
        if (options.Fallback is { Length: > 0 } fallback && !IsOn(options, fallback))
        {
            yield return "Alerts:Fallback is email, webhook, slack or teams, and that channel has to be switched on.";
        }
        else if (options.Fallback is { Length: > 0 } && !new[] { "email", "webhook", "slack", "teams" }.Any(channel => channel != options.Fallback && IsOn(options, channel)))
        {
            yield return "Alerts:Fallback names the only channel that reaches people; switch another one on or leave it out.";
        }
        if (options.QuietHours.From is null != options.QuietHours.To is null)
        {
            yield return "Alerts:QuietHours:From and Alerts:QuietHours:To belong together: set both or none.";
        }
        else if (options.QuietHours.From is not null && options.QuietHours.From == options.QuietHours.To)
        {
            yield return "Alerts:QuietHours:To is the same as Alerts:QuietHours:From; leave both out to have none.";
        }
        if (!TimeZoneInfo.TryFindSystemTimeZoneById(options.QuietHours.TimeZone, out _))
        {
            yield return "Alerts:QuietHours:TimeZone is not a time zone that this machine knows; write a name such as Europe/Berlin.";
        }
        if (options.PageUrl is { Length: > 0 } page && !(Uri.TryCreate(page, UriKind.Absolute, out var uri) && uri.Scheme is "http" or "https"))
        {
            yield return "Alerts:PageUrl is not an http or https URL.";
        }
    }

    private static bool IsOn(AlertsOptions options, string channel) => channel switch
    {
        "email" => options.Email.Enabled,
        "webhook" => options.Webhook.Enabled,
        "slack" => options.Slack.Enabled,
        "teams" => options.Teams.Enabled,
        _ => false,
    };

    private static IEnumerable<string> Ranges(AlertsOptions options)
    {
        if (options.DigestInterval < TimeSpan.FromSeconds(10) || options.DigestInterval > TimeSpan.FromDays(1))
        {
            yield return "Alerts:DigestInterval is from 00:00:10 to 1.00:00:00.";
        }
        if (options.MaxFirstPerInterval is < 1 or > 1000)
        {
            yield return "Alerts:MaxFirstPerInterval is from 1 to 1000.";
        }
        if (options.PollInterval < TimeSpan.FromMilliseconds(10) || options.PollInterval > TimeSpan.FromMinutes(1))
        {
            yield return "Alerts:PollInterval is from 00:00:00.010 to 00:01:00.";
        }
        if (options.RetryDelay < TimeSpan.FromMilliseconds(10) || options.RetryDelay > options.MaxRetryDelay)
        {
            yield return "Alerts:RetryDelay is from 00:00:00.010 to Alerts:MaxRetryDelay.";
        }
        if (options.MaxRetryDelay > TimeSpan.FromDays(1))
        {
            yield return "Alerts:MaxRetryDelay is at most 1.00:00:00.";
        }
        if (options.RemindAfter < TimeSpan.FromMinutes(1) || options.RemindAfter > TimeSpan.FromDays(30))
        {
            yield return "Alerts:RemindAfter is from 00:01:00 to 30.00:00:00.";
        }
        if (options.TroublePause < TimeSpan.FromSeconds(1) || options.TroublePause > TimeSpan.FromDays(1))
        {
            yield return "Alerts:TroublePause is from 00:00:01 to 1.00:00:00.";
        }
        if (options.EscalateAfter < TimeSpan.FromMinutes(1) || options.EscalateAfter > TimeSpan.FromDays(30))
        {
            yield return "Alerts:EscalateAfter is from 00:01:00 to 30.00:00:00.";
        }
        if (options.FallbackAfter < TimeSpan.FromSeconds(1) || options.FallbackAfter > TimeSpan.FromDays(1))
        {
            yield return "Alerts:FallbackAfter is from 00:00:01 to 1.00:00:00.";
        }
        if (options.GiveUpAfter < options.MaxRetryDelay || options.GiveUpAfter > TimeSpan.FromDays(30))
        {
            yield return "Alerts:GiveUpAfter is from Alerts:MaxRetryDelay to 30.00:00:00.";
        }
    }

    /// <summary>What is wrong with how the mail server is reached; the customers' mails go there too.</summary>
    internal static IEnumerable<string> Server(EmailOptions email)
    {
        if (Uri.CheckHostName(email.Host) == UriHostNameType.Unknown)
        {
            yield return "Alerts:Email:Host is missing or not a host name.";
        }
        if (email.Port is < 1 or > 65535)
        {
            yield return "Alerts:Email:Port is from 1 to 65535.";
        }
        if (email.Security is not ("StartTls" or "Tls" or "None"))
        {
            yield return "Alerts:Email:Security is StartTls, Tls or None.";
        }
        else if (email.Security == "None" && !email.AllowPlaintext && !ThisMachine.Is(email.Host))
        {
            yield return "Alerts:Email:Security is None, which only a loopback host may have: mail and password would cross the network readable. Use StartTls or Tls, "
                + "or set Alerts:Email:AllowPlaintext on a private network.";
        }
        if (string.IsNullOrEmpty(email.Username) != string.IsNullOrEmpty(email.Password))
        {
            yield return "Alerts:Email:Username and Alerts:Email:Password belong together: set both or none.";
        }
        if (email.Timeout < TimeSpan.FromSeconds(1) || email.Timeout > TimeSpan.FromSeconds(120))
        {
            yield return "Alerts:Email:Timeout is from 00:00:01 to 00:02:00.";
        }
    }

    private static IEnumerable<string> Email(EmailOptions email)
    {
        if (!email.Enabled)
        {
            yield break;
        }
        foreach (var problem in Server(email))
        {
            yield return problem;
        }
        if (EmailChannel.ParseAddress(email.From) is null)
        {
            yield return "Alerts:Email:From is missing or not one plain e-mail address.";
        }
        if (email.To.Count is 0 or > MostRecipients)
        {
            yield return $"Alerts:Email:To names 1 to {MostRecipients} addresses.";
        }
        for (var index = 0; index < email.To.Count; index++)
        {
            if (EmailChannel.ParseAddress(email.To[index]) is null)
            {
                yield return $"Alerts:Email:To:{index} is not one plain e-mail address.";
            }
        }
        if (email.EscalationTo.Count > MostRecipients)
        {
            yield return $"Alerts:Email:EscalationTo names at most {MostRecipients} addresses.";
        }
        for (var index = 0; index < email.EscalationTo.Count; index++)
        {
            if (EmailChannel.ParseAddress(email.EscalationTo[index]) is null)
            {
                yield return $"Alerts:Email:EscalationTo:{index} is not one plain e-mail address.";
            }
        }
    }
}

using System.Text.Json;
using System.Text.Json.Serialization;

namespace OrderService.Notifications;

/// <summary>What an alert is about; stable strings that webhook receivers compare.</summary>
public static class AlertKind
{
    /// <summary>A failure that was not seen before, or that came back after it had been resolved.</summary>
    public const string First = "first";

    /// <summary>Everything since the last digest, in one alert.</summary>
    public const string Digest = "digest";

    /// <summary>Nobody has looked at an incident for a while.</summary>
    public const string Reminder = "reminder";

    /// <summary>Nobody has acknowledged an incident in time.</summary>
    public const string Escalation = "escalation";

    /// <summary>No letter of an incident is left.</summary>
    public const string Recovery = "recovery";

    /// <summary>Something about the service itself that a person must mend, such as messages that it can't read.</summary>
    public const string Service = "service";

    /// <summary>The newest seal, once a day: to be kept, and compared when somebody doubts the store.</summary>
    public const string Seal = "seal";

    /// <summary>An operator tries the channels.</summary>
    public const string Test = "test";
}

/// <summary>An alert as stored: what every channel is handed.</summary>
/// <param name="Id">Its number in the store.</param>
/// <param name="Subject">One sentence without control characters.</param>
/// <param name="Text">The whole message as plain text.</param>
/// <param name="Content">The same as data.</param>
/// <param name="Letters">How many dead letters it is the first to tell of.</param>
public sealed record Alert(long Id, string Kind, string? Incident, string Subject, string Text, AlertContent Content, long Letters, DateTimeOffset CreatedAt)
{
    /// <summary>Names the alert everywhere, the same in each attempt: receivers use it to drop repeats.</summary>
    public string MessageId => Sender is null ? $"alert-{CreatedAt.ToUnixTimeMilliseconds():x}-{Id}" : $"alert-{CreatedAt.ToUnixTimeMilliseconds():x}-{Sender}";

    /// <summary>Makes the name of an alert unique that has no number, because it needs no store.</summary>
    public string? Sender { get; init; }

    /// <summary>What the channel noted of its recipients in the attempt before: who has it already.</summary>
    public string? Recipients { get; init; }
}

/// <summary>What an alert says, in business terms. Order ids are named, customers only counted; bodies and personal data never appear.</summary>
public sealed record AlertContent
{
    /// <summary>One of <see cref="AlertKind"/>.</summary>
    public required string Kind { get; init; }

    /// <summary>One sentence, also the subject of the mail.</summary>
    public required string Subject { get; init; }

    /// <summary>One or two sentences on what happened.</summary>
    public required string Summary { get; init; }

    /// <summary>What to do about it; null when there is nothing to do.</summary>
    public string? Advice { get; init; }

    /// <summary>Dead letters that no alert told of before.</summary>
    public long Letters { get; init; }

    public IReadOnlyList<AlertIncident> Incidents { get; init; } = [];

    /// <summary>Incidents that are counted in <see cref="Letters"/> but not listed.</summary>
    public long MoreIncidents { get; init; }

    public AlertHeld? Held { get; init; }

    /// <summary>Some of the orders concerned, at most ten.</summary>
    public IReadOnlyList<string> OrderIds { get; init; } = [];

    /// <summary>The newest seal of the store, as <c>NUMBER:HASH</c>; in digests and in the seal of the day.</summary>
    public string? Seal { get; init; }

    /// <summary>Where the admin page shows it.</summary>
    public string? Link { get; init; }
}

/// <summary>One kind of failure in an alert.</summary>
/// <param name="Letters">New dead letters of this kind.</param>
/// <param name="FirstLetter">The lowest number among them.</param>
/// <param name="LastLetter">The highest number among them.</param>
public sealed record AlertIncident(string Fingerprint, string Reason, string Title, string State, long Letters, long FirstLetter, long LastLetter);

/// <summary>What waits for an operator now.</summary>
/// <param name="Letters">Parked dead letters.</param>
/// <param name="Orders">Different orders among them, as far as their letters name one.</param>
/// <param name="Customers">Different customers.</param>
/// <param name="Value">The orders' value, by currency.</param>
/// <param name="OldestSince">When the oldest of them was parked.</param>
public sealed record AlertHeld(long Letters, long Orders, long Customers, IReadOnlyList<AlertAmount> Value, DateTimeOffset? OldestSince);

/// <param name="Minor">In minor units of the currency.</param>
/// <param name="Amount">The same as a decimal number, for example <c>149.70</c>.</param>
public sealed record AlertAmount(string Currency, long Minor, string Amount);

[JsonSourceGenerationOptions(JsonSerializerDefaults.Web, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(AlertContent))]
internal sealed partial class AlertJson : JsonSerializerContext;

using System.Text.Json.Serialization;

namespace OrderService.DeadLetters;

/// <summary>A letter in a list. <c>fingerprint</c> is its incident's.</summary>
internal sealed record LetterView(
    long Id, string Status, string Reason, string Detail, string? Field, string Fingerprint, string? Type, string? OrderId, string? CustomerId, Amount? Value,
    string? MessageId, string? CorrelationId, string Key,
    DateTimeOffset ParkedAt, DateTimeOffset OpenedAt, long Copies, long Replays, long Size, DateTimeOffset? ReplayedAt, DateTimeOffset? SettledAt, string? SettledBy, string? SettleReason)
{
    public static LetterView Of(LetterSummary letter) => new(
        letter.Id, letter.Status, letter.Reason, letter.Detail, letter.Field, letter.Incident, letter.Type, letter.OrderId, letter.CustomerId,
        letter.Value is { } value ? new Amount(value.Currency, value.Amount) : null, letter.MessageId, letter.CorrelationId, letter.Key, letter.ParkedAt, letter.OpenedAt, letter.Copies, letter.Replays, letter.BodyBytes,
        letter.ReplayedAt, letter.SettledAt, letter.SettledBy, letter.SettleReason);
}

/// <summary>Money: a decimal string with the currency's decimals.</summary>
internal sealed record Amount(string Currency, [property: JsonPropertyName("amount")] string Value);

using System.Globalization;
using OrderService.Domain;
using OrderService.Notifications;
using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>Writes alerts about dead letters in terms of the business: orders stuck, customers hit, money held, oldest age.</summary>
internal static class LetterAlerts
{
    private const int MostOrderIds = 10;
    private const int MostIncidents = 20;

    public static async Task<AlertContent> FirstAsync(StoreTransaction transaction, Incident incident, bool regressed, IReadOnlyList<long> letters, string? pageUrl)
    {
        var held = await HeldAsync(transaction, incident.Fingerprint);
        var what = letters.Count == 1 ? "1 message" : $"{letters.Count.ToString("N0", CultureInfo.InvariantCulture)} messages";
        return new AlertContent
        {
            Kind = AlertKind.First,
            Subject = $"{(regressed ? "It is back: " : "")}{incident.Title} - {Stuck(held)}",
            Summary = regressed
                ? $"A failure that had been resolved came back in version {DeadLetterParking.Build}. {incident.Title}: {what} became dead letters."
                : $"{incident.Title}: {what} became dead letters. This kind of failure was not seen before.",
            Advice = $"See them: orderservice dlq list --incident {incident.Fingerprint}",
            Letters = letters.Count,
            Incidents = [new AlertIncident(incident.Fingerprint, incident.Reason, incident.Title, regressed ? "regressed" : "new", letters.Count, letters.Min(), letters.Max())],
            Held = held,
            OrderIds = await LettersTable.OrderIdsOfIncidentAsync(transaction, incident.Fingerprint, MostOrderIds),
            Link = Link(pageUrl, incident.Fingerprint),
        };
    }

    /// <summary>One alert for all letters that carry <paramref name="alertId"/>.</summary>
    /// <param name="held">What all parked letters hold up.</param>
    public static async Task<AlertContent> DigestAsync(StoreTransaction transaction, long alertId, AlertHeld held, string? pageUrl)
    {
        var incidents = await LettersTable.CoveredAsync(transaction, alertId);
        PlantedBug.Plant("digest-leaves-one-out", () => incidents = [.. incidents.Skip(1)]);
        var letters = incidents.Sum(incident => incident.Letters);
        var kinds = incidents.Count == 1 ? "1 kind" : $"{incidents.Count} kinds";
        var messages = letters == 1 ? "1 more message" : $"{letters.ToString("N0", CultureInfo.InvariantCulture)} more messages";
        return new AlertContent
        {
            Kind = AlertKind.Digest,
            Subject = $"{messages} failed ({kinds}) - {Stuck(held)}",
            Summary = $"Since the last alert {messages} became dead letters, of {kinds}.",
            Advice = "See them: orderservice dlq list",
            Letters = letters,
            Incidents = [.. incidents.Take(MostIncidents).Select(row => new AlertIncident(row.Fingerprint, row.Reason, row.Title, row.State, row.Letters, row.FirstLetter, row.LastLetter))],
            MoreIncidents = Math.Max(0, incidents.Count - MostIncidents),
            Held = held,
            OrderIds = await LettersTable.OrderIdsOfAlertAsync(transaction, alertId, MostOrderIds),
            Link = Link(pageUrl, null),
        };
    }

    /// <summary>A reminder, an escalation or a recovery notice for some incidents.</summary>
    public static async Task<AlertContent> FollowUpAsync(StoreTransaction transaction, string kind, IReadOnlyList<string> fingerprints, string? pageUrl)
    {
        var incidents = await IncidentsTable.NamedAsync(transaction, fingerprints);
        var held = await HeldAsync(transaction, fingerprints.Count == 1 ? fingerprints[0] : null);
        var what = incidents.Count == 1 ? incidents[0].Title : $"{incidents.Count} kinds of failure";
        var (subject, summary, advice) = kind switch
        {
            AlertKind.Escalation => ($"Nobody has acknowledged it: {what} - {Stuck(held)}", $"{what}: letters have been waiting and nobody has acknowledged the incident.", "Acknowledge it, replay the letters or discard them."),
            AlertKind.Reminder => ($"Still waiting: {what} - {Stuck(held)}", $"{what}: letters still wait for an operator.", "Acknowledge the incident, replay the letters or discard them."),
            _ => ($"Over: {what}", $"{what}: no letter is left. The incident is resolved and alerts at once if it comes back.", (string?)null),
        };
        return new AlertContent
        {
            Kind = kind,
            Subject = subject,
            Summary = summary,
            Advice = advice,
            Incidents = [.. incidents.Take(MostIncidents).Select(row => new AlertIncident(row.Fingerprint, row.Reason, row.Title, row.State, 0, 0, 0))],
            MoreIncidents = Math.Max(0, incidents.Count - MostIncidents),
            Held = kind == AlertKind.Recovery ? null : held,
            Link = Link(pageUrl, fingerprints.Count == 1 ? fingerprints[0] : null),
        };
    }

    /// <summary>What waits for an operator: of one incident, or of all.</summary>
    public static async Task<AlertHeld> HeldAsync(StoreConnection connection, string? incident)
    {
        var counts = await LettersTable.CostsAsync(connection, incident);
        var values = await LettersTable.ValuesAsync(connection, incident);
        return new AlertHeld(
            counts.Letters, counts.Orders, counts.Customers,
            [.. values.Select(row => Amount(row.Currency, row.Value)).OfType<AlertAmount>()],
            counts.Oldest is { } oldest ? DateTimeOffset.FromUnixTimeMilliseconds(oldest) : null);
    }

    /// <summary>A sum as an amount; null for a currency nobody knows.</summary>
    public static AlertAmount? Amount(string code, double sum)
    {
        if (!Currency.TryGet(code, out var currency))
        {
            return null;
        }
        var minor = (long)Math.Clamp(Math.Round(sum), 0, 9e18);
        return new AlertAmount(currency.Code, minor, Money.Format(minor, currency));
    }

    private static string Stuck(AlertHeld held) => held.Orders switch
    {
        0 when held.Letters == 1 => "1 message is held",
        0 => string.Create(CultureInfo.InvariantCulture, $"{held.Letters:N0} messages are held"),
        1 => "1 order is stuck",
        _ => string.Create(CultureInfo.InvariantCulture, $"{held.Orders:N0} orders are stuck"),
    };

    private static string? Link(string? pageUrl, string? incident) =>
        string.IsNullOrEmpty(pageUrl) ? null : $"{pageUrl.TrimEnd('/')}/#/incidents{(incident is null ? "" : "/" + incident)}";
}

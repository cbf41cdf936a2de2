using System.Globalization;
using Dapper;
using OrderService.Domain;
using OrderService.Notifications;
using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>Writes alerts about dead letters in terms of the business: orders stuck, customers hit, money held, oldest age.</summary>
internal static class LetterAlerts
{
    private const int MostOrderIds = 10;
    private const int MostIncidents = 20;

    /// <summary>The order of a letter <c>l</c> as <c>o</c>, looked up where the letter itself does not say whose it is or what it is worth.</summary>
    public const string JoinOrders = "LEFT JOIN orders o ON o.order_id = CASE WHEN l.customer_id IS NULL OR l.currency IS NULL THEN l.order_id END";

    /// <summary>What counts as one order: it, or else the letter.</summary>
    public const string OneOrder = "coalesce(l.order_id, CAST(l.id AS TEXT))";

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
            OrderIds = await OrderIdsAsync(transaction, "l.incident = @incident AND l.status = 'parked'", new { incident = incident.Fingerprint }),
            Link = Link(pageUrl, incident.Fingerprint),
        };
    }

    /// <summary>One alert for all letters that carry <paramref name="alertId"/>.</summary>
    /// <param name="held">What all parked letters hold up.</param>
    public static async Task<AlertContent> DigestAsync(StoreTransaction transaction, long alertId, AlertHeld held, string? pageUrl)
    {
        var incidents = await transaction.QueryAsync<IncidentRow>(
            """
            SELECT l.incident AS fingerprint, i.reason, i.title, i.state, count(*) AS letters, min(l.id) AS first_letter, max(l.id) AS last_letter
            FROM dead_letters l JOIN incidents i ON i.fingerprint = l.incident
            WHERE l.alert_id = @alertId
            GROUP BY l.incident, i.reason, i.title, i.state ORDER BY count(*) DESC, l.incident
            """,
            new { alertId });
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
            OrderIds = await OrderIdsAsync(transaction, "l.alert_id = @alertId", new { alertId }),
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
        var of = incident is null ? "" : " AND l.incident = @incident";
        var counts = await connection.QuerySingleAsync<CountsRow>(
            $"""
            SELECT count(*) AS letters, count(DISTINCT l.order_id) AS orders, count(DISTINCT coalesce(l.customer_id, o.customer_id)) AS customers, min(l.parked_at) AS oldest
            FROM dead_letters l {JoinOrders} WHERE l.status = 'parked'{of}
            """,
            new { incident });
        // An order counts once, however many of its messages are parked; where the letter does not say what it is worth, the order does.
        // Added up as floating point: what a sender claims must not overflow a sum.
        var values = await connection.QueryAsync<ValueRow>(
            $"""
            SELECT currency, sum(CAST(value AS DOUBLE PRECISION)) AS value
            FROM (SELECT coalesce(l.currency, o.currency) AS currency, max(CASE WHEN l.currency IS NULL THEN o.total_minor ELSE l.value_minor END) AS value
                  FROM dead_letters l {JoinOrders}
                  WHERE l.status = 'parked'{of} AND coalesce(l.currency, o.currency) IS NOT NULL
                  GROUP BY coalesce(l.currency, o.currency), {OneOrder}) held
            GROUP BY currency ORDER BY 2 DESC
            """,
            new { incident });
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

    private static async Task<IReadOnlyList<string>> OrderIdsAsync(StoreTransaction transaction, string where, object parameters) =>
        await transaction.QueryAsync<string>(
            $"SELECT l.order_id FROM dead_letters l WHERE {where} AND l.order_id IS NOT NULL GROUP BY l.order_id ORDER BY min(l.id) LIMIT {MostOrderIds}", parameters);

    private static string Stuck(AlertHeld held) => held.Orders switch
    {
        0 when held.Letters == 1 => "1 message is held",
        0 => string.Create(CultureInfo.InvariantCulture, $"{held.Letters:N0} messages are held"),
        1 => "1 order is stuck",
        _ => string.Create(CultureInfo.InvariantCulture, $"{held.Orders:N0} orders are stuck"),
    };

    private static string? Link(string? pageUrl, string? incident) =>
        string.IsNullOrEmpty(pageUrl) ? null : $"{pageUrl.TrimEnd('/')}/#/incidents{(incident is null ? "" : "/" + incident)}";

    // Not positional records: SQLite has no type for an aggregate over no rows.
    private sealed class IncidentRow
    {
        public string Fingerprint { get; init; } = "";
        public string Reason { get; init; } = "";
        public string Title { get; init; } = "";
        public string State { get; init; } = "";
        public long Letters { get; init; }
        public long FirstLetter { get; init; }
        public long LastLetter { get; init; }
    }

    private sealed class CountsRow
    {
        public long Letters { get; init; }
        public long Orders { get; init; }
        public long Customers { get; init; }
        public long? Oldest { get; init; }
    }

    private sealed class ValueRow
    {
        public string Currency { get; init; } = "";
        public double Value { get; init; }
    }
}

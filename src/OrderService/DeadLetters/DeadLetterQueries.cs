using System.Text;
using System.Text.Json;
using Dapper;
using OrderService.Domain;
using OrderService.Notifications;
using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>Which letters; a null takes all.</summary>
/// <param name="Status">One of <see cref="LetterStatus"/>.</param>
/// <param name="Reason">One of the stable reasons.</param>
/// <param name="Incident">An incident's fingerprint.</param>
/// <param name="Text">Exactly an order id, customer id, message id, key or correlation id, or part of the detail.</param>
public sealed record LetterFilter(string? Status = null, string? Reason = null, string? Incident = null, string? OrderId = null, string? Text = null)
{
    /// <summary>The filter as conditions on <c>dead_letters l</c>.</summary>
    internal string Where(DynamicParameters parameters)
    {
        var conditions = new List<string>();
        Add("status", Status);
        Add("reason", Reason);
        Add("incident", Incident);
        Add("order_id", OrderId);
        if (Text is not null)
        {
            conditions.Add($"l.id IN ({LettersTable.TextSql})");
            parameters.Add("filter_text", Text);
            parameters.Add("filter_like", "%" + Text.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("%", "\\%", StringComparison.Ordinal).Replace("_", "\\_", StringComparison.Ordinal) + "%");
        }
        return conditions.Count == 0 ? "1 = 1" : string.Join(" AND ", conditions);

        void Add(string column, string? value)
        {
            if (value is not null)
            {
                conditions.Add($"l.{column} = @filter_{column}");
                parameters.Add("filter_" + column, value);
            }
        }
    }
}

/// <summary>Reads dead letters and incidents for the API, the command line and the admin page.</summary>
public sealed class DeadLetterQueries(IDatabase database, TimeProvider clock)
{
    /// <summary>The largest page.</summary>
    public const int MostRows = 500;

    /// <summary>How many hours <see cref="IncidentRecord.Hourly"/> looks back.</summary>
    public const int Hours = 24;

    /// <summary>Edited bodies beyond this are told of by their size; <see cref="ReplayBodyAsync"/> has them.</summary>
    private const int LongestShownBody = 64 * 1024;

    /// <summary>Letters, newest first.</summary>
    /// <param name="after">The number of the last letter of the page before.</param>
    /// <param name="limit">1 to <see cref="MostRows"/>.</param>
    public Task<IReadOnlyList<LetterSummary>> ListAsync(LetterFilter filter, long? after, int limit, CancellationToken cancellationToken) => database.ReadAsync<IReadOnlyList<LetterSummary>>(async connection =>
    {
        var rows = await LettersTable.ListAsync(connection, filter, after ?? long.MaxValue, Math.Clamp(limit, 1, MostRows));
        return [.. rows.Select(ToSummary)];
    }, cancellationToken);

    /// <summary>How many letters a filter takes.</summary>
    public Task<long> CountAsync(LetterFilter filter, CancellationToken cancellationToken) =>
        database.ReadAsync(connection => LettersTable.CountAsync(connection, filter), cancellationToken);

    /// <summary>One letter with everything but its body; null when there is none.</summary>
    public Task<LetterRecord?> GetAsync(long id, CancellationToken cancellationToken) => database.ReadAsync(async connection =>
    {
        var row = await LettersTable.GetAsync(connection, id);
        if (row is null)
        {
            return null;
        }
        var replays = await ReplaysTable.OfLetterAsync(connection, id, LongestShownBody);
        var alert = await AlertsTable.FindAsync(connection, row.AlertId);
        var history = await HistoryTable.OfLetterAsync(connection, row.Key, row.Id, 500);
        return new LetterRecord(
            ToSummary(row), Convert.ToHexStringLower(row.Fingerprint), row.Exception, Json(row.Properties) ?? default, Json(row.Deaths), row.ContentType, row.PreviousId, row.NextId,
            [.. replays.Select(ToRecord)],
            alert is null ? [] : [new LetterAlert(alert.Id, alert.Kind, alert.Subject, Time(alert.CreatedAt))],
            [.. history.Select(line => new LetterHistory(Time(line.At), line.Kind, line.Detail))]);
    }, cancellationToken);

    /// <summary>A letter's exact bytes; null when there is no such letter.</summary>
    public Task<LetterBody?> BodyAsync(long id, CancellationToken cancellationToken) =>
        database.ReadAsync(connection => LettersTable.BodyAsync(connection, id), cancellationToken);

    /// <summary>The edited bytes of one replay; null when the original ones went out.</summary>
    public Task<LetterBody?> ReplayBodyAsync(long letterId, long replayId, CancellationToken cancellationToken) => database.ReadAsync(
        connection => ReplaysTable.BodyAsync(connection, letterId, replayId), cancellationToken);

    /// <summary>All incidents, those with parked letters and the latest first.</summary>
    public async Task<IReadOnlyList<IncidentRecord>> IncidentsAsync(CancellationToken cancellationToken) =>
        await IncidentsAsync(null, await CostsAsync(null, cancellationToken), cancellationToken);

    /// <summary>One incident; null when there is none.</summary>
    public async Task<IncidentRecord?> IncidentAsync(string fingerprint, CancellationToken cancellationToken) =>
        (await IncidentsAsync(fingerprint, await CostsAsync(fingerprint, cancellationToken), cancellationToken)).SingleOrDefault();

    /// <summary>Incidents as they are, with costs that may be a little older.</summary>
    internal Task<IReadOnlyList<IncidentRecord>> IncidentsAsync(
        string? fingerprint, IReadOnlyDictionary<string, IncidentCosts> costs, CancellationToken cancellationToken) => database.ReadAsync<IReadOnlyList<IncidentRecord>>(async connection =>
    {
        var rows = await IncidentsTable.ListAsync(connection, fingerprint);
        return [.. rows.Select(row => ToRecord(row, costs.GetValueOrDefault(row.Fingerprint) ?? IncidentCosts.None))];
    }, cancellationToken);

    /// <summary>What incidents cost, by their fingerprints: takes a look at every parked letter.</summary>
    internal Task<IReadOnlyDictionary<string, IncidentCosts>> CostsAsync(string? fingerprint, CancellationToken cancellationToken) =>
        database.ReadAsync<IReadOnlyDictionary<string, IncidentCosts>>(async connection =>
    {
        var counts = (await LettersTable.CostsByIncidentAsync(connection, fingerprint)).ToDictionary(row => row.Incident);
        var values = (await LettersTable.ValuesByIncidentAsync(connection, fingerprint)).ToLookup(row => row.Incident);
        var hours = (await LettersTable.HoursAsync(connection, fingerprint, clock.GetUtcNow().ToUnixTimeMilliseconds(), Hours)).ToLookup(row => row.Incident);
        var incidents = await IncidentsTable.FingerprintsAsync(connection, fingerprint);
        return incidents.ToDictionary(incident => incident, incident =>
        {
            var count = counts.GetValueOrDefault(incident);
            return new IncidentCosts(
                count?.Orders ?? 0, count?.Customers ?? 0, [.. values[incident].Select(value => LetterAlerts.Amount(value.Currency, value.Value)).OfType<AlertAmount>()],
                Time(count?.Oldest), Hourly(hours[incident]));
        });
    }, cancellationToken);

    private static long[] Hourly(IEnumerable<LettersOfHour> rows)
    {
        var hourly = new long[Hours];
        foreach (var row in rows)
        {
            // What another instance's clock put into the future counts as now.
            hourly[Hours - 1 - Math.Max(0, row.HoursAgo)] += row.Letters;
        }
        return hourly;
    }

    private static DateTimeOffset Time(long milliseconds) => DateTimeOffset.FromUnixTimeMilliseconds(milliseconds);

    private static DateTimeOffset? Time(long? milliseconds) => milliseconds is { } value ? Time(value) : null;

    private static JsonElement? Json(string? text)
    {
        if (text is null)
        {
            return null;
        }
        using var document = JsonDocument.Parse(text);
        return document.RootElement.Clone();
    }

    // Where nothing is parked nothing is held, however old the costs are.
    private static IncidentRecord ToRecord(IncidentRow row, IncidentCosts costs) => new(
        row.Fingerprint, row.Reason, row.Title, row.Field, row.Exception, row.State, row.Letters, row.Parked, row.Replayed, row.Parked == 0 ? 0 : costs.Orders,
        row.Parked == 0 ? 0 : costs.Customers, row.Parked == 0 ? [] : costs.Value, row.Parked == 0 ? null : costs.OldestParked, Time(row.FirstSeen), Time(row.LastSeen),
        row.FirstBuild, row.LastBuild, row.RegressedBuild, row.StateBy, Time(row.StateAt), Time(row.MutedUntil), Time(row.LastAlertAt), costs.Hourly);

    private static ReplayRecord ToRecord(ReplayRow row) => new(
        row.Id, row.JobId, row.BodyBytes is not null, row.Body is null ? null : Encoding.UTF8.GetString(row.Body), row.BodyBytes, row.RequestedBy, row.Reason,
        Time(row.RequestedAt), row.Outcome, row.Detail, Time(row.FinishedAt), Json(row.Change));

    private static LetterSummary ToSummary(LetterRow row) => new(
        row.Id, row.Key, row.Incident, row.Status, row.Reason, row.Detail, row.Field, row.Type, row.MessageId, row.CorrelationId, row.OrderId, row.CustomerId,
        Currency.TryGet(row.Currency, out var currency) && row.ValueMinor is { } minor ? new AlertAmount(currency.Code, minor, Money.Format(minor, currency)) : null,
        row.BodyBytes, Time(row.ParkedAt), Time(row.OpenedAt), row.Copies, row.Replays, Time(row.ReplayedAt), Time(row.SettledAt), row.SettledBy, row.SettleReason, row.AlertId);
}

/// <summary>A letter in a list.</summary>
/// <param name="Incident">The fingerprint of its incident.</param>
/// <param name="Value">What the order is worth by its own account; null when the body does not say.</param>
/// <param name="ParkedAt">When it was parked first.</param>
/// <param name="OpenedAt">When it was parked last.</param>
/// <param name="Copies">How often the message came here; what the broker hands out again after a crash can count twice.</param>
/// <param name="AlertId">The alert that told of it.</param>
public sealed record LetterSummary(
    long Id, string Key, string Incident, string Status, string Reason, string Detail, string? Field, string? Type, string? MessageId, string? CorrelationId, string? OrderId, string? CustomerId,
    AlertAmount? Value, long BodyBytes, DateTimeOffset ParkedAt, DateTimeOffset OpenedAt, long Copies, long Replays, DateTimeOffset? ReplayedAt,
    DateTimeOffset? SettledAt, string? SettledBy, string? SettleReason, long? AlertId);

/// <summary>All about a letter but its body.</summary>
/// <param name="Fingerprint">SHA-256 of type and body, in hex.</param>
/// <param name="Exception">Type and stack.</param>
/// <param name="Properties">All AMQP properties and headers as they came.</param>
/// <param name="Deaths">The broker's death table.</param>
/// <param name="PreviousId">The parked letter before it in the same incident.</param>
/// <param name="NextId">The parked letter after it in the same incident.</param>
public sealed record LetterRecord(
    LetterSummary Letter, string Fingerprint, string? Exception, JsonElement Properties, JsonElement? Deaths, string? ContentType, long? PreviousId, long? NextId,
    IReadOnlyList<ReplayRecord> Replays, IReadOnlyList<LetterAlert> Alerts, IReadOnlyList<LetterHistory> History);

/// <param name="Body">The edited text; null when the original bytes went out, or when it is long.</param>
/// <param name="BodyBytes">The size of the edited body; null when the original bytes went out.</param>
/// <param name="Outcome">Null while under way; <c>resolved</c> or <c>failed</c>.</param>
/// <param name="Change">What was changed beside the body: <c>{type, contentType, contentEncoding, key}</c>, each with <c>before</c> and <c>after</c>.</param>
public sealed record ReplayRecord(
    long Id, long? JobId, bool Edited, string? Body, long? BodyBytes, string RequestedBy, string? Reason, DateTimeOffset RequestedAt, string? Outcome,
    string? Detail, DateTimeOffset? FinishedAt, JsonElement? Change);

/// <summary>The alert that told of a letter.</summary>
public sealed record LetterAlert(long Id, string Kind, string Subject, DateTimeOffset CreatedAt);

public sealed record LetterHistory(DateTimeOffset At, string Kind, string Detail);

/// <summary>What takes a look at every letter of an incident: its orders, customers and money, and how its letters came.</summary>
internal sealed record IncidentCosts(long Orders, long Customers, IReadOnlyList<AlertAmount> Value, DateTimeOffset? OldestParked, IReadOnlyList<long> Hourly)
{
    public static IncidentCosts None { get; } = new(0, 0, [], null, new long[DeadLetterQueries.Hours]);
}

/// <summary>A kind of failure and what it costs now.</summary>
/// <param name="State"><c>new</c>, <c>acknowledged</c>, <c>resolved</c> or <c>regressed</c>.</param>
/// <param name="Letters">All letters there ever were.</param>
/// <param name="Parked">Letters that wait for an operator.</param>
/// <param name="Value">What the parked letters' orders are worth.</param>
/// <param name="Hourly">How many letters came in each of the last 24 hours, the oldest first; the last is the hour up to now.</param>
public sealed record IncidentRecord(
    string Fingerprint, string Reason, string Title, string? Field, string? Exception, string State, long Letters, long Parked, long Replayed, long Orders, long Customers,
    IReadOnlyList<AlertAmount> Value, DateTimeOffset? OldestParked, DateTimeOffset FirstSeen, DateTimeOffset LastSeen, string FirstBuild, string LastBuild, string? RegressedBuild,
    string? StateBy, DateTimeOffset? StateAt, DateTimeOffset? MutedUntil, DateTimeOffset? LastAlertAt,
    IReadOnlyList<long> Hourly);

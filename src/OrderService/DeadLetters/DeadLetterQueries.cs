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
            conditions.Add("(l.order_id = @filter_text OR l.customer_id = @filter_text OR l.message_id = @filter_text OR l.key = @filter_text OR l.correlation_id = @filter_text OR l.detail LIKE @filter_like ESCAPE '\\')");
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

    private const long Hour = 3_600_000;

    private const string SummaryColumns =
        """
        l.id, l.key, l.incident, l.status, l.reason, l.detail, l.field, l.type,
        l.message_id, l.correlation_id, l.order_id, l.customer_id, l.currency, l.value_minor, length(l.body) AS body_bytes,
        l.parked_at, l.opened_at, l.copies, l.replays, l.replayed_at,
        l.settled_at, l.settled_by, l.settle_reason, l.alert_id
        """;

    /// <summary>Letters, newest first.</summary>
    /// <param name="after">The number of the last letter of the page before.</param>
    /// <param name="limit">1 to <see cref="MostRows"/>.</param>
    public Task<IReadOnlyList<LetterSummary>> ListAsync(LetterFilter filter, long? after, int limit, CancellationToken cancellationToken) => database.ReadAsync<IReadOnlyList<LetterSummary>>(async connection =>
    {
        var parameters = new DynamicParameters(new { after = after ?? long.MaxValue, limit = Math.Clamp(limit, 1, MostRows) });
        var rows = await connection.QueryAsync<LetterRow>(
            $"SELECT {SummaryColumns} FROM dead_letters l WHERE l.id < @after AND {filter.Where(parameters)} ORDER BY l.id DESC LIMIT @limit", parameters);
        return [.. rows.Select(row => row.ToSummary())];
    }, cancellationToken);

    /// <summary>How many letters a filter takes.</summary>
    public Task<long> CountAsync(LetterFilter filter, CancellationToken cancellationToken) => database.ReadAsync(connection =>
    {
        var parameters = new DynamicParameters();
        return connection.ExecuteScalarAsync<long>($"SELECT count(*) FROM dead_letters l WHERE {filter.Where(parameters)}", parameters);
    }, cancellationToken);

    /// <summary>One letter with everything but its body; null when there is none.</summary>
    public Task<LetterRecord?> GetAsync(long id, CancellationToken cancellationToken) => database.ReadAsync(async connection =>
    {
        var row = await connection.QuerySingleOrDefaultAsync<LetterRow>(
            $"""
            SELECT {SummaryColumns}, l.exception, l.properties, l.deaths, l.content_type, l.fingerprint,
                   (SELECT max(p.id) FROM dead_letters p WHERE p.incident = l.incident AND p.status = 'parked' AND p.id < l.id) AS previous_id,
                   (SELECT min(n.id) FROM dead_letters n WHERE n.incident = l.incident AND n.status = 'parked' AND n.id > l.id) AS next_id
            FROM dead_letters l WHERE l.id = @id
            """,
            new { id });
        if (row is null)
        {
            return null;
        }
        var replays = await ReplaysTable.OfLetterAsync(connection, id, LongestShownBody);
        var alert = await AlertsTable.FindAsync(connection, row.AlertId);
        var history = await HistoryTable.OfLetterAsync(connection, row.Key, row.Id, 500);
        return new LetterRecord(
            row.ToSummary(), Convert.ToHexStringLower(row.Fingerprint), row.Exception, Json(row.Properties) ?? default, Json(row.Deaths), row.ContentType, row.PreviousId, row.NextId,
            [.. replays.Select(ToRecord)],
            alert is null ? [] : [new LetterAlert(alert.Id, alert.Kind, alert.Subject, Time(alert.CreatedAt))],
            [.. history.Select(line => new LetterHistory(Time(line.At), line.Kind, line.Detail))]);
    }, cancellationToken);

    /// <summary>A letter's exact bytes; null when there is no such letter.</summary>
    public Task<byte[]?> BodyAsync(long id, CancellationToken cancellationToken) =>
        database.ReadAsync(connection => connection.ExecuteScalarAsync<byte[]?>("SELECT body FROM dead_letters WHERE id = @id", new { id }), cancellationToken);

    /// <summary>The edited bytes of one replay; null when the original ones went out.</summary>
    public Task<byte[]?> ReplayBodyAsync(long letterId, long replayId, CancellationToken cancellationToken) => database.ReadAsync(
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
        var andLetters = fingerprint is null ? "" : "AND l.incident = @fingerprint";
        var counts = (await connection.QueryAsync<CountRow>(
            $"""
            SELECT l.incident, count(DISTINCT l.order_id) AS orders, count(DISTINCT coalesce(l.customer_id, o.customer_id)) AS customers, min(l.parked_at) AS oldest
            FROM dead_letters l {LetterAlerts.JoinOrders} WHERE l.status = 'parked' {andLetters} GROUP BY l.incident
            """,
            new { fingerprint })).ToDictionary(row => row.Incident);
        var values = (await connection.QueryAsync<ValueRow>(
            $"""
            SELECT incident, currency, sum(CAST(value AS DOUBLE PRECISION)) AS value
            FROM (SELECT l.incident AS incident, coalesce(l.currency, o.currency) AS currency, max(CASE WHEN l.currency IS NULL THEN o.total_minor ELSE l.value_minor END) AS value
                  FROM dead_letters l {LetterAlerts.JoinOrders}
                  WHERE l.status = 'parked' {andLetters} AND coalesce(l.currency, o.currency) IS NOT NULL
                  GROUP BY l.incident, coalesce(l.currency, o.currency), {LetterAlerts.OneOrder}) held
            GROUP BY incident, currency ORDER BY 3 DESC
            """,
            new { fingerprint })).ToLookup(row => row.Incident);
        var now = clock.GetUtcNow().ToUnixTimeMilliseconds();
        var hours = (await connection.QueryAsync<HourRow>(
            $"""
            SELECT l.incident, (@now - l.parked_at) / {Hour} AS hours_ago, count(*) AS letters FROM dead_letters l
            WHERE l.status <> 'superseded' AND l.parked_at > @since {andLetters} GROUP BY 1, 2
            """,
            new { fingerprint, now, since = now - (Hours * Hour) })).ToLookup(row => row.Incident);
        var incidents = await IncidentsTable.FingerprintsAsync(connection, fingerprint);
        return incidents.ToDictionary(incident => incident, incident =>
        {
            var count = counts.GetValueOrDefault(incident);
            return new IncidentCosts(
                count?.Orders ?? 0, count?.Customers ?? 0, [.. values[incident].Select(value => LetterAlerts.Amount(value.Currency, value.Value)).OfType<AlertAmount>()],
                Time(count?.Oldest), Hourly(hours[incident]));
        });
    }, cancellationToken);

    private static long[] Hourly(IEnumerable<HourRow> rows)
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

    private sealed class LetterRow
    {
        public long Id { get; init; }
        public string Key { get; init; } = "";
        public string Incident { get; init; } = "";
        public string Status { get; init; } = "";
        public string Reason { get; init; } = "";
        public string Detail { get; init; } = "";
        public string? Field { get; init; }
        public string? Type { get; init; }
        public string? OrderId { get; init; }
        public string? CustomerId { get; init; }
        public string? Currency { get; init; }
        public long? ValueMinor { get; init; }
        public long BodyBytes { get; init; }
        public long ParkedAt { get; init; }
        public long OpenedAt { get; init; }
        public long Copies { get; init; }
        public long Replays { get; init; }
        public long? ReplayedAt { get; init; }
        public long? SettledAt { get; init; }
        public string? SettledBy { get; init; }
        public string? SettleReason { get; init; }
        public long? AlertId { get; init; }
        public string? Exception { get; init; }
        public string? Properties { get; init; }
        public string? Deaths { get; init; }
        public string? ContentType { get; init; }
        public string? MessageId { get; init; }
        public string? CorrelationId { get; init; }
        public byte[] Fingerprint { get; init; } = [];
        public long? PreviousId { get; init; }
        public long? NextId { get; init; }

        public LetterSummary ToSummary() => new(
            Id, Key, Incident, Status, Reason, Detail, Field, Type, MessageId, CorrelationId, OrderId, CustomerId,
            Domain.Currency.TryGet(Currency, out var currency) && ValueMinor is { } minor ? new AlertAmount(currency.Code, minor, Money.Format(minor, currency)) : null,
            BodyBytes, Time(ParkedAt), Time(OpenedAt), Copies, Replays, Time(ReplayedAt), Time(SettledAt), SettledBy, SettleReason, AlertId);
    }

    private sealed class CountRow
    {
        public string Incident { get; init; } = "";
        public long Orders { get; init; }
        public long Customers { get; init; }
        public long? Oldest { get; init; }
    }

    private sealed class HourRow
    {
        public string Incident { get; init; } = "";
        public long HoursAgo { get; init; }
        public long Letters { get; init; }
    }

    private sealed class ValueRow
    {
        public string Incident { get; init; } = "";
        public string Currency { get; init; } = "";
        public double Value { get; init; }
    }
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

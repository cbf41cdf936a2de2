using Dapper;
using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>Kinds of failure: what operators say about each, and when somebody was told.</summary>
internal static class IncidentsTable
{
    /// <summary>Incidents that are to be quiet, for a statement with <c>@now</c>.</summary>
    internal const string SelectMuted = "SELECT fingerprint FROM incidents WHERE muted_until > @now";

    /// <summary>Adds letters to an incident, which is made with the first.</summary>
    public static async Task<IncidentChange> CountAsync(StoreTransaction transaction, Incident incident, int letters, string build, long now)
    {
        var values = new { incident.Fingerprint, incident.Reason, incident.Title, incident.Field, incident.Exception, letters, now, build };
        if (await transaction.ExecuteAsync(
            """
            INSERT INTO incidents (fingerprint, reason, title, field, exception, state, letters, first_seen, last_seen, first_build, last_build, state_at)
            VALUES (@Fingerprint, @Reason, @Title, @Field, @Exception, 'new', @letters, @now, @now, @build, @build, @now)
            ON CONFLICT (fingerprint) DO NOTHING
            """,
            values) == 1)
        {
            return IncidentChange.New;
        }
        var regressed = await transaction.ExecuteAsync(
            """
            UPDATE incidents SET state = 'regressed', regressed_build = @build, state_by = NULL, state_at = @now, escalated_at = NULL
            WHERE fingerprint = @Fingerprint AND state = 'resolved'
            """,
            values) == 1;
        await transaction.ExecuteAsync(
            "UPDATE incidents SET letters = letters + @letters, last_seen = @now, last_build = @build WHERE fingerprint = @Fingerprint", values);
        return regressed ? IncidentChange.Regressed : IncidentChange.None;
    }

    public static Task<bool> IsMutedAsync(StoreConnection connection, string fingerprint, long now) => connection.ExecuteScalarAsync<bool>(
        "SELECT EXISTS (SELECT 1 FROM incidents WHERE fingerprint = @fingerprint AND muted_until > @now)", new { fingerprint, now });

    public static Task SetAlertedAsync(StoreTransaction transaction, string fingerprint, long now) =>
        transaction.ExecuteAsync("UPDATE incidents SET last_alert_at = @now WHERE fingerprint = @fingerprint", new { fingerprint, now });

    /// <returns>False when there is no such incident.</returns>
    public static async Task<bool> SetStateAsync(StoreTransaction transaction, string fingerprint, string state, string who, long now) =>
        await transaction.ExecuteAsync(
            "UPDATE incidents SET state = @state, state_by = @who, state_at = @now WHERE fingerprint = @fingerprint",
            new { fingerprint, state, who, now }) == 1;

    /// <param name="until">Null ends it.</param>
    /// <returns>False when there is no such incident.</returns>
    public static async Task<bool> MuteAsync(StoreTransaction transaction, string fingerprint, long? until) =>
        await transaction.ExecuteAsync("UPDATE incidents SET muted_until = @until WHERE fingerprint = @fingerprint", new { fingerprint, until }) == 1;

    /// <summary>Incidents that a step is due for.</summary>
    public static Task<List<string>> DueAsync(StoreConnection connection, IncidentStep step, IncidentTimes times) =>
        connection.QueryAsync<string>($"SELECT i.fingerprint FROM incidents i WHERE {step.Which} ORDER BY i.fingerprint", times);

    /// <summary>Takes a step. They are looked at once more: another instance may have told of them, or a reminder is no news beside an escalation.</summary>
    /// <returns>Those that it was due for.</returns>
    public static Task<List<string>> TakeAsync(StoreTransaction transaction, IReadOnlyCollection<string> fingerprints, IncidentStep step, IncidentTimes times)
    {
        var parameters = new DynamicParameters(times);
        var list = SqlList.Add(parameters, "fingerprint", fingerprints);
        return transaction.QueryAsync<string>(
            $"UPDATE incidents AS i SET {step.Change} WHERE i.fingerprint IN {list} AND ({step.Which}) RETURNING fingerprint", parameters);
    }

    /// <summary>Incidents with how many of their letters are open, those with parked letters and the latest first.</summary>
    /// <param name="fingerprint">Only this one.</param>
    public static Task<List<IncidentRow>> ListAsync(StoreConnection connection, string? fingerprint) => connection.QueryAsync<IncidentRow>(ListSql(fingerprint), new { fingerprint });

    /// <summary>The open letters are counted once for all incidents, along an index that has nothing else in it.</summary>
    internal static string ListSql(string? fingerprint) =>
        $"""
        SELECT i.fingerprint, i.reason, i.title, i.field, i.exception, i.state, i.letters, i.first_seen, i.last_seen,
               i.first_build, i.last_build, i.regressed_build, i.state_by, i.state_at, i.muted_until, i.last_alert_at,
               coalesce(parked.letters, 0) AS parked, coalesce(replayed.letters, 0) AS replayed
        FROM incidents i
        LEFT JOIN ({Open("parked", fingerprint)}) parked ON parked.incident = i.fingerprint
        LEFT JOIN ({Open("replayed", fingerprint)}) replayed ON replayed.incident = i.fingerprint
        {(fingerprint is null ? "" : "WHERE i.fingerprint = @fingerprint")}
        ORDER BY CASE WHEN coalesce(parked.letters, 0) > 0 THEN 0 ELSE 1 END, i.last_seen DESC, i.fingerprint LIMIT 1000
        """;

    private static string Open(string status, string? fingerprint) =>
        $"SELECT l.incident, count(*) AS letters FROM dead_letters l WHERE l.status = '{status}'{(fingerprint is null ? "" : " AND l.incident = @fingerprint")} GROUP BY l.incident";

    /// <param name="fingerprint">Only this one.</param>
    public static Task<List<string>> FingerprintsAsync(StoreConnection connection, string? fingerprint) => connection.QueryAsync<string>(
        $"SELECT i.fingerprint FROM incidents i {(fingerprint is null ? "" : "WHERE i.fingerprint = @fingerprint")}", new { fingerprint });

    /// <summary>These incidents, those with the most letters first.</summary>
    public static Task<List<NamedIncident>> NamedAsync(StoreConnection connection, IReadOnlyCollection<string> fingerprints)
    {
        var parameters = new DynamicParameters();
        var list = SqlList.Add(parameters, "fingerprint", fingerprints);
        return connection.QueryAsync<NamedIncident>(
            $"SELECT fingerprint, reason, title, state FROM incidents WHERE fingerprint IN {list} ORDER BY letters DESC, fingerprint", parameters);
    }

    /// <summary>How many there are in each state, those that are muted apart.</summary>
    public static Task<List<(string State, long Muted, long Incidents)>> CountsAsync(StoreConnection connection, long now) =>
        connection.QueryAsync<(string, long, long)>(
            "SELECT state, CASE WHEN muted_until > @now THEN 1 ELSE 0 END, count(*) FROM incidents GROUP BY 1, 2", new { now });

    private const string Old =
        "state = 'resolved' AND state_at <= @before AND coalesce(muted_until, 0) <= @before AND NOT EXISTS (SELECT 1 FROM dead_letters l WHERE l.incident = incidents.fingerprint)";

    /// <summary>How many were resolved before a time and have no letter any more.</summary>
    public static Task<long> CountOldAsync(StoreConnection connection, long before) =>
        connection.ExecuteScalarAsync<long>($"SELECT count(*) FROM incidents WHERE {Old}", new { before });

    public static Task<List<string>> OldAsync(StoreConnection connection, long before, int most) =>
        connection.QueryAsync<string>($"SELECT fingerprint FROM incidents WHERE {Old} ORDER BY fingerprint LIMIT @most", new { before, most });

    public static async Task<long> RemoveOldAsync(StoreTransaction transaction, string fingerprint, long before) =>
        await transaction.ExecuteAsync($"DELETE FROM incidents WHERE fingerprint = @fingerprint AND {Old}", new { fingerprint, before });

    /// <summary>Follows a step of the store's clock.</summary>
    /// <param name="before">What the clock said before it.</param>
    public static async Task MoveAsync(StoreTransaction transaction, long step, long before)
    {
        await transaction.ExecuteAsync(
            """
            UPDATE incidents SET state_at = state_at + @step, last_alert_at = last_alert_at + @step, last_seen = last_seen + @step WHERE state <> 'resolved'
            """,
            new { step });
        await transaction.ExecuteAsync("UPDATE incidents SET muted_until = muted_until + @step WHERE muted_until > @before", new { step, before });
    }
}

/// <summary>What letters made of their incident.</summary>
internal enum IncidentChange
{
    None,
    New,
    Regressed,
}

/// <summary>The times that steps are due by, in Unix milliseconds.</summary>
/// <param name="Beyond">Nothing happens in the future: what says so is from before the clock was set back, and old enough.</param>
/// <param name="Escalate">What nobody acknowledged since then is escalated.</param>
/// <param name="Remind">What nobody was told of since then is told again.</param>
/// <param name="Quiet">What had its last letter before then, and has none left, is over.</param>
internal sealed record IncidentTimes(long Now, long Beyond, long Escalate, long Remind, long Quiet);

/// <summary>A step of an incident: which ones it is due for, and what it changes in them.</summary>
internal sealed record IncidentStep(string Which, string Change)
{
    private const string Unattended =
        """
        i.state IN ('new', 'regressed') AND coalesce(i.muted_until, 0) <= @Now
        AND EXISTS (SELECT 1 FROM dead_letters l WHERE l.incident = i.fingerprint AND l.status = 'parked')
        """;

    public static IncidentStep Escalate { get; } = new(
        $"i.escalated_at IS NULL AND (i.state_at <= @Escalate OR i.state_at > @Beyond) AND {Unattended}", "escalated_at = @Now, last_alert_at = @Now");

    public static IncidentStep Remind { get; } = new($"(i.last_alert_at <= @Remind OR i.last_alert_at > @Beyond) AND {Unattended}", "last_alert_at = @Now");

    public static IncidentStep End { get; } = new(
        """
        i.state <> 'resolved' AND (i.last_seen <= @Quiet OR i.last_seen > @Beyond)
        AND NOT EXISTS (SELECT 1 FROM dead_letters l WHERE l.incident = i.fingerprint AND l.status IN ('parked', 'replayed'))
        """,
        "state = 'resolved', state_by = 'order flow', state_at = @Now, escalated_at = NULL");

    /// <summary>A digest told of them.</summary>
    public static IncidentStep Mention { get; } = new("true", "last_alert_at = @Now");
}

internal sealed class NamedIncident
{
    public string Fingerprint { get; init; } = "";
    public string Reason { get; init; } = "";
    public string Title { get; init; } = "";
    public string State { get; init; } = "";
}

internal sealed class IncidentRow
{
    public string Fingerprint { get; init; } = "";
    public string Reason { get; init; } = "";
    public string Title { get; init; } = "";
    public string? Field { get; init; }
    public string? Exception { get; init; }
    public string State { get; init; } = "";
    public long Letters { get; init; }
    public long FirstSeen { get; init; }
    public long LastSeen { get; init; }
    public string FirstBuild { get; init; } = "";
    public string LastBuild { get; init; } = "";
    public string? RegressedBuild { get; init; }
    public string? StateBy { get; init; }
    public long? StateAt { get; init; }
    public long? MutedUntil { get; init; }
    public long? LastAlertAt { get; init; }
    public long Parked { get; init; }
    public long Replayed { get; init; }
}

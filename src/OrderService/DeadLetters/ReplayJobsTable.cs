using Dapper;
using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>Replay jobs and the letters of each. A job's row is the lock for both: it is written first.</summary>
internal static class ReplayJobsTable
{
    public static Task<long> AddAsync(StoreTransaction transaction, ReplayJobRequest request, long now) => transaction.ExecuteScalarAsync<long>(
        """
        INSERT INTO replay_jobs (state, mode, rate, letter_limit, confirmed, reason, requested_by, requested_at, state_by, state_at, total, patch)
        VALUES ('running', @Mode, @RatePerSecond, @Limit, @confirmed, @Reason, @Who, @now, @Who, @now, 0, @patch) RETURNING id
        """,
        new
        {
            request.Mode,
            request.RatePerSecond,
            request.Selection.Limit,
            confirmed = request.Selection.Confirmed ? 1L : 0,
            request.Reason,
            Who = request.Who.Shown,
            now,
            patch = request.Patch?.ToJson(),
        });

    /// <summary>Fixes a job's letters.</summary>
    /// <returns>How many it has.</returns>
    public static async Task<int> AddLettersAsync(StoreTransaction transaction, long id, LetterSelection selection)
    {
        var parameters = new DynamicParameters(new { id, most = selection.Limit ?? long.MaxValue });
        var total = await transaction.ExecuteAsync(
            $"""
            INSERT INTO replay_job_letters (job_id, letter_id) SELECT @id, l.id FROM dead_letters l WHERE {selection.Where(parameters)}
            ORDER BY l.id LIMIT @most
            """,
            parameters);
        await transaction.ExecuteAsync("UPDATE replay_jobs SET total = @total WHERE id = @id", new { id, total });
        return total;
    }

    public static Task RemoveAsync(StoreTransaction transaction, long id) => transaction.ExecuteAsync("DELETE FROM replay_jobs WHERE id = @id", new { id });

    /// <summary>Jobs, newest first.</summary>
    public static async Task<IReadOnlyList<ReplayJob>> ListAsync(StoreConnection connection, long after, int limit) =>
        Jobs(await connection.QueryAsync<Row>($"{Select} WHERE id < @after ORDER BY id DESC LIMIT @limit", new { after, limit }));

    public static async Task<ReplayJob?> FindAsync(StoreConnection connection, long id) =>
        (await connection.QuerySingleOrDefaultAsync<Row>($"{Select} WHERE id = @id", new { id }))?.ToJob();

    /// <summary>Jobs that run, or whose letters are still on their way.</summary>
    public static async Task<IReadOnlyList<ReplayJob>> OpenAsync(StoreConnection connection) =>
        Jobs(await connection.QueryAsync<Row>($"{Select} WHERE state = 'running' OR sent > succeeded + failed ORDER BY id"));

    /// <summary>Jobs that run, and when each was started or resumed.</summary>
    public static Task<List<(long Id, long StateAt)>> RunningAsync(StoreConnection connection) =>
        connection.QueryAsync<(long, long)>("SELECT id, state_at FROM replay_jobs WHERE state = 'running'");

    /// <summary>The first letters of a job that failed and the first that were skipped.</summary>
    public static Task<List<JobLetter>> FailuresAsync(StoreConnection connection, long id, int most) => connection.QueryAsync<JobLetter>(
        """
        SELECT * FROM (
            SELECT j.letter_id, l.order_id, j.state, j.reason, j.detail
            FROM replay_job_letters j JOIN dead_letters l ON l.id = j.letter_id
            WHERE j.job_id = @id AND j.state = 'failed' ORDER BY j.letter_id LIMIT @most) AS failed
        UNION ALL
        SELECT * FROM (
            SELECT j.letter_id, l.order_id, j.state, j.reason, j.detail
            FROM replay_job_letters j JOIN dead_letters l ON l.id = j.letter_id
            WHERE j.job_id = @id AND j.state = 'skipped' ORDER BY j.letter_id LIMIT @most) AS skipped
        """,
        new { id, most });

    /// <summary>Pauses, resumes or cancels a job. A runner that is sending is waited for, and the next one sees the new state.</summary>
    /// <returns>False where its state does not allow it.</returns>
    public static async Task<bool> ChangeAsync(StoreTransaction transaction, long id, string to, string who, string? why, long now)
    {
        var from = to switch
        {
            ReplayJobState.Paused => "state = 'running'",
            ReplayJobState.Running => "state = 'paused'",
            _ => "state IN ('running', 'paused', 'stopped')",
        };
        var isCancel = to == ReplayJobState.Cancelled;
        return await transaction.ExecuteAsync(
            $"""
            UPDATE replay_jobs SET state = @to, state_by = @who, state_at = @now, waiting = NULL,
                   stop_reason = coalesce(@why, {(isCancel ? "stop_reason" : "NULL")}), finished_at = @finished
            WHERE id = @id AND {from}
            """,
            new { id, to, who, why, now, finished = isCancel ? now : (long?)null }) == 1;
    }

    /// <summary>Locks a running job and takes it for a runner: whoever pauses or cancels it comes before this step or after it.</summary>
    /// <param name="beyond">A lease that ends later than any that is taken now is from before the clock was set back.</param>
    /// <returns>False when it is another runner's, or does not run.</returns>
    public static async Task<bool> TakeAsync(StoreTransaction transaction, long id, string runner, long now, long until, long beyond) =>
        await transaction.ExecuteAsync(
            """
            UPDATE replay_jobs SET runner = @runner, runner_until = @until, started_at = coalesce(started_at, @now), waiting = NULL
            WHERE id = @id AND state = 'running' AND (runner IS NULL OR runner = @runner OR runner_until < @now OR runner_until > @beyond)
            """,
            new { id, runner, now, until, beyond }) == 1;

    /// <param name="what">What it waits for; null when it does not.</param>
    public static Task WaitAsync(StoreTransaction transaction, long id, string? what) =>
        transaction.ExecuteAsync("UPDATE replay_jobs SET waiting = @what WHERE id = @id", new { id, what });

    /// <summary>A job ends by itself.</summary>
    public static Task EndAsync(StoreTransaction transaction, long id, string state, string? why, long now) => transaction.ExecuteAsync(
        """
        UPDATE replay_jobs SET state = @state, state_by = 'the service', state_at = @now, finished_at = @now, stop_reason = @why WHERE id = @id
        """,
        new { id, state, why, now });

    /// <summary>Adds to a job's counts.</summary>
    public static Task CountAsync(StoreTransaction transaction, long id, long sent = 0, long succeeded = 0, long failed = 0, long skipped = 0) =>
        transaction.ExecuteAsync(
            """
            UPDATE replay_jobs SET sent = sent + @sent, succeeded = succeeded + @succeeded, failed = failed + @failed, skipped = skipped + @skipped
            WHERE id = @id
            """,
            new { id, sent, succeeded, failed, skipped });

    /// <summary>The next letters of a job.</summary>
    public static Task<List<long>> UntouchedAsync(StoreConnection connection, long id, int most) => connection.QueryAsync<long>(
        "SELECT letter_id FROM replay_job_letters WHERE job_id = @id AND state = 'untouched' ORDER BY letter_id LIMIT @most", new { id, most });

    /// <param name="from">Only where it stands so.</param>
    /// <returns>How many rows changed: none when somebody else was faster.</returns>
    public static Task<int> SetLetterAsync(StoreTransaction transaction, long id, long letterId, string from, string state, string? reason, string? detail) =>
        transaction.ExecuteAsync(
            "UPDATE replay_job_letters SET state = @state, reason = @reason, detail = @detail WHERE job_id = @id AND letter_id = @letterId AND state = @from",
            new { id, letterId, from, state, reason, detail });

    /// <summary>Letters that were sent and whose outcome is known and not taken down, from behind <paramref name="last"/>.</summary>
    public static Task<List<SentLetter>> OutcomesAsync(StoreConnection connection, long id, long last, int limit) => connection.QueryAsync<SentLetter>(
        """
        SELECT j.letter_id, r.outcome, l.status, l.reason, l.detail, r.detail AS replay_detail
        FROM replay_job_letters j JOIN replays r ON r.job_id = j.job_id AND r.letter_id = j.letter_id JOIN dead_letters l ON l.id = j.letter_id
        WHERE j.job_id = @id AND j.state = 'sent' AND j.letter_id > @last AND (r.outcome IS NOT NULL OR l.status <> 'replayed')
        ORDER BY j.letter_id LIMIT @limit
        """,
        new { id, last, limit });

    private const string Old = "state IN ('stopped', 'cancelled', 'done') AND finished_at <= @before AND sent <= succeeded + failed";

    /// <summary>How many jobs ended before a time, with all their letters' outcomes.</summary>
    public static Task<long> CountOldAsync(StoreConnection connection, long before) =>
        connection.ExecuteScalarAsync<long>($"SELECT count(*) FROM replay_jobs WHERE {Old}", new { before });

    /// <summary>The oldest of them. A job with many letters is named again until all of them are gone.</summary>
    public static Task<List<OldRow>> OldAsync(StoreConnection connection, long before, int most) => connection.QueryAsync<OldRow>(
        $"SELECT finished_at AS at, id FROM replay_jobs WHERE {Old} ORDER BY id LIMIT @most", new { before, most });

    /// <summary>Takes out the list of a job's letters, some at a time, and with the last of them the job.</summary>
    public static async Task<long> RemoveOldAsync(StoreTransaction transaction, long id, long before, int letters)
    {
        if (await transaction.ExecuteScalarAsync<long>($"SELECT count(*) FROM replay_jobs WHERE id = @id AND {Old}", new { id, before }) == 0)
        {
            return 0;
        }
        var removed = await transaction.ExecuteAsync(
            "DELETE FROM replay_job_letters WHERE job_id = @id AND letter_id IN (SELECT letter_id FROM replay_job_letters WHERE job_id = @id ORDER BY letter_id LIMIT @letters)",
            new { id, letters });
        return removed == letters ? 0 : await transaction.ExecuteAsync("DELETE FROM replay_jobs WHERE id = @id", new { id });
    }

    /// <summary>Follows a step of the store's clock.</summary>
    public static Task MoveAsync(StoreTransaction transaction, long step) => transaction.ExecuteAsync(
        "UPDATE replay_jobs SET runner_until = runner_until + @step WHERE state = 'running' AND runner IS NOT NULL", new { step });

    private const string Select =
        """
        SELECT id, state, mode, rate, letter_limit, confirmed, reason, requested_by, requested_at, started_at, finished_at,
               state_by, state_at, stop_reason, waiting, total, sent, succeeded, failed, skipped, patch
        FROM replay_jobs
        """;

    private static List<ReplayJob> Jobs(List<Row> rows) => rows.ConvertAll(row => row.ToJob());

    private sealed class Row
    {
        public long Id { get; init; }
        public string State { get; init; } = "";
        public string Mode { get; init; } = "";
        public double Rate { get; init; }
        public long? LetterLimit { get; init; }
        public long Confirmed { get; init; }
        public string Reason { get; init; } = "";
        public string RequestedBy { get; init; } = "";
        public long RequestedAt { get; init; }
        public long? StartedAt { get; init; }
        public long? FinishedAt { get; init; }
        public string StateBy { get; init; } = "";
        public long StateAt { get; init; }
        public string? StopReason { get; init; }
        public string? Waiting { get; init; }
        public long Total { get; init; }
        public long Sent { get; init; }
        public long Succeeded { get; init; }
        public long Failed { get; init; }
        public long Skipped { get; init; }
        public string? Patch { get; init; }

        public ReplayJob ToJob() => new(
            Id, State, Mode, Rate, LetterLimit, Confirmed == 1, Reason, RequestedBy, Time(RequestedAt), StartedAt is { } started ? Time(started) : null,
            FinishedAt is { } finished ? Time(finished) : null, Total, Sent, Succeeded, Failed, Skipped, StateBy, Time(StateAt), Waiting, StopReason,
            Patch: Patch is null ? null : LetterPatch.Parse(Patch).ToElement());

        private static DateTimeOffset Time(long milliseconds) => DateTimeOffset.FromUnixTimeMilliseconds(milliseconds);
    }
}

internal sealed class JobLetter
{
    public long LetterId { get; init; }
    public string? OrderId { get; init; }
    public string State { get; init; } = "";
    public string? Reason { get; init; }
    public string? Detail { get; init; }
}

/// <summary>A letter that a job sent.</summary>
internal sealed class SentLetter
{
    public long LetterId { get; init; }

    /// <summary>Of the replay; null when it has none.</summary>
    public string? Outcome { get; init; }

    /// <summary>Of the letter, as are reason and detail.</summary>
    public string Status { get; init; } = "";
    public string Reason { get; init; } = "";
    public string Detail { get; init; } = "";
    public string? ReplayDetail { get; init; }

    /// <summary>Why it could not even be sent; null when it was.</summary>
    public string? NotSent =>
        ReplayDetail?.StartsWith(DeadLetterReplay.NotSendable, StringComparison.Ordinal) == true ? ReplayDetail[DeadLetterReplay.NotSendable.Length..] : null;

    // Without an outcome the letter was settled in another way, or it came back as a plain copy.
    public bool HasFailed => Outcome == "failed" || (Outcome is null && Status == LetterStatus.Parked);
}

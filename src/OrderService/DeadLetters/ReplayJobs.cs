using System.Globalization;
using Dapper;
using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>Makes replay jobs, tells how far they are, and pauses, resumes and cancels them. <see cref="ReplayJobRunner"/> does the work, in whichever process it runs.</summary>
public sealed class ReplayJobs(IDatabase database, TimeProvider clock)
{
    internal const string TheService = "the service";

    private const int MostFailures = 100;
    private static readonly TimeSpan RateWindow = TimeSpan.FromSeconds(10);

    /// <summary>Makes a job and fixes its letters.</summary>
    /// <returns>Null when no letter is meant.</returns>
    public Task<ReplayJob?> CreateAsync(ReplayJobRequest request, CancellationToken cancellationToken) => database.WriteAsync(async transaction =>
    {
        var now = clock.GetUtcNow().ToUnixTimeMilliseconds();
        var id = await transaction.ExecuteScalarAsync<long>(
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
        var parameters = new DynamicParameters(new { id, most = request.Selection.Limit ?? long.MaxValue });
        var total = await transaction.ExecuteAsync(
            $"INSERT INTO replay_job_letters (job_id, letter_id) SELECT @id, l.id FROM dead_letters l WHERE {request.Selection.Where(parameters)} ORDER BY l.id LIMIT @most", parameters);
        if (total == 0)
        {
            await transaction.ExecuteAsync("DELETE FROM replay_jobs WHERE id = @id", new { id });
            return null;
        }
        await transaction.ExecuteAsync("UPDATE replay_jobs SET total = @total WHERE id = @id", new { id, total });
        var patched = request.Patch is null ? "" : ", patched";
        await AuditTrail.WriteAsync(transaction, request.Who, "replay.start", Subject(id), $"{total} letters, {request.Mode}{patched}: {request.Reason}", now);
        return await FindAsync(transaction, id);
    }, cancellationToken);

    /// <summary>Jobs, newest first.</summary>
    /// <param name="after">The number of the last job of the page before.</param>
    public Task<IReadOnlyList<ReplayJob>> ListAsync(long? after, int limit, CancellationToken cancellationToken) => database.ReadAsync<IReadOnlyList<ReplayJob>>(async connection =>
        [.. (await connection.QueryAsync<Row>($"{Row.Select} WHERE id < @after ORDER BY id DESC LIMIT @limit", new { after = after ?? long.MaxValue, limit })).Select(row => row.ToJob())],
        cancellationToken);

    /// <summary>One job with its failures and its rate; null when there is none.</summary>
    public Task<ReplayJob?> GetAsync(long id, CancellationToken cancellationToken) => database.ReadAsync(async connection =>
    {
        if (await FindAsync(connection, id) is not { } job)
        {
            return null;
        }
        var letters = (await connection.QueryAsync<FailureRow>(
            """
            SELECT * FROM (
                SELECT j.letter_id, l.order_id, j.state, j.reason, j.detail
                FROM replay_job_letters j JOIN dead_letters l ON l.id = j.letter_id
                WHERE j.job_id = @id AND j.state = 'failed' ORDER BY j.letter_id LIMIT @MostFailures) AS failed
            UNION ALL
            SELECT * FROM (
                SELECT j.letter_id, l.order_id, j.state, j.reason, j.detail
                FROM replay_job_letters j JOIN dead_letters l ON l.id = j.letter_id
                WHERE j.job_id = @id AND j.state = 'skipped' ORDER BY j.letter_id LIMIT @MostFailures) AS skipped
            """,
            new { id, MostFailures })).ToLookup(row => row.State, row => new ReplayFailure(row.LetterId, row.OrderId, row.Reason ?? "", row.Detail ?? ""));
        double? rate = null;
        if (job is { State: ReplayJobState.Running, StartedAt: { } started })
        {
            var now = clock.GetUtcNow();
            var window = TimeSpan.FromTicks(Math.Clamp((now - started).Ticks, TimeSpan.TicksPerSecond, RateWindow.Ticks));
            var sent = await connection.ExecuteScalarAsync<long>(
                "SELECT count(*) FROM replays WHERE job_id = @id AND requested_at > @since", new { id, since = (now - window).ToUnixTimeMilliseconds() });
            rate = Math.Round(sent / window.TotalSeconds, 1);
        }
        return job with { CurrentRate = rate, Failures = [.. letters["failed"]], Skips = [.. letters["skipped"]] };
    }, cancellationToken);

    /// <summary>Sends nothing more until it is resumed; what was sent gets its outcome.</summary>
    public Task<ReplayJobAnswer> PauseAsync(long id, Caller who, CancellationToken cancellationToken) => ChangeAsync(id, who, ReplayJobState.Paused, "replay.pause", null, cancellationToken);

    /// <summary>The same by the service itself, because what let the job's caller in has ended.</summary>
    public Task<ReplayJobAnswer> PauseBecauseAsync(long id, string why, CancellationToken cancellationToken) =>
        ChangeAsync(id, TheService, ReplayJobState.Paused, "replay.pause", why, cancellationToken);

    public Task<ReplayJobAnswer> ResumeAsync(long id, Caller who, CancellationToken cancellationToken) => ChangeAsync(id, who, ReplayJobState.Running, "replay.resume", null, cancellationToken);

    /// <summary>Ends it for good; letters that were not sent stay as they are.</summary>
    public Task<ReplayJobAnswer> CancelAsync(long id, Caller who, CancellationToken cancellationToken) => ChangeAsync(id, who, ReplayJobState.Cancelled, "replay.cancel", null, cancellationToken);

    private Task<ReplayJobAnswer> ChangeAsync(long id, Caller who, string to, string action, string? why, CancellationToken cancellationToken) => database.WriteAsync<ReplayJobAnswer>(async transaction =>
    {
        var now = clock.GetUtcNow().ToUnixTimeMilliseconds();
        var from = to switch
        {
            ReplayJobState.Paused => "state = 'running'",
            ReplayJobState.Running => "state = 'paused'",
            _ => "state IN ('running', 'paused', 'stopped')",
        };
        // The job's row is the lock: a runner that is sending is waited for, and the next one sees the new state.
        var changed = await transaction.ExecuteAsync(
            $"UPDATE replay_jobs SET state = @to, state_by = @who, state_at = @now, waiting = NULL, stop_reason = coalesce(@why, {(to == ReplayJobState.Cancelled ? "stop_reason" : "NULL")}), finished_at = @finished WHERE id = @id AND {from}",
            new { to, who = who.Shown, why, now, id, finished = to == ReplayJobState.Cancelled ? now : (long?)null });
        if (await FindAsync(transaction, id) is not { } job)
        {
            return new ReplayJobAnswer.NotFound();
        }
        if (changed == 0)
        {
            var at = job.StateAt.ToString("yyyy-MM-dd HH:mm:ss'Z'", CultureInfo.InvariantCulture);
            return new ReplayJobAnswer.Conflict(job.State, $"Replay {id} is {job.State} by {job.StateBy} since {at}.");
        }
        await AuditTrail.WriteAsync(transaction, who, action, Subject(id), $"{job.Sent} of {job.Total} letters sent. {why}".TrimEnd(), now);
        return new ReplayJobAnswer.Done(job);
    }, cancellationToken);

    internal static async Task<ReplayJob?> FindAsync(StoreConnection connection, long id) =>
        (await connection.QuerySingleOrDefaultAsync<Row>($"{Row.Select} WHERE id = @id", new { id }))?.ToJob();

    /// <summary>Jobs that run, or whose letters are still on their way.</summary>
    internal static async Task<IReadOnlyList<ReplayJob>> OpenAsync(StoreConnection connection) =>
        [.. (await connection.QueryAsync<Row>($"{Row.Select} WHERE state = 'running' OR sent > succeeded + failed ORDER BY id")).Select(row => row.ToJob())];

    /// <summary>Jobs that run, and when each was started or resumed.</summary>
    public Task<IReadOnlyList<(long Id, long StateAt)>> RunningAsync(CancellationToken cancellationToken) => database.ReadAsync<IReadOnlyList<(long, long)>>(async connection =>
        [.. await connection.QueryAsync<(long, long)>("SELECT id, state_at FROM replay_jobs WHERE state = 'running'")], cancellationToken);

    /// <summary>Who started a job or resumed it last, as the audit log has it; null when it does not say.</summary>
    public Task<Caller?> CallerAsync(long id, CancellationToken cancellationToken) =>
        database.ReadAsync(connection => AuditTrail.StarterAsync(connection, Subject(id)), cancellationToken);

    internal static string Subject(long id) => $"replay {id}";

    private sealed class Row
    {
        public const string Select =
            """
            SELECT id, state, mode, rate, letter_limit, confirmed, reason, requested_by, requested_at,
                   started_at, finished_at, state_by, state_at, stop_reason, waiting,
                   total, sent, succeeded, failed, skipped, patch
            FROM replay_jobs
            """;

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
            Id, State, Mode, Rate, LetterLimit, Confirmed == 1, Reason, RequestedBy, Time(RequestedAt), StartedAt is { } started ? Time(started) : null, FinishedAt is { } finished ? Time(finished) : null,
            Total, Sent, Succeeded, Failed, Skipped, StateBy, Time(StateAt), Waiting, StopReason,
            Patch: Patch is null ? null : LetterPatch.Parse(Patch).ToElement());

        private static DateTimeOffset Time(long milliseconds) => DateTimeOffset.FromUnixTimeMilliseconds(milliseconds);
    }

    private sealed class FailureRow
    {
        public long LetterId { get; init; }
        public string? OrderId { get; init; }
        public string State { get; init; } = "";
        public string? Reason { get; init; }
        public string? Detail { get; init; }
    }
}

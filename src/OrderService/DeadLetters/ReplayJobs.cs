using System.Data.Common;
using System.Globalization;
using Dapper;
using OrderService.Database;
using OrderService.RabbitMq;

namespace OrderService.DeadLetters;

/// <summary>How a bulk replay goes on.</summary>
public static class ReplayJobState
{
    public const string Running = "running";
    public const string Paused = "paused";

    /// <summary>A canary halted by itself because letters failed again; the rest is untouched.</summary>
    public const string Stopped = "stopped";

    public const string Cancelled = "cancelled";
    public const string Done = "done";
}

/// <param name="Mode"><c>canary</c>: one letter, then five, then five percent, each only when all before succeeded; <c>all</c>: one after the other.</param>
/// <param name="RatePerSecond">1 to 1,000.</param>
public sealed record ReplayJobRequest(ReplaySelection Selection, string Mode, int RatePerSecond, string Reason, string Who);

/// <summary>A bulk replay.</summary>
/// <param name="Succeeded">Letters whose replay took effect, as far as that is known.</param>
/// <param name="Skipped">Letters that somebody else settled meanwhile, or that can't be replayed in bulk.</param>
/// <param name="Untouched">Letters that were not sent.</param>
/// <param name="Waiting">Why nothing is being sent at the moment.</param>
public sealed record ReplayJob(
    long Id, string State, string Mode, long RatePerSecond, long? Limit, string Reason, string RequestedBy, DateTimeOffset RequestedAt, DateTimeOffset? StartedAt, DateTimeOffset? FinishedAt,
    long Total, long Sent, long Succeeded, long Failed, long Skipped, long Untouched, string? Stage, string? Waiting, string? StopReason, double? EtaSeconds, IReadOnlyList<ReplayJobFailure> Failures);

public sealed record ReplayJobFailure(long LetterId, string? OrderId, string Reason, string? Detail);

/// <summary>Bulk replays: made, paused, resumed and cancelled here, sent by <see cref="ReplayJobRunner"/>. Everything is in the store, so a restart neither loses nor repeats a letter.</summary>
public sealed class ReplayJobs(IDatabase database, TimeProvider clock)
{
    private const int MostFailures = 50;

    /// <returns>The job's number; null when no parked letter is chosen.</returns>
    public Task<long?> CreateAsync(ReplayJobRequest request, CancellationToken cancellationToken) => database.WriteAsync(async transaction =>
    {
        var connection = transaction.Connection!;
        var now = clock.GetUtcNow().ToUnixTimeMilliseconds();
        var id = await connection.ExecuteScalarAsync<long>(
            """
            INSERT INTO replay_jobs (state, mode, rate, letter_limit, reason, requested_by, requested_at, total)
            VALUES ('running', @Mode, @RatePerSecond, @Limit, @Reason, @Who, @now, 0) RETURNING id
            """,
            new { request.Mode, request.RatePerSecond, request.Selection.Limit, request.Reason, request.Who, now }, transaction);
        var parameters = new DynamicParameters(new { id, most = request.Selection.Limit ?? long.MaxValue });
        var total = await connection.ExecuteAsync(
            $"INSERT INTO replay_job_letters (job_id, letter_id, state) SELECT @id, l.id, 0 FROM dead_letters l WHERE {request.Selection.Where(parameters)} ORDER BY l.id LIMIT @most", parameters, transaction);
        if (total == 0)
        {
            await connection.ExecuteAsync("DELETE FROM replay_jobs WHERE id = @id", new { id }, transaction);
            return (long?)null;
        }
        await connection.ExecuteAsync("UPDATE replay_jobs SET total = @total WHERE id = @id", new { total, id }, transaction);
        await AuditAsync(transaction, request.Who, "replay-job.start", id, $"{total} letters, {request.Mode}, {request.RatePerSecond}/s: {request.Reason}", now);
        return id;
    }, cancellationToken);

    /// <summary>The newest first.</summary>
    /// <param name="before">Only jobs with a lower number.</param>
    public Task<IReadOnlyList<ReplayJob>> ListAsync(long? before, int limit, CancellationToken cancellationToken) => database.ReadAsync<IReadOnlyList<ReplayJob>>(async connection =>
    {
        var ids = (await connection.QueryAsync<long>("SELECT id FROM replay_jobs WHERE id < @before ORDER BY id DESC LIMIT @limit", new { before = before ?? long.MaxValue, limit })).AsList();
        var jobs = new List<ReplayJob>(ids.Count);
        foreach (var id in ids)
        {
            jobs.Add((await ReadAsync(connection, null, id, failures: 0))!);
        }
        return jobs;
    }, cancellationToken);

    public Task<ReplayJob?> GetAsync(long id, CancellationToken cancellationToken) =>
        database.ReadAsync(connection => ReadAsync(connection, null, id, MostFailures), cancellationToken);

    /// <summary>Moves a job from one of <paramref name="from"/> to <paramref name="to"/>.</summary>
    /// <returns>False when it was in none of them (or does not exist).</returns>
    public Task<bool> MoveAsync(long id, string[] from, string to, string who, CancellationToken cancellationToken) => database.WriteAsync(async transaction =>
    {
        var now = clock.GetUtcNow().ToUnixTimeMilliseconds();
        var parameters = new DynamicParameters(new { id, to, finished = to == ReplayJobState.Cancelled ? now : (long?)null });
        var moved = await transaction.Connection!.ExecuteAsync(
            $"UPDATE replay_jobs SET state = @to, waiting = NULL, finished_at = @finished, stop_reason = CASE WHEN @to = 'running' THEN NULL ELSE stop_reason END WHERE id = @id AND state IN {SqlList.Add(parameters, "from", from)}",
            parameters, transaction);
        if (moved == 1)
        {
            await AuditAsync(transaction, who, $"replay-job.{to}", id, "", now);
        }
        return moved == 1;
    }, cancellationToken);

    internal static async Task<ReplayJob?> ReadAsync(DbConnection connection, DbTransaction? transaction, long id, int failures)
    {
        var row = await connection.QuerySingleOrDefaultAsync<JobRow>(
            """
            SELECT id AS Id, state AS State, mode AS Mode, rate AS Rate, letter_limit AS LetterLimit, reason AS Reason, requested_by AS RequestedBy, requested_at AS RequestedAt,
                   started_at AS StartedAt, finished_at AS FinishedAt, total AS Total, waiting AS Waiting, stop_reason AS StopReason
            FROM replay_jobs WHERE id = @id
            """,
            new { id }, transaction);
        if (row is null)
        {
            return null;
        }
        var states = (await connection.QueryAsync<StateRow>("SELECT state AS State, count(*) AS Letters FROM replay_job_letters WHERE job_id = @id GROUP BY state", new { id }, transaction)).ToDictionary(state => state.State, state => state.Letters);
        var outcomes = (await connection.QueryAsync<OutcomeRow>("SELECT outcome AS Outcome, count(*) AS Letters FROM replays WHERE job_id = @id AND outcome IS NOT NULL GROUP BY outcome", new { id }, transaction)).ToDictionary(outcome => outcome.Outcome, outcome => outcome.Letters);
        var failed = outcomes.GetValueOrDefault("failed");
        var failing = failures == 0 || failed == 0 ? [] : (await connection.QueryAsync<FailureRow>(
            """
            SELECT r.letter_id AS LetterId, l.order_id AS OrderId, l.reason AS Reason, r.detail AS Detail
            FROM replays r JOIN dead_letters l ON l.id = r.letter_id WHERE r.job_id = @id AND r.outcome = 'failed' ORDER BY r.id LIMIT @failures
            """,
            new { id, failures }, transaction)).AsList();
        var untouched = states.GetValueOrDefault(0);
        return new ReplayJob(
            row.Id, row.State, row.Mode, row.Rate, row.LetterLimit, row.Reason, row.RequestedBy, Time(row.RequestedAt)!.Value, Time(row.StartedAt), Time(row.FinishedAt),
            row.Total, states.GetValueOrDefault(1), outcomes.Where(outcome => outcome.Key != "failed").Sum(outcome => outcome.Value), failed, states.GetValueOrDefault(2), untouched,
            row.Mode == "canary" && row.State is ReplayJobState.Running or ReplayJobState.Paused ? Canary.Describe(row.Total, states.GetValueOrDefault(1) + states.GetValueOrDefault(2)) : null,
            row.Waiting, row.StopReason, row.State == ReplayJobState.Running ? Math.Ceiling((double)untouched / row.Rate) : null,
            [.. failing.Select(failure => new ReplayJobFailure(failure.LetterId, failure.OrderId, failure.Reason, failure.Detail))]);
    }

    private static DateTimeOffset? Time(long? milliseconds) => milliseconds is { } known ? DateTimeOffset.FromUnixTimeMilliseconds(known) : null;

    private static Task AuditAsync(DbTransaction transaction, string who, string action, long id, string detail, long now) => transaction.Connection!.ExecuteAsync(
        "INSERT INTO audit (at, who, action, subject, detail) VALUES (@now, @who, @action, @subject, @detail)",
        new { now, who, action, subject = string.Create(CultureInfo.InvariantCulture, $"replay job {id}"), detail }, transaction);

    private sealed class JobRow
    {
        public long Id { get; init; }
        public string State { get; init; } = "";
        public string Mode { get; init; } = "";
        public long Rate { get; init; }
        public long? LetterLimit { get; init; }
        public string Reason { get; init; } = "";
        public string RequestedBy { get; init; } = "";
        public long RequestedAt { get; init; }
        public long? StartedAt { get; init; }
        public long? FinishedAt { get; init; }
        public long Total { get; init; }
        public string? Waiting { get; init; }
        public string? StopReason { get; init; }
    }

    private sealed class StateRow
    {
        public long State { get; init; }
        public long Letters { get; init; }
    }

    private sealed class OutcomeRow
    {
        public string Outcome { get; init; } = "";
        public long Letters { get; init; }
    }

    private sealed class FailureRow
    {
        public long LetterId { get; init; }
        public string? OrderId { get; init; }
        public string Reason { get; init; } = "";
        public string? Detail { get; init; }
    }
}

/// <summary>The steps of a canary: 1 letter, 5 more, 5 percent more, the rest.</summary>
internal static class Canary
{
    /// <summary>How many letters may have been sent by the end of the step that <paramref name="sent"/> letters are in.</summary>
    public static long EndOfStep(long total, long sent) => Steps(total).First(end => sent < end || end == total);

    /// <summary>Whether <paramref name="sent"/> letters are exactly a step, so that their outcomes are awaited.</summary>
    public static bool IsStep(long total, long sent) => sent < total && Steps(total).Contains(sent);

    public static string? Describe(long total, long sent)
    {
        var end = EndOfStep(total, sent);
        return end == total ? "the rest" : string.Create(CultureInfo.InvariantCulture, $"canary, {end} of {total}");
    }

    private static IEnumerable<long> Steps(long total) =>
        new[] { 1, 6, 6 + Math.Max(1, (long)Math.Ceiling(total * 0.05)) }.Where(end => end < total).Append(total);
}

/// <summary>Sends the letters of running jobs: paced, held while the queue is deep, and halted by itself when a canary's letters fail again. One instance at a time.</summary>
public sealed partial class ReplayJobRunner(
    IDatabase database, DeadLetterReplay replay, QueueMonitor queues, TimeProvider clock, ILogger<ReplayJobRunner> logger) : BackgroundService
{
    private const int LargestSlice = 100;
    private const long DeepQueue = 1_000;

    private static readonly TimeSpan Tick = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan Lease = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan OutcomePatience = TimeSpan.FromMinutes(1);

    private readonly string me = $"{Environment.MachineName}-{Guid.NewGuid():N}";
    private readonly Dictionary<long, (long At, double Owed)> paces = [];

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var tick = new PeriodicTimer(Tick, clock);
        try
        {
            while (await tick.WaitForNextTickAsync(stoppingToken))
            {
                try
                {
                    await RunAsync(stoppingToken);
                }
                catch (Exception exception) when (!stoppingToken.IsCancellationRequested)
                {
                    // Each slice is one transaction: what was not committed is sent at a later tick.
                    LogSliceFailed(exception);
                }
            }
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // The service stops; the jobs go on after the next start.
        }
    }

    private async Task RunAsync(CancellationToken cancellationToken)
    {
        var running = await database.ReadAsync(async connection => (await connection.QueryAsync<long>("SELECT id FROM replay_jobs WHERE state = 'running' ORDER BY id LIMIT 20")).AsList(), cancellationToken);
        foreach (var gone in paces.Keys.Except(running).ToList())
        {
            paces.Remove(gone);
        }
        foreach (var id in running)
        {
            await AdvanceAsync(id, cancellationToken);
        }
    }

    /// <summary>Sends the next slice of a job, or finds that it has to wait, to stop or is done.</summary>
    internal async Task AdvanceAsync(long id, CancellationToken cancellationToken)
    {
        var allowance = Allowance(id);
        var depth = queues.Depths.FirstOrDefault(queue => queue.Queue == TopologyNames.Orders)?.Ready ?? 0;
        var now = clock.GetUtcNow().ToUnixTimeMilliseconds();
        var sent = await database.WriteAsync(async transaction =>
        {
            var connection = transaction.Connection!;
            var mine = await connection.ExecuteAsync(
                "UPDATE replay_jobs SET runner = @me, runner_until = @until, started_at = coalesce(started_at, @now) WHERE id = @id AND state = 'running' AND (runner = @me OR runner_until < @now)",
                new { me, id, now, until = now + (long)Lease.TotalMilliseconds }, transaction);
            if (mine == 0)
            {
                return 0;
            }
            var job = (await ReplayJobs.ReadAsync(connection, transaction, id, failures: 0))!;
            var tried = job.Sent + job.Skipped;
            var known = job.Succeeded + job.Failed;
            if (job.Mode == "canary" && job.Failed > 0 && (job.Failed * 20 > job.Sent || Canary.EndOfStep(job.Total, Math.Max(0, tried - 1)) < job.Total))
            {
                await FinishAsync(transaction, id, ReplayJobState.Stopped, $"{job.Failed} of {job.Sent} letters failed again; the other {job.Untouched} are untouched.", now);
                return 0;
            }
            if (job.Untouched == 0)
            {
                var last = await connection.ExecuteScalarAsync<long?>("SELECT last_sent_at FROM replay_jobs WHERE id = @id", new { id }, transaction) ?? 0;
                if (known >= job.Sent || now - last > OutcomePatience.TotalMilliseconds)
                {
                    await FinishAsync(transaction, id, ReplayJobState.Done, null, now);
                }
                return 0;
            }
            if (job.Mode == "canary" && Canary.IsStep(job.Total, tried) && known < job.Sent)
            {
                await WaitAsync(transaction, job, "the outcome of the letters that were sent");
                return 0;
            }
            if (depth > DeepQueue)
            {
                await WaitAsync(transaction, job, string.Create(CultureInfo.InvariantCulture, $"the queue is {depth} deep"));
                return 0;
            }
            var slice = (long)Math.Min(LargestSlice, allowance(job.RatePerSecond));
            if (job.Mode == "canary")
            {
                slice = Math.Min(slice, Canary.EndOfStep(job.Total, tried) - tried);
            }
            if (slice <= 0)
            {
                return 0;
            }
            var letters = (await connection.QueryAsync<long>("SELECT letter_id FROM replay_job_letters WHERE job_id = @id AND state = 0 ORDER BY letter_id LIMIT @slice", new { id, slice }, transaction)).AsList();
            foreach (var letter in letters)
            {
                var answer = await replay.ReplayAsync(transaction, new ReplayRequest(letter, job.RequestedBy, job.Reason, JobId: id));
                await connection.ExecuteAsync(
                    "UPDATE replay_job_letters SET state = @state WHERE job_id = @id AND letter_id = @letter", new { state = answer is LetterAnswer.Done ? 1 : 2, id, letter }, transaction);
            }
            await connection.ExecuteAsync("UPDATE replay_jobs SET waiting = NULL, last_sent_at = @now WHERE id = @id", new { id, now }, transaction);
            return letters.Count;
        }, cancellationToken);
        if (sent > 0)
        {
            Spend(id, sent);
        }
    }

    /// <summary>How many letters a job may send now, given its rate. What is saved up is bounded by a second's worth.</summary>
    private Func<long, double> Allowance(long id) => rate =>
    {
        var now = clock.GetTimestamp();
        var (at, owed) = paces.GetValueOrDefault(id, (now, 1.0));
        owed = Math.Min(Math.Max(1, rate), owed + (clock.GetElapsedTime(at, now).TotalSeconds * rate));
        paces[id] = (now, owed);
        return owed;
    };

    private void Spend(long id, int sent)
    {
        var (at, owed) = paces[id];
        paces[id] = (at, owed - sent);
    }

    private static Task WaitAsync(DbTransaction transaction, ReplayJob job, string reason) => job.Waiting == reason
        ? Task.CompletedTask
        : transaction.Connection!.ExecuteAsync("UPDATE replay_jobs SET waiting = @reason WHERE id = @Id", new { reason, job.Id }, transaction);

    private async Task FinishAsync(DbTransaction transaction, long id, string state, string? reason, long now)
    {
        await transaction.Connection!.ExecuteAsync("UPDATE replay_jobs SET state = @state, stop_reason = @reason, waiting = NULL, finished_at = @now WHERE id = @id", new { state, reason, now, id }, transaction);
        LogFinished(id, state, reason ?? "");
    }

    [LoggerMessage(LogLevel.Information, "Replay job {JobId} is {State}. {Reason}")]
    private partial void LogFinished(long jobId, string state, string reason);

    [LoggerMessage(LogLevel.Warning, "A slice of a replay job was not sent; it is tried again")]
    private partial void LogSliceFailed(Exception exception);
}

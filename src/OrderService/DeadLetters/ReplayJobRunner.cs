using Microsoft.Extensions.Options;
using OrderService.Database;
using OrderService.Inbox;
using OrderService.Observability;
using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>How many messages are ready in the queue <c>orders</c>, its partitions included; null when that is not known.</summary>
public delegate long? QueueDepthReading();

/// <summary>
/// Works on replay jobs: sends the letters at the job's rate, learns their outcomes, stops a canary whose letters fail again. Everything it knows is in the store,
/// and a letter and its place in the job change in one transaction, so that it may die anywhere; of several instances one works on a job at a time.
/// </summary>
public sealed partial class ReplayJobRunner : BackgroundService
{
    private const int LettersPerTransaction = 50;
    private const int OutcomesPerTransaction = 1000;
    private static readonly TimeSpan Lease = TimeSpan.FromSeconds(10);

    private readonly IDatabase database;
    private readonly DeadLetterReplay replay;
    private readonly QueueDepthReading queueDepth;
    private readonly IOptions<DeadLettersOptions> options;
    private readonly StoreTime time;
    private readonly TimeProvider clock;
    private readonly ILogger<ReplayJobRunner> logger;
    private readonly Blame<(ReplayJob Job, long LetterId)> blame;
    private readonly RefusedRows<(long JobId, long LetterId)> refusedOutcomes;

    private readonly string name = $"{Environment.MachineName}:{Guid.NewGuid():N}";
    private readonly Dictionary<long, Allowance> allowances = [];

    public ReplayJobRunner(
        IDatabase database, DeadLetterReplay replay, DeadLetterParking parking, QueueDepthReading queueDepth, IOptions<DeadLettersOptions> options,
        Troubles troubles, StoreTime time, TimeProvider clock, ILogger<ReplayJobRunner> logger)
    {
        this.database = database;
        this.replay = replay;
        this.queueDepth = queueDepth;
        this.options = options;
        this.time = time;
        this.clock = clock;
        this.logger = logger;
        refusedOutcomes = new RefusedRows<(long JobId, long LetterId)>("replay-outcomes", "Outcomes of replayed letters", troubles, clock, logger);
        blame = new Blame<(ReplayJob Job, long LetterId)>(
            new BlamedWork<(ReplayJob Job, long LetterId)>(
                "replays", "Replays", TroubleLevel.Degraded,
                (letters, token) => database.WriteAsync(transaction => SendAsync(transaction, letters[0].Job, letters.Select(letter => letter.LetterId).ToList()), token),
                (letter, failure, token) => database.WriteAsync(transaction => GiveUpAsync(transaction, letter.Job, letter.LetterId, failure), token),
                (_, token) => TryAsync(parking, token)),
            troubles, logger);
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var tick = new PeriodicTimer(options.Value.ReplayPollInterval, clock);
        try
        {
            do
            {
                try
                {
                    await WorkAsync(stoppingToken);
                }
                catch (Exception exception) when (!stoppingToken.IsCancellationRequested)
                {
                    // Nothing is lost and nothing is sent twice: the jobs stand in the store as the last commit left them.
                    LogFailed(exception.Message);
                    if (exception is StoreUnavailableException)
                    {
                        blame.Say(exception.Message, all: true);
                    }
                }
            }
            while (await tick.WaitForNextTickAsync(stoppingToken));
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // The process stops; the jobs go on with the next one.
        }
    }

    /// <summary>Looks after every open job once.</summary>
    internal async Task WorkAsync(CancellationToken cancellationToken)
    {
        var jobs = await database.ReadAsync(ReplayJobs.OpenAsync, cancellationToken);
        foreach (var gone in allowances.Keys.Except(jobs.Select(job => job.Id)).ToList())
        {
            allowances.Remove(gone);
        }
        var isHeld = false;
        foreach (var job in jobs)
        {
            try
            {
                var settled = await SettleAsync(job, cancellationToken);
                if (job.State == ReplayJobState.Running)
                {
                    await AdvanceAsync(settled, cancellationToken);
                }
            }
            catch (Exception exception) when (exception is not StoreUnavailableException && !cancellationToken.IsCancellationRequested)
            {
                // One job must not stop the others.
                LogFailed(exception.Message);
                isHeld |= await SortOutAsync(job, exception, cancellationToken);
            }
        }
        if (!isHeld)
        {
            blame.Over();
        }
        refusedOutcomes.Pass("settle");
    }

    /// <summary>A step of a job failed: finds the letter that can't be sent, and passes it over.</summary>
    /// <returns>Whether the job is held.</returns>
    private async Task<bool> SortOutAsync(ReplayJob job, Exception failure, CancellationToken cancellationToken)
    {
        var letters = await database.ReadAsync(connection => connection.QueryAsync<long>(
            "SELECT letter_id FROM replay_job_letters WHERE job_id = @Id AND state = 'untouched' ORDER BY letter_id LIMIT @LettersPerTransaction", new { job.Id, LettersPerTransaction }), cancellationToken);
        if (letters.Count == 0 || job.State != ReplayJobState.Running)
        {
            blame.Say(failure is StoreRefusedException ? failure.Message : $"Replay {job.Id} fails with {failure.GetType().Name}.", all: false);
            return true;
        }
        // Alone each: a job's rate must not be outrun because of one of them.
        return !(await blame.SortOutAsync([(job, letters[0])], failure, neighbourSucceeded: job.Sent > 0, cancellationToken)).IsNothing;
    }

    private static async Task GiveUpAsync(StoreTransaction transaction, ReplayJob job, long letterId, Exception failure)
    {
        var detail = $"It can't be sent: {(failure is StoreRefusedException ? failure.Message : failure.GetType().Name)}";
        var skipped = await transaction.ExecuteAsync(
            "UPDATE replay_job_letters SET state = 'skipped', reason = @reason, detail = @detail WHERE job_id = @Id AND letter_id = @letterId AND state = 'untouched'",
            new { reason = RejectionReason.InternalError, detail, job.Id, letterId });
        await transaction.ExecuteAsync("UPDATE replay_jobs SET skipped = skipped + @skipped WHERE id = @Id", new { skipped, job.Id });
    }

    /// <summary>Parks a letter that is known to be good, replays it and undoes both.</summary>
    private Task TryAsync(DeadLetterParking parking, CancellationToken cancellationToken) => database.TryOutAsync(
        async transaction =>
        {
            var letter = DeadLetterParking.KnownGoodLetter();
            await parking.ParkAsync(transaction, letter);
            var id = await transaction.ExecuteScalarAsync<long>("SELECT id FROM dead_letters WHERE key = @Key", new { letter.Key });
            await replay.ReplayAsync(transaction, new ReplayRequest(id, "known good", Confirmed: true));
        },
        cancellationToken);

    /// <summary>Takes down what became of the letters that were sent.</summary>
    private async Task<ReplayJob> SettleAsync(ReplayJob job, CancellationToken cancellationToken)
    {
        if (job.UnderWay == 0)
        {
            return job;
        }
        var known = await KnownAsync(job, cancellationToken);
        if (known.Count == 0)
        {
            return job;
        }
        return await database.WriteAsync(async transaction =>
        {
            // The job's row comes first everywhere: it is the lock.
            await transaction.ExecuteAsync("UPDATE replay_jobs SET waiting = NULL WHERE id = @Id", new { job.Id });
            var settled = await refusedOutcomes.WriteAsync(transaction, known, outcome => (job.Id, outcome.LetterId), some => SettleAsync(transaction, job, some));
            var failed = settled.Count(outcome => outcome.HasFailed);
            var succeeded = settled.Count - failed;
            await transaction.ExecuteAsync("UPDATE replay_jobs SET succeeded = succeeded + @succeeded, failed = failed + @failed WHERE id = @Id", new { succeeded, failed, job.Id });
            return (await ReplayJobs.FindAsync(transaction, job.Id))!;
        }, cancellationToken);
    }

    /// <summary>A page of outcomes that are known and not taken down; those that the store refused a moment ago are passed over.</summary>
    private async Task<List<Outcome>> KnownAsync(ReplayJob job, CancellationToken cancellationToken)
    {
        var last = 0L;
        while (true)
        {
            var page = await database.ReadAsync(connection => connection.QueryAsync<Outcome>(
                """
                SELECT j.letter_id, r.outcome AS result, l.status, l.reason, l.detail, r.detail AS replay_detail
                FROM replay_job_letters j JOIN replays r ON r.job_id = j.job_id AND r.letter_id = j.letter_id JOIN dead_letters l ON l.id = j.letter_id
                WHERE j.job_id = @Id AND j.state = 'sent' AND j.letter_id > @last AND (r.outcome IS NOT NULL OR l.status <> 'replayed') ORDER BY j.letter_id LIMIT @OutcomesPerTransaction
                """,
                new { job.Id, last, OutcomesPerTransaction }), cancellationToken);
            var known = page.Where(outcome => !refusedOutcomes.IsResting((job.Id, outcome.LetterId))).ToList();
            if (known.Count > 0 || page.Count < OutcomesPerTransaction)
            {
                return known;
            }
            last = page[^1].LetterId;
        }
    }

    /// <returns>What this call took down; another runner may have taken down the rest.</returns>
    private static async Task<IReadOnlyList<Outcome>> SettleAsync(StoreTransaction transaction, ReplayJob job, IReadOnlyList<Outcome> known)
    {
        var settled = new List<Outcome>(known.Count);
        foreach (var outcome in known)
        {
            var changed = await transaction.ExecuteAsync(
                "UPDATE replay_job_letters SET state = @state, reason = @reason, detail = @detail WHERE job_id = @Id AND letter_id = @LetterId AND state = 'sent'",
                new
                {
                    state = outcome.HasFailed ? "failed" : "succeeded",
                    reason = !outcome.HasFailed ? null : outcome.NotSent is null ? outcome.Reason : "not_sendable",
                    detail = !outcome.HasFailed ? null : outcome.NotSent ?? outcome.Detail,
                    job.Id,
                    outcome.LetterId,
                });
            if (changed > 0)
            {
                settled.Add(outcome);
            }
        }
        return settled;
    }

    private async Task AdvanceAsync(ReplayJob job, CancellationToken cancellationToken)
    {
        while (true)
        {
            var depth = queueDepth();
            var plan = Plan(job, depth);
            if (plan is ReplayPlan.Wait wait && wait.What == job.Waiting)
            {
                return;
            }
            if (!allowances.TryGetValue(job.Id, out var allowance))
            {
                allowances[job.Id] = allowance = new Allowance(job.RatePerSecond, clock);
            }
            var allowed = Math.Min(allowance.Left(), LettersPerTransaction);
            if (plan is ReplayPlan.Send && allowed == 0)
            {
                return;
            }
            var (after, took) = await database.WriteAsync(transaction => StepAsync(transaction, job.Id, depth, allowed), cancellationToken);
            allowance.Take(took);
            if (after is null || took == 0)
            {
                return;
            }
            job = after;
        }
    }

    /// <returns>The job as it stands now, null when it is not this instance's turn, and how many letters were looked at.</returns>
    private async Task<(ReplayJob? Job, int Took)> StepAsync(StoreTransaction transaction, long id, long? depth, int allowed)
    {
        var now = time.GetUtcNow();
        // A lease that ends later than any that is taken now is from before the clock was set back.
        var values = new { id, name, beyond = (now + (Lease * 2)).ToUnixTimeMilliseconds(), now = now.ToUnixTimeMilliseconds(), until = (now + Lease).ToUnixTimeMilliseconds() };
        // Locks the job: whoever pauses or cancels it comes before this step or after it, and so does another runner.
        var mine = await transaction.ExecuteAsync(
            """
            UPDATE replay_jobs SET runner = @name, runner_until = @until, started_at = coalesce(started_at, @now), waiting = NULL
            WHERE id = @id AND state = 'running' AND (runner IS NULL OR runner = @name OR runner_until < @now OR runner_until > @beyond)
            """,
            values);
        if (mine == 0)
        {
            return (null, 0);
        }
        var job = (await ReplayJobs.FindAsync(transaction, id))!;
        switch (Plan(job, depth))
        {
            case ReplayPlan.Wait wait:
                await transaction.ExecuteAsync("UPDATE replay_jobs SET waiting = @What WHERE id = @id", new { wait.What, id });
                return (job, 0);
            case ReplayPlan.Finish:
                await EndAsync(transaction, job, ReplayJobState.Done, null, values.now);
                return (job, 0);
            case ReplayPlan.Stop stop:
                await EndAsync(transaction, job, ReplayJobState.Stopped, stop.Why, values.now);
                LogStopped(id, stop.Why);
                return (job, 0);
            case ReplayPlan.Send send when allowed > 0:
                var took = await SendAsync(transaction, job, (int)Math.Min(send.Most, allowed));
                return (await ReplayJobs.FindAsync(transaction, id), took);
            default:
                return (job, 0);
        }
    }

    private async Task<int> SendAsync(StoreTransaction transaction, ReplayJob job, int count)
    {
        var letters = await transaction.QueryAsync<long>(
            "SELECT letter_id FROM replay_job_letters WHERE job_id = @Id AND state = 'untouched' ORDER BY letter_id LIMIT @count", new { job.Id, count });
        return await SendAsync(transaction, job, letters);
    }

    private async Task<int> SendAsync(StoreTransaction transaction, ReplayJob job, IReadOnlyList<long> letters)
    {
        long sent = 0, skipped = 0, failed = 0;
        var patch = job.Patch is { } given ? LetterPatch.Parse(given.GetRawText()) : null;
        foreach (var letterId in letters)
        {
            var answer = await replay.ReplayAsync(
                transaction, new ReplayRequest(letterId, job.RequestedBy, job.Reason, patch, job.Confirmed, job.Id));
            var (state, reason, detail) = answer switch
            {
                LetterAnswer.Done => ("sent", null, null),
                LetterAnswer.Conflict conflict => ("skipped", conflict.Code, conflict.Detail),
                // Not a letter that the patch is meant for.
                LetterAnswer.Invalid { Rejection: { Reason: DeadLetterReplay.PatchNotApplicable } other } => ("skipped", other.Reason, other.Detail),
                // It would come back at once: as good as sent and failed, so that a canary stops over it.
                LetterAnswer.Invalid invalid => ("failed", invalid.Rejection.Reason, invalid.Rejection.Detail),
                _ => ("skipped", "not_found", "There is no such dead letter any more."),
            };
            (sent, skipped, failed) = state switch
            {
                "sent" => (sent + 1, skipped, failed),
                "failed" => (sent + 1, skipped, failed + 1),
                _ => (sent, skipped + 1, failed),
            };
            await transaction.ExecuteAsync(
                "UPDATE replay_job_letters SET state = @state, reason = @reason, detail = @detail WHERE job_id = @Id AND letter_id = @letterId", new { state, reason, detail, job.Id, letterId });
        }
        await transaction.ExecuteAsync("UPDATE replay_jobs SET sent = sent + @sent, skipped = skipped + @skipped, failed = failed + @failed WHERE id = @Id", new { sent, skipped, failed, job.Id });
        return letters.Count;
    }

    private static async Task EndAsync(StoreTransaction transaction, ReplayJob job, string state, string? why, long now)
    {
        await transaction.ExecuteAsync(
            "UPDATE replay_jobs SET state = @state, state_by = 'the service', state_at = @now, finished_at = @now, stop_reason = @why WHERE id = @Id", new { state, now, why, job.Id });
        await AuditTrail.WriteAsync(
            transaction, ReplayJobs.TheService, state == ReplayJobState.Done ? "replay.done" : "replay.stop", ReplayJobs.Subject(job.Id), $"{job.Succeeded} succeeded, {job.Failed} failed, {job.Skipped} skipped, {job.Untouched} untouched. {why}".TrimEnd(), now);
    }

    private ReplayPlan Plan(ReplayJob job, long? depth) => ReplayPlan.Next(job, depth, options.Value.PauseReplaysAbove, options.Value.CanaryFailures);

    [LoggerMessage(LogLevel.Warning, "Replay {JobId} stopped by itself: {Reason}")]
    private partial void LogStopped(long jobId, string reason);

    [LoggerMessage(LogLevel.Warning, "Replay jobs could not be worked on and are tried again: {Reason}")]
    private partial void LogFailed(string reason);

    /// <summary>How many letters a rate allows; what was not used within a second is forfeited.</summary>
    private sealed class Allowance(double rate, TimeProvider clock)
    {
        private double left = 1;
        private long at = clock.GetTimestamp();

        public int Left()
        {
            var now = clock.GetTimestamp();
            left = Math.Min(left + (clock.GetElapsedTime(at, now).TotalSeconds * rate), Math.Max(rate, 1));
            at = now;
            return (int)left;
        }

        public void Take(int count) => left -= count;
    }

    private sealed class Outcome
    {
        public long LetterId { get; init; }
        public string? Result { get; init; }
        public string Status { get; init; } = "";
        public string Reason { get; init; } = "";
        public string Detail { get; init; } = "";
        public string? ReplayDetail { get; init; }

        /// <summary>Why it could not even be sent; null when it was.</summary>
        public string? NotSent => ReplayDetail?.StartsWith(DeadLetterReplay.NotSendable, StringComparison.Ordinal) == true ? ReplayDetail[DeadLetterReplay.NotSendable.Length..] : null;

        // Without a result the letter was settled in another way, or it came back as a plain copy.
        public bool HasFailed => Result == "failed" || (Result is null && Status == LetterStatus.Parked);
    }
}

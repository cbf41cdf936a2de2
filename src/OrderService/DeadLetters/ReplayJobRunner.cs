using Microsoft.Extensions.Options;
using OrderService.Database;
using OrderService.Inbox;
using OrderService.Observability;
using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>How many messages are ready in the queue <c>orders</c>, its partitions included; null when that is not known.</summary>
public delegate long? QueueDepthReading();

/// <summary>Why nothing should be sent into the queues now; null while all of them are taken in.</summary>
public delegate string? IntakeReading();

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
    private readonly IntakeReading intake;
    private readonly IOptions<DeadLettersOptions> options;
    private readonly StoreTime time;
    private readonly TimeProvider clock;
    private readonly ILogger<ReplayJobRunner> logger;
    private readonly Blame<(ReplayJob Job, long LetterId)> blame;
    private readonly RefusedRows<(long JobId, long LetterId)> refusedOutcomes;

    private readonly string name = $"{Environment.MachineName}:{Guid.NewGuid():N}";
    private readonly Dictionary<long, Allowance> allowances = [];

    public ReplayJobRunner(
        IDatabase database, DeadLetterReplay replay, DeadLetterParking parking, QueueDepthReading queueDepth, IntakeReading intake, IOptions<DeadLettersOptions> options,
        Troubles troubles, StoreTime time, TimeProvider clock, ILogger<ReplayJobRunner> logger)
    {
        this.database = database;
        this.replay = replay;
        this.queueDepth = queueDepth;
        this.intake = intake;
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

    protected override Task ExecuteAsync(CancellationToken stoppingToken) =>
        PeriodicLoop.AtOnceAsync(options.Value.ReplayPollInterval, clock, WorkAsync, stoppingToken, failed: exception =>
        {
            // Nothing is lost and nothing is sent twice: the jobs stand in the store as the last commit left them.
            LogFailed(exception.Message);
            if (exception is StoreUnavailableException)
            {
                blame.Say(exception.Message, all: true);
            }
        });

    /// <summary>Looks after every open job once.</summary>
    internal async Task WorkAsync(CancellationToken cancellationToken)
    {
        var jobs = await database.ReadAsync(ReplayJobsTable.OpenAsync, cancellationToken);
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
        var letters = await database.ReadAsync(connection => ReplayJobsTable.UntouchedAsync(connection, job.Id, LettersPerTransaction), cancellationToken);
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
        var skipped = await ReplayJobsTable.SetLetterAsync(transaction, job.Id, letterId, "untouched", "skipped", RejectionReason.InternalError, detail);
        await ReplayJobsTable.CountAsync(transaction, job.Id, skipped: skipped);
    }

    /// <summary>Parks a letter that is known to be good, replays it and undoes both.</summary>
    private Task TryAsync(DeadLetterParking parking, CancellationToken cancellationToken) => database.TryOutAsync(
        async transaction =>
        {
            var letter = DeadLetterParking.KnownGoodLetter();
            await parking.ParkAsync(transaction, letter);
            var id = (await LettersTable.KnownAsync(transaction, letter.Key, letter.Fingerprint)).Id;
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
            await ReplayJobsTable.WaitAsync(transaction, job.Id, null);
            var settled = await refusedOutcomes.WriteAsync(transaction, known, outcome => (job.Id, outcome.LetterId), some => SettleAsync(transaction, job, some));
            var failed = settled.Count(outcome => outcome.HasFailed);
            var succeeded = settled.Count - failed;
            await ReplayJobsTable.CountAsync(transaction, job.Id, succeeded: succeeded, failed: failed);
            return (await ReplayJobsTable.FindAsync(transaction, job.Id))!;
        }, cancellationToken);
    }

    /// <summary>A page of outcomes that are known and not taken down; those that the store refused a moment ago are passed over.</summary>
    private async Task<List<SentLetter>> KnownAsync(ReplayJob job, CancellationToken cancellationToken)
    {
        var last = 0L;
        while (true)
        {
            var page = await database.ReadAsync(connection => ReplayJobsTable.OutcomesAsync(connection, job.Id, last, OutcomesPerTransaction), cancellationToken);
            var known = page.Where(outcome => !refusedOutcomes.IsResting((job.Id, outcome.LetterId))).ToList();
            if (known.Count > 0 || page.Count < OutcomesPerTransaction)
            {
                return known;
            }
            last = page[^1].LetterId;
        }
    }

    /// <returns>What this call took down; another runner may have taken down the rest.</returns>
    private static async Task<IReadOnlyList<SentLetter>> SettleAsync(StoreTransaction transaction, ReplayJob job, IReadOnlyList<SentLetter> known)
    {
        var settled = new List<SentLetter>(known.Count);
        foreach (var outcome in known)
        {
            var changed = await ReplayJobsTable.SetLetterAsync(
                transaction, job.Id, outcome.LetterId, "sent", outcome.HasFailed ? "failed" : "succeeded",
                !outcome.HasFailed ? null : outcome.NotSent is null ? outcome.Reason : "not_sendable", !outcome.HasFailed ? null : outcome.NotSent ?? outcome.Detail);
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
        var at = now.ToUnixTimeMilliseconds();
        if (!await ReplayJobsTable.TakeAsync(transaction, id, name, at, (now + Lease).ToUnixTimeMilliseconds(), (now + (Lease * 2)).ToUnixTimeMilliseconds()))
        {
            return (null, 0);
        }
        var job = (await ReplayJobsTable.FindAsync(transaction, id))!;
        switch (Plan(job, depth))
        {
            case ReplayPlan.Wait wait:
                await ReplayJobsTable.WaitAsync(transaction, id, wait.What);
                return (job, 0);
            case ReplayPlan.Finish:
                await EndAsync(transaction, job, ReplayJobState.Done, null, at);
                return (job, 0);
            case ReplayPlan.Stop stop:
                await EndAsync(transaction, job, ReplayJobState.Stopped, stop.Why, at);
                LogStopped(id, stop.Why);
                return (job, 0);
            case ReplayPlan.Send send when allowed > 0:
                var took = await SendAsync(transaction, job, (int)Math.Min(send.Most, allowed));
                return (await ReplayJobsTable.FindAsync(transaction, id), took);
            default:
                return (job, 0);
        }
    }

    private async Task<int> SendAsync(StoreTransaction transaction, ReplayJob job, int count)
    {
        var letters = await ReplayJobsTable.UntouchedAsync(transaction, job.Id, count);
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
            await ReplayJobsTable.SetLetterAsync(transaction, job.Id, letterId, "untouched", state, reason, detail);
        }
        await ReplayJobsTable.CountAsync(transaction, job.Id, sent: sent, failed: failed, skipped: skipped);
        return letters.Count;
    }

    private static async Task EndAsync(StoreTransaction transaction, ReplayJob job, string state, string? why, long now)
    {
        await ReplayJobsTable.EndAsync(transaction, job.Id, state, why, now);
        await AuditTrail.WriteAsync(
            transaction, ReplayJobs.TheService, state == ReplayJobState.Done ? "replay.done" : "replay.stop", ReplayJobs.Subject(job.Id), $"{job.Succeeded} succeeded, {job.Failed} failed, {job.Skipped} skipped, {job.Untouched} untouched. {why}".TrimEnd(), now);
    }

    private ReplayPlan Plan(ReplayJob job, long? depth) => ReplayPlan.Next(job, depth, options.Value.PauseReplaysAbove, options.Value.CanaryFailures, intake());

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
}

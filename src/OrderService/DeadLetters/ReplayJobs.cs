using System.Globalization;
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
        var id = await ReplayJobsTable.AddAsync(transaction, request, now);
        var total = await ReplayJobsTable.AddLettersAsync(transaction, id, request.Selection);
        if (total == 0)
        {
            await ReplayJobsTable.RemoveAsync(transaction, id);
            return null;
        }
        var patched = request.Patch is null ? "" : ", patched";
        await AuditTrail.WriteAsync(transaction, request.Who, "replay.start", Subject(id), $"{total} letters, {request.Mode}{patched}: {request.Reason}", now);
        return await ReplayJobsTable.FindAsync(transaction, id);
    }, cancellationToken);

    /// <summary>Jobs, newest first.</summary>
    /// <param name="after">The number of the last job of the page before.</param>
    public Task<IReadOnlyList<ReplayJob>> ListAsync(long? after, int limit, CancellationToken cancellationToken) =>
        database.ReadAsync(connection => ReplayJobsTable.ListAsync(connection, after ?? long.MaxValue, limit), cancellationToken);

    /// <summary>One job with its failures and its rate; null when there is none.</summary>
    public Task<ReplayJob?> GetAsync(long id, CancellationToken cancellationToken) => database.ReadAsync(async connection =>
    {
        if (await ReplayJobsTable.FindAsync(connection, id) is not { } job)
        {
            return null;
        }
        var letters = (await ReplayJobsTable.FailuresAsync(connection, id, MostFailures))
            .ToLookup(row => row.State, row => new ReplayFailure(row.LetterId, row.OrderId, row.Reason ?? "", row.Detail ?? ""));
        double? rate = null;
        if (job is { State: ReplayJobState.Running, StartedAt: { } started })
        {
            var now = clock.GetUtcNow();
            var window = TimeSpan.FromTicks(Math.Clamp((now - started).Ticks, TimeSpan.TicksPerSecond, RateWindow.Ticks));
            var sent = await ReplaysTable.SentSinceAsync(connection, id, (now - window).ToUnixTimeMilliseconds());
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
        var changed = await ReplayJobsTable.ChangeAsync(transaction, id, to, who.Shown, why, now);
        if (await ReplayJobsTable.FindAsync(transaction, id) is not { } job)
        {
            return new ReplayJobAnswer.NotFound();
        }
        if (!changed)
        {
            var at = job.StateAt.ToString("yyyy-MM-dd HH:mm:ss'Z'", CultureInfo.InvariantCulture);
            return new ReplayJobAnswer.Conflict(job.State, $"Replay {id} is {job.State} by {job.StateBy} since {at}.");
        }
        await AuditTrail.WriteAsync(transaction, who, action, Subject(id), $"{job.Sent} of {job.Total} letters sent. {why}".TrimEnd(), now);
        return new ReplayJobAnswer.Done(job);
    }, cancellationToken);

    /// <summary>Jobs that run, and when each was started or resumed.</summary>
    public Task<IReadOnlyList<(long Id, long StateAt)>> RunningAsync(CancellationToken cancellationToken) =>
        database.ReadAsync<IReadOnlyList<(long, long)>>(async connection => await ReplayJobsTable.RunningAsync(connection), cancellationToken);

    /// <summary>Who started a job or resumed it last, as the audit log has it; null when it does not say.</summary>
    public Task<Caller?> CallerAsync(long id, CancellationToken cancellationToken) =>
        database.ReadAsync(connection => AuditTrail.StarterAsync(connection, Subject(id)), cancellationToken);

    internal static string Subject(long id) => $"replay {id}";
}

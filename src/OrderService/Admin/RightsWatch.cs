using System.Collections.Concurrent;
using OrderService.DeadLetters;
using OrderService.Store;

namespace OrderService.Admin;

/// <summary>
/// What a right let in ends with it: a request that is still under way (a live stream, an export, a large body) is cut off, a replay job is paused with the reason.
/// Each is looked at every five seconds. Where a process runs jobs and has no API, it looks as well: at ended sessions and at times that are over, and not at keys,
/// which it does not know.
/// </summary>
internal sealed partial class RightsWatch(
    ApiKeyRing keys, LivingSessions sessions, ReplayJobs jobs, TimeProvider clock, ILogger<RightsWatch> logger) : BackgroundService
{
    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(5);

    private readonly ConcurrentDictionary<HttpContext, CallerRight> underWay = new(ReferenceEqualityComparer.Instance);

    /// <summary>The rights of running jobs by number and last start, so that the audit log is asked once for each.</summary>
    private readonly Dictionary<(long Id, long StateAt), (Caller Who, CallerRight? Right)> known = [];

    /// <summary>Remembers the request while it lasts. A key of the settings ends with the process only, so its requests need no watching.</summary>
    public async Task WatchAsync(HttpContext context, RequestDelegate next)
    {
        if (CallerRight.Of(context) is not { Until: not null } right)
        {
            await next(context);
            return;
        }
        underWay[context] = right;
        try
        {
            await next(context);
        }
        finally
        {
            underWay.TryRemove(context, out _);
        }
    }

    // Two loops, because a store that hangs must not keep a stream open.
    protected override Task ExecuteAsync(CancellationToken stoppingToken) => Task.WhenAll(
        EachAsync(_ =>
        {
            CutOff();
            return Task.CompletedTask;
        }, stoppingToken),
        EachAsync(async token =>
        {
            await sessions.ExchangeAsync(token);
            await PauseJobsAsync(token);
        }, stoppingToken));

    private Task EachAsync(Func<CancellationToken, Task> look, CancellationToken stoppingToken) =>
        // Rights are looked at again at the next tick; new requests are judged on their own.
        PeriodicLoop.AtOnceAsync(Interval, clock, look, stoppingToken, failed: exception => LogNotLooked(exception.Message));

    private void CutOff()
    {
        foreach (var (context, right) in underWay)
        {
            if (right.WhyEnded(keys, sessions.WhyEnded, clock.GetUtcNow()) is { } why && underWay.TryRemove(context, out _))
            {
                LogCutOff(context.Request.Path, why);
                context.Abort();
            }
        }
    }

    internal async Task PauseJobsAsync(CancellationToken cancellationToken)
    {
        var running = await jobs.RunningAsync(cancellationToken);
        foreach (var gone in known.Keys.Except(running).ToList())
        {
            known.Remove(gone);
        }
        foreach (var job in running)
        {
            if (!known.TryGetValue(job, out var caller))
            {
                var who = await jobs.CallerAsync(job.Id, cancellationToken) ?? new Caller("");
                known[job] = caller = (who, CallerRight.Parse(who.Right));
            }
            if (caller.Right?.WhyEnded(keys, sessions.WhyEnded, clock.GetUtcNow()) is { } why)
            {
                var sentence = $"It ran with the right of {caller.Who.Shown}, {why}. Whoever may operate can resume it.";
                await jobs.PauseBecauseAsync(job.Id, sentence, cancellationToken);
                LogPaused(job.Id, sentence);
            }
        }
    }

    [LoggerMessage(LogLevel.Information, "A request to {Path} was cut off: it is of a caller {Why}")]
    private partial void LogCutOff(string path, string why);

    [LoggerMessage(LogLevel.Warning, "Replay {JobId} was paused: {Reason}")]
    private partial void LogPaused(long jobId, string reason);

    [LoggerMessage(LogLevel.Warning, "Ended sessions could not be looked at and are at the next tick: {Reason}")]
    private partial void LogNotLooked(string reason);
}

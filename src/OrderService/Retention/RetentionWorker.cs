using Microsoft.Extensions.Options;
using OrderService.Observability;
using OrderService.Store;

namespace OrderService.Retention;

/// <summary>Begins a round when the last one ended long enough ago, whichever instance did it.</summary>
internal sealed partial class RetentionWorker(
    RetentionRound round, RetentionKinds kinds, IOptions<RetentionOptions> options, OrderMetrics metrics, Troubles troubles, StoreTime time, TimeProvider clock,
    ILogger<RetentionWorker> logger) : BackgroundService
{
    private const string TroubleKey = "retention";
    private static readonly TimeSpan LongestTick = TimeSpan.FromMinutes(1);

    protected override Task ExecuteAsync(CancellationToken stoppingToken)
    {
        metrics.BeginRetention(kinds.Names);
        var interval = options.Value.Interval;
        return PeriodicLoop.AfterTickAsync(interval < LongestTick ? interval : LongestTick, clock, LookAsync, stoppingToken, failed: exception =>
        {
            LogFailed(exception);
            troubles.Raise(new Trouble(
                TroubleKey, TroubleLevel.Degraded, "Old rows are not taken out", $"A round of retention failed and is tried again: {exception.Message}",
                "Nothing is lost; the store grows. Look at Retention:ArchiveFolder, its disk and its rights, then: orderservice retention run")
            {
                Patience = TimeSpan.FromMinutes(10),
            });
        });
    }

    private async Task LookAsync(CancellationToken stoppingToken)
    {
        try
        {
            if (await IsDueAsync(options.Value.Interval, stoppingToken) && await round.RunAsync(null, stoppingToken) is { } done)
            {
                troubles.Clear(TroubleKey);
                if (done.Values.Any(rows => rows > 0))
                {
                    LogDone(string.Join(", ", done.Where(rows => rows.Value > 0).Select(rows => $"{rows.Value} {rows.Key}")));
                }
            }
        }
        catch (StoreUnavailableException)
        {
            // Readiness says so; the round goes on where it was.
        }
    }

    private async Task<bool> IsDueAsync(TimeSpan interval, CancellationToken cancellationToken) =>
        // One that lies ahead is of a clock that was put back since.
        await round.LastAsync(cancellationToken) is var last && (last.EndedAt is not { } ended || time.GetUtcNow() - ended >= interval || ended > time.GetUtcNow() + interval);

    [LoggerMessage(LogLevel.Information, "Old rows were taken out: {Rows}")]
    private partial void LogDone(string rows);

    [LoggerMessage(LogLevel.Warning, "A round of retention failed and is tried again")]
    private partial void LogFailed(Exception exception);
}

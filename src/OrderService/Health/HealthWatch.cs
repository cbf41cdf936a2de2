namespace OrderService.Health;

/// <summary>Looks every second whether the stations get on, so that an alert tells of what stands still although nobody asks for health. It waits for the store for two seconds at most.</summary>
public sealed partial class HealthWatch(Readiness readiness, TimeProvider clock, ILogger<HealthWatch> logger) : BackgroundService
{
    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(1);

    protected override Task ExecuteAsync(CancellationToken stoppingToken) =>
        // Whoever asks for health meets the same.
        PeriodicLoop.AtOnceAsync(Interval, clock, readiness.WatchAsync, stoppingToken, failed: LogWatchFailed);

    [LoggerMessage(LogLevel.Warning, "The stations could not be looked at")]
    private partial void LogWatchFailed(Exception exception);
}

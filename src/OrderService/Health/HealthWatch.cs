namespace OrderService.Health;

/// <summary>Looks every second whether the stations get on, so that an alert tells of what stands still although nobody asks for health. It waits for the store for two seconds at most.</summary>
public sealed partial class HealthWatch(Readiness readiness, TimeProvider clock, ILogger<HealthWatch> logger) : BackgroundService
{
    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(1);

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var tick = new PeriodicTimer(Interval, clock);
        try
        {
            do
            {
                try
                {
                    await readiness.WatchAsync(stoppingToken);
                }
                catch (Exception exception) when (!stoppingToken.IsCancellationRequested)
                {
                    // Whoever asks for health meets the same.
                    LogWatchFailed(exception);
                }
            }
            while (await tick.WaitForNextTickAsync(stoppingToken));
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // The host stops.
        }
    }

    [LoggerMessage(LogLevel.Warning, "The stations could not be looked at")]
    private partial void LogWatchFailed(Exception exception);
}

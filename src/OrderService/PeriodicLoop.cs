namespace OrderService;

/// <summary>
/// The loop of a background service: a round at every tick, never two at a time, until the service stops. The stop ends it quietly, in the middle of a
/// round as well.
/// </summary>
internal static class PeriodicLoop
{
    /// <summary>The first round is at once.</summary>
    /// <param name="failed">
    /// What is done about each round that failed; the next tick brings the next. Without it a failure ends the loop, and with that the process. A failure that
    /// meets the stop always does. A round that passes over some failures only catches them itself.
    /// </param>
    public static Task AtOnceAsync(
        TimeSpan interval, TimeProvider clock, Func<CancellationToken, Task> round, CancellationToken stoppingToken, Action<Exception>? failed = null) =>
        RunAsync(interval, clock, round, isDue: true, failed, stoppingToken);

    /// <summary>The first round is an interval from now.</summary>
    /// <param name="failed">See <see cref="AtOnceAsync"/>.</param>
    public static Task AfterTickAsync(
        TimeSpan interval, TimeProvider clock, Func<CancellationToken, Task> round, CancellationToken stoppingToken, Action<Exception>? failed = null) =>
        RunAsync(interval, clock, round, isDue: false, failed, stoppingToken);

    private static async Task RunAsync(
        TimeSpan interval, TimeProvider clock, Func<CancellationToken, Task> round, bool isDue, Action<Exception>? failed, CancellationToken stoppingToken)
    {
        using var tick = new PeriodicTimer(interval, clock);
        try
        {
            for (; isDue || await tick.WaitForNextTickAsync(stoppingToken); isDue = false)
            {
                try
                {
                    await round(stoppingToken);
                }
                catch (Exception exception) when (failed is not null && !stoppingToken.IsCancellationRequested)
                {
                    failed(exception);
                }
            }
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // The service stops.
        }
    }
}

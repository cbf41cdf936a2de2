using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>Brings the bodies that a version before the keys of customers stored as they came under keys, a few at a time beside everything else, once.</summary>
public sealed partial class PlainLetters(IDatabase database, TimeProvider clock, ILogger<PlainLetters> logger) : BackgroundService
{
    // Of up to 1 MiB each, in a transaction that orders wait for on SQLite.
    private const int AtOnce = 20;
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan Rest = TimeSpan.FromSeconds(10);

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        long done = 0;
        try
        {
            while (true)
            {
                var pause = Pause;
                try
                {
                    var some = await SealSomeAsync(stoppingToken);
                    done += some;
                    if (some == 0)
                    {
                        if (done > 0)
                        {
                            LogDone(done);
                        }
                        return;
                    }
                }
                catch (Exception exception) when (exception is StoreUnavailableException or StoreRefusedException)
                {
                    // Nothing waits for it.
                    LogFailed(exception.Message);
                    pause = Rest;
                }
                await Task.Delay(pause, clock, stoppingToken);
            }
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // The process stops; the next start goes on.
        }
    }

    /// <returns>How many; 0 when none is left.</returns>
    internal Task<int> SealSomeAsync(CancellationToken cancellationToken) => database.WriteAsync(
        async transaction =>
        {
            var letters = await LettersTable.PlainAsync(transaction, AtOnce);
            if (letters.Count > 0)
            {
                await LettersTable.SealAsync(transaction, letters);
            }
            return letters.Count;
        },
        cancellationToken);

    [LoggerMessage(LogLevel.Information, "The bodies of {Letters} dead letters of an earlier version lie under keys now")]
    private partial void LogDone(long letters);

    [LoggerMessage(LogLevel.Warning, "Bodies of dead letters of an earlier version could not be brought under keys yet: {Reason}")]
    private partial void LogFailed(string reason);
}

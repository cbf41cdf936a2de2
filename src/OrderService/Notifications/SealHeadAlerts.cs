using Microsoft.Extensions.Options;
using OrderService.Store;

namespace OrderService.Notifications;

/// <summary>
/// Names the newest seal once a day, where no digest did: what a person has in a mailbox nobody with the store can change, so that an end of the chain that was
/// cut off is found by comparing.
/// </summary>
public sealed partial class SealHeadAlerts(
    IDatabase database, IOptions<AlertsOptions> options, IOptions<SealsOptions> seals, StoreTime time, TimeProvider clock, ILogger<SealHeadAlerts> logger)
    : BackgroundService
{
    internal static readonly TimeSpan Day = TimeSpan.FromDays(1);
    private static readonly TimeSpan Tick = TimeSpan.FromMinutes(1);

    protected override Task ExecuteAsync(CancellationToken stoppingToken)
    {
        return seals.Value.DailyHead ? PeriodicLoop.AtOnceAsync(Tick, clock, LookAsync, stoppingToken) : Task.CompletedTask;

        async Task LookAsync(CancellationToken cancellationToken)
        {
            try
            {
                await TellAsync(cancellationToken);
            }
            catch (Exception exception) when (exception is StoreUnavailableException or StoreRefusedException)
            {
                // The next tick tells it.
                LogFailed(exception.Message);
            }
        }
    }

    /// <returns>The alert's number; null when none is due.</returns>
    internal async Task<long?> TellAsync(CancellationToken cancellationToken)
    {
        if (options.Value.QuietHours.Include(clock.GetUtcNow()))
        {
            return null;
        }
        var now = time.GetUtcNow();
        var last = await database.ReadAsync(connection => SchedulesTable.LastAsync(connection, SchedulesTable.SealHead), cancellationToken);
        if (last == 0)
        {
            // The first day is not over.
            await database.WriteAsync(transaction => SchedulesTable.SetAsync(transaction, SchedulesTable.SealHead, now.ToUnixTimeMilliseconds()), cancellationToken);
            return null;
        }
        var before = (now - Day).ToUnixTimeMilliseconds();
        var isDue = last <= before || last > now.ToUnixTimeMilliseconds();
        var newest = isDue ? await database.ReadAsync(SealsTable.NewestAsync, cancellationToken) : null;
        // A chain that did not grow was told of.
        return newest is null || newest.SealedAt <= last ? null : await database.WriteAsync<long?>(
            async transaction => await SchedulesTable.TakeTurnAsync(transaction, SchedulesTable.SealHead, before, now.ToUnixTimeMilliseconds())
                ? await AlertsTable.AddAsync(transaction, Content(await HeadAsync(transaction)), null, now)
                : null,
            cancellationToken);
    }

    /// <summary>The newest seal as people note it; null while there is none.</summary>
    internal static async Task<string?> HeadAsync(StoreConnection connection) =>
        await SealsTable.NewestAsync(connection) is { } newest ? newest.Head(await EpochsTable.StoreIdAsync(connection)).ToString() : null;

    private static AlertContent Content(string? head) => new()
    {
        Kind = AlertKind.Seal,
        Subject = $"Seal of the day: {head}",
        Summary = "The newest seal of the store. There is nothing to do: keep this message. Whoever doubts the store compares it.",
        Advice = $"To compare: orderservice verify --head {head}",
        Seal = head,
    };

    [LoggerMessage(LogLevel.Warning, "The seal of the day could not be told and is tried again: {Reason}")]
    private partial void LogFailed(string reason);
}

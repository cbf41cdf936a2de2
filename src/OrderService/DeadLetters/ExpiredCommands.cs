using Dapper;
using OrderService.Database;
using OrderService.Inbox;
using OrderService.Observability;

namespace OrderService.DeadLetters;

/// <summary>Gives up commands that waited too long for their order: they become dead letters, and from then on only a replay can have them accepted.</summary>
public sealed partial class ExpiredCommands(IDatabase database, DeadLetterParking parking, OrderMetrics metrics, TimeProvider clock, ILogger<ExpiredCommands> logger) : BackgroundService
{
    private const int BatchSize = 200;
    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(5);

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var tick = new PeriodicTimer(Interval, clock);
        try
        {
            do
            {
                try
                {
                    while (await ParkExpiredAsync(stoppingToken) == BatchSize)
                    {
                    }
                }
                catch (Exception exception) when (!stoppingToken.IsCancellationRequested)
                {
                    // What is not parked still waits; the next tick tries again.
                    LogFailed(exception.Message);
                }
            }
            while (await tick.WaitForNextTickAsync(stoppingToken));
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // The process stops.
        }
    }

    /// <returns>How many were found.</returns>
    internal async Task<int> ParkExpiredAsync(CancellationToken cancellationToken)
    {
        var now = clock.GetUtcNow().ToUnixTimeMilliseconds();
        var keys = await database.ReadAsync(async connection => (await connection.QueryAsync<string>(
            "SELECT key FROM deferred WHERE expires_at <= @now ORDER BY expires_at LIMIT @BatchSize", new { now, BatchSize })).AsList(), cancellationToken);
        foreach (var key in keys)
        {
            try
            {
                // One transaction each: a command that can't be parked holds up no other.
                if (await database.WriteAsync(transaction => ParkAsync(transaction, key, now), cancellationToken) == ParkOutcome.Parked)
                {
                    metrics.LetterParked(RejectionReason.OrderUnknown);
                    LogExpired(key);
                }
            }
            catch (Exception exception) when (exception is not (StoreUnavailableException or OperationCanceledException))
            {
                LogFailed(exception.Message);
            }
        }
        return keys.Count;
    }

    private async Task<ParkOutcome?> ParkAsync(System.Data.Common.DbTransaction transaction, string key, long now)
    {
        // Whoever deletes the row decides: the order may appear at this very moment.
        var row = await transaction.Connection!.QuerySingleOrDefaultAsync<Row>(
            """
            DELETE FROM deferred WHERE key = @key AND expires_at <= @now
            RETURNING fingerprint AS Fingerprint, order_id AS OrderId, type AS Type, body AS Body, properties AS Properties
            """,
            new { key, now }, transaction);
        if (row is null)
        {
            return null;
        }
        var rejection = new Rejection(
            RejectionReason.OrderUnknown, $"{row.Type} waited for its order, which did not come in time (Orders:DeferFor). Replay it once the order is there.", null);
        return await parking.ParkAsync(
            transaction, DeadLetter.Of(key, row.Fingerprint, rejection, null, row.Body, MessagePropertiesJson.Read(row.Properties), row.OrderId) with { Claims = true });
    }

    [LoggerMessage(LogLevel.Warning, "The command with the key {Key} waited too long for its order and became a dead letter")]
    private partial void LogExpired(string key);

    [LoggerMessage(LogLevel.Warning, "Commands that waited too long could not be parked and are tried again: {Reason}")]
    private partial void LogFailed(string reason);

    private sealed record Row(byte[] Fingerprint, string OrderId, string Type, byte[] Body, string Properties);
}

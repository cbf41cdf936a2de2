using Dapper;
using OrderService.Database;
using OrderService.Inbox;

namespace OrderService.DeadLetters;

/// <summary>Commands whose order did not appear in time: they stop waiting and become dead letters (<c>order_unknown</c>).</summary>
public sealed partial class OverdueCommands(IDatabase database, DeadLetterParking parking, TimeProvider clock, ILogger<OverdueCommands> logger) : BackgroundService
{
    private const int BatchSize = 100;

    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(1);

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var tick = new PeriodicTimer(Interval, clock);
        try
        {
            while (await tick.WaitForNextTickAsync(stoppingToken))
            {
                try
                {
                    while (await ParkOverdueAsync(stoppingToken) == BatchSize)
                    {
                    }
                }
                catch (Exception exception) when (!stoppingToken.IsCancellationRequested)
                {
                    // They go on waiting; the next tick tries again.
                    LogFailed(exception.Message);
                }
            }
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // The process stops.
        }
    }

    /// <returns>How many were given up.</returns>
    internal async Task<int> ParkOverdueAsync(CancellationToken cancellationToken)
    {
        var parameters = new { now = clock.GetUtcNow().ToUnixTimeMilliseconds(), BatchSize };
        if (!await database.ReadAsync(
            connection => connection.ExecuteScalarAsync<bool>("SELECT EXISTS (SELECT 1 FROM deferred WHERE expires_at <= @now)", parameters), cancellationToken))
        {
            return 0;
        }
        var parked = await database.WriteAsync(
            async transaction =>
            {
                // Whoever deletes the row decides the command: this, or the transaction that creates the order.
                var rows = (await transaction.Connection!.QueryAsync<Row>(
                    """
                    DELETE FROM deferred WHERE key IN (SELECT key FROM deferred WHERE expires_at <= @now ORDER BY expires_at LIMIT @BatchSize)
                    RETURNING key AS Key, fingerprint AS Fingerprint, order_id AS OrderId, body AS Body, properties AS Properties
                    """,
                    parameters, transaction)).AsList();
                if (rows.Count > 0)
                {
                    await parking.ParkAsync(transaction, [.. rows.Select(row => row.ToLetter())]);
                }
                return rows.Count;
            },
            cancellationToken);
        if (parked > 0)
        {
            LogParked(parked);
        }
        return parked;
    }

    [LoggerMessage(LogLevel.Warning, "{Count} commands waited in vain for their orders and are dead letters now")]
    private partial void LogParked(int count);

    [LoggerMessage(LogLevel.Warning, "Overdue commands could not be given up yet: {Reason}")]
    private partial void LogFailed(string reason);

    private sealed class Row
    {
        public string Key { get; init; } = "";
        public byte[] Fingerprint { get; init; } = [];
        public string OrderId { get; init; } = "";
        public byte[] Body { get; init; } = [];
        public string Properties { get; init; } = "";

        public DeadLetter ToLetter() =>
            DeadLetter.Of(Key, Fingerprint, new Rejection(
                RejectionReason.OrderUnknown,
                "The order did not appear while the command waited for it; check the order id, or replay the command once the order exists.", "/orderId"),
                null, Body, MessagePropertiesJson.Read(Properties), OrderId) with { Claims = true };
    }
}

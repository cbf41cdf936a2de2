using Dapper;
using Microsoft.Extensions.Options;
using OrderService.Database;
using OrderService.Inbox;

namespace OrderService.DeadLetters;

/// <summary>Parks rejected messages whose dead letter never came: the bytes are kept with the rejection until then, so a broker that loses a letter loses nothing.</summary>
public sealed partial class MissingLetters(IDatabase database, DeadLetterParking parking, IOptions<DeadLettersOptions> options, TimeProvider clock, ILogger<MissingLetters> logger) : BackgroundService
{
    private const int BatchSize = 100;

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var tick = new PeriodicTimer(options.Value.MissingAfter / 10, clock);
        try
        {
            while (await tick.WaitForNextTickAsync(stoppingToken))
            {
                try
                {
                    while (await ParkMissingAsync(stoppingToken) == BatchSize)
                    {
                    }
                }
                catch (Exception exception) when (!stoppingToken.IsCancellationRequested)
                {
                    // The rejections keep their bytes; the next tick tries again.
                    LogFailed(exception.Message);
                }
            }
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // The process stops.
        }
    }

    /// <returns>How many were found.</returns>
    internal async Task<int> ParkMissingAsync(CancellationToken cancellationToken)
    {
        var parameters = new { before = (clock.GetUtcNow() - options.Value.MissingAfter).ToUnixTimeMilliseconds(), BatchSize };
        var any = await database.ReadAsync(connection => connection.ExecuteScalarAsync<bool>(
            "SELECT EXISTS (SELECT 1 FROM rejections WHERE parked = 0 AND rejected_at <= @before)", parameters), cancellationToken);
        if (!any)
        {
            return 0;
        }
        var rows = await database.ReadAsync(async connection => (await connection.QueryAsync<Row>(
            """
            SELECT key AS Key, fingerprint AS Fingerprint, reason AS Reason, detail AS Detail, field AS Field, exception AS Exception, order_id AS OrderId, body AS Body, properties AS Properties
            FROM rejections WHERE parked = 0 AND rejected_at <= @before ORDER BY rejected_at LIMIT @BatchSize
            """,
            parameters)).AsList(), cancellationToken);
        foreach (var row in rows)
        {
            await ParkAsync(row, cancellationToken);
        }
        if (rows.Count > 0)
        {
            LogFound(rows.Count, options.Value.MissingAfter);
        }
        return rows.Count;
    }

    private async Task ParkAsync(Row row, CancellationToken cancellationToken)
    {
        try
        {
            await database.WriteAsync(transaction => parking.ParkAsync(transaction, row.ToLetter()), cancellationToken);
        }
        catch (Exception exception) when (exception is not (StoreUnavailableException or StoreConflictException or OperationCanceledException))
        {
            LogLetterFailed(exception);
            await database.WriteAsync(transaction => parking.ParkAsync(
                transaction, DeadLetter.Raw(row.Body ?? []) with { Key = row.Key, Fingerprint = row.Fingerprint }), cancellationToken);
        }
    }

    [LoggerMessage(LogLevel.Warning, "{Count} dead letters did not come within {After}; they were parked from the bytes kept with their rejection")]
    private partial void LogFound(int count, TimeSpan after);

    [LoggerMessage(LogLevel.Warning, "The search for missing dead letters failed and is tried again: {Reason}")]
    private partial void LogFailed(string reason);

    [LoggerMessage(LogLevel.Error, "A rejected message failed by itself; only its bytes are kept")]
    private partial void LogLetterFailed(Exception exception);

    private sealed class Row
    {
        public string Key { get; init; } = "";
        public byte[] Fingerprint { get; init; } = [];
        public string Reason { get; init; } = "";
        public string Detail { get; init; } = "";
        public string? Field { get; init; }
        public string? Exception { get; init; }
        public string? OrderId { get; init; }
        public byte[]? Body { get; init; }
        public string? Properties { get; init; }

        public DeadLetter ToLetter() => DeadLetter.Of(
            Key, Fingerprint, new Rejection(Reason, Detail, Field), Exception, Body ?? [], Properties is null ? MessageProperties.Empty : MessagePropertiesJson.Read(Properties), OrderId);
    }
}

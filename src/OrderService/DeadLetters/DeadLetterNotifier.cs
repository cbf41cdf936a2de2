using System.Data.Common;
using Dapper;
using Microsoft.Extensions.Options;
using OrderService.Database;
using OrderService.Notifications;

namespace OrderService.DeadLetters;

/// <summary>
/// Tells of the letters that no alert covers yet: all of them in one digest, once per interval. However many letters there are, the number of alerts
/// depends on the number of kinds and on time alone, and every letter is covered.
/// </summary>
public sealed partial class DeadLetterNotifier(IDatabase database, IOptions<AlertsOptions> options, TimeProvider clock, ILogger<DeadLetterNotifier> logger) : BackgroundService
{
    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var tick = new PeriodicTimer(options.Value.PollInterval, clock);
        try
        {
            do
            {
                try
                {
                    await DigestAsync(stoppingToken);
                }
                catch (Exception exception) when (!stoppingToken.IsCancellationRequested)
                {
                    // Nothing is lost: a letter without an alert is found at the next tick.
                    LogDigestFailed(exception.Message);
                }
            }
            while (await tick.WaitForNextTickAsync(stoppingToken));
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // The process stops.
        }
    }

    /// <summary>Writes a digest when the oldest letter that waits for one has waited for an interval.</summary>
    /// <returns>The alert's number; null when none is due.</returns>
    internal async Task<long?> DigestAsync(CancellationToken cancellationToken)
    {
        var now = clock.GetUtcNow();
        var parameters = new { now = now.ToUnixTimeMilliseconds(), before = (now - options.Value.DigestInterval).ToUnixTimeMilliseconds() };
        // A look before the write: an idle service commits nothing.
        if (!await database.ReadAsync(connection => connection.ExecuteScalarAsync<bool>(Due, parameters), cancellationToken))
        {
            return null;
        }
        return await database.WriteAsync(async transaction =>
        {
            // The row is the lock: of two instances the second waits here and then finds nothing due.
            await transaction.Connection!.ExecuteAsync("UPDATE schedules SET last_at = @now WHERE name = 'digest'", parameters, transaction);
            return await transaction.Connection!.ExecuteScalarAsync<bool>(Due, parameters, transaction) ? await WriteDigestAsync(transaction, now) : (long?)null;
        }, cancellationToken);
    }

    private async Task<long> WriteDigestAsync(DbTransaction transaction, DateTimeOffset now)
    {
        var placeholder = new AlertContent { Kind = AlertKind.Digest, Subject = "", Summary = "" };
        var alertId = await AlertOutbox.AddAsync(transaction, placeholder, null, now);
        var parameters = new { alertId, now = now.ToUnixTimeMilliseconds() };
        // First the letters are taken, then counted: what is said is what is covered.
        await transaction.Connection!.ExecuteAsync(
            $"UPDATE dead_letters SET alert_id = @alertId WHERE alert_id IS NULL AND status <> 'superseded' AND incident NOT IN ({Muted})", parameters, transaction);
        var content = await LetterAlerts.DigestAsync(transaction, alertId, options.Value.PageUrl);
        await AlertOutbox.FillAsync(transaction, alertId, content);
        await transaction.Connection!.ExecuteAsync(
            "UPDATE incidents SET last_alert_at = @now WHERE fingerprint IN (SELECT DISTINCT incident FROM dead_letters WHERE alert_id = @alertId)", parameters, transaction);
        return alertId;
    }

    private const string Muted = "SELECT fingerprint FROM incidents WHERE muted_until > @now";

    private const string Due = $"SELECT EXISTS (SELECT 1 FROM dead_letters WHERE alert_id IS NULL AND status <> 'superseded' AND opened_at <= @before AND incident NOT IN ({Muted}))";

    [LoggerMessage(LogLevel.Warning, "The digest of dead letters could not be written and is tried again: {Reason}")]
    private partial void LogDigestFailed(string reason);
}

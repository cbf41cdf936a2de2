using System.Data.Common;
using Dapper;
using Microsoft.Extensions.Options;
using OrderService.Database;
using OrderService.Notifications;

namespace OrderService.DeadLetters;

/// <summary>
/// Tells of the letters that no alert covers yet: all of them in one digest, once per interval. However many letters there are, the number of alerts
/// depends on the number of kinds and on time alone, and every letter is covered. In quiet hours digests and reminders wait. Reminds of incidents that nobody acknowledged, escalates them, and says when one is over.
/// </summary>
public sealed partial class DeadLetterNotifier(IDatabase database, IOptions<AlertsOptions> options, StoreTime time, TimeProvider clock, ILogger<DeadLetterNotifier> logger) : BackgroundService
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
                    await FollowUpAsync(stoppingToken);
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
        if (options.Value.QuietHours.Include(clock.GetUtcNow()))
        {
            // The first digest after them covers what came meanwhile.
            return null;
        }
        var now = time.GetUtcNow();
        var parameters = new { now = now.ToUnixTimeMilliseconds(), beyond = Beyond(now), before = (now - options.Value.DigestInterval).ToUnixTimeMilliseconds() };
        // A look before the write: an idle service commits nothing.
        if (!await database.ReadAsync(connection => connection.ExecuteScalarAsync<bool>(Due, parameters), cancellationToken))
        {
            return null;
        }
        // A look at every parked letter: not within the write, which would hold up the order flow.
        var held = await database.ReadAsync(connection => LetterAlerts.HeldAsync(connection, null, null), cancellationToken);
        return await database.WriteAsync(async transaction =>
        {
            // The row is the lock: of two instances the second waits here and then finds nothing due.
            await transaction.Connection!.ExecuteAsync("UPDATE schedules SET last_at = @now WHERE name = 'digest'", parameters, transaction);
            return await transaction.Connection!.ExecuteScalarAsync<bool>(Due, parameters, transaction) ? await WriteDigestAsync(transaction, held, now) : (long?)null;
        }, cancellationToken);
    }

    /// <summary>Writes an escalation, a reminder and a recovery notice, each for all incidents that need one.</summary>
    /// <returns>How many alerts were written.</returns>
    internal async Task<int> FollowUpAsync(CancellationToken cancellationToken)
    {
        var now = time.GetUtcNow();
        var wall = clock.GetUtcNow();
        // What may not go out in quiet hours is due after them: nothing is old enough before.
        const long Never = long.MinValue;
        var parameters = new
        {
            now = now.ToUnixTimeMilliseconds(),
            beyond = options.Value.QuietHours.Include(wall) ? long.MaxValue : Beyond(now),
            escalate = options.Value.QuietHours.HoldFirst(wall) ? Never : (now - options.Value.EscalateAfter).ToUnixTimeMilliseconds(),
            remind = options.Value.QuietHours.Include(wall) ? Never : (now - options.Value.RemindAfter).ToUnixTimeMilliseconds(),
            quiet = (now - QuietBeforeRecovery).ToUnixTimeMilliseconds(),
        };
        if (!await database.ReadAsync(connection => connection.ExecuteScalarAsync<bool>(
            $"SELECT EXISTS (SELECT 1 FROM incidents i WHERE ({ToEscalate}) OR ({ToRemind}) OR ({Over}))", parameters), cancellationToken))
        {
            return 0;
        }
        return await database.WriteAsync(async transaction =>
        {
            await transaction.Connection!.ExecuteAsync("UPDATE schedules SET last_at = @now WHERE name = 'reminders'", parameters, transaction);
            var written = 0;
            written += await TellAsync(transaction, AlertKind.Escalation, $"UPDATE incidents AS i SET escalated_at = @now, last_alert_at = @now WHERE {ToEscalate} RETURNING fingerprint", parameters, now);
            written += await TellAsync(transaction, AlertKind.Reminder, $"UPDATE incidents AS i SET last_alert_at = @now WHERE {ToRemind} RETURNING fingerprint", parameters, now);
            written += await TellAsync(transaction, AlertKind.Recovery,
                $"UPDATE incidents AS i SET state = 'resolved', state_by = 'order flow', state_at = @now, escalated_at = NULL WHERE {Over} RETURNING fingerprint", parameters, now);
            return written;
        }, cancellationToken);
    }

    private async Task<int> TellAsync(DbTransaction transaction, string kind, string update, object parameters, DateTimeOffset now)
    {
        var fingerprints = (await transaction.Connection!.QueryAsync<string>(update, parameters, transaction)).AsList();
        if (fingerprints.Count == 0)
        {
            return 0;
        }
        var content = await LetterAlerts.FollowUpAsync(transaction, kind, fingerprints, options.Value.PageUrl);
        await AlertOutbox.AddAsync(transaction, content, fingerprints.Count == 1 ? fingerprints[0] : null, now);
        return 1;
    }

    private async Task<long> WriteDigestAsync(DbTransaction transaction, AlertHeld held, DateTimeOffset now)
    {
        var placeholder = new AlertContent { Kind = AlertKind.Digest, Subject = "", Summary = "" };
        var alertId = await AlertOutbox.AddAsync(transaction, placeholder, null, now);
        var parameters = new { alertId, now = now.ToUnixTimeMilliseconds() };
        // First the letters are taken, then counted: what is said is what is covered.
        await transaction.Connection!.ExecuteAsync(
            $"UPDATE dead_letters SET alert_id = @alertId WHERE alert_id IS NULL AND status <> 'superseded' AND incident NOT IN ({Muted})", parameters, transaction);
        var content = await LetterAlerts.DigestAsync(transaction, alertId, held, options.Value.PageUrl);
        await AlertOutbox.FillAsync(transaction, alertId, content);
        await transaction.Connection!.ExecuteAsync(
            "UPDATE incidents SET last_alert_at = @now WHERE fingerprint IN (SELECT DISTINCT incident FROM dead_letters WHERE alert_id = @alertId)", parameters, transaction);
        return alertId;
    }

    /// <summary>Letters come in bursts: an incident is over when none came for this long and none is left.</summary>
    private static readonly TimeSpan QuietBeforeRecovery = TimeSpan.FromMinutes(1);

    /// <summary>Nothing happens in the future: what says so is from before the clock was set back, and old enough.</summary>
    private static long Beyond(DateTimeOffset now) => (now + TimeSpan.FromMinutes(1)).ToUnixTimeMilliseconds();

    private const string Unattended =
        "i.state IN ('new', 'regressed') AND coalesce(i.muted_until, 0) <= @now AND EXISTS (SELECT 1 FROM dead_letters l WHERE l.incident = i.fingerprint AND l.status = 'parked')";

    private const string ToEscalate = $"i.escalated_at IS NULL AND (i.state_at <= @escalate OR i.state_at > @beyond) AND {Unattended}";

    private const string ToRemind = $"(i.last_alert_at <= @remind OR i.last_alert_at > @beyond) AND {Unattended}";

    private const string Over =
        "i.state <> 'resolved' AND (i.last_seen <= @quiet OR i.last_seen > @beyond) AND NOT EXISTS (SELECT 1 FROM dead_letters l WHERE l.incident = i.fingerprint AND l.status IN ('parked', 'replayed'))";

    private const string Muted = "SELECT fingerprint FROM incidents WHERE muted_until > @now";

    private const string Due = $"SELECT EXISTS (SELECT 1 FROM dead_letters WHERE alert_id IS NULL AND status <> 'superseded' AND (opened_at <= @before OR opened_at > @beyond) AND incident NOT IN ({Muted}))";

    [LoggerMessage(LogLevel.Warning, "The digest of dead letters could not be written and is tried again: {Reason}")]
    private partial void LogDigestFailed(string reason);
}

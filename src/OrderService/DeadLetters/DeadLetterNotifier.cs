using Microsoft.Extensions.Options;
using OrderService.Database;
using OrderService.Notifications;
using OrderService.Observability;
using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>
/// Tells of the letters that no alert covers yet: all of them in one digest, once per interval. However many letters there are, the number of alerts
/// depends on the number of kinds and on time alone, and every letter is covered. In quiet hours digests and reminders wait. Reminds of incidents that nobody acknowledged, escalates them, and says when one is over.
/// </summary>
public sealed partial class DeadLetterNotifier(
    IDatabase database, IOptions<AlertsOptions> options, Troubles troubles, StoreTime time, TimeProvider clock, ILogger<DeadLetterNotifier> logger) : BackgroundService
{
    /// <summary>How many letters or incidents one statement changes.</summary>
    private const int PageSize = 500;

    private readonly RefusedRows<long> refusedLetters = new("digests", "Digests of dead letters", troubles, clock, logger);
    private readonly RefusedRows<string> refusedIncidents = new("incidents", "Alerts about incidents", troubles, clock, logger);

    protected override Task ExecuteAsync(CancellationToken stoppingToken) =>
        PeriodicLoop.AtOnceAsync(options.Value.PollInterval, clock, LookAsync, stoppingToken);

    /// <summary>Does both, and neither waits for the other.</summary>
    internal async Task LookAsync(CancellationToken cancellationToken)
    {
        await TryAsync(refusedLetters, DigestAsync, cancellationToken);
        await TryAsync(refusedIncidents, FollowUpAsync, cancellationToken);
    }

    private async Task TryAsync<TKey, T>(RefusedRows<TKey> refused, Func<CancellationToken, Task<T>> step, CancellationToken stoppingToken)
        where TKey : notnull
    {
        try
        {
            await step(stoppingToken);
            refused.Pass(step.Method.Name);
        }
        catch (Exception exception) when (!stoppingToken.IsCancellationRequested)
        {
            // Nothing is lost: a letter without an alert is found at the next tick.
            LogFailed(exception.Message);
            refused.Fail(step.Method.Name, exception);
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
        var (at, before, resting) = (now.ToUnixTimeMilliseconds(), (now - options.Value.DigestInterval).ToUnixTimeMilliseconds(), refusedLetters.Resting);
        // A look before the write: an idle service commits nothing.
        if (!await database.ReadAsync(connection => LettersTable.AnyUncoveredAsync(connection, at, before, Beyond(now), resting), cancellationToken))
        {
            return null;
        }
        // A look at every parked letter: not within the write, which would hold up the order flow.
        var held = await database.ReadAsync(connection => LetterAlerts.HeldAsync(connection, null), cancellationToken);
        return await database.WriteAsync(async transaction =>
        {
            // The row is the lock: of two instances the second waits here and then finds nothing due.
            await SchedulesTable.SetAsync(transaction, SchedulesTable.Digest, at);
            return await LettersTable.AnyUncoveredAsync(transaction, at, before, Beyond(now), resting) ? await WriteDigestAsync(transaction, held, now) : null;
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
        var times = new IncidentTimes(
            now.ToUnixTimeMilliseconds(),
            options.Value.QuietHours.Include(wall) ? long.MaxValue : Beyond(now),
            options.Value.QuietHours.HoldFirst(wall) ? Never : (now - options.Value.EscalateAfter).ToUnixTimeMilliseconds(),
            options.Value.QuietHours.Include(wall) ? Never : (now - options.Value.RemindAfter).ToUnixTimeMilliseconds(),
            (now - QuietBeforeRecovery).ToUnixTimeMilliseconds());
        // A look before the write: an idle service commits nothing.
        var (escalations, reminders, over) = await database.ReadAsync(
            async connection => (
                await DueAsync(connection, IncidentStep.Escalate, times), await DueAsync(connection, IncidentStep.Remind, times), await DueAsync(connection, IncidentStep.End, times)),
            cancellationToken);
        if (escalations.Count + reminders.Count + over.Count == 0)
        {
            return 0;
        }
        return await database.WriteAsync(async transaction =>
        {
            await SchedulesTable.SetAsync(transaction, SchedulesTable.Reminders, times.Now);
            var written = 0;
            written += await TellAsync(transaction, AlertKind.Escalation, escalations, IncidentStep.Escalate, times, now);
            written += await TellAsync(transaction, AlertKind.Reminder, reminders, IncidentStep.Remind, times, now);
            written += await TellAsync(transaction, AlertKind.Recovery, over, IncidentStep.End, times, now);
            return written;
        }, cancellationToken);
    }

    private async Task<List<string>> DueAsync(StoreConnection connection, IncidentStep step, IncidentTimes times) =>
        [.. (await IncidentsTable.DueAsync(connection, step, times)).Where(fingerprint => !refusedIncidents.IsResting(fingerprint))];

    private async Task<int> TellAsync(StoreTransaction transaction, string kind, List<string> found, IncidentStep step, IncidentTimes times, DateTimeOffset now)
    {
        var fingerprints = await TakeAsync(transaction, found, step, times);
        if (fingerprints.Count == 0)
        {
            return 0;
        }
        var content = await LetterAlerts.FollowUpAsync(transaction, kind, fingerprints, options.Value.PageUrl);
        await AlertsTable.AddAsync(transaction, content, fingerprints.Count == 1 ? fingerprints[0] : null, now);
        return 1;
    }

    private async Task<List<string>> TakeAsync(StoreTransaction transaction, IReadOnlyList<string> fingerprints, IncidentStep step, IncidentTimes times)
    {
        var taken = new List<string>();
        foreach (var page in fingerprints.Chunk(PageSize))
        {
            taken.AddRange(await refusedIncidents.WriteAsync(
                transaction, page, static fingerprint => fingerprint, async some => await IncidentsTable.TakeAsync(transaction, some, step, times)));
        }
        return taken;
    }

    /// <returns>The alert's number; null when the store takes none of the letters that are due.</returns>
    private async Task<long?> WriteDigestAsync(StoreTransaction transaction, AlertHeld held, DateTimeOffset now)
    {
        var letters = await LettersTable.UncoveredAsync(transaction, now.ToUnixTimeMilliseconds(), refusedLetters.Resting);
        var placeholder = new AlertContent { Kind = AlertKind.Digest, Subject = "", Summary = "" };
        var alertId = await AlertsTable.AddAsync(transaction, placeholder, null, now);
        // First the letters are taken, then counted: what is said is what is covered.
        var covered = 0;
        foreach (var page in letters.Chunk(PageSize))
        {
            var taken = await refusedLetters.WriteAsync(transaction, page, static id => id, async some =>
            {
                await LettersTable.CoverAsync(transaction, some, alertId);
                return some;
            });
            covered += taken.Count;
            if (taken.Count < page.Length)
            {
                // Enough attempts for one transaction: the digest of the next tick covers the rest.
                break;
            }
        }
        if (covered == 0)
        {
            await AlertsTable.RemoveAsync(transaction, alertId);
            return null;
        }
        var content = await LetterAlerts.DigestAsync(transaction, alertId, held, options.Value.PageUrl);
        var seal = await SealHeadAlerts.HeadAsync(transaction);
        await AlertsTable.FillAsync(transaction, alertId, content with { Seal = seal });
        if (seal is not null)
        {
            await SchedulesTable.SetAsync(transaction, SchedulesTable.SealHead, now.ToUnixTimeMilliseconds());
        }
        var incidents = await LettersTable.IncidentsOfAlertAsync(transaction, alertId);
        await TakeAsync(transaction, incidents, IncidentStep.Mention, new IncidentTimes(now.ToUnixTimeMilliseconds(), 0, 0, 0, 0));
        return alertId;
    }

    /// <summary>Letters come in bursts: an incident is over when none came for this long and none is left.</summary>
    private static readonly TimeSpan QuietBeforeRecovery = TimeSpan.FromMinutes(1);

    /// <summary>Nothing happens in the future: what says so is from before the clock was set back, and old enough.</summary>
    private static long Beyond(DateTimeOffset now) => (now + TimeSpan.FromMinutes(1)).ToUnixTimeMilliseconds();

    [LoggerMessage(LogLevel.Warning, "Alerts about dead letters could not be written and are tried again: {Reason}")]
    private partial void LogFailed(string reason);
}

using Dapper;
using Microsoft.Extensions.Options;
using OrderService.Database;
using OrderService.Notifications;
using OrderService.RabbitMq;

namespace OrderService.DeadLetters;

/// <summary>
/// Tells of messages in <c>orders.unreadable</c>, which nobody consumes: when one comes, again while they lie there, and when none is left.
/// What was told stands in the alerts themselves, so a restart repeats nothing and of several instances one speaks.
/// </summary>
public sealed partial class UnreadableLetters(IDatabase database, UnreadableReading read, IOptions<AlertsOptions> options, TimeProvider clock, ILogger<UnreadableLetters> logger) : BackgroundService
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
                    await LookAsync(stoppingToken);
                }
                catch (Exception exception) when (!stoppingToken.IsCancellationRequested)
                {
                    // The messages stay where they are; the next tick looks again.
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

    /// <returns>The alert's number; null when there is nothing new to tell.</returns>
    internal async Task<long?> LookAsync(CancellationToken cancellationToken)
    {
        if (read() is not { Exists: true } depth)
        {
            return null;
        }
        var now = clock.GetUtcNow();
        if (!IsNews(depth, await database.ReadAsync(connection => connection.QuerySingleOrDefaultAsync<Told>(LastTold), cancellationToken), now))
        {
            return null;
        }
        return await database.WriteAsync(async transaction =>
        {
            // The row is the lock: of two instances the second waits here and then finds nothing new.
            await transaction.Connection!.ExecuteAsync(
                "INSERT INTO schedules (name, last_at) VALUES ('unreadable', @now) ON CONFLICT (name) DO UPDATE SET last_at = excluded.last_at", new { now = now.ToUnixTimeMilliseconds() }, transaction);
            return IsNews(depth, await transaction.Connection!.QuerySingleOrDefaultAsync<Told>(LastTold, transaction: transaction), now)
                ? await AlertOutbox.AddAsync(transaction, Content(depth.Ready), null, now)
                : (long?)null;
        }, cancellationToken);
    }

    private bool IsNews(QueueDepth depth, Told? told, DateTimeOffset now)
    {
        if (depth.Ready == 0)
        {
            // A reading from before the alert says nothing about what it told of.
            return told is { Letters: > 0 } && depth.At.ToUnixTimeMilliseconds() > told.CreatedAt && !options.Value.QuietHours.Include(now);
        }
        return depth.Ready > (told?.Letters ?? 0)
            ? !options.Value.QuietHours.HoldFirst(now)
            : told!.CreatedAt <= (now - options.Value.RemindAfter).ToUnixTimeMilliseconds() && !options.Value.QuietHours.Include(now);
    }

    private static AlertContent Content(long letters) => letters == 0
        ? new AlertContent { Kind = AlertKind.Service, Subject = "Over: unreadable messages", Summary = $"The queue {TopologyNames.Unreadable} is empty again." }
        : new AlertContent
        {
            Kind = AlertKind.Service,
            Subject = letters == 1 ? "1 message can't be read and is held in the broker" : FormattableString.Invariant($"{letters:N0} messages can't be read and are held in the broker"),
            Summary = $"Their headers can't be read by the service, so they could not become dead letters. They lie in the queue {TopologyNames.Unreadable}, and nothing happens to them until somebody takes them out.",
            Advice = "See docs/operations.md, Unreadable messages: look at each, send its body to the queue orders again without the header, then take it out.",
            Letters = letters,
        };

    private const string LastTold = "SELECT letters AS Letters, created_at AS CreatedAt FROM alerts WHERE kind = 'service' ORDER BY created_at DESC, id DESC LIMIT 1";

    [LoggerMessage(LogLevel.Warning, "What lies in orders.unreadable could not be told yet and is tried again: {Reason}")]
    private partial void LogFailed(string reason);

    private sealed record Told(long Letters, long CreatedAt);
}

/// <summary>The newest reading of <c>orders.unreadable</c>; null before the first.</summary>
public delegate QueueDepth? UnreadableReading();

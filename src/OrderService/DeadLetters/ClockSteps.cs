using System.Globalization;
using Microsoft.Extensions.Options;
using OrderService.Inbox;
using OrderService.Notifications;
using OrderService.Observability;
using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>
/// Durations belong to time that passed, not to what a clock was set to. Compares the store's clock with the monotonic one, and when it was set, moves the deadlines that were written
/// before by as much (docs/decisions/0026). A command that waits for its order waits by time in which a service ran: a stop does not count either.
/// </summary>
public sealed partial class ClockSteps(
    IDatabase database, StoreTime time, Troubles troubles, IOptions<OrdersOptions> orders, TimeProvider clock, ILogger<ClockSteps> logger) : BackgroundService
{
    private const string Trouble = "clock";

    /// <summary>Less is drift, or the time an answer took.</summary>
    private static readonly TimeSpan Threshold = TimeSpan.FromSeconds(5);

    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(1);

    /// <summary>How often it is noted that a service runs, while commands wait.</summary>
    private static readonly TimeSpan SeenInterval = TimeSpan.FromSeconds(15);

    /// <summary>A pause that nobody has to hear of: a restart.</summary>
    private static readonly TimeSpan ShortStop = TimeSpan.FromMinutes(1);

    /// <summary>How long a step is shown.</summary>
    private static readonly TimeSpan Shown = TimeSpan.FromHours(1);

    private readonly SemaphoreSlim turn = new(1, 1);
    private StoreMoment? last;
    private (DateTimeOffset At, long Timestamp)? wall;
    private long? steppedAt;
    private long? notedAt;

    public override void Dispose()
    {
        turn.Dispose();
        base.Dispose();
    }

    protected override Task ExecuteAsync(CancellationToken stoppingToken) =>
        // Deadlines are judged by the last reading until the store answers again.
        PeriodicLoop.AtOnceAsync(Interval, clock, LookAsync, stoppingToken, failed: exception => LogFailed(exception.Message));

    /// <summary>Moves deadlines if the clock was set since the last look.</summary>
    /// <returns>What the store's clock says; every deadline in the store is right by it.</returns>
    internal async Task<DateTimeOffset> LookAsync(CancellationToken cancellationToken)
    {
        await turn.WaitAsync(cancellationToken);
        try
        {
            var read = await time.ReadAsync(database, cancellationToken);
            if (last is { } before && read.Took >= Threshold / 2)
            {
                // Too slow an answer to be compared with.
                return before.At + clock.GetElapsedTime(before.Timestamp);
            }
            LookAtWall();
            if (last is not { } known)
            {
                await ResumeAsync(read, cancellationToken);
            }
            else if (read.StepSince(known, clock) is var step && step.Duration() >= Threshold)
            {
                // Another instance that saw it, too, may have been first.
                if (read.Steps == known.Steps)
                {
                    await MoveAsync(step, read, cancellationToken);
                    read = read with { Steps = read.Steps + 1 };
                }
                Tell(step, "the store's clock");
            }
            last = read;
            if (database.Provider == "Postgres")
            {
                time.Set(read);
            }
            await NoteAsync(read, cancellationToken);
            if (steppedAt is { } at && clock.GetElapsedTime(at) >= Shown)
            {
                steppedAt = null;
                troubles.Clear(Trouble);
            }
            return read.At;
        }
        finally
        {
            turn.Release();
        }
    }

    /// <summary>This machine's clock matters for nothing in PostgreSQL; somebody should know all the same.</summary>
    private void LookAtWall()
    {
        var now = (At: clock.GetUtcNow(), Timestamp: clock.GetTimestamp());
        if (wall is { } before && database.Provider == "Postgres" && now.At - before.At - clock.GetElapsedTime(before.Timestamp, now.Timestamp) is var step && step.Duration() >= Threshold)
        {
            Tell(step, "this machine's clock");
        }
        wall = now;
    }

    private void Tell(TimeSpan step, string whose)
    {
        var how = $"{(step > TimeSpan.Zero ? "forward" : "back")} by {Text(step.Duration())}";
        LogStep(whose, how);
        steppedAt = clock.GetTimestamp();
        troubles.Raise(new Trouble(
            Trouble, TroubleLevel.Notice, $"A clock was set {how}", $"It is {whose}. What waits goes on waiting as long as it should; times that were recorded before keep what the clock said then.",
            "Let the clock follow a time server in small steps (chrony, systemd-timesyncd)."));
    }

    /// <summary>Everything that waits, by the same step; of several instances one does it.</summary>
    private Task MoveAsync(TimeSpan step, StoreMoment read, CancellationToken cancellationToken) => database.WriteAsync(
        async transaction =>
        {
            if (!await SchedulesTable.ReplaceAsync(transaction, SchedulesTable.ClockSteps, read.Steps, read.Steps + 1))
            {
                return;
            }
            var (by, before) = ((long)step.TotalMilliseconds, (read.At - step).ToUnixTimeMilliseconds());
            await DeferredTable.MoveAsync(transaction, by);
            await RejectionsTable.MoveAsync(transaction, by);
            await DeliveriesTable.MoveAsync(transaction, by);
            await OrderMailsTable.MoveAsync(transaction, by);
            await TroublesTable.MoveAsync(transaction, by);
            await IncidentsTable.MoveAsync(transaction, by, before);
            await ReplayJobsTable.MoveAsync(transaction, by);
            await SchedulesTable.MoveAsync(transaction, by);
        },
        cancellationToken);

    /// <summary>The first look of a process: the clock may have been set while no service ran, and while none ran nothing could come that is waited for.</summary>
    private async Task ResumeAsync(StoreMoment read, CancellationToken cancellationToken)
    {
        var seen = await database.ReadAsync(connection => SchedulesTable.LastAsync(connection, SchedulesTable.ClockSeen), cancellationToken);
        var gap = read.At - DateTimeOffset.FromUnixTimeMilliseconds(seen);
        if (seen == 0 || (gap > -Threshold && gap < ShortStop))
        {
            return;
        }
        if (gap < TimeSpan.Zero)
        {
            await MoveAsync(gap, read, cancellationToken);
            Tell(gap, "the store's clock, while no service ran,");
            return;
        }
        var now = read.At.ToUnixTimeMilliseconds();
        var longer = await database.WriteAsync(
            async transaction => await SchedulesTable.ReplaceAsync(transaction, SchedulesTable.ClockSeen, seen, now)
                ? await DeferredTable.ProlongAsync(transaction, (long)gap.TotalMilliseconds, now + (long)orders.Value.DeferFor.TotalMilliseconds)
                : 0,
            cancellationToken);
        if (longer > 0)
        {
            LogResumed(longer, Text(gap));
        }
    }

    private async Task NoteAsync(StoreMoment read, CancellationToken cancellationToken)
    {
        if (notedAt is { } before && clock.GetElapsedTime(before) < SeenInterval)
        {
            return;
        }
        notedAt = clock.GetTimestamp();
        // A look before the write: an idle service commits nothing.
        if (await database.ReadAsync(DeferredTable.AnyAsync, cancellationToken))
        {
            await database.WriteAsync(transaction => SchedulesTable.SetAsync(transaction, SchedulesTable.ClockSeen, read.At.ToUnixTimeMilliseconds()), cancellationToken);
        }
    }

    private static string Text(TimeSpan duration) => duration switch
    {
        { TotalDays: >= 2 } => string.Create(CultureInfo.InvariantCulture, $"{duration.TotalDays:0} days"),
        { TotalHours: >= 2 } => string.Create(CultureInfo.InvariantCulture, $"{duration.TotalHours:0.#} hours"),
        { TotalMinutes: >= 2 } => string.Create(CultureInfo.InvariantCulture, $"{duration.TotalMinutes:0} minutes"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{duration.TotalSeconds:0} s"),
    };

    [LoggerMessage(LogLevel.Warning, "A clock was set: {Whose} {How}; deadlines keep their distance")]
    private partial void LogStep(string whose, string how);

    [LoggerMessage(LogLevel.Information, "{Count} commands go on waiting for their orders: no service ran for {Gap}")]
    private partial void LogResumed(int count, string gap);

    [LoggerMessage(LogLevel.Warning, "The store's clock could not be read and is tried again: {Reason}")]
    private partial void LogFailed(string reason);
}

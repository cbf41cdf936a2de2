
namespace OrderService.Store;

/// <summary>
/// The clock that deadlines in the store are written and judged by: PostgreSQL's own, so that of several instances none is early or late for the others, as last read and
/// carried on by the monotonic clock; on SQLite, whose file only one process serves, the wall clock. Times for people are the wall clock's.
/// </summary>
public sealed class StoreTime(TimeProvider clock)
{
    private StoreMoment? last;

    public DateTimeOffset GetUtcNow() => last is { } read ? read.At + clock.GetElapsedTime(read.Timestamp) : clock.GetUtcNow();

    /// <summary>In Unix milliseconds.</summary>
    public long Now() => GetUtcNow().ToUnixTimeMilliseconds();

    /// <summary>Reads PostgreSQL's clock instead of asking it, for tests that set it.</summary>
    internal Func<DateTimeOffset>? ServerClock { get; init; }

    /// <summary>Reads the store's clock.</summary>
    /// <returns>What it says, and the steps of it that deadlines were moved for until then.</returns>
    internal async Task<StoreMoment> ReadAsync(IDatabase database, CancellationToken cancellationToken)
    {
        var asksServer = database.Provider == "Postgres" && ServerClock is null;
        var began = clock.GetTimestamp();
        var (milliseconds, steps) = await database.ReadAsync(
            connection => asksServer
                ? connection.QuerySingleAsync<(long, long)>($"SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint, ({SchedulesTable.SelectClockSteps})")
                : connection.QuerySingleAsync<(long, long)>($"SELECT 0, ({SchedulesTable.SelectClockSteps})"),
            cancellationToken);
        return asksServer
            ? new StoreMoment(DateTimeOffset.FromUnixTimeMilliseconds(milliseconds), began, steps, clock.GetElapsedTime(began))
            : new StoreMoment(ServerClock?.Invoke() ?? clock.GetUtcNow(), clock.GetTimestamp(), steps, TimeSpan.Zero);
    }

    /// <summary>From here on time is counted from a moment that was read from PostgreSQL.</summary>
    internal void Set(StoreMoment moment) => last = moment;
}

/// <summary>What the store's clock said.</summary>
/// <param name="Timestamp">When, by this process's monotonic clock.</param>
/// <param name="Steps">How many steps of the clock the deadlines in the store were moved for.</param>
/// <param name="Took">How exact it is.</param>
internal sealed record StoreMoment(DateTimeOffset At, long Timestamp, long Steps, TimeSpan Took)
{
    /// <summary>By how much the store's clock went on more, or less, than time did; some of it is drift, and the time that answers took.</summary>
    public TimeSpan StepSince(StoreMoment before, TimeProvider clock) => At - before.At - clock.GetElapsedTime(before.Timestamp, Timestamp);
}

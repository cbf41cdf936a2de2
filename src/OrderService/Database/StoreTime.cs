namespace OrderService.Database;

/// <summary>
/// The clock that deadlines in the store are written and judged by: PostgreSQL's own, so that of several instances none is early or late for the others, as last read and
/// carried on by the monotonic clock; on SQLite, whose file only one process serves, the wall clock. Times for people are the wall clock's.
/// </summary>
public sealed class StoreTime(TimeProvider clock)
{
    private Reading? reading;

    public DateTimeOffset GetUtcNow() => reading is { } last ? last.At + clock.GetElapsedTime(last.Timestamp) : clock.GetUtcNow();

    /// <summary>In Unix milliseconds.</summary>
    public long Now() => GetUtcNow().ToUnixTimeMilliseconds();

    /// <summary>Takes what PostgreSQL said its time was.</summary>
    /// <param name="timestamp">When, by this process's monotonic clock.</param>
    public void Set(DateTimeOffset at, long timestamp) => reading = new Reading(at, timestamp);

    private sealed record Reading(DateTimeOffset At, long Timestamp);
}

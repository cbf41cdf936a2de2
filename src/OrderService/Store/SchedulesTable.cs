namespace OrderService.Store;

/// <summary>
/// When a job that only one instance may do at a time was done last. The row is the lock: of two instances the second waits for the first one's transaction.
/// </summary>
internal static class SchedulesTable
{
    public const string Digest = "digest";
    public const string Reminders = "reminders";
    public const string Payments = "payments";

    /// <summary>When cancellations of unpaid orders were sent.</summary>
    public const string Unpaid = "unpaid";

    /// <summary>When people were told of the newest seal.</summary>
    public const string SealHead = "seal-head";

    /// <summary>How many steps of the store's clock deadlines were moved for.</summary>
    public const string ClockSteps = "clock-steps";

    /// <summary>When the store's clock was last looked at while something waited.</summary>
    public const string ClockSeen = "clock-seen";

    /// <summary>The steps of the clock, for the statement that reads the clock itself.</summary>
    internal const string SelectClockSteps = $"SELECT last_at FROM schedules WHERE name = '{ClockSteps}'";

    public static Task<long> LastAsync(StoreConnection connection, string name) =>
        connection.ExecuteScalarAsync<long>("SELECT last_at FROM schedules WHERE name = @name", new { name });

    public static Task SetAsync(StoreTransaction transaction, string name, long at) =>
        transaction.ExecuteAsync("UPDATE schedules SET last_at = @at WHERE name = @name", new { name, at });

    /// <summary>The same where the row need not be there yet.</summary>
    public static Task PutAsync(StoreTransaction transaction, string name, long at) => transaction.ExecuteAsync(
        "INSERT INTO schedules (name, last_at) VALUES (@name, @at) ON CONFLICT (name) DO UPDATE SET last_at = excluded.last_at", new { name, at });

    /// <returns>False when another instance was first.</returns>
    public static async Task<bool> ReplaceAsync(StoreTransaction transaction, string name, long known, long at) =>
        await transaction.ExecuteAsync("UPDATE schedules SET last_at = @at WHERE name = @name AND last_at = @known", new { name, known, at }) == 1;

    /// <summary>
    /// Takes the turn where the last one was taken before <paramref name="before"/>, or never. One that lies ahead is of a clock that was put back since.
    /// </summary>
    public static async Task<bool> TakeTurnAsync(StoreTransaction transaction, string name, long before, long now) => await transaction.ExecuteAsync(
        """
        INSERT INTO schedules (name, last_at) VALUES (@name, @now)
        ON CONFLICT (name) DO UPDATE SET last_at = excluded.last_at WHERE schedules.last_at <= @before OR schedules.last_at > @now
        """,
        new { name, before, now }) == 1;

    /// <summary>Follows a step of the store's clock.</summary>
    public static Task MoveAsync(StoreTransaction transaction, long step) =>
        transaction.ExecuteAsync("UPDATE schedules SET last_at = last_at + @step WHERE name = @ClockSeen AND last_at > 0", new { step, ClockSeen });
}

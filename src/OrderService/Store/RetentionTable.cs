namespace OrderService.Store;

/// <summary>Who takes old rows out now, and what the last round did. The row is the lock: of several instances one works at a time.</summary>
internal static class RetentionTable
{
    /// <summary>Takes the work, or keeps it. A round that another holder left unfinished goes on with its counts.</summary>
    /// <param name="beyond">A hold that ends later than any that is taken now is from before the clock was set back.</param>
    /// <returns>False while somebody else has it.</returns>
    public static async Task<bool> TakeAsync(StoreTransaction transaction, string holder, long now, long until, long beyond) => await transaction.ExecuteAsync(
        """
        UPDATE retention SET holder = @holder, held_until = @until,
               done = CASE WHEN ended_at IS NULL THEN done ELSE '{}' END,
               began_at = CASE WHEN ended_at IS NULL AND began_at IS NOT NULL THEN began_at ELSE @now END,
               ended_at = NULL
        WHERE id = 1 AND (holder IS NULL OR holder = @holder OR held_until < @now OR held_until > @beyond)
        """,
        new { holder, now, until, beyond }) == 1;

    /// <summary>Notes how far the round is, with the rows that it takes out.</summary>
    /// <returns>False when somebody else has the work now: then nothing may be taken out.</returns>
    public static async Task<bool> NoteAsync(StoreTransaction transaction, string holder, string done, long until) => await transaction.ExecuteAsync(
        "UPDATE retention SET done = @done, held_until = @until WHERE id = 1 AND holder = @holder", new { holder, done, until }) == 1;

    public static Task EndAsync(StoreTransaction transaction, string holder, long now) => transaction.ExecuteAsync(
        "UPDATE retention SET holder = NULL, held_until = 0, ended_at = @now WHERE id = 1 AND holder = @holder", new { holder, now });

    public static Task<RetentionRow> ReadAsync(StoreConnection connection) =>
        connection.QuerySingleAsync<RetentionRow>("SELECT holder, held_until, began_at, ended_at, done FROM retention WHERE id = 1");
}

internal sealed class RetentionRow
{
    public string? Holder { get; init; }
    public long HeldUntil { get; init; }
    public long? BeganAt { get; init; }
    public long? EndedAt { get; init; }
    public string Done { get; init; } = "{}";
}

using OrderService.Store;

namespace OrderService.Notifications;

/// <summary>Troubles of the service that somebody was told of, so that of several instances, and after a restart, nobody says it twice.</summary>
internal static class TroublesTable
{
    public static Task<List<TroubleRow>> ListAsync(StoreConnection connection) => connection.QueryAsync<TroubleRow>(Select);

    /// <summary>Notes that a trouble stands here. The row is the lock: of two instances the second waits here and then finds it told.</summary>
    /// <returns>The row as it stood.</returns>
    public static async Task<TroubleRow> SeeAsync(StoreTransaction transaction, string key, string subject, long now)
    {
        await transaction.ExecuteAsync(
            """
            INSERT INTO service_troubles (key, subject, state, size, told_at, seen_at) VALUES (@key, @subject, 'new', 0, 0, @now)
            ON CONFLICT (key) DO UPDATE SET seen_at = excluded.seen_at
            """,
            new { key, subject, now });
        return await transaction.QuerySingleAsync<TroubleRow>($"{Select} WHERE key = @key", new { key });
    }

    public static Task TellAsync(StoreTransaction transaction, string key, string subject, long size, long now) => transaction.ExecuteAsync(
        "UPDATE service_troubles SET subject = @subject, state = 'standing', size = @size, told_at = @now WHERE key = @key", new { key, subject, size, now });

    /// <summary>What was told without the store takes its place.</summary>
    public static Task PutAsync(StoreTransaction transaction, TroubleRow row) => transaction.ExecuteAsync(
        """
        INSERT INTO service_troubles (key, subject, state, size, told_at, seen_at) VALUES (@Key, @Subject, @State, @Size, @ToldAt, @SeenAt)
        ON CONFLICT (key) DO UPDATE
        SET subject = excluded.subject, state = excluded.state, size = excluded.size, told_at = excluded.told_at, seen_at = excluded.seen_at
        """,
        row);

    /// <returns>False when another instance has said meanwhile that it stands, or that it is over.</returns>
    public static async Task<bool> EndAsync(StoreTransaction transaction, TroubleRow row, long now) => await transaction.ExecuteAsync(
        $"UPDATE service_troubles SET state = 'over', told_at = @now WHERE {AsItWas}", new { row.Key, row.State, row.SeenAt, row.ToldAt, now }) == 1;

    public static Task RemoveAsync(StoreTransaction transaction, TroubleRow row) =>
        transaction.ExecuteAsync($"DELETE FROM service_troubles WHERE {AsItWas}", row);

    /// <summary>Follows a step of the store's clock.</summary>
    public static Task MoveAsync(StoreTransaction transaction, long step) =>
        transaction.ExecuteAsync("UPDATE service_troubles SET told_at = told_at + @step, seen_at = seen_at + @step WHERE told_at > 0", new { step });

    private const string Select = "SELECT key, subject, state, size, told_at, seen_at FROM service_troubles";

    private const string AsItWas = "key = @Key AND state = @State AND seen_at = @SeenAt AND told_at = @ToldAt";
}

internal sealed class TroubleRow
{
    public string Key { get; init; } = "";
    public string Subject { get; init; } = "";

    /// <summary><c>new</c>, <c>standing</c> or <c>over</c>.</summary>
    public string State { get; init; } = "";
    public long Size { get; init; }
    public long ToldAt { get; init; }
    public long SeenAt { get; init; }

    public bool Stands => State == "standing";

    public TroubleTold Told(DateTimeOffset now) => new(Stands, ToldFor(now), Size);

    public TimeSpan ToldFor(DateTimeOffset now) => Age(ToldAt, now);

    public TimeSpan UnseenFor(DateTimeOffset now) => Age(SeenAt, now);

    // A time of the future is one from before the clock was set back.
    private static TimeSpan Age(long at, DateTimeOffset now) => (now - DateTimeOffset.FromUnixTimeMilliseconds(at)).Duration();
}

namespace OrderService.Store;

/// <summary>How far each reader of the log has come.</summary>
internal static class CheckpointsTable
{
    /// <returns>Null for a reader that has not begun.</returns>
    public static Task<long?> PositionAsync(StoreConnection connection, string reader) =>
        connection.ExecuteScalarAsync<long?>("SELECT position FROM checkpoints WHERE reader = @reader", new { reader });

    /// <summary>The positions of all readers whose names begin so, in order.</summary>
    public static Task<List<long>> PositionsAsync(StoreConnection connection, string beginning) =>
        connection.QueryAsync<long>("SELECT position FROM checkpoints WHERE reader LIKE @names ORDER BY position", new { names = beginning + "%" });

    /// <summary>How far the reader has come that is least far; null when there is no reader.</summary>
    public static Task<long?> LeastAsync(StoreConnection connection) => connection.ExecuteScalarAsync<long?>("SELECT min(position) FROM checkpoints");

    /// <summary>A reader that is not known begins at the end of the log.</summary>
    public static Task BeginAtEndAsync(StoreTransaction transaction, string reader) => transaction.ExecuteAsync(
        """
        INSERT INTO checkpoints (reader, position) SELECT @reader, coalesce(max(position), 0) FROM events WHERE true ON CONFLICT (reader) DO NOTHING
        """,
        new { reader });

    /// <summary>A reader that is not known begins at a position.</summary>
    public static Task BeginAsync(StoreTransaction transaction, string reader, long position) => transaction.ExecuteAsync(
        "INSERT INTO checkpoints (reader, position) VALUES (@reader, @position) ON CONFLICT (reader) DO NOTHING", new { reader, position });

    /// <summary>Never backwards: another instance that took over meanwhile may be further on.</summary>
    public static Task AdvanceAsync(StoreTransaction transaction, string reader, long position) => transaction.ExecuteAsync(
        """
        INSERT INTO checkpoints (reader, position) VALUES (@reader, @position)
        ON CONFLICT (reader) DO UPDATE SET position = excluded.position WHERE checkpoints.position < excluded.position
        """,
        new { reader, position });

    public static Task RemoveAsync(StoreTransaction transaction, string reader) =>
        transaction.ExecuteAsync("DELETE FROM checkpoints WHERE reader = @reader", new { reader });

    /// <summary>A write that changes nothing: shows whether writing is possible.</summary>
    public static Task TryWriteAsync(StoreTransaction transaction) => transaction.ExecuteAsync("UPDATE checkpoints SET position = position WHERE reader = ''");
}

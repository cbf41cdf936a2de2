using Dapper;

namespace OrderService.Store;

/// <summary>Commands that wait for their order. The order flow writes and takes them with the append.</summary>
internal static class DeferredTable
{
    // Its order exists: it is being decided.
    private const string OrderExists = "EXISTS (SELECT 1 FROM orders WHERE orders.order_id = deferred.order_id)";

    public static Task<bool> AnyAsync(StoreConnection connection) => connection.ExecuteScalarAsync<bool>("SELECT EXISTS (SELECT 1 FROM deferred)");

    /// <summary>How many wait, and since when the oldest does (Unix milliseconds, null when none waits).</summary>
    public static Task<(long Waiting, long? OldestAt)> CountAsync(StoreConnection connection) =>
        connection.QuerySingleAsync<(long, long?)>("SELECT count(*), min(received_at) FROM deferred");

    public static Task<List<(string Type, long ExpiresAt)>> OfOrderAsync(StoreConnection connection, string orderId) =>
        connection.QueryAsync<(string, long)>("SELECT type, expires_at FROM deferred WHERE order_id = @orderId", new { orderId });

    /// <summary>Orders that exist and for which commands wait still.</summary>
    public static Task<List<string>> ExistingOrdersAsync(StoreConnection connection) => connection.QueryAsync<string>(
        """
        SELECT order_id FROM (SELECT DISTINCT order_id FROM deferred) AS waiting WHERE EXISTS (SELECT 1 FROM orders WHERE orders.order_id = waiting.order_id)
        """);

    /// <summary>Commands that waited for too long, in the order of their deadlines, from behind <paramref name="last"/>.</summary>
    public static Task<List<(string Key, long ExpiresAt)>> OverdueAsync(StoreConnection connection, long now, (string Key, long ExpiresAt) last, int most) =>
        connection.QueryAsync<(string, long)>(
            $"""
            SELECT key, expires_at FROM deferred WHERE expires_at <= @now AND (expires_at, key) > (@ExpiresAt, @Key) AND NOT {OrderExists}
            ORDER BY expires_at, key LIMIT @most
            """,
            new { now, last.ExpiresAt, last.Key, most });

    /// <summary>Whoever deletes the row decides the command: this, or the transaction that creates the order.</summary>
    public static async Task<List<GivenUpCommand>> TakeAsync(StoreTransaction transaction, IReadOnlyCollection<string> keys)
    {
        var parameters = new DynamicParameters();
        var list = SqlList.Add(parameters, "key", keys);
        return (await transaction.QueryAsync<GivenUpCommand>(
            $"DELETE FROM deferred WHERE key IN {list} AND NOT {OrderExists} RETURNING key, fingerprint, order_id, type, body, properties", parameters))
            .ConvertAll(command => command with { Body = transaction.Keys.OpenOrNone(command.Body) });
    }

    /// <summary>Time in which no service ran does not count.</summary>
    /// <param name="latest">No deadline becomes later than this.</param>
    /// <returns>How many wait longer.</returns>
    public static Task<int> ProlongAsync(StoreTransaction transaction, long gap, long latest) => transaction.ExecuteAsync(
        """
        UPDATE deferred SET expires_at = CASE WHEN expires_at + @gap < @latest THEN expires_at + @gap ELSE @latest END WHERE expires_at < @latest
        """,
        new { gap, latest });

    /// <summary>Follows a step of the store's clock. One that waits for its turn behind its order has no deadline.</summary>
    public static Task MoveAsync(StoreTransaction transaction, long step) =>
        transaction.ExecuteAsync("UPDATE deferred SET expires_at = expires_at + @step WHERE expires_at < @Never", new { step, DeferredCommand.Never });
}

/// <summary>A command whose order did not come.</summary>
internal sealed record GivenUpCommand(string Key, byte[] Fingerprint, string OrderId, string Type, byte[] Body, string Properties);

using OrderService.Store;

namespace OrderService.Notifications;

/// <summary>Confirmations that customers wait for, each with its own time for the next attempt.</summary>
internal static class OrderMailsTable
{
    public static Task<long> CountAsync(StoreConnection connection) => connection.ExecuteScalarAsync<long>("SELECT count(*) FROM order_mails");

    public static Task AddAsync(StoreTransaction transaction, long position, string orderId, long now) => transaction.ExecuteAsync(
        "INSERT INTO order_mails (position, order_id, next_attempt_at, begun_at) VALUES (@position, @orderId, @now, @now) ON CONFLICT (position) DO NOTHING",
        new { position, orderId, now });

    /// <summary>Mails that are due, from behind <paramref name="last"/>.</summary>
    /// <param name="beyond">No deadline that is written lies further away: one that does is from before the clock was set back.</param>
    public static Task<List<OrderMail>> DueAsync(StoreConnection connection, long now, long beyond, (long NextAttemptAt, long Position) last) =>
        connection.QueryAsync<OrderMail>(
            """
            SELECT position, order_id, attempts, begun_at, next_attempt_at FROM order_mails
            WHERE (next_attempt_at <= @now OR next_attempt_at > @beyond) AND (next_attempt_at, position) > (@NextAttemptAt, @Position)
            ORDER BY next_attempt_at, position LIMIT 50
            """,
            new { now, beyond, last.NextAttemptAt, last.Position });

    /// <summary>How many of an order wait.</summary>
    public static Task<long> OfOrderAsync(StoreConnection connection, string orderId) =>
        connection.ExecuteScalarAsync<long>("SELECT count(*) FROM order_mails WHERE order_id = @orderId", new { orderId });

    /// <summary>An attempt failed.</summary>
    public static Task PostponeAsync(StoreTransaction transaction, long position, long next) => transaction.ExecuteAsync(
        "UPDATE order_mails SET attempts = attempts + 1, next_attempt_at = @next WHERE position = @position", new { position, next });

    public static Task RemoveAsync(StoreTransaction transaction, long position) =>
        transaction.ExecuteAsync("DELETE FROM order_mails WHERE position = @position", new { position });

    /// <summary>Orders whose customers wait for a mail.</summary>
    public static Task<List<string>> OrderIdsAsync(StoreConnection connection) => connection.QueryAsync<string>("SELECT DISTINCT order_id FROM order_mails");

    /// <summary>Follows a step of the store's clock.</summary>
    public static Task MoveAsync(StoreTransaction transaction, long step) =>
        transaction.ExecuteAsync("UPDATE order_mails SET next_attempt_at = next_attempt_at + @step, begun_at = begun_at + @step", new { step });
}

/// <param name="Position">Of the event that the mail tells of.</param>
internal sealed record OrderMail(long Position, string OrderId, long Attempts, long BegunAt, long NextAttemptAt);

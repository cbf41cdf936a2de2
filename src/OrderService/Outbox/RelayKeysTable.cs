using OrderService.Store;

namespace OrderService.Outbox;

/// <summary>What the instances share about a refused routing key: when it was tried last, and how often an operator asked for an attempt.</summary>
internal static class RelayKeysTable
{
    /// <summary>How often an operator asked, by routing key.</summary>
    public static Task<List<(string Key, long Releases)>> ReleasesAsync(StoreConnection connection) =>
        connection.QueryAsync<(string, long)>("SELECT routing_key, releases FROM relay_keys");

    /// <summary>Asks whoever relays to try the key now.</summary>
    public static Task AskAsync(StoreTransaction transaction, string key) => transaction.ExecuteAsync(
        """
        INSERT INTO relay_keys (routing_key, releases) VALUES (@key, 1) ON CONFLICT (routing_key) DO UPDATE SET releases = relay_keys.releases + 1, tried_at = 0
        """,
        new { key });

    /// <summary>
    /// Takes the turn to try a key, for one instance in each interval. A time in the future was written before the database's clock was set back.
    /// </summary>
    /// <param name="now">The database's clock, as SQL.</param>
    public static async Task<bool> TakeTurnAsync(StoreTransaction transaction, string key, TimeSpan interval, string now) => await transaction.ExecuteAsync(
        $"""
        INSERT INTO relay_keys (routing_key, tried_at) VALUES (@key, {now})
        ON CONFLICT (routing_key) DO UPDATE SET tried_at = excluded.tried_at
        WHERE relay_keys.tried_at <= excluded.tried_at - @interval OR relay_keys.tried_at > excluded.tried_at
        """,
        new { key, interval = (long)interval.TotalMilliseconds }) > 0;

    /// <summary>The key is open: nobody's turn is over.</summary>
    public static Task OpenAsync(StoreTransaction transaction, string key) =>
        transaction.ExecuteAsync("UPDATE relay_keys SET tried_at = 0 WHERE routing_key = @key", new { key });
}

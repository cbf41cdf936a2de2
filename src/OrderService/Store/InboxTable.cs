using Dapper;

namespace OrderService.Store;

/// <summary>What became of each message, for the life of its order. The order flow writes its rows with the append.</summary>
internal static class InboxTable
{
    /// <returns>Null when no message has that key.</returns>
    public static Task<byte[]?> FingerprintAsync(StoreConnection connection, string key) =>
        connection.QuerySingleOrDefaultAsync<byte[]?>("SELECT fingerprint FROM inbox WHERE key = @key", new { key });

    /// <summary>What became of messages, by key.</summary>
    public static async Task<Dictionary<string, InboxEntry>> FindAsync(StoreConnection connection, IReadOnlyCollection<string> keys)
    {
        var parameters = new DynamicParameters();
        var list = SqlList.Add(parameters, "key", keys);
        var state = new BatchState();
        foreach (var row in await connection.QueryAsync<Row>($"SELECT key, fingerprint, outcome, reason FROM inbox WHERE key IN {list}", parameters))
        {
            state.Inbox[row.Key] = new InboxEntry(row.Fingerprint, (InboxOutcome)row.Outcome, row.Reason);
        }
        if (state.Inbox.Count < keys.Count && await TombstonesTable.AnyAsync(connection))
        {
            await TombstonesTable.CompleteAsync(connection, keys, [], state);
        }
        return state.Inbox;
    }

    /// <summary>Takes the key of a message that becomes a dead letter. A deferred command that is given up now was claimed as deferred.</summary>
    public static Task ClaimAsync(StoreTransaction transaction, string key, byte[] fingerprint, string reason, string? orderId, long now) =>
        transaction.ExecuteAsync(
            """
            INSERT INTO inbox (key, fingerprint, outcome, reason, order_id, decided_at) VALUES (@key, @fingerprint, 4, @reason, @orderId, @now)
            ON CONFLICT (key) DO UPDATE SET outcome = 4, reason = excluded.reason, decided_at = excluded.decided_at
            WHERE inbox.outcome = 3 AND inbox.fingerprint = excluded.fingerprint AND excluded.reason = 'order_unknown'
            """,
            new { key, fingerprint, reason, orderId, now });

    /// <summary>One message's row; null when it is not known.</summary>
    public static Task<InboxDecision?> DecisionAsync(StoreConnection connection, string key) => connection.QuerySingleOrDefaultAsync<InboxDecision>(
        "SELECT key, outcome, reason, order_id, decided_at, copies, last_copy_at FROM inbox WHERE key = @key", new { key });

    /// <summary>Those of the messages of which more copies came.</summary>
    public static Task<List<InboxDecision>> CopiedAsync(StoreConnection connection, IReadOnlyList<string> keys) => connection.QueryAsync<InboxDecision>(
        $"SELECT key, outcome, reason, order_id, decided_at, copies, last_copy_at FROM inbox WHERE copies > 0 AND key {connection.In("@keys")}", new { keys });

    /// <summary>Takes out the messages of an order: those that its events name, and those that left none.</summary>
    /// <param name="keys">What the events name.</param>
    public static async Task<List<(string Key, byte[] Fingerprint)>> RemoveOfOrderAsync(StoreTransaction transaction, string orderId, IReadOnlyCollection<string> keys)
    {
        var removed = new List<(string, byte[])>();
        foreach (var chunk in keys.Chunk(400))
        {
            removed.AddRange(await transaction.QueryAsync<(string, byte[])>(
                $"DELETE FROM inbox WHERE key {transaction.In("@chunk")} AND order_id = @orderId RETURNING key, fingerprint", new { chunk, orderId }));
        }
        removed.AddRange(await transaction.QueryAsync<(string, byte[])>(
            "DELETE FROM inbox WHERE order_id = @orderId AND (outcome <> 1 OR reason IS NOT NULL) RETURNING key, fingerprint", new { orderId }));
        return removed;
    }

    /// <summary>The keys of an order's messages that left no event.</summary>
    public static Task<List<string>> WithoutEventAsync(StoreConnection connection, string orderId) => connection.QueryAsync<string>(
        "SELECT key FROM inbox WHERE order_id = @orderId AND (outcome <> 1 OR reason IS NOT NULL) ORDER BY key", new { orderId });

    private sealed record Row(string Key, byte[] Fingerprint, long Outcome, string? Reason);
}

/// <summary>How a message was decided, and how many more copies of it came.</summary>
internal sealed class InboxDecision
{
    public string Key { get; init; } = "";
    public InboxOutcome Outcome { get; init; }
    public string? Reason { get; init; }
    public string? OrderId { get; init; }
    public long DecidedAt { get; init; }
    public long Copies { get; init; }
    public long? LastCopyAt { get; init; }
}

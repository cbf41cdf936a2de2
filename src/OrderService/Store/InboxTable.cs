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
        return (await connection.QueryAsync<Row>($"SELECT key, fingerprint, outcome, reason FROM inbox WHERE key IN {list}", parameters))
            .ToDictionary(row => row.Key, row => new InboxEntry(row.Fingerprint, (InboxOutcome)row.Outcome, row.Reason), StringComparer.Ordinal);
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

using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;

namespace OrderService.Store;

/// <summary>
/// Events out of which something personal was taken that a version before the keys wrote as it was. Their hashes stay what they were, so that the chain goes on;
/// what vouches for the rest of their data is a signature under a key that lies with the customers' keys, and not in this store.
/// </summary>
internal static class RedactionsTable
{
    /// <summary>The first events of a customer's orders, from behind <paramref name="after"/>: what is personal is said when an order is placed.</summary>
    public static Task<List<FirstEvent>> FirstEventsAsync(StoreConnection connection, string customerId, long after, int limit) => connection.QueryAsync<FirstEvent>(
        """
        SELECT o.seq AS stream, o.order_id, e.version, e.type, e.data, e.hash FROM orders o JOIN events e ON e.stream = o.seq AND e.version = 1
        WHERE o.customer_id = @customerId AND o.seq > @after ORDER BY o.seq LIMIT @limit
        """,
        new { customerId, after, limit });

    /// <summary>Writes what is left of an event's data, and who vouches for it.</summary>
    public static async Task RedactAsync(StoreTransaction transaction, FirstEvent row, byte[] data, long now)
    {
        var dataHash = SHA256.HashData(data);
        var signature = Sign(transaction.Keys.Signing(), row.OrderId, row.Version, row.Hash, dataHash, now);
        var changed = await transaction.QueryAsync<long>(
            "UPDATE events SET data = @data WHERE stream = @Stream AND version = @Version RETURNING position", new { data, row.Stream, row.Version });
        await SealMarks.ChangedAsync(transaction, SealSubject.Events.Table, changed);
        await transaction.ExecuteAsync(
            """
            INSERT INTO redactions (order_id, version, hash, data_hash, redacted_at, signature) VALUES (@OrderId, @Version, @Hash, @dataHash, @now, @signature)
            ON CONFLICT (order_id, version) DO UPDATE SET data_hash = excluded.data_hash, redacted_at = excluded.redacted_at, signature = excluded.signature
            """,
            new { row.OrderId, row.Version, row.Hash, dataHash, now, signature });
    }

    /// <summary>The versions of a stream that are what a signed record says is left of them.</summary>
    public static async Task<HashSet<long>> OfStreamAsync(StoreConnection connection, IReadOnlyList<RecordedEvent> stream)
    {
        var rows = await connection.QueryAsync<RedactionRow>(
            "SELECT version, hash, data_hash, redacted_at, signature FROM redactions WHERE order_id = @OrderId", new { stream[0].OrderId });
        return [.. rows.Where(row => stream.Any(recorded => recorded.Version == row.Version && Vouches(row, recorded, connection.Keys))).Select(row => row.Version)];
    }

    private static bool Vouches(RedactionRow row, RecordedEvent recorded, PersonalKeys keys)
    {
        return row.Hash.AsSpan().SequenceEqual(recorded.Hash)
            && row.DataHash.AsSpan().SequenceEqual(SHA256.HashData(recorded.Data.Span))
            && CryptographicOperations.FixedTimeEquals(row.Signature, Sign(keys.Signing(), recorded.OrderId, recorded.Version, row.Hash, row.DataHash, row.RedactedAt));
    }

    private static byte[] Sign(SealingKey key, string orderId, long version, byte[] hash, byte[] dataHash, long at)
    {
        // The only part without a fixed length comes last.
        var buffer = new byte[16 + hash.Length + dataHash.Length + Encoding.UTF8.GetByteCount(orderId)];
        BinaryPrimitives.WriteInt64BigEndian(buffer, version);
        BinaryPrimitives.WriteInt64BigEndian(buffer.AsSpan(8), at);
        hash.CopyTo(buffer, 16);
        dataHash.CopyTo(buffer, 16 + hash.Length);
        Encoding.UTF8.GetBytes(orderId, buffer.AsSpan(16 + hash.Length + dataHash.Length));
        return HMACSHA256.HashData(key.Bytes, buffer);
    }

    private sealed class RedactionRow
    {
        public long Version { get; init; }
        public byte[] Hash { get; init; } = [];
        public byte[] DataHash { get; init; } = [];
        public long RedactedAt { get; init; }
        public byte[] Signature { get; init; } = [];
    }
}

/// <summary>The event that placed an order.</summary>
internal sealed class FirstEvent
{
    public long Stream { get; init; }
    public string OrderId { get; init; } = "";
    public long Version { get; init; }
    public string Type { get; init; } = "";
    public byte[] Data { get; init; } = [];
    public byte[] Hash { get; init; } = [];
}

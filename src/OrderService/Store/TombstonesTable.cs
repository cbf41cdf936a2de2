using System.Security.Cryptography;
using System.Text;

namespace OrderService.Store;

/// <summary>
/// What is left of orders that were taken out: hashes of their ids and of their messages' keys. A copy that comes years late is known for one, and nobody can read out of it who ordered what.
/// </summary>
internal static class TombstonesTable
{
    private const int HashBytes = 16;

    public const string Any = "SELECT 1 FROM tombstones LIMIT 1";

    public static byte[] OfKey(string key) => Hash("key\n", key);

    public static byte[] OfOrder(string orderId) => Hash("order\n", orderId);

    /// <param name="fingerprint">Of the message that had the key; null for an order's id.</param>
    public static Task AddAsync(StoreTransaction transaction, byte[] hash, byte[]? fingerprint, long now) => transaction.ExecuteAsync(
        "INSERT INTO tombstones (hash, fingerprint, gone_at) VALUES (@hash, @fingerprint, @now) ON CONFLICT (hash) DO NOTHING", new { hash, fingerprint, now });

    /// <returns>When an order was taken out (Unix milliseconds); null when it was not.</returns>
    public static Task<long?> GoneAtAsync(StoreConnection connection, string orderId) => AtAsync(connection, OfOrder(orderId));

    /// <returns>When the order of a message was taken out (Unix milliseconds); null when it was not.</returns>
    public static Task<long?> KeyGoneAtAsync(StoreConnection connection, string key) => AtAsync(connection, OfKey(key));

    private static Task<long?> AtAsync(StoreConnection connection, byte[] hash) =>
        connection.ExecuteScalarAsync<long?>("SELECT gone_at FROM tombstones WHERE hash = @hash", new { hash });

    public static async Task<bool> AnyAsync(StoreConnection connection) => await connection.ExecuteScalarAsync<long?>(Any) is not null;

    /// <summary>The fingerprints of those of the hashes that are there, by the hash in hexadecimal.</summary>
    public static async Task<Dictionary<string, byte[]?>> FindAsync(StoreConnection connection, IReadOnlyCollection<byte[]> hashes)
    {
        var found = new Dictionary<string, byte[]?>(StringComparer.Ordinal);
        foreach (var chunk in hashes.Chunk(400))
        {
            foreach (var (hash, fingerprint) in await connection.QueryAsync<(byte[], byte[]?)>(
                $"SELECT hash, fingerprint FROM tombstones WHERE hash {connection.In("@chunk")}", new { chunk }))
            {
                found[Convert.ToHexString(hash)] = fingerprint;
            }
        }
        return found;
    }

    /// <summary>Adds what is known of keys and orders that are gone to what the store knows of those that are there.</summary>
    public static async Task CompleteAsync(StoreConnection connection, IEnumerable<string> keys, IEnumerable<string> orderIds, BatchState state)
    {
        var hashes = new Dictionary<string, (byte[] Hash, string? Key, string? OrderId)>(StringComparer.Ordinal);
        foreach (var key in keys.Where(key => !state.Inbox.ContainsKey(key)))
        {
            Want(OfKey(key), key, null);
        }
        foreach (var orderId in orderIds.Where(orderId => !state.Heads.ContainsKey(orderId)))
        {
            Want(OfOrder(orderId), null, orderId);
        }
        foreach (var (hash, fingerprint) in await FindAsync(connection, [.. hashes.Values.Select(wanted => wanted.Hash)]))
        {
            var (_, key, orderId) = hashes[hash];
            if (key is not null)
            {
                state.Inbox[key] = new InboxEntry(fingerprint ?? [], InboxOutcome.Accepted, null);
            }
            else if (orderId is not null)
            {
                state.Gone.Add(orderId);
            }
        }

        void Want(byte[] hash, string? key, string? orderId) => hashes[Convert.ToHexString(hash)] = (hash, key, orderId);
    }

    private static byte[] Hash(string kind, string text) => SHA256.HashData(Encoding.UTF8.GetBytes(kind + text))[..HashBytes];
}

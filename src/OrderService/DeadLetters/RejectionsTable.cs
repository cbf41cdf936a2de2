using Dapper;
using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>Why deliveries were rejected, with the bytes until their dead letters are parked. The order flow adds them with the append.</summary>
internal static class RejectionsTable
{
    // More would save PostgreSQL few round trips more; SQLite looks each parameter up among all others.
    private const int RowsPerStatement = 10;

    private const string Missing = "parked = 0 AND (rejected_at <= @before OR rejected_at > @beyond)";

    /// <summary>The rejections of these keys.</summary>
    public static Task<List<FoundRejection>> FindAsync(StoreConnection connection, IReadOnlyCollection<string> keys)
    {
        var parameters = new DynamicParameters();
        var list = SqlList.Add(parameters, "key", keys);
        return connection.QueryAsync<FoundRejection>(
            $"SELECT key, fingerprint, reason, detail, field, exception, order_id FROM rejections WHERE key IN {list}", parameters);
    }

    /// <summary>Whether there are rejections without a dead letter.</summary>
    /// <param name="before">Rejected until then.</param>
    /// <param name="beyond">Nothing is rejected in the future: what says so is from before the clock was set back.</param>
    public static Task<bool> AnyMissingAsync(StoreConnection connection, long before, long beyond) =>
        connection.ExecuteScalarAsync<bool>($"SELECT EXISTS (SELECT 1 FROM rejections WHERE {Missing})", new { before, beyond });

    /// <summary>The oldest of them without their bytes.</summary>
    public static Task<List<MissingLetter>> MissingAsync(StoreConnection connection, long before, long beyond, int skip, int limit) =>
        connection.QueryAsync<MissingLetter>(
            $"""
            SELECT key, fingerprint, reason, detail, field, exception, order_id, properties, OCTET_LENGTH(body) AS size
            FROM rejections WHERE {Missing} ORDER BY rejected_at, key, fingerprint LIMIT @limit OFFSET @skip
            """,
            new { before, beyond, skip, limit });

    public static async Task<byte[]> BodyAsync(StoreConnection connection, string key, byte[] fingerprint) =>
        connection.Keys.OpenOrNone(await connection.ExecuteScalarAsync<byte[]?>(
            "SELECT body FROM rejections WHERE key = @key AND fingerprint = @fingerprint", new { key, fingerprint }) ?? []);

    /// <summary>The letters have the bytes now; the copies beside the rejections are not needed any more.</summary>
    public static async Task MarkParkedAsync(StoreTransaction transaction, IEnumerable<DeadLetter> letters)
    {
        foreach (var chunk in letters.Chunk(RowsPerStatement))
        {
            var parameters = new DynamicParameters();
            var pairs = chunk.Select((letter, index) =>
            {
                parameters.Add($"key{index}", letter.Key);
                parameters.Add($"fingerprint{index}", letter.Fingerprint);
                return $"(@key{index}, @fingerprint{index})";
            });
            await transaction.ExecuteAsync(
                $"""
                UPDATE rejections SET parked = 1, body = NULL, properties = NULL
                WHERE parked = 0 AND (key, fingerprint) IN (VALUES {string.Join(", ", pairs)})
                """,
                parameters);
        }
    }

    /// <summary>Orders with a message that was rejected and has no letter yet.</summary>
    public static Task<List<string>> UnparkedOrdersAsync(StoreConnection connection) =>
        connection.QueryAsync<string>("SELECT DISTINCT order_id FROM rejections WHERE parked = 0 AND order_id IS NOT NULL");

    /// <summary>What is left of a rejection once its letter is there.</summary>
    public static Task RemoveParkedAsync(StoreTransaction transaction, string key, byte[] fingerprint) => transaction.ExecuteAsync(
        "DELETE FROM rejections WHERE key = @key AND fingerprint = @fingerprint AND parked = 1", new { key, fingerprint });

    /// <summary>Follows a step of the store's clock.</summary>
    public static Task MoveAsync(StoreTransaction transaction, long step) =>
        transaction.ExecuteAsync("UPDATE rejections SET rejected_at = rejected_at + @step WHERE parked = 0", new { step });
}

internal sealed record FoundRejection(string Key, byte[] Fingerprint, string Reason, string Detail, string? Field, string? Exception, string? OrderId);

/// <summary>A rejection whose dead letter never came.</summary>
internal sealed class MissingLetter
{
    public string Key { get; init; } = "";
    public byte[] Fingerprint { get; init; } = [];
    public string Reason { get; init; } = "";
    public string Detail { get; init; } = "";
    public string? Field { get; init; }
    public string? Exception { get; init; }
    public string? OrderId { get; init; }
    public string? Properties { get; init; }

    /// <summary>Of the body; null when it was too large to be kept.</summary>
    public long? Size { get; init; }
}

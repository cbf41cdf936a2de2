using OrderService.Store;

namespace OrderService.Admin;

/// <summary>The rows of signed-in browsers.</summary>
internal static class SessionsTable
{
    public static Task<List<SessionRow>> ListAsync(StoreConnection connection) =>
        connection.QueryAsync<SessionRow>("SELECT hash, key_id, address, started_at, used_at, ends_at, ended_at, signed_out FROM sessions");

    public static Task AddAsync(StoreTransaction transaction, SessionRow row) => transaction.ExecuteAsync(
        """
        INSERT INTO sessions (hash, key_id, address, started_at, used_at, ends_at, ended_at, signed_out)
        VALUES (@Hash, @KeyId, @Address, @StartedAt, @UsedAt, @EndsAt, @EndedAt, @SignedOut) ON CONFLICT (hash) DO NOTHING
        """,
        row);

    public static Task EndAsync(StoreTransaction transaction, string hash, long now, bool signedOut) => transaction.ExecuteAsync(
        "UPDATE sessions SET ended_at = @now, signed_out = @signedOut WHERE hash = @hash AND ended_at IS NULL", new { hash, now, signedOut = signedOut ? 1 : 0 });

    /// <summary>Never backwards: another process may have seen it later.</summary>
    public static Task UseAsync(StoreTransaction transaction, string hash, long usedAt) =>
        transaction.ExecuteAsync("UPDATE sessions SET used_at = @usedAt WHERE hash = @hash AND used_at < @usedAt", new { hash, usedAt });

    public static Task ForgetAsync(StoreTransaction transaction, long endedBefore) =>
        transaction.ExecuteAsync("DELETE FROM sessions WHERE ends_at < @endedBefore", new { endedBefore });
}

/// <summary>One signed-in browser. Times are Unix milliseconds.</summary>
internal sealed record SessionRow
{
    /// <summary>SHA-256 of the cookie, in hex.</summary>
    public string Hash { get; init; } = "";

    public string KeyId { get; init; } = "";

    public string Address { get; init; } = "";

    public long StartedAt { get; init; }

    public long UsedAt { get; init; }

    public long EndsAt { get; init; }

    public long? EndedAt { get; init; }

    /// <summary>1 when its own browser signed out.</summary>
    public long SignedOut { get; init; }

    /// <summary>Names the session in the audit log and in the API; tells nothing about its cookie.</summary>
    public string Id => Hash[..16];
}

namespace OrderService.Store;

/// <summary>Which store this is, and its epochs.</summary>
internal static class EpochsTable
{
    /// <summary>The number of the present epoch, as an expression.</summary>
    public const string SelectCurrent = "SELECT max(number) FROM epochs";

    public static Task<long> CurrentAsync(StoreConnection connection) => connection.ExecuteScalarAsync<long>(SelectCurrent);

    public static async Task<EpochHistory> ReadAsync(StoreConnection connection) =>
        new(await connection.QueryAsync<EpochRow>("SELECT number, began_at, last_position, cause FROM epochs ORDER BY number"));

    /// <summary>The store's own name, the same in all of its copies.</summary>
    public static async Task<string> StoreIdAsync(StoreConnection connection) => await connection.ExecuteScalarAsync<string>("SELECT id FROM store_identity") ?? "";

    /// <summary>Begins an epoch behind the newest event there is.</summary>
    public static Task BeginAsync(StoreTransaction transaction, long number, long now, string cause) => transaction.ExecuteAsync(
        "INSERT INTO epochs (number, began_at, last_position, cause) SELECT @number, @now, coalesce(max(position), 0), @cause FROM events",
        new { number, now, cause });
}

namespace OrderService.Store;

/// <summary>Customers who may not be forgotten, and those who were.</summary>
internal static class CustomersTable
{
    public static Task HoldAsync(StoreTransaction transaction, string customerId, string reason, string who, long now) => transaction.ExecuteAsync(
        """
        INSERT INTO customer_holds (customer_id, reason, held_by, held_at) VALUES (@customerId, @reason, @who, @now)
        ON CONFLICT (customer_id) DO UPDATE SET reason = excluded.reason, held_by = excluded.held_by, held_at = excluded.held_at
        """,
        new { customerId, reason, who, now });

    /// <returns>False when there was no hold.</returns>
    public static async Task<bool> UnholdAsync(StoreTransaction transaction, string customerId) =>
        await transaction.ExecuteAsync("DELETE FROM customer_holds WHERE customer_id = @customerId", new { customerId }) == 1;

    public static Task<CustomerHold?> HoldOfAsync(StoreConnection connection, string customerId) => connection.QuerySingleOrDefaultAsync<CustomerHold>(
        "SELECT reason, held_by, held_at FROM customer_holds WHERE customer_id = @customerId", new { customerId });

    /// <summary>What was forgotten here; a store that was put back from a backup lacks what came after it.</summary>
    public static async Task<HashSet<(string CustomerId, long At)>> ForgottenAsync(StoreConnection connection) =>
        [.. await connection.QueryAsync<(string, long)>("SELECT customer_id, forgotten_at FROM forgotten_customers")];

    public static Task<List<long>> ForgottenAsync(StoreConnection connection, string customerId) => connection.QueryAsync<long>(
        "SELECT forgotten_at FROM forgotten_customers WHERE customer_id = @customerId ORDER BY forgotten_at", new { customerId });

    public static Task AddForgottenAsync(StoreTransaction transaction, string customerId, long at, long orders, long events, long letters) => transaction.ExecuteAsync(
        """
        INSERT INTO forgotten_customers (customer_id, forgotten_at, orders, events, letters) VALUES (@customerId, @at, @orders, @events, @letters)
        ON CONFLICT (customer_id, forgotten_at) DO NOTHING
        """,
        new { customerId, at, orders, events, letters });
}

/// <summary>Why a customer may not be forgotten.</summary>
public sealed class CustomerHold
{
    public string Reason { get; init; } = "";
    public string HeldBy { get; init; } = "";

    /// <summary>Unix milliseconds.</summary>
    public long HeldAt { get; init; }
}

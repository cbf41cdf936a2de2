using OrderService.Store;

namespace OrderService.Notifications;

/// <summary>Payments that orders did not take, until an alert tells of them. The order flow adds them with the append.</summary>
internal static class RefusedPaymentsTable
{
    /// <summary>Whether there is one without an alert.</summary>
    /// <param name="resting">Those that are not meant.</param>
    public static Task<bool> AnyUntoldAsync(StoreConnection connection, IReadOnlyCollection<long> resting) =>
        connection.ExecuteScalarAsync<bool>($"SELECT EXISTS ({Untold(resting)})");

    public static Task<List<long>> UntoldAsync(StoreConnection connection, IReadOnlyCollection<long> resting) =>
        connection.QueryAsync<long>($"{Untold(resting)} ORDER BY id");

    public static Task CoverAsync(StoreTransaction transaction, IReadOnlyCollection<long> ids, long alertId) =>
        transaction.ExecuteAsync($"UPDATE refused_payments SET alert_id = @alertId WHERE alert_id IS NULL AND id IN {SqlList.Of(ids)}", new { alertId });

    /// <summary>Why those of an alert were refused, the most frequent reason first.</summary>
    public static Task<List<RefusedCode>> CodesAsync(StoreConnection connection, long alertId) => connection.QueryAsync<RefusedCode>(
        """
        SELECT code, count(*) AS payments, min(id) AS first_id FROM refused_payments WHERE alert_id = @alertId GROUP BY code ORDER BY count(*) DESC, code
        """,
        new { alertId });

    /// <summary>One of them, with the currency of its order.</summary>
    public static Task<RefusedPaymentRow> GetAsync(StoreConnection connection, long id) => connection.QuerySingleAsync<RefusedPaymentRow>(
        "SELECT p.order_id, p.amount, p.code, o.currency FROM refused_payments p LEFT JOIN orders o ON o.order_id = p.order_id WHERE p.id = @id", new { id });

    public static Task<List<string>> OrderIdsAsync(StoreConnection connection, long alertId, int most) => connection.QueryAsync<string>(
        "SELECT order_id FROM refused_payments WHERE alert_id = @alertId GROUP BY order_id ORDER BY min(id) LIMIT @most", new { alertId, most });

    /// <summary>How many are older and told of.</summary>
    public static Task<long> CountOldAsync(StoreConnection connection, long before) =>
        connection.ExecuteScalarAsync<long>("SELECT count(*) FROM refused_payments WHERE refused_at <= @before AND alert_id IS NOT NULL", new { before });

    /// <summary>The oldest of them from behind <paramref name="last"/>.</summary>
    public static Task<List<OldRow>> OldAsync(StoreConnection connection, long before, OldRow last, int most) => connection.QueryAsync<OldRow>(
        """
        SELECT refused_at AS at, id FROM refused_payments WHERE refused_at <= @before AND alert_id IS NOT NULL AND (refused_at, id) > (@At, @Id)
        ORDER BY refused_at, id LIMIT @most
        """,
        new { before, last.At, last.Id, most });

    public static async Task<long> RemoveAsync(StoreTransaction transaction, long id) =>
        await transaction.ExecuteAsync("DELETE FROM refused_payments WHERE id = @id AND alert_id IS NOT NULL", new { id });

    /// <summary>Orders with one that nobody was told of.</summary>
    public static Task<List<string>> UntoldOrdersAsync(StoreConnection connection) =>
        connection.QueryAsync<string>("SELECT DISTINCT order_id FROM refused_payments WHERE alert_id IS NULL");

    public static Task<List<RefusedPaymentLine>> OfOrderAsync(StoreConnection connection, string orderId) => connection.QueryAsync<RefusedPaymentLine>(
        "SELECT payment_reference, amount, code, reason, refused_at FROM refused_payments WHERE order_id = @orderId ORDER BY id", new { orderId });

    private static string Untold(IReadOnlyCollection<long> resting) =>
        $"SELECT id FROM refused_payments WHERE alert_id IS NULL{(resting.Count > 0 ? $" AND id NOT IN {SqlList.Of(resting)}" : "")}";
}

internal sealed class RefusedPaymentLine
{
    public string PaymentReference { get; init; } = "";
    public string? Amount { get; init; }
    public string Code { get; init; } = "";
    public string Reason { get; init; } = "";
    public long RefusedAt { get; init; }
}

internal sealed class RefusedCode
{
    public string Code { get; init; } = "";
    public long Payments { get; init; }
    public long FirstId { get; init; }
}

internal sealed class RefusedPaymentRow
{
    public string OrderId { get; init; } = "";
    public string? Amount { get; init; }
    public string Code { get; init; } = "";
    public string? Currency { get; init; }
}

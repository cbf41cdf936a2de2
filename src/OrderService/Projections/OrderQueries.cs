using Dapper;
using OrderService.Domain;
using OrderService.Store;

namespace OrderService.Projections;

/// <summary>An order's row of the read model.</summary>
/// <param name="Seq">Its place in the list, in the order in which orders were placed; the cursor of paging.</param>
/// <param name="PlacedAt">Unix milliseconds, as are all times here.</param>
public sealed record OrderSummary(
    long Seq, string OrderId, long Version, OrderStatus Status, string CustomerId, string Currency, long TotalMinor, long LineCount, long PlacedAt, long UpdatedAt);

/// <summary>Lists of orders from the read model.</summary>
public sealed class OrderQueries(IDatabase database)
{
    /// <summary>Orders, newest first, that match every filter that is given.</summary>
    /// <param name="before">Only orders with a smaller <see cref="OrderSummary.Seq"/>; null for the newest.</param>
    public Task<IReadOnlyList<OrderSummary>> ListAsync(
        OrderStatus? status, string? customerId, long? before, int limit, CancellationToken cancellationToken = default) =>
        database.ReadAsync<IReadOnlyList<OrderSummary>>(
            async connection => [.. (await connection.QueryAsync<Row>(
                $"""
                SELECT seq, order_id, version, status, customer_id, currency, total_minor, line_count, placed_at, updated_at
                FROM orders
                WHERE seq < @before
                {(status is null ? "" : "AND status = @status")}
                {(customerId is null ? "" : "AND customer_id = @customerId")}
                ORDER BY seq DESC LIMIT @limit
                """,
                new { before = before ?? long.MaxValue, status = (long?)status, customerId, limit })).Select(row => row.ToSummary())],
            cancellationToken);

    private sealed class Row
    {
        public long Seq { get; init; }
        public string Order_Id { get; init; } = "";
        public long Version { get; init; }
        public long Status { get; init; }
        public string Customer_Id { get; init; } = "";
        public string Currency { get; init; } = "";
        public long Total_Minor { get; init; }
        public long Line_Count { get; init; }
        public long Placed_At { get; init; }
        public long Updated_At { get; init; }

        public OrderSummary ToSummary() =>
            new(Seq, Order_Id, Version, (OrderStatus)Status, Customer_Id, Currency, Total_Minor, Line_Count, Placed_At, Updated_At);
    }
}

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
    private const string Columns = "seq, order_id, version, status, customer_id, currency, total_minor, line_count, placed_at, updated_at";

    /// <summary>Orders, newest first, that match every filter that is given.</summary>
    /// <param name="before">Only orders with a smaller <see cref="OrderSummary.Seq"/>; null for the newest.</param>
    public Task<IReadOnlyList<OrderSummary>> ListAsync(
        OrderStatus? status, string? customerId, long? before, int limit, CancellationToken cancellationToken = default) =>
        database.ReadAsync<IReadOnlyList<OrderSummary>>(
            async connection => [.. (await connection.QueryAsync<Row>(
                $"""
                SELECT {Columns}
                FROM orders
                WHERE seq < @before
                {(status is null ? "" : "AND status = @status")}
                {(customerId is null ? "" : "AND customer_id = @customerId")}
                ORDER BY seq DESC LIMIT @limit
                """,
                new { before = before ?? long.MaxValue, status = (long?)status, customerId, limit })).Select(row => row.ToSummary())],
            cancellationToken);

    /// <summary>When an order was taken out of the store; null when it was not, or when that is not remembered.</summary>
    public Task<DateTimeOffset?> GoneAtAsync(string orderId, CancellationToken cancellationToken) => database.ReadAsync(
        async connection => await TombstonesTable.GoneAtAsync(connection, orderId) is { } at ? DateTimeOffset.FromUnixTimeMilliseconds(at) : (DateTimeOffset?)null, cancellationToken);

    internal static Task<long> CountAsync(StoreConnection connection) => connection.ExecuteScalarAsync<long>("SELECT count(*) FROM orders");

    /// <summary>The row of the stream with that number (<c>seq</c>); null when there is none.</summary>
    internal static Task<Row?> FindAsync(StoreConnection connection, long number) =>
        connection.QuerySingleOrDefaultAsync<Row>($"SELECT {Columns}, last_hash FROM orders WHERE seq = @number", new { number });

    /// <summary>Orders of the read model that have no events.</summary>
    internal static Task<List<string>> WithoutEventsAsync(StoreConnection connection, int limit) => connection.QueryAsync<string>(
        "SELECT order_id FROM orders WHERE NOT EXISTS (SELECT 1 FROM events WHERE events.stream = orders.seq) LIMIT @limit", new { limit });

    // The highest number stays: SQLite would hand it out again.
    private const string Closed =
        """
        status = @status AND seq < (SELECT max(seq) FROM orders)
        AND NOT EXISTS (SELECT 1 FROM deferred d WHERE d.order_id = orders.order_id)
        AND NOT EXISTS (SELECT 1 FROM dead_letters l WHERE l.order_id = orders.order_id AND l.status IN ('parked', 'replayed'))
        """;

    /// <summary>Orders in a final state that changed last before a time, the oldest first, from behind <paramref name="last"/>; none with a waiting command or an open letter.</summary>
    internal static Task<List<Row>> ClosedAsync(StoreConnection connection, OrderStatus status, long before, OldRow last, int most) => connection.QueryAsync<Row>(
        $"SELECT {Columns} FROM orders WHERE {Closed} AND updated_at <= @before AND (updated_at, seq) > (@At, @Id) ORDER BY updated_at, seq LIMIT @most",
        new { status = (long)status, before, last.At, last.Id, most });

    /// <summary>How many there are.</summary>
    internal static Task<long> CountClosedAsync(StoreConnection connection, OrderStatus status, long before) => connection.ExecuteScalarAsync<long>(
        $"SELECT count(*) FROM orders WHERE {Closed} AND updated_at <= @before", new { status = (long)status, before });

    /// <returns>False when it is not as it was read.</returns>
    internal static async Task<bool> RemoveClosedAsync(StoreTransaction transaction, OrderSummary order) => await transaction.ExecuteAsync(
        $"DELETE FROM orders WHERE seq = @Seq AND version = @Version AND {Closed}", new { order.Seq, order.Version, status = (long)order.Status }) == 1;

    /// <summary>Writes a row anew. Only while the stream is as it was read: an order that moved on meanwhile has written its own row.</summary>
    internal static Task RebuildAsync(StoreTransaction transaction, long number, Order order, byte[] hash, long placedAt, long updatedAt) => transaction.ExecuteAsync(
        """
        INSERT INTO orders (seq, order_id, version, status, customer_id, currency, total_minor, line_count, placed_at, updated_at, last_hash)
        SELECT @number, @OrderId, @Version, @Status, @CustomerId, @Currency, @TotalMinor, @LineCount, @placedAt, @updatedAt, @hash
        WHERE (SELECT max(version) FROM events WHERE stream = @number) = @Version
        ON CONFLICT (seq) DO UPDATE SET
            order_id = excluded.order_id, version = excluded.version, status = excluded.status, customer_id = excluded.customer_id, currency = excluded.currency,
            total_minor = excluded.total_minor, line_count = excluded.line_count, placed_at = excluded.placed_at,
            updated_at = excluded.updated_at, last_hash = excluded.last_hash
        """,
        new
        {
            number,
            order.OrderId,
            order.Version,
            Status = (long)order.Status,
            order.CustomerId,
            Currency = order.Currency?.Code,
            order.TotalMinor,
            LineCount = order.Lines.Count,
            placedAt,
            updatedAt,
            hash,
        });

    internal sealed class Row
    {
        public long Seq { get; init; }
        public string OrderId { get; init; } = "";
        public long Version { get; init; }
        public OrderStatus Status { get; init; }
        public string CustomerId { get; init; } = "";
        public string Currency { get; init; } = "";
        public long TotalMinor { get; init; }
        public long LineCount { get; init; }
        public long PlacedAt { get; init; }
        public long UpdatedAt { get; init; }

        /// <summary>Only of <see cref="FindAsync"/>.</summary>
        public byte[] LastHash { get; init; } = [];

        public OrderSummary ToSummary() =>
            new(Seq, OrderId, Version, Status, CustomerId, Currency, TotalMinor, LineCount, PlacedAt, UpdatedAt);
    }
}

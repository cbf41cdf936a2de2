using OrderService.Domain;
using OrderService.Store;

namespace OrderService.Projections;

/// <summary>An order's row of the read model.</summary>
/// <param name="Seq">Its place in the list, in the order in which orders were placed; the cursor of paging.</param>
/// <param name="PlacedAt">Unix milliseconds, as are all times here.</param>
public sealed record OrderSummary(
    long Seq, string OrderId, long Version, OrderStatus Status, string CustomerId, string Currency, long TotalMinor, long LineCount, long PlacedAt, long UpdatedAt,
    PaymentStatus Payment, FulfillmentStatus Fulfillment);

/// <summary>An attribute of an order.</summary>
public sealed record OrderAttribute(string Name, string Value);

/// <summary>What orders in a list have, and how far they are; null where it does not matter.</summary>
/// <param name="Attribute">Exactly this value; only of attributes that are searchable.</param>
public sealed record OrderParts(OrderAttribute? Attribute, PaymentStatus? Payment, FulfillmentStatus? Fulfillment)
{
    // The states that few orders are in have an index, whose condition stands here as it does there.
    internal string Sql => string.Join(' ', new[]
    {
        Payment is { } payment ? $"{(payment > PaymentStatus.Paid ? "AND payment_status > 1 " : "")}AND payment_status = {(int)payment}" : "",
        Fulfillment is { } fulfillment ? $"{(fulfillment > FulfillmentStatus.Fulfilled ? "AND fulfillment_status > 1 " : "")}AND fulfillment_status = {(int)fulfillment}" : "",
        Attribute is null ? "" : "AND seq IN (SELECT seq FROM order_attributes WHERE name = @name AND value = @value)",
    });
}

/// <summary>In which order a list comes.</summary>
public enum OrderSort
{
    /// <summary>The order that was recorded last comes first.</summary>
    Newest,

    /// <summary>The order that was recorded first comes first.</summary>
    Oldest,

    /// <summary>The order that changed last comes first.</summary>
    LatestChange,
}

/// <summary>Which orders; what is empty or null takes all.</summary>
/// <param name="PlacedFrom">Recorded at this time or later, Unix milliseconds.</param>
/// <param name="PlacedTo">Recorded before this time.</param>
public sealed record OrderFilter(IReadOnlyCollection<OrderStatus> Statuses, string? CustomerId = null, long? PlacedFrom = null, long? PlacedTo = null, OrderSort Sort = OrderSort.Newest)
{
    /// <summary>What they have or how far they are; null takes all.</summary>
    public OrderParts? Parts { get; init; }

    /// <summary>The list goes by the place at which orders were recorded.</summary>
    public bool IsBySequence => IsPlain || Parts is not null;

    /// <summary>Nothing is asked for: the list is the table itself.</summary>
    public bool IsPlain => Parts is null && Statuses.Count == 0 && CustomerId is null && PlacedFrom is null && PlacedTo is null && Sort != OrderSort.LatestChange;

    internal bool IsAscending => Sort == OrderSort.Oldest;

    internal string Time => Sort == OrderSort.LatestChange ? "updated_at" : "placed_at";

    /// <summary>By what an order has its place in the list.</summary>
    public long TimeOf(OrderSummary order) => IsBySequence ? 0 : Sort == OrderSort.LatestChange ? order.UpdatedAt : order.PlacedAt;
}

/// <summary>Lists of orders from the read model.</summary>
public sealed class OrderQueries(IDatabase database)
{
    private const string Columns = "seq, order_id, version, status, customer_id, currency, total_minor, line_count, placed_at, updated_at, payment_status, fulfillment_status";

    private static readonly OrderStatus[] Every = [.. Enum.GetValues<OrderStatus>().Where(status => status != OrderStatus.None)];

    /// <summary>Orders that match every filter that is given. Each state is read along an index of its own, and what they have is merged here: no list sorts or scans.</summary>
    /// <param name="last">The place of the last order of the page before; null for the first page.</param>
    public Task<IReadOnlyList<OrderSummary>> ListAsync(OrderFilter filter, (long Time, long Seq)? last, int limit, CancellationToken cancellationToken = default) =>
        database.ReadAsync<IReadOnlyList<OrderSummary>>(
            async connection =>
            {
                var sql = ListSql(filter);
                var found = new List<OrderSummary>();
                foreach (var status in filter.IsBySequence ? [OrderStatus.None] : filter.Statuses.Count == 0 ? Every : filter.Statuses.Distinct())
                {
                    found.AddRange((await connection.QueryAsync<Row>(sql, Parameters(filter, status, last, limit))).Select(row => row.ToSummary()));
                }
                var inTurn = filter.IsAscending
                    ? found.OrderBy(filter.TimeOf).ThenBy(order => order.Seq)
                    : found.OrderByDescending(filter.TimeOf).ThenByDescending(order => order.Seq);
                return [.. inTurn.Take(limit)];
            },
            cancellationToken);

    /// <summary>The statement for one state, or for all orders where nothing is asked for.</summary>
    internal static string ListSql(OrderFilter filter)
    {
        var (beyond, direction) = filter.IsAscending ? (">", "ASC") : ("<", "DESC");
        if (filter.IsPlain)
        {
            return $"SELECT {Columns} FROM orders WHERE seq {beyond} @seq ORDER BY seq {direction} LIMIT @limit";
        }
        if (filter.Parts is { } parts)
        {
            return
                $"""
                SELECT {Columns} FROM orders
                WHERE seq {beyond} @seq
                {(filter.CustomerId is null ? "" : "AND customer_id = @customerId")}
                {(filter.Statuses.Count == 0 ? "" : $"AND status IN ({string.Join(", ", filter.Statuses.Distinct().Select(status => (int)status))})")}
                {parts.Sql}
                ORDER BY seq {direction} LIMIT @limit
                """;
        }
        var time = filter.Time;
        return
            $"""
            SELECT {Columns} FROM orders
            WHERE {(filter.CustomerId is null ? "" : "customer_id = @customerId AND ")}status = @status AND {time} {(filter.IsAscending ? "<" : ">=")} @bound AND ({time}, seq) {beyond} (@time, @seq)
            ORDER BY {time} {direction}, seq {direction} LIMIT @limit
            """;
    }

    /// <summary>A page begins where the one before ended, or at the end of the time that is asked for.</summary>
    internal static object Parameters(OrderFilter filter, OrderStatus status, (long Time, long Seq)? last, int limit)
    {
        var from = filter.PlacedFrom ?? long.MinValue;
        var to = filter.PlacedTo ?? long.MaxValue;
        var (time, seq) = last ?? (filter.IsBySequence ? (0, filter.IsAscending ? long.MinValue : long.MaxValue) : filter.IsAscending ? (from, long.MinValue) : (to, long.MinValue));
        return new { customerId = filter.CustomerId, status = (long)status, bound = filter.IsAscending ? to : from, time, seq, limit, name = filter.Parts?.Attribute?.Name, value = filter.Parts?.Attribute?.Value };
    }

    /// <summary>What was sold with the orders of a day (UTC), by currency and by where they stand now; those that have left the store included.</summary>
    /// <param name="day">Days since 1970.</param>
    public Task<IReadOnlyList<Sold>> SoldAsync(long day, CancellationToken cancellationToken) => database.ReadAsync<IReadOnlyList<Sold>>(
        async connection =>
        {
            var rows = await SalesTable.OfDayAsync(connection, day);
            foreach (var status in Every)
            {
                rows.AddRange(await connection.QueryAsync<SoldRow>(SoldSql, new { status = (long)status, from = SalesTable.BeginningOf(day), to = SalesTable.BeginningOf(day + 1) }));
            }
            return [.. rows.GroupBy(row => row.Currency, StringComparer.Ordinal).OrderBy(group => group.Key, StringComparer.Ordinal).Select(group => new Sold(
                group.Key, group.Sum(row => row.Orders), group.Sum(row => row.TotalMinor),
                group.Where(row => row.Status == OrderStatus.Cancelled).Sum(row => row.Orders), group.Where(row => row.Status == OrderStatus.Cancelled).Sum(row => row.TotalMinor)))];
        },
        cancellationToken);

    internal const string SoldSql =
        "SELECT currency, @status AS status, count(*) AS orders, CAST(sum(total_minor) AS BIGINT) AS total_minor FROM orders WHERE status = @status AND placed_at >= @from AND placed_at < @to GROUP BY currency";

    /// <summary>When an order was taken out of the store; null when it was not, or when that is not remembered.</summary>
    public Task<DateTimeOffset?> GoneAtAsync(string orderId, CancellationToken cancellationToken) => database.ReadAsync(
        async connection => await TombstonesTable.GoneAtAsync(connection, orderId) is { } at ? DateTimeOffset.FromUnixTimeMilliseconds(at) : (DateTimeOffset?)null, cancellationToken);

    internal static Task<long> CountOfCustomerAsync(StoreConnection connection, string customerId) =>
        connection.ExecuteScalarAsync<long>("SELECT count(*) FROM orders WHERE customer_id = @customerId", new { customerId });

    /// <summary>A customer's orders, oldest first, from behind <paramref name="after"/>.</summary>
    internal static Task<List<(long Seq, string OrderId)>> OfCustomerAsync(StoreConnection connection, string customerId, long after, int limit) =>
        connection.QueryAsync<(long, string)>(
            "SELECT seq, order_id FROM orders WHERE customer_id = @customerId AND seq > @after ORDER BY seq LIMIT @limit", new { customerId, after, limit });

    internal static Task<long> CountAsync(StoreConnection connection) => connection.ExecuteScalarAsync<long>("SELECT count(*) FROM orders");

    /// <summary>The row of the stream with that number (<c>seq</c>); null when there is none.</summary>
    internal static Task<Row?> FindAsync(StoreConnection connection, long number) =>
        connection.QuerySingleOrDefaultAsync<Row>($"SELECT {Columns}, needs_stream, last_hash FROM orders WHERE seq = @number", new { number });

    /// <summary>The rows of the streams behind one up to another.</summary>
    internal static Task<List<Row>> FindAsync(StoreConnection connection, long after, long last) =>
        connection.QueryAsync<Row>($"SELECT {Columns}, needs_stream, last_hash FROM orders WHERE seq > @after AND seq <= @last", new { after, last });

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

    /// <summary>The statement of <see cref="UnchangedAsync"/>: a stretch of an index, whatever stands in it.</summary>
    internal const string UnchangedSql =
        $"""
        SELECT {Columns}, needs_stream,
               CAST(CASE WHEN EXISTS (SELECT 1 FROM deferred d WHERE d.order_id = orders.order_id)
                           OR EXISTS (SELECT 1 FROM dead_letters l WHERE l.order_id = orders.order_id AND l.status IN ('parked', 'replayed'))
                    THEN 1 ELSE 0 END AS BIGINT) AS has_open_messages
        FROM orders WHERE status = @status AND updated_at <= @before AND (updated_at, seq) > (@At, @Id) ORDER BY updated_at, seq LIMIT @most
        """;

    /// <summary>Orders in a state that changed last before a time, the oldest first, from behind <paramref name="last"/>.</summary>
    internal static Task<List<Row>> UnchangedAsync(StoreConnection connection, OrderStatus status, long before, OldRow last, int most) =>
        connection.QueryAsync<Row>(UnchangedSql, new { status = (long)status, before, last.At, last.Id, most });

    /// <summary>How many there are.</summary>
    internal static Task<long> CountClosedAsync(StoreConnection connection, OrderStatus status, long before) => connection.ExecuteScalarAsync<long>(
        $"SELECT count(*) FROM orders WHERE {Closed} AND updated_at <= @before", new { status = (long)status, before });

    /// <returns>False when it is not as it was read.</returns>
    internal static async Task<bool> RemoveClosedAsync(StoreTransaction transaction, OrderSummary order)
    {
        var removed = await transaction.ExecuteAsync(
            $"DELETE FROM orders WHERE seq = @Seq AND version = @Version AND {Closed}", new { order.Seq, order.Version, status = (long)order.Status }) == 1;
        if (removed)
        {
            await transaction.ExecuteAsync("DELETE FROM order_attributes WHERE seq = @Seq", new { order.Seq });
        }
        return removed;
    }

    /// <summary>Writes a row anew. Only while the stream is as it was read: an order that moved on meanwhile has written its own row.</summary>
    internal static Task RebuildAsync(StoreTransaction transaction, long number, Order order, byte[] hash, long placedAt, long updatedAt) => transaction.ExecuteAsync(
        """
        INSERT INTO orders (seq, order_id, version, status, customer_id, currency, total_minor, line_count, placed_at, updated_at, last_hash, payment_status, fulfillment_status, needs_stream)
        SELECT @number, @OrderId, @Version, @Status, @CustomerId, @Currency, @TotalMinor, @LineCount, @placedAt, @updatedAt, @hash, @Payment, @Fulfillment, @NeedsStream
        WHERE (SELECT max(version) FROM events WHERE stream = @number) = @Version
        ON CONFLICT (seq) DO UPDATE SET
            order_id = excluded.order_id, version = excluded.version, status = excluded.status, customer_id = excluded.customer_id, currency = excluded.currency,
            total_minor = excluded.total_minor, line_count = excluded.line_count, placed_at = excluded.placed_at,
            updated_at = excluded.updated_at, last_hash = excluded.last_hash, payment_status = excluded.payment_status,
            fulfillment_status = excluded.fulfillment_status, needs_stream = excluded.needs_stream
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
            Payment = (long)order.PaymentStatus,
            Fulfillment = (long)order.FulfillmentStatus,
            NeedsStream = order.NeedsStream ? 1L : 0,
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
        public PaymentStatus PaymentStatus { get; init; }
        public FulfillmentStatus FulfillmentStatus { get; init; }

        /// <summary>Only of <see cref="FindAsync"/> and <see cref="UnchangedAsync"/>.</summary>
        public long NeedsStream { get; init; }

        /// <summary>A command waits for it, or a dead letter is open. Only of <see cref="UnchangedAsync"/>.</summary>
        public long HasOpenMessages { get; init; }

        /// <summary>Only of <see cref="FindAsync"/>.</summary>
        public byte[] LastHash { get; init; } = [];

        public OrderSummary ToSummary() =>
            new(Seq, OrderId, Version, Status, CustomerId, Currency, TotalMinor, LineCount, PlacedAt, UpdatedAt, PaymentStatus, FulfillmentStatus);
    }
}

/// <summary>What was sold in a currency.</summary>
/// <param name="Cancelled">How many of the orders were cancelled since.</param>
public sealed record Sold(string Currency, long Orders, long TotalMinor, long Cancelled, long CancelledMinor);


namespace OrderService.Store;

/// <summary>Some of the log, oldest first.</summary>
/// <param name="MayHaveMore">The page is full, in number or in bytes.</param>
public sealed record EventPage(IReadOnlyList<RecordedEvent> Events, bool MayHaveMore)
{
    /// <summary>A page ends with the event that reaches it; of the events' data together.</summary>
    public const int MaxBytes = 4 * 1024 * 1024;
}

/// <summary>Reads of the log. Positions are in the order of commits, without a gap that could fill later: a reader that goes on after the last position it saw misses nothing.</summary>
public sealed class EventQueries(IDatabase database)
{
    private const string Columns = "position, order_id, version, type, data, correlation_id, causation_id, traceparent, recorded_at, hash";

    /// <summary>One order's stream, oldest first; empty when there is no such order.</summary>
    public Task<IReadOnlyList<RecordedEvent>> StreamAsync(string orderId, CancellationToken cancellationToken = default) =>
        QueryAsync($"SELECT {Columns} FROM events WHERE stream = (SELECT seq FROM orders WHERE order_id = @orderId) ORDER BY version", new { orderId }, cancellationToken);

    /// <summary>The stream with that number (<c>orders.seq</c>), oldest first.</summary>
    public Task<IReadOnlyList<RecordedEvent>> StreamAsync(long stream, CancellationToken cancellationToken = default) =>
        QueryAsync($"SELECT {Columns} FROM events WHERE stream = @stream ORDER BY version", new { stream }, cancellationToken);

    /// <summary>Events of all orders after a position, oldest first.</summary>
    /// <param name="after">The last position seen; 0 for the beginning.</param>
    public Task<EventPage> AfterAsync(long after, int limit, CancellationToken cancellationToken = default) =>
        database.ReadAsync(
            async connection =>
            {
                var page = new List<RecordedEvent>();
                var bytes = 0L;
                var rows = connection.QueryUnbufferedAsync<Row>($"SELECT {Columns} FROM events WHERE position > @after ORDER BY position LIMIT @limit", new { after, limit });
                await foreach (var row in rows.WithCancellation(cancellationToken))
                {
                    page.Add(row.ToEvent());
                    bytes += row.Data.Length;
                    if (bytes >= EventPage.MaxBytes)
                    {
                        break;
                    }
                }
                return new EventPage(page, page.Count == limit || bytes >= EventPage.MaxBytes);
            },
            cancellationToken);

    /// <summary>The position of the newest event; 0 when there is none.</summary>
    public Task<long> LastPositionAsync(CancellationToken cancellationToken = default) =>
        database.ReadAsync(async connection => await connection.ExecuteScalarAsync<long?>("SELECT max(position) FROM events") ?? 0, cancellationToken);

    internal static Task<long> CountAsync(StoreConnection connection) => connection.ExecuteScalarAsync<long>("SELECT count(*) FROM events");

    internal static Task<long> OrderCountAsync(StoreConnection connection) => connection.ExecuteScalarAsync<long>("SELECT count(*) FROM orders");

    /// <summary>When the event at a position was recorded, in Unix milliseconds; null when there is none.</summary>
    internal static Task<long?> RecordedAtAsync(StoreConnection connection, long position) =>
        connection.ExecuteScalarAsync<long?>("SELECT recorded_at FROM events WHERE position = @position", new { position });

    /// <returns>The newest position; 0 in an empty log.</returns>
    internal static async Task<long> NewestAsync(StoreConnection connection) => await connection.ExecuteScalarAsync<long?>("SELECT max(position) FROM events") ?? 0;

    /// <summary>How many events the log has had so far: unlike the newest position it grows by one with each, across epochs too.</summary>
    internal static async Task<long> OrdinalAsync(StoreConnection connection) => (await EpochsTable.ReadAsync(connection)).Ordinal(await NewestAsync(connection));

    /// <summary>What is behind a position: how many events, and when the oldest of them was recorded (Unix milliseconds, null when there is none).</summary>
    internal static async Task<(long Count, long? OldestAt)> BehindAsync(StoreConnection connection, long position)
    {
        var epochs = await EpochsTable.ReadAsync(connection);
        return (
            Math.Max(0, epochs.Ordinal(await NewestAsync(connection)) - epochs.Ordinal(position)),
            await connection.ExecuteScalarAsync<long?>("SELECT recorded_at FROM events WHERE position > @position ORDER BY position LIMIT 1", new { position }));
    }

    /// <summary>The epoch whose beginning took what was at a position, or right behind it; null for a position from which one can go on.</summary>
    /// <param name="after">The last position seen.</param>
    public async Task<EpochRow?> LostWithAsync(long after, CancellationToken cancellationToken = default) => StoreEpoch.Of(after) >= database.Epoch
        ? null
        : (await database.ReadAsync(EpochsTable.ReadAsync, cancellationToken)).LostWith(after);

    /// <summary>The events of a stream that is closed and taken out as a whole.</summary>
    /// <returns>How many there were.</returns>
    internal static async Task<int> RemoveStreamAsync(StoreTransaction transaction, long stream)
    {
        var positions = await transaction.QueryAsync<long>("DELETE FROM events WHERE stream = @stream RETURNING position", new { stream });
        await SealMarks.RemovedAsync(transaction, SealSubject.Events.Table, positions);
        return positions.Count;
    }

    /// <summary>One stream, oldest first.</summary>
    internal static async Task<IReadOnlyList<RecordedEvent>> StreamAsync(StoreConnection connection, long stream) =>
        [.. (await connection.QueryAsync<Row>($"SELECT {Columns} FROM events WHERE stream = @stream ORDER BY version", new { stream })).Select(row => row.ToEvent())];

    internal static Task<long> StreamCountAsync(StoreConnection connection) => connection.ExecuteScalarAsync<long>("SELECT count(DISTINCT stream) FROM events");

    /// <summary>The numbers of streams (<c>orders.seq</c>) behind one, in order.</summary>
    internal static Task<List<long>> StreamsAsync(StoreConnection connection, long after, int limit) =>
        connection.QueryAsync<long>("SELECT DISTINCT stream FROM events WHERE stream > @after ORDER BY stream LIMIT @limit", new { after, limit });

    /// <summary>The streams behind one up to another, in order, each oldest first; one stream is in memory at a time.</summary>
    internal static async IAsyncEnumerable<(long Stream, IReadOnlyList<RecordedEvent> Events)> StreamsAsync(StoreConnection connection, long after, long last)
    {
        var rows = connection.QueryUnbufferedAsync<Row>($"SELECT stream, {Columns} FROM events WHERE stream > @after AND stream <= @last ORDER BY stream, version", new { after, last });
        var (stream, events) = (0L, new List<RecordedEvent>());
        await foreach (var row in rows)
        {
            if (row.Stream != stream && events.Count > 0)
            {
                yield return (stream, events);
                events = [];
            }
            stream = row.Stream;
            events.Add(row.ToEvent());
        }
        if (events.Count > 0)
        {
            yield return (stream, events);
        }
    }

    private Task<IReadOnlyList<RecordedEvent>> QueryAsync(string sql, object parameters, CancellationToken cancellationToken) =>
        database.ReadAsync<IReadOnlyList<RecordedEvent>>(
            async connection => [.. (await connection.QueryAsync<Row>(sql, parameters)).Select(row => row.ToEvent())],
            cancellationToken);

    private sealed class Row
    {
        /// <summary>Of whole streams only.</summary>
        public long Stream { get; init; }
        public long Position { get; init; }
        public string OrderId { get; init; } = "";
        public long Version { get; init; }
        public string Type { get; init; } = "";
        public byte[] Data { get; init; } = [];
        public string CorrelationId { get; init; } = "";
        public string CausationId { get; init; } = "";
        public string? TraceParent { get; init; }
        public long RecordedAt { get; init; }
        public byte[] Hash { get; init; } = [];

        public RecordedEvent ToEvent() =>
            new(OrderId, Version, Type, Data, CorrelationId, CausationId, TraceParent, RecordedAt, Hash) { Position = Position };
    }
}

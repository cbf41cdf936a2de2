using Dapper;
using OrderService.Database;

namespace OrderService.EventStore;

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
    public Task<IReadOnlyList<RecordedEvent>> AfterAsync(long after, int limit, CancellationToken cancellationToken = default) =>
        QueryAsync($"SELECT {Columns} FROM events WHERE position > @after ORDER BY position LIMIT @limit", new { after, limit }, cancellationToken);

    /// <summary>The position of the newest event; 0 when there is none.</summary>
    public Task<long> LastPositionAsync(CancellationToken cancellationToken = default) =>
        database.ReadAsync(async connection => await connection.ExecuteScalarAsync<long?>("SELECT max(position) FROM events") ?? 0, cancellationToken);

    private Task<IReadOnlyList<RecordedEvent>> QueryAsync(string sql, object parameters, CancellationToken cancellationToken) =>
        database.ReadAsync<IReadOnlyList<RecordedEvent>>(
            async connection => [.. (await connection.QueryAsync<Row>(sql, parameters)).Select(row => row.ToEvent())],
            cancellationToken);

    private sealed class Row
    {
        public long Position { get; init; }
        public string Order_Id { get; init; } = "";
        public long Version { get; init; }
        public string Type { get; init; } = "";
        public byte[] Data { get; init; } = [];
        public string Correlation_Id { get; init; } = "";
        public string Causation_Id { get; init; } = "";
        public string? TraceParent { get; init; }
        public long Recorded_At { get; init; }
        public byte[] Hash { get; init; } = [];

        public RecordedEvent ToEvent() =>
            new(Order_Id, Version, Type, Data, Correlation_Id, Causation_Id, TraceParent, Recorded_At, Hash) { Position = Position };
    }
}

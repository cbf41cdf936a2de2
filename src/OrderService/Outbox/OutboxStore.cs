using Dapper;
using OrderService.Database;
using OrderService.EventStore;

namespace OrderService.Outbox;

/// <summary>The relay's view of the outbox table.</summary>
public sealed class OutboxStore(IDatabase database)
{
    private const int ShortRun = 16;

    private static readonly string EventColumns =
        "e.version, e.type, e.data, e.correlation_id, e.causation_id, e.traceparent, e.recorded_at, e.hash, e.position";

    /// <summary>Rows of the given shards that are not in <paramref name="known"/>, oldest first, at most <paramref name="limit"/>.</summary>
    /// <returns>The rows, and whether these were all that were committed when the query began.</returns>
    public Task<(IReadOnlyList<OutboxRow> Rows, bool All)> LoadAsync(
        IReadOnlyCollection<int> shards, IReadOnlySet<long> known, int limit, CancellationToken cancellationToken) =>
        database.ReadAsync<(IReadOnlyList<OutboxRow>, bool)>(
            async connection =>
            {
                var seen = known.Count + limit;
                var everything = shards.Count == Shard.Count;
                var ids = (await connection.QueryAsync<long>(
                    everything
                        ? "SELECT id FROM outbox ORDER BY id LIMIT @seen"
                        : $"SELECT id FROM outbox WHERE shard {connection.In("@shards")} ORDER BY id LIMIT @seen",
                    new { shards = shards.Select(shard => (long)shard).ToArray(), seen })).AsList();
                var missing = ids.Where(id => !known.Contains(id)).Take(limit).ToArray();
                var all = ids.Count < seen && missing.Length < limit;
                var rows = new List<OutboxRow>(missing.Length);
                foreach (var chunk in missing.Chunk(500))
                {
                    rows.AddRange((await connection.QueryAsync<Row>(
                        $"""
                        SELECT o.id, o.kind, o.order_id, o.message, o.body, o.created_at, {EventColumns}
                        FROM outbox o
                        LEFT JOIN orders h ON h.order_id = o.order_id AND o.kind = 1
                        LEFT JOIN events e ON e.stream = h.seq AND e.version = o.version
                        WHERE o.id {connection.In("@chunk")} ORDER BY o.id
                        """,
                        new { chunk })).Select(row => row.ToOutboxRow()));
                }
                return (rows, all);
            },
            cancellationToken);

    /// <summary>Takes the rows out: the broker has them.</summary>
    /// <param name="ids">Sorted here; ids that follow one another leave in one statement, which under load is nearly all of them.</param>
    public Task MarkSentAsync(List<long> ids)
    {
        ids.Sort();
        return database.WriteAsync(async transaction =>
        {
            var connection = transaction.Connection!;
            var single = new List<long>();
            for (var first = 0; first < ids.Count;)
            {
                var last = first;
                while (last + 1 < ids.Count && ids[last + 1] == ids[last] + 1)
                {
                    last++;
                }
                if (last - first < ShortRun)
                {
                    // Other instances have rows in between.
                    single.AddRange(ids[first..(last + 1)]);
                }
                else
                {
                    await connection.ExecuteAsync("DELETE FROM outbox WHERE id BETWEEN @first AND @last", new { first = ids[first], last = ids[last] }, transaction);
                }
                first = last + 1;
            }
            foreach (var chunk in single.Chunk(500))
            {
                await connection.ExecuteAsync($"DELETE FROM outbox WHERE id {connection.In("@chunk")}", new { chunk }, transaction);
            }
        });
    }

    /// <summary>How many rows wait, and since when the oldest does (Unix milliseconds, null when none waits).</summary>
    public Task<(long Pending, long? OldestAt)> BacklogAsync(CancellationToken cancellationToken) =>
        database.ReadAsync(
            async connection => await connection.QuerySingleAsync<(long, long?)>("SELECT count(*), min(created_at) FROM outbox"),
            cancellationToken);

    private sealed class Row
    {
        public long Id { get; init; }
        public long Kind { get; init; }
        public string Order_Id { get; init; } = "";
        public string? Message { get; init; }
        public byte[]? Body { get; init; }
        public long Created_At { get; init; }
        public long? Version { get; init; }
        public string? Type { get; init; }
        public byte[]? Data { get; init; }
        public string? Correlation_Id { get; init; }
        public string? Causation_Id { get; init; }
        public string? TraceParent { get; init; }
        public long? Recorded_At { get; init; }
        public byte[]? Hash { get; init; }
        public long? Position { get; init; }

        public OutboxRow ToOutboxRow()
        {
            var recorded = Version is { } version
                ? new RecordedEvent(Order_Id, version, Type!, Data, Correlation_Id!, Causation_Id!, TraceParent, Recorded_At!.Value, Hash!) { Position = Position!.Value }
                : null;
            return new OutboxRow((OutboxKind)Kind, Order_Id, Version ?? 0, recorded, Message, Body, Created_At) { Id = Id };
        }
    }
}

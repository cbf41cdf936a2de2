using OrderService.Store;

namespace OrderService.Outbox;

/// <summary>The relay's view of the outbox table.</summary>
public sealed class OutboxStore(IDatabase database)
{
    private const int ShortRun = 16;

    /// <summary>What is personal in an event, for those to whom it is published.</summary>
    internal Action<System.Text.Json.Utf8JsonWriter>? Personal(RecordedEvent recorded) => PublishedEvent.Personal(recorded, database.Keys.Open);

    private const int Chunk = 500;

    private static readonly string EventColumns =
        "e.version, e.type, e.data, e.correlation_id, e.causation_id, e.traceparent, e.recorded_at, e.hash, e.position";

    private static readonly string Tables =
        """
        FROM outbox o
        LEFT JOIN orders h ON h.order_id = o.order_id AND o.kind = 1
        LEFT JOIN events e ON e.stream = h.seq AND e.version = o.version
        """;

    /// <summary>Rows of the given shards that wait for nothing and are not in <paramref name="request"/>'s known ones, oldest first.</summary>
    public Task<LoadedRows> LoadAsync(LoadRequest request, CancellationToken cancellationToken) => database.ReadAsync(
        async connection =>
        {
            var seen = request.Known.Count + request.Limit;
            var everything = request.Shards.Count == Shard.Count;
            var ids = await connection.QueryAsync<ScannedRow>(
                $"""
                SELECT o.id, o.order_id, {(request.AnyStuck ? "CASE WHEN EXISTS (SELECT 1 FROM outbox s WHERE s.order_id = o.order_id AND s.stuck_key IS NOT NULL) THEN 1 ELSE 0 END" : "0")} AS behind
                FROM outbox o WHERE o.id > @After AND o.stuck_key IS NULL {(everything ? "" : $"AND o.shard {connection.In("@shards")}")}
                    {(request.Except.Count == 0 ? "" : $"AND NOT (o.order_id {connection.In("@except")})")}
                ORDER BY o.id LIMIT @seen
                """,
                new { shards = request.Shards.Select(shard => (long)shard).ToArray(), except = request.Except.ToArray(), seen, request.After });
            var cut = new HashSet<string>(StringComparer.Ordinal);
            var missing = Choose(ids.Where(row => !row.IsBehind && !request.Known.Contains(row.Id)), request.MostOfOneStream, cut).Take(request.Limit).ToArray();
            var (rows, fits) = await ReadAsync(connection, missing, request.MaxBytes);
            return new LoadedRows(
                rows,
                [.. ids.Where(row => row.IsBehind && !request.Known.Contains(row.Id)).Select(row => row.Id)],
                fits && ids.Count < seen && missing.Length < request.Limit,
                ids.Count == 0 ? request.After : ids[^1].Id)
            {
                Cut = cut,
            };
        },
        cancellationToken);

    /// <summary>The first rows of each stream, as many as may be taken of one; <paramref name="cut"/> gets the streams that have more.</summary>
    private static IEnumerable<long> Choose(IEnumerable<ScannedRow> rows, int mostOfOneStream, HashSet<string> cut)
    {
        var taken = new Dictionary<string, int>(StringComparer.Ordinal);
        foreach (var row in rows)
        {
            var count = taken[row.OrderId] = taken.GetValueOrDefault(row.OrderId) + 1;
            if (count <= mostOfOneStream)
            {
                yield return row.Id;
            }
            else
            {
                cut.Add(row.OrderId);
            }
        }
    }

    /// <summary>Reads rows with what they publish, in the order of their ids, as many as fit into so many bytes, and at least one.</summary>
    private static async Task<(List<OutboxRow> Rows, bool Fits)> ReadAsync(StoreConnection connection, IReadOnlyList<long> ids, long maxBytes)
    {
        var rows = new List<OutboxRow>(Math.Min(ids.Count, Chunk));
        foreach (var chunk in ids.Chunk(Chunk))
        {
            // An order of 500 lines is a hundred times as large as the usual one, so the sizes come first.
            var sizes = await connection.QueryAsync<SizedRow>(
                $"SELECT o.id, coalesce(length(o.body), 0) + coalesce(length(o.message), 0) + coalesce(length(e.data), 0) AS bytes {Tables} WHERE o.id {connection.In("@chunk")} ORDER BY o.id",
                new { chunk });
            var fitting = new List<long>(chunk.Length);
            foreach (var row in sizes)
            {
                maxBytes -= OutboxRow.MemoryOf(row.Bytes);
                if (maxBytes < 0 && (rows.Count > 0 || fitting.Count > 0))
                {
                    break;
                }
                fitting.Add(row.Id);
            }
            if (fitting.Count > 0)
            {
                rows.AddRange((await connection.QueryAsync<Row>(
                    $"SELECT o.id, o.kind, o.order_id, o.message, o.body, o.created_at, {EventColumns} {Tables} WHERE o.id {connection.In("@fitting")} ORDER BY o.id",
                    new { fitting = fitting.ToArray() })).Select(row => row.ToOutboxRow(connection.Keys)));
            }
            if (maxBytes < 0)
            {
                return (rows, false);
            }
        }
        return (rows, true);
    }

    /// <summary>Marks rows as stuck: they wait for a routing key.</summary>
    /// <param name="heads">The first of each stream; the reason stands there.</param>
    public Task StickAsync(string key, string reason, long since, IReadOnlyList<long> heads, IReadOnlyList<long> behind) => database.WriteAsync(async transaction =>
    {
        foreach (var (ids, why) in new[] { (heads, reason), (behind, (string?)null) })
        {
            foreach (var chunk in ids.Chunk(Chunk))
            {
                await transaction.ExecuteAsync(
                    $"UPDATE outbox SET stuck_key = @key, stuck_reason = @why, stuck_since = @since WHERE id {transaction.In("@chunk")}", new { key, why, since, chunk });
            }
        }
    });

    /// <summary>Marks rows whose stream is stuck already.</summary>
    public Task StickBehindAsync(IReadOnlyList<long> ids, long since) => database.WriteAsync(async transaction =>
    {
        foreach (var chunk in ids.Chunk(Chunk))
        {
            await transaction.ExecuteAsync(
                $"""
                UPDATE outbox SET stuck_since = @since, stuck_key = (
                    SELECT s.stuck_key FROM outbox s WHERE s.order_id = outbox.order_id AND s.stuck_key IS NOT NULL ORDER BY s.id LIMIT 1)
                WHERE id {transaction.In("@chunk")}
                """,
                new { since, chunk });
        }
    });

    /// <summary>Takes the oldest streams that wait for the key out of the stuck ones and reads their rows, in the order of their ids.</summary>
    public async Task<LoadedRows> ReleaseAsync(
        string key, IReadOnlyCollection<int> shards, int streams, int mostOfOneStream, CancellationToken cancellationToken)
    {
        var rows = await database.WriteAsync(
            transaction => transaction.QueryAsync<ScannedRow>(
                $"""
                UPDATE outbox SET stuck_key = NULL, stuck_reason = NULL, stuck_since = NULL
                WHERE stuck_key IS NOT NULL AND order_id IN (
                    SELECT order_id FROM outbox WHERE stuck_key = @key {(shards.Count == Shard.Count ? "" : $"AND shard {transaction.In("@shards")}")}
                    ORDER BY id LIMIT @streams)
                RETURNING id, order_id
                """,
                new { key, shards = shards.Select(shard => (long)shard).ToArray(), streams }),
            cancellationToken);
        rows.Sort(static (one, other) => one.Id.CompareTo(other.Id));
        var cut = new HashSet<string>(StringComparer.Ordinal);
        List<long> first = [.. Choose(rows, mostOfOneStream, cut)];
        var read = first.Count == 0 ? [] : (await database.ReadAsync(connection => ReadAsync(connection, first, long.MaxValue), cancellationToken)).Rows;
        return new LoadedRows(read, [], cut.Count == 0, first.Count == 0 ? 0 : first[^1]) { Cut = cut };
    }

    /// <summary>The routing keys that something waits for, how much, and since when.</summary>
    /// <param name="shards">Only in these; null for all.</param>
    public Task<IReadOnlyList<StuckKey>> StuckAsync(IReadOnlyCollection<int>? shards, CancellationToken cancellationToken) => database.ReadAsync<IReadOnlyList<StuckKey>>(
        async connection => [.. (await connection.QueryAsync<StuckRow>(
            $"""
            SELECT k.stuck_key AS key, k.events, k.since,
                (SELECT r.stuck_reason FROM outbox r WHERE r.stuck_key = k.stuck_key AND r.stuck_reason IS NOT NULL ORDER BY r.id LIMIT 1) AS reason,
                (SELECT r.order_id FROM outbox r WHERE r.stuck_key = k.stuck_key ORDER BY r.id LIMIT 1) AS order_id
            FROM (SELECT stuck_key, count(*) AS events, min(stuck_since) AS since FROM outbox WHERE stuck_key IS NOT NULL {(shards is null || shards.Count == Shard.Count ? "" : $"AND shard {connection.In("@shards")}")} GROUP BY stuck_key) k ORDER BY k.since, k.stuck_key
            """,
            new { shards = shards?.Select(shard => (long)shard).ToArray() })).Select(row => new StuckKey(row.Key, row.Events, row.Since, row.Reason, row.OrderId))],
        cancellationToken);

    /// <summary>The streams of the given shards that have stuck rows, one by one: there may be more than memory should hold.</summary>
    public Task<bool> VisitStuckStreamsAsync(IReadOnlyCollection<int> shards, Action<string> visit, CancellationToken cancellationToken) => database.ReadAsync(
        async connection =>
        {
            // Read in pages along the index.
            string? last = "";
            while (last is not null)
            {
                var page = await connection.QueryAsync<string>(
                    $"""
                    SELECT DISTINCT order_id FROM outbox WHERE stuck_key IS NOT NULL AND order_id > @last {(shards.Count == Shard.Count ? "" : $"AND shard {connection.In("@shards")}")}
                    ORDER BY order_id LIMIT 1000
                    """,
                    new { last, shards = shards.Select(shard => (long)shard).ToArray() });
                page.ForEach(visit);
                last = page.Count < 1000 ? null : page[^1];
            }
            return true;
        },
        cancellationToken);

    /// <summary>How often an operator asked for an attempt, by routing key.</summary>
    public Task<IReadOnlyList<(string Key, long Releases)>> ReleasesAsync(CancellationToken cancellationToken) => database.ReadAsync<IReadOnlyList<(string, long)>>(
        async connection => await RelayKeysTable.ReleasesAsync(connection), cancellationToken);

    /// <summary>Asks whoever relays to try a routing key now, and writes down in the audit log who asked.</summary>
    /// <returns>How many events wait for it; 0 when none does, and then nothing was asked.</returns>
    public Task<long> AskForReleaseAsync(string key, Caller who, string reason, long now, CancellationToken cancellationToken) => database.WriteAsync(
        async transaction =>
        {
            var events = await transaction.ExecuteScalarAsync<long>("SELECT count(*) FROM outbox WHERE stuck_key = @key", new { key });
            if (events == 0)
            {
                return 0;
            }
            await RelayKeysTable.AskAsync(transaction, key);
            await AuditTrail.WriteAsync(transaction, who, "relay.release", $"routing key {key}", reason, now);
            return events;
        },
        cancellationToken);

    /// <summary>Takes out a replay that can't be sent as it is, with what <paramref name="end"/> makes of it, in one transaction.</summary>
    public Task EndReplayAsync(OutboxRow row, Announcement message, string reason, ReplayRefused end) => database.WriteAsync(async transaction =>
    {
        await end(transaction, message, reason);
        await transaction.ExecuteAsync("DELETE FROM outbox WHERE id = @Id", new { row.Id });
    });

    /// <summary>Takes the rows out: the broker has them.</summary>
    /// <param name="ids">Sorted here; ids that follow one another leave in one statement, which under load is nearly all of them.</param>
    public Task MarkSentAsync(List<long> ids)
    {
        ids.Sort();
        return database.WriteAsync(async transaction =>
        {
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
                    await transaction.ExecuteAsync("DELETE FROM outbox WHERE id BETWEEN @first AND @last", new { first = ids[first], last = ids[last] });
                }
                first = last + 1;
            }
            foreach (var chunk in single.Chunk(500))
            {
                await transaction.ExecuteAsync($"DELETE FROM outbox WHERE id {transaction.In("@chunk")}", new { chunk });
            }
        });
    }

    /// <summary>Adds a message that brings its own text; the order flow adds its rows with the append.</summary>
    internal static Task AddAsync(StoreTransaction transaction, OutboxRow row) => transaction.ExecuteAsync(
        "INSERT INTO outbox (shard, kind, order_id, version, message, body, created_at) VALUES (@shard, @kind, @OrderId, @Version, @Message, @Body, @CreatedAt)",
        new
        {
            shard = Shard.Of(row.OrderId),
            kind = (int)row.Kind,
            row.OrderId,
            row.Version,
            row.Message,
            // What is announced is for everybody; what is replayed is a customer's message.
            Body = row.Kind == OutboxKind.Replay ? transaction.Keys.SealOrNull(row.Body, null) : row.Body,
            row.CreatedAt,
        });

    /// <summary>Orders that have something to publish still; of so many rows at most.</summary>
    /// <returns>Null when there are more.</returns>
    internal static async Task<HashSet<string>?> OrderIdsAsync(StoreConnection connection, int most)
    {
        var found = await connection.QueryAsync<string>("SELECT order_id FROM outbox LIMIT @most", new { most = most + 1 });
        return found.Count > most ? null : [.. found];
    }

    internal static Task<long> CountAsync(StoreConnection connection) => connection.ExecuteScalarAsync<long>("SELECT count(*) FROM outbox");

    /// <summary>How many rows wait, and since when the oldest does (Unix milliseconds, null when none waits).</summary>
    public Task<(long Pending, long? OldestAt)> BacklogAsync(CancellationToken cancellationToken) =>
        database.ReadAsync(
            connection => connection.QuerySingleAsync<(long, long?)>("SELECT count(*), min(created_at) FROM outbox"),
            cancellationToken);

    private sealed class ScannedRow
    {
        public long Id { get; init; }
        public string OrderId { get; init; } = "";
        public long Behind { get; init; }
        public bool IsBehind => Behind == 1;
    }

    private sealed class StuckRow
    {
        public string Key { get; init; } = "";
        public long Events { get; init; }
        public long Since { get; init; }
        public string? Reason { get; init; }
        public string? OrderId { get; init; }
    }

    private sealed class SizedRow
    {
        public long Id { get; init; }
        public long Bytes { get; init; }
    }

    private sealed class Row
    {
        public long Id { get; init; }
        public long Kind { get; init; }
        public string OrderId { get; init; } = "";
        public string? Message { get; init; }
        public byte[]? Body { get; init; }
        public long CreatedAt { get; init; }
        public long? Version { get; init; }
        public string? Type { get; init; }
        public byte[]? Data { get; init; }
        public string? CorrelationId { get; init; }
        public string? CausationId { get; init; }
        public string? TraceParent { get; init; }
        public long? RecordedAt { get; init; }
        public byte[]? Hash { get; init; }
        public long? Position { get; init; }

        public OutboxRow ToOutboxRow(PersonalKeys keys)
        {
            var recorded = Version is { } version
                ? new RecordedEvent(OrderId, version, Type!, Data, CorrelationId!, CausationId!, TraceParent, RecordedAt!.Value, Hash!) { Position = Position!.Value }
                : null;
            return new OutboxRow((OutboxKind)Kind, OrderId, Version ?? 0, recorded, Message, Body is null ? null : keys.OpenOrNone(Body), CreatedAt) { Id = Id };
        }
    }
}

/// <summary>What the relay has room for.</summary>
/// <param name="Known">Rows that it has in hand.</param>
/// <param name="AnyStuck">Streams may be stuck, so that what comes behind them has to be found.</param>
/// <param name="After">Rows up to this id are in hand or stuck.</param>
public sealed record LoadRequest(IReadOnlyCollection<int> Shards, IReadOnlySet<long> Known, int Limit, long MaxBytes, bool AnyStuck, long After)
{
    /// <summary>Streams of which enough is in hand: their rows are left in the table.</summary>
    public IReadOnlyCollection<string> Except { get; init; } = [];

    /// <summary>How many rows of one stream are taken.</summary>
    public int MostOfOneStream { get; init; } = int.MaxValue;
}

/// <param name="Rows">Oldest first.</param>
/// <param name="Behind">Rows that are not marked yet although their stream is stuck.</param>
/// <param name="All">These were all that were committed when the query began.</param>
/// <param name="Last">The highest id that was seen.</param>
public sealed record LoadedRows(IReadOnlyList<OutboxRow> Rows, IReadOnlyList<long> Behind, bool All, long Last)
{
    /// <summary>Streams that have more rows than were taken.</summary>
    public IReadOnlyCollection<string> Cut { get; init; } = [];
}

/// <summary>A routing key that events wait for.</summary>
/// <param name="Key">The routing key; <c>orders</c> for replays; <c>unsendable</c> for what can't be sent as it is.</param>
/// <param name="Events">How many wait, those behind them in their streams included.</param>
/// <param name="Since">Unix milliseconds.</param>
/// <param name="OrderId">The oldest one's order.</param>
public sealed record StuckKey(string Key, long Events, long Since, string? Reason, string? OrderId);

/// <summary>Ends a replay that can't be sent as it is, in the caller's transaction: its letter waits for an operator again.</summary>
public delegate Task ReplayRefused(StoreTransaction transaction, Announcement message, string reason);

using Microsoft.Data.Sqlite;
using OrderService.Domain;
using OrderService.Store;

namespace OrderService.Database;

/// <summary>The log on SQLite: reading, deciding and writing happen in one transaction on the writer thread, so nothing can come between them.</summary>
public sealed class SqliteOrderEventStore(SqliteDatabase database) : IOrderEventStore, IDisposable
{
    private (Reads, SqliteAppend)? prepared;
    private (int Writer, long Epoch) preparedFor = (-1, 0);

    /// <inheritdoc/>
    /// <remarks>Whatever it holds, a commit writes the last page of some ten tables and indexes whole, and syncs the log.</remarks>
    public bool IsGatheringWorthwhile => true;

    public Task<Append> AppendAsync(BatchQuery query, Func<BatchState, Append> decide, CancellationToken cancellationToken) =>
        database.WriteLargeAsync(transaction => Task.FromResult(Append(query, decide, transaction)), cancellationToken);

    public Task TryAppendAsync(BatchQuery query, Func<BatchState, Append> decide, CancellationToken cancellationToken) =>
        database.TryOutAsync(
            transaction =>
            {
                Append(query, decide, transaction);
                return Task.CompletedTask;
            },
            cancellationToken);

    public Task<BatchState> ReadAsync(BatchQuery query, CancellationToken cancellationToken) => database.ReadDirectlyAsync(
        connection =>
        {
            // One moment of the store for all statements.
            using var transaction = connection.BeginTransaction(deferred: true);
            using var reads = new Reads(connection, []);
            return Task.FromResult(Read(reads, query, database.Epoch));
        },
        cancellationToken);

    public PersonalKeys Keys => database.Keys;

    // One process serves a file at a time, so nobody else is there.
    public Lives Lives { get; } = new(database, $"sqlite-{Guid.NewGuid():N}", static (_, _) => Task.FromResult<IReadOnlyCollection<string>>([]));

    public void Dispose()
    {
        // The statements die with the writer's connection, which the database closes on its own thread.
    }

    private Append Append(BatchQuery query, Func<BatchState, Append> decide, StoreTransaction transaction)
    {
        var (reads, writes) = Prepared();
        var append = decide(Read(reads, query, database.Epoch));
        Failpoint.Hit("store-decided");
        if (!append.IsEmpty)
        {
            writes.Write(append, transaction);
            Failpoint.Hit("store-written");
        }
        return append;
    }

    private BatchState Read(Reads prepared, BatchQuery query, long epoch)
    {
        var state = new BatchState(query.Keys.Count) { Epoch = epoch };
        var anyLetters = prepared.AnyOpenLetter.Step();
        prepared.AnyOpenLetter.Reset();
        var anyDeferred = prepared.AnyDeferred.Step();
        prepared.AnyDeferred.Reset();

        foreach (var key in query.Keys)
        {
            var inbox = prepared.Inbox.Bind(1, key);
            if (inbox.Step())
            {
                state.Inbox[key] = new InboxEntry(inbox.Blob(0), (InboxOutcome)inbox.Int64(1), inbox.TextOrNull(2));
                inbox.Reset();
            }
            if (anyLetters)
            {
                ReadLetters(prepared, key, state);
            }
        }
        if (anyLetters && query.Fingerprints.Count > 0)
        {
            var anyKeyless = prepared.AnyKeylessLetter.Step();
            prepared.AnyKeylessLetter.Reset();
            if (anyKeyless)
            {
                ReadKeylessLetters(prepared, query.Fingerprints, state);
            }
        }
        foreach (var orderId in query.OrderIds)
        {
            var head = prepared.Head.Bind(1, orderId);
            if (head.Step())
            {
                var found = HeadRow.Read(orderId, head.Int64(0), (OrderStatus)head.Int64(1), head.Text(2), head.Blob(3), head.Int64(4), (PaymentStatus)head.Int64(6));
                var stream = head.Int64(5);
                var needsStream = head.Int64(7) != 0;
                head.Reset();
                state.Heads[orderId] = needsStream || query.WholeOrderIds.Contains(orderId) ? HeadRow.Whole(found, ReadEvents(prepared.Events, stream))
                    : query.PaidOrderIds.Contains(orderId) ? HeadRow.WithPayments(found, found.Order.Version > 1 ? ReadEvents(prepared.Payments, stream) : [])
                    : found;
            }
            if (anyDeferred)
            {
                ReadDeferred(prepared, orderId, state);
            }
        }
        var anyGone = prepared.AnyTombstone.Step();
        prepared.AnyTombstone.Reset();
        if (anyGone)
        {
            ReadTombstones(prepared, query, state);
        }
        return state;
    }

    private static List<(string Type, byte[] Data)> ReadEvents(SqliteStatement statement, long stream)
    {
        var found = new List<(string, byte[])>();
        var events = statement.Bind(1, stream);
        while (events.Step())
        {
            found.Add((events.Text(0), events.Blob(1)));
        }
        return found;
    }

    private static void ReadLetters(Reads prepared, string key, BatchState state)
    {
        var letters = prepared.OpenLetters.Bind(1, key);
        while (letters.Step())
        {
            if (!state.Letters.TryGetValue(key, out var list))
            {
                state.Letters[key] = list = [];
            }
            list.Add(OpenLetterOf(letters));
        }
    }

    private static void ReadKeylessLetters(Reads prepared, IReadOnlyList<byte[]> fingerprints, BatchState state)
    {
        foreach (var fingerprint in fingerprints)
        {
            var letters = prepared.KeylessLetters.Bind(1, fingerprint);
            while (letters.Step())
            {
                var content = Convert.ToHexString(fingerprint);
                if (!state.KeylessLetters.TryGetValue(content, out var list))
                {
                    state.KeylessLetters[content] = list = [];
                }
                // Its own bytes are the message's, under whatever type it came.
                list.Add(OpenLetterOf(letters) with { Fingerprint = fingerprint });
            }
        }
    }

    private static void ReadTombstones(Reads prepared, BatchQuery query, BatchState state)
    {
        foreach (var key in query.Keys.Where(key => !state.Inbox.ContainsKey(key)))
        {
            var tombstone = prepared.Tombstone.Bind(1, TombstonesTable.OfKey(key));
            if (tombstone.Step())
            {
                state.Inbox[key] = new InboxEntry(tombstone.Blob(0), InboxOutcome.Accepted, null);
                tombstone.Reset();
            }
        }
        foreach (var orderId in query.OrderIds.Where(orderId => !state.Heads.ContainsKey(orderId)))
        {
            var tombstone = prepared.Tombstone.Bind(1, TombstonesTable.OfOrder(orderId));
            if (tombstone.Step())
            {
                state.Gone.Add(orderId);
                tombstone.Reset();
            }
        }
    }

    private static OpenLetter OpenLetterOf(SqliteStatement row) =>
        new(row.Int64(0), row.Blob(1), row.Text(2) == "replayed", row.Blob(3), row.Int64(4) != 0);

    private void ReadDeferred(Reads prepared, string orderId, BatchState state)
    {
        var deferred = prepared.Deferred.Bind(1, orderId);
        while (deferred.Step())
        {
            if (state.Deferred.TryGetValue(orderId, out var read) && read.Count == DeferredCommand.MostAtOnce)
            {
                state.Backlog.Add(orderId);
                deferred.Reset();
                return;
            }
            if (!state.Deferred.TryGetValue(orderId, out var list))
            {
                state.Deferred[orderId] = list = [];
            }
            list.Add(new DeferredCommand(
                deferred.Text(0), orderId, deferred.Text(1), database.Keys.OpenOrNone(deferred.Blob(2)), deferred.Text(3), deferred.Blob(4),
                deferred.Text(5), deferred.TextOrNull(6), deferred.Int64(7), deferred.Int64(8)));
        }
    }

    private (Reads Reads, SqliteAppend Writes) Prepared()
    {
        if (prepared is null || preparedFor != (database.WriterGeneration, database.Epoch))
        {
            var statements = (new Reads(database.WriterConnection, []), new SqliteAppend(database.WriterConnection, database.Epoch));
            database.CloseWithWriter(statements.Item1);
            database.CloseWithWriter(statements.Item2);
            prepared = statements;
            preparedFor = (database.WriterGeneration, database.Epoch);
        }
        return prepared.Value;
    }

    /// <param name="all">Gets every statement, so that none is forgotten at the end.</param>
    private sealed class Reads(SqliteConnection connection, List<SqliteStatement> all) : IDisposable
    {
        public SqliteStatement Inbox { get; } = new(connection, all, "SELECT fingerprint, outcome, reason FROM inbox WHERE key = ?1");
        public SqliteStatement Head { get; } = new(connection, all, "SELECT version, status, currency, last_hash, total_minor, seq, payment_status, needs_stream FROM orders WHERE order_id = ?1");
        public SqliteStatement Payments { get; } = new(connection, all, $"SELECT type, data FROM events WHERE stream = ?1 AND type IN ({HeadRow.PaymentTypes}) ORDER BY version");
        public SqliteStatement Events { get; } = new(connection, all, "SELECT type, data FROM events WHERE stream = ?1 ORDER BY version");
        public SqliteStatement AnyOpenLetter { get; } = new(connection, all, "SELECT 1 FROM dead_letters WHERE status IN ('parked', 'replayed') LIMIT 1");
        public SqliteStatement OpenLetters { get; } = new(connection, all, """
            SELECT id, fingerprint, status, twins, reason = 'key_conflict' FROM dead_letters WHERE key = ?1 AND status IN ('parked', 'replayed')
            UNION ALL
            SELECT id, fingerprint, status, twins, reason = 'key_conflict' FROM dead_letters WHERE replay_key = ?1 AND status IN ('parked', 'replayed')
            """);
        public SqliteStatement AnyKeylessLetter { get; } = new(
            connection, all, "SELECT 1 FROM dead_letters WHERE keyless = 1 AND status IN ('parked', 'replayed') LIMIT 1");
        public SqliteStatement KeylessLetters { get; } = new(connection, all, """
            SELECT l.id, l.fingerprint, l.status, l.twins, l.reason = 'key_conflict'
            FROM keyless_letters k JOIN dead_letters l ON l.id = k.letter_id WHERE k.fingerprint = ?1 AND l.status IN ('parked', 'replayed')
            """);
        public SqliteStatement AnyTombstone { get; } = new(connection, all, TombstonesTable.Any);
        public SqliteStatement Tombstone { get; } = new(connection, all, "SELECT fingerprint FROM tombstones WHERE hash = ?1");
        public SqliteStatement AnyDeferred { get; } = new(connection, all, "SELECT 1 FROM deferred LIMIT 1");
        public SqliteStatement Deferred { get; } = new(connection, all, $"""
            SELECT key, type, body, properties, fingerprint, correlation_id, traceparent, received_at, expires_at
            FROM deferred WHERE order_id = ?1 ORDER BY {DeferredCommand.InTurn} LIMIT {DeferredCommand.MostAtOnce + 1}
            """);

        /// <summary>A connection with an open statement is not closed, whatever it is told.</summary>
        public void Dispose() => all.ForEach(statement => statement.Dispose());
    }
}

using System.Runtime.InteropServices;
using Npgsql;
using NpgsqlTypes;
using OrderService.Domain;
using OrderService.Store;

namespace OrderService.Database;

/// <summary>
/// The log on PostgreSQL: one round trip reads what a batch has to know, one writes the answer, all of it or nothing.
/// Between the two no transaction is open, so a client that freezes there holds nothing; what another instance did meanwhile shows
/// as a conflict (a key or a version that is taken, a guard that raises), and the batch is read and decided again.
/// </summary>
/// <remarks>
/// Rows are written in one order everywhere (commands that waited, inbox, heads, outbox, the rare ones, the log), each table's sorted by its key, so that two
/// appends never wait for each other in a circle. The log comes last, under a lock that is held until the commit: positions are in the
/// order of commits. See docs/decisions for what that costs.
/// </remarks>
public sealed partial class PostgresOrderEventStore(PostgresDatabase database, TimeProvider clock, ILogger<PostgresOrderEventStore> logger) : IOrderEventStore
{
    private const int MaxAttempts = 12;

    // Each of them waited as long as PostgreSQL lets it wait; another instance does not hold a lock for that long.
    private const int MaxLockedAttempts = 2;
    private static readonly TimeSpan OutcomePatience = TimeSpan.FromSeconds(10);

    public async Task<Append> AppendAsync(BatchQuery query, Func<BatchState, Append> decide, CancellationToken cancellationToken)
    {
        string[] keys = [.. query.Keys];
        string[] orderIds = [.. query.OrderIds];
        for (var attempt = 1; ; attempt++)
        {
            var conflict = await TryAppendAsync(keys, orderIds, query, decide, cancellationToken);
            if (conflict.Append is { } append)
            {
                return append;
            }
            if (conflict.Cause is PostgresException { SqlState: PostgresErrorCodes.LockNotAvailable } locked && attempt >= MaxLockedAttempts)
            {
                throw database.Translate(locked)!;
            }
            if (attempt == MaxAttempts)
            {
                if (conflict.Cause is PostgresException { SqlState: PostgresErrorCodes.UniqueViolation } taken)
                {
                    // A key of ours would have been found when the batch was read again.
                    throw database.Translate(taken)!;
                }
                throw new StoreUnavailableException($"Other instances came first {attempt} times in a row.", conflict.Cause);
            }
            LogConflict(attempt, conflict.Cause?.Message);
            await Task.Delay(TimeSpan.FromMilliseconds(Random.Shared.NextDouble() * 4 * attempt * attempt), clock, cancellationToken);
        }
    }

    public async Task TryAppendAsync(BatchQuery query, Func<BatchState, Append> decide, CancellationToken cancellationToken)
    {
        await using var connection = await OpenAsync(cancellationToken);
        try
        {
            var streams = new Dictionary<string, long>(query.OrderIds.Count, StringComparer.Ordinal);
            var append = decide(await ReadAsync(connection, [.. query.Keys], [.. query.OrderIds], query, streams, cancellationToken));
            await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
            await new PostgresAppend(append, streams, [], database.Keys).ExecuteAsync(connection);
            await new StoreTransaction(transaction, database.Keys, isSqlite: false).CheckDeferredAsync();
            await transaction.RollbackAsync(CancellationToken.None);
        }
        catch (Exception exception) when (database.Translate(exception) is { } translated)
        {
            throw translated;
        }
    }

    public async Task<BatchState> ReadAsync(BatchQuery query, CancellationToken cancellationToken)
    {
        await using var connection = await OpenAsync(cancellationToken);
        try
        {
            return await ReadAsync(connection, [.. query.Keys], [.. query.OrderIds], query, null, cancellationToken);
        }
        catch (Exception exception) when (database.Translate(exception) is { } translated)
        {
            throw translated;
        }
    }

    public PersonalKeys Keys => database.Keys;

    public Lives Lives { get; } = new(database, database.ApplicationName, LivingAsync);

    /// <summary>A process has sessions as long as it is there: it reads its stations every second.</summary>
    private static async Task<IReadOnlyCollection<string>> LivingAsync(StoreTransaction transaction, IReadOnlyCollection<string> lives) =>
        await transaction.QueryAsync<string>("SELECT DISTINCT application_name FROM pg_stat_activity WHERE application_name = ANY(@lives)", new { lives = lives.ToArray() });

    /// <returns>The append, or null and the reason why it has to be decided again.</returns>
    private async Task<(Append? Append, Exception? Cause)> TryAppendAsync(
        string[] keys, string[] orderIds, BatchQuery query, Func<BatchState, Append> decide, CancellationToken cancellationToken)
    {
        await using var connection = await OpenAsync(cancellationToken);
        BatchState state;
        var streams = new Dictionary<string, long>(orderIds.Length, StringComparer.Ordinal);
        try
        {
            state = await ReadAsync(connection, keys, orderIds, query, streams, cancellationToken);
        }
        catch (Exception exception) when (database.Translate(exception) is { } translated)
        {
            throw translated;
        }
        // Deciding changes the state; what stood there is needed to see whether it still stands when it is rewritten.
        var rejectedKeys = state.Inbox.Where(entry => entry.Value.Outcome == InboxOutcome.Rejected).Select(entry => entry.Key).ToHashSet(StringComparer.Ordinal);

        var append = decide(state);
        Failpoint.Hit("store-decided");
        if (append.IsEmpty)
        {
            return (append, null);
        }

        var processId = connection.ProcessID;
        var written = new PostgresAppend(append, streams, rejectedKeys, database.Keys);
        try
        {
            await written.ExecuteAsync(connection);
            return (append, null);
        }
        catch (PostgresException exception) when (PostgresErrors.WasRolledBack(exception))
        {
            if (PostgresErrors.IsConflict(exception))
            {
                return (null, exception);
            }
            if (exception.SqlState == PostgresErrorCodes.LockNotAvailable)
            {
                await database.EndFrozenSessionsAsync(cancellationToken);
                return (null, exception);
            }
            throw database.Translate(exception)!;
        }
        catch (Exception exception) when (database.Translate(exception) is { } translated)
        {
            LogUnknown(exception.Message);
            await connection.DisposeAsync();
            return await WasCommittedAsync(append, processId, translated, cancellationToken) ? (append, null) : (null, exception);
        }
    }

    private async Task<NpgsqlConnection> OpenAsync(CancellationToken cancellationToken)
    {
        try
        {
            return await database.OpenForAppendAsync(cancellationToken);
        }
        catch (Exception exception) when (database.Translate(exception) is { } translated)
        {
            throw translated;
        }
    }

    private static readonly string SelectHeads = Heads("seq");
    private static readonly string SelectHeadsAndDraw = Heads("coalesce(seq, nextval('orders_seq_seq'))");

    private static string Heads(string number) =>
        $"""
        SELECT place, {number}, version, status, currency, last_hash, total_minor, payment_status, needs_stream
        FROM unnest($1) WITH ORDINALITY AS wanted (order_id, place) LEFT JOIN orders ON orders.order_id = wanted.order_id
        """;

    /// <param name="streams">Gets the number of each order's stream, drawn here for those that do not exist yet. To look it up for every event instead would be a third of the time under the log's lock. Null when nothing is to be drawn.</param>
    private async Task<BatchState> ReadAsync(
        NpgsqlConnection connection, string[] keys, string[] orderIds, BatchQuery query, Dictionary<string, long>? streams, CancellationToken cancellationToken)
    {
        string[] paidOrderIds = [.. query.PaidOrderIds];
        var state = new BatchState(keys.Length) { Epoch = database.Epoch };
        if (keys.Length + orderIds.Length == 0)
        {
            return state;
        }
        await using var batch = new NpgsqlBatch(connection)
        {
            BatchCommands =
            {
                // A number that is drawn is logged, and nobody needs to wait for that: the append flushes what came before it.
                new("SELECT set_config('synchronous_commit', 'off', true)"),
                new("SELECT key, fingerprint, outcome, reason FROM inbox WHERE key = ANY($1)") { Parameters = { Array(keys, NpgsqlDbType.Text) } },
                new(streams is null ? SelectHeads : SelectHeadsAndDraw) { Parameters = { Array(orderIds, NpgsqlDbType.Text) } },
                new($"""
                    SELECT waiting.* FROM unnest($1) AS wanted (order_id), LATERAL (
                        SELECT key, order_id, type, body, properties, fingerprint, correlation_id, traceparent, received_at, expires_at
                        FROM deferred WHERE deferred.order_id = wanted.order_id ORDER BY {DeferredCommand.InTurn} LIMIT {DeferredCommand.MostAtOnce + 1}) AS waiting
                    WHERE EXISTS (SELECT 1 FROM deferred)
                    """) { Parameters = { Array(orderIds, NpgsqlDbType.Text) } },
                new("""
                    SELECT id, key, fingerprint, status, twins, reason = 'key_conflict' FROM dead_letters
                    WHERE EXISTS (SELECT 1 FROM dead_letters WHERE status IN ('parked', 'replayed')) AND key = ANY($1) AND status IN ('parked', 'replayed')
                    UNION ALL
                    SELECT id, replay_key, fingerprint, status, twins, reason = 'key_conflict' FROM dead_letters
                    WHERE EXISTS (SELECT 1 FROM dead_letters WHERE replay_key IS NOT NULL) AND replay_key = ANY($1) AND status IN ('parked', 'replayed')
                    """) { Parameters = { Array(keys, NpgsqlDbType.Text) } },
                // The inbox was read before: a row that left it meanwhile has its tombstone by now.
                new("SELECT EXISTS (SELECT 1 FROM dead_letters WHERE keyless = 1 AND status IN ('parked', 'replayed')), EXISTS (SELECT 1 FROM tombstones)"),
            },
        };
        if (paidOrderIds.Length > 0)
        {
            batch.BatchCommands.Add(new($"""
                SELECT events.order_id, events.type, events.data FROM orders JOIN events ON events.stream = orders.seq
                WHERE orders.order_id = ANY($1) AND events.type IN ({HeadRow.PaymentTypes}) ORDER BY events.stream, events.version
                """) { Parameters = { Array(paidOrderIds, NpgsqlDbType.Text) } });
        }
        bool anyKeyless, anyGone;
        var whole = new HashSet<string>(query.WholeOrderIds, StringComparer.Ordinal);
        await using (var reader = await batch.ExecuteReaderAsync(cancellationToken))
        {
            (anyKeyless, anyGone) = await ReadAsync(reader, orderIds, paidOrderIds, whole, state, streams, cancellationToken);
        }
        if (whole.Count > 0)
        {
            await ReadStreamsAsync(connection, [.. whole.Where(state.Heads.ContainsKey)], state, cancellationToken);
        }
        if (anyKeyless && query.Fingerprints.Count > 0)
        {
            await ReadKeylessLettersAsync(connection, query.Fingerprints, state, cancellationToken);
        }
        if (anyGone)
        {
            await TombstonesTable.CompleteAsync(new StoreConnection(connection, database.Keys, isSqlite: false), keys, orderIds, state);
        }
        return state;
    }

    /// <returns>Whether there are open letters that are found by their content, and whether orders were taken out.</returns>
    private async Task<(bool AnyKeyless, bool AnyGone)> ReadAsync(
        NpgsqlDataReader reader, string[] orderIds, string[] paidOrderIds, HashSet<string> whole, BatchState state, Dictionary<string, long>? streams,
        CancellationToken cancellationToken)
    {
        await reader.NextResultAsync(cancellationToken);
        while (await reader.ReadAsync(cancellationToken))
        {
            state.Inbox[reader.GetString(0)] = new InboxEntry(reader.GetFieldValue<byte[]>(1), (InboxOutcome)reader.GetInt64(2), TextOrNull(reader, 3));
        }
        await reader.NextResultAsync(cancellationToken);
        while (await reader.ReadAsync(cancellationToken))
        {
            var orderId = orderIds[reader.GetInt64(0) - 1];
            if (streams is not null)
            {
                streams[orderId] = reader.GetInt64(1);
            }
            if (!reader.IsDBNull(2))
            {
                state.Heads[orderId] = HeadRow.Read(orderId, reader.GetInt64(2), (OrderStatus)reader.GetInt64(3), reader.GetString(4), reader.GetFieldValue<byte[]>(5), reader.GetInt64(6), (PaymentStatus)reader.GetInt64(7));
                if (reader.GetInt64(8) != 0)
                {
                    whole.Add(orderId);
                }
            }
        }
        await reader.NextResultAsync(cancellationToken);
        while (await reader.ReadAsync(cancellationToken))
        {
            var deferred = new DeferredCommand(
                reader.GetString(0), reader.GetString(1), reader.GetString(2), database.Keys.OpenOrNone(reader.GetFieldValue<byte[]>(3)), reader.GetString(4), reader.GetFieldValue<byte[]>(5),
                reader.GetString(6), TextOrNull(reader, 7), reader.GetInt64(8), reader.GetInt64(9));
            var waiting = ListOf(state.Deferred, deferred.OrderId);
            if (waiting.Count == DeferredCommand.MostAtOnce)
            {
                state.Backlog.Add(deferred.OrderId);
                continue;
            }
            waiting.Add(deferred);
        }
        await reader.NextResultAsync(cancellationToken);
        while (await reader.ReadAsync(cancellationToken))
        {
            ListOf(state.Letters, reader.GetString(1)).Add(OpenLetterOf(reader));
        }
        await reader.NextResultAsync(cancellationToken);
        await reader.ReadAsync(cancellationToken);
        var (anyKeyless, anyGone) = (reader.GetBoolean(0), reader.GetBoolean(1));
        if (paidOrderIds.Length > 0)
        {
            await ReadPaymentsAsync(reader, paidOrderIds, state, cancellationToken);
        }
        return (anyKeyless, anyGone);
    }

    /// <summary>A second look, only while there is such a letter: the fingerprints of a whole batch are much to send for nothing.</summary>
    private static async Task ReadKeylessLettersAsync(
        NpgsqlConnection connection, IReadOnlyList<byte[]> fingerprints, BatchState state, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(
            """
            SELECT l.id, k.fingerprint, k.fingerprint, l.status, l.twins, l.reason = 'key_conflict'
            FROM keyless_letters k JOIN dead_letters l ON l.id = k.letter_id
            WHERE k.fingerprint = ANY($1) AND l.status IN ('parked', 'replayed')
            """,
            connection)
        {
            Parameters = { Array([.. fingerprints], NpgsqlDbType.Bytea) },
        };
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        while (await reader.ReadAsync(cancellationToken))
        {
            ListOf(state.KeylessLetters, Convert.ToHexString(reader.GetFieldValue<byte[]>(1))).Add(OpenLetterOf(reader));
        }
    }

    private static OpenLetter OpenLetterOf(NpgsqlDataReader row) => new(
        row.GetInt64(0), row.GetFieldValue<byte[]>(2), row.GetString(3) == "replayed", row.IsDBNull(4) ? null : row.GetFieldValue<byte[]>(4),
        row.GetBoolean(5));

    /// <summary>The streams of orders whose heads were read: a round trip of its own, which no plain order needs.</summary>
    private static async Task ReadStreamsAsync(NpgsqlConnection connection, string[] orderIds, BatchState state, CancellationToken cancellationToken)
    {
        var streams = new Dictionary<string, List<(string, byte[])>>(StringComparer.Ordinal);
        await using var command = new NpgsqlCommand(
            """
            SELECT events.order_id, events.type, events.data FROM orders JOIN events ON events.stream = orders.seq
            WHERE orders.order_id = ANY($1) ORDER BY events.stream, events.version
            """,
            connection);
        command.Parameters.Add(Array(orderIds, NpgsqlDbType.Text));
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        while (await reader.ReadAsync(cancellationToken))
        {
            ListOf(streams, reader.GetString(0)).Add((reader.GetString(1), reader.GetFieldValue<byte[]>(2)));
        }
        foreach (var orderId in orderIds)
        {
            // Its head was there a moment ago; the next look tells what became of it.
            state.Heads[orderId] = streams.TryGetValue(orderId, out var events)
                ? HeadRow.Whole(state.Heads[orderId], events)
                : throw new StoreUnavailableException($"Order {orderId} left the store while it was read.");
        }
    }

    private static async Task ReadPaymentsAsync(NpgsqlDataReader reader, string[] paidOrderIds, BatchState state, CancellationToken cancellationToken)
    {
        var payments = new Dictionary<string, List<(string Type, byte[] Data)>>(StringComparer.Ordinal);
        await reader.NextResultAsync(cancellationToken);
        while (await reader.ReadAsync(cancellationToken))
        {
            ListOf(payments, reader.GetString(0)).Add((reader.GetString(1), reader.GetFieldValue<byte[]>(2)));
        }
        foreach (var orderId in paidOrderIds)
        {
            // A payment that was committed after the head was read makes the append a conflict, which is decided again.
            if (state.Heads.TryGetValue(orderId, out var head))
            {
                state.Heads[orderId] = HeadRow.WithPayments(head, payments.GetValueOrDefault(orderId) ?? []);
            }
        }
    }

    /// <summary>The connection was lost before the answer came. A new connection tells, once the old session is gone and can't commit any more.</summary>
    /// <exception cref="StoreUnavailableException">It can't be found out now. The caller decides again later, and then finds the rows or does not.</exception>
    private async Task<bool> WasCommittedAsync(Append append, int processId, Exception cause, CancellationToken cancellationToken)
    {
        if (append.Inbox.Count == 0)
        {
            // No event, no answer to a message: notes that may be written once more.
            return false;
        }
        var since = clock.GetTimestamp();
        while (true)
        {
            try
            {
                await using var connection = await OpenAsync(cancellationToken);
                if (await SessionIsGoneAsync(connection, processId, cancellationToken))
                {
                    return await LookUpAsync(connection, append, cancellationToken);
                }
            }
            catch (Exception exception) when (database.Translate(exception) is not null || exception is StoreUnavailableException)
            {
                // Still out of reach.
            }
            if (clock.GetElapsedTime(since) > OutcomePatience)
            {
                throw new StoreUnavailableException("PostgreSQL was lost during a commit; whether it took effect is looked up when it is back.", cause);
            }
            await Task.Delay(TimeSpan.FromMilliseconds(50 + (Random.Shared.NextDouble() * 100)), clock, cancellationToken);
        }
    }

    private async Task<bool> SessionIsGoneAsync(NpgsqlConnection connection, int processId, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand("SELECT NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND application_name = $2 AND pid <> pg_backend_pid())", connection)
        {
            Parameters = { new NpgsqlParameter<int> { TypedValue = processId }, new NpgsqlParameter<string> { TypedValue = database.ApplicationName } },
        };
        return await command.ExecuteScalarAsync(cancellationToken) is true;
    }

    /// <summary>Every row of the batch's inbox stands as the batch wrote it: then all of the batch stands.</summary>
    private static async Task<bool> LookUpAsync(NpgsqlConnection connection, Append append, CancellationToken cancellationToken)
    {
        await using var batch = new NpgsqlBatch(connection)
        {
            BatchCommands =
            {
                new("""
                    SELECT count(*) FROM inbox JOIN unnest($1, $2, $3, $4) AS mine (key, fingerprint, outcome, decided_at)
                    ON inbox.key = mine.key AND inbox.fingerprint = mine.fingerprint AND inbox.outcome = mine.outcome AND inbox.decided_at = mine.decided_at
                    """)
                {
                    Parameters =
                    {
                        Array([.. append.Inbox.Select(row => row.Key)], NpgsqlDbType.Text), Array([.. append.Inbox.Select(row => row.Fingerprint)], NpgsqlDbType.Bytea),
                        Array([.. append.Inbox.Select(row => (long)row.Outcome)], NpgsqlDbType.Bigint), Array([.. append.Inbox.Select(row => row.DecidedAt)], NpgsqlDbType.Bigint),
                    },
                },
                new("""
                    SELECT mine.place, events.position
                    FROM unnest($1, $2, $3) WITH ORDINALITY AS mine (order_id, version, hash, place)
                    JOIN orders ON orders.order_id = mine.order_id
                    JOIN events ON events.stream = orders.seq AND events.version = mine.version AND events.hash = mine.hash
                    """)
                {
                    Parameters =
                    {
                        Array([.. append.Events.Select(recorded => recorded.OrderId)], NpgsqlDbType.Text), Array([.. append.Events.Select(recorded => recorded.Version)], NpgsqlDbType.Bigint),
                        Array([.. append.Events.Select(recorded => recorded.Hash)], NpgsqlDbType.Bytea),
                    },
                },
            },
        };
        await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
        await reader.ReadAsync(cancellationToken);
        if (reader.GetInt64(0) != append.Inbox.Count)
        {
            return false;
        }
        await reader.NextResultAsync(cancellationToken);
        while (await reader.ReadAsync(cancellationToken))
        {
            append.Events[(int)reader.GetInt64(0) - 1].Position = reader.GetInt64(1);
        }
        // Their ids are not known; the relay finds the rows in the table.
        append.Outbox.Clear();
        return true;
    }

    private static List<T> ListOf<T>(Dictionary<string, List<T>> lists, string key)
    {
        ref var list = ref CollectionsMarshal.GetValueRefOrAddDefault(lists, key, out _);
        return list ??= [];
    }

    private static string? TextOrNull(NpgsqlDataReader reader, int column) => reader.IsDBNull(column) ? null : reader.GetString(column);

    private static NpgsqlParameter<T[]> Array<T>(T[] values, NpgsqlDbType type) => new() { TypedValue = values, NpgsqlDbType = NpgsqlDbType.Array | type };

    [LoggerMessage(LogLevel.Debug, "Another instance came first (attempt {Attempt}); the batch is decided again: {Reason}")]
    private partial void LogConflict(int attempt, string? reason);

    [LoggerMessage(LogLevel.Warning, "The outcome of a commit is unknown and is looked up: {Reason}")]
    private partial void LogUnknown(string reason);
}

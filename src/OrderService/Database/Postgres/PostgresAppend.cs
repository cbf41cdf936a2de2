using Npgsql;
using NpgsqlTypes;
using OrderService.Store;

namespace OrderService.Database;

/// <summary>
/// The one round trip that writes an append: a batch that is one implicit transaction, which the server commits at its end or not at all.
/// Every table gets its rows in one statement.
/// </summary>
/// <param name="streams">The number of each order's stream.</param>
/// <param name="rejectedKeys">The keys that stood in the inbox as rejected when the batch was decided.</param>
internal sealed class PostgresAppend(Append append, Dictionary<string, long> streams, HashSet<string> rejectedKeys, PersonalKeys keys)
{
    // Any number serves; it has to be the same in every version.
    private const long LogLock = 0x4f72_6465_7253_0002;

    private enum Answer
    {
        Nothing,
        OutboxIds,
        Positions,
    }

    private readonly List<Answer> answers = [];

    public async Task ExecuteAsync(NpgsqlConnection connection)
    {
        await using var batch = new NpgsqlBatch(connection);
        AddDeferredDecided(batch);
        AddInbox(batch);
        AddHeads(batch);
        AddOutbox(batch);
        AddRareRows(batch);
        AddEvents(batch);
        AddGuards(batch);

        // Without a token: the last byte sent is the COMMIT, and a COMMIT is not cancelled.
        await using var reader = await batch.ExecuteReaderAsync(CancellationToken.None);
        Failpoint.Hit("store-written");
        foreach (var answer in answers)
        {
            switch (answer)
            {
                case Answer.OutboxIds:
                    foreach (var row in append.Outbox)
                    {
                        await reader.ReadAsync(CancellationToken.None);
                        row.Id = reader.GetInt64(0);
                    }
                    break;
                case Answer.Positions:
                    foreach (var recorded in append.Events)
                    {
                        await reader.ReadAsync(CancellationToken.None);
                        recorded.Position = reader.GetInt64(0);
                    }
                    break;
            }
            await reader.NextResultAsync(CancellationToken.None);
        }
    }

    /// <summary>First, as where overdue commands are given up: whoever deletes the row decides the command.</summary>
    private void AddDeferredDecided(NpgsqlBatch batch)
    {
        if (append.DeferredDecided.Count > 0)
        {
            Add(batch,
                """
                WITH decided AS (DELETE FROM deferred WHERE key = ANY($1) RETURNING 1)
                SELECT append_conflict('A waiting command was decided or expired elsewhere.') WHERE (SELECT count(*) FROM decided) <> cardinality($1)
                """,
                Answer.Nothing, Texts(append.DeferredDecided.Order(StringComparer.Ordinal).ToArray(), key => key));
        }
    }

    private void AddInbox(NpgsqlBatch batch)
    {
        var rows = append.Inbox.ToArray();
        Array.Sort(rows, (left, right) => string.CompareOrdinal(left.Key, right.Key));
        // A plain insert: a key that another instance took meanwhile ends the batch.
        AddInbox(batch, Array.FindAll(rows, row => !row.Replaces),
            "INSERT INTO inbox (key, fingerprint, outcome, reason, order_id, decided_at) SELECT * FROM unnest($1, $2, $3, $4, $5, $6)");
        // What is rewritten has to stand as it was read: deferred, or rejected when its letter was replayed.
        AddReplaced(batch, Array.FindAll(rows, row => row.Replaces && !rejectedKeys.Contains(row.Key)), InboxOutcome.Deferred);
        AddReplaced(batch, Array.FindAll(rows, row => row.Replaces && rejectedKeys.Contains(row.Key)), InboxOutcome.Rejected);
        if (append.Copies.Count > 0)
        {
            var copies = append.Copies.OrderBy(copy => copy.Key, StringComparer.Ordinal).ToArray();
            Add(batch,
                "UPDATE inbox SET copies = inbox.copies + more.copies, last_copy_at = more.at FROM unnest($1, $2, $3) AS more (key, copies, at) WHERE inbox.key = more.key",
                null,
                Texts(copies, copy => copy.Key), Numbers(copies, copy => copy.Value), Numbers(copies, _ => append.CopiesAt));
        }
    }

    private void AddReplaced(NpgsqlBatch batch, InboxRow[] rows, InboxOutcome expected)
    {
        AddInbox(batch, rows,
            $"""
            WITH written AS (
                INSERT INTO inbox (key, fingerprint, outcome, reason, order_id, decided_at) SELECT * FROM unnest($1, $2, $3, $4, $5, $6)
                ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, outcome = excluded.outcome, reason = excluded.reason,
                    order_id = excluded.order_id, decided_at = excluded.decided_at
                WHERE inbox.outcome = {(int)expected}
                RETURNING 1)
            SELECT append_conflict('A waiting or rejected message was decided elsewhere.') WHERE (SELECT count(*) FROM written) <> cardinality($1)
            """,
            Answer.Nothing);
    }

    private void AddInbox(NpgsqlBatch batch, InboxRow[] rows, string sql, Answer? answer = null)
    {
        if (rows.Length == 0)
        {
            return;
        }
        Add(batch, sql, answer,
            Texts(rows, row => row.Key), Bytes(rows, row => row.Fingerprint), Numbers(rows, row => (long)row.Outcome),
            Texts(rows, row => row.Reason), Texts(rows, row => row.OrderId), Numbers(rows, row => row.DecidedAt));
    }

    private void AddHeads(NpgsqlBatch batch)
    {
        var heads = append.Heads.ToArray();
        Array.Sort(heads, (left, right) => string.CompareOrdinal(left.OrderId, right.OrderId));
        var added = Array.FindAll(heads, head => head.ExpectedVersion == 0);
        if (added.Length > 0)
        {
            Add(batch,
                """
                INSERT INTO orders (seq, order_id, version, status, customer_id, currency, total_minor, line_count, placed_at, updated_at, last_hash, payment_status, fulfillment_status, needs_stream)
                SELECT seq, order_id, version, status, customer_id, currency, total_minor, line_count, at, at, last_hash, payment, fulfillment, needs_stream
                FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
                    AS head (seq, order_id, version, status, customer_id, currency, total_minor, line_count, at, last_hash, payment, fulfillment, needs_stream)
                """,
                null,
                Numbers(added, head => streams[head.OrderId]), Texts(added, head => head.OrderId), Numbers(added, head => head.Version), Numbers(added, head => (long)head.Status), Texts(added, head => head.CustomerId),
                Texts(added, head => head.Currency), Numbers(added, head => head.TotalMinor), Numbers(added, head => head.LineCount ?? 0), Numbers(added, head => head.At),
                Bytes(added, head => head.LastHash), Numbers(added, head => (long)head.Payment), Numbers(added, head => (long)head.Fulfillment), Numbers(added, head => head.NeedsStream ? 1 : 0));
        }
        var moved = Array.FindAll(heads, head => head.ExpectedVersion != 0);
        if (moved.Length > 0)
        {
            Add(batch,
                """
                WITH written AS (
                    UPDATE orders SET version = head.version, status = head.status, updated_at = head.at, last_hash = head.last_hash,
                        payment_status = head.payment, fulfillment_status = head.fulfillment, needs_stream = head.needs_stream,
                        total_minor = head.total_minor, line_count = CASE WHEN head.line_count < 0 THEN orders.line_count ELSE head.line_count END
                    FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
                        AS head (order_id, expected, version, status, at, last_hash, payment, fulfillment, needs_stream, total_minor, line_count)
                    WHERE orders.order_id = head.order_id AND orders.version = head.expected
                    RETURNING 1)
                SELECT append_conflict('An order is at another version.') WHERE (SELECT count(*) FROM written) <> cardinality($1)
                """,
                Answer.Nothing,
                Texts(moved, head => head.OrderId), Numbers(moved, head => head.ExpectedVersion), Numbers(moved, head => head.Version), Numbers(moved, head => (long)head.Status),
                Numbers(moved, head => head.At), Bytes(moved, head => head.LastHash), Numbers(moved, head => (long)head.Payment), Numbers(moved, head => (long)head.Fulfillment),
                Numbers(moved, head => head.NeedsStream ? 1 : 0), Numbers(moved, head => head.TotalMinor), Numbers(moved, head => head.LineCount ?? -1));
        }
    }

    private void AddOutbox(NpgsqlBatch batch)
    {
        if (append.Outbox.Count == 0)
        {
            return;
        }
        var rows = append.Outbox.ToArray();
        Add(batch,
            """
            INSERT INTO outbox (shard, kind, order_id, version, message, body, created_at)
            SELECT shard, kind, order_id, version, message, body, created_at
            FROM unnest($1, $2, $3, $4, $5, $6, $7) WITH ORDINALITY AS line (shard, kind, order_id, version, message, body, created_at, place)
            ORDER BY place RETURNING id
            """,
            Answer.OutboxIds,
            Numbers(rows, row => Shard.Of(row.OrderId)), Numbers(rows, row => (long)row.Kind), Texts(rows, row => row.OrderId), Numbers(rows, row => row.Version),
            Texts(rows, row => row.Message), Bytes(rows, row => row.Body), Numbers(rows, row => row.CreatedAt));
    }

    private void AddRareRows(NpgsqlBatch batch)
    {
        if (append.History.Count > 0)
        {
            var rows = append.History.ToArray();
            Add(batch, "INSERT INTO history (order_id, key, at, kind, detail) SELECT * FROM unnest($1, $2, $3, $4, $5)", null,
                Texts(rows, row => row.OrderId), Texts(rows, row => row.Key), Numbers(rows, row => row.At), Texts(rows, row => row.Kind), Texts(rows, row => row.Detail));
        }
        if (append.Deferred.Count > 0)
        {
            var rows = append.Deferred.OrderBy(row => row.Key, StringComparer.Ordinal).ToArray();
            Add(batch,
                """
                INSERT INTO deferred (key, order_id, type, body, properties, fingerprint, correlation_id, traceparent, received_at, expires_at)
                SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
                """,
                null,
                Texts(rows, row => row.Key), Texts(rows, row => row.OrderId), Texts(rows, row => row.Type), Bytes(rows, row => keys.Seal(row.Body, null)), Texts(rows, row => row.Properties),
                Bytes(rows, row => row.Fingerprint), Texts(rows, row => row.CorrelationId), Texts(rows, row => row.TraceContext), Numbers(rows, row => row.ReceivedAt),
                Numbers(rows, row => row.ExpiresAt));
        }
        if (append.Rejections.Count > 0)
        {
            var rows = append.Rejections.OrderBy(row => row.Key, StringComparer.Ordinal).ThenBy(row => Convert.ToHexString(row.Fingerprint), StringComparer.Ordinal).ToArray();
            Add(batch,
                """
                INSERT INTO rejections (key, fingerprint, reason, detail, field, exception, order_id, body, properties, rejected_at)
                SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
                ON CONFLICT (key, fingerprint) DO UPDATE SET
                    reason = excluded.reason, detail = excluded.detail, field = excluded.field, exception = excluded.exception,
                    body = excluded.body, properties = excluded.properties, rejected_at = excluded.rejected_at, parked = 0
                """,
                null,
                Texts(rows, row => row.Key), Bytes(rows, row => row.Fingerprint), Texts(rows, row => row.Reason), Texts(rows, row => row.Detail), Texts(rows, row => row.Field),
                Texts(rows, row => row.Exception), Texts(rows, row => row.OrderId), Bytes(rows, row => keys.SealOrNull(row.Body, null)), Texts(rows, row => row.Properties), Numbers(rows, row => row.At));
        }
        if (append.RefusedPayments.Count > 0)
        {
            var rows = append.RefusedPayments.ToArray();
            Add(batch,
                "INSERT INTO refused_payments (order_id, key, payment_reference, amount, code, reason, refused_at) SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7)",
                null,
                Texts(rows, row => row.OrderId), Texts(rows, row => row.Key), Texts(rows, row => row.PaymentReference), Texts(rows, row => row.Amount),
                Texts(rows, row => row.Code), Texts(rows, row => row.Reason), Numbers(rows, row => row.At));
        }
        if (append.Letters.Count > 0)
        {
            var changes = append.Letters.OrderBy(change => change.LetterId).ToArray();
            Add(batch,
                """
                UPDATE dead_letters SET status = change.status, settled_at = change.at, settled_by = 'order flow', settle_reason = change.detail
                FROM unnest($1, $2, $3, $4) AS change (id, status, at, detail)
                WHERE dead_letters.id = change.id AND dead_letters.status IN ('parked', 'replayed')
                """,
                null,
                Numbers(changes, change => change.LetterId), Texts(changes, change => change.Resolved ? "resolved" : "superseded"), Numbers(changes, change => change.At),
                Texts(changes, change => change.Detail));
            Add(batch,
                """
                UPDATE replays SET outcome = 'resolved', detail = change.detail, finished_at = change.at
                FROM unnest($1, $2, $3) AS change (id, at, detail)
                WHERE replays.letter_id = change.id AND replays.outcome IS NULL
                """,
                null,
                Numbers(changes, change => change.LetterId), Numbers(changes, change => change.At), Texts(changes, change => change.Detail));
        }
        if (append.Letters.Count > 0)
        {
            // Of those that were settled meanwhile too: they are sealed once more as they are.
            var marks = append.Letters.Select(change => new SealMark(SealSubject.Letters.Table, SealMarkKind.Changed, change.LetterId)).Select(mark => (mark, Signed: mark.Sign(keys.Seals))).ToArray();
            Add(batch, "INSERT INTO seal_marks (subject, row_id, kind, nonce, mark) SELECT * FROM unnest($1, $2, $3, $4, $5)", null,
                Texts(marks, row => row.mark.Subject), Numbers(marks, row => row.mark.Row), Numbers(marks, row => (long)row.mark.Kind), Bytes(marks, row => row.Signed.Nonce),
                Bytes(marks, row => row.Signed.Mark));
        }
        if (append.AttributesReplaced.Count > 0)
        {
            Add(batch, "DELETE FROM order_attributes WHERE seq = ANY($1)", null, Numbers(append.AttributesReplaced.ToArray(), orderId => streams[orderId]));
        }
        if (append.Attributes.Count > 0)
        {
            var rows = append.Attributes.ToArray();
            Add(batch, "INSERT INTO order_attributes (name, value, seq) SELECT * FROM unnest($1, $2, $3) ON CONFLICT DO NOTHING", null,
                Texts(rows, row => row.Name), Texts(rows, row => row.Value), Numbers(rows, row => streams[row.OrderId]));
        }
        if (append.StartedDone.Count > 0)
        {
            Add(batch, "DELETE FROM started WHERE fingerprint = ANY($1)", null, Bytes(append.StartedDone.ToArray(), hash => hash));
        }
    }

    private void AddEvents(NpgsqlBatch batch)
    {
        if (append.Events.Count == 0)
        {
            return;
        }
        var rows = append.Events.ToArray();
        // The whole statement has arrived before the lock is taken, and what follows is short: a client that freezes while it sends holds nothing.
        Add(batch,
            $"""
            WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock({LogLock}))
            INSERT INTO events (stream, order_id, version, type, data, correlation_id, causation_id, traceparent, recorded_at, hash, mark)
            SELECT stream, order_id, version, type, data, correlation_id, causation_id, traceparent, recorded_at, hash, mark
            FROM turn, unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
                WITH ORDINALITY AS recorded (stream, order_id, version, type, data, correlation_id, causation_id, traceparent, recorded_at, hash, mark, place)
            ORDER BY place RETURNING position
            """,
            Answer.Positions,
            Numbers(rows, row => streams[row.OrderId]), Texts(rows, row => row.OrderId), Numbers(rows, row => row.Version), Texts(rows, row => row.Type), Memories(rows), Texts(rows, row => row.CorrelationId),
            Texts(rows, row => row.CausationId), Texts(rows, row => row.TraceContext), Numbers(rows, row => row.RecordedAt), Bytes(rows, row => row.Hash), Bytes(rows, row => keys.Seals.MarkEvent(row.Hash)));
    }

    /// <summary>
    /// An order and a command that waits for it may be written at the same moment, each without seeing the other. Under the lock, which both
    /// take, the second one looks again (each statement sees what was committed before it began) and is decided again.
    /// </summary>
    private void AddGuards(NpgsqlBatch batch)
    {
        // Those that stand behind others of an order that exists are decided with them.
        var early = append.Deferred.FindAll(row => row.ExpiresAt != DeferredCommand.Never && !append.Backlog.Contains(row.OrderId)).ToArray();
        if (early.Length > 0)
        {
            if (append.Events.Count == 0)
            {
                Add(batch, $"SELECT pg_advisory_xact_lock({LogLock})", Answer.Nothing);
            }
            Add(batch,
                "SELECT append_conflict('An order appeared while a command was to wait for it.') WHERE EXISTS (SELECT 1 FROM orders WHERE order_id = ANY($1))",
                Answer.Nothing, Texts(early, row => row.OrderId));
        }
        // Where not all that wait were read, one more is decided with the rest of them.
        var placed = append.Heads.FindAll(head => head.ExpectedVersion == 0 && !append.Backlog.Contains(head.OrderId)).ToArray();
        if (placed.Length > 0)
        {
            Add(batch,
                """
                SELECT append_conflict('A command began to wait for an order while it was placed.')
                WHERE EXISTS (SELECT 1 FROM deferred) AND EXISTS (SELECT 1 FROM deferred WHERE order_id = ANY($1))
                """,
                Answer.Nothing, Texts(placed, head => head.OrderId));
        }
    }

    private void Add(NpgsqlBatch batch, string sql, Answer? answer, params ReadOnlySpan<NpgsqlParameter> parameters)
    {
        var command = new NpgsqlBatchCommand(sql);
        foreach (var parameter in parameters)
        {
            command.Parameters.Add(parameter);
        }
        batch.BatchCommands.Add(command);
        if (answer is { } expected)
        {
            answers.Add(expected);
        }
    }

    private static NpgsqlParameter<string?[]> Texts<T>(T[] rows, Func<T, string?> value) => ArrayOf(rows, value, NpgsqlDbType.Text);

    private static NpgsqlParameter<long[]> Numbers<T>(T[] rows, Func<T, long> value) => ArrayOf(rows, value, NpgsqlDbType.Bigint);

    private static NpgsqlParameter<byte[]?[]> Bytes<T>(T[] rows, Func<T, byte[]?> value) => ArrayOf(rows, value, NpgsqlDbType.Bytea);

    private static NpgsqlParameter<ReadOnlyMemory<byte>[]> Memories(RecordedEvent[] rows) => ArrayOf(rows, row => row.Data, NpgsqlDbType.Bytea);

    private static NpgsqlParameter<TValue[]> ArrayOf<T, TValue>(T[] rows, Func<T, TValue> value, NpgsqlDbType type) =>
        new() { TypedValue = Array.ConvertAll(rows, row => value(row)), NpgsqlDbType = NpgsqlDbType.Array | type };
}

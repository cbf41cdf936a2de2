using Microsoft.Data.Sqlite;
using OrderService.Store;

namespace OrderService.Database;

/// <summary>Writes an append on the writer's connection. Its statements are prepared once: most of them run for every order.</summary>
internal sealed class SqliteAppend : IDisposable
{
    private readonly SqliteConnection connection;
    private readonly long firstPosition;
    private readonly List<SqliteStatement> all = [];
    private readonly SqliteStatement insertInbox;
    private readonly SqliteStatement replaceInbox;
    private readonly SqliteStatement countCopies;
    private readonly SqliteStatement insertEvent;
    private readonly SqliteStatement moveEvent;
    private readonly SqliteStatement insertHead;
    private readonly SqliteStatement updateHead;
    private readonly SqliteStatement insertOutbox;
    private readonly SqliteStatement insertHistory;
    private readonly SqliteStatement deleteDeferred;
    private readonly SqliteStatement deleteStarted;

    public SqliteAppend(SqliteConnection connection, long epoch)
    {
        this.connection = connection;
        firstPosition = StoreEpoch.FirstPosition(epoch);
        insertInbox = new(connection, all, "INSERT INTO inbox (key, fingerprint, outcome, reason, order_id, decided_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)");
        replaceInbox = new(connection, all, """
            INSERT INTO inbox (key, fingerprint, outcome, reason, order_id, decided_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
            ON CONFLICT (key) DO UPDATE
            SET fingerprint = excluded.fingerprint, outcome = excluded.outcome, reason = excluded.reason, order_id = excluded.order_id,
                decided_at = excluded.decided_at
            """);
        countCopies = new(connection, all, "UPDATE inbox SET copies = copies + ?1, last_copy_at = ?2 WHERE key = ?3");
        insertEvent = new(connection, all, """
            INSERT INTO events (stream, order_id, version, type, data, correlation_id, causation_id, traceparent, recorded_at, hash, mark)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
            """);
        moveEvent = new(connection, all, "UPDATE events SET position = ?1 WHERE position = ?2");
        insertHead = new(connection, all, """
            INSERT INTO orders (order_id, version, status, customer_id, currency, total_minor, line_count, placed_at, updated_at, last_hash, payment_status, fulfillment_status, needs_stream)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
            """);
        updateHead = new(
            connection, all, """
            UPDATE orders SET version = ?1, status = ?2, updated_at = ?3, last_hash = ?4, payment_status = ?7, fulfillment_status = ?8, needs_stream = ?9,
                total_minor = ?10, line_count = coalesce(?11, line_count)
            WHERE order_id = ?5 AND version = ?6 RETURNING seq
            """);
        insertOutbox = new(
            connection, all, "INSERT INTO outbox (shard, kind, order_id, version, message, body, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)");
        insertHistory = new(connection, all, "INSERT INTO history (order_id, key, at, kind, detail) VALUES (?1, ?2, ?3, ?4, ?5)");
        deleteDeferred = new(connection, all, "DELETE FROM deferred WHERE key = ?1");
        deleteStarted = new(connection, all, "DELETE FROM started WHERE fingerprint = ?1");
    }

    private long LastRowId => SQLitePCL.raw.sqlite3_last_insert_rowid(connection.Handle!);

    public void Write(Append append, StoreTransaction transaction)
    {
        WriteInbox(append);
        var streams = WriteHeads(append);
        WriteEvents(append, streams, transaction.Keys.Seals);
        WriteOutbox(append);
        WriteRest(append);
        if (append.Deferred.Count + append.Rejections.Count + append.Letters.Count + append.RefusedPayments.Count + append.Attributes.Count + append.AttributesReplaced.Count > 0)
        {
            // Rare rows go the plain way; on SQLite these calls complete at once.
            WriteRareRowsAsync(append, streams, transaction).GetAwaiter().GetResult();
        }
    }

    /// <summary>A connection with an open statement is not closed, whatever it is told.</summary>
    public void Dispose() => all.ForEach(statement => statement.Dispose());

    private void WriteInbox(Append append)
    {
        foreach (var row in append.Inbox)
        {
            (row.Replaces ? replaceInbox : insertInbox)
                .Bind(1, row.Key).Bind(2, row.Fingerprint).Bind(3, (long)row.Outcome).Bind(4, row.Reason).Bind(5, row.OrderId).Bind(6, row.DecidedAt)
                .Execute();
        }
    }

    /// <returns>The number of each stream, by order id.</returns>
    private Dictionary<string, long> WriteHeads(Append append)
    {
        var streams = new Dictionary<string, long>(append.Heads.Count, StringComparer.Ordinal);
        foreach (var head in append.Heads)
        {
            if (head.ExpectedVersion == 0)
            {
                insertHead
                    .Bind(1, head.OrderId).Bind(2, head.Version).Bind(3, (long)head.Status).Bind(4, head.CustomerId).Bind(5, head.Currency)
                    .Bind(6, head.TotalMinor).Bind(7, head.LineCount ?? 0).Bind(8, head.At).Bind(9, head.At).Bind(10, head.LastHash)
                    .Bind(11, (long)head.Payment).Bind(12, (long)head.Fulfillment).Bind(13, head.NeedsStream ? 1 : 0)
                    .Execute();
                streams[head.OrderId] = LastRowId;
                continue;
            }
            var moved = updateHead
                .Bind(1, head.Version).Bind(2, (long)head.Status).Bind(3, head.At).Bind(4, head.LastHash).Bind(5, head.OrderId).Bind(6, head.ExpectedVersion)
                .Bind(7, (long)head.Payment).Bind(8, (long)head.Fulfillment).Bind(9, head.NeedsStream ? 1 : 0).Bind(10, head.TotalMinor);
            if (head.LineCount is { } lines)
            {
                moved.Bind(11, lines);
            }
            else
            {
                moved.BindNull(11);
            }
            if (!moved.Step())
            {
                throw new StoreConflictException($"Order {head.OrderId} is not at version {head.ExpectedVersion}.");
            }
            streams[head.OrderId] = moved.Int64(0);
            moved.Reset();
        }
        return streams;
    }

    private void WriteEvents(Append append, Dictionary<string, long> streams, SealKeys seals)
    {
        foreach (var recorded in append.Events)
        {
            insertEvent
                .Bind(1, streams[recorded.OrderId]).Bind(2, recorded.OrderId).Bind(3, recorded.Version).Bind(4, recorded.Type).Bind(5, recorded.Data.Span)
                .Bind(6, recorded.CorrelationId).Bind(7, recorded.CausationId).Bind(8, recorded.TraceContext)
                .Bind(9, recorded.RecordedAt).Bind(10, recorded.Hash).Bind(11, seals.MarkEvent(recorded.Hash))
                .Execute();
            recorded.Position = LastRowId;
            if (recorded.Position < firstPosition)
            {
                // The first of its epoch; SQLite counts on from there.
                moveEvent.Bind(1, firstPosition).Bind(2, recorded.Position).Execute();
                recorded.Position = firstPosition;
            }
        }
    }

    private void WriteOutbox(Append append)
    {
        foreach (var row in append.Outbox)
        {
            insertOutbox
                .Bind(1, Shard.Of(row.OrderId)).Bind(2, (long)row.Kind).Bind(3, row.OrderId).Bind(4, row.Version).Bind(5, row.Message);
            if (row.Body is null)
            {
                insertOutbox.BindNull(6);
            }
            else
            {
                insertOutbox.Bind(6, row.Body);
            }
            insertOutbox.Bind(7, row.CreatedAt).Execute();
            row.Id = LastRowId;
        }
    }

    private void WriteRest(Append append)
    {
        foreach (var row in append.History)
        {
            insertHistory.Bind(1, row.OrderId).Bind(2, row.Key).Bind(3, row.At).Bind(4, row.Kind).Bind(5, row.Detail).Execute();
        }
        foreach (var (key, copies) in append.Copies)
        {
            countCopies.Bind(1, copies).Bind(2, append.CopiesAt).Bind(3, key).Execute();
        }
        foreach (var key in append.DeferredDecided)
        {
            deleteDeferred.Bind(1, key).Execute();
        }
        foreach (var hash in append.StartedDone)
        {
            deleteStarted.Bind(1, hash).Execute();
        }
    }

    private static async Task WriteRareRowsAsync(Append append, Dictionary<string, long> streams, StoreTransaction transaction)
    {
        foreach (var orderId in append.AttributesReplaced)
        {
            await transaction.ExecuteAsync("DELETE FROM order_attributes WHERE seq = @Stream", new { Stream = streams[orderId] });
        }
        foreach (var row in append.Attributes)
        {
            await transaction.ExecuteAsync("INSERT INTO order_attributes (name, value, seq) VALUES (@Name, @Value, @Stream) ON CONFLICT DO NOTHING", new { row.Name, row.Value, Stream = streams[row.OrderId] });
        }
        foreach (var row in append.Deferred)
        {
            await transaction.ExecuteAsync(
                """
                INSERT INTO deferred (key, order_id, type, body, properties, fingerprint, correlation_id, traceparent, received_at, expires_at)
                VALUES (@Key, @OrderId, @Type, @Body, @Properties, @Fingerprint, @CorrelationId, @TraceContext, @ReceivedAt, @ExpiresAt)
                """,
                row with { Body = transaction.Keys.Seal(row.Body, null) });
        }
        foreach (var row in append.Rejections)
        {
            await transaction.ExecuteAsync(
                """
                INSERT INTO rejections (key, fingerprint, reason, detail, field, exception, order_id, body, properties, rejected_at)
                VALUES (@Key, @Fingerprint, @Reason, @Detail, @Field, @Exception, @OrderId, @Body, @Properties, @At)
                ON CONFLICT (key, fingerprint) DO UPDATE SET
                    reason = excluded.reason, detail = excluded.detail, field = excluded.field, exception = excluded.exception,
                    body = excluded.body, properties = excluded.properties, rejected_at = excluded.rejected_at, parked = 0
                """,
                row with { Body = transaction.Keys.SealOrNull(row.Body, null) });
        }
        foreach (var row in append.RefusedPayments)
        {
            await transaction.ExecuteAsync(
                """
                INSERT INTO refused_payments (order_id, key, payment_reference, amount, code, reason, refused_at)
                VALUES (@OrderId, @Key, @PaymentReference, @Amount, @Code, @Reason, @At)
                """,
                row);
        }
        foreach (var change in append.Letters)
        {
            await transaction.ExecuteAsync(
                """
                UPDATE dead_letters SET status = @Status, settled_at = @At, settled_by = 'order flow', settle_reason = @Detail
                WHERE id = @LetterId AND status IN ('parked', 'replayed')
                """,
                new { change.LetterId, Status = change.Resolved ? "resolved" : "superseded", change.At, change.Detail });
            await SealMarks.ChangedAsync(transaction, SealSubject.Letters.Table, change.LetterId);
            await transaction.ExecuteAsync(
                "UPDATE replays SET outcome = 'resolved', detail = @Detail, finished_at = @At WHERE letter_id = @LetterId AND outcome IS NULL",
                new { change.LetterId, change.At, change.Detail });
        }
    }
}

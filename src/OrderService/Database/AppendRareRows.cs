using OrderService.Store;

namespace OrderService.Database;

/// <summary>The rows of an <see cref="Append"/> that are rare: one SQL text for both stores.</summary>
internal static class AppendRareRows
{
    public static async Task WriteAsync(StoreTransaction transaction, Append append)
    {
        foreach (var row in append.Deferred)
        {
            await transaction.ExecuteAsync(
                """
                INSERT INTO deferred (key, order_id, type, body, properties, fingerprint, correlation_id, traceparent, received_at, expires_at)
                VALUES (@Key, @OrderId, @Type, @Body, @Properties, @Fingerprint, @CorrelationId, @TraceContext, @ReceivedAt, @ExpiresAt)
                """,
                row);
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
                row);
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
            await transaction.ExecuteAsync(
                "UPDATE replays SET outcome = 'resolved', detail = @Detail, finished_at = @At WHERE letter_id = @LetterId AND outcome IS NULL",
                new { change.LetterId, change.At, change.Detail });
        }
    }
}

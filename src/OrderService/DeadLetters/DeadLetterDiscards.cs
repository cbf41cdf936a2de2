using Dapper;
using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>
/// Gives many parked letters up at once. Batch by batch, so that the order flow gets its turn in between; each batch with its lines in the history and its entry in the
/// audit log is one transaction. What an interruption leaves over is parked as before, and the same call goes on with it.
/// </summary>
public sealed class DeadLetterDiscards(IDatabase database, TimeProvider clock)
{
    private const int BatchSize = 500;

    /// <summary>How many letters would be given up, and the highest number among them: hand it back, so that letters that come later are not swept in.</summary>
    public Task<(long Count, long UpTo)> CountAsync(LetterSelection selection, CancellationToken cancellationToken) => database.ReadAsync(selection.CountAsync, cancellationToken);

    /// <param name="reason">Why; not blank.</param>
    /// <returns>How many letters were given up; those that somebody else settled meanwhile are not among them.</returns>
    public async Task<long> DiscardAsync(LetterSelection selection, Caller who, string reason, CancellationToken cancellationToken)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(reason);
        var (count, upTo) = await CountAsync(selection, cancellationToken);
        var fixedNow = selection with { UpTo = upTo };
        long discarded = 0, after = 0;
        while (discarded < count)
        {
            var batch = await database.WriteAsync(transaction => DiscardBatchAsync(transaction, fixedNow, after, Math.Min(BatchSize, count - discarded), who, reason), cancellationToken);
            if (batch.Last is not { } last)
            {
                break;
            }
            discarded += batch.Discarded;
            after = last;
        }
        return discarded;
    }

    /// <returns>The last letter that was looked at, null when none is left; and how many were given up.</returns>
    private async Task<(long? Last, long Discarded)> DiscardBatchAsync(StoreTransaction transaction, LetterSelection selection, long after, long most, Caller who, string reason)
    {
        var parameters = new DynamicParameters(new { after, most });
        var chosen = await transaction.QueryAsync<long>(
            $"SELECT l.id FROM dead_letters l WHERE l.id > @after AND {selection.Where(parameters)} ORDER BY l.id LIMIT @most", parameters);
        if (chosen.Count == 0)
        {
            return (null, 0);
        }
        var values = new
        {
            now = clock.GetUtcNow().ToUnixTimeMilliseconds(),
            who = who.Shown,
            reason,
        };
        // Decisive on a store where somebody else may have settled one of them since.
        var discarded = await transaction.QueryAsync<long>(
            $"UPDATE dead_letters SET status = 'discarded', settled_at = @now, settled_by = @who, settle_reason = @reason WHERE id IN {SqlList.Of(chosen)} AND status = 'parked' RETURNING id",
            values);
        if (discarded.Count > 0)
        {
            await HistoryTable.AddForLettersAsync(transaction, discarded, "discarded", $" was discarded by {who}: {reason}", values.now);
            await AuditTrail.WriteAsync(
                transaction, who, "dead-letter.discard",
                discarded.Count == 1 ? $"dead letter {discarded[0]}" : $"dead letters {discarded.Min()} to {discarded.Max()}",
                discarded.Count == 1 ? reason : $"{discarded.Count} letters: {reason}", values.now);
        }
        return (chosen[^1], discarded.Count);
    }
}

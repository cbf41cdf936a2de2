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
    public Task<(long Count, long UpTo)> CountAsync(LetterSelection selection, CancellationToken cancellationToken) =>
        database.ReadAsync(connection => LettersTable.CountAsync(connection, selection), cancellationToken);

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
        var chosen = await LettersTable.ChosenIdsAsync(transaction, selection, after, most);
        if (chosen.Count == 0)
        {
            return (null, 0);
        }
        var now = clock.GetUtcNow().ToUnixTimeMilliseconds();
        var discarded = await LettersTable.DiscardAsync(transaction, chosen, who.Shown, reason, now);
        if (discarded.Count > 0)
        {
            await HistoryTable.AddForLettersAsync(transaction, discarded, "discarded", $" was discarded by {who}: {reason}", now);
            await AuditTrail.WriteAsync(
                transaction, who, "dead-letter.discard",
                discarded.Count == 1 ? $"dead letter {discarded[0]}" : $"dead letters {discarded.Min()} to {discarded.Max()}",
                discarded.Count == 1 ? reason : $"{discarded.Count} letters: {reason}", now);
        }
        return (chosen[^1], discarded.Count);
    }
}

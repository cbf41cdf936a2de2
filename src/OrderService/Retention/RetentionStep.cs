using OrderService.Store;

namespace OrderService.Retention;

/// <summary>What a step did.</summary>
/// <param name="Looked">How many candidates it got through; 0 when there are none left.</param>
/// <param name="Removed">How many rows of the kind are gone.</param>
/// <param name="Took">For how long it held the store's writer.</param>
internal sealed record StepResult(int Looked, long Removed, TimeSpan Took)
{
    public static StepResult Nothing { get; } = new(0, 0, TimeSpan.Zero);
}

/// <summary>
/// One small transaction: candidates are read beforehand, beside the writer, and taken out one by one until the time for a step is over. The rest comes with the next step.
/// </summary>
/// <param name="note">Notes the progress in the same transaction; false when another instance has the work now.</param>
internal sealed class RetentionStep(IDatabase database, TimeProvider clock, Func<StoreTransaction, long, Task<bool>> note)
{
    /// <summary>Half of what orders may be held up for; the other half is for the commit.</summary>
    internal static readonly TimeSpan Budget = TimeSpan.FromMilliseconds(20);

    /// <exception cref="RetentionLostException">Another instance works on it now; nothing was taken out.</exception>
    public Task<StepResult> RunAsync<T>(IReadOnlyList<T> candidates, Func<StoreTransaction, T, Task<long>> remove, CancellationToken cancellationToken) =>
        candidates.Count == 0 ? Task.FromResult(StepResult.Nothing) : database.WriteAsync(
            async transaction =>
            {
                var began = clock.GetTimestamp();
                var looked = 0;
                var removed = 0L;
                foreach (var candidate in candidates)
                {
                    removed += await remove(transaction, candidate);
                    looked++;
                    if (clock.GetElapsedTime(began) >= Budget)
                    {
                        break;
                    }
                }
                if (!await note(transaction, removed))
                {
                    throw new RetentionLostException();
                }
                return new StepResult(looked, removed, clock.GetElapsedTime(began));
            },
            cancellationToken);
}

/// <summary>Another instance took the work over.</summary>
internal sealed class RetentionLostException() : Exception("Another instance takes old rows out now.");

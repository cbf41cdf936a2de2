namespace OrderService.Admin;

/// <summary>
/// An answer that many ask for and that takes a look at much. One at a time looks, and the answer is kept for a second, or for ten times as long as the look took: however many
/// pages are open and however many letters there are, looking takes a tenth of the time at most.
/// </summary>
internal sealed class Kept<T>(Func<CancellationToken, Task<T>> look, TimeProvider clock) : IDisposable
    where T : class
{
    private static readonly TimeSpan Shortest = TimeSpan.FromSeconds(1);

    private readonly SemaphoreSlim one = new(1);
    private T? last;
    private long lastAt;
    private TimeSpan keptFor;

    public async Task<T> ReadAsync(CancellationToken cancellationToken)
    {
        await one.WaitAsync(cancellationToken);
        try
        {
            if (last is null || clock.GetElapsedTime(lastAt) > keptFor)
            {
                var began = clock.GetTimestamp();
                last = await look(cancellationToken);
                lastAt = clock.GetTimestamp();
                var took = clock.GetElapsedTime(began, lastAt) * 10;
                keptFor = took > Shortest ? took : Shortest;
            }
            return last;
        }
        finally
        {
            one.Release();
        }
    }

    /// <summary>Looks again although <paramref name="known"/> is young.</summary>
    public async Task<T> ReadAgainAsync(T known, CancellationToken cancellationToken)
    {
        await one.WaitAsync(cancellationToken);
        try
        {
            // Somebody else may have looked meanwhile.
            last = ReferenceEquals(last, known) ? null : last;
        }
        finally
        {
            one.Release();
        }
        return await ReadAsync(cancellationToken);
    }

    public void Dispose() => one.Dispose();
}

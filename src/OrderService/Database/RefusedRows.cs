using System.Collections.Concurrent;
using OrderService.Observability;
using OrderService.Store;

namespace OrderService.Database;

/// <summary>
/// For stations in which no row has to wait for another: a row that the store refuses holds up no other. It rests, is tried again, and one trouble says why until nothing is refused any more.
/// </summary>
/// <param name="station">Its name in the key of the trouble: <c>store:alerts</c>.</param>
/// <param name="what">What it handles, in the plural: "Alerts".</param>
public sealed partial class RefusedRows<TKey>(string station, string what, Troubles troubles, TimeProvider clock, ILogger logger)
    where TKey : notnull
{
    /// <summary>How long a refused row is left alone.</summary>
    private static readonly TimeSpan Rest = TimeSpan.FromMinutes(1);

    /// <summary>What was not tried again for so long is gone, or done by another process. Longer than a delivery of an alert is claimed.</summary>
    private static readonly TimeSpan Memory = TimeSpan.FromMinutes(5);

    /// <summary>That the store is out of reach is told of by readiness; this is for what it does not see, such as a table that is gone.</summary>
    private static readonly TimeSpan OutagePatience = TimeSpan.FromSeconds(30);

    /// <summary>How many refusals one transaction bears: each is an attempt of its own, and on SQLite orders wait for the transaction. The rows behind them come next time.</summary>
    private const int MostAtOnce = 64;

    private const string Savepoint = "rows";

    private readonly ConcurrentDictionary<TKey, long> refused = new();
    private readonly ConcurrentDictionary<string, bool> failing = new();

    /// <summary>Key of the trouble that says what is refused here.</summary>
    public string TroubleKey { get; } = $"store:{station}";

    /// <summary>Whether it was refused a moment ago, and is to be passed over.</summary>
    public bool IsResting(TKey row) => refused.TryGetValue(row, out var at) && clock.GetElapsedTime(at) < Rest;

    /// <summary>All that rest.</summary>
    public IReadOnlyList<TKey> Resting => [.. refused.Keys.Where(IsResting)];

    /// <summary>Writes rows in the caller's transaction: together, and by halves where the store refuses them together.</summary>
    /// <param name="write">Writes some of the rows and answers what it did; nothing else, since it may be undone.</param>
    /// <returns>What <paramref name="write"/> answered for what was written.</returns>
    public async Task<List<TRow>> WriteAsync<TRow>(
        StoreTransaction transaction, IReadOnlyList<TRow> rows, Func<TRow, TKey> key, Func<IReadOnlyList<TRow>, Task<IReadOnlyList<TRow>>> write)
    {
        var written = new List<TRow>(rows.Count);
        var parts = new Stack<IReadOnlyList<TRow>>();
        parts.Push(rows);
        for (var refusals = 0; refusals < MostAtOnce && parts.TryPop(out var part) && part.Count > 0;)
        {
            await transaction.SaveAsync(Savepoint);
            try
            {
                var done = await write(part);
                await transaction.CheckDeferredAsync();
                await transaction.ReleaseAsync(Savepoint);
                written.AddRange(done);
                Take(part.Select(key));
            }
            catch (Exception exception) when (StoreErrors.Translate(exception) is StoreRefusedException refusal)
            {
                await transaction.RollbackAsync(Savepoint);
                await transaction.ReleaseAsync(Savepoint);
                if (part.Count == 1)
                {
                    Refuse(key(part[0]), refusal);
                    refusals++;
                    continue;
                }
                var half = part.Count / 2;
                parts.Push([.. part.Skip(half)]);
                parts.Push([.. part.Take(half)]);
            }
        }
        return written;
    }

    /// <summary>A step of the station failed as a whole; it is tried again.</summary>
    public void Fail(string step, Exception exception)
    {
        failing[step] = true;
        var why = exception is StoreUnavailableException or StoreRefusedException ? exception.Message : $"It fails with {exception.GetType().Name}.";
        Say(why, "them", exception is StoreRefusedException ? null : OutagePatience);
    }

    /// <summary>A step went through, but for the rows that rest.</summary>
    public void Pass(string step)
    {
        failing.TryRemove(step, out _);
        foreach (var (row, _) in refused.Where(row => clock.GetElapsedTime(row.Value) >= Memory))
        {
            refused.TryRemove(row, out _);
        }
        if (refused.IsEmpty && failing.IsEmpty && troubles.Stands(TroubleKey))
        {
            troubles.Clear(TroubleKey);
            LogOver(what);
        }
    }

    private void Take(IEnumerable<TKey> rows)
    {
        if (refused.IsEmpty)
        {
            return;
        }
        foreach (var row in rows)
        {
            refused.TryRemove(row, out _);
        }
    }

    private void Refuse(TKey row, StoreRefusedException refusal)
    {
        if (!refused.ContainsKey(row))
        {
            LogRefused(what, row, refusal.Message);
        }
        refused[row] = clock.GetTimestamp();
        Say(refusal.Message, "some of them", null);
    }

    private void Say(string why, string which, TimeSpan? patience)
    {
        // One cause, one alert.
        if (troubles.Stands(Troubles.Store))
        {
            troubles.Clear(TroubleKey);
            return;
        }
        var trouble = new Trouble(
            TroubleKey, TroubleLevel.Degraded, $"{what} wait: the store does not take {which}", $"{why} {what} wait and are tried again; the others go on.", StoreRefusedException.Advice)
        { ConcernsStore = true };
        troubles.Raise(patience is { } given ? trouble with { Patience = given } : trouble);
    }

    [LoggerMessage(LogLevel.Error, "{What}: the store refuses {Row}; it is tried again and holds up no other: {Reason}")]
    private partial void LogRefused(string what, object row, string reason);

    [LoggerMessage(LogLevel.Information, "{What} do not wait for the store any more")]
    private partial void LogOver(string what);
}

using System.Text.Json;
using Microsoft.Extensions.Options;
using OrderService.Observability;
using OrderService.Store;

namespace OrderService.Retention;

/// <summary>How many rows of a kind there are to take out, or were taken out.</summary>
/// <param name="Days">How long they are kept; null for ever.</param>
public sealed record RetentionCount(string Kind, int? Days, long Rows);

/// <summary>The last round, or the one under way.</summary>
/// <param name="Holder">Who works on it; null when nobody does.</param>
/// <param name="Done">How many rows it took out, by kind.</param>
public sealed record RetentionRun(string? Holder, DateTimeOffset? BeganAt, DateTimeOffset? EndedAt, IReadOnlyDictionary<string, long> Done);

/// <summary>
/// Takes out what is older than the settings say: in small steps with pauses that leave the store's writer to orders for most of the time. The rows themselves say how far it is, so it may end
/// anywhere and goes on from there; of several instances one works at a time, and each step makes sure of it.
/// </summary>
internal sealed class RetentionRound(
    IDatabase database, RetentionKinds kinds, IOptions<RetentionOptions> options, OrderMetrics metrics, StoreTime time, TimeProvider clock)
{
    private const long MillisecondsADay = 86_400_000;
    private const string TheService = "the service";

    /// <summary>Between two steps the writer is left alone for so many times as long as the step took.</summary>
    private const int PauseFactor = 4;

    private static readonly TimeSpan ShortestPause = TimeSpan.FromMilliseconds(5);
    private static readonly TimeSpan Hold = TimeSpan.FromSeconds(30);

    private readonly string holder = $"{Environment.MachineName}:{Environment.ProcessId}:{Guid.NewGuid():N}";

    /// <summary>What the next round would take out. It counts, which takes a look at every old row.</summary>
    public async Task<IReadOnlyList<RetentionCount>> CountAsync(CancellationToken cancellationToken)
    {
        var now = (await time.ReadAsync(database, cancellationToken)).At.ToUnixTimeMilliseconds();
        var counts = new List<RetentionCount>();
        foreach (var group in kinds.All.GroupBy(kind => kind.Name, StringComparer.Ordinal))
        {
            var days = group.First().Days(options.Value);
            var rows = 0L;
            foreach (var kind in days is null ? [] : group.ToList())
            {
                rows += await database.ReadAsync(connection => kind.CountAsync(connection, Before(now, days!.Value)), cancellationToken);
            }
            counts.Add(new RetentionCount(group.Key, days, rows));
        }
        return counts;
    }

    /// <summary>The last round, or the one under way.</summary>
    public async Task<RetentionRun> LastAsync(CancellationToken cancellationToken)
    {
        var row = await database.ReadAsync(RetentionTable.ReadAsync, cancellationToken);
        return new RetentionRun(row.Holder, At(row.BeganAt), At(row.EndedAt), JsonSerializer.Deserialize<Dictionary<string, long>>(row.Done) ?? []);
    }

    /// <summary>Does a round.</summary>
    /// <param name="progress">Told of each step.</param>
    /// <returns>How many rows went, by kind; null when another instance works on it.</returns>
    /// <exception cref="IOException">The archive can't be written to. What is not archived was not taken out.</exception>
    public async Task<IReadOnlyDictionary<string, long>?> RunAsync(IProgress<IReadOnlyDictionary<string, long>>? progress, CancellationToken cancellationToken)
    {
        var began = (await time.ReadAsync(database, cancellationToken)).At;
        var timestamp = clock.GetTimestamp();
        if (!await database.WriteAsync(
            transaction => RetentionTable.TakeAsync(
                transaction, holder, began.ToUnixTimeMilliseconds(), (began + Hold).ToUnixTimeMilliseconds(), (began + (Hold * 2)).ToUnixTimeMilliseconds()), cancellationToken))
        {
            return null;
        }
        var done = new Dictionary<string, long>((await LastAsync(cancellationToken)).Done, StringComparer.Ordinal);
        try
        {
            foreach (var kind in kinds.All)
            {
                if (kind.Days(options.Value) is { } days)
                {
                    await RunAsync(kind, () => (began + clock.GetElapsedTime(timestamp)).ToUnixTimeMilliseconds(), days, done, progress, cancellationToken);
                }
            }
        }
        catch (RetentionLostException)
        {
            return null;
        }
        await database.WriteAsync(
            async transaction =>
            {
                var now = (began + clock.GetElapsedTime(timestamp)).ToUnixTimeMilliseconds();
                await RetentionTable.EndAsync(transaction, holder, now);
                if (done.Values.Any(rows => rows > 0))
                {
                    await AuditTrail.WriteAsync(
                        transaction, TheService, "retention", "old rows", string.Join(", ", done.Where(rows => rows.Value > 0).Select(rows => $"{rows.Value} {rows.Key}")), now);
                }
            },
            cancellationToken);
        return done;
    }

    private async Task RunAsync(
        RetentionKind kind, Func<long> now, int days, Dictionary<string, long> done, IProgress<IReadOnlyDictionary<string, long>>? progress, CancellationToken cancellationToken)
    {
        var archive = kind.Name == RetentionKinds.ClosedOrders && !options.Value.WithoutArchive ? new OrderArchive(options.Value.ArchiveFolder!, clock) : null;
        var step = new RetentionStep(database, clock, async (transaction, removed) =>
        {
            var so = new Dictionary<string, long>(done, StringComparer.Ordinal);
            so[kind.Name] = so.GetValueOrDefault(kind.Name) + removed;
            if (!await RetentionTable.NoteAsync(transaction, holder, JsonSerializer.Serialize(so), now() + (long)Hold.TotalMilliseconds))
            {
                return false;
            }
            done[kind.Name] = so[kind.Name];
            return true;
        });
        var next = kind.Begin(new RetentionContext(database, step, Before(now(), days), now(), options.Value, archive));
        while (await next(cancellationToken) is { Looked: > 0 } result)
        {
            metrics.Retained(kind.Name, result.Removed, result.Took);
            progress?.Report(done);
            var pause = result.Took * PauseFactor;
            await Task.Delay(pause > ShortestPause ? pause : ShortestPause, clock, cancellationToken);
        }
    }

    private static long Before(long now, int days) => now - (days * MillisecondsADay);

    private static DateTimeOffset? At(long? milliseconds) => milliseconds is { } known ? DateTimeOffset.FromUnixTimeMilliseconds(known) : null;
}

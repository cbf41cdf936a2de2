using System.Collections.Concurrent;
using Microsoft.Extensions.Options;
using OrderService.Store;

namespace OrderService.Admin;

/// <summary>
/// Who is signed in. Each session is a row of the store, so that it can be listed, and ended from anywhere; every process keeps all of them in memory and looks again every few
/// seconds, so that no request waits for the store. While the store takes nothing, a session lives and ends here, and is written later.
/// </summary>
internal sealed partial class LivingSessions(IDatabase database, ApiKeyRing keys, IOptions<ApiOptions> options, TimeProvider clock, ILogger<LivingSessions> logger) : IDisposable
{
    /// <summary>A cookie that is not known is looked for in the store, but by all callers together no more often than this.</summary>
    private static readonly TimeSpan SearchInterval = TimeSpan.FromSeconds(1);

    /// <summary>How far behind the written time of last use may be.</summary>
    private static readonly TimeSpan UseInterval = TimeSpan.FromSeconds(30);

    /// <summary>For so long after its sign-in nobody else sits before a browser.</summary>
    private static readonly TimeSpan Fresh = TimeSpan.FromMinutes(5);

    /// <summary>What hangs on a session is told why it ended this long after its time.</summary>
    private static readonly TimeSpan Remembered = TimeSpan.FromDays(1);

    private readonly ConcurrentDictionary<string, SessionRow> rows = new(StringComparer.Ordinal);
    private readonly ConcurrentQueue<Func<StoreTransaction, Task>> unwritten = new();
    private readonly ConcurrentDictionary<string, byte> used = new(StringComparer.Ordinal);
    private readonly SemaphoreSlim gate = new(1);
    private long? searchedAt;

    /// <summary>Sessions that hold now, the newest first.</summary>
    public IReadOnlyList<SessionRow> List() => [.. rows.Values.Where(row => WhyEnded(row) is null).OrderByDescending(row => row.StartedAt)];

    /// <summary>Whether the session with this id began a moment ago.</summary>
    public bool IsFresh(string id) =>
        rows.Values.FirstOrDefault(row => row.Id == id) is { } row && clock.GetUtcNow().ToUnixTimeMilliseconds() - row.StartedAt < (long)Fresh.TotalMilliseconds;

    public async Task AddAsync(SessionRow row)
    {
        rows[row.Hash] = row;
        unwritten.Enqueue(transaction => SessionsTable.AddAsync(transaction, row));
        await TryWriteAsync();
    }

    /// <summary>The session with this cookie; null when there is none or it has ended.</summary>
    public async ValueTask<SessionRow?> FindAsync(string hash, CancellationToken cancellationToken)
    {
        if (!rows.ContainsKey(hash) && (searchedAt is not { } last || clock.GetElapsedTime(last) >= SearchInterval))
        {
            await SearchAsync(cancellationToken);
        }
        return rows.TryGetValue(hash, out var row) && WhyEnded(row) is null ? row : null;
    }

    /// <summary>Somebody sits before it.</summary>
    public void Use(SessionRow session)
    {
        var now = clock.GetUtcNow().ToUnixTimeMilliseconds();
        if (now - session.UsedAt >= (long)UseInterval.TotalMilliseconds && rows.TryGetValue(session.Hash, out var row) && rows.TryUpdate(session.Hash, row with { UsedAt = now }, row))
        {
            used[session.Hash] = 0;
        }
    }

    /// <summary>Ends a session here at once, and everywhere as soon as the store takes it.</summary>
    /// <param name="signedOut">Its own browser did it.</param>
    public async Task EndAsync(Caller who, SessionRow session, bool signedOut)
    {
        var now = clock.GetUtcNow().ToUnixTimeMilliseconds();
        rows[session.Hash] = session with { EndedAt = now, SignedOut = signedOut ? 1 : 0 };
        unwritten.Enqueue(async transaction =>
        {
            await SessionsTable.EndAsync(transaction, session.Hash, now, signedOut);
            await AuditTrail.WriteAsync(transaction, who, signedOut ? "sign-out" : "session.end", Subject(session.Id), "", now);
        });
        await TryWriteAsync();
    }

    /// <summary>Why the session with this id has ended, as a sentence about its owner; null while it holds, or where it is not known.</summary>
    public string? WhyEnded(string id) => rows.Values.FirstOrDefault(row => row.Id == id) is { } row ? WhyEnded(row) : null;

    /// <summary>Writes what is not written yet, and reads what others did.</summary>
    public async Task ExchangeAsync(CancellationToken cancellationToken)
    {
        await WriteAsync();
        await ReadAsync(cancellationToken);
    }

    public void Dispose() => gate.Dispose();

    internal static string Subject(string id) => $"session {id}";

    private string? WhyEnded(SessionRow row)
    {
        var now = clock.GetUtcNow().ToUnixTimeMilliseconds();
        return !keys.Holds(row.KeyId) ? "whose key was taken out of the settings"
            : row.EndedAt is not null ? row.SignedOut == 1 ? "who signed out" : "whose session was ended"
            : row.EndsAt <= now ? "whose session expired"
            // How long that is, the processes with the API know.
            : keys.AreKnown && now - row.UsedAt >= (long)options.Value.SessionIdleTimeout.TotalMilliseconds ? "whose session was idle for too long"
            : null;
    }

    private async Task SearchAsync(CancellationToken cancellationToken)
    {
        searchedAt = clock.GetTimestamp();
        try
        {
            await ReadAsync(cancellationToken);
        }
        catch (StoreUnavailableException)
        {
            // Who is known gets in; who is not signs in again.
        }
    }

    private async Task TryWriteAsync()
    {
        try
        {
            await WriteAsync();
        }
        catch (Exception exception) when (exception is StoreUnavailableException or StoreRefusedException)
        {
            LogNotWritten(exception.Message);
        }
    }

    private async Task WriteAsync()
    {
        await gate.WaitAsync();
        try
        {
            while (unwritten.TryPeek(out var next))
            {
                await database.WriteAsync(next);
                unwritten.TryDequeue(out _);
            }
            SessionRow[] seen = [.. used.Keys.Select(hash => rows.GetValueOrDefault(hash)).OfType<SessionRow>()];
            if (seen.Length > 0)
            {
                await database.WriteAsync(async transaction =>
                {
                    foreach (var row in seen)
                    {
                        await SessionsTable.UseAsync(transaction, row.Hash, row.UsedAt);
                    }
                });
                foreach (var row in seen)
                {
                    used.TryRemove(row.Hash, out _);
                }
            }
            var forgotten = (clock.GetUtcNow() - Remembered).ToUnixTimeMilliseconds();
            SessionRow[] old = [.. rows.Values.Where(row => row.EndsAt < forgotten)];
            if (old.Length > 0)
            {
                await database.WriteAsync(transaction => SessionsTable.ForgetAsync(transaction, forgotten));
                foreach (var row in old)
                {
                    rows.TryRemove(row.Hash, out _);
                }
            }
        }
        finally
        {
            gate.Release();
        }
    }

    private async Task ReadAsync(CancellationToken cancellationToken)
    {
        await gate.WaitAsync(cancellationToken);
        try
        {
            foreach (var read in await database.ReadAsync(SessionsTable.ListAsync, cancellationToken))
            {
                // What ended here and is not written yet stays ended; the later use counts.
                rows.AddOrUpdate(read.Hash, read, (_, here) => here with
                {
                    UsedAt = Math.Max(here.UsedAt, read.UsedAt), EndedAt = here.EndedAt ?? read.EndedAt, SignedOut = Math.Max(here.SignedOut, read.SignedOut),
                });
            }
        }
        finally
        {
            gate.Release();
        }
    }

    [LoggerMessage(LogLevel.Warning, "Who signed in or out is known in this process; the store does not take it yet, and it is tried again: {Reason}")]
    private partial void LogNotWritten(string reason);
}

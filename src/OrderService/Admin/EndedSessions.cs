using System.Collections.Concurrent;
using OrderService.Store;

namespace OrderService.Admin;

/// <summary>
/// Sessions that ended before their time. The cookie itself can't be taken back, so each sign-out is a row of the audit log, which every instance reads:
/// this one knows at once, the others a few seconds later, and all of them after a restart.
/// </summary>
internal sealed partial class EndedSessions(IDatabase database, TimeProvider clock, ILogger<EndedSessions> logger) : IDisposable
{
    private const string Action = "sign-out";

    /// <summary>The longest lifetime that a session can have been given.</summary>
    private static readonly TimeSpan Longest = TimeSpan.FromDays(30);

    /// <summary>Numbers are given out before a commit, so a row may appear below others; none is this far behind.</summary>
    private const int Overlap = 1_000;

    private readonly ConcurrentDictionary<string, DateTimeOffset> ended = new(StringComparer.Ordinal);
    private readonly ConcurrentQueue<(Caller Who, string Session)> unwritten = new();
    private readonly SemaphoreSlim gate = new(1);
    private long newest = -1;

    /// <summary>Whether the session was ended. The first call reads what the store knows.</summary>
    public async ValueTask<bool> ContainsAsync(string session, CancellationToken cancellationToken)
    {
        if (Volatile.Read(ref newest) < 0)
        {
            await ReadAsync(cancellationToken);
        }
        return ended.ContainsKey(session);
    }

    /// <summary>The same without the store, from what was read so far.</summary>
    public bool Contains(string session) => ended.ContainsKey(session);

    /// <summary>Ends a session here at once, and everywhere as soon as the store takes it.</summary>
    public async Task EndAsync(Caller who, string session)
    {
        ended[session] = clock.GetUtcNow();
        unwritten.Enqueue((who, session));
        try
        {
            await WriteAsync();
        }
        catch (StoreUnavailableException exception)
        {
            LogNotWritten(session, exception.Message);
        }
    }

    /// <summary>Writes what is not written yet, and reads what others ended.</summary>
    public async Task ExchangeAsync(CancellationToken cancellationToken)
    {
        await WriteAsync();
        await ReadAsync(cancellationToken);
        var forgotten = clock.GetUtcNow() - Longest;
        foreach (var (session, _) in ended.Where(pair => pair.Value < forgotten))
        {
            ended.TryRemove(session, out _);
        }
    }

    public void Dispose() => gate.Dispose();

    private async Task WriteAsync()
    {
        await gate.WaitAsync();
        try
        {
            while (unwritten.TryPeek(out var next))
            {
                await database.WriteAsync(transaction => AuditTrail.WriteAsync(transaction, next.Who, Action, Subject(next.Session), "", clock.GetUtcNow().ToUnixTimeMilliseconds()));
                unwritten.TryDequeue(out _);
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
            var since = (clock.GetUtcNow() - Longest).ToUnixTimeMilliseconds();
            var (last, rows) = await database.ReadAsync(async connection => (
                await AuditTrail.NewestAsync(connection), await AuditTrail.SubjectsAsync(connection, Action, newest - Overlap, since)), cancellationToken);
            foreach (var (subject, at) in rows)
            {
                ended[subject[(subject.IndexOf(' ', StringComparison.Ordinal) + 1)..]] = DateTimeOffset.FromUnixTimeMilliseconds(at);
            }
            Volatile.Write(ref newest, last);
        }
        finally
        {
            gate.Release();
        }
    }

    internal static string Subject(string session) => $"session {session}";

    [LoggerMessage(LogLevel.Warning, "Session {Session} is ended in this process; the store does not take it yet, and it is tried again: {Reason}")]
    private partial void LogNotWritten(string session, string reason);
}

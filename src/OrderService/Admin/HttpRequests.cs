using Microsoft.Extensions.Options;
using OrderService.Store;

namespace OrderService.Admin;

/// <summary>
/// Answers by <c>Idempotency-Key</c>, so that a repeated request gets the first one's answer. They belong to the caller: two keys' owners never see each other's.
/// The order itself does not depend on this: the same key makes the same message id, and the inbox takes that once.
/// </summary>
public sealed class HttpRequests(IDatabase database, IOptions<ApiOptions> options, TimeProvider clock)
{
    /// <summary>A first request that ended without an answer for this long has died with its process; the next one takes its place.</summary>
    private static readonly TimeSpan Forgotten = TimeSpan.FromMinutes(1);

    internal abstract record Begun
    {
        private Begun() { }

        /// <summary>This is the first: do the work, then <see cref="CompleteAsync"/> or <see cref="AbandonAsync"/>.</summary>
        internal sealed record First : Begun;

        /// <summary>The first one is still under way.</summary>
        internal sealed record InFlight : Begun;

        /// <summary>The key was used for something else.</summary>
        internal sealed record Reused : Begun;

        internal sealed record Answered(int Status, string? Location, string Body) : Begun;
    }

    /// <param name="fingerprint">Of command and body, see <see cref="Inbox.EnvelopeDecoder.Fingerprint"/>.</param>
    internal Task<Begun> BeginAsync(string principal, string key, byte[] fingerprint, CancellationToken cancellationToken)
    {
        var now = clock.GetUtcNow().ToUnixTimeMilliseconds();
        return database.WriteAsync<Begun>(async transaction =>
        {
            var inserted = await transaction.ExecuteAsync(
                "INSERT INTO http_requests (principal, key, fingerprint, created_at) VALUES (@principal, @key, @fingerprint, @now) ON CONFLICT (principal, key) DO NOTHING",
                new { principal, key, fingerprint, now });
            if (inserted == 1)
            {
                // The queue may have seen the key before, or another caller used it.
                var known = await InboxTable.FingerprintAsync(transaction, key);
                if (known is null || known.AsSpan().SequenceEqual(fingerprint))
                {
                    return new Begun.First();
                }
                await transaction.ExecuteAsync("DELETE FROM http_requests WHERE principal = @principal AND key = @key", new { principal, key });
                return new Begun.Reused();
            }
            var row = await transaction.QuerySingleAsync<Row>(
                "SELECT fingerprint, status, location, body, created_at FROM http_requests WHERE principal = @principal AND key = @key",
                new { principal, key });
            if (!row.Fingerprint.AsSpan().SequenceEqual(fingerprint))
            {
                return new Begun.Reused();
            }
            if (row.Status is { } status)
            {
                return new Begun.Answered((int)status, row.Location, row.Body ?? "");
            }
            if (now - row.CreatedAt < (long)Forgotten.TotalMilliseconds)
            {
                return new Begun.InFlight();
            }
            await transaction.ExecuteAsync("UPDATE http_requests SET created_at = @now WHERE principal = @principal AND key = @key", new { principal, key, now });
            return new Begun.First();
        }, cancellationToken);
    }

    internal Task CompleteAsync(string principal, string key, int status, string? location, string body) =>
        database.WriteAsync(transaction => transaction.ExecuteAsync(
            "UPDATE http_requests SET status = @status, location = @location, body = @body WHERE principal = @principal AND key = @key",
            new { principal, key, status, location, body }));

    /// <summary>The work failed in a way that a repetition may mend.</summary>
    internal Task AbandonAsync(string principal, string key) =>
        database.WriteAsync(transaction => transaction.ExecuteAsync(
            "DELETE FROM http_requests WHERE principal = @principal AND key = @key AND status IS NULL", new { principal, key }));

    /// <summary>Forgets answers that are older than <see cref="ApiOptions.KeepAnswersFor"/>.</summary>
    public Task<int> ForgetOldAsync(CancellationToken cancellationToken) =>
        database.WriteAsync(transaction => transaction.ExecuteAsync(
            "DELETE FROM http_requests WHERE created_at < @before",
            new { before = clock.GetUtcNow().Subtract(options.Value.KeepAnswersFor).ToUnixTimeMilliseconds() }), cancellationToken);

    private sealed class Row
    {
        public byte[] Fingerprint { get; init; } = [];
        public long? Status { get; init; }
        public string? Location { get; init; }
        public string? Body { get; init; }
        public long CreatedAt { get; init; }
    }
}

/// <summary>Keeps the table of answers small.</summary>
internal sealed partial class OldAnswers(HttpRequests requests, TimeProvider clock, ILogger<OldAnswers> logger) : BackgroundService
{
    private static readonly TimeSpan Interval = TimeSpan.FromMinutes(10);

    protected override Task ExecuteAsync(CancellationToken stoppingToken) =>
        PeriodicLoop.AfterTickAsync(Interval, clock, async token =>
        {
            try
            {
                await requests.ForgetOldAsync(token);
            }
            catch (StoreUnavailableException exception)
            {
                // They are as old at the next tick.
                LogNotForgotten(exception.Message);
            }
        }, stoppingToken);

    [LoggerMessage(LogLevel.Warning, "Old answers stay a while longer: {Reason}")]
    private partial void LogNotForgotten(string reason);
}

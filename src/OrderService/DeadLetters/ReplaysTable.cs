using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>Each replay of a letter and what became of it. One that succeeds is noted with the append.</summary>
internal static class ReplaysTable
{
    /// <param name="body">The edited one; null when the original bytes go out.</param>
    /// <param name="customerId">Whose key it is kept under.</param>
    public static Task AddAsync(StoreTransaction transaction, ReplayRequest request, byte[]? body, string? customerId, string? change, long now) => transaction.ExecuteAsync(
        """
        INSERT INTO replays (letter_id, job_id, body, change, requested_by, reason, requested_at)
        VALUES (@LetterId, @JobId, @body, @change, @Who, @Reason, @now)
        """,
        new { request.LetterId, request.JobId, body = transaction.Keys.SealOrNull(body, customerId), change, Who = request.Who.Shown, request.Reason, now });

    /// <summary>The replay under way failed.</summary>
    public static Task FailAsync(StoreTransaction transaction, long letterId, string detail, long now) => transaction.ExecuteAsync(
        """
        UPDATE replays SET outcome = 'failed', detail = @detail, finished_at = @now WHERE letter_id = @letterId AND outcome IS NULL
        """,
        new { letterId, detail, now });

    /// <summary>Who asked for the newest one.</summary>
    public static Task<string?> RequestedByAsync(StoreConnection connection, long letterId) => connection.ExecuteScalarAsync<string?>(
        "SELECT requested_by FROM replays WHERE letter_id = @letterId ORDER BY id DESC LIMIT 1", new { letterId });

    /// <param name="longestBody">Longer ones are told of by their size.</param>
    public static async Task<List<ReplayRow>> OfLetterAsync(StoreConnection connection, long letterId, int longestBody) => (await connection.QueryAsync<ReplayRow>(
        """
        SELECT id, job_id, length(body) AS body_bytes, CASE WHEN length(body) <= @longestBody THEN body END AS body, requested_by, reason, requested_at,
               outcome, detail, finished_at, change
        FROM replays WHERE letter_id = @letterId ORDER BY id
        """,
        new { letterId, longestBody })).ConvertAll(row => row.Opened(connection.Keys));

    /// <summary>The edited bytes of one replay; null when the original ones went out.</summary>
    public static async Task<LetterBody?> BodyAsync(StoreConnection connection, long letterId, long replayId) =>
        await connection.ExecuteScalarAsync<byte[]?>("SELECT body FROM replays WHERE id = @replayId AND letter_id = @letterId", new { letterId, replayId }) is { } stored
            ? LetterBody.Open(stored, connection.Keys)
            : null;

    public static Task RemoveAsync(StoreTransaction transaction, long letterId) =>
        transaction.ExecuteAsync("DELETE FROM replays WHERE letter_id = @letterId", new { letterId });

    /// <summary>Nobody reads the edited bodies any more.</summary>
    public static Task EmptyAsync(StoreTransaction transaction, IReadOnlyCollection<long> letterIds) =>
        transaction.ExecuteAsync($"UPDATE replays SET body = @Gone WHERE body IS NOT NULL AND letter_id IN {SqlList.Of(letterIds)}", new { SealedBytes.Gone });

    /// <summary>How many a job sent after a time.</summary>
    public static Task<long> SentSinceAsync(StoreConnection connection, long jobId, long since) =>
        connection.ExecuteScalarAsync<long>("SELECT count(*) FROM replays WHERE job_id = @jobId AND requested_at > @since", new { jobId, since });
}

internal sealed class ReplayRow
{
    public long Id { get; init; }
    public long? JobId { get; init; }
    public long? BodyBytes { get; private set; }

    /// <summary>Null when it is long, when the original went out, and when its customer is forgotten.</summary>
    public byte[]? Body { get; private set; }
    public string RequestedBy { get; init; } = "";
    public string? Reason { get; init; }
    public long RequestedAt { get; init; }
    public string? Outcome { get; init; }
    public string? Detail { get; init; }
    public long? FinishedAt { get; init; }
    public string? Change { get; init; }

    public ReplayRow Opened(PersonalKeys keys)
    {
        if (Body is { } stored)
        {
            Body = keys.Open(stored);
            BodyBytes = Body?.Length ?? BodyBytes;
        }
        else
        {
            BodyBytes -= SealedBytes.Overhead;
        }
        return this;
    }
}

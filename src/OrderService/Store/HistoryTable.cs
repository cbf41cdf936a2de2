using System.Data;
using Dapper;

namespace OrderService.Store;

/// <summary>What happened to an order beside its events: duplicates, refusals, waits, letters, replays.</summary>
internal static class HistoryTable
{
    // More would save PostgreSQL few round trips more; SQLite looks each parameter up among all others.
    private const int RowsPerStatement = 10;

    /// <summary>Adds lines about dead letters.</summary>
    public static async Task AddAsync(StoreTransaction transaction, IEnumerable<(long LetterId, HistoryRow Line)> lines)
    {
        foreach (var chunk in lines.Chunk(RowsPerStatement))
        {
            var parameters = new DynamicParameters();
            var rows = chunk.Select((line, index) =>
            {
                parameters.Add($"order{index}", line.Line.OrderId, DbType.String);
                parameters.Add($"key{index}", line.Line.Key, DbType.String);
                parameters.Add($"at{index}", line.Line.At);
                parameters.Add($"kind{index}", line.Line.Kind);
                parameters.Add($"detail{index}", line.Line.Detail);
                parameters.Add($"id{index}", line.LetterId);
                return $"(@order{index}, @key{index}, @at{index}, @kind{index}, @detail{index}, @id{index})";
            });
            await transaction.ExecuteAsync($"INSERT INTO history (order_id, key, at, kind, detail, letter_id) VALUES {string.Join(", ", rows)}", parameters);
        }
    }

    /// <summary>The same line for many letters: <c>Dead letter 7</c>, and then <paramref name="what"/>.</summary>
    public static Task AddForLettersAsync(StoreTransaction transaction, IReadOnlyCollection<long> letterIds, string kind, string what, long now) =>
        transaction.ExecuteAsync(
            $"""
            INSERT INTO history (order_id, key, at, kind, detail, letter_id)
            SELECT order_id, key, @now, @kind, 'Dead letter ' || CAST(id AS TEXT) || @what, id FROM dead_letters WHERE id IN {SqlList.Of(letterIds)}
            """,
            new { now, kind, what });

    public static Task<List<HistoryLine>> OfOrderAsync(StoreConnection connection, string orderId, int most) =>
        connection.QueryAsync<HistoryLine>($"{Select} WHERE order_id = @orderId ORDER BY id LIMIT @most", new { orderId, most });

    /// <param name="letterId">A letter that is meant as well; null for none.</param>
    public static Task<List<HistoryLine>> OfMessageAsync(StoreConnection connection, string key, long? letterId, int most)
    {
        var which = letterId is null ? "key = @key" : "id IN (SELECT id FROM history WHERE key = @key UNION SELECT id FROM history WHERE letter_id = @letterId)";
        return connection.QueryAsync<HistoryLine>($"{Select} WHERE {which} ORDER BY id LIMIT @most", new { key, letterId, most });
    }

    /// <summary>What is about this letter, and not about another one of the same key.</summary>
    public static Task<List<HistoryLine>> OfLetterAsync(StoreConnection connection, string key, long letterId, int most) =>
        connection.QueryAsync<HistoryLine>(
            $"{Select} WHERE key = @key AND (letter_id = @letterId OR letter_id IS NULL) ORDER BY id LIMIT @most", new { key, letterId, most });

    private const string Old =
        "at <= @before AND (letter_id IS NULL OR NOT EXISTS (SELECT 1 FROM dead_letters l WHERE l.id = history.letter_id AND l.status IN ('parked', 'replayed')))";

    /// <summary>How many lines are older and not about an open letter.</summary>
    public static Task<long> CountOldAsync(StoreConnection connection, long before) =>
        connection.ExecuteScalarAsync<long>($"SELECT count(*) FROM history WHERE {Old}", new { before });

    /// <summary>The oldest of them from behind <paramref name="last"/>.</summary>
    public static Task<List<OldRow>> OldAsync(StoreConnection connection, long before, OldRow last, int most) => connection.QueryAsync<OldRow>(
        $"SELECT at, id FROM history WHERE {Old} AND (at, id) > (@At, @Id) ORDER BY at, id LIMIT @most", new { before, last.At, last.Id, most });

    public static async Task<long> RemoveAsync(StoreTransaction transaction, long id, long before) =>
        await transaction.ExecuteAsync($"DELETE FROM history WHERE id = @id AND {Old}", new { id, before });

    public static Task RemoveOfOrderAsync(StoreTransaction transaction, string orderId) =>
        transaction.ExecuteAsync("DELETE FROM history WHERE order_id = @orderId", new { orderId });

    private const string Select = "SELECT at, kind, detail, key, letter_id FROM history";
}

internal sealed class HistoryLine
{
    public long At { get; init; }
    public string Kind { get; init; } = "";
    public string Detail { get; init; } = "";
    public string? Key { get; init; }
    public long? LetterId { get; init; }
}

/// <summary>A row that may be old enough to go.</summary>
/// <param name="At">By what its age is told, Unix milliseconds.</param>
internal sealed record OldRow(long At, long Id)
{
    public static OldRow First { get; } = new(long.MinValue, long.MinValue);
}

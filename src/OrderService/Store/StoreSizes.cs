using System.Globalization;

namespace OrderService.Store;

/// <summary>What a table holds.</summary>
/// <param name="Bytes">With its indexes.</param>
/// <param name="RowsADay">Of the last days, see <see cref="StoreSize.Days"/>; null for a table whose rows have no time, or come and go.</param>
public sealed record TableSize(string Table, long Rows, long Bytes, long? RowsADay, long? BytesADay);

/// <summary>What a store holds, the largest table first.</summary>
/// <param name="FreeBytes">Of <paramref name="Bytes"/>: room inside the file that the next rows take; SQLite only.</param>
/// <param name="AreBytesEstimated">SQLite does not tell what a table takes: its share of the file is estimated from its rows.</param>
/// <param name="Days">Over how many days growth was counted.</param>
public sealed record StoreSize(string Provider, long Bytes, long FreeBytes, bool AreBytesEstimated, double Days, IReadOnlyList<TableSize> Tables);

/// <summary>Measures the tables of a store: how many rows, how many bytes, and what a day adds.</summary>
public sealed class StoreSizes(IDatabase database, TimeProvider clock)
{
    private const int Sample = 500;
    private static readonly TimeSpan Longest = TimeSpan.FromDays(7);
    private static readonly TimeSpan Shortest = TimeSpan.FromDays(1);

    /// <summary>Table -> when its rows came, and, where rows are numbered as they come, their number: those of the last days are then found without a look at all.</summary>
    internal static readonly IReadOnlyDictionary<string, (string? Time, string? Number)> Tables = new Dictionary<string, (string?, string?)>(StringComparer.Ordinal)
    {
        ["alert_channels"] = (null, null),
        ["alert_deliveries"] = (null, null),
        ["alerts"] = ("created_at", "id"),
        ["audit"] = ("at", "id"),
        ["checkpoints"] = (null, null),
        ["dead_letters"] = ("parked_at", "id"),
        ["deferred"] = (null, null),
        ["epochs"] = (null, null),
        ["events"] = ("recorded_at", "position"),
        ["history"] = ("at", "id"),
        ["http_requests"] = (null, null),
        ["inbox"] = ("decided_at", null),
        ["incidents"] = ("first_seen", null),
        ["keyless_letters"] = (null, null),
        ["lives"] = (null, null),
        ["order_attributes"] = (null, null),
        ["order_mails"] = (null, null),
        ["orders"] = ("placed_at", "seq"),
        ["outbox"] = (null, null),
        ["refused_payments"] = ("refused_at", "id"),
        ["rejections"] = ("rejected_at", null),
        ["relay_keys"] = (null, null),
        ["relay_leases"] = (null, null),
        ["relay_members"] = (null, null),
        ["replay_job_letters"] = (null, null),
        ["replay_jobs"] = ("requested_at", "id"),
        ["replays"] = ("requested_at", "id"),
        ["schedules"] = (null, null),
        ["seal_beginnings"] = (null, null),
        ["seal_marks"] = (null, null),
        ["seals"] = ("sealed_at", "number"),
        ["service_troubles"] = (null, null),
        ["sessions"] = (null, null),
        ["started"] = (null, null),
        ["store_identity"] = (null, null),
        ["tombstones"] = ("gone_at", null),
    };

    private bool IsSqlite => database.Provider == "Sqlite";

    public async Task<StoreSize> MeasureAsync(IProgress<(long Done, long Total)>? progress, CancellationToken cancellationToken)
    {
        var names = await ReadAsync(NamesAsync, cancellationToken);
        var days = await ReadAsync(DaysAsync, cancellationToken);
        var since = clock.GetUtcNow().AddDays(-days).ToUnixTimeMilliseconds();
        var measured = new List<(string Table, long Rows, double Weight, long? Recent)>();
        foreach (var name in names)
        {
            measured.Add(await ReadAsync(connection => MeasureAsync(connection, name, since), cancellationToken));
            progress?.Report((measured.Count, names.Count));
        }
        var (bytes, free) = IsSqlite ? await ReadAsync(FileAsync, cancellationToken) : ((long)measured.Sum(table => table.Weight), 0);
        // SQLite's weights are shares of what is used, PostgreSQL's are bytes.
        var unit = IsSqlite && measured.Sum(table => table.Weight) is > 0 and var all ? (bytes - free) / all : 1;
        return new StoreSize(database.Provider, bytes, free, IsSqlite, days, [.. measured
            .Select(table => Of(table.Table, table.Rows, (long)(table.Weight * unit), table.Recent, days))
            .OrderByDescending(table => table.Bytes).ThenBy(table => table.Table, StringComparer.Ordinal)]);
    }

    private static TableSize Of(string table, long rows, long bytes, long? recent, double days)
    {
        var aDay = recent is { } count ? (long?)Math.Round(count / days) : null;
        return new TableSize(table, rows, bytes, aDay, aDay is { } more && rows > 0 ? (long)((double)bytes / rows * more) : aDay);
    }

    private Task<T> ReadAsync<T>(Func<StoreConnection, Task<T>> read, CancellationToken cancellationToken) => database.ReadAsync(read, cancellationToken);

    private async Task<List<string>> NamesAsync(StoreConnection connection) => await connection.QueryAsync<string>(IsSqlite
        ? "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name"
        : "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema() AND tablename <> 'schema_version' ORDER BY tablename");

    /// <summary>A store that is younger than a week is measured over its age.</summary>
    private async Task<double> DaysAsync(StoreConnection connection)
    {
        var now = clock.GetUtcNow();
        var first = (await EventQueries.BehindAsync(connection, 0)).OldestAt ?? now.ToUnixTimeMilliseconds();
        return Math.Clamp((now - DateTimeOffset.FromUnixTimeMilliseconds(first)).TotalDays, Shortest.TotalDays, Longest.TotalDays);
    }

    private async Task<(string Table, long Rows, double Weight, long? Recent)> MeasureAsync(StoreConnection connection, string table, long since)
    {
        var rows = await connection.ExecuteScalarAsync<long>($"SELECT count(*) FROM {table}");
        var weight = IsSqlite
            ? await SqliteWeightAsync(connection, table, rows)
            : await connection.ExecuteScalarAsync<long>("SELECT pg_total_relation_size(@table::regclass)", new { table });
        var (time, number) = Tables.GetValueOrDefault(table);
        return (table, rows, weight, time is null ? null : rows == 0 ? 0 : await RecentAsync(connection, table, time, number, since));
    }

    private static async Task<long> RecentAsync(StoreConnection connection, string table, string time, string? number, long since)
    {
        if (number is null)
        {
            return await connection.ExecuteScalarAsync<long>($"SELECT count(*) FROM {table} WHERE {time} >= @since", new { since });
        }
        // The first of them is found by halves: the numbers grow with the times.
        var (low, high) = (await connection.ExecuteScalarAsync<long>($"SELECT min({number}) FROM {table}"), await connection.ExecuteScalarAsync<long>($"SELECT max({number}) FROM {table}") + 1);
        while (low < high)
        {
            var middle = low + ((high - low) / 2);
            var at = await connection.ExecuteScalarAsync<long?>($"SELECT {time} FROM {table} WHERE {number} >= @middle ORDER BY {number} LIMIT 1", new { middle });
            (low, high) = at is null || at >= since ? (low, middle) : (middle + 1, high);
        }
        return await connection.ExecuteScalarAsync<long>($"SELECT count(*) FROM {table} WHERE {number} >= @low", new { low });
    }

    /// <summary>What its rows and their entries in indexes take by their newest ones, in the same unit for all tables.</summary>
    private static async Task<double> SqliteWeightAsync(StoreConnection connection, string table, long rows)
    {
        var columns = await connection.QueryAsync<string>("SELECT name FROM pragma_table_info(@table)", new { table });
        // An expression in an index has no name; what it takes is left out.
        var indexed = await connection.QueryAsync<string>(
            """
            SELECT i.name FROM pragma_index_list(@table) AS l, pragma_index_info(l.name) AS i WHERE i.name IS NOT NULL AND l.partial = 0 AND NOT (l.origin = 'pk' AND
                EXISTS (SELECT 1 FROM sqlite_master WHERE name = @table AND sql LIKE '%WITHOUT ROWID%'))
            """,
            new { table });
        var one = string.Join(" + ", columns.Concat(indexed).Select(column => $"coalesce(octet_length({column}), 0)"));
        var newest = columns.Contains("id") ? "ORDER BY id DESC" : "";
        var average = await connection.ExecuteScalarAsync<double?>($"SELECT avg({one}) FROM (SELECT * FROM {table} {newest} LIMIT {Sample})") ?? 0;
        return rows * (average + 10 + (2 * indexed.Count));
    }

    private static async Task<(long Bytes, long Free)> FileAsync(StoreConnection connection)
    {
        var page = await connection.ExecuteScalarAsync<long>("PRAGMA page_size");
        return (await connection.ExecuteScalarAsync<long>("PRAGMA page_count") * page, await connection.ExecuteScalarAsync<long>("PRAGMA freelist_count") * page);
    }
}

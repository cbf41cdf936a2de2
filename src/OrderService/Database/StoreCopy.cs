using System.Globalization;
using System.Text.Json;
using OrderService.Store;

namespace OrderService.Database;

/// <summary>A table that is copied.</summary>
/// <param name="Key">What its rows are read in the order of: columns that tell them apart.</param>
internal sealed record CopyTable(string Name, IReadOnlyList<string> Columns, IReadOnlyList<string> Key);

/// <summary>What a copy needs of each of the databases.</summary>
internal interface ICopyEnd
{
    IDatabase Database { get; }

    /// <summary>Sees to it that nobody serves the store meanwhile.</summary>
    /// <exception cref="StoreInUseException">Somebody does.</exception>
    Task RequireAloneAsync(CancellationToken cancellationToken);

    Task<IReadOnlyList<CopyTable>> TablesAsync(StoreConnection connection);

    Task InsertAsync(StoreTransaction transaction, CopyTable table, IReadOnlyList<object?[]> rows);

    /// <summary>The highest number that each table has given out, rows that are gone included.</summary>
    Task<IReadOnlyDictionary<string, long>> NumbersAsync(StoreConnection connection);

    /// <summary>What comes next gets higher numbers than those, and positions of the epoch.</summary>
    Task SetNumbersAsync(StoreTransaction transaction, IReadOnlyDictionary<string, long> numbers, long epoch);

    /// <summary>The highest number of a relay's lease.</summary>
    Task<long> HighestLeaseAsync(StoreConnection connection);

    /// <summary>The copy is whole. What relays it next has a higher number.</summary>
    Task FinishedAsync(long highestLease, CancellationToken cancellationToken);
}

/// <summary>
/// Copies a store into an empty one, table by table and batch by batch; how far it came stands in the target, so that it goes on after an interruption. Until it is finished nobody serves the
/// target. The copy is the same store: its name, its epoch, its positions and ids.
/// </summary>
internal sealed class StoreCopy(ICopyEnd from, ICopyEnd to)
{
    private const int RowsABatch = 2_000;
    private const long BytesABatch = 8 * 1024 * 1024;

    /// <summary>Of one provider alone, or written when the copy is whole.</summary>
    private static readonly string[] Apart = ["relay_leases", "relay_members", "epochs", "store_identity"];

    /// <summary>What a store that was only just made has no row in.</summary>
    private static readonly string[] Empty = ["events", "orders", "inbox", "outbox", "deferred", "rejections", "dead_letters", "audit"];

    /// <param name="progress">Told the rows copied so far and of all.</param>
    /// <returns>How many rows were copied of each table, those of before an interruption included.</returns>
    /// <exception cref="StoreFileException">The target is no store to copy into, or the copy is not what was copied.</exception>
    public async Task<IReadOnlyDictionary<string, long>> RunAsync(IProgress<(long Done, long Total)>? progress, CancellationToken cancellationToken)
    {
        await from.RequireAloneAsync(cancellationToken);
        await to.RequireAloneAsync(cancellationToken);
        await from.Database.RequireSchemaAsync(cancellationToken);
        var tables = await from.Database.ReadAsync(CopiedAsync(from), cancellationToken);
        var source = await from.Database.ReadAsync(SourceAsync, cancellationToken);
        await BeginAsync(tables, source, cancellationToken);

        var counts = await CountAsync(from.Database, tables, cancellationToken);
        var (done, total) = (0L, counts.Values.Sum());
        foreach (var table in tables)
        {
            var (mark, copied) = await to.Database.ReadAsync(connection => CopyProgress.FindAsync(connection, table.Name), cancellationToken);
            done += copied;
            while (true)
            {
                progress?.Report((done, total));
                var rows = await from.Database.ReadAsync(connection => PageAsync(connection, table, mark), cancellationToken);
                if (rows.Count == 0)
                {
                    break;
                }
                mark = [.. rows[^1].Skip(table.Columns.Count)];
                copied += rows.Count;
                done += rows.Count;
                await to.Database.WriteAsync(
                    async transaction =>
                    {
                        await to.InsertAsync(transaction, table, rows);
                        await CopyProgress.SetAsync(transaction, table.Name, mark, copied);
                        return true;
                    },
                    cancellationToken);
            }
        }
        // What was copied is sealed: without them nobody reads it there.
        from.Database.Keys.CopyTo(to.Database.Keys);
        var made = await CountAsync(to.Database, tables, cancellationToken);
        var different = counts.Where(table => made[table.Key] != table.Value).Select(table => string.Create(CultureInfo.InvariantCulture, $"{table.Key} has {made[table.Key]} rows instead of {table.Value}")).ToList();
        if (different.Count > 0)
        {
            throw new StoreFileException($"The copy is not what was copied: {string.Join("; ", different)}. Begin again with an empty target.");
        }
        return made;
    }

    /// <summary>Makes the copy a store that is served.</summary>
    public async Task FinishAsync(CancellationToken cancellationToken)
    {
        var (tables, epoch, numbers) = await from.Database.ReadAsync(
            async connection => ((await from.TablesAsync(connection)).Where(table => table.Name is "epochs" or "store_identity").ToList(), await EpochsTable.CurrentAsync(connection), await from.NumbersAsync(connection)),
            cancellationToken);
        var rows = await from.Database.ReadAsync(
            async connection =>
            {
                var read = new List<(CopyTable Table, List<object?[]> Rows)>();
                foreach (var table in tables)
                {
                    read.Add((table, await PageAsync(connection, table, null)));
                }
                return read;
            },
            cancellationToken);
        var lease = await from.Database.ReadAsync(from.HighestLeaseAsync, cancellationToken);
        // What came to its end must not be undone by an interruption that comes too late.
        await to.Database.WriteAsync(
            async transaction =>
            {
                foreach (var (table, all) in rows)
                {
                    await transaction.ExecuteAsync($"DELETE FROM {table.Name}");
                    await to.InsertAsync(transaction, table, all);
                }
                await to.SetNumbersAsync(transaction, numbers, epoch);
                await CopyProgress.EndAsync(transaction);
                return true;
            },
            CancellationToken.None);
        await to.FinishedAsync(lease, CancellationToken.None);
    }

    private static Func<StoreConnection, Task<List<CopyTable>>> CopiedAsync(ICopyEnd end) => async connection => [.. (await end.TablesAsync(connection)).Where(table => !Apart.Contains(table.Name))];

    /// <summary>Which store it is, and how far: one that was served meanwhile is another.</summary>
    private static async Task<string> SourceAsync(StoreConnection connection)
    {
        var (id, epoch) = (await EpochsTable.StoreIdAsync(connection), await EpochsTable.CurrentAsync(connection));
        var (newest, events) = (await EventQueries.NewestAsync(connection), await EventQueries.CountAsync(connection));
        return string.Create(CultureInfo.InvariantCulture, $"{id} {epoch} {newest} {events}");
    }

    private async Task BeginAsync(List<CopyTable> tables, string source, CancellationToken cancellationToken)
    {
        // A write, because a SQLite file may not be there yet.
        if (await to.Database.WriteAsync(CopyProgress.IsThereAsync, cancellationToken))
        {
            if (await to.Database.ReadAsync(CopyProgress.SourceAsync, cancellationToken) != source)
            {
                throw new StoreFileException("The target holds the beginning of a copy of another store, or this one was served since that copy began. Begin again with an empty target.");
            }
            return;
        }
        await to.Database.MigrateAsync(cancellationToken);
        var there = await to.Database.ReadAsync(CopiedAsync(to), cancellationToken);
        RequireSame(tables, there);
        var counts = await CountAsync(to.Database, there, cancellationToken);
        if (Empty.Where(table => counts.GetValueOrDefault(table) > 0).ToList() is { Count: > 0 } full)
        {
            throw new StoreFileException(string.Create(
                CultureInfo.InvariantCulture, $"The target is in use: it has {counts[full[0]]} rows in {full[0]}. A store is copied into an empty one only; the service must never have served it."));
        }
        await to.Database.WriteAsync(
            async transaction =>
            {
                await CopyProgress.BeginAsync(transaction, source);
                foreach (var table in there)
                {
                    // What a new store begins with.
                    await transaction.ExecuteAsync($"DELETE FROM {table.Name}");
                }
                return true;
            },
            cancellationToken);
    }

    private static void RequireSame(IReadOnlyList<CopyTable> ours, IReadOnlyList<CopyTable> theirs)
    {
        var different = ours.Select(Text).Except(theirs.Select(Text)).Concat(theirs.Select(Text).Except(ours.Select(Text))).ToList();
        if (different.Count > 0)
        {
            throw new StoreFileException($"The two stores do not have the same tables; somebody added or removed something: {string.Join("; ", different.Take(4))}.");
        }

        static string Text(CopyTable table) => $"{table.Name} ({string.Join(", ", table.Columns.Order(StringComparer.Ordinal))})";
    }

    private static async Task<Dictionary<string, long>> CountAsync(IDatabase database, IReadOnlyList<CopyTable> tables, CancellationToken cancellationToken)
    {
        var counts = new Dictionary<string, long>(StringComparer.Ordinal);
        foreach (var table in tables)
        {
            counts[table.Name] = await database.ReadAsync(connection => connection.ExecuteScalarAsync<long>($"SELECT count(*) FROM {table.Name}"), cancellationToken);
        }
        return counts;
    }

    /// <summary>The next rows, each with its key behind its columns.</summary>
    private static Task<List<object?[]>> PageAsync(StoreConnection connection, CopyTable table, object?[]? mark)
    {
        var key = string.Join(", ", table.Key);
        var parameters = new Dictionary<string, object?>();
        for (var index = 0; index < mark?.Length; index++)
        {
            parameters[$"k{index}"] = mark[index];
        }
        var behind = mark is null ? "" : $"WHERE ({key}) > ({string.Join(", ", parameters.Keys.Select(name => $"@{name}"))})";
        return connection.QueryRowsAsync($"SELECT {string.Join(", ", table.Columns)}, {key} FROM {table.Name} {behind} ORDER BY {key} LIMIT {RowsABatch}", parameters, BytesABatch);
    }
}

/// <summary>How far a copy into this store came. The table is there as long as the copy is not finished, and as long as it is there nobody serves the store.</summary>
internal static class CopyProgress
{
    private const string Table = "copy_progress";

    /// <exception cref="StoreSettingsException">A copy into this store was begun and not finished.</exception>
    public static async Task RequireNoneAsync(StoreConnection connection)
    {
        if (await IsThereAsync(connection))
        {
            throw new StoreSettingsException("A copy into this store did not come to its end. Run orderservice store copy again, which goes on with it, or begin with an empty store.");
        }
    }

    public static async Task<bool> IsThereAsync(StoreConnection connection) => await connection.HasTableAsync(Table);

    public static Task<string?> SourceAsync(StoreConnection connection) => connection.ExecuteScalarAsync<string>($"SELECT mark FROM {Table} WHERE name = ''");

    public static async Task BeginAsync(StoreTransaction transaction, string source)
    {
        await transaction.ExecuteAsync($"CREATE TABLE {Table} (name TEXT NOT NULL PRIMARY KEY, mark TEXT NOT NULL, copied BIGINT NOT NULL)");
        await transaction.ExecuteAsync($"INSERT INTO {Table} (name, mark, copied) VALUES ('', @source, 0)", new { source });
    }

    public static async Task<(object?[]? Mark, long Copied)> FindAsync(StoreConnection connection, string table)
    {
        var (mark, copied) = await connection.QuerySingleOrDefaultAsync<(string? Mark, long Copied)>($"SELECT mark, copied FROM {Table} WHERE name = @table", new { table });
        return (mark is null ? null : [.. JsonSerializer.Deserialize<string[]>(mark)!.Select(Read)], copied);
    }

    public static Task SetAsync(StoreTransaction transaction, string table, object?[] mark, long copied) => transaction.ExecuteAsync(
        $"INSERT INTO {Table} (name, mark, copied) VALUES (@table, @text, @copied) ON CONFLICT (name) DO UPDATE SET mark = excluded.mark, copied = excluded.copied",
        new { table, text = JsonSerializer.Serialize(mark.Select(Write)), copied });

    public static Task EndAsync(StoreTransaction transaction) => transaction.ExecuteAsync($"DROP TABLE {Table}");

    private static string Write(object? value) => value switch
    {
        long number => "n" + number.ToString(CultureInfo.InvariantCulture),
        byte[] bytes => "b" + Convert.ToBase64String(bytes),
        string text => "t" + text,
        _ => throw new InvalidDataException($"A key is neither number, text nor bytes, but {value?.GetType().Name ?? "nothing"}."),
    };

    private static object Read(string text) => text[0] switch
    {
        'n' => long.Parse(text.AsSpan(1), CultureInfo.InvariantCulture),
        'b' => Convert.FromBase64String(text[1..]),
        _ => text[1..],
    };
}

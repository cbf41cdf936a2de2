using OrderService.Store;

namespace OrderService.Database;

/// <summary>A SQLite store that is copied, or copied into.</summary>
internal sealed class SqliteCopyEnd(SqliteDatabase database) : ICopyEnd
{
    public IDatabase Database => database;

    public Task RequireAloneAsync(CancellationToken cancellationToken) => database.ClaimAsync(cancellationToken);

    public async Task<IReadOnlyList<CopyTable>> TablesAsync(StoreConnection connection)
    {
        var tables = new List<CopyTable>();
        foreach (var name in await connection.QueryAsync<string>("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name <> 'copy_progress' ORDER BY name"))
        {
            var columns = await connection.QueryAsync<(string Name, long Key)>("SELECT name, pk FROM pragma_table_info(@name)", new { name });
            var key = columns.Where(column => column.Key > 0).OrderBy(column => column.Key).Select(column => column.Name).ToList();
            tables.Add(new CopyTable(name, columns.ConvertAll(column => column.Name), key.Count > 0 ? key : ["rowid"]));
        }
        return tables;
    }

    public Task InsertAsync(StoreTransaction transaction, CopyTable table, IReadOnlyList<object?[]> rows) => transaction.ExecuteEachAsync(
        $"INSERT INTO {table.Name} ({string.Join(", ", table.Columns)}) VALUES ({string.Join(", ", table.Columns.Select((_, index) => $"@p{index}"))})", table.Columns.Count, rows);

    public async Task<IReadOnlyDictionary<string, long>> NumbersAsync(StoreConnection connection) =>
        (await connection.QueryAsync<(string Name, long Number)>("SELECT name, seq FROM sqlite_sequence")).ToDictionary(row => row.Name, row => row.Number, StringComparer.Ordinal);

    public async Task SetNumbersAsync(StoreTransaction transaction, IReadOnlyDictionary<string, long> numbers, long epoch)
    {
        foreach (var table in await transaction.QueryAsync<string>("SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%'"))
        {
            await transaction.ExecuteAsync("DELETE FROM sqlite_sequence WHERE name = @table", new { table });
            await transaction.ExecuteAsync("INSERT INTO sqlite_sequence (name, seq) VALUES (@table, @number)", new { table, number = numbers.GetValueOrDefault(table) });
        }
    }

    public Task<long> HighestLeaseAsync(StoreConnection connection) => Task.FromResult(database.HighestLease);

    public Task FinishedAsync(long highestLease, CancellationToken cancellationToken)
    {
        database.HighestLease = highestLease;
        return database.NoteSeenAsync(cancellationToken);
    }
}

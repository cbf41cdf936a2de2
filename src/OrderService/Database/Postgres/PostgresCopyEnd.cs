using System.Globalization;
using OrderService.Store;

namespace OrderService.Database;

/// <summary>A store in PostgreSQL that is copied, or copied into.</summary>
internal sealed class PostgresCopyEnd(PostgresDatabase database) : ICopyEnd
{
    private Dictionary<(string Table, string Column), string>? types;

    public IDatabase Database => database;

    public Task RequireAloneAsync(CancellationToken cancellationToken) => database.RequireAloneAsync(cancellationToken);

    public async Task<IReadOnlyList<CopyTable>> TablesAsync(StoreConnection connection)
    {
        var columns = await ColumnsAsync(connection);
        var tables = new List<CopyTable>();
        foreach (var table in columns.GroupBy(column => column.Table))
        {
            var key = await connection.QueryAsync<string>(
                """
                SELECT a.attname::text
                FROM (SELECT indrelid, indkey FROM pg_index WHERE indrelid = @Key::regclass AND indisunique AND indpred IS NULL AND indexprs IS NULL ORDER BY indisprimary DESC, indexrelid LIMIT 1) i
                CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
                JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum ORDER BY k.place
                """,
                new { table.Key });
            tables.Add(new CopyTable(table.Key, [.. table.Select(column => column.Column)], key));
        }
        return tables;
    }

    public async Task InsertAsync(StoreTransaction transaction, CopyTable table, IReadOnlyList<object?[]> rows)
    {
        types ??= (await ColumnsAsync(transaction)).ToDictionary(column => (column.Table, column.Column), column => column.Type);
        var arrays = table.Columns.Select((column, index) => (Type: types[(table.Name, column)], Index: index)).ToList();
        await transaction.ExecuteAsync(
            $"INSERT INTO {table.Name} ({string.Join(", ", table.Columns)}) SELECT * FROM unnest({string.Join(", ", arrays.Select(array => $"@p{array.Index}::{array.Type}[]"))})",
            arrays.ToDictionary(array => $"p{array.Index}", array => (object)Array(array.Type, array.Index, rows)));
    }

    public async Task<IReadOnlyDictionary<string, long>> NumbersAsync(StoreConnection connection)
    {
        var numbers = new Dictionary<string, long>(StringComparer.Ordinal);
        foreach (var (table, sequence) in await SequencesAsync(connection))
        {
            numbers[table] = await connection.ExecuteScalarAsync<long>($"SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {sequence}");
        }
        return numbers;
    }

    public async Task SetNumbersAsync(StoreTransaction transaction, IReadOnlyDictionary<string, long> numbers, long epoch)
    {
        foreach (var (table, sequence) in await SequencesAsync(transaction))
        {
            var column = table switch { "events" => "position", "orders" => "seq", _ => "id" };
            var highest = Math.Max(numbers.GetValueOrDefault(table), await transaction.ExecuteScalarAsync<long>($"SELECT coalesce(max({column}), 0) FROM {table}"));
            if (table == "events")
            {
                highest = Math.Max(highest, StoreEpoch.FirstPosition(epoch) - 1);
            }
            await transaction.ExecuteAsync(string.Create(CultureInfo.InvariantCulture, $"SELECT setval('{sequence}', {highest + 1}, false)"));
        }
    }

    public Task<long> HighestLeaseAsync(StoreConnection connection) => PostgresRelayLease.HighestAsync(connection);

    public Task FinishedAsync(long highestLease, CancellationToken cancellationToken) =>
        database.WriteAsync(transaction => PostgresRelayLease.JumpAsync(transaction, highestLease), cancellationToken);

    private static async Task<List<(string Table, string Column, string Type)>> ColumnsAsync(StoreConnection connection) =>
        await connection.QueryAsync<(string Table, string Column, string Type)>(
            """
            SELECT c.table_name::text, c.column_name::text, c.data_type::text
            FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name)
            WHERE c.table_schema = current_schema() AND t.table_type = 'BASE TABLE' AND c.table_name NOT IN ('schema_version', 'copy_progress')
            ORDER BY c.table_name, c.ordinal_position
            """);

    private static Task<List<(string Table, string Sequence)>> SequencesAsync(StoreConnection connection) => connection.QueryAsync<(string Table, string Sequence)>(
        """
        SELECT table_name::text, pg_get_serial_sequence(table_name, column_name) FROM information_schema.columns
        WHERE table_schema = current_schema() AND is_identity = 'YES' ORDER BY table_name
        """);

    private static object Array(string type, int column, IReadOnlyList<object?[]> rows) => type switch
    {
        "bigint" or "integer" or "smallint" => rows.Select(row => (long?)row[column]).ToArray(),
        "text" or "character varying" => rows.Select(row => (string?)row[column]).ToArray(),
        "bytea" => rows.Select(row => (byte[]?)row[column]).ToArray(),
        "double precision" or "real" => rows.Select(row => row[column] is { } value ? Convert.ToDouble(value, CultureInfo.InvariantCulture) : (double?)null).ToArray(),
        _ => throw new StoreFileException($"A column of the type {type} can't be copied; somebody added it."),
    };
}

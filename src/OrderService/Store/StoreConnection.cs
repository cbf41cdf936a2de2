using System.Data.Common;
using Dapper;

namespace OrderService.Store;

/// <summary>
/// What reads of the store run on, for SQLite and for PostgreSQL. Columns are matched with properties and constructor parameters by name, without regard to
/// case and underscores: <c>order_id</c> is <c>OrderId</c>.
/// </summary>
public class StoreConnection
{
    private protected readonly DbConnection Connection;
    private protected readonly DbTransaction? Transaction;
    private protected readonly bool IsSqlite;
    private readonly PersonalKeys? keys;

    static StoreConnection() => DefaultTypeMap.MatchNamesWithUnderscores = true;

    internal StoreConnection(DbConnection connection, PersonalKeys? keys, bool isSqlite)
    {
        Connection = connection;
        this.keys = keys;
        IsSqlite = isSqlite;
    }

    private protected StoreConnection(DbTransaction transaction, PersonalKeys keys, bool isSqlite) : this(transaction.Connection!, keys, isSqlite) => Transaction = transaction;

    /// <summary>Seals bodies before they are written and opens them when they were read.</summary>
    /// <exception cref="InvalidOperationException">The connection is one that looks at no body.</exception>
    public PersonalKeys Keys => keys ?? throw new InvalidOperationException("This connection has no keys.");

    /// <summary>
    /// The condition "is one of" for a list parameter, as each database wants it: <c>$"WHERE id {connection.In("@ids")}"</c>.
    /// SQLite gets a parameter for each value (keep it to some hundreds), PostgreSQL one array.
    /// </summary>
    public string In(string parameter) => IsSqlite ? $"IN {parameter}" : $"= ANY({parameter})";

    public async Task<List<T>> QueryAsync<T>(string sql, object? parameters = null) => (await Connection.QueryAsync<T>(sql, parameters, Transaction)).AsList();

    /// <summary>Row by row, for answers that may be large.</summary>
    public IAsyncEnumerable<T> QueryUnbufferedAsync<T>(string sql, object? parameters = null) =>
        Connection.QueryUnbufferedAsync<T>(sql, parameters, Transaction);

    public Task<T> QuerySingleAsync<T>(string sql, object? parameters = null) => Connection.QuerySingleAsync<T>(sql, parameters, Transaction);

    /// <returns>Null, or zeros, where there is no such row.</returns>
    public Task<T?> QuerySingleOrDefaultAsync<T>(string sql, object? parameters = null) =>
        Connection.QuerySingleOrDefaultAsync<T>(sql, parameters, Transaction);

    /// <summary>Rows without names, until they are so many bytes: whole numbers as <see cref="long"/>, others as text, bytes and <see cref="double"/>.</summary>
    internal async Task<List<object?[]>> QueryRowsAsync(string sql, object? parameters, long maxBytes)
    {
        var rows = new List<object?[]>();
        var bytes = 0L;
        await using var reader = await Connection.ExecuteReaderAsync(sql, parameters, Transaction);
        while (bytes < maxBytes && await reader.ReadAsync())
        {
            var row = new object?[reader.FieldCount];
            for (var column = 0; column < row.Length; column++)
            {
                row[column] = Value(reader, column);
                bytes += row[column] switch { byte[] some => some.Length, string some => some.Length, _ => 8 };
            }
            rows.Add(row);
        }
        return rows;
    }

    /// <summary>The same one by one, each only until the next one is read.</summary>
    internal async IAsyncEnumerable<object?[]> QueryRowsUnbufferedAsync(string sql, object? parameters)
    {
        await using var reader = await Connection.ExecuteReaderAsync(sql, parameters, Transaction);
        var row = new object?[reader.FieldCount];
        while (await reader.ReadAsync())
        {
            for (var column = 0; column < row.Length; column++)
            {
                row[column] = Value(reader, column);
            }
            yield return row;
        }
    }

    private static object? Value(DbDataReader reader, int column) => reader.GetValue(column) switch
    {
        DBNull => null,
        int or short => reader.GetInt64(column),
        float => reader.GetDouble(column),
        var value => value,
    };

    /// <summary>A text as its bytes where the driver would end it at the first zero.</summary>
    internal string TextBytes(string column) => IsSqlite ? $"CAST({column} AS BLOB)" : column;

    internal async Task<bool> HasTableAsync(string table) => await ExecuteScalarAsync<long>(
        IsSqlite ? "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = @table" : "SELECT count(to_regclass(@table))", new { table }) > 0;

    /// <returns>The first column of the first row.</returns>
    public Task<T?> ExecuteScalarAsync<T>(string sql, object? parameters = null, CancellationToken cancellationToken = default) =>
        Connection.ExecuteScalarAsync<T>(new CommandDefinition(sql, parameters, Transaction, cancellationToken: cancellationToken));
}

/// <summary>A write transaction of the store. Whoever opened it commits it.</summary>
public sealed class StoreTransaction : StoreConnection
{
    internal StoreTransaction(DbTransaction transaction, PersonalKeys keys, bool isSqlite) : base(transaction, keys, isSqlite) { }

    /// <returns>How many rows were written. A list of parameters runs the statement once for each.</returns>
    public Task<int> ExecuteAsync(string sql, object? parameters = null) => Connection.ExecuteAsync(sql, parameters, Transaction);

    /// <summary>One statement for each of many rows, whose first values are its parameters <c>@p0</c> and so on.</summary>
    internal async Task ExecuteEachAsync(string sql, int parameters, IReadOnlyList<object?[]> rows)
    {
        await using var command = Connection.CreateCommand();
        command.Transaction = Transaction;
        command.CommandText = sql;
        for (var index = 0; index < parameters; index++)
        {
            var parameter = command.CreateParameter();
            parameter.ParameterName = $"@p{index}";
            command.Parameters.Add(parameter);
        }
        foreach (var row in rows)
        {
            for (var index = 0; index < parameters; index++)
            {
                command.Parameters[index].Value = row[index] ?? DBNull.Value;
            }
            await command.ExecuteNonQueryAsync();
        }
    }

    /// <summary>Many rows at once: SQLite takes them one by one, PostgreSQL as arrays in one statement.</summary>
    /// <param name="columns">With their types in PostgreSQL: bigint, text or bytea.</param>
    internal Task InsertManyAsync(string table, IReadOnlyList<(string Name, string Type)> columns, IReadOnlyList<object?[]> rows)
    {
        var names = string.Join(", ", columns.Select(column => column.Name));
        if (IsSqlite)
        {
            return ExecuteEachAsync($"INSERT INTO {table} ({names}) VALUES ({string.Join(", ", columns.Select((_, index) => $"@p{index}"))})", columns.Count, rows);
        }
        var arrays = columns.Select((column, index) => (Name: $"p{index}", column.Type, Values: (object)(column.Type switch
        {
            "bigint" => rows.Select(row => (long?)row[index]).ToArray(),
            "bytea" => rows.Select(row => (byte[]?)row[index]).ToArray(),
            _ => rows.Select(row => (string?)row[index]).ToArray(),
        }))).ToList();
        return ExecuteAsync(
            $"INSERT INTO {table} ({names}) SELECT * FROM unnest({string.Join(", ", arrays.Select(array => $"@{array.Name}::{array.Type}[]"))})",
            arrays.ToDictionary(array => array.Name, array => array.Values));
    }

    /// <summary>What this transaction and those after it overwrite leaves no trace in SQLite's pages, until <see cref="IDatabase.ScrubAsync"/>; in PostgreSQL VACUUM takes the old rows out.</summary>
    internal Task OverwriteAsync() => IsSqlite ? ExecuteAsync("PRAGMA secure_delete = ON") : Task.CompletedTask;

    internal Task SaveAsync(string savepoint) => Transaction!.SaveAsync(savepoint);

    internal Task RollbackAsync(string savepoint) => Transaction!.RollbackAsync(savepoint);

    internal Task ReleaseAsync(string savepoint) => Transaction!.ReleaseAsync(savepoint);

    /// <summary>What PostgreSQL would look at with the COMMIT only, it looks at now.</summary>
    internal Task CheckDeferredAsync() => IsSqlite ? Task.CompletedTask : ExecuteAsync("SET CONSTRAINTS ALL IMMEDIATE");
}

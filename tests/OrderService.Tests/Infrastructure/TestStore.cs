using Dapper;
using Microsoft.Extensions.Logging.Abstractions;
using OrderService.Database;

namespace OrderService.Tests.Infrastructure;

/// <summary>An empty SQLite store in a file of its own, with the schema in place.</summary>
public sealed class TestStore : IAsyncDisposable
{
    private readonly string folder;

    private TestStore(string folder, SqliteDatabase database) => (this.folder, Database) = (folder, database);

    public SqliteDatabase Database { get; }

    public static async Task<TestStore> OpenAsync(TimeProvider? clock = null)
    {
        var folder = Directory.CreateTempSubdirectory("orderservice-test-").FullName;
        var database = new SqliteDatabase(Path.Combine(folder, "orders.db"), clock ?? TimeProvider.System, NullLogger<SqliteDatabase>.Instance);
        await database.MigrateAsync(TestContext.Current.CancellationToken);
        return new TestStore(folder, database);
    }

    public Task ExecuteAsync(string sql, object? parameters = null) => Database.WriteAsync(transaction => transaction.Connection!.ExecuteAsync(sql, parameters, transaction));

    public Task<T?> ScalarAsync<T>(string sql, object? parameters = null) => Database.ReadAsync(connection => connection.ExecuteScalarAsync<T>(sql, parameters));

    public Task<List<T>> QueryAsync<T>(string sql, object? parameters = null) => Database.ReadAsync(async connection => (await connection.QueryAsync<T>(sql, parameters)).AsList());

    public async ValueTask DisposeAsync()
    {
        await Database.DisposeAsync();
        Microsoft.Data.Sqlite.SqliteConnection.ClearAllPools();
        Directory.Delete(folder, recursive: true);
    }
}

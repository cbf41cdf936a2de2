using Microsoft.Extensions.Logging.Abstractions;
using OrderService.Database;
using OrderService.Store;

namespace OrderService.Tests.Infrastructure;

/// <summary>An empty store of a test's own, with the schema in place.</summary>
public sealed class TestStore : IAsyncDisposable
{
    private readonly string? folder;

    private TestStore(IDatabase database, string? folder = null) => (Database, this.folder) = (database, folder);

    public IDatabase Database { get; }

    /// <summary>Where SQLite's files lie; null on PostgreSQL.</summary>
    public string? Folder => folder;

    public IOrderEventStore Log => Database is SqliteDatabase sqlite
        ? new SqliteOrderEventStore(sqlite)
        : new PostgresOrderEventStore((PostgresDatabase)Database, TimeProvider.System, NullLogger<PostgresOrderEventStore>.Instance);

    /// <summary>ORDERSERVICE_TEST_STORE=Postgres: the journeys and the tests over HTTP run their services on PostgreSQL instead of SQLite.</summary>
    public static bool OnPostgres => Environment.GetEnvironmentVariable("ORDERSERVICE_TEST_STORE") == "Postgres";

    /// <summary>An empty database on the PostgreSQL that all tests share.</summary>
    /// <returns>Its connection string.</returns>
    public static async Task<string> AddPostgresDatabaseAsync() =>
        await (await TestContext.Current.GetFixture<PostgresContainerFixture>() ?? throw new InvalidOperationException("There is no PostgreSQL for tests.")).AddDatabaseAsync();

    /// <summary>SQLite in a file of its own.</summary>
    public static async Task<TestStore> OpenAsync()
    {
        var folder = Directory.CreateTempSubdirectory("orderservice-test-").FullName;
        return await MigrateAsync(new TestStore(new SqliteDatabase(Path.Combine(folder, "orders.db"), TimeProvider.System, NullLogger<SqliteDatabase>.Instance), folder));
    }

    /// <summary>A database of its own on the tests' PostgreSQL.</summary>
    /// <param name="told">Told its connection string.</param>
    public static async Task<TestStore> OpenAsync(PostgresContainerFixture postgres, Action<string>? told = null)
    {
        var address = await postgres.AddDatabaseAsync();
        told?.Invoke(address);
        return await MigrateAsync(new TestStore(new PostgresDatabase(address, NullLogger<PostgresDatabase>.Instance)));
    }

    public Task ExecuteAsync(string sql, object? parameters = null) => Database.WriteAsync(transaction => transaction.ExecuteAsync(sql, parameters));

    public Task<T?> ScalarAsync<T>(string sql, object? parameters = null) => Database.ReadAsync(connection => connection.ExecuteScalarAsync<T>(sql, parameters));

    public Task<List<T>> QueryAsync<T>(string sql, object? parameters = null) => Database.ReadAsync(connection => connection.QueryAsync<T>(sql, parameters));

    /// <summary>Bodies as they came.</summary>
    public async Task<List<byte[]>> BodiesAsync(string sql) => (await QueryAsync<byte[]>(sql)).ConvertAll(Database.Keys.OpenOrNone);

    public async ValueTask DisposeAsync()
    {
        await Database.DisposeAsync();
        if (folder is not null)
        {
            Microsoft.Data.Sqlite.SqliteConnection.ClearAllPools();
            Directory.Delete(folder, recursive: true);
        }
    }

    private static async Task<TestStore> MigrateAsync(TestStore store)
    {
        await store.Database.MigrateAsync(TestContext.Current.CancellationToken);
        return store;
    }
}

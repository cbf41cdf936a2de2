using Npgsql;
using OrderService.Tests.Infrastructure;
using Testcontainers.PostgreSql;

[assembly: AssemblyFixture(typeof(PostgresContainerFixture))]

namespace OrderService.Tests.Infrastructure;

/// <summary>
/// One PostgreSQL for all tests, started by the first that asks. Each test takes a database of its own.
/// A test that disturbs the whole server (pausing, killing) makes a <see cref="PostgresServer"/> of its own instead.
/// </summary>
public sealed class PostgresContainerFixture : IAsyncLifetime
{
    private readonly SemaphoreSlim starting = new(1);
    private PostgresServer? server;

    public ValueTask InitializeAsync() => ValueTask.CompletedTask;

    public async ValueTask DisposeAsync()
    {
        if (server is not null)
        {
            await server.DisposeAsync();
        }
        starting.Dispose();
    }

    /// <summary>Makes an empty database.</summary>
    /// <returns>Its connection string.</returns>
    public async Task<string> AddDatabaseAsync()
    {
        await starting.WaitAsync(TestContext.Current.CancellationToken);
        try
        {
            server ??= await PostgresServer.StartAsync();
        }
        finally
        {
            starting.Release();
        }
        return await server.AddDatabaseAsync();
    }
}

/// <summary>A PostgreSQL in a container, durable as in production, on a port that stays the same when it is started again.</summary>
public sealed class PostgresServer : IAsyncDisposable
{
    private readonly PostgreSqlContainer container;

    private PostgresServer(PostgreSqlContainer container) => this.container = container;

    /// <param name="settings">More settings, as <c>name=value</c>.</param>
    public static async Task<PostgresServer> StartAsync(params string[] settings)
    {
        await ContainerEngine.RequireAsync();
        var image = await ContainerEngine.ImageAsync("ORDERSERVICE_TEST_POSTGRES_IMAGE", "orderservice-test/postgres:17", "postgres:17");
        // What comes later wins: Testcontainers turns durability off, which the service rightly refuses.
        string[] all = ["fsync=on", "full_page_writes=on", "synchronous_commit=on", "max_connections=300", .. settings];
        var container = new PostgreSqlBuilder(image)
            .WithUsername("tests")
            .WithPassword("tests-password")
            .WithCommand([.. all.SelectMany(setting => new[] { "-c", setting })])
            .WithPortBinding(FreePort(), PostgreSqlBuilder.PostgreSqlPort)
            .WithLabel(ContainerEngine.RunLabel, ContainerEngine.Run)
            .Build();
        await container.StartAsync();
        return new PostgresServer(container);
    }

    public async Task<string> AddDatabaseAsync()
    {
        var name = $"test_{Guid.NewGuid():N}";
        await using var connection = new NpgsqlConnection(new NpgsqlConnectionStringBuilder(container.GetConnectionString()) { Pooling = false }.ToString());
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand($"CREATE DATABASE {name}", connection);
        await command.ExecuteNonQueryAsync();
        return new NpgsqlConnectionStringBuilder(container.GetConnectionString()) { Database = name }.ToString();
    }

    public Task PauseAsync() => container.PauseAsync();

    public Task UnpauseAsync() => container.UnpauseAsync();

    /// <summary>SIGKILL for every process of the server, as when its machine loses its power, and a start on the same data.</summary>
    public async Task CrashAndStartAsync()
    {
        await ContainerEngine.DockerAsync("kill", "--signal", "KILL", container.Id);
        await container.StartAsync();
    }

    public ValueTask DisposeAsync() => container.DisposeAsync();

    private static int FreePort()
    {
        using var listener = new System.Net.Sockets.TcpListener(System.Net.IPAddress.Loopback, 0);
        listener.Start();
        return ((System.Net.IPEndPoint)listener.LocalEndpoint).Port;
    }
}

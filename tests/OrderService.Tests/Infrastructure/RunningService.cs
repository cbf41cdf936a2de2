using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Dapper;
using Microsoft.Extensions.Logging.Abstractions;
using OrderService.Database;
using OrderService.Store;

namespace OrderService.Tests.Infrastructure;

/// <summary>
/// The service as a user runs it: the built binary as a process of its own, with a store of its own (see <see cref="TestStore"/>), that a test may stop, kill and start again.
/// Its store is looked at from outside.
/// </summary>
public sealed class RunningService : IAsyncDisposable
{
    private readonly Dictionary<string, string> settings;
    private readonly ConcurrentQueue<string> output = new();
    private readonly IDatabase database;
    private readonly EventQueries events;
    private Process? process;

    private RunningService(string broker, string folder, Dictionary<string, string>? more)
    {
        Folder = folder;
        Url = $"http://127.0.0.1:{FreePort()}";
        settings = new Dictionary<string, string>(StringComparer.Ordinal)
        {
            ["RabbitMq__Uri"] = broker,
            ["RabbitMq__MaxReconnectDelay"] = "00:00:00.500",
            ["Store__Path"] = Path.Combine(folder, "orders.db"),
            ["Urls"] = Url,
            ["ManagementUrls"] = "",
            ["Api__Keys__0__Name"] = "tests",
            ["Api__Keys__0__Key"] = ApiKey,
            ["Api__Keys__0__Scopes__0"] = "publish",
            ["Api__Keys__0__Scopes__1"] = "read",
            ["Api__Keys__0__Scopes__2"] = "operate",
            ["DOTNET_gcServer"] = "0",
            // Few of them listen to events.
            ["RabbitMq__ExpectSubscribers"] = "false",
        };
        foreach (var (name, value) in more ?? [])
        {
            settings[name] = value;
        }
        if (settings.GetValueOrDefault("Store__ConnectionString") is { } connectionString)
        {
            settings["Store__Provider"] = "Postgres";
            settings.Remove("Store__Path");
            database = new PostgresDatabase(connectionString, NullLogger<PostgresDatabase>.Instance);
        }
        else
        {
            database = new SqliteDatabase(Path.Combine(folder, "orders.db"), TimeProvider.System, NullLogger<SqliteDatabase>.Instance);
        }
        events = new EventQueries(database);
        // Shorter than the 20 s after which the service ends a quiet connection, or a request meets the end.
        Http = new HttpClient(new SocketsHttpHandler { PooledConnectionIdleTimeout = TimeSpan.FromSeconds(10) }) { BaseAddress = new Uri(Url) };
        Http.DefaultRequestHeaders.Add("X-Api-Key", ApiKey);
    }

    public const string ApiKey = "test-key-0123456789-0123456789-0123456789";

    public string Folder { get; }

    public string Url { get; }

    /// <summary>The broker's address, with the virtual host.</summary>
    public string Broker => settings["RabbitMq__Uri"];

    /// <summary>A client with a key for every scope.</summary>
    public HttpClient Http { get; }

    /// <summary>Everything the process wrote so far, over all its starts.</summary>
    public string Output => string.Join('\n', output);

    public bool HasExited => process!.HasExited;

    /// <summary>How the last run ended.</summary>
    public int ExitCode => process!.ExitCode;

    /// <summary>The memory that the process has in use.</summary>
    public long ResidentBytes
    {
        get
        {
            process!.Refresh();
            return process.WorkingSet64;
        }
    }

    /// <summary>Starts the service and waits until it is ready.</summary>
    public static async Task<RunningService> StartAsync(string broker, Dictionary<string, string>? settings = null, bool waitUntilReady = true)
    {
        if (TestStore.OnPostgres && settings?.ContainsKey("Store__ConnectionString") != true)
        {
            settings = new Dictionary<string, string>(settings ?? [], StringComparer.Ordinal) { ["Store__ConnectionString"] = await TestStore.AddPostgresDatabaseAsync() };
        }
        var service = new RunningService(broker, Directory.CreateTempSubdirectory("orderservice-").FullName, settings);
        try
        {
            await service.StartAgainAsync(waitUntilReady: waitUntilReady);
            return service;
        }
        catch
        {
            await service.DisposeAsync();
            throw;
        }
    }

    /// <summary>Changes a setting from the next start on.</summary>
    public void Set(string name, string value) => settings[name] = value;

    /// <summary>Starts it again on the same store, after <see cref="KillAsync"/> or <see cref="StopAsync"/>.</summary>
    /// <param name="failpoint">Armed in this run only; an empty text disarms.</param>
    public async Task StartAgainAsync(string? failpoint = null, bool waitUntilReady = true)
    {
        var start = new ProcessStartInfo(Environment.ProcessPath is { } host && Path.GetFileNameWithoutExtension(host) == "dotnet" ? host : "dotnet")
        {
            ArgumentList = { Path.Combine(AppContext.BaseDirectory, "orderservice.dll"), "serve" },
            WorkingDirectory = Folder,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        foreach (var (name, value) in settings)
        {
            start.Environment[name] = value;
        }
        if (failpoint is not null)
        {
            start.Environment["ORDERSERVICE_FAILPOINT"] = failpoint;
        }
        process = Process.Start(start)!;
        process.OutputDataReceived += (_, line) => Keep(line.Data);
        process.ErrorDataReceived += (_, line) => Keep(line.Data);
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        if (waitUntilReady)
        {
            await WaitUntilReadyAsync();
        }
    }

    public Task WaitUntilReadyAsync(TimeSpan? deadline = null) => Eventually.HoldsAsync(
        async () =>
        {
            using var response = await Http.GetAsync(new Uri("/health/ready", UriKind.Relative));
            Assert.True(response.StatusCode == HttpStatusCode.OK, $"{await response.Content.ReadAsStringAsync()}\n{Output}");
        },
        deadline);

    /// <summary>Waits until the store has so many events and the broker has all of them.</summary>
    public Task HoldsRelayedAsync(int events, TimeSpan? deadline = null) => Eventually.HoldsAsync(
        async () =>
        {
            var (stored, outbox) = (await ScalarAsync<long>("SELECT count(*) FROM events"), await ScalarAsync<long>("SELECT count(*) FROM outbox"));
            Assert.True(stored == events && outbox == 0, $"{stored} events, {outbox} in the outbox\n{string.Join('\n', Output.Split('\n').TakeLast(20))}");
        },
        deadline);

    public async Task<bool> IsReadyAsync()
    {
        try
        {
            using var response = await Http.GetAsync(new Uri("/health/ready", UriKind.Relative));
            return response.StatusCode == HttpStatusCode.OK;
        }
        catch (HttpRequestException)
        {
            return false;
        }
    }

    /// <summary>SIGKILL: nothing is flushed, nothing is said goodbye to.</summary>
    public async Task KillAsync()
    {
        process!.Kill();
        await process.WaitForExitAsync();
    }

    /// <summary>SIGTERM, as a container runtime sends it.</summary>
    /// <returns>The exit code.</returns>
    public async Task<int> StopAsync()
    {
        using var kill = Process.Start("kill", ["-TERM", process!.Id.ToString(System.Globalization.CultureInfo.InvariantCulture)]);
        await WaitForExitAsync();
        return process.ExitCode;
    }

    /// <summary>SIGSTOP: the process does nothing at all and holds what it holds, until <see cref="ThawAsync"/>.</summary>
    public Task FreezeAsync() => SignalAsync("-STOP");

    /// <summary>SIGCONT.</summary>
    public Task ThawAsync() => SignalAsync("-CONT");

    private async Task SignalAsync(string signal)
    {
        using var kill = Process.Start("kill", [signal, process!.Id.ToString(System.Globalization.CultureInfo.InvariantCulture)]);
        await kill.WaitForExitAsync();
    }

    /// <summary>Waits until the process ended by itself.</summary>
    public async Task WaitForExitAsync()
    {
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        await process!.WaitForExitAsync(deadline.Token);
    }

    /// <summary>An order's events, oldest first.</summary>
    public Task<IReadOnlyList<RecordedEvent>> StreamAsync(string orderId) => events.StreamAsync(orderId, TestContext.Current.CancellationToken);

    /// <summary>One value out of the store.</summary>
    public Task<T?> ScalarAsync<T>(string sql, object? parameters = null) =>
        database.ReadAsync(connection => connection.ExecuteScalarAsync<T>(sql, parameters));

    /// <summary>One column out of the store.</summary>
    public Task<List<T>> ColumnAsync<T>(string sql, object? parameters = null) =>
        database.ReadAsync(connection => connection.QueryAsync<T>(sql, parameters));

    /// <summary>Bodies as they came.</summary>
    public async Task<List<byte[]>> BodiesAsync(string sql) => (await ColumnAsync<byte[]>(sql)).ConvertAll(database.Keys.OpenOrNone);

    /// <summary>Changes the store behind the service's back.</summary>
    public Task ExecuteAsync(string sql, object? parameters = null) => database.WriteAsync(transaction => transaction.ExecuteAsync(sql, parameters));

    public async ValueTask DisposeAsync()
    {
        if (process is { HasExited: false })
        {
            await KillAsync();
        }
        process?.Dispose();
        Http.Dispose();
        await database.DisposeAsync();
        Microsoft.Data.Sqlite.SqliteConnection.ClearAllPools();
        Directory.Delete(Folder, recursive: true);
    }

    private void Keep(string? line)
    {
        if (line is not null)
        {
            output.Enqueue(line);
        }
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}

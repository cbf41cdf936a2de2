using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text;
using Npgsql;
using RabbitMQ.Client;

namespace OrderService.Chaos;

/// <summary>Where the service under trial keeps its data.</summary>
internal enum StoreKind
{
    Sqlite,
    Postgres,
}

/// <summary>Where broker and database are. <c>eng/chaos</c> starts them and says it in the environment.</summary>
internal sealed record Addresses(string Amqp, string Management, string Postgres, string Binary)
{
    public static Addresses Read() => new(Get("AMQP"), Get("MANAGEMENT"), Get("POSTGRES"), Get("BINARY"));

    private static string Get(string name) => Environment.GetEnvironmentVariable("ORDERSERVICE_CHAOS_" + name) is { Length: > 0 } value
        ? value
        : throw new ChaosException($"ORDERSERVICE_CHAOS_{name} is not set: start this program with eng/chaos.");
}

/// <summary>A trial that could not be made; says nothing about the service.</summary>
internal sealed class ChaosException(string message) : Exception(message);

/// <summary>One trial's own virtual host, database and folder. Everything random in it comes from the seed.</summary>
internal sealed class World : IAsyncDisposable
{
    private readonly Addresses addresses;
    private readonly HttpClient management;
    private readonly string name;

    private World(Addresses addresses, StoreKind store, int seed, IProgress<string> progress)
    {
        this.addresses = addresses;
        Store = store;
        Random = new Random(seed);
        Progress = progress;
        name = $"chaos-{store}-{seed}-{Guid.NewGuid():N}".ToLowerInvariant()[..40];
        Folder = Directory.CreateTempSubdirectory("orderservice-chaos-").FullName;
        management = new HttpClient { BaseAddress = new Uri(addresses.Management.TrimEnd('/') + "/") };
        var user = Uri.UnescapeDataString(new Uri(addresses.Amqp).UserInfo);
        management.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Basic", Convert.ToBase64String(Encoding.UTF8.GetBytes(user)));
    }

    public StoreKind Store { get; }

    public Random Random { get; }

    public IProgress<string> Progress { get; }

    public string Folder { get; }

    public string Binary => addresses.Binary;

    /// <summary>The AMQP address of this trial's virtual host.</summary>
    public string Amqp => new UriBuilder(addresses.Amqp) { Path = "/" + name }.Uri.AbsoluteUri;

    public string? ConnectionString => Store == StoreKind.Postgres
        ? new NpgsqlConnectionStringBuilder(addresses.Postgres) { Database = name.Replace('-', '_') }.ConnectionString
        : null;

    public static async Task<World> CreateAsync(StoreKind store, int seed, IProgress<string> progress)
    {
        var world = new World(Addresses.Read(), store, seed, progress);
        var user = Uri.UnescapeDataString(new Uri(world.addresses.Amqp).UserInfo.Split(':')[0]);
        (await world.management.PutAsJsonAsync($"api/vhosts/{world.name}", new { default_queue_type = "classic" })).EnsureSuccessStatusCode();
        (await world.management.PutAsJsonAsync($"api/permissions/{world.name}/{user}", new { configure = ".*", write = ".*", read = ".*" })).EnsureSuccessStatusCode();
        if (store == StoreKind.Postgres)
        {
            await world.AdministerAsync($"CREATE DATABASE {world.name.Replace('-', '_')}");
        }
        return world;
    }

    public async Task<IConnection> ConnectAsync(string who) =>
        await new ConnectionFactory { Uri = new Uri(Amqp), ClientProvidedName = $"chaos {who}", AutomaticRecoveryEnabled = false }.CreateConnectionAsync();

    public async ValueTask DisposeAsync()
    {
        using (await management.DeleteAsync(new Uri($"api/vhosts/{name}", UriKind.Relative)))
        {
            management.Dispose();
        }
        if (Store == StoreKind.Postgres)
        {
            NpgsqlConnection.ClearAllPools();
            await AdministerAsync($"DROP DATABASE IF EXISTS {name.Replace('-', '_')} WITH (FORCE)");
        }
        Directory.Delete(Folder, recursive: true);
    }

    private async Task AdministerAsync(string sql)
    {
        await using var connection = new NpgsqlConnection(addresses.Postgres);
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(sql, connection);
        await command.ExecuteNonQueryAsync();
    }
}

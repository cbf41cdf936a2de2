using System.Globalization;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using Npgsql;
using RabbitMQ.Client;
using RabbitMQ.Client.Exceptions;

namespace OrderService.Chaos;

/// <summary>Where the service under trial keeps its data.</summary>
internal enum StoreKind
{
    Sqlite,
    Postgres,
}

/// <summary>Where broker and database are. <c>eng/chaos</c> starts them and says it in the environment.</summary>
internal sealed record Addresses(string Amqp, string Management, string Postgres, string Binary, string Broker, string Database)
{
    public static Addresses Read() => new(Get("AMQP"), Get("MANAGEMENT"), Get("POSTGRES"), Get("BINARY"), Get("BROKER_CONTAINER"), Get("POSTGRES_CONTAINER"));

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
    private IConnection? watching;
    private bool isKept;

    private World(Addresses addresses, StoreKind store, int seed, IProgress<string> progress)
    {
        this.addresses = addresses;
        Store = store;
        Random = new Random(seed);
        Progress = progress;
        name = $"chaos-{store}-{seed}-{Guid.NewGuid():N}".ToLowerInvariant()[..40];
        Folder = Directory.CreateTempSubdirectory("orderservice-chaos-").FullName;
        BrokerLink = new Link(new Uri(addresses.Amqp).Port);
        DatabaseLink = new Link(new NpgsqlConnectionStringBuilder(addresses.Postgres).Port);
        // Shorter than the 60 s after which the broker closes a quiet connection, or a request meets the end.
        management = new HttpClient(new SocketsHttpHandler { PooledConnectionIdleTimeout = TimeSpan.FromSeconds(30) })
        {
            BaseAddress = new Uri(addresses.Management.TrimEnd('/') + "/"),
        };
        var user = Uri.UnescapeDataString(new Uri(addresses.Amqp).UserInfo);
        management.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Basic", Convert.ToBase64String(Encoding.UTF8.GetBytes(user)));
    }

    public StoreKind Store { get; }

    public Random Random { get; }

    public IProgress<string> Progress { get; }

    public string Folder { get; }

    public string Binary => addresses.Binary;

    public Container Broker => new(addresses.Broker);

    public Container Database => new(addresses.Database);

    /// <summary>Stands between the service and the broker; the trial's own connections go past it.</summary>
    public Link BrokerLink { get; }

    /// <summary>Stands between the service and PostgreSQL.</summary>
    public Link DatabaseLink { get; }

    /// <summary>The AMQP address of this trial's virtual host.</summary>
    public string Amqp => new UriBuilder(addresses.Amqp) { Path = "/" + name }.Uri.AbsoluteUri;

    /// <summary>The same by way of <see cref="BrokerLink"/>, as the service has it.</summary>
    public string LinkedAmqp => new UriBuilder(Amqp) { Port = BrokerLink.Port }.Uri.AbsoluteUri;

    public string? ConnectionString => Store == StoreKind.Postgres
        ? new NpgsqlConnectionStringBuilder(addresses.Postgres) { Database = name.Replace('-', '_') }.ConnectionString
        : null;

    /// <summary>The same by way of <see cref="DatabaseLink"/>, as the service has it.</summary>
    public string? LinkedConnectionString =>
        ConnectionString is { } own ? new NpgsqlConnectionStringBuilder(own) { Port = DatabaseLink.Port }.ConnectionString : null;

    /// <summary>The SQLite file of the service. Only faults touch it; the judge never does.</summary>
    public string StoreFile => Path.Combine(Folder, "orders.db");

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

    /// <summary>Leaves the folder, with the service's log and the producers' histories, for whoever looks into a violation.</summary>
    public void Keep() => isKept = true;

    public async Task<IConnection> ConnectAsync(string who, CancellationToken cancellationToken = default) =>
        await new ConnectionFactory
        {
            Uri = new Uri(Amqp), ClientProvidedName = $"chaos {who}", AutomaticRecoveryEnabled = false, RequestedHeartbeat = TimeSpan.FromSeconds(5),
        }.CreateConnectionAsync(cancellationToken);

    /// <summary>Waits for a broker that is away, two minutes at most.</summary>
    /// <exception cref="ChaosException">It did not come back.</exception>
    public async Task<IConnection> ConnectPatientlyAsync(string who, CancellationToken cancellationToken = default)
    {
        using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(300));
        var began = TimeProvider.System.GetTimestamp();
        while (true)
        {
            try
            {
                return await ConnectAsync(who, cancellationToken);
            }
            catch (Exception exception) when (exception is BrokerUnreachableException or OperationInterruptedException or IOException)
            {
                if (TimeProvider.System.GetElapsedTime(began) > TimeSpan.FromMinutes(2))
                {
                    throw new ChaosException($"The broker did not come back within two minutes: {exception.Message}");
                }
                await tick.WaitForNextTickAsync(cancellationToken);
            }
        }
    }

    /// <summary>How many messages are ready in a queue, by a connection of its own.</summary>
    public async Task<long> ReadyAsync(string queue)
    {
        await using var connection = await ConnectPatientlyAsync("looks");
        await using var channel = await connection.CreateChannelAsync();
        return (await channel.QueueDeclarePassiveAsync(queue)).MessageCount;
    }

    /// <summary>How many messages a queue holds, those in a consumer's hand included.</summary>
    public async Task<long> DepthAsync(string queue)
    {
        var listed = await Broker.ExecuteAsync("rabbitmqctl", "-q", "--no-table-headers", "list_queues", "-p", name, "name", "messages");
        var line = listed.Split('\n').Select(line => line.Split('\t')).FirstOrDefault(line => line[0] == queue)
            ?? throw new ChaosException($"There is no queue {queue}.");
        return long.Parse(line[1].Trim(), CultureInfo.InvariantCulture);
    }

    /// <summary>The same for an observer who can't wait; -1 when the broker does not say.</summary>
    public async Task<long> TryReadyAsync(string queue, CancellationToken cancellationToken)
    {
        try
        {
            watching ??= await ConnectAsync("watches", cancellationToken);
            await using var channel = await watching.CreateChannelAsync(cancellationToken: cancellationToken);
            return (await channel.QueueDeclarePassiveAsync(queue, cancellationToken)).MessageCount;
        }
        catch (Exception exception) when (exception is BrokerUnreachableException or OperationInterruptedException or IOException or OperationCanceledException)
        {
            if (watching is { } broken)
            {
                watching = null;
                await broken.AbandonAsync();
            }
            return -1;
        }
    }

    /// <summary>Ends every connection of the service, as an operator can in the management page; returns how many.</summary>
    public async Task<int> CloseConnectionsAsync()
    {
        using var answer = JsonDocument.Parse(await management.GetStringAsync(new Uri($"api/vhosts/{name}/connections", UriKind.Relative)));
        var closed = 0;
        foreach (var connection in answer.RootElement.EnumerateArray())
        {
            var client = connection.TryGetProperty("client_properties", out var properties) && properties.TryGetProperty("connection_name", out var given)
                ? given.GetString()
                : null;
            if (client?.StartsWith("chaos ", StringComparison.Ordinal) == true)
            {
                continue;
            }
            var path = $"api/connections/{Uri.EscapeDataString(connection.GetProperty("name").GetString()!)}";
            using var deleted = await management.DeleteAsync(new Uri(path, UriKind.Relative));
            closed += deleted.IsSuccessStatusCode ? 1 : 0;
        }
        return closed;
    }

    /// <summary>Sets a policy on one queue, or takes it away.</summary>
    public async Task SetPolicyAsync(string queue, object? definition)
    {
        var path = new Uri($"api/policies/{name}/chaos", UriKind.Relative);
        using var answer = definition is null
            ? await management.DeleteAsync(path)
            : await management.PutAsJsonAsync(path, new Dictionary<string, object>
            {
                ["pattern"] = $"^{queue.Replace(".", "\\.", StringComparison.Ordinal)}$", ["definition"] = definition, ["apply-to"] = "queues",
            });
        answer.EnsureSuccessStatusCode();
    }

    /// <summary>Runs one statement in the service's database as another program would; for faults alone.</summary>
    public async Task ExecuteAsync(string sql)
    {
        await using var connection = new NpgsqlConnection(ConnectionString);
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(sql, connection);
        await command.ExecuteNonQueryAsync();
    }

    public async ValueTask DisposeAsync()
    {
        if (watching is not null)
        {
            await watching.AbandonAsync();
        }
        await BrokerLink.DisposeAsync();
        await DatabaseLink.DisposeAsync();
        using (await management.DeleteAsync(new Uri($"api/vhosts/{name}", UriKind.Relative)))
        {
            management.Dispose();
        }
        if (Store == StoreKind.Postgres)
        {
            NpgsqlConnection.ClearAllPools();
            await AdministerAsync($"DROP DATABASE IF EXISTS {name.Replace('-', '_')} WITH (FORCE)");
        }
        if (isKept)
        {
            Progress.Report($"logs and histories are in {Folder}");
        }
        else
        {
            Directory.Delete(Folder, recursive: true);
        }
    }

    private async Task AdministerAsync(string sql)
    {
        await using var connection = new NpgsqlConnection(addresses.Postgres);
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(sql, connection);
        await command.ExecuteNonQueryAsync();
    }
}

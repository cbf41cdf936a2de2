using DotNet.Testcontainers.Builders;
using DotNet.Testcontainers.Containers;

namespace OrderService.Tests.Infrastructure;

/// <summary>Two PostgreSQL servers in one container, a primary and its replica by streaming replication, each on a port of its own. They change places when told.</summary>
public sealed class PostgresPair : IAsyncDisposable
{
    /// <summary>Where the first server listens inside the container; the second has the next one.</summary>
    public const int FirstPort = 6001;

    private const string Settings = """
        listen_addresses = '*'
        unix_socket_directories = '/tmp'
        wal_level = replica
        wal_keep_size = 64
        """;

    private readonly IContainer container;

    private PostgresPair(IContainer container, IReadOnlyList<int> ports)
    {
        this.container = container;
        Ports = ports;
    }

    /// <summary>Where the first server and the second one listen, on loopback.</summary>
    public IReadOnlyList<int> Ports { get; }

    /// <summary>What follows <c>Host=...;</c> in a connection string.</summary>
    public static string Credentials => "Database=postgres;Username=tests;Password=tests-password";

    /// <summary>Starts both; the first is the primary.</summary>
    public static async Task<PostgresPair> StartAsync()
    {
        await ContainerEngine.RequireAsync();
        var image = await ContainerEngine.ImageAsync("ORDERSERVICE_TEST_POSTGRES_IMAGE", "orderservice-test/postgres:17", "postgres:17");
        var container = new ContainerBuilder(image)
            .WithEntrypoint("tail", "-f", "/dev/null")
            .WithPortBinding(Port(0), assignRandomHostPort: true)
            .WithPortBinding(Port(1), assignRandomHostPort: true)
            .WithLabel(ContainerEngine.RunLabel, ContainerEngine.Run)
            .Build();
        await container.StartAsync();
        var pair = new PostgresPair(container, [container.GetMappedPublicPort(Port(0)), container.GetMappedPublicPort(Port(1))]);
        try
        {
            await pair.RunAsync(
                $"""
                printf 'tests-password' > /tmp/password
                initdb -N -D {Folder(0)} -U tests -E UTF8 --auth=scram-sha-256 --auth-local=trust --pwfile=/tmp/password
                printf 'host all all all scram-sha-256\n' >> {Folder(0)}/pg_hba.conf
                printf "{Settings.ReplaceLineEndings("\\n")}\nport = {Port(0)}\n" >> {Folder(0)}/postgresql.conf
                pg_ctl -D {Folder(0)} -l {Folder(0)}.log -w start
                """);
            await pair.FollowAsync(1);
            return pair;
        }
        catch
        {
            await pair.DisposeAsync();
            throw;
        }
    }

    /// <summary>Ends a server as when its machine loses its power; the other one becomes the primary.</summary>
    public Task FailOverAsync(int from) => RunAsync($"pg_ctl -D {Folder(from)} -m immediate stop; pg_ctl -D {Folder(1 - from)} -w promote");

    /// <summary>What was the primary, or nothing yet, becomes a replica of the other one, at its own address.</summary>
    public Task FollowAsync(int server) => RunAsync(
        $"""
        pg_ctl -D {Folder(server)} -m immediate stop || true
        rm -rf {Folder(server)}
        pg_basebackup -D {Folder(server)} -R -c fast -h /tmp -p {Port(1 - server)} -U tests
        printf 'port = {Port(server)}\n' >> {Folder(server)}/postgresql.conf
        pg_ctl -D {Folder(server)} -l {Folder(server)}.log -w start
        """);

    public ValueTask DisposeAsync() => container.DisposeAsync();

    private static int Port(int server) => FirstPort + server;

    private static string Folder(int server) => $"/tmp/server-{server}";

    private async Task RunAsync(string script)
    {
        var result = await container.ExecAsync(
            ["su", "-s", "/bin/sh", "postgres", "-c", $"set -e; export PATH=$(echo /usr/lib/postgresql/*/bin):$PATH\n{script}"], TestContext.Current.CancellationToken);
        Assert.True(result.ExitCode == 0, result.Stdout + result.Stderr);
    }
}

using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using OrderService.Bench.Measurement;

namespace OrderService.Bench.Contestants;

/// <summary>Somebody who drains the queue.</summary>
/// <param name="Name">What is typed and printed.</param>
/// <param name="What">One line for the report.</param>
/// <param name="Deduplicates">A copy has no effect; otherwise it is handled as often as it comes.</param>
/// <param name="Share">How much of the orders it gets in a throughput round: who is slow by nature would hold up the others.</param>
internal sealed record Contestant(string Name, string What, StoreKind Store, bool Deduplicates, double Share)
{
    /// <summary>Reads how many rows still have to be published; 0 means that all is relayed and marked sent.</summary>
    public string? OutstandingSql { get; init; }

    /// <summary>What the store must hold at the end, by statement; <c>{0}</c> is not used, each is to equal the number of distinct orders.</summary>
    public IReadOnlyList<string> OncePerOrderSql { get; init; } = [];

    /// <summary>It can say when each order's commit came back.</summary>
    public bool TellsCommits { get; init; }

    /// <summary>The program that users run, in throughput runs.</summary>
    public bool IsTheService { get; init; }

    /// <summary>Runs in the child process until it is told to stop.</summary>
    public required Func<ContestantSettings, CommitTimes, CancellationToken, Task> Run { get; init; }

    /// <summary>Where its queue handling is the yardstick for the others.</summary>
    public bool IsFloor { get; init; }

    private static readonly string[] OfTheService = ["SELECT count(*) FROM events", "SELECT count(DISTINCT order_id) FROM events", "SELECT count(*) FROM orders", "SELECT count(*) FROM inbox"];

    private static readonly string[] OfTheNaive = ["SELECT count(*) FROM naive_events", "SELECT count(DISTINCT order_id) FROM naive_events", "SELECT count(*) FROM naive_inbox"];

    /// <summary>All there are in this build, in the order they run.</summary>
    public static IReadOnlyList<Contestant> All { get; } =
    [
        new("floor", "consume, publish with confirms in one window, ack; nothing stored, nothing decided", StoreKind.None, false, 1) { Run = Floor.RunAsync, IsFloor = true },
        new("floor-parts", "the same out of the service's own subscription and publisher", StoreKind.None, false, 1) { Run = FloorFromParts.RunAsync, IsFloor = true },
        new("orderservice-sqlite", "the service, SQLite with synchronous=FULL", StoreKind.Sqlite, true, 1)
        {
            Run = ServiceInProcess.RunAsync, IsTheService = true, TellsCommits = true, OutstandingSql = "SELECT count(*) FROM outbox", OncePerOrderSql = OfTheService,
        },
        new("orderservice-postgres", "the service, PostgreSQL with fsync=on", StoreKind.Postgres, true, 1)
        {
            Run = ServiceInProcess.RunAsync, IsTheService = true, TellsCommits = true, OutstandingSql = "SELECT count(*) FROM outbox", OncePerOrderSql = OfTheService,
        },
        new("naive-sqlite", "a transaction, a publish and an ack per message, 16 at once, SQLite with synchronous=FULL", StoreKind.Sqlite, true, 1.0 / 6)
        {
            Run = Naive.RunAsync, TellsCommits = true, OncePerOrderSql = OfTheNaive,
        },
        new("naive-postgres", "the same on PostgreSQL", StoreKind.Postgres, true, 1.0 / 6) { Run = Naive.RunAsync, TellsCommits = true, OncePerOrderSql = OfTheNaive },
#if MASSTRANSIT
        new("masstransit", "MassTransit 8.5 without an outbox: nothing stored, copies handled again", StoreKind.None, false, 1.0 / 2) { Run = Peers.MassTransitContestant.RunAsync },
#endif
#if WOLVERINE
        new("wolverine", "Wolverine with its durable inbox and outbox in PostgreSQL", StoreKind.Postgres, true, 1.0 / 6)
        {
            Run = Peers.WolverineContestant.RunAsync,
            OutstandingSql = "SELECT count(*) FROM wolverine.wolverine_outgoing_envelopes",
            OncePerOrderSql = ["SELECT count(*) FROM wolverine.wolverine_incoming_envelopes WHERE status = 'Handled'"],
        },
#endif
    ];

    public static Contestant Named(string name) => All.FirstOrDefault(contestant => contestant.Name == name)
        ?? throw new BenchException($"There is no contestant '{name}' in this build; there are {string.Join(", ", All.Select(contestant => contestant.Name))}.");

    /// <summary>The command line and environment of its process.</summary>
    /// <param name="commitFile">Where it writes the times of its commits; null when nobody asks.</param>
    /// <param name="partitions">How many queues beside <c>orders</c>; only the service and its parts know what to do with them.</param>
    public ProcessStartInfo Start(string broker, StoreRun store, string? commitFile, int partitions = 0)
    {
        var asUsersRunIt = IsTheService && commitFile is null;
        var start = asUsersRunIt ? new ProcessStartInfo(ServiceBinary(), ["serve", "--roles", "orders,relay"]) : new ProcessStartInfo(Environment.ProcessPath!, ["--contestant", Name]);
        foreach (var (key, value) in ContestantSettings.Environment(broker, Store, store, commitFile, partitions))
        {
            start.Environment[key] = value;
        }
        return start;
    }

    // artifacts/bin/OrderService.Bench/release -> artifacts/publish/OrderService/release
    private static string ServiceBinary()
    {
        var binary = Path.GetFullPath(Path.Combine(AppContext.BaseDirectory, "..", "..", "..", "publish", "OrderService", "release", OperatingSystem.IsWindows() ? "orderservice.exe" : "orderservice"));
        return File.Exists(binary) ? binary : throw new BenchException($"{binary} is missing; publish the service there first (eng/bench does).");
    }
}

/// <summary>What a contestant's process is told through its environment.</summary>
/// <param name="Broker">AMQP address with the virtual host of the run.</param>
internal sealed record ContestantSettings(string Name, string Broker, StoreKind Store, string SqlitePath, string PostgresConnection, string? CommitFile, int Partitions)
{
    /// <summary>Deliveries in hand. Quorum queues hand out no more than 2,000 to one consumer anyway.</summary>
    public const ushort Prefetch = 2000;

    public static ContestantSettings FromEnvironment(string name)
    {
        var contestant = Contestant.Named(name);
        return new ContestantSettings(name, Get("RabbitMq__Uri"), contestant.Store, Get("Store__Path"), Get("Store__ConnectionString"), System.Environment.GetEnvironmentVariable("BENCH_COMMIT_FILE"),
            int.Parse(Get("RabbitMq__Partitions"), CultureInfo.InvariantCulture));
    }

    /// <summary>The service's own settings; the other contestants read the same ones.</summary>
    public static IEnumerable<KeyValuePair<string, string?>> Environment(string broker, StoreKind kind, StoreRun store, string? commitFile, int partitions)
    {
        yield return new("RabbitMq__Partitions", partitions.ToString(CultureInfo.InvariantCulture));
        yield return new("RabbitMq__Uri", broker);
        yield return new("Urls", string.Create(CultureInfo.InvariantCulture, $"http://127.0.0.1:{FreePort()}"));
        yield return new("ManagementUrls", "");
        yield return new("Store__Provider", kind == StoreKind.Postgres ? "Postgres" : "Sqlite");
        yield return new("Store__Path", kind == StoreKind.Sqlite ? store.SqlitePath : null);
        yield return new("Store__ConnectionString", kind == StoreKind.Postgres ? store.PostgresConnection : null);
        yield return new("BENCH_COMMIT_FILE", commitFile);
        yield return new("DOTNET_ENVIRONMENT", "Production");
    }

    private static string Get(string name) => System.Environment.GetEnvironmentVariable(name) ?? "";

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}

/// <summary>When each order's commit came back: monotonic clock ticks, which all processes of this machine share.</summary>
internal sealed class CommitTimes
{
    private readonly List<(int Number, long Ticks)> times = [];
    private readonly Lock gate = new();
    private readonly string? file;

    public CommitTimes(string? file)
    {
        this.file = file;
    }

    /// <summary>Notes that what was decided about these orders is on disk.</summary>
    public void Add(ReadOnlySpan<int> numbers, long ticks)
    {
        if (file is null)
        {
            return;
        }
        lock (gate)
        {
            foreach (var number in numbers)
            {
                times.Add((number, ticks));
            }
        }
    }

    public void Save()
    {
        if (file is null)
        {
            return;
        }
        using var writer = new BinaryWriter(File.Create(file));
        foreach (var (number, ticks) in times)
        {
            writer.Write(number);
            writer.Write(ticks);
        }
    }

    public static IEnumerable<(int Number, long Ticks)> Load(string file)
    {
        using var reader = new BinaryReader(File.OpenRead(file));
        while (reader.BaseStream.Position < reader.BaseStream.Length)
        {
            yield return (reader.ReadInt32(), reader.ReadInt64());
        }
    }
}

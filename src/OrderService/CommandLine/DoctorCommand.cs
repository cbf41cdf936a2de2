using System.CommandLine;
using System.Globalization;
using Microsoft.Extensions.Options;
using OrderService.Admin;
using OrderService.Configuration;
using OrderService.Database;
using OrderService.DeadLetters;
using OrderService.Kafka;
using OrderService.Outbox;
using OrderService.Projections;
using OrderService.RabbitMq;
using OrderService.Store;

namespace OrderService.CommandLine;

/// <summary><c>doctor</c>: looks at everything the service needs and says what is wrong and how to mend it.</summary>
internal static class DoctorCommand
{
    /// <summary>With <c>--json</c> what was found, instead of lines.</summary>
    private static readonly AsyncLocal<List<Finding>?> Collected = new();

    private static readonly DateTimeOffset Plausible = new(2025, 1, 1, 0, 0, 0, TimeSpan.Zero);

    public static Command Create()
    {
        var command = new Command("doctor", "Checks settings, clock, store, broker, queues and permissions: what is wrong and how to mend it. Exit code 0, 1 when something is wrong, 69 when broker or store is out of reach.");
        var json = JsonOutput.Option();
        command.Options.Add(json);
        command.SetAction(async (parsed, cancellationToken) =>
        {
            Collected.Value = parsed.GetValue(json) ? [] : null;
            var code = await RunAsync(cancellationToken);
            if (Collected.Value is { } findings)
            {
                JsonOutput.Write(new { Findings = findings, Wrong = findings.Count(finding => !finding.Fine) });
            }
            return code;
        });
        return command;
    }

    private static async Task<int> RunAsync(CancellationToken cancellationToken)
    {
        var settings = OrderServiceHost.LoadSettings();
        foreach (var mistake in settings.Mistakes)
        {
            Print(false, "settings", mistake);
        }
        if (settings.Mistakes.Count > 0)
        {
            return ExitCode.BadConfiguration;
        }
        Print(true, "settings", "readable, complete and without contradictions");
        var services = new ServiceCollection();
        OrderServiceHost.AddStations(services, settings.Configuration, ServiceRoles.All);
        services.AddLogging(logging => logging.ClearProviders());
        await using var stations = services.BuildServiceProvider();
        var wrong = 0;
        if (Listeners.PlainHttp(settings.Configuration, settings.Configuration.GetSection(ApiOptions.Section).Get<ApiOptions>() ?? new ApiOptions()) is { } plain)
        {
            // In a container the port that is published may be this machine's alone: only a note.
            Print(true, "http", plain);
        }
        foreach (var warning in settings.Warnings)
        {
            wrong += Print(false, "settings", warning);
        }

        var now = stations.GetRequiredService<TimeProvider>().GetUtcNow();
        wrong += now > Plausible
            ? Print(true, "clock", now.ToString("yyyy-MM-dd HH:mm:ss'Z'", CultureInfo.InvariantCulture))
            : Print(false, "clock", $"it is {now:yyyy-MM-dd} here; certificates and signatures will be refused: set the clock (timedatectl set-ntp true)");

        var storeReached = await CheckStoreAsync(stations, cancellationToken);
        wrong += storeReached ? 0 : 1;
        wrong += CheckRights(stations);
        wrong += CheckKeyFile(stations);
        var (brokerReached, differences) = await CheckBrokerAsync(stations, cancellationToken);
        wrong += differences + (brokerReached ? 0 : 1);
        wrong += CheckKafka(stations);
        if (Collected.Value is null)
        {
            Console.WriteLine();
        }
        Conclude(wrong == 0 ? "All is well." : $"{wrong} thing{(wrong == 1 ? "" : "s")} to mend.");
        return !storeReached || !brokerReached ? ExitCode.Unavailable : wrong == 0 ? ExitCode.Done : ExitCode.SomeFailed;
    }

    /// <summary>Changes nothing: the store may belong to a service of another version.</summary>
    private static async Task<bool> CheckStoreAsync(IServiceProvider stations, CancellationToken cancellationToken)
    {
        var database = stations.GetRequiredService<IDatabase>();
        var store = stations.GetRequiredService<IOptions<StoreOptions>>().Value;
        var isFile = database.Provider == "Sqlite";
        try
        {
            await database.RequireSchemaAsync(cancellationToken);
            var (events, orders, parked, waiting) = await database.ReadAsync(async connection => (
                await EventQueries.CountAsync(connection),
                await OrderQueries.CountAsync(connection),
                await LettersTable.ParkedAsync(connection),
                await OutboxStore.CountAsync(connection)), cancellationToken);
            // A write that changes nothing shows that writing is possible.
            await database.WriteAsync(CheckpointsTable.TryWriteAsync, cancellationToken);
            Print(true, "store", $"{(isFile ? Path.GetFullPath(store.Path) : "PostgreSQL")}: {orders} orders, {events} events, {parked} parked dead letters, {waiting} events to publish");
        }
        catch (StoreMissingException exception)
        {
            if (isFile && SqliteAccess.Problem(Path.GetFullPath(store.Path)) is { } problem)
            {
                Print(false, "store", problem);
                return false;
            }
            Print(true, "store", exception.Message);
            return true;
        }
        catch (Exception exception) when (exception is StoreUnavailableException or StoreSettingsException or IOException or UnauthorizedAccessException)
        {
            Print(false, "store", exception is StoreSettingsException || exception.Message.StartsWith("Store:", StringComparison.Ordinal) ? exception.Message : isFile
                ? $"{exception.Message} Check that the user {Environment.UserName} may write to {Path.GetDirectoryName(Path.GetFullPath(store.Path))} (Store:Path)."
                : $"{exception.Message} Check Store:ConnectionString and that the server runs.");
            return false;
        }
        if (isFile)
        {
            var free = new DriveInfo(Path.GetDirectoryName(Path.GetFullPath(store.Path))!).AvailableFreeSpace;
            if (free < 1L << 30)
            {
                Print(false, "disk", string.Create(CultureInfo.InvariantCulture, $"only {free / 1048576.0:0} MiB are free where the store is; make room or move it (Store:Path)"));
            }
        }
        return true;
    }

    /// <summary>What the service makes is its user's alone; a store that is older, or was copied here, may not be.</summary>
    private static int CheckRights(IServiceProvider stations)
    {
        var store = stations.GetRequiredService<IOptions<StoreOptions>>().Value;
        if (store.UsesPostgres || !File.Exists(store.Path))
        {
            return 0;
        }
        var wrong = 0;
        var file = Path.GetFullPath(store.Path);
        string[] open = [.. new[] { file, file + "-wal", file + "-shm" }.Where(path => File.Exists(path) && (ModeOf(path) & (UnixFileMode.OtherRead | UnixFileMode.OtherWrite)) != 0)];
        if (open.Length > 0)
        {
            wrong += Print(false, "rights", $"every user of this machine can read the orders; run: chmod o-rw {string.Join(' ', open)}");
        }
        var folder = Path.GetDirectoryName(file)!;
        if ((ModeOf(folder) & (UnixFileMode.OtherWrite | UnixFileMode.StickyBit)) == UnixFileMode.OtherWrite)
        {
            wrong += Print(false, "rights", $"every user of this machine can take the store away; run: chmod o-w {folder}");
        }
        return wrong;
    }

    // Windows has other rights.
    private static UnixFileMode ModeOf(string path) => OperatingSystem.IsWindows() ? UnixFileMode.None : File.GetUnixFileMode(path);

    private static int CheckKeyFile(IServiceProvider stations)
    {
        var (api, store) = (stations.GetRequiredService<IOptions<ApiOptions>>().Value, stations.GetRequiredService<IOptions<StoreOptions>>().Value);
        var file = FirstKey.FileOf(store);
        if (!FirstKey.IsWanted(api) || !File.Exists(file))
        {
            return 0;
        }
        if ((ModeOf(file) & (UnixFileMode.GroupRead | UnixFileMode.OtherRead)) != 0)
        {
            return Print(false, "key", $"others can read {file}; run: chmod 600 {file}");
        }
        try
        {
            var key = FirstKey.Read(api, store)!;
            var ends = key.Ends.UtcDateTime.ToString("yyyy-MM-dd", CultureInfo.InvariantCulture);
            return key.Ends > stations.GetRequiredService<TimeProvider>().GetUtcNow()
                ? Print(true, "key", $"{file} is readable by its owner alone; the key of the first start in it is in use, may do everything and ends on {ends}: set Api:Keys before")
                : Print(false, "key", $"the key of the first start ended on {ends}. {KeyCommand.HowToGoOn(key)}");
        }
        catch (UnauthorizedAccessException)
        {
            return Print(true, "key", $"{file} is readable by its owner alone");
        }
    }

    private static async Task<(bool Reached, int Differences)> CheckBrokerAsync(IServiceProvider stations, CancellationToken cancellationToken)
    {
        var connector = stations.GetRequiredService<BrokerConnector>();
        try
        {
            var (version, differences) = await Broker.CheckAsync(stations, cancellationToken);
            Print(true, "broker", $"{connector.Redacted} answers, RabbitMQ {version}");
            foreach (var difference in differences)
            {
                Print(false, "queues", difference.Sentence);
            }
            if (differences.Count == 0)
            {
                Print(true, "queues", "all queues and exchanges are as they should be; bindings can't be looked at, and are made at every start");
            }
            var rights = await Broker.MissingRightsAsync(stations, cancellationToken);
            foreach (var right in rights)
            {
                Print(false, "rights", right);
            }
            if (rights.Count == 0)
            {
                Print(true, "rights", "the user may consume and publish");
            }
            return (true, differences.Count + rights.Count + await CheckPoliciesAsync(stations, cancellationToken));
        }
        catch (BrokerOutOfReachException exception)
        {
            Print(false, "broker", $"{exception.Message.TrimEnd('.')}. Check RabbitMq:Uri, that the broker runs, and the user's rights on the virtual host.");
            return (false, 0);
        }
    }

    private static async Task<int> CheckPoliciesAsync(IServiceProvider stations, CancellationToken cancellationToken)
    {
        var (policies, unknown) = await Broker.UnsafePoliciesAsync(stations, cancellationToken);
        var wrong = policies.Sum(policy => Print(false, "policies", policy));
        if (unknown is null)
        {
            return policies.Count == 0 ? Print(true, "policies", "none that could lose messages is in force") : wrong;
        }
        // Where nobody named an address it is no fault that nobody is asked.
        return wrong + Print(stations.GetRequiredService<IOptions<RabbitMqOptions>>().Value.ManagementUri is not { Length: > 0 }, "policies", unknown);
    }

    private static int CheckKafka(IServiceProvider stations)
    {
        if (stations.GetService<KafkaProbe>() is not { } probe)
        {
            return 0;
        }
        var findings = probe.Look();
        if (findings.Answer is { } answer)
        {
            Print(true, "kafka", answer);
        }
        return findings.Wrong.Sum(sentence => Print(false, "kafka", sentence));
    }

    private static void Conclude(string line)
    {
        if (Collected.Value is null)
        {
            Console.WriteLine(line);
        }
    }

    private static int Print(bool fine, string subject, string text)
    {
        if (Collected.Value is { } findings)
        {
            findings.Add(new Finding(fine, subject, text));
            return fine ? 0 : 1;
        }
        Console.WriteLine($"{(fine ? "ok   " : "WRONG")}  {subject,-9} {text}");
        return fine ? 0 : 1;
    }

    private sealed record Finding(bool Fine, string Subject, string Text);
}

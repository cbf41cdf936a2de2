using System.CommandLine;
using System.Globalization;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using OrderService.Database;
using OrderService.Projections;
using OrderService.Seals;
using OrderService.Store;

namespace OrderService.CommandLine;

/// <summary><c>store backup</c> and <c>store restore</c>: the store as a whole, as a file.</summary>
internal static class StoreFileCommands
{
    private const string ForPostgres =
        "is for a SQLite store, and Store:Provider is Postgres. PostgreSQL is backed up by its own means: pg_dump -Fc, a base backup with archived WAL, or the snapshots of a managed service. "
        + "After it was put back, with every instance stopped, orderservice store restore --in-place begins the store's next epoch (docs/operations.md, Backup).";

    public static Command CreateBackup()
    {
        var file = new Argument<string>("FILE") { Description = "Where the backup is put, or lies." };
        var force = new Option<bool>("--force") { Description = "Replace a file that is there, once the new one is whole." };
        var verify = new Option<bool>("--verify") { Description = "Make none: check the backup that lies there (integrity, schema, hash chain of every order). Exit code 1 when it is not good." };
        var command = new Command("backup", "Makes a backup of the SQLite store in one file, while the service runs or not, and checks it before it gets its name.") { file, force, verify };
        command.SetAction((parsed, cancellationToken) => parsed.GetValue(verify)
            ? Commands.WithStationsAsync((stations, token) => VerifyAsync(stations, parsed.GetValue(file)!, token), cancellationToken, needsStore: false)
            : Commands.WithStationsAsync((stations, token) => BackUpAsync(stations, parsed.GetValue(file)!, parsed.GetValue(force), token), cancellationToken, needsStore: false));
        return command;
    }

    public static Command CreateRestore()
    {
        var file = new Argument<string?>("FILE") { Description = "A backup of a SQLite store.", Arity = ArgumentArity.ZeroOrOne };
        var inPlace = new Option<bool>("--in-place")
        {
            Description = "The store was put back by other means (pg_restore, a base backup, a file that was swapped): only begins its next epoch.",
        };
        var epoch = new Option<long?>("--epoch")
        {
            Description = "The number of the epoch that begins, where it must be higher than what is here can tell: one above the highest .eN that subscribers have seen.",
        };
        epoch.Validators.Add(result =>
        {
            if (result.GetValueOrDefault<long?>() is { } number and (< 2 or > StoreEpoch.Last))
            {
                result.AddError($"--epoch {number}: epochs that a restore begins are numbered from 2 to {StoreEpoch.Last}.");
            }
        });
        var command = new Command("restore", "Puts a backup in the place of the SQLite store and begins its next epoch, so that no position and no event id comes again with another meaning. The service must be stopped. What was there is kept.")
        {
            file,
            inPlace,
            epoch,
        };
        command.Validators.Add(result =>
        {
            if (result.GetValue(inPlace) == (result.GetValue(file) is not null))
            {
                result.AddError("Name the backup, or say --in-place when the store was put back by other means.");
            }
        });
        command.SetAction((parsed, cancellationToken) => Commands.WithStationsAsync(
            (stations, token) => parsed.GetValue(file) is { } backup ? RestoreAsync(stations, backup, parsed.GetValue(epoch), token) : BeginEpochAsync(stations, parsed.GetValue(epoch), token),
            cancellationToken, needsStore: false));
        return command;
    }

    private static async Task<int> BackUpAsync(IServiceProvider stations, string file, bool force, CancellationToken cancellationToken)
    {
        if (stations.GetRequiredService<IDatabase>() is not SqliteDatabase database)
        {
            throw new StoreSettingsException($"store backup {ForPostgres}");
        }
        await database.RequireSchemaAsync(cancellationToken);
        var facts = await ProgressBar.RunAsync("copying", progress => database.BackUpAsync(file, force, progress, cancellationToken));
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{Path.GetFullPath(file)} is a backup of {new FileInfo(file).Length / 1_000_000.0:0.0} MB: {facts}."));
        return ExitCode.Done;
    }

    private static async Task<int> VerifyAsync(IServiceProvider stations, string file, CancellationToken cancellationToken)
    {
        file = Path.GetFullPath(file);
        var facts = await SqliteBackup.CheckAsync(file, cancellationToken);
        Console.WriteLine($"{file} is whole: {facts}.");
        if (facts.Schema < Migration.All("Sqlite")[^1].Number)
        {
            Console.WriteLine("Its schema is that of an older version, so the hash chains were not checked: a restore brings it up to date, and orderservice verify checks them then.");
            return ExitCode.Done;
        }
        await using var database = new SqliteDatabase(
            file, stations.GetRequiredService<TimeProvider>(), NullLogger<SqliteDatabase>.Instance,
            // Those of the store: who vouches for what was taken out is not in the backup.
            stations.GetRequiredService<IOptions<KeysOptions>>().Value.Of(stations.GetRequiredService<IOptions<StoreOptions>>().Value),
            stations.GetRequiredService<IOptions<SealsOptions>>().Value);
        var verification = new StoreVerification(database, new EventQueries(database));
        var report = await ProgressBar.RunAsync("checking orders", progress => verification.RunAsync(repair: false, progress, cancellationToken));
        var seals = await StoreCommands.CheckSealsAsync(new SealVerification(database, stations.GetRequiredService<TimeProvider>()), null, isHere: false, cancellationToken);
        return StoreCommands.Tell(report) & StoreCommands.Tell(seals) ? ExitCode.Done : ExitCode.SomeFailed;
    }

    private static async Task<int> RestoreAsync(IServiceProvider stations, string file, long? epoch, CancellationToken cancellationToken)
    {
        var options = stations.GetRequiredService<IOptions<StoreOptions>>().Value;
        if (options.UsesPostgres)
        {
            throw new StoreSettingsException($"store restore FILE {ForPostgres}");
        }
        var report = await new SqliteRestore(options.Path, stations.GetRequiredService<TimeProvider>()).RunAsync(file, epoch ?? 0, cancellationToken);
        Console.WriteLine($"{Path.GetFullPath(options.Path)} is the store of {Path.GetFullPath(file)}: {report.Backup}.");
        if (report.Kept is { } kept)
        {
            Console.WriteLine($"What was there before is kept as {kept}.");
        }
        // The chain of seals goes on from the backup's end: what was noted of later seals speaks of the store that was replaced.
        stations.GetRequiredService<PersonalKeys>().Seals.ForgetHead(report.Backup.StoreId);
        Tell(report.Epoch, report.Backup.LastAt, epoch);
        return ExitCode.Done;
    }

    private static async Task<int> BeginEpochAsync(IServiceProvider stations, long? epoch, CancellationToken cancellationToken)
    {
        var database = stations.GetRequiredService<IDatabase>();
        foreach (var finding in await database.ClaimAsync(cancellationToken))
        {
            await Console.Error.WriteLineAsync(finding);
        }
        var begun = await database.BeginEpochAsync(epoch ?? 0, "in-place", cancellationToken);
        Tell(begun, await database.ReadAsync(connection => EventQueries.RecordedAtAsync(connection, begun.LastPosition), cancellationToken), epoch);
        return ExitCode.Done;
    }

    /// <summary>What a restore means for those outside.</summary>
    private static void Tell(EpochRow begun, long? lastAt, long? wanted)
    {
        if (wanted is { } number && begun.Number != number)
        {
            Console.WriteLine($"Epoch {number} was there before, so it is {begun.Number}.");
        }
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"""
            Epoch {begun.Number} began: new events have ids that end with .e{begun.Number} and positions from {StoreEpoch.FirstPosition(begun.Number)}.
            {(lastAt is { } at
                ? $"The last event in this store was recorded at {DateTimeOffset.FromUnixTimeMilliseconds(at):yyyy-MM-dd HH:mm:ss'Z'} (position {begun.LastPosition}). What was recorded after it is not in it: orders, payments, dead letters, and what operators did."
                : "There is no event in this store: what was recorded before is not in it.")}
            Messages that are still in queues are taken, and what producers send again is taken as new where its first copy came after that moment. Subscribers have events of what is lost;
            a reader of /api/events whose position lies beyond gets 410 and the position to go on from (docs/operations.md, Backup).
            """));
    }
}

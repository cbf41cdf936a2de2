using System.CommandLine;
using System.Globalization;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using OrderService.Database;
using OrderService.Projections;
using OrderService.Seals;
using OrderService.Store;

namespace OrderService.CommandLine;

/// <summary><c>store copy</c>: from SQLite to PostgreSQL, back, or from one of a kind to another.</summary>
internal static class StoreCopyCommand
{
    public static Command Create()
    {
        var to = new Option<string>("--to") { Description = "Where the copy goes: Sqlite or Postgres.", Required = true };
        to.AcceptOnlyFromAmong("Sqlite", "Postgres");
        var path = new Option<string?>("--path") { Description = "With --to Sqlite: the file, which must not be a store yet." };
        var connection = new Option<string?>("--connection-string-file")
        {
            Description = "With --to Postgres: a file with the connection string of an empty database; not on the command line, where others read it.",
        };
        var command = new Command("copy", "Copies the store of the settings into an empty one, with everything, and compares the two. The service must be stopped. Run again, it goes on where it was interrupted.") { to, path, connection };
        command.Validators.Add(result =>
        {
            var isSqlite = result.GetValue(to) == "Sqlite";
            if (isSqlite != result.GetValue(path) is not null || isSqlite == result.GetValue(connection) is not null)
            {
                result.AddError("Say --to Sqlite with --path, or --to Postgres with --connection-string-file.");
            }
        });
        command.SetAction((parsed, cancellationToken) => Commands.WithStationsAsync(
            (stations, token) => CopyAsync(stations, parsed.GetValue(path), parsed.GetValue(connection), token), cancellationToken, needsStore: false));
        return command;
    }

    private static async Task<int> CopyAsync(IServiceProvider stations, string? path, string? connectionStringFile, CancellationToken cancellationToken)
    {
        var clock = stations.GetRequiredService<TimeProvider>();
        var began = clock.GetTimestamp();
        await using var target = path is not null ? (IDatabase)Sqlite(path, clock, stations) : await PostgresAsync(connectionStringFile!, stations, cancellationToken);
        var copy = new StoreCopy(End(stations.GetRequiredService<IDatabase>()), End(target));
        var rows = await ProgressBar.RunAsync("copying rows", progress => copy.RunAsync(progress, cancellationToken));
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{rows.Values.Sum()} rows of {rows.Count} tables were copied in {clock.GetElapsedTime(began).TotalSeconds:0} s, and each table has as many as before."));
        var verification = new StoreVerification(target, new EventQueries(target));
        var report = await ProgressBar.RunAsync("checking orders", progress => verification.RunAsync(repair: false, progress, cancellationToken));
        var name = await stations.GetRequiredService<IDatabase>().ReadAsync(EpochsTable.StoreIdAsync, cancellationToken);
        var seals = await StoreCommands.CheckSealsAsync(new SealVerification(target, clock) { StoreName = name }, null, isHere: false, cancellationToken);
        // Two sentences for a person, whichever of them is bad news.
        if (!(StoreCommands.Tell(report) & StoreCommands.Tell(seals)))
        {
            Console.WriteLine("The copy was not finished, and nobody serves it. If the store it was made of has the same findings (orderservice verify), mend that one and begin again with an empty target.");
            return ExitCode.SomeFailed;
        }
        await copy.FinishAsync(cancellationToken);
        Console.WriteLine(
            $"The copy is the store now: set Store:Provider to {target.Provider} and {(path is null ? "Store:ConnectionString" : "Store:Path")} to it, move the old one away, and start the service. Serve one of the two only: both would give out the same ids.");
        return ExitCode.Done;
    }

    private static ICopyEnd End(IDatabase database) => database is SqliteDatabase sqlite ? new SqliteCopyEnd(sqlite) : new PostgresCopyEnd((PostgresDatabase)database);

    private static SqliteDatabase Sqlite(string path, TimeProvider clock, IServiceProvider stations) =>
        new(path, clock, NullLogger<SqliteDatabase>.Instance, seals: stations.GetRequiredService<IOptions<SealsOptions>>().Value);

    private static async Task<PostgresDatabase> PostgresAsync(string file, IServiceProvider stations, CancellationToken cancellationToken)
    {
        string text;
        try
        {
            text = (await File.ReadAllTextAsync(file, cancellationToken)).Trim();
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new StoreFileException($"--connection-string-file: {exception.Message}", exception);
        }
        if (PostgresDatabase.Problem(text, stations.GetRequiredService<IOptions<StoreOptions>>().Value.AllowPlaintext) is { } problem)
        {
            throw new StoreSettingsException($"--connection-string-file: {problem.Replace("Store:ConnectionString", "what it holds", StringComparison.Ordinal)}");
        }
        return new PostgresDatabase(text, NullLogger<PostgresDatabase>.Instance, seals: stations.GetRequiredService<IOptions<SealsOptions>>().Value);
    }
}

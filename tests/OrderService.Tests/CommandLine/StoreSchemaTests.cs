using System.Diagnostics;
using Microsoft.Data.Sqlite;
using Dapper;
using Npgsql;
using OrderService.Database;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.CommandLine;

/// <summary>Whoever looks at a store changes nothing about it: it may belong to a service of another version.</summary>
public sealed class StoreSchemaTests(PostgresContainerFixture postgres) : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("orderservice-schema-").FullName;

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    public void Dispose() => Directory.Delete(folder, recursive: true);

    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task Commands_leave_a_store_of_an_older_version_as_it_is_and_say_what_to_do_and_migrate_brings_it_up_to_date(StoreKind kind)
    {
        var (environment, version) = await OlderStoreAsync(kind);
        foreach (var command in new[] { "dlq list", "why A-1", "verify", "projection rebuild", "order show A-1", "dlq discard --all --yes --because tests" })
        {
            var result = await Binary.RunAsync(command.Split(' '), environment);
            Assert.Equal((78, 1), (result.ExitCode, await version()));
            Assert.Contains("has the schema 1 of an older version", Assert.Single(result.ErrorLines), StringComparison.Ordinal);
        }
        var doctor = await Binary.RunAsync(["doctor"], environment);
        Assert.Contains("WRONG  store", doctor.Output, StringComparison.Ordinal);
        Assert.Contains("orderservice migrate", doctor.Output, StringComparison.Ordinal);
        Assert.Equal(1, await version());

        var migrate = await Binary.RunAsync(["migrate"], environment);
        Assert.True(migrate.ExitCode == 0, migrate.Error);
        Assert.Equal(Migration.All($"{kind}")[^1].Number, await version());
        Assert.Equal(0, (await Binary.RunAsync(["dlq", "list"], environment)).ExitCode);
    }

    [Fact]
    public async Task Looking_at_a_store_that_is_not_there_makes_none()
    {
        var environment = new Dictionary<string, string> { ["Store__Path"] = Path.Combine(folder, "deeper", "orders.db") };
        var list = await Binary.RunAsync(["dlq", "list"], environment);
        var doctor = await Binary.RunAsync(["doctor"], environment);

        Assert.Equal(69, list.ExitCode);
        Assert.Contains("There is no store at", Assert.Single(list.ErrorLines), StringComparison.Ordinal);
        Assert.Contains("ok     store     There is no store at", doctor.Output, StringComparison.Ordinal);
        Assert.Empty(Directory.GetFileSystemEntries(folder));
    }

    [Fact]
    public async Task A_folder_that_the_user_may_not_write_ends_the_start_with_78_and_says_which_who_and_what_to_do()
    {
        if (OperatingSystem.IsWindows())
        {
            Assert.Skip("Who may write a folder is said of Linux alone.");
            return;
        }
        File.SetUnixFileMode(folder, UnixFileMode.UserRead | UnixFileMode.UserExecute | UnixFileMode.OtherRead | UnixFileMode.OtherExecute);
        string[] serve = ["dotnet", Path.Combine(AppContext.BaseDirectory, "orderservice.dll"), "serve"];
        // Nothing is closed to root, so root becomes somebody else.
        string[] command = Environment.UserName == "root" ? ["setpriv", "--reuid", "12345", "--regid", "0", "--clear-groups", .. serve] : serve;
        var start = new ProcessStartInfo(command[0], command[1..]) { WorkingDirectory = "/", RedirectStandardOutput = true, RedirectStandardError = true };
        start.Environment["Store__Path"] = Path.Combine(folder, "orders.db");
        start.Environment["RabbitMq__Uri"] = "amqp://guest:guest@127.0.0.1:1/";
        using var process = Process.Start(start)!;
        using var patience = new CancellationTokenSource(Binary.Patience);
        var output = process.StandardOutput.ReadToEndAsync(patience.Token);
        var error = await process.StandardError.ReadToEndAsync(patience.Token);
        await process.WaitForExitAsync(patience.Token);

        Assert.True(process.ExitCode == 78, error + await output);
        foreach (var part in new[] { $"{folder} can't be written by this process, which runs as user ", "it belongs to user ", "docker run --user ", "chgrp -R 0" })
        {
            Assert.Contains(part, error, StringComparison.Ordinal);
        }
        Assert.DoesNotContain("   at ", error, StringComparison.Ordinal);
        Assert.Empty(Directory.GetFileSystemEntries(folder));
        File.SetUnixFileMode(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
    }

    private async Task<(Dictionary<string, string> Environment, Func<Task<long>> Version)> OlderStoreAsync(StoreKind kind)
    {
        var first = Migration.All($"{kind}")[0];
        if (kind == StoreKind.Sqlite)
        {
            var path = Path.Combine(folder, "orders.db");
            await using (var store = new SqliteConnection($"Data Source={path};Pooling=False"))
            {
                await store.ExecuteAsync($"PRAGMA journal_mode = WAL; {first.Sql}; PRAGMA user_version = 1;");
            }
            return (new() { ["Store__Path"] = path }, async () =>
            {
                await using var store = new SqliteConnection($"Data Source={path};Pooling=False;Mode=ReadOnly");
                return await store.ExecuteScalarAsync<long>("PRAGMA user_version");
            });
        }
        var address = await postgres.AddDatabaseAsync();
        await using (var store = new NpgsqlConnection(address))
        {
            await store.ExecuteAsync($"CREATE TABLE schema_version (number BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL); {first.Sql}; INSERT INTO schema_version VALUES (1, 'initial')");
        }
        return (new() { ["Store__Provider"] = "Postgres", ["Store__ConnectionString"] = address }, async () =>
        {
            await using var store = new NpgsqlConnection(address);
            return await store.ExecuteScalarAsync<long>("SELECT max(number) FROM schema_version");
        });
    }
}

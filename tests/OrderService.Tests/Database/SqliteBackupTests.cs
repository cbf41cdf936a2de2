using Dapper;
using Microsoft.Data.Sqlite;
using Microsoft.Extensions.Logging.Abstractions;
using OrderService.Database;
using OrderService.Projections;
using OrderService.Store;
using OrderService.Tests.Store;
using static OrderService.Tests.Store.Messages;

namespace OrderService.Tests.Database;

/// <summary>A backup is one moment of the store, or there is none; a restore puts it back whole, or changes nothing.</summary>
public sealed class SqliteBackupTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("orderservice-backup-").FullName;

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    private string Store => Path.Combine(folder, "store", "orders.db");

    private string Backup => Path.Combine(folder, "backups", "one.db");

    public void Dispose()
    {
        SqliteConnection.ClearAllPools();
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public async Task A_backup_beside_steady_writes_holds_one_moment_in_one_file_that_its_owner_alone_may_read()
    {
        await using var store = await ServeAsync();
        var instance = new StoreInstance(store, new SqliteOrderEventStore(store));
        await PlaceAsync(instance, "A", 2_000);
        using var enough = new CancellationTokenSource();
        var writing = WriteAsync(instance, enough.Token);
        await Infrastructure.Eventually.TrueAsync(async () => await store.ReadAsync(EventQueries.CountAsync, Now) > 2_500);

        var steps = new List<(long Done, long Total)>();
        var facts = await store.BackUpAsync(Backup, mayReplace: false, new Steps(steps), Now);

        var after = await store.ReadAsync(EventQueries.CountAsync, Now);
        await Infrastructure.Eventually.TrueAsync(async () => await store.ReadAsync(EventQueries.CountAsync, Now) > after + 100);
        await enough.CancelAsync();
        await writing;
        Assert.InRange(facts.Events, 2_500, after);
        Assert.Equal((facts.Events, facts.Events, 1), (facts.Orders, facts.LastPosition, facts.Epoch));
        Assert.NotEmpty(steps);
        Assert.Equal([Backup], Directory.GetFiles(Path.GetDirectoryName(Backup)!));
        AssertItsOwnersAlone(Backup);
        await AssertSoundAsync(Backup, facts.Events);
        // To look at it left nothing beside it.
        Assert.Equal([Backup], Directory.GetFiles(Path.GetDirectoryName(Backup)!));
    }

    [Fact]
    public async Task A_file_that_is_there_is_replaced_only_where_that_was_said_and_only_by_a_whole_one()
    {
        await using var store = await ServeAsync();
        var instance = new StoreInstance(store, new SqliteOrderEventStore(store));
        await PlaceAsync(instance, "A", 20);
        await store.BackUpAsync(Backup, mayReplace: false, null, Now);
        await PlaceAsync(instance, "B", 20_000);

        Assert.Contains("--force", (await Assert.ThrowsAsync<StoreFileException>(() => store.BackUpAsync(Backup, mayReplace: false, null, Now))).Message, StringComparison.Ordinal);
        using var interrupted = new CancellationTokenSource();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => store.BackUpAsync(Backup, mayReplace: true, new Interruption(interrupted), interrupted.Token));
        Assert.Equal(20, (await SqliteBackup.CheckAsync(Backup, Now)).Events);
        Assert.Equal([Backup], Directory.GetFiles(Path.GetDirectoryName(Backup)!));

        Assert.Equal(20_020, (await store.BackUpAsync(Backup, mayReplace: true, null, Now)).Events);
    }

    [Fact]
    public void Where_there_is_no_room_nothing_is_written_and_both_sizes_are_said()
    {
        var refused = Assert.Throws<StoreFileException>(() => SqliteBackup.RequireRoom(Backup, long.MaxValue));

        Assert.Matches(@"has \d+ MB free, and 9223372036855 MB are needed", refused.Message);
    }

    [Theory]
    [InlineData("missing", "There is no file")]
    [InlineData("text", "is no SQLite database")]
    [InlineData("other", "no store of this service")]
    [InlineData("damaged", "one.db (is damaged|can't be read)")]
    [InlineData("cut", "is damaged|can't be read")]
    [InlineData("log", "is not all of it")]
    [InlineData("newer", "was written by a newer version")]
    public async Task What_is_no_whole_backup_is_refused_and_the_store_stays_as_it_is(string what, string why)
    {
        await using (var store = await ServeAsync())
        {
            await PlaceAsync(new StoreInstance(store, new SqliteOrderEventStore(store)), "A", 500);
            await store.BackUpAsync(Backup, mayReplace: false, null, Now);
        }
        await SpoilAsync(what);
        var before = await ListAsync();

        var refused = await Assert.ThrowsAnyAsync<Exception>(() => new SqliteRestore(Store, TimeProvider.System).RunAsync(Backup, 0, Now));

        Assert.True(refused is StoreFileException || (what == "newer" && refused is StoreSettingsException), $"{refused}");
        Assert.Matches(why, refused.Message);
        Assert.Equal(before, await ListAsync());
        await using var again = await ServeAsync();
        Assert.Equal((500, 1), (await again.ReadAsync(EventQueries.CountAsync, Now), again.Epoch));
    }

    [Fact]
    public async Task A_store_that_is_served_is_not_replaced()
    {
        await using var store = await ServeAsync();
        await store.BackUpAsync(Backup, mayReplace: false, null, Now);

        var refused = await Assert.ThrowsAsync<StoreInUseException>(() => new SqliteRestore(Store, TimeProvider.System).RunAsync(Backup, 0, Now));

        Assert.Contains("Another process serves the store", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_restore_keeps_what_was_there_with_its_log_and_begins_an_epoch_beyond_all_that_were_known()
    {
        await using (var store = await ServeAsync())
        {
            var instance = new StoreInstance(store, new SqliteOrderEventStore(store));
            await PlaceAsync(instance, "A", 100);
            await store.BackUpAsync(Backup, mayReplace: false, null, Now);
            await PlaceAsync(instance, "B", 50);
        }
        // As after a kill.
        await File.WriteAllBytesAsync(Store + "-wal", new byte[4096], Now);
        var restore = new SqliteRestore(Store, TimeProvider.System);

        var first = await restore.RunAsync(Backup, 0, Now);

        Assert.Equal((100, 2, 100, "restore"), (first.Backup.Events, first.Epoch.Number, first.Epoch.LastPosition, first.Epoch.Cause));
        Assert.Equal(4096, new FileInfo(first.Kept + "-wal").Length);
        Assert.False(File.Exists(Store + "-wal"));
        Assert.Equal(1_000_000_000, SqliteRelayLease.Highest(Store));
        AssertItsOwnersAlone(Store);
        File.Delete(first.Kept + "-wal");
        Assert.Equal(150, (await SqliteBackup.CheckAsync(first.Kept!, Now)).Events);
        await using (var store = await ServeAsync())
        {
            Assert.Equal(2, store.Epoch);
            var append = await new StoreInstance(store, new SqliteOrderEventStore(store)).AppendAsync(Place("k-B-1", "B-1", quantity: 7));
            Assert.Equal(("B-1.1.e2", 1_000_000_000_001), (append.Events[0].EventId, append.Events[0].Position));
        }
        File.Delete(first.Kept!);

        // The same backup once more, which knows nothing of the second epoch.
        var second = await restore.RunAsync(Backup, 0, Now);
        Assert.Equal((3, 100), (second.Epoch.Number, second.Epoch.LastPosition));
        File.Delete(second.Kept!);
        Assert.Equal(9, (await restore.RunAsync(Backup, 9, Now)).Epoch.Number);
    }

    [Fact]
    public async Task A_restore_that_did_not_come_to_its_end_is_not_served_and_begun_again()
    {
        await using (var store = await ServeAsync())
        {
            await PlaceAsync(new StoreInstance(store, new SqliteOrderEventStore(store)), "A", 10);
            await store.BackUpAsync(Backup, mayReplace: false, null, Now);
        }
        using (var claim = SqliteClaim.TakeToReplace(Store, TimeProvider.System))
        {
            claim.BeginReplace();
            File.Move(Store, Store + ".before-restore-1");
        }

        var refused = await Assert.ThrowsAsync<StoreSettingsException>(ServeAsync);

        Assert.Contains("did not come to its end", refused.Message, StringComparison.Ordinal);
        Assert.False(File.Exists(Store));
        Assert.Equal(2, (await new SqliteRestore(Store, TimeProvider.System).RunAsync(Backup, 0, Now)).Epoch.Number);
        await using var again = await ServeAsync();
        Assert.Equal(10, await again.ReadAsync(EventQueries.CountAsync, Now));
    }

    [Fact]
    public async Task A_backup_of_an_older_version_is_brought_up_to_date_and_stays_as_it_is()
    {
        Directory.CreateDirectory(Path.GetDirectoryName(Backup)!);
        await using (var old = new SqliteConnection($"Data Source={Backup};Pooling=False"))
        {
            foreach (var migration in Migration.All("Sqlite").Where(migration => migration.Number <= 17))
            {
                await old.ExecuteAsync($"{migration.Sql}\n;PRAGMA user_version = {migration.Number};");
            }
        }
        var bytes = await File.ReadAllBytesAsync(Backup, Now);

        var report = await new SqliteRestore(Store, TimeProvider.System).RunAsync(Backup, 0, Now);

        Assert.Equal((17, 2, (string?)null), (report.Backup.Schema, report.Epoch.Number, report.Kept));
        Assert.Equal(bytes, await File.ReadAllBytesAsync(Backup, Now));
        await using var store = await ServeAsync();
        Assert.Equal(Migration.All("Sqlite")[^1].Number, await store.ReadAsync(connection => connection.ExecuteScalarAsync<int>("PRAGMA user_version"), Now));
    }

    private async Task<SqliteDatabase> ServeAsync()
    {
        var database = new SqliteDatabase(Store, TimeProvider.System, NullLogger<SqliteDatabase>.Instance);
        try
        {
            await database.ClaimAsync(Now);
            await database.MigrateAsync(Now);
            return database;
        }
        catch
        {
            await database.DisposeAsync();
            throw;
        }
    }

    private static void AssertItsOwnersAlone(string file)
    {
        if (!OperatingSystem.IsWindows())
        {
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(file));
        }
    }

    private static async Task PlaceAsync(StoreInstance store, string prefix, int orders)
    {
        foreach (var batch in Enumerable.Range(1, orders).Chunk(500))
        {
            await store.AppendAsync([.. batch.Select(number => Place($"k-{prefix}-{number}", $"{prefix}-{number}"))]);
        }
    }

    private static async Task WriteAsync(StoreInstance store, CancellationToken enough)
    {
        for (var number = 1; !enough.IsCancellationRequested; number += 20)
        {
            await store.AppendAsync([.. Enumerable.Range(number, 20).Select(one => Place($"k-W-{one}", $"W-{one}"))]);
        }
    }

    private static async Task AssertSoundAsync(string file, long events)
    {
        await using var database = new SqliteDatabase(file, TimeProvider.System, NullLogger<SqliteDatabase>.Instance);
        var report = await new StoreVerification(database, new EventQueries(database)).RunAsync(repair: false, null, Now);
        Assert.Empty(report.Findings);
        Assert.Equal(events, report.Events);
    }

    private async Task SpoilAsync(string what)
    {
        switch (what)
        {
            case "missing":
                File.Delete(Backup);
                break;
            case "text":
                await File.WriteAllTextAsync(Backup, string.Join(' ', Enumerable.Repeat("These are not the orders.", 50)), Now);
                break;
            case "other":
                File.Delete(Backup);
                await using (var other = new SqliteConnection($"Data Source={Backup};Pooling=False"))
                {
                    await other.ExecuteAsync("CREATE TABLE notes (id INTEGER); PRAGMA user_version = 3");
                }
                break;
            case "damaged":
                // A page of a table or an index in the middle.
                await using (var file = new FileStream(Backup, FileMode.Open))
                {
                    file.Position = file.Length / 4096 / 2 * 4096;
                    file.Write(Enumerable.Repeat((byte)0x5a, 4096).ToArray());
                }
                break;
            case "cut":
                await using (var file = new FileStream(Backup, FileMode.Open))
                {
                    file.SetLength(file.Length / 2);
                }
                break;
            case "log":
                await File.WriteAllBytesAsync(Backup + "-wal", new byte[100], Now);
                break;
            case "newer":
                await using (var newer = new SqliteConnection($"Data Source={Backup};Pooling=False"))
                {
                    await newer.ExecuteAsync("PRAGMA user_version = 9999");
                }
                break;
        }
    }

    /// <summary>Every file beside the store and what is in it; but for the lock.</summary>
    private async Task<List<string>> ListAsync()
    {
        var files = new List<string>();
        foreach (var file in Directory.GetFiles(Path.GetDirectoryName(Store)!).Where(file => !file.EndsWith(".lock", StringComparison.Ordinal)).Order(StringComparer.Ordinal))
        {
            files.Add($"{file} {Convert.ToHexString(System.Security.Cryptography.SHA256.HashData(await File.ReadAllBytesAsync(file, Now)))}");
        }
        return files;
    }

    private sealed class Steps(List<(long Done, long Total)> steps) : IProgress<(long Done, long Total)>
    {
        public void Report((long Done, long Total) value) => steps.Add(value);
    }

    private sealed class Interruption(CancellationTokenSource interrupted) : IProgress<(long Done, long Total)>
    {
        public void Report((long Done, long Total) value) => interrupted.Cancel();
    }
}

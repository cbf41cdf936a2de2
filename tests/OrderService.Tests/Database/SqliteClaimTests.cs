using Dapper;
using Microsoft.Data.Sqlite;
using Microsoft.Extensions.Logging.Abstractions;
using OrderService.Database;
using OrderService.Store;

namespace OrderService.Tests.Database;

/// <summary>What a process finds beside its store when it starts to serve it, and what it makes of it.</summary>
public sealed class SqliteClaimTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("orderservice-claim-").FullName;

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    private string Store => Path.Combine(folder, "orders.db");

    public void Dispose()
    {
        SqliteConnection.ClearAllPools();
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public async Task A_first_start_and_a_start_after_a_clean_stop_find_nothing_to_tell()
    {
        Assert.Empty(await ServeAsync());
        Assert.Empty(await ServeAsync());
        Assert.False(File.Exists(Store + "-wal"));
    }

    [Fact]
    public async Task A_file_that_is_gone_is_told_of_and_its_log_is_kept()
    {
        await ServeAsync();
        File.Move(Store, Store + ".elsewhere");
        await File.WriteAllBytesAsync(Store + "-wal", new byte[4096], Now);

        var findings = await ServeAsync();

        Assert.Equal(2, findings.Count);
        Assert.Contains("its log was left behind", findings[0], StringComparison.Ordinal);
        Assert.Contains($"There is no store at {Store} any more", findings[1], StringComparison.Ordinal);
        Assert.Contains($"process {Environment.ProcessId} on host {Environment.MachineName}", findings[1], StringComparison.Ordinal);
        Assert.Equal(4096, new FileInfo(Assert.Single(Directory.GetFiles(folder, "orders.db-wal.left-*"))).Length);
    }

    [Fact]
    public async Task A_file_without_history_where_there_was_one_is_told_of()
    {
        await ServeAsync();
        File.Delete(Store);
        await using (var other = new SqliteConnection($"Data Source={Store};Pooling=False"))
        {
            await other.ExecuteAsync("CREATE TABLE notes (id INTEGER)");
        }

        Assert.Contains("is empty, although there was one with a history", Assert.Single(await ServeAsync()), StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_is_no_database_is_refused_and_left_alone()
    {
        await File.WriteAllTextAsync(Store, string.Join(' ', Enumerable.Repeat("These are not the orders.", 50)), Now);

        Assert.Contains("is no SQLite database", (await Assert.ThrowsAsync<StoreSettingsException>(() => ServeAsync())).Message, StringComparison.Ordinal);
        Assert.StartsWith("These are not", await File.ReadAllTextAsync(Store, Now), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("copied over", false)]
    [InlineData("moved in", false)]
    [InlineData("copied over", true)]
    public async Task A_backup_beside_the_log_of_a_newer_file_is_refused(string how, bool machineWasStartedAgain)
    {
        await ServeAsync();
        File.Copy(Store, Store + ".backup");
        await KilledAsync(rows: 500, checkpointBetween: machineWasStartedAgain);
        if (machineWasStartedAgain)
        {
            // What the last process noted may be older than the file then.
            var note = SqliteClaim.NoteOf(Store);
            await File.WriteAllTextAsync(note, (await File.ReadAllTextAsync(note, Now)).Replace("\"boot\":\"", "\"boot\":\"another ", StringComparison.Ordinal), Now);
        }
        if (how == "moved in")
        {
            File.Move(Store + ".backup", Store, overwrite: true);
        }
        else
        {
            File.Copy(Store + ".backup", Store, overwrite: true);
        }
        var before = await File.ReadAllBytesAsync(Store, Now);

        var refused = await Assert.ThrowsAsync<StoreSettingsException>(() => ServeAsync());

        Assert.Contains("do not belong together", refused.Message, StringComparison.Ordinal);
        Assert.Equal(before, await File.ReadAllBytesAsync(Store, Now));
        Assert.True(File.Exists(Store + "-wal"));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_kill_and_a_loss_of_power_leave_files_that_are_served_again(bool machineWasStartedAgain)
    {
        await ServeAsync();
        await KilledAsync(rows: 500, checkpointBetween: machineWasStartedAgain);
        if (machineWasStartedAgain)
        {
            var note = SqliteClaim.NoteOf(Store);
            await File.WriteAllTextAsync(note, (await File.ReadAllTextAsync(note, Now)).Replace("\"boot\":\"", "\"boot\":\"another ", StringComparison.Ordinal), Now);
            File.SetLastWriteTimeUtc(Store, new DateTime(2026, 1, 1, 0, 0, 0, DateTimeKind.Utc));
        }

        Assert.Empty(await ServeAsync());
        await using var reader = new SqliteConnection($"Data Source={Store};Pooling=False");
        Assert.Equal(1000, await reader.ExecuteScalarAsync<long>("SELECT count(*) FROM killed"));
        Assert.Equal("ok", await reader.ExecuteScalarAsync<string>("PRAGMA integrity_check"));
    }

    [Fact]
    public async Task A_log_that_was_deleted_after_a_kill_is_told_of()
    {
        await ServeAsync();
        await KilledAsync(rows: 10, checkpointBetween: false);
        File.Delete(Store + "-wal");

        Assert.Contains("committed in its last seconds", Assert.Single(await ServeAsync()), StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_older_file_that_was_put_back_is_refused_with_both_positions_until_somebody_begins_its_next_epoch()
    {
        await ServeAsync(events: 2);
        File.Copy(Store, Store + ".backup");
        await ServeAsync(events: 3);
        File.Move(Store + ".backup", Store, overwrite: true);
        var before = await File.ReadAllBytesAsync(Store, Now);

        for (var start = 1; start <= 2; start++)
        {
            var refused = await Assert.ThrowsAsync<StoreSettingsException>(() => ServeAsync());
            Assert.Contains("its newest event is at position 2 of epoch 1, and position 5 of epoch 1 was given out", refused.Message, StringComparison.Ordinal);
            Assert.Contains("orderservice store restore --in-place", refused.Message, StringComparison.Ordinal);
        }
        Assert.Equal(before, await File.ReadAllBytesAsync(Store, Now));

        await using (var database = Open())
        {
            await database.ClaimAsync(Now);
            Assert.Equal((2, 2), await database.BeginEpochAsync(0, "in-place", Now) is var begun ? (begun.Number, begun.LastPosition) : default);
        }
        Assert.Empty(await ServeAsync());
    }

    [Fact]
    public async Task Another_store_in_its_place_is_refused_and_its_next_epoch_is_beyond_those_of_both()
    {
        await ServeAsync(events: 2);
        await using (var database = Open())
        {
            await database.ClaimAsync(Now);
            await database.BeginEpochAsync(4, "in-place", Now);
        }
        foreach (var file in Directory.GetFiles(folder))
        {
            File.Move(file, file.Replace("orders.db", "first.db", StringComparison.Ordinal));
        }
        await ServeAsync(events: 9);
        File.Move(Path.Combine(folder, ".first.db.note"), SqliteClaim.NoteOf(Store), overwrite: true);

        Assert.Contains("is another store than the one that was served here last", (await Assert.ThrowsAsync<StoreSettingsException>(() => ServeAsync())).Message, StringComparison.Ordinal);

        await using var accepted = Open();
        await accepted.ClaimAsync(Now);
        Assert.Equal(5, (await accepted.BeginEpochAsync(0, "in-place", Now)).Number);
    }

    [Fact]
    public async Task A_new_store_where_there_was_one_goes_on_in_the_next_epoch()
    {
        await ServeAsync(events: 7);
        File.Delete(Store);

        Assert.Contains("There is no store at", Assert.Single(await ServeAsync()), StringComparison.Ordinal);
        await using var database = Open();
        await database.ClaimAsync(Now);
        await database.MigrateAsync(Now);

        Assert.Equal(2, database.Epoch);
        Assert.Equal(("deleted", 0L), (await database.ReadAsync(EpochsTable.ReadAsync, Now)).Current is var current ? (current.Cause, current.LastPosition) : default);
    }

    [Fact]
    public async Task The_second_one_is_refused_with_the_name_of_the_first_and_gets_it_when_that_one_has_stopped()
    {
        await using (var first = Open())
        {
            Assert.Empty(await first.ClaimAsync(Now));
            await using var second = Open();
            var refused = await Assert.ThrowsAsync<StoreInUseException>(() => second.ClaimAsync(Now));
            Assert.Contains($"process {Environment.ProcessId} on host {Environment.MachineName}, since ", refused.Message, StringComparison.Ordinal);
        }
        Assert.Empty(await ServeAsync());
    }

    [Theory]
    [InlineData("idle")]
    [InlineData("before a commit")]
    [InlineData("under load")]
    public async Task A_copy_that_is_laid_over_the_file_in_use_is_noticed_before_anything_more_is_acknowledged_and_stays_as_it_is(string when)
    {
        await ServeAsync();
        File.Copy(Store, Store + ".backup");
        await using (var database = Open())
        {
            await database.ClaimAsync(Now);
            await database.WriteAsync(transaction => transaction.ExecuteAsync("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)"), Now);
            await InsertAsync(database, 500, "t");
            using var laidOver = new CancellationTokenSource();
            var load = Task.CompletedTask;
            if (when == "under load")
            {
                load = Task.Run(async () =>
                {
                    while (!laidOver.IsCancellationRequested)
                    {
                        await InsertAsync(database, 5, "t");
                    }
                }, Now);
            }
            else
            {
                await StateAsync("Whole");
            }

            // With the backup's own time.
            File.Copy(Store + ".backup", Store, overwrite: true);
            await laidOver.CancelAsync();
            // A commit that began before it may end well.
            await load.ContinueWith(_ => { }, Now, TaskContinuationOptions.None, TaskScheduler.Default);
            if (when != "idle")
            {
                await Assert.ThrowsAsync<StoreUnavailableException>(() => InsertAsync(database, 1, "t"));
            }

            Assert.Contains("written over", await database.Lost.WaitAsync(TimeSpan.FromSeconds(30), Now), StringComparison.Ordinal);
            await Assert.ThrowsAsync<StoreUnavailableException>(() => InsertAsync(database, 1, "t"));
        }

        Assert.Equal(await File.ReadAllBytesAsync(Store + ".backup", Now), await File.ReadAllBytesAsync(Store, Now));
        Assert.True(new FileInfo(Store + "-wal").Length > 0);
        var refused = await Assert.ThrowsAsync<StoreSettingsException>(() => ServeAsync());
        Assert.Contains("do not belong together", refused.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("PASSIVE")]
    [InlineData("FULL")]
    [InlineData("RESTART")]
    [InlineData("TRUNCATE")]
    public async Task Checkpoints_of_another_program_are_no_copy_that_was_laid_over_it(string mode)
    {
        await using var database = Open();
        await database.ClaimAsync(Now);
        await database.WriteAsync(transaction => transaction.ExecuteAsync("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)"), Now);
        await using var other = new SqliteConnection($"Data Source={Store};Pooling=False");
        await other.OpenAsync(Now);
        using var enough = new CancellationTokenSource();
        var checkpoints = Task.Run(async () =>
        {
            var count = 0;
            for (; !enough.IsCancellationRequested; count++)
            {
                await other.ExecuteAsync($"PRAGMA wal_checkpoint({mode})");
            }
            return count;
        }, Now);
        var began = TimeProvider.System.GetTimestamp();
        for (var commit = 0; TimeProvider.System.GetElapsedTime(began) < TimeSpan.FromSeconds(3); commit++)
        {
            await InsertAsync(database, commit % 7 == 0 ? 200 : 1, "t");
        }
        await enough.CancelAsync();

        Assert.InRange(await checkpoints, 10, int.MaxValue);
        Assert.False(database.Lost.IsCompleted, database.Lost.IsCompleted ? await database.Lost : "");
        await other.ExecuteAsync($"INSERT INTO t (body) VALUES (zeroblob(10)); PRAGMA wal_checkpoint({mode})");
        await InsertAsync(database, 1, "t");
        Assert.Equal("ok", await other.ExecuteScalarAsync<string>("PRAGMA integrity_check"));
    }

    private SqliteDatabase Open() => new(Store, TimeProvider.System, NullLogger<SqliteDatabase>.Instance);

    /// <summary>A run of the service, from its start to its stop.</summary>
    /// <param name="events">How many are recorded.</param>
    /// <returns>What it found.</returns>
    private async Task<IReadOnlyList<string>> ServeAsync(int events = 0)
    {
        await using var database = Open();
        var findings = await database.ClaimAsync(Now);
        await database.MigrateAsync(Now);
        if (events > 0)
        {
            await database.WriteAsync(
                transaction => transaction.ExecuteAsync(
                    $"""
                    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {events})
                    INSERT INTO events (stream, order_id, version, type, data, correlation_id, causation_id, recorded_at, hash)
                    SELECT (SELECT count(*) FROM events) + 1, 'A', i, 'ORDER_PLACED', x'', '', '', 0, x'' FROM n
                    """),
                Now);
            await Infrastructure.Eventually.TrueAsync(async () =>
                (await File.ReadAllTextAsync(SqliteClaim.NoteOf(Store), Now)).Contains(
                    $"\"position\":{await database.ReadAsync(EventQueries.NewestAsync, Now)}", StringComparison.Ordinal));
        }
        return findings;
    }

    /// <summary>A run that ends in the middle, with its newest commits in the log alone: the files are put back as they lay there then.</summary>
    private async Task KilledAsync(int rows, bool checkpointBetween)
    {
        string[] files = [Store, Store + "-wal", SqliteClaim.NoteOf(Store)];
        await using (var database = Open())
        {
            await database.ClaimAsync(Now);
            await database.WriteAsync(transaction => transaction.ExecuteAsync("CREATE TABLE killed (id INTEGER PRIMARY KEY, body BLOB)"), Now);
            await InsertAsync(database, rows);
            if (checkpointBetween)
            {
                // All of it is in the file; what comes next begins the log anew, and may be all that it holds.
                await StateAsync("Whole");
            }
            await InsertAsync(database, 1000 - rows);
            await StateAsync("Behind");
            foreach (var file in files)
            {
                File.Copy(file, file + ".killed");
            }
        }
        foreach (var file in files)
        {
            File.Move(file + ".killed", file, overwrite: true);
        }
        File.Delete(Store + "-shm");
    }

    private static Task InsertAsync(SqliteDatabase database, int rows, string table = "killed") => database.WriteAsync(
        transaction => transaction.ExecuteAsync(
            $"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < @rows) INSERT INTO {table} (body) SELECT randomblob(1000) FROM n", new { rows }), Now);

    private Task StateAsync(string state) => Infrastructure.Eventually.TrueAsync(
        async () => (await File.ReadAllTextAsync(SqliteClaim.NoteOf(Store), Now)).Contains($"\"state\":\"{state}\"", StringComparison.OrdinalIgnoreCase));
}

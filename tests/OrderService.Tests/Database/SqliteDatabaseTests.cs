using Dapper;
using Microsoft.Data.Sqlite;
using Microsoft.Extensions.Logging.Abstractions;
using OrderService.Database;
using OrderService.Store;

namespace OrderService.Tests.Database;

/// <summary>The writer of the embedded store: writes that wait at the same time share a transaction, and none pays for another's failure.</summary>
public sealed class SqliteDatabaseTests : IAsyncDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("orderservice-writer-").FullName;
    private readonly SqliteDatabase database;
    private readonly ManualResetEventSlim writerIsFree = new();
    private readonly List<string> ran = [];

    public SqliteDatabaseTests() =>
        database = new SqliteDatabase(Path.Combine(folder, "orders.db"), TimeProvider.System, NullLogger<SqliteDatabase>.Instance);

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    public async ValueTask DisposeAsync()
    {
        writerIsFree.Set();
        await database.DisposeAsync();
        writerIsFree.Dispose();
        Directory.Delete(folder, recursive: true);
    }

    [Theory]
    [InlineData("one", "LARGE", "three")]
    [InlineData("fails", "two", "three")]
    [InlineData("fails", "LARGE", "fails")]
    [InlineData("one", "LARGE FAILS", "three")]
    [InlineData("fails", "LARGE FAILS", "LARGE")]
    [InlineData("fails", "fails", "fails")]
    public async Task Of_the_writes_that_share_a_commit_those_that_fail_leave_nothing_and_the_others_everything(params string[] names)
    {
        await database.WriteAsync(transaction => transaction.ExecuteAsync("CREATE TABLE t (place INTEGER)"), Now);
        var busy = await KeepWriterBusyAsync();
        var writes = names.Select((name, place) => name.StartsWith("LARGE", StringComparison.Ordinal)
            ? database.WriteLargeAsync(transaction => WriteAsync(transaction, name, place), Now)
            : database.WriteAsync(transaction => WriteAsync(transaction, name, place), Now)).ToList();
        writerIsFree.Set();
        await busy;

        for (var place = 0; place < names.Length; place++)
        {
            if (Fails(names[place]))
            {
                Assert.Equal(names[place], (await Assert.ThrowsAsync<InvalidDataException>(() => writes[place])).Message);
            }
            else
            {
                Assert.Equal(place, await writes[place]);
            }
        }
        var kept = await database.ReadAsync(async connection => (await connection.QueryAsync<int>("SELECT place FROM t ORDER BY place")).ToArray(), Now);
        Assert.Equal(Enumerable.Range(0, names.Length).Where(place => !Fails(names[place])), kept);
        Assert.Equal(names.Any(name => name.StartsWith("LARGE", StringComparison.Ordinal)), ran[0].StartsWith("LARGE", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_write_that_was_given_up_before_its_turn_does_not_run()
    {
        await database.WriteAsync(transaction => transaction.ExecuteAsync("CREATE TABLE t (place INTEGER)"), Now);
        var busy = await KeepWriterBusyAsync();
        using var impatient = new CancellationTokenSource();
        var first = database.WriteLargeAsync(transaction => WriteAsync(transaction, "LARGE", 0), impatient.Token);
        var second = database.WriteAsync(transaction => WriteAsync(transaction, "two", 1), Now);
        await impatient.CancelAsync();
        writerIsFree.Set();
        await busy;

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => first);
        Assert.Equal(1, await second);
        Assert.Equal(["two"], ran);
    }

    [Theory]
    [InlineData("orders.db deleted", "store's file")]
    [InlineData("orders.db replaced", "store's file")]
    [InlineData("orders.db moved", "store's file")]
    [InlineData("folder moved", "store's file")]
    [InlineData("orders.db-wal deleted", "store's log")]
    [InlineData("orders.db-wal replaced", "store's log")]
    public async Task A_commit_to_a_file_that_is_not_there_any_more_is_none(string accident, string named)
    {
        var path = Path.Combine(folder, "orders.db");
        await CreateTableAsync();
        await database.WriteAsync(transaction => transaction.ExecuteAsync("INSERT INTO t (place) VALUES (1)"), Now);
        var busy = await KeepWriterBusyAsync();
        var write = database.WriteLargeAsync(transaction => WriteAsync(transaction, "LARGE", 2), Now);
        var (what, how) = accident.Split(' ') switch { var words => (words[0] == "folder" ? folder : Path.Combine(folder, words[0]), words[1]) };
        var aside = what + ".aside";
        if (how == "deleted")
        {
            File.Delete(what);
        }
        else
        {
            Directory.Move(what, aside);
        }
        if (how == "replaced")
        {
            File.Copy(aside, what);
        }
        writerIsFree.Set();

        // The one that was under way when it happened is not acknowledged either.
        await Assert.ThrowsAsync<StoreUnavailableException>(() => busy);
        await Assert.ThrowsAsync<StoreUnavailableException>(() => write);
        var gone = await Assert.ThrowsAsync<StoreUnavailableException>(() => database.ReadAsync(connection => connection.ExecuteScalarAsync<long>("SELECT count(*) FROM t"), Now));
        Assert.Contains(named, gone.Message, StringComparison.Ordinal);
        Assert.Equal(gone.Message, await database.Lost);
        await Assert.ThrowsAsync<StoreUnavailableException>(() => ((IDatabase)database).ProbeAsync(Now));

        await database.DisposeAsync();
        // Nothing was made in its place, and what had been committed before is where it was taken to, or, where only the log was taken, in the file.
        Assert.Equal(how == "replaced" || what == path + "-wal", File.Exists(path));
        if (how != "deleted" || what != path)
        {
            var survivor = what == folder ? Path.Combine(aside, "orders.db") : what == path ? aside : path;
            await using var reader = new SqliteConnection($"Data Source={survivor};Pooling=False;Mode=ReadOnly");
            Assert.Equal(1, await reader.ExecuteScalarAsync<long>("SELECT count(*) FROM t WHERE place = 1"));
        }
        if (what == folder)
        {
            Directory.Move(aside, folder);
        }
    }

    [Fact]
    public async Task What_an_undone_transaction_wrote_never_reaches_the_log_of_another_program()
    {
        var path = Path.Combine(folder, "orders.db");
        await CreateTableAsync();
        // More than the writer's cache holds, so that it would go to the log before the end.
        await Assert.ThrowsAsync<InvalidDataException>(() => database.WriteAsync(
            async transaction =>
            {
                await transaction.ExecuteAsync(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000) INSERT INTO t (place, filling) SELECT i, randomblob(900) FROM n");
                throw new InvalidDataException("undone");
            },
            Now));
        Assert.True(new FileInfo(path + "-wal").Length < 1_000_000, "what was undone is in the log");

        // Another program commits as much where it lay, and then the writer's connection reads and writes again.
        await using (var other = new SqliteConnection($"Data Source={path};Pooling=False"))
        {
            await other.OpenAsync(Now);
            await other.ExecuteAsync("PRAGMA wal_autocheckpoint = 0; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000) INSERT INTO t (place, filling) SELECT i, zeroblob(900) FROM n");
            await database.WriteAsync(transaction => transaction.ExecuteAsync("INSERT INTO t (place) SELECT max(place) + 1 FROM t"), Now);
            Assert.Equal(40001, await other.ExecuteScalarAsync<long>("SELECT count(*) FROM t WHERE filling IS NULL OR filling = zeroblob(900)"));
            Assert.Equal("ok", await other.ExecuteScalarAsync<string>("PRAGMA integrity_check"));
        }
    }

    private Task<int> CreateTableAsync() =>
        database.WriteAsync(transaction => transaction.ExecuteAsync("CREATE TABLE t (place INTEGER, filling BLOB)"), Now);

    /// <summary>Whatever is asked for from now on, until <see cref="writerIsFree"/>, shares the next commit.</summary>
    private async Task<Task> KeepWriterBusyAsync()
    {
        var begun = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var write = database.WriteAsync(
            _ =>
            {
                begun.SetResult();
                writerIsFree.Wait(Now);
                return Task.CompletedTask;
            },
            Now);
        await begun.Task;
        return write;
    }

    private static bool Fails(string name) => name.EndsWith("fails", StringComparison.OrdinalIgnoreCase);

    private async Task<int> WriteAsync(StoreTransaction transaction, string name, int place)
    {
        ran.Add(name);
        await transaction.ExecuteAsync("INSERT INTO t (place) VALUES (@place)", new { place });
        return Fails(name) ? throw new InvalidDataException(name) : place;
    }
}

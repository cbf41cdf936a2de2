using System.Data.Common;
using Dapper;
using Microsoft.Extensions.Logging.Abstractions;
using OrderService.Database;

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
        await database.WriteAsync(transaction => transaction.Connection!.ExecuteAsync("CREATE TABLE t (place INTEGER)", transaction: transaction), Now);
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
        await database.WriteAsync(transaction => transaction.Connection!.ExecuteAsync("CREATE TABLE t (place INTEGER)", transaction: transaction), Now);
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

    private async Task<int> WriteAsync(DbTransaction transaction, string name, int place)
    {
        ran.Add(name);
        await transaction.Connection!.ExecuteAsync("INSERT INTO t (place) VALUES (@place)", new { place }, transaction);
        return Fails(name) ? throw new InvalidDataException(name) : place;
    }
}

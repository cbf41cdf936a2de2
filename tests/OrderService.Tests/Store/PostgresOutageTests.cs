using Npgsql;
using OrderService.Inbox;
using OrderService.Projections;
using OrderService.Store;
using OrderService.Tests.Infrastructure;
using static OrderService.Tests.Store.Messages;

namespace OrderService.Tests.Store;

/// <summary>What an outage of PostgreSQL does to appends that are under way: nothing is lost, nothing is doubled, whatever became of the COMMIT.</summary>
public sealed class PostgresOutageTests : IAsyncLifetime
{
    private PostgresServer server = null!;
    private string connectionString = "";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        server = await PostgresServer.StartAsync();
        connectionString = await server.AddDatabaseAsync();
        await using var store = PostgresInstance.Open(connectionString);
        await store.Database.MigrateAsync(Token);
    }

    public async ValueTask DisposeAsync()
    {
        if (server is not null)
        {
            await server.DisposeAsync();
        }
    }

    [Fact]
    public async Task A_commit_whose_answer_is_lost_is_looked_up_and_not_done_again()
    {
        await using var proxy = new LossyProxy(new NpgsqlConnectionStringBuilder(connectionString).Port);
        await using var store = PostgresInstance.Open(proxy.Through(connectionString));
        await store.AppendAsync(Place("k-0", "A-0"));
        var batch = new[] { Place("k-1", "A-1"), Pay("k-2", "A-1"), Place("k-3", "A-2") };

        var append = await store.AppendAsync(batch, _ => proxy.LoseTheNextAnswers());

        Assert.Equal(1, proxy.Lost);
        Assert.All(batch, message => Assert.Equal(Fate.Accepted, message.Fate));
        // The positions are known again; the rows of the outbox are left to the relay, which finds them in the table.
        Assert.Empty(append.Outbox);
        Assert.Equal([2L, 3, 4, 5], append.Events.Select(recorded => recorded.Position));
        await AssertEachOnceAsync(["k-0", "k-1", "k-2", "k-3"], events: 5);
    }

    [Fact]
    public async Task A_message_noted_as_begun_counts_once_though_the_answer_to_its_commit_is_lost_and_it_is_noted_again()
    {
        byte[][] hashes = [[1, 2, 3]];
        await using var proxy = new LossyProxy(new NpgsqlConnectionStringBuilder(connectionString).Port);
        for (var process = 1; process <= 3; process++)
        {
            await using var store = PostgresInstance.Open(proxy.Through(connectionString));
            var lives = store.Log.Lives;
            await lives.BeginAsync(StoreInstance.Now, CrashRule.Memory, Token);
            // The server takes a moment to see that the process before is gone.
            await Eventually.HoldsAsync(async () => Assert.Equal(
                [new Suspicion(0, process - 1, process - 1)], await lives.LookAtAsync(hashes, StoreInstance.Now, CrashRule.Memory, Token)));

            proxy.LoseTheAnswerToTheNextCommit();
            await Assert.ThrowsAsync<StoreUnavailableException>(() => lives.MarkStartedAsync(hashes, alone: true, StoreInstance.Now, Token));
            Assert.Equal(process, proxy.Lost);
            await lives.MarkStartedAsync(hashes, alone: true, StoreInstance.Now, Token);
        }
    }

    [Fact]
    public async Task A_batch_that_never_arrived_whole_is_written_again()
    {
        await using var proxy = new LossyProxy(new NpgsqlConnectionStringBuilder(connectionString).Port);
        await using var store = PostgresInstance.Open(proxy.Through(connectionString));
        var batch = Enumerable.Range(0, 500).Select(number => Place($"k-{number}", $"A-{number}")).ToList();

        var append = await store.AppendAsync(batch, attempt =>
        {
            if (attempt == 1)
            {
                proxy.CutAfter(20_000);
            }
        });

        Assert.Equal(1, proxy.Lost);
        Assert.Equal(500, append.Outbox.Count);
        await AssertEachOnceAsync([.. batch.Select(message => message.Properties.MessageId!)], events: 500);
    }

    [Fact]
    public async Task Sessions_that_are_ended_all_the_time_cost_nothing_but_time()
    {
        await using var store = PostgresInstance.Open(connectionString);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(Token);
        var ending = Task.Run(async () =>
        {
            await using var connection = new NpgsqlConnection(connectionString + ";Pooling=false");
            await connection.OpenAsync();
            using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(15));
            var ended = 0L;
            while (!stop.IsCancellationRequested)
            {
                await using var command = new NpgsqlCommand(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name LIKE 'orderservice-%' AND query LIKE '%append_conflict%'", connection);
                ended += (long)(await command.ExecuteScalarAsync())!;
                await tick.WaitForNextTickAsync(CancellationToken.None);
            }
            return ended;
        }, Token);

        var keys = new List<string>();
        for (var round = 0; round < 40; round++)
        {
            var batch = Enumerable.Range(0, 50).Select(number => Place($"k-{round}-{number}", $"A-{round}-{number}")).ToList();
            keys.AddRange(batch.Select(message => message.Properties.MessageId!));
            await UntilItSucceedsAsync(() => store.AppendAsync(batch, null));
        }
        await stop.CancelAsync();

        Assert.True(await ending > 0, "No session was ended; the test did not test anything.");
        await AssertEachOnceAsync(keys, events: keys.Count);
    }

    [Fact]
    public async Task A_server_that_loses_its_power_comes_back_with_everything_that_was_answered()
    {
        await using var store = PostgresInstance.Open(connectionString);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(Token);
        var keys = new List<string>();
        var appended = 0;
        var appending = Task.Run(async () =>
        {
            for (var round = 0; !stop.IsCancellationRequested; round++)
            {
                var batch = Enumerable.Range(0, 20).Select(number => Place($"k-{round}-{number}", $"A-{round}-{number}")).ToList();
                await UntilItSucceedsAsync(() => store.AppendAsync(batch, null));
                keys.AddRange(batch.Select(message => message.Properties.MessageId!));
                Interlocked.Increment(ref appended);
            }
        }, Token);
        await Eventually.TrueAsync(() => Volatile.Read(ref appended) > 5);

        await server.CrashAndStartAsync();

        var before = Volatile.Read(ref appended);
        await Eventually.TrueAsync(() => Volatile.Read(ref appended) > before + 5, TimeSpan.FromMinutes(1));
        await stop.CancelAsync();
        await appending;
        await AssertEachOnceAsync(keys, events: keys.Count);
    }

    [Fact]
    public async Task A_frozen_server_holds_appends_until_it_thaws()
    {
        await using var store = PostgresInstance.Open(connectionString);
        await store.AppendAsync(Place("k-1", "A-1"));
        await server.PauseAsync();

        var append = store.AppendAsync(Place("k-2", "A-2"));
        await Assert.ThrowsAsync<TimeoutException>(() => append.WaitAsync(TimeSpan.FromSeconds(1), Token));
        await server.UnpauseAsync();

        Assert.Single((await append).Events);
        await AssertEachOnceAsync(["k-1", "k-2"], events: 2);
    }

    private static async Task UntilItSucceedsAsync(Func<Task> append)
    {
        // What the inbox does, without its patience.
        await Eventually.TrueAsync(async () =>
        {
            try
            {
                await append();
                return true;
            }
            catch (StoreUnavailableException)
            {
                return false;
            }
        }, TimeSpan.FromMinutes(1));
    }

    private async Task AssertEachOnceAsync(IReadOnlyCollection<string> keys, long events)
    {
        await using var store = PostgresInstance.Open(connectionString);
        Task<long> CountAsync(string sql) => store.Database.ReadAsync(connection => connection.ExecuteScalarAsync<long>(sql), Token);
        Assert.Equal(keys.Count, await CountAsync("SELECT count(*) FROM inbox WHERE outcome = 1"));
        Assert.Equal(events, await CountAsync("SELECT count(*) FROM events"));
        Assert.Equal(events, await CountAsync("SELECT count(*) FROM outbox"));
        Assert.Equal(0L, await CountAsync("SELECT count(*) FROM history"));
        Assert.Empty((await new StoreVerification(store.Database, new EventQueries(store.Database)).RunAsync(repair: false, null, Token)).Findings);
    }
}

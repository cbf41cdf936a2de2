using Microsoft.Extensions.Logging.Abstractions;
using OrderService.Database;
using OrderService.Projections;
using OrderService.Store;
using OrderService.Tests.Infrastructure;
using OrderService.Tests.Store;
using static OrderService.Tests.Store.Messages;

namespace OrderService.Tests.Database;

/// <summary>A copy of a store is the same store, whichever database it is in.</summary>
public sealed class StoreCopyTests(PostgresContainerFixture postgres) : IDisposable
{
    private const int Orders = 1_500;
    private readonly string folder = Directory.CreateTempSubdirectory("orderservice-copy-").FullName;

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    public void Dispose()
    {
        Microsoft.Data.Sqlite.SqliteConnection.ClearAllPools();
        Directory.Delete(folder, recursive: true);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    public async Task From_SQLite_to_PostgreSQL_and_back_every_row_is_the_same_and_the_next_order_goes_on_from_there(int epoch)
    {
        await using (var first = Sqlite("first.db"))
        {
            await FillAsync(first, epoch);
        }
        SqliteRelayLease.Jump(Path.Combine(folder, "first.db"), 77);
        var address = await postgres.AddDatabaseAsync();

        var (there, _) = await CopyAsync(() => Sqlite("first.db"), () => Postgres(address));
        var (back, _) = await CopyAsync(() => Postgres(address), () => Sqlite("second.db"));

        Assert.True(there["events"] > Orders && there["dead_letters"] == 1 && there["inbox"] > Orders && there["alerts"] == 1, string.Join(", ", there));
        Assert.Equal(there, back);
        Assert.True(SqliteRelayLease.Highest(Path.Combine(folder, "second.db")) >= 77);
        await using var one = Sqlite("first.db");
        await using var two = Postgres(address);
        await using var three = Sqlite("second.db");
        var rows = await ContentAsync(one, new SqliteCopyEnd(one));
        Assert.Equal(rows, await ContentAsync(two, new PostgresCopyEnd(two)));
        Assert.Equal(rows, await ContentAsync(three, new SqliteCopyEnd(three)));
        foreach (var database in new IDatabase[] { one, two, three })
        {
            await AssertGoesOnAsync(database, epoch);
        }
    }

    [Fact]
    public async Task A_copy_that_was_interrupted_is_served_by_nobody_and_goes_on_where_it_was()
    {
        await using (var first = Sqlite("first.db"))
        {
            await FillAsync(first, 1);
        }
        var address = await postgres.AddDatabaseAsync();
        using var interruption = new CancellationTokenSource();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => CopyAsync(() => Sqlite("first.db"), () => Postgres(address), new Progress(done => { if (done > Orders) { interruption.Cancel(); } }), interruption));

        await using (var served = Postgres(address))
        {
            Assert.Contains("did not come to its end", (await Assert.ThrowsAsync<StoreSettingsException>(() => served.MigrateAsync(Now))).Message, StringComparison.Ordinal);
            Assert.Contains("did not come to its end", (await Assert.ThrowsAsync<StoreSettingsException>(() => served.RequireSchemaAsync(Now))).Message, StringComparison.Ordinal);
        }

        var begins = new List<long>();
        var (rows, _) = await CopyAsync(() => Sqlite("first.db"), () => Postgres(address), new Progress(begins.Add));
        Assert.True(begins.FindIndex(done => done > Orders) < begins.Count - 1 && rows["events"] > Orders);
        await using var one = Sqlite("first.db");
        await using var two = Postgres(address);
        Assert.Equal(await ContentAsync(one, new SqliteCopyEnd(one)), await ContentAsync(two, new PostgresCopyEnd(two)));
    }

    [Fact]
    public async Task Where_the_source_was_served_since_the_copy_began_it_begins_again()
    {
        await using (var first = Sqlite("first.db"))
        {
            await FillAsync(first, 1);
        }
        using var interruption = new CancellationTokenSource();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => CopyAsync(() => Sqlite("first.db"), () => Sqlite("second.db"), new Progress(done => { if (done > Orders) { interruption.Cancel(); } }), interruption));
        await using (var first = Sqlite("first.db"))
        {
            await new StoreInstance(first, new SqliteOrderEventStore(first)).AppendAsync(Place("late", "LATE-1"));
        }

        var refused = await Assert.ThrowsAsync<StoreFileException>(() => CopyAsync(() => Sqlite("first.db"), () => Sqlite("second.db")));

        Assert.Contains("was served since that copy began", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_store_that_has_anything_in_it_is_no_target_and_stays_as_it_is()
    {
        await using (var first = Sqlite("first.db"))
        {
            await FillAsync(first, 1);
        }
        await using (var other = Sqlite("other.db"))
        {
            await other.MigrateAsync(Now);
            await new StoreInstance(other, new SqliteOrderEventStore(other)).AppendAsync(Place("k", "OTHER-1"));
        }

        var refused = await Assert.ThrowsAsync<StoreFileException>(() => CopyAsync(() => Sqlite("first.db"), () => Sqlite("other.db")));

        Assert.Contains("The target is in use: it has 1 rows in events", refused.Message, StringComparison.Ordinal);
        await using var same = Sqlite("other.db");
        await same.MigrateAsync(Now);
        Assert.Equal(1, await same.ReadAsync(EventQueries.CountAsync, Now));
    }

    [Fact]
    public async Task A_store_that_is_served_is_neither_copied_nor_copied_into()
    {
        await using var served = Sqlite("first.db");
        await served.ClaimAsync(Now);
        await FillAsync(served, 1);

        await Assert.ThrowsAsync<StoreInUseException>(() => CopyAsync(() => Sqlite("first.db"), () => Sqlite("second.db")));
        await Assert.ThrowsAsync<StoreInUseException>(() => CopyAsync(() => Sqlite("second.db"), () => Sqlite("first.db")));
    }

    private static async Task<(IReadOnlyDictionary<string, long> Rows, VerificationReport Report)> CopyAsync(
        Func<IDatabase> from, Func<IDatabase> to, IProgress<(long Done, long Total)>? progress = null, CancellationTokenSource? interruption = null)
    {
        await using var source = from();
        await using var target = to();
        var copy = new StoreCopy(End(source), End(target));
        var rows = await copy.RunAsync(progress, interruption?.Token ?? Now);
        var report = await new StoreVerification(target, new EventQueries(target)).RunAsync(repair: false, null, Now);
        Assert.Empty(report.Findings);
        await copy.FinishAsync(Now);
        return (rows, report);
    }

    private static ICopyEnd End(IDatabase database) => database is SqliteDatabase sqlite ? new SqliteCopyEnd(sqlite) : new PostgresCopyEnd((PostgresDatabase)database);

    /// <summary>Orders with a life, a letter with every byte there is, numbers that were given out and are gone.</summary>
    private static async Task FillAsync(SqliteDatabase database, int epoch)
    {
        await database.MigrateAsync(Now);
        var store = new StoreInstance(database, new SqliteOrderEventStore(database));
        foreach (var batch in Enumerable.Range(1, Orders).Chunk(500))
        {
            await store.AppendAsync([.. batch.Select(number => Place($"k-{number}", $"A-{number}"))]);
        }
        if (epoch > 1)
        {
            await database.BeginEpochAsync(epoch, "restore", Now);
        }
        await store.AppendAsync([.. Enumerable.Range(1, 300).Select(number => Pay($"p-{number}", $"A-{number}"))]);
        await store.AppendAsync([.. Enumerable.Range(1, 20).Select(number => Ship($"early-{number}", $"LATER-{number}"))]);
        await database.WriteAsync(
            async transaction =>
            {
                await transaction.ExecuteAsync(
                    """
                    INSERT INTO dead_letters (key, fingerprint, incident, status, reason, detail, parked_at, opened_at, body, properties)
                    VALUES ('k-letter', @fingerprint, 'i-1', 'parked', 'malformed_json', 'Grüße, 世界 🚚', 1, 1, @body, '{}')
                    """,
                    new { fingerprint = new byte[32], body = Enumerable.Range(0, 256).Select(value => (byte)value).ToArray() });
                await transaction.ExecuteAsync("INSERT INTO alerts (id, kind, subject, text, data, letters, created_at) VALUES (70, 'test', '', '', '', 0, 0), (90, 'test', '', '', '', 0, 0)");
                await transaction.ExecuteAsync("DELETE FROM alerts WHERE id = 90");
                await transaction.ExecuteAsync("DELETE FROM outbox WHERE id % 3 = 0");
            },
            Now);
    }

    /// <summary>Every row of every table, as text; where it lies inside is the database's own.</summary>
    private static async Task<List<string>> ContentAsync(IDatabase database, ICopyEnd end)
    {
        var tables = await database.ReadAsync(end.TablesAsync, Now);
        var lines = new List<string>();
        foreach (var table in tables.Where(table => table.Name is not ("relay_leases" or "relay_members")))
        {
            var columns = table.Columns.Order(StringComparer.Ordinal).ToList();
            var rows = await database.ReadAsync(connection => connection.QueryRowsAsync($"SELECT {string.Join(", ", columns)} FROM {table.Name}", null, long.MaxValue), Now);
            lines.AddRange(rows.Select(row => $"{table.Name}: {string.Join(" | ", row.Select(value => value is byte[] bytes ? Convert.ToHexString(bytes) : $"{value}"))}"));
        }
        lines.Sort(StringComparer.Ordinal);
        return lines;
    }

    private static async Task AssertGoesOnAsync(IDatabase database, int epoch)
    {
        await database.ClaimAsync(Now);
        await database.MigrateAsync(Now);
        Assert.Equal(epoch, database.Epoch);
        IOrderEventStore log = database is SqliteDatabase sqlite
            ? new SqliteOrderEventStore(sqlite)
            : new PostgresOrderEventStore((PostgresDatabase)database, TimeProvider.System, NullLogger<PostgresOrderEventStore>.Instance);
        var newest = await database.ReadAsync(EventQueries.NewestAsync, Now);
        var store = new StoreInstance(database, log);
        var append = await store.AppendAsync(Place("k-new", "NEW-1"), Place("k-1", "A-1"), Place("k-later", "LATER-1"));
        Assert.Equal([newest + 1, newest + 2, newest + 3], append.Events.Select(recorded => recorded.Position).Order());
        Assert.Equal($"NEW-1.1{StoreEpoch.Suffix(epoch)}", append.Events.Single(recorded => recorded.OrderId == "NEW-1").EventId);
        await database.WriteAsync(transaction => transaction.ExecuteAsync("INSERT INTO alerts (kind, subject, text, data, letters, created_at) VALUES ('test', '', '', '', 0, 0)"), Now);
        Assert.Equal(epoch > 1 ? 2_000_000_001 : 91, await database.ReadAsync(connection => connection.ExecuteScalarAsync<long>("SELECT max(id) FROM alerts"), Now));
        Assert.Empty((await new StoreVerification(database, store.Events).RunAsync(repair: false, null, Now)).Findings);
    }

    private SqliteDatabase Sqlite(string file) => new(Path.Combine(folder, file), TimeProvider.System, NullLogger<SqliteDatabase>.Instance);

    private static PostgresDatabase Postgres(string address) => new(address, NullLogger<PostgresDatabase>.Instance);

    private sealed class Progress(Action<long> told) : IProgress<(long Done, long Total)>
    {
        public void Report((long Done, long Total) value) => told(value.Done);
    }
}

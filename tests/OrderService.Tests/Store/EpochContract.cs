using Microsoft.Extensions.Logging.Abstractions;
using OrderService.Database;
using OrderService.Domain;
using OrderService.Inbox;
using OrderService.Outbox;
using OrderService.Store;
using OrderService.Tests.Infrastructure;
using static OrderService.Tests.Store.Messages;

namespace OrderService.Tests.Store;

/// <summary>What every store promises about its epochs.</summary>
public abstract class EpochContract : IAsyncLifetime
{
    private TestStore store = null!;
    private StoreInstance instance = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private IDatabase Database => store.Database;

    private EventQueries Events => new(Database);

    protected abstract Task<TestStore> OpenAsync();

    public async ValueTask InitializeAsync()
    {
        store = await OpenAsync();
        instance = new StoreInstance(store.Database, store.Log);
    }

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        await store.DisposeAsync();
    }

    [Fact]
    public async Task A_store_begins_with_epoch_1_whose_event_ids_and_positions_say_nothing_of_it()
    {
        await instance.AppendAsync(Place("k-1", "A-1"));

        Assert.Equal(1, Database.Epoch);
        var recorded = Assert.Single(await Events.StreamAsync("A-1", Token));
        Assert.Equal(("A-1.1", 1L, 1L), (recorded.EventId, recorded.Position, recorded.Epoch));
        Assert.DoesNotContain("epoch", System.Text.Encoding.UTF8.GetString(PublishedEvent.Render(recorded)), StringComparison.Ordinal);
        Assert.Equal("first", (await HistoryAsync()).Current.Cause);
        Assert.Equal(32, (await Database.ReadAsync(EpochsTable.StoreIdAsync, Token)).Length);
    }

    [Fact]
    public async Task After_a_restore_ids_and_positions_are_new_and_those_of_before_stay_as_they_were()
    {
        await instance.AppendAsync(Place("k-1", "A-1"), Place("k-2", "A-2"));

        var begun = await Database.BeginEpochAsync(0, "restore", Token);
        var append = await instance.AppendAsync(Pay("k-3", "A-1"), Place("k-4", "A-3"));

        Assert.Equal((2L, 2L, "restore"), (begun.Number, begun.LastPosition, begun.Cause));
        Assert.Equal([1_000_000_000_001, 1_000_000_000_002, 1_000_000_000_003], append.Events.Select(recorded => recorded.Position).Order());
        Assert.Equal(["A-1.1", "A-1.2.e2", "A-1.3.e2"], (await Events.StreamAsync("A-1", Token)).Select(recorded => recorded.EventId));
        Assert.Equal(["A-1.1", "A-2.1", "A-1.2.e2", "A-1.3.e2", "A-3.1.e2"], (await Events.AfterAsync(0, 10, Token)).Events.Select(recorded => recorded.EventId));
        var last = (await Events.StreamAsync("A-3", Token))[0];
        Assert.Contains("\"sequence\":1,\"epoch\":2,\"correlationid\"", System.Text.Encoding.UTF8.GetString(PublishedEvent.Render(last)), StringComparison.Ordinal);
        // As the relay has them, from memory and from the table.
        Assert.Equal("A-3.1.e2", append.Outbox.Single(row => row.OrderId == "A-3").Event!.EventId);
        var loaded = await new OutboxStore(Database).LoadAsync(new LoadRequest([.. Enumerable.Range(0, Shard.Count)], new HashSet<long>(), 10, 1_000_000, false, 0), Token);
        Assert.Equal(["A-1.1", "A-2.1", "A-1.2.e2", "A-1.3.e2", "A-3.1.e2"], loaded.Rows.Select(row => row.Event!.EventId));
    }

    [Fact]
    public async Task Positions_go_on_by_one_in_an_epoch_whatever_is_undone()
    {
        await Database.BeginEpochAsync(0, "restore", Token);
        await instance.Log.TryAppendAsync(InboxCommit.Query([Place("k-1", "A-1")]), state => new BatchDecider(OrderRules.Default, TimeSpan.FromMinutes(1)).Decide([Place("k-1", "A-1")], state, 1), Token);

        await instance.AppendAsync(Place("k-1", "A-1"));
        await instance.AppendAsync(Place("k-2", "A-2"));

        var positions = (await Events.AfterAsync(0, 10, Token)).Events.Select(recorded => recorded.Position).ToList();
        Assert.All(positions, position => Assert.Equal(2, StoreEpoch.Of(position)));
        Assert.Equal(positions.Order(), positions);
    }

    [Fact]
    public async Task A_refusal_is_announced_with_the_epoch_in_its_id()
    {
        await instance.AppendAsync(Place("k-1", "A-1"));
        await instance.AppendAsync(Cancel("k-2", "A-1"));
        var before = (await instance.AppendAsync(Ship("k-3", "A-1"))).Outbox[0];

        await Database.BeginEpochAsync(0, "restore", Token);
        var after = (await instance.AppendAsync(Ship("k-4", "A-1"))).Outbox[0];

        Assert.DoesNotContain(".e", Announcement.Parse(before.Message!).MessageId, StringComparison.Ordinal);
        Assert.EndsWith(".e2", Announcement.Parse(after.Message!).MessageId, StringComparison.Ordinal);
        Assert.Contains("\"epoch\":2", System.Text.Encoding.UTF8.GetString(after.Body!), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_position_that_a_restore_took_is_told_from_those_that_one_can_go_on_from()
    {
        await instance.AppendAsync(Place("k-1", "A-1"), Place("k-2", "A-2"));
        await Database.BeginEpochAsync(0, "restore", Token);
        await instance.AppendAsync(Place("k-3", "A-3"));
        // Epochs 3 and 4 were on another machine.
        var fifth = await Database.BeginEpochAsync(5, "restore", Token);
        await instance.AppendAsync(Place("k-4", "A-4"));

        Assert.Equal((5L, 1_000_000_000_001L), (fifth.Number, fifth.LastPosition));
        foreach (var (position, lostWith) in new (long, long?)[]
        {
            (0, null), (1, null), (2, null), (3, 2), (900_000, 2),
            (1_000_000_000_001, null), (1_000_000_000_002, 5), (2_000_000_000_007, 5), (3_999_999_999_999, 5),
            (4_000_000_000_001, null), (4_000_000_000_900, null),
        })
        {
            Assert.Equal((position, lostWith), (position, (await Events.LostWithAsync(position, Token))?.Number));
        }
    }

    [Fact]
    public async Task How_far_a_reader_is_behind_is_counted_in_events_across_epochs()
    {
        await instance.AppendAsync(Place("k-1", "A-1"), Place("k-2", "A-2"), Place("k-3", "A-3"));
        await Database.BeginEpochAsync(0, "restore", Token);
        Assert.Equal(2, (await BehindAsync(1)).Count);
        await instance.AppendAsync(Place("k-4", "A-4"), Place("k-5", "A-5"));
        await Database.BeginEpochAsync(7, "restore", Token);
        await instance.AppendAsync(Place("k-6", "A-6"));

        Assert.Equal(5, (await BehindAsync(1)).Count);
        Assert.Equal(3, (await BehindAsync(3)).Count);
        Assert.Equal(1, (await BehindAsync(1_000_000_000_002)).Count);
        Assert.Equal((0, null), await BehindAsync(6_000_000_000_001));
        Assert.Equal(6, await Database.ReadAsync(EventQueries.OrdinalAsync, Token));
    }

    [Fact]
    public async Task Numbers_of_letters_alerts_and_jobs_are_not_given_out_again_after_a_restore()
    {
        await store.ExecuteAsync("INSERT INTO audit (at, who, action, subject, detail) VALUES (1, 'me', 'tests', '', '')");
        await Database.BeginEpochAsync(0, "restore", Token);
        await store.ExecuteAsync("INSERT INTO audit (at, who, action, subject, detail) VALUES (2, 'me', 'tests', '', '')");
        await store.ExecuteAsync("INSERT INTO alerts (kind, subject, text, data, letters, created_at) VALUES ('test', '', '', '', 0, 0)");

        Assert.Equal([1, 1_000_000_001], await store.QueryAsync<long>("SELECT id FROM audit ORDER BY id"));
        Assert.Equal(1_000_000_001, await store.ScalarAsync<long>("SELECT id FROM alerts"));
        // The epochs between were on another machine, and so were their rows.
        await Database.BeginEpochAsync(7, "restore", Token);
        await store.ExecuteAsync("INSERT INTO alerts (kind, subject, text, data, letters, created_at) VALUES ('test', '', '', '', 0, 0)");
        Assert.Equal(6_000_000_001, await store.ScalarAsync<long>("SELECT max(id) FROM alerts"));
    }

    [Fact]
    public async Task There_is_an_end_to_epochs_and_it_is_said()
    {
        var refused = await Assert.ThrowsAsync<StoreSettingsException>(() => Database.BeginEpochAsync(StoreEpoch.Last + 1, "restore", Token));

        Assert.Contains("Epoch 9001", refused.Message, StringComparison.Ordinal);
        Assert.Equal(1, Database.Epoch);
    }

    private async Task<EpochHistory> HistoryAsync() => await Database.ReadAsync(EpochsTable.ReadAsync, Token);

    private Task<(long Count, long? OldestAt)> BehindAsync(long position) => Database.ReadAsync(connection => EventQueries.BehindAsync(connection, position), Token);
}

public sealed class SqliteEpochTests : EpochContract
{
    protected override Task<TestStore> OpenAsync() => TestStore.OpenAsync();
}

public sealed class PostgresEpochTests(PostgresContainerFixture postgres) : EpochContract
{
    protected override Task<TestStore> OpenAsync() => TestStore.OpenAsync(postgres);

    [Fact]
    public async Task An_epoch_does_not_begin_while_another_process_is_connected()
    {
        var address = await postgres.AddDatabaseAsync();
        await using var serving = new PostgresDatabase(address, NullLogger<PostgresDatabase>.Instance);
        await serving.MigrateAsync(TestContext.Current.CancellationToken);
        await using var command = new PostgresDatabase(address, NullLogger<PostgresDatabase>.Instance);

        var refused = await Assert.ThrowsAsync<StoreInUseException>(() => command.BeginEpochAsync(0, "in-place", TestContext.Current.CancellationToken));
        Assert.Contains(serving.ApplicationName, refused.Message, StringComparison.Ordinal);
        Assert.Equal(1, await serving.ReadAsync(EpochsTable.CurrentAsync, TestContext.Current.CancellationToken));

        await serving.DisposeAsync();
        // The server takes a moment to forget a connection, and the command waits for that.
        Assert.Equal(2, (await command.BeginEpochAsync(0, "in-place", TestContext.Current.CancellationToken)).Number);
    }
}

using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using Microsoft.Extensions.Time.Testing;
using OrderService.Database;
using OrderService.Outbox;
using OrderService.Store;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outbox;

/// <summary>How instances share the streams; each has a clock of its own, which is all that a frozen one needs to be told.</summary>
public sealed class PostgresRelayLeaseTests(PostgresContainerFixture postgres) : IAsyncLifetime
{
    private static readonly HashSet<int> Idle = [];
    private readonly List<IAsyncDisposable> opened = [];
    private string connectionString = "";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        connectionString = await postgres.AddDatabaseAsync();
        await using var database = Database();
        await database.MigrateAsync(Token);
    }

    public async ValueTask DisposeAsync()
    {
        opened.Reverse();
        foreach (var item in opened)
        {
            await item.DisposeAsync();
        }
    }

    [Fact]
    public async Task The_only_instance_relays_everything_and_asks_the_store_now_and_then()
    {
        var one = Open();

        Assert.False(one.Lease.IsCurrent);
        Assert.Equal(16, (await one.RenewAsync()).Count);
        Assert.True(one.Lease.IsCurrent);
        Assert.True(one.Lease.SharesStreams);

        var expiry = await ExpiryAsync(one);
        Assert.Equal(16, (await one.Lease.RenewAsync(Idle, Token)).Count);
        Assert.Equal(expiry, await ExpiryAsync(one));
        await one.RenewAsync();
        Assert.True(await ExpiryAsync(one) > expiry);
    }

    [Fact]
    public async Task Instances_share_the_shards_evenly_and_each_shard_has_one_holder()
    {
        var instances = new[] { Open(), Open(), Open() };

        await SettleAsync(instances);

        Assert.Equal([5, 5, 6], instances.Select(instance => instance.Shards.Count).Order());
        Assert.Equal(16, instances.SelectMany(instance => instance.Shards).Distinct().Count());
    }

    [Fact]
    public async Task A_shard_with_messages_under_way_is_not_relayed_any_more_and_given_back_only_when_they_are_confirmed()
    {
        var old = Open();
        await old.RenewAsync();
        var young = Open();
        await young.RenewAsync();
        HashSet<int> busy = [8, 9, 10, 11, 12, 13, 14, 15];

        await old.RenewAsync(busy);
        await old.RenewAsync(busy);
        await young.RenewAsync();
        Assert.Equal(8, old.Shards.Count);
        Assert.Empty(young.Shards);

        busy.Remove(15);
        await old.RenewAsync(busy);
        await young.RenewAsync();
        Assert.Equal([15], young.Shards);

        busy.Clear();
        await old.RenewAsync(busy);
        await young.RenewAsync();
        Assert.Equal(8, young.Shards.Count);
        Assert.Empty(young.Shards.Intersect(old.Shards));
    }

    [Fact]
    public async Task A_clean_stop_gives_everything_back_at_once()
    {
        var instances = new[] { Open(), Open() };
        await SettleAsync(instances);

        await instances[0].Lease.DisposeAsync();
        await instances[1].RenewAsync();

        Assert.False(instances[0].Lease.IsCurrent);
        Assert.Equal(16, instances[1].Shards.Count);
    }

    [Fact]
    public async Task A_frozen_holder_knows_by_its_own_clock_that_it_holds_nothing_before_another_takes_over()
    {
        var frozen = Open(TimeSpan.FromSeconds(2));
        await frozen.RenewAsync();
        var other = Open(TimeSpan.FromSeconds(2));

        frozen.Clock.Advance(TimeSpan.FromSeconds(1.9));
        Assert.False(frozen.Lease.IsCurrent);
        await Eventually.TrueAsync(async () => (await other.RenewAsync()).Count == 16);

        // It wakes, is told that it has nothing, and gets its share back once the other one gave it up.
        Assert.Empty(await frozen.RenewAsync());
        await SettleAsync(frozen, other);
        Assert.Equal([8, 8], [frozen.Shards.Count, other.Shards.Count]);
        Assert.Empty(frozen.Shards.Intersect(other.Shards));
    }

    [Fact]
    public async Task A_shard_that_changes_hands_has_a_higher_epoch_and_one_that_stays_keeps_its_own()
    {
        var old = Open();
        await old.RenewAsync();
        var before = Enumerable.Range(0, 16).Select(old.Lease.EpochOf).ToList();
        Assert.All(before, epoch => Assert.True(epoch > 0));

        var young = Open();
        await SettleAsync(old, young);

        Assert.Equal(8, young.Shards.Count);
        Assert.All(young.Shards, shard => Assert.Equal(before[shard] + 1, young.Lease.EpochOf(shard)));
        Assert.All(young.Shards, shard => Assert.Equal(0, old.Lease.EpochOf(shard)));
        Assert.All(old.Shards, shard => Assert.Equal(before[shard], old.Lease.EpochOf(shard)));
    }

    [Fact]
    public async Task An_instance_that_went_away_leaves_its_shards_to_the_others()
    {
        var lost = Open(TimeSpan.FromSeconds(2));
        var left = Open(TimeSpan.FromSeconds(2));
        await SettleAsync(lost, left);

        await Eventually.TrueAsync(async () => (await left.RenewAsync()).Count == 16);
    }

    [Fact]
    public async Task A_clock_that_was_set_back_does_not_keep_the_shards_of_the_dead()
    {
        var duration = TimeSpan.FromSeconds(10);
        var left = Open(duration);
        // As another instance wrote it two hours ago by the monotonic clock, and in two hours by the database's.
        await left.Database.WriteAsync(async transaction =>
        {
            var future = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint + 7200000";
            await transaction.ExecuteAsync($"INSERT INTO relay_members (owner, expires_at) VALUES ('dead', {future})");
            await transaction.ExecuteAsync($"UPDATE relay_leases SET owner = 'dead', epoch = 1, expires_at = {future}");
        }, Token);
        var clock = left.Clock.GetTimestamp();

        while ((await left.RenewAsync()).Count < 16)
        {
            Assert.True(left.Clock.GetElapsedTime(clock) < duration * 2, $"After {left.Clock.GetElapsedTime(clock)} it has {left.Shards.Count} shards.");
        }

        Assert.True(left.Clock.GetElapsedTime(clock) > duration);
    }

    [Fact]
    public async Task A_refused_key_has_one_attempt_in_each_interval_over_all_instances_whatever_the_clock_does()
    {
        var (one, other) = (Open(), Open());
        var interval = TimeSpan.FromMinutes(5);

        Assert.True(await one.Lease.MayTryAsync("order.cancelled", interval, Token));
        Assert.False(await other.Lease.MayTryAsync("order.cancelled", interval, Token));
        Assert.False(await one.Lease.MayTryAsync("order.cancelled", interval, Token));
        Assert.True(await other.Lease.MayTryAsync("order.placed", interval, Token));

        await one.Lease.OpenAsync("order.cancelled", Token);
        Assert.True(await other.Lease.MayTryAsync("order.cancelled", interval, Token));
        await one.Database.WriteAsync(transaction => transaction.ExecuteAsync("UPDATE relay_keys SET tried_at = tried_at + 7200000"), Token);
        Assert.True(await one.Lease.MayTryAsync("order.cancelled", interval, Token));
    }

    private static async Task SettleAsync(params Holder[] holders)
    {
        // Told, given back, taken: three rounds, and one more for whoever came first.
        for (var round = 0; round < 4; round++)
        {
            foreach (var holder in holders)
            {
                await holder.RenewAsync();
            }
        }
    }

    private static Task<long> ExpiryAsync(Holder holder) =>
        holder.Database.ReadAsync(connection => connection.ExecuteScalarAsync<long>("SELECT min(expires_at) FROM relay_leases"), Token);

    private Holder Open(TimeSpan? duration = null)
    {
        var clock = new FakeTimeProvider();
        var database = Database();
        var options = new OutboxOptions { LeaseDuration = duration ?? TimeSpan.FromMinutes(1) };
        var lease = new PostgresRelayLease(database, Options.Create(options), clock);
        opened.Add(database);
        opened.Add(lease);
        return new Holder(database, lease, clock, options.LeaseDuration);
    }

    private PostgresDatabase Database() => new(connectionString, NullLogger<PostgresDatabase>.Instance);

    private sealed class Holder(PostgresDatabase database, PostgresRelayLease lease, FakeTimeProvider clock, TimeSpan duration)
    {
        public PostgresDatabase Database => database;

        public PostgresRelayLease Lease => lease;

        public FakeTimeProvider Clock => clock;

        public IReadOnlyCollection<int> Shards { get; private set; } = [];

        /// <summary>Renews when it is due.</summary>
        public async Task<IReadOnlyCollection<int>> RenewAsync(IReadOnlySet<int>? busy = null)
        {
            clock.Advance(duration / 3);
            return Shards = await lease.RenewAsync(busy ?? Idle, Token);
        }
    }
}

using System.Diagnostics.Metrics;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using Microsoft.Extensions.Time.Testing;
using OrderService.Notifications;
using OrderService.Observability;
using OrderService.Store;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Notifications;

public abstract class TroubleAlertsTests
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    private static CancellationToken Stopping => TestContext.Current.CancellationToken;

    protected abstract Task<TestStore> OpenStoreAsync();

    [Fact]
    public async Task A_trouble_is_told_when_it_has_stood_for_its_patience_once_by_all_instances_and_restarts_and_again_as_a_reminder_and_when_it_is_over()
    {
        await using var world = new World(await OpenStoreAsync());
        var (one, other) = (world.Instance(), world.Instance());
        one.Raise("relay");
        other.Raise("relay");
        await World.LookAsync(one, other);
        Assert.Empty(await world.SubjectsAsync());

        world.Clock.Advance(Patience);
        await Task.WhenAll(one.LookAsync(), other.LookAsync());
        await World.LookAsync(one, other);
        Assert.Equal(["relay stands still"], await world.SubjectsAsync());

        // A restart of the whole: the new process finds out anew, and it is no news.
        var third = world.Instance();
        third.Raise("relay");
        for (var minute = 0; minute < 239; minute++)
        {
            world.Clock.Advance(TimeSpan.FromMinutes(1));
            await third.LookAsync();
        }
        Assert.Single(await world.SubjectsAsync());
        world.Clock.Advance(TimeSpan.FromMinutes(1));
        await third.LookAsync();
        Assert.Equal(["relay stands still", "Still: relay stands still"], await world.SubjectsAsync());

        third.Clear("relay");
        one.Clear("relay");
        other.Clear("relay");
        world.Clock.Advance(TimeSpan.FromMinutes(4));
        await World.LookAsync(third, one);
        Assert.Equal(2, (await world.SubjectsAsync()).Count);
        world.Clock.Advance(TimeSpan.FromMinutes(1));
        await Task.WhenAll(third.LookAsync(), one.LookAsync());
        await World.LookAsync(third, one, other);
        Assert.Equal(["relay stands still", "Still: relay stands still", "Over: relay stands still"], await world.SubjectsAsync());
    }

    [Fact]
    public async Task What_needs_no_patience_is_told_though_it_was_over_before_anybody_looked()
    {
        await using var world = new World(await OpenStoreAsync());
        var one = world.Instance();
        one.Raise("head", patience: TimeSpan.Zero);
        one.Clear("head");
        one.Raise("relay");
        one.Clear("relay");

        await one.LookAsync();
        await one.LookAsync();
        Assert.Equal(["head stands still"], await world.SubjectsAsync());

        for (var minute = 0; minute < 10; minute++)
        {
            world.Clock.Advance(TimeSpan.FromMinutes(1));
            await one.LookAsync();
        }
        Assert.Equal(["head stands still", "Over: head stands still"], await world.SubjectsAsync());
    }

    [Fact]
    public async Task What_stands_in_another_instance_is_not_over()
    {
        await using var world = new World(await OpenStoreAsync());
        var (one, other) = (world.Instance(), world.Instance());
        one.Raise("relay");
        other.Raise("relay");
        world.Clock.Advance(Patience);
        await World.LookAsync(one, other);
        one.Clear("relay");
        for (var minute = 0; minute < 30; minute++)
        {
            world.Clock.Advance(TimeSpan.FromSeconds(20));
            await World.LookAsync(one, other);
        }

        Assert.Equal(["relay stands still"], await world.SubjectsAsync());
    }

    [Fact]
    public async Task What_comes_and_goes_tells_at_most_once_in_the_pause()
    {
        await using var world = new World(await OpenStoreAsync());
        var one = world.Instance();
        for (var second = 0; second < 3600; second += 10)
        {
            if (second % 200 == 0)
            {
                one.Raise("relay");
            }
            else if (second % 200 == 50)
            {
                one.Clear("relay");
            }
            await one.LookAsync();
            world.Clock.Advance(TimeSpan.FromSeconds(10));
        }

        var times = await world.TimesAsync();
        Assert.InRange(times.Count, 2, 12);
        Assert.All(times.Zip(times.Skip(1)), pair => Assert.True(pair.Second - pair.First >= 300_000));
    }

    [Fact]
    public async Task More_messages_are_told_of_before_the_reminder_and_fewer_are_not()
    {
        await using var world = new World(await OpenStoreAsync());
        var one = world.Instance();
        one.Raise("unreadable", size: 1);
        world.Clock.Advance(Patience);
        await one.LookAsync();
        one.Raise("unreadable", size: 3);
        await one.LookAsync();
        Assert.Single(await world.SubjectsAsync());
        world.Clock.Advance(TimeSpan.FromMinutes(5));
        await one.LookAsync();
        one.Raise("unreadable", size: 2);
        world.Clock.Advance(TimeSpan.FromMinutes(5));
        await one.LookAsync();

        Assert.Equal(["unreadable stands still", "unreadable stands still"], await world.SubjectsAsync());
    }

    [Fact]
    public async Task Quiet_hours_hold_back_all_but_the_first_word_and_that_too_where_nobody_is_to_be_woken()
    {
        // The clock says three o'clock.
        AlertsOptions Quiet(bool holdAll) => new() { QuietHours = new QuietHoursOptions { From = new TimeOnly(22, 0), To = new TimeOnly(8, 0), HoldAll = holdAll } };
        await using var world = new World(await OpenStoreAsync());
        var (silent, first) = (world.Instance(Quiet(holdAll: true)), world.Instance(Quiet(holdAll: false)));
        silent.Raise("relay");
        first.Raise("relay");
        world.Clock.Advance(Patience);
        await silent.LookAsync();
        Assert.Empty(await world.SubjectsAsync());
        await first.LookAsync();
        Assert.Single(await world.SubjectsAsync());
        world.Clock.Advance(TimeSpan.FromHours(4.5));
        await first.LookAsync();
        Assert.Single(await world.SubjectsAsync());
        world.Clock.Advance(TimeSpan.FromHours(1));
        await first.LookAsync();
        Assert.Equal(2, (await world.SubjectsAsync()).Count);
    }

    [Fact]
    public async Task Where_the_store_does_not_work_the_channels_are_used_without_it_and_it_learns_of_it_later()
    {
        await using var world = new World(await OpenStoreAsync());
        var isDown = true;
        var mail = new ScriptedChannel("email", _ => isDown ? new ChannelAnswer.Retry("nobody listens") : new ChannelAnswer.Sent());
        var log = new ScriptedChannel("log", _ => new ChannelAnswer.Sent());
        var one = world.Instance(null, log, mail);
        one.Raise("relay");
        one.Store.IsAway = true;
        // Readiness says that the store is away, in its own time.
        one.Troubles.Raise(new Trouble(Troubles.Store, TroubleLevel.NotReady, "The store is away", "It is.") { ConcernsStore = true, Patience = TimeSpan.FromDays(1) });
        world.Clock.Advance(Patience);
        await one.LookAsync();
        // A moment without the store is none of its business.
        Assert.Empty(mail.Tried);
        world.Clock.Advance(TimeSpan.FromSeconds(10));
        await one.LookAsync();
        Assert.Single(mail.Tried);
        isDown = false;
        for (var second = 0; second < 600; second += 5)
        {
            world.Clock.Advance(TimeSpan.FromSeconds(5));
            await one.LookAsync();
        }
        Assert.Single(log.Tried);
        Assert.Equal(2, mail.Tried.Count);

        one.Store.IsAway = false;
        one.Clear(Troubles.Store);
        await one.LookAsync();
        Assert.Equal(["relay stands still"], await world.SubjectsAsync());
        Assert.Equal(["email sent", "log sent"], await world.Store.QueryAsync<string>("SELECT channel || ' ' || status FROM alert_deliveries ORDER BY channel"));
        var afterwards = world.Instance();
        afterwards.Raise("relay");
        world.Clock.Advance(TimeSpan.FromMinutes(1));
        await afterwards.LookAsync();
        Assert.Single(await world.SubjectsAsync());
        Assert.Equal(2, mail.Tried.Count);
    }

    [Theory]
    [InlineData("alerts", "NEW.subject LIKE '%relay stands still'")]
    [InlineData("service_troubles", "NEW.key = 'relay'")]
    public async Task A_row_that_the_store_refuses_holds_up_no_other_and_its_trouble_is_told_without_the_store_once_and_when_it_is_over(string table, string refused)
    {
        await using var world = new World(await OpenStoreAsync());
        var told = new List<string>();
        var mail = new ScriptedChannel("email", alert =>
        {
            told.Add(alert.Subject);
            return new ChannelAnswer.Sent();
        });
        var one = world.Instance(null, mail);
        await Refusal.AddAsync(world.Store.Database, table, refused);
        one.Raise("relay");
        one.Raise("kafka");
        one.Raise("unreadable", size: 1);
        world.Clock.Advance(Patience);
        await one.LookAsync();

        Assert.Equal(["kafka stands still", "unreadable stands still"], (await world.SubjectsAsync()).Order());
        Assert.Equal(["relay stands still"], told);
        var trouble = one.Troubles.Standing.Single(standing => standing.Trouble.Key == "store:service-alerts").Trouble;
        Assert.Equal((TroubleLevel.Degraded, true), (trouble.Level, trouble.ConcernsStore));
        Assert.Contains(Refusal.Code(world.Store.Database, table), trouble.Detail, StringComparison.Ordinal);
        Assert.DoesNotContain(Refusal.Secret, trouble.ToString(), StringComparison.Ordinal);

        // It is said once, however often it is tried.
        async Task PassAsync(TimeSpan time)
        {
            for (var passed = TimeSpan.Zero; passed < time; passed += TimeSpan.FromSeconds(20))
            {
                world.Clock.Advance(TimeSpan.FromSeconds(20));
                await one.LookAsync();
            }
        }
        await PassAsync(TimeSpan.FromMinutes(7));
        Assert.Equal(["relay stands still", trouble.Subject], told);
        Assert.Equal(2, await world.ToSendAsync());

        // Over is told too, by the way that is open.
        one.Clear("relay");
        one.Clear("kafka");
        await PassAsync(TimeSpan.FromMinutes(7));
        Assert.Equal(["relay stands still", trouble.Subject, "Over: relay stands still"], told);
        Assert.Single(await world.SubjectsAsync(), subject => subject == "Over: kafka stands still");

        // With the cause out of the way the store learns what was told, and nothing is told again.
        await Refusal.RemoveAsync(world.Store.Database, table);
        await PassAsync(TimeSpan.FromMinutes(12));
        Assert.False(one.Troubles.Stands("store:service-alerts"));
        Assert.Equal(3, told.Count);
        // Of one trouble the newest word waits for its place in the list.
        Assert.Equal(table == "alerts" ? 0 : 1, (await world.SubjectsAsync()).Count(subject => subject == "relay stands still"));
        Assert.Single(await world.SubjectsAsync(), subject => subject == "Over: relay stands still");
        Assert.Equal("over", await world.Store.ScalarAsync<string>("SELECT state FROM service_troubles WHERE key = 'relay'"));
    }

    [Fact]
    public async Task A_trouble_of_the_store_needs_no_store_even_while_it_answers_and_is_told_before_the_process_ends()
    {
        await using var world = new World(await OpenStoreAsync());
        var mail = new ScriptedChannel("email", _ => new ChannelAnswer.Sent());
        var fallback = new ScriptedChannel("webhook", _ => new ChannelAnswer.Sent());
        var one = world.Instance(new AlertsOptions { Fallback = "webhook" }, mail, fallback);
        one.Troubles.Raise(new Trouble("store", TroubleLevel.NotReady, "The store's file is gone", "It was deleted.") { ConcernsStore = true });

        await one.StopAsync();

        Assert.Single(mail.Tried);
        Assert.Empty(fallback.Tried);
        Assert.Empty(await world.SubjectsAsync());
    }

    private sealed class World(TestStore store) : IAsyncDisposable
    {
        private readonly ServiceProvider services = new ServiceCollection().AddMetrics().BuildServiceProvider();

        public TestStore Store => store;
        public FakeTimeProvider Clock { get; } = new(new DateTimeOffset(2026, 3, 1, 3, 0, 0, TimeSpan.Zero));

        public Process Instance(AlertsOptions? options = null, params INotificationChannel[] channels) =>
            new(new Absent(store.Database), Clock, options ?? new AlertsOptions(), channels, new OrderMetrics(services.GetRequiredService<IMeterFactory>()));

        public static async Task LookAsync(params Process[] instances)
        {
            foreach (var instance in instances)
            {
                await instance.LookAsync();
            }
        }

        public Task<List<string>> SubjectsAsync() => store.QueryAsync<string>("SELECT subject FROM alerts WHERE kind = 'service' ORDER BY id");

        /// <summary>How many alerts the sender has to send: those that left without the store are there for the list.</summary>
        public Task<long> ToSendAsync() => store.ScalarAsync<long>("SELECT count(*) FROM alerts WHERE dispatched = 0");

        public Task<List<long>> TimesAsync() => store.QueryAsync<long>("SELECT created_at FROM alerts WHERE kind = 'service' ORDER BY id");

        public async ValueTask DisposeAsync()
        {
            await store.DisposeAsync();
            await services.DisposeAsync();
        }
    }

    /// <summary>A process as far as it tells of its troubles.</summary>
    private sealed class Process(Absent store, FakeTimeProvider clock, AlertsOptions options, INotificationChannel[] channels, OrderMetrics metrics)
    {
        public Troubles Troubles { get; } = new(clock);
        public Absent Store => store;
        private TroubleAlerts Alerts => field ??= new TroubleAlerts(
            Troubles, store, channels, Options.Create(options), metrics, new StoreTime(clock), clock, NullLogger<TroubleAlerts>.Instance);

        public void Raise(string key, long size = 0, TimeSpan? patience = null) =>
            Troubles.Raise(new Trouble(key, TroubleLevel.Degraded, $"{key} stands still", "It does.") { Patience = patience ?? Patience, Size = size });

        public void Clear(string key) => Troubles.Clear(key);

        public Task LookAsync() => Alerts.LookAsync(Stopping);

        public Task StopAsync() => Alerts.StopAsync(Stopping);
    }

    /// <summary>A store that can be out of reach.</summary>
    private sealed class Absent(IDatabase database) : IDatabase
    {
        public bool IsAway { get; set; }

        public string Provider => database.Provider;

        public long Epoch => database.Epoch;

        public Task<EpochRow> BeginEpochAsync(long atLeast, string cause, CancellationToken cancellationToken) => database.BeginEpochAsync(atLeast, cause, cancellationToken);

        public PersonalKeys Keys => database.Keys;

        public Task RequireSchemaAsync(CancellationToken cancellationToken) => database.RequireSchemaAsync(cancellationToken);

        public Task MigrateAsync(CancellationToken cancellationToken) => database.MigrateAsync(cancellationToken);

        public Task<T> ReadAsync<T>(Func<StoreConnection, Task<T>> read, CancellationToken cancellationToken = default) =>
            IsAway ? throw new StoreUnavailableException("away") : database.ReadAsync(read, cancellationToken);

        public Task<T> WriteAsync<T>(Func<StoreTransaction, Task<T>> write, CancellationToken cancellationToken = default) =>
            IsAway ? throw new StoreUnavailableException("away") : database.WriteAsync(write, cancellationToken);

        public ValueTask DisposeAsync() => ValueTask.CompletedTask;
    }
}

public sealed class TroubleAlertsOnSqliteTests : TroubleAlertsTests
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync();
}

public sealed class TroubleAlertsOnPostgresTests(PostgresContainerFixture postgres) : TroubleAlertsTests
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync(postgres);
}

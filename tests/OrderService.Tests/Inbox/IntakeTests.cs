using System.Diagnostics.Metrics;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Time.Testing;
using OrderService.Inbox;
using OrderService.Observability;
using OrderService.Store;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Inbox;

/// <summary>A pause stands in the store, for every instance and over restarts.</summary>
public abstract class IntakeContract
{
    private static readonly string[] Both = [IntakeQueues.Orders, IntakeQueues.DeadLetters];

    protected static CancellationToken Stopping => TestContext.Current.CancellationToken;

    protected abstract Task<TestStore> OpenStoreAsync();

    [Fact]
    public async Task What_is_paused_is_paused_for_every_instance_until_it_is_resumed_and_who_was_first_stays()
    {
        await using var store = await OpenStoreAsync();
        using var one = new Instance(store);
        using var other = new Instance(store);
        await one.Watch.StartAsync(Stopping);
        Assert.All(await one.Intake.StateAsync(Stopping), state => Assert.Null(state.Pause));

        await one.Intake.PauseAsync(Both, "anna", "the disk is changed", Stopping);
        await one.Intake.PauseAsync([IntakeQueues.Orders], "ben", "something else", Stopping);
        await one.Watch.LookAsync(Stopping);
        // A process that begins later takes nothing either.
        await other.Watch.StartAsync(Stopping);

        foreach (var instance in (Instance[])[one, other])
        {
            Assert.Equal(("the disk is changed (paused by anna)", "the disk is changed (paused by anna)"), (instance.Orders.Reason, instance.Letters.Reason));
            Assert.Equal(["intake:orders", "intake:orders.dlq"], instance.Troubles.Standing.Select(one => one.Trouble.Key));
            Assert.All(instance.Troubles.Standing, standing => Assert.Equal(TroubleLevel.Paused, standing.Trouble.Level));
            Assert.Equal("Intake of orders is paused by anna: the disk is changed", instance.Watch.WhyPaused);
        }
        var orders = (await one.Intake.StateAsync(Stopping))[0];
        Assert.Equal(("orders", "anna", "the disk is changed"), (orders.Queue, orders.Pause!.By, orders.Pause.Reason));

        await other.Intake.ResumeAsync([IntakeQueues.Orders], "ben", "it is changed", Stopping);
        await other.Intake.ResumeAsync([IntakeQueues.Orders], "ben", "again", Stopping);
        await one.Watch.LookAsync(Stopping);
        Assert.Equal((null, "the disk is changed (paused by anna)"), (one.Orders.Reason, one.Letters.Reason));
        Assert.Equal(["intake:orders.dlq"], one.Troubles.Standing.Select(one => one.Trouble.Key));
        Assert.Equal(
            ["anna intake.pause queue orders the disk is changed", "anna intake.pause queue orders.dlq the disk is changed", "ben intake.resume queue orders it is changed"],
            await store.QueryAsync<string>("SELECT who || ' ' || action || ' ' || subject || ' ' || detail FROM audit ORDER BY id"));
    }

    [Fact]
    public async Task It_is_drained_once_every_instance_has_finished_what_it_had_in_hand()
    {
        await using var store = await OpenStoreAsync();
        using var one = new Instance(store) { Orders = { InHand = 7 } };
        using var other = new Instance(store, "other") { Orders = { InHand = 2 } };
        await one.Intake.PauseAsync([IntakeQueues.Orders], "anna", "a move", Stopping);
        Assert.False((await one.StateAsync()).Drained);

        await one.Watch.LookAsync(Stopping);
        await other.Watch.LookAsync(Stopping);
        one.Later(TimeSpan.FromSeconds(4));
        Assert.Equal((false, 9L), ((await one.StateAsync()).Drained, (await one.StateAsync()).InHand.Sum(hand => hand.InHand)));

        (one.Orders.InHand, other.Orders.InHand) = (0, 0);
        await one.Watch.LookAsync(Stopping);
        Assert.False((await one.StateAsync()).Drained);
        await other.Watch.LookAsync(Stopping);
        Assert.True((await one.StateAsync()).Drained);

        // One that said nothing for long is gone, and what it had is in the queue again.
        other.Orders.InHand = 3;
        await other.Watch.LookAsync(Stopping);
        Assert.False((await one.StateAsync()).Drained);
        one.Later(TimeSpan.FromSeconds(20));
        Assert.True((await one.StateAsync()).Drained);
    }

    [Fact]
    public async Task Nothing_is_written_while_nothing_is_paused()
    {
        await using var store = await OpenStoreAsync();
        using var one = new Instance(store) { Orders = { InHand = 7 } };

        await one.Watch.LookAsync(Stopping);

        Assert.Equal((0L, null), (await store.ScalarAsync<long>("SELECT count(*) FROM intake_in_hand"), one.Orders.Reason));
        Assert.Equal((7, null), (one.Watch.InHandOf(IntakeQueues.Orders), one.Watch.WhyPaused));
    }

    private sealed class Valve
    {
        public string? Reason { get; private set; }

        public int InHand { get; set; }

        public IntakeValve Of(string queue) => new(queue, reason => Reason = reason, () => Reason = null, () => InHand);
    }

    /// <summary>A process on the store, on a clock that the test sets.</summary>
    private sealed class Instance : IDisposable
    {
        private readonly ServiceProvider services = new ServiceCollection().AddMetrics().BuildServiceProvider();
        private readonly FakeTimeProvider clock = new(TimeProvider.System.GetUtcNow());
        private readonly OrderMetrics metrics;

        public Instance(TestStore store, string? name = null)
        {
            metrics = new OrderMetrics(services.GetRequiredService<IMeterFactory>());
            Troubles = new Troubles(clock);
            var time = new StoreTime(clock) { ServerClock = clock.GetUtcNow };
            Intake = new Intake(store.Database, time);
            Watch = new IntakeWatch(
                store.Database, [Orders.Of(IntakeQueues.Orders), Letters.Of(IntakeQueues.DeadLetters)], Troubles, metrics, time, clock, NullLogger<IntakeWatch>.Instance)
            {
                Instance = name ?? "one",
            };
        }

        public Valve Orders { get; } = new();

        public Valve Letters { get; } = new();

        public Troubles Troubles { get; }

        public Intake Intake { get; }

        public IntakeWatch Watch { get; }

        public async Task<IntakeState> StateAsync() => (await Intake.StateAsync(Stopping))[0];

        public void Later(TimeSpan time) => clock.Advance(time);

        public void Dispose()
        {
            Watch.Dispose();
            metrics.Dispose();
            services.Dispose();
        }
    }
}

public sealed class SqliteIntakeTests : IntakeContract
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync();
}

public sealed class PostgresIntakeTests(PostgresContainerFixture postgres) : IntakeContract
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync(postgres);
}

using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using OrderService.DeadLetters;
using OrderService.Inbox;
using OrderService.Tests.Infrastructure;
using static OrderService.Tests.DeadLetters.LetterWorld;

namespace OrderService.Tests.DeadLetters;

public abstract class ClockStepsTests : LetterContract
{
    private static readonly TimeSpan TwoHours = TimeSpan.FromHours(2);

    [Theory]
    [InlineData(2.0, "A clock was set forward by 2 hours")]
    [InlineData(-2.0, "A clock was set back by 2 hours")]
    public async Task A_command_waits_for_its_order_as_long_as_it_should_whatever_the_clock_is_set_to(double hours, string subject)
    {
        await using var world = await OpenAsync();
        await DeferAsync(world, TimeSpan.FromMinutes(10));
        await world.Steps.LookAsync(Stopping);

        world.Clock.Step(TimeSpan.FromHours(hours));

        Assert.Equal(0, await world.Overdue.ParkOverdueAsync(Stopping));
        Assert.Equal(subject, Assert.Single(world.Troubles.Standing).Trouble.Subject);
        world.Clock.Advance(TimeSpan.FromMinutes(9));
        Assert.Equal(0, await world.Overdue.ParkOverdueAsync(Stopping));
        world.Clock.Advance(TimeSpan.FromMinutes(1));
        Assert.Equal(1, await world.Overdue.ParkOverdueAsync(Stopping));
        world.Clock.Advance(TimeSpan.FromHours(1));
        await world.Steps.LookAsync(Stopping);
        Assert.Empty(world.Troubles.Standing);
    }

    [Fact]
    public async Task Of_several_instances_that_see_the_clock_set_one_moves_what_waits()
    {
        await using var world = await OpenAsync();
        await DeferAsync(world, TimeSpan.FromMinutes(10));
        var other = AnotherProcess(world);
        await world.Steps.LookAsync(Stopping);
        await other.LookAsync(Stopping);
        world.Clock.Step(TwoHours);

        await Task.WhenAll(world.Steps.LookAsync(Stopping), other.LookAsync(Stopping));
        await other.LookAsync(Stopping);
        Assert.Equal(world.Clock.GetUtcNow().AddMinutes(10).ToUnixTimeMilliseconds(), await world.Store.ScalarAsync<long>("SELECT expires_at FROM deferred"));
        world.Clock.Step(-TwoHours);
        await Task.WhenAll(other.LookAsync(Stopping), world.Steps.LookAsync(Stopping));

        Assert.Equal(world.Clock.GetUtcNow().AddMinutes(10).ToUnixTimeMilliseconds(), await world.Store.ScalarAsync<long>("SELECT expires_at FROM deferred"));
    }

    [Fact]
    public async Task A_move_that_fails_is_made_up_for_before_any_command_is_given_up()
    {
        await using var world = await OpenAsync();
        await DeferAsync(world, TimeSpan.FromMinutes(10));
        await world.Steps.LookAsync(Stopping);
        await world.Store.ExecuteAsync("ALTER TABLE service_troubles RENAME TO gone");
        world.Clock.Step(TwoHours);
        await Assert.ThrowsAnyAsync<Exception>(() => world.Overdue.ParkOverdueAsync(Stopping));
        await world.Store.ExecuteAsync("ALTER TABLE gone RENAME TO service_troubles");

        Assert.Equal(0, await world.Overdue.ParkOverdueAsync(Stopping));
        Assert.Equal(world.Clock.GetUtcNow().AddMinutes(10).ToUnixTimeMilliseconds(), await world.Store.ScalarAsync<long>("SELECT expires_at FROM deferred"));
    }

    [Fact]
    public async Task Time_in_which_no_service_ran_is_no_time_a_command_waited()
    {
        await using var world = await OpenAsync();
        await DeferAsync(world, TimeSpan.FromMinutes(10));
        await world.Steps.LookAsync(Stopping);

        // Stopped for two hours, or started on a machine whose clock is ahead.
        world.Clock.Advance(TwoHours);
        var overdue = new OverdueCommands(world.Store.Database, world.Parking, AnotherProcess(world), world.Troubles, world.Clock, NullLogger<OverdueCommands>.Instance);
        Assert.Equal(0, await overdue.ParkOverdueAsync(Stopping));
        world.Clock.Advance(TimeSpan.FromMinutes(9));
        Assert.Equal(0, await overdue.ParkOverdueAsync(Stopping));
        world.Clock.Advance(TimeSpan.FromMinutes(1));
        Assert.Equal(1, await overdue.ParkOverdueAsync(Stopping));
    }

    [Fact]
    public async Task A_clock_that_was_set_back_while_no_service_ran_makes_no_command_wait_longer()
    {
        await using var world = await OpenAsync();
        await DeferAsync(world, TimeSpan.FromMinutes(10));
        await world.Steps.LookAsync(Stopping);
        world.Clock.Step(-TwoHours);

        await AnotherProcess(world).LookAsync(Stopping);

        Assert.Equal(world.Clock.GetUtcNow().AddMinutes(10).ToUnixTimeMilliseconds(), await world.Store.ScalarAsync<long>("SELECT expires_at FROM deferred"));
    }

    [Fact]
    public async Task A_clock_that_is_set_back_holds_up_no_digest_no_reminder_and_no_escalation_and_one_set_forward_hurries_none()
    {
        await using var world = await OpenAsync();
        await world.TakeInAsync(Arrival(Order("A-1"), "k-1"));
        await world.TakeInAsync(Arrival(Order("A-2"), "k-2"));
        await world.Steps.LookAsync(Stopping);
        world.Clock.Step(-TwoHours);
        await world.Steps.LookAsync(Stopping);

        world.Clock.Advance(TimeSpan.FromMinutes(5));
        Assert.NotNull(await world.Notifier.DigestAsync(Stopping));
        world.Clock.Step(TwoHours);
        await world.Steps.LookAsync(Stopping);
        Assert.Equal(0, await world.Notifier.FollowUpAsync(Stopping));
        world.Clock.Advance(TimeSpan.FromMinutes(55));
        Assert.Equal(1, await world.Notifier.FollowUpAsync(Stopping));
        Assert.Equal(["first", "digest", "escalation"], await world.Store.QueryAsync<string>("SELECT kind FROM alerts ORDER BY id"));
    }

    [Fact]
    public async Task What_lies_in_the_future_is_due_although_nobody_saw_the_clock_being_set_back()
    {
        await using var world = await OpenAsync();
        await world.TakeInAsync(Arrival(Order("A-1"), "k-1"));
        await world.TakeInAsync(Arrival(Order("A-2"), "k-2"));

        world.Clock.Step(-TwoHours);

        Assert.NotNull(await world.Notifier.DigestAsync(Stopping));
    }

    private static ClockSteps AnotherProcess(LetterWorld world) => new(
        world.Store.Database, new OrderService.Store.StoreTime(world.Clock) { ServerClock = world.Clock.GetUtcNow }, world.Troubles, Options.Create(new OrdersOptions()), world.Clock,
        NullLogger<ClockSteps>.Instance);

    private static Task DeferAsync(LetterWorld world, TimeSpan wait) => world.Store.ExecuteAsync(
        """
        INSERT INTO deferred (key, order_id, type, body, properties, fingerprint, correlation_id, received_at, expires_at)
        VALUES ('k', 'A-1', 'order.ship', @body, '{}', @fingerprint, 'c', @now, @until)
        """,
        new
        {
            body = "{\"orderId\":\"A-1\"}"u8.ToArray(),
            fingerprint = new byte[32],
            now = world.Clock.GetUtcNow().ToUnixTimeMilliseconds(),
            until = (world.Clock.GetUtcNow() + wait).ToUnixTimeMilliseconds(),
        });
}

public sealed class ClockStepsOnSqliteTests : ClockStepsTests
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync();
}

public sealed class ClockStepsOnPostgresTests(PostgresContainerFixture postgres) : ClockStepsTests
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync(postgres);
}

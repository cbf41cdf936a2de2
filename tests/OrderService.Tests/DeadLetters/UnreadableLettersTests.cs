using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using OrderService.DeadLetters;
using OrderService.Notifications;
using OrderService.RabbitMq;
using OrderService.Tests.Infrastructure;
using static OrderService.Tests.DeadLetters.LetterWorld;

namespace OrderService.Tests.DeadLetters;

public abstract class UnreadableLettersTests : LetterContract
{
    [Fact]
    public async Task Messages_that_nobody_can_read_are_told_of_once_again_while_they_lie_there_and_when_they_are_gone()
    {
        await using var world = await OpenAsync();
        long? depth = null;
        // Two instances, and a third after a restart: they remember nothing.
        UnreadableLetters Instance() => new(
            world.Store.Database,
            () => depth is { } ready ? new QueueDepth(TopologyNames.Unreadable, true, ready, 0, null, null, world.Clock.GetUtcNow()) : null,
            Options.Create(new AlertsOptions()), world.Clock, NullLogger<UnreadableLetters>.Instance);
        var (one, other) = (Instance(), Instance());

        Assert.Null(await one.LookAsync(Stopping));
        depth = 0;
        Assert.Null(await one.LookAsync(Stopping));
        depth = 1;
        var both = await Task.WhenAll(one.LookAsync(Stopping), other.LookAsync(Stopping));
        Assert.Single(both, alert => alert is not null);
        Assert.Null(await Instance().LookAsync(Stopping));

        world.Clock.Advance(TimeSpan.FromMinutes(1));
        depth = 3;
        Assert.NotNull(await one.LookAsync(Stopping));
        world.Clock.Advance(TimeSpan.FromHours(3));
        Assert.Null(await other.LookAsync(Stopping));
        world.Clock.Advance(TimeSpan.FromHours(1));
        Assert.NotNull(await other.LookAsync(Stopping));

        world.Clock.Advance(TimeSpan.FromMinutes(1));
        depth = 0;
        Assert.NotNull(await one.LookAsync(Stopping));
        Assert.Null(await other.LookAsync(Stopping));

        Assert.Equal(
            [
                "1 message can't be read and is held in the broker", "3 messages can't be read and are held in the broker",
                "3 messages can't be read and are held in the broker", "Over: unreadable messages",
            ],
            await world.Store.QueryAsync<string>("SELECT subject FROM alerts WHERE kind = 'service' ORDER BY id"));
    }

    [Fact]
    public async Task A_reading_from_before_the_alert_does_not_take_it_back()
    {
        await using var world = await OpenAsync();
        var depth = new QueueDepth(TopologyNames.Unreadable, true, 0, 0, null, null, world.Clock.GetUtcNow());
        var letters = new UnreadableLetters(world.Store.Database, () => depth, Options.Create(new AlertsOptions()), world.Clock, NullLogger<UnreadableLetters>.Instance);
        var old = depth;
        world.Clock.Advance(TimeSpan.FromSeconds(1));
        depth = depth with { Ready = 1, At = world.Clock.GetUtcNow() };
        Assert.NotNull(await letters.LookAsync(Stopping));

        depth = old;
        Assert.Null(await letters.LookAsync(Stopping));
    }

    [Fact]
    public async Task Quiet_hours_hold_back_all_but_the_first_word_and_that_too_where_nobody_is_to_be_woken()
    {
        // The clock says three o'clock.
        await using var world = await OpenAsync();
        UnreadableLetters At(bool holdAll) => new(
            world.Store.Database,
            () => new QueueDepth(TopologyNames.Unreadable, true, 1, 0, null, null, world.Clock.GetUtcNow()),
            Options.Create(new AlertsOptions { QuietHours = new QuietHoursOptions { From = new TimeOnly(22, 0), To = new TimeOnly(8, 0), HoldAll = holdAll } }),
            world.Clock, NullLogger<UnreadableLetters>.Instance);

        Assert.Null(await At(holdAll: true).LookAsync(Stopping));
        Assert.NotNull(await At(holdAll: false).LookAsync(Stopping));
        world.Clock.Advance(TimeSpan.FromHours(4.5));
        Assert.Null(await At(holdAll: false).LookAsync(Stopping));
        world.Clock.Advance(TimeSpan.FromHours(1));
        Assert.NotNull(await At(holdAll: false).LookAsync(Stopping));
    }
}

public sealed class UnreadableLettersOnSqliteTests : UnreadableLettersTests
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync();
}

public sealed class UnreadableLettersOnPostgresTests(PostgresContainerFixture postgres) : UnreadableLettersTests
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync(postgres);
}

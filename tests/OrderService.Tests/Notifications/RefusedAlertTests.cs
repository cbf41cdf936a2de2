using OrderService.Notifications;
using OrderService.Observability;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Notifications;

/// <summary>The store refuses rows of some alerts: the others go on, and it is said.</summary>
public abstract class RefusedAlertTests
{
    private static readonly ChannelAnswer Sent = new ChannelAnswer.Sent();

    private readonly ScriptedChannel log = new("log", _ => Sent);

    protected abstract Task<TestStore> OpenStoreAsync();

    [Theory]
    [InlineData("NEW.status = 'sent'")]
    [InlineData("NEW.attempts > 0")]
    public async Task A_delivery_that_the_store_does_not_note_holds_up_no_other_and_is_not_sent_again_for_it(string refused)
    {
        await using var world = await OpenAsync(log);
        var (one, two, three) = (await world.AddAlertAsync(), await world.AddAlertAsync(), await world.AddAlertAsync());
        await Refusal.AddAsync(world.Store.Database, "alert_deliveries", $"NEW.alert_id = {one} AND {refused}");

        await world.LookAsync();
        world.Clock.Advance(TimeSpan.FromMinutes(4));
        await world.LookAsync();

        Assert.Equal([two, three], log.Tried.Where(id => id != one));
        Assert.Equal("sent", (await world.DeliveryAsync("log", three)).Status);
        Assert.NotEqual("sent", (await world.DeliveryAsync("log", one)).Status);
        AssertSaid(world);
        await Refusal.RemoveAsync(world.Store.Database, "alert_deliveries");
        world.Clock.Advance(TimeSpan.FromMinutes(5));
        await world.LookAsync();

        Assert.Single(log.Tried, id => id == one);
        Assert.Equal("sent", (await world.DeliveryAsync("log", one)).Status);
        Assert.Empty(world.Troubles.Standing);
    }

    [Fact]
    public async Task Alerts_that_get_no_delivery_hold_up_no_other()
    {
        await using var world = await OpenAsync(log);
        var alerts = await AddAsync(world, 250);
        var refused = alerts.Take(100).Append(alerts[200]).ToList();
        await Refusal.AddAsync(world.Store.Database, "alert_deliveries", $"NEW.alert_id <= {alerts[99]} OR NEW.alert_id = {alerts[200]}");

        await world.LookAsync();
        await world.LookAsync();

        Assert.Equal(alerts.Except(refused), log.Tried.Order());
        AssertSaid(world);
        await Refusal.RemoveAsync(world.Store.Database, "alert_deliveries");
        world.Clock.Advance(TimeSpan.FromMinutes(1));
        await world.LookAsync();

        Assert.Equal(alerts, log.Tried.Order());
        Assert.Empty(world.Troubles.Standing);
    }

    [Fact]
    public async Task Due_deliveries_that_are_refused_first_do_not_hold_their_channel()
    {
        await using var world = await OpenAsync(log);
        var alerts = await AddAsync(world, 50);
        await world.Sender.DispatchAsync(NotificationWorld.Stopping);
        await Refusal.AddAsync(world.Store.Database, "alert_deliveries", $"NEW.alert_id <= {alerts[44]} AND NEW.attempts > 0");

        await world.LookAsync();

        Assert.Equal(alerts.Skip(45), log.Tried);
        AssertSaid(world);
        world.Clock.Advance(TimeSpan.FromMinutes(1));
        await world.LookAsync();
        Assert.Equal(5, log.Tried.Count);
        AssertSaid(world);
    }

    [Fact]
    public async Task A_channel_that_is_off_or_fails_passes_on_and_gives_back_all_but_the_refused()
    {
        ChannelAnswer answer = new ChannelAnswer.Gone("410");
        var webhook = new ScriptedChannel("webhook", _ => answer);
        var mail = new ScriptedChannel("email", _ => Sent);
        await using var world = NotificationWorld.Over(await OpenStoreAsync(), new AlertsOptions { Fallback = "email" }, webhook, mail);
        var first = await world.AddAlertAsync();
        await world.LookAsync();
        Assert.Equal([first], webhook.Tried);
        var alerts = await AddAsync(world, 30);
        await Refusal.AddAsync(world.Store.Database, "alert_deliveries", $"NEW.alert_id IN ({alerts[0]}, {alerts[25]}) AND NEW.channel = 'email'");

        world.Clock.Advance(TimeSpan.FromMinutes(1));
        await world.LookAsync();
        Assert.Equal([first, .. alerts.Where(id => id != alerts[0] && id != alerts[25])], mail.Tried.Order());
        AssertSaid(world);
        await Refusal.RemoveAsync(world.Store.Database, "alert_deliveries");
        world.Clock.Advance(TimeSpan.FromMinutes(1));
        await world.LookAsync();
        Assert.Equal([first, .. alerts], mail.Tried.Order());
        Assert.False(world.Troubles.Stands("store:alerts"));

        // What was claimed behind a failure is given back at once, but for one.
        answer = new ChannelAnswer.Retry("nobody listens");
        world.Clock.Advance(TimeSpan.FromMinutes(15));
        await Refusal.AddAsync(world.Store.Database, "alert_deliveries", $"NEW.alert_id = {alerts[5]} AND NEW.channel = 'webhook' AND NEW.attempts = 0");
        await world.LookAsync();
        Assert.Equal((1L, 0L), ((await world.DeliveryAsync("webhook", alerts[5])).Attempts, (await world.DeliveryAsync("webhook", alerts[6])).Attempts));
        AssertSaid(world);
    }

    [Fact]
    public async Task A_table_that_is_gone_is_said_and_the_alerts_leave_when_it_is_back()
    {
        await using var world = await OpenAsync(log);
        var alert = await world.AddAlertAsync();
        await world.Store.ExecuteAsync("ALTER TABLE alert_deliveries RENAME TO away");

        await world.LookAsync();

        Assert.Contains("alert_deliveries", Assert.Single(world.Troubles.Standing).Trouble.Detail, StringComparison.Ordinal);
        await world.Store.ExecuteAsync("ALTER TABLE away RENAME TO alert_deliveries");
        await world.LookAsync();
        Assert.Equal([alert], log.Tried);
        Assert.Empty(world.Troubles.Standing);
    }

    [Fact]
    public async Task A_store_out_of_reach_is_no_second_trouble()
    {
        await using var world = await OpenAsync(log);
        await world.Store.ExecuteAsync("ALTER TABLE alert_deliveries RENAME TO away");
        await world.LookAsync();
        world.Troubles.Raise(new Trouble(Troubles.Store, TroubleLevel.NotReady, "The store is away", "It is away."));

        await world.LookAsync();

        Assert.Equal(Troubles.Store, Assert.Single(world.Troubles.Standing).Trouble.Key);
    }

    private static void AssertSaid(NotificationWorld world)
    {
        var trouble = world.Troubles.Standing.Single(one => one.Trouble.Key == "store:alerts").Trouble;
        Assert.Equal((TroubleLevel.Degraded, true), (trouble.Level, trouble.ConcernsStore));
        Assert.Contains(Refusal.Code(world.Store.Database, "alert_deliveries"), trouble.Detail, StringComparison.Ordinal);
        Assert.DoesNotContain(Refusal.Secret, trouble.ToString(), StringComparison.Ordinal);
    }

    private async Task<NotificationWorld> OpenAsync(params INotificationChannel[] channels) => NotificationWorld.Over(await OpenStoreAsync(), new AlertsOptions(), channels);

    private static async Task<List<long>> AddAsync(NotificationWorld world, int count)
    {
        var alerts = new List<long>(count);
        for (var number = 0; number < count; number++)
        {
            alerts.Add(await world.AddAlertAsync());
        }
        return alerts;
    }
}

public sealed class RefusedAlertOnSqliteTests : RefusedAlertTests
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync();
}

public sealed class RefusedAlertOnPostgresTests(PostgresContainerFixture postgres) : RefusedAlertTests
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync(postgres);

    [Fact]
    public async Task What_PostgreSQL_would_refuse_with_the_commit_only_holds_up_no_other_either()
    {
        var log = new ScriptedChannel("log", _ => new ChannelAnswer.Sent());
        await using var world = NotificationWorld.Over(await OpenStoreAsync(), new AlertsOptions(), log);
        var (one, two) = (await world.AddAlertAsync(), await world.AddAlertAsync());
        await world.Store.ExecuteAsync(
            $"""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''{Refusal.Secret}''; END';
            CREATE CONSTRAINT TRIGGER refusal AFTER INSERT ON alert_deliveries DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.alert_id = {one}) EXECUTE FUNCTION refuse()
            """);

        await world.LookAsync();

        Assert.Equal([two], log.Tried);
        var trouble = Assert.Single(world.Troubles.Standing).Trouble;
        Assert.Contains("(P0001, function refuse)", trouble.Detail, StringComparison.Ordinal);
        Assert.DoesNotContain(Refusal.Secret, trouble.ToString(), StringComparison.Ordinal);
    }
}

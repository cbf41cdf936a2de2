using OrderService.Notifications;
using static OrderService.Tests.Notifications.NotificationWorld;

namespace OrderService.Tests.Notifications;

public sealed class NotificationSenderTests
{
    private static readonly ChannelAnswer Sent = new ChannelAnswer.Sent();

    [Fact]
    public async Task In_quiet_hours_a_recovery_notice_waits_and_a_new_failure_does_not()
    {
        var channel = new ScriptedChannel("log", _ => new ChannelAnswer.Sent());
        await using var world = await NotificationWorld.OpenAsync(new AlertsOptions { QuietHours = new() { From = new TimeOnly(22, 0), To = new TimeOnly(4, 0) } }, channel);
        await world.Store.Database.WriteAsync(transaction => AlertsTable.AddAsync(transaction, NotificationWorld.Content(kind: AlertKind.Recovery), null, world.Clock.GetUtcNow()), NotificationWorld.Stopping);
        var first = await world.AddAlertAsync();

        await world.TickAsync();
        Assert.Equal([first], channel.Tried);
        world.Clock.Advance(TimeSpan.FromHours(1));
        await world.TickAsync();

        Assert.Equal([first, first - 1], channel.Tried);
    }

    [Fact]
    public async Task Each_channel_gets_each_alert_once()
    {
        var log = new ScriptedChannel("log", _ => Sent);
        var mail = new ScriptedChannel("email", _ => Sent);
        await using var world = await OpenAsync(new AlertsOptions(), log, mail);
        var (one, two) = (await world.AddAlertAsync(), await world.AddAlertAsync());

        await world.TickAsync();
        await world.TickAsync();

        Assert.Equal([one, two], log.Tried);
        Assert.Equal([one, two], mail.Tried);
        Assert.Equal("sent", (await world.DeliveryAsync("email", two)).Status);
    }

    [Fact]
    public async Task A_dead_channel_delays_only_itself_and_gets_everything_when_it_is_back()
    {
        var isDown = true;
        var log = new ScriptedChannel("log", _ => Sent);
        var mail = new ScriptedChannel("email", _ => isDown ? new ChannelAnswer.Retry("nobody listens") : Sent);
        await using var world = await OpenAsync(new AlertsOptions(), log, mail);
        var alerts = new List<long>();
        for (var number = 0; number < 30; number++)
        {
            alerts.Add(await world.AddAlertAsync());
        }

        await world.TickAsync();
        Assert.Equal(alerts, log.Tried);
        Assert.Single(mail.Tried);
        var first = await world.DeliveryAsync("email", alerts[0]);
        Assert.Equal(("pending", 1L, "nobody listens"), (first.Status, first.Attempts, first.LastError));
        isDown = false;
        world.Clock.Advance(TimeSpan.FromMinutes(15));
        await world.TickAsync();

        Assert.Equal(alerts, mail.Tried.Skip(1).Order());
        Assert.Equal(alerts.Count, log.Tried.Count);
    }

    [Fact]
    public async Task The_pauses_between_attempts_grow_up_to_a_bound_and_in_the_end_the_alert_is_set_aside()
    {
        var mail = new ScriptedChannel("email", _ => new ChannelAnswer.Retry("nobody listens"));
        var options = new AlertsOptions { RetryDelay = TimeSpan.FromSeconds(4), MaxRetryDelay = TimeSpan.FromMinutes(10), GiveUpAfter = TimeSpan.FromHours(3) };
        await using var world = await OpenAsync(options, mail);
        await world.AddAlertAsync();
        var pauses = new List<TimeSpan>();

        for (var delivery = await Next(); delivery.NextAttemptAt is { } next; delivery = await Next())
        {
            pauses.Add(next - world.Clock.GetUtcNow());
            world.Clock.Advance(pauses[^1]);
        }

        Assert.InRange(pauses[0], TimeSpan.FromSeconds(2), TimeSpan.FromSeconds(4));
        Assert.InRange(pauses[3], TimeSpan.FromSeconds(16), TimeSpan.FromSeconds(32));
        Assert.All(pauses, pause => Assert.True(pause <= TimeSpan.FromMinutes(10)));
        Assert.True(pauses.Aggregate((sum, pause) => sum + pause) >= TimeSpan.FromHours(3));
        Assert.StartsWith("given up after", (await world.DeliveryAsync("email")).LastError, StringComparison.Ordinal);

        async Task<AlertDeliveryRecord> Next()
        {
            await world.TickAsync();
            return await world.DeliveryAsync("email");
        }
    }

    [Fact]
    public async Task The_other_side_can_ask_for_a_longer_pause()
    {
        var webhook = new ScriptedChannel("webhook", _ => new ChannelAnswer.Retry("429", TimeSpan.FromMinutes(2)));
        await using var world = await OpenAsync(new AlertsOptions(), webhook);
        await world.AddAlertAsync();

        await world.TickAsync();

        Assert.Equal(world.Clock.GetUtcNow().AddMinutes(2), (await world.DeliveryAsync("webhook")).NextAttemptAt);
    }

    [Fact]
    public async Task An_alert_that_is_refused_or_makes_the_channel_throw_is_set_aside_and_the_others_go_on()
    {
        var mail = new ScriptedChannel("email", alert => alert.Subject switch
        {
            "refused" => new ChannelAnswer.Refused("550 no such user"),
            "poison" => throw new InvalidOperationException("poison"),
            _ => Sent,
        });
        await using var world = await OpenAsync(new AlertsOptions(), mail);
        var (refused, poison, good) = (await world.AddAlertAsync("refused"), await world.AddAlertAsync("poison"), await world.AddAlertAsync("good"));

        for (var round = 0; round < 10; round++)
        {
            await world.TickAsync();
            world.Clock.Advance(TimeSpan.FromMinutes(15));
        }

        Assert.Equal(("failed", "550 no such user"), ((await world.DeliveryAsync("email", refused)).Status, (await world.DeliveryAsync("email", refused)).LastError));
        Assert.Equal(("failed", 5L), ((await world.DeliveryAsync("email", poison)).Status, (await world.DeliveryAsync("email", poison)).Attempts));
        Assert.Equal("sent", (await world.DeliveryAsync("email", good)).Status);
        Assert.Equal(1, mail.Tried.Count(tried => tried == good));
    }

    [Fact]
    public async Task A_row_that_cant_be_read_is_set_aside_too()
    {
        var mail = new ScriptedChannel("email", _ => Sent);
        await using var world = await OpenAsync(new AlertsOptions(), mail);
        var broken = await world.AddAlertAsync();
        await world.Store.ExecuteAsync("UPDATE alerts SET data = 'not json'");
        var good = await world.AddAlertAsync();

        for (var round = 0; round < 10; round++)
        {
            await world.TickAsync();
            world.Clock.Advance(TimeSpan.FromMinutes(15));
        }

        Assert.Equal("failed", (await world.DeliveryAsync("email", broken)).Status);
        Assert.Equal([good], mail.Tried);
    }

    [Fact]
    public async Task A_channel_that_wants_no_alerts_is_asked_from_time_to_time_shows_as_off_and_gets_everything_when_it_wants_them_again()
    {
        var isGone = true;
        var webhook = new ScriptedChannel("webhook", _ => isGone ? new ChannelAnswer.Gone("410") : Sent);
        await using var world = await OpenAsync(new AlertsOptions(), webhook);
        await world.AddAlertAsync();
        await world.AddAlertAsync();

        for (var minute = 0; minute < 60; minute++)
        {
            await world.TickAsync();
            world.Clock.Advance(TimeSpan.FromMinutes(1));
        }

        Assert.Equal(4, webhook.Tried.Count);
        Assert.Equal(["off 410"], await world.Store.QueryAsync<string>("SELECT state || ' ' || reason FROM alert_channels WHERE channel = 'webhook'"));
        Assert.True(world.Troubles.Stands("alerts:webhook"));
        isGone = false;
        world.Clock.Advance(TimeSpan.FromMinutes(15));
        await world.TickAsync();
        Assert.Equal(6, webhook.Tried.Count);
        Assert.Equal(["ok"], await world.Store.QueryAsync<string>("SELECT state FROM alert_channels WHERE channel = 'webhook'"));
        Assert.False(world.Troubles.Stands("alerts:webhook"));
    }

    [Fact]
    public async Task While_a_channel_wants_no_alerts_the_fallback_gets_each_of_them_at_once()
    {
        var webhook = new ScriptedChannel("webhook", _ => new ChannelAnswer.Gone("410"));
        var mail = new ScriptedChannel("email", _ => Sent);
        await using var world = await OpenAsync(new AlertsOptions { Fallback = "email" }, webhook, mail);
        var first = await world.AddAlertAsync();
        await world.TickAsync();
        world.Clock.Advance(TimeSpan.FromSeconds(1));
        await world.TickAsync();
        var second = await world.AddAlertAsync();
        world.Clock.Advance(TimeSpan.FromSeconds(1));
        await world.TickAsync();
        await world.TickAsync();

        Assert.Equal([first], webhook.Tried);
        Assert.Equal([first, second], mail.Tried);
    }

    [Fact]
    public async Task An_alert_that_reached_nobody_is_a_trouble_until_a_channel_told_of_it()
    {
        var isDown = true;
        var log = new ScriptedChannel("log", _ => Sent);
        var mail = new ScriptedChannel("email", _ => isDown ? new ChannelAnswer.Retry("nobody listens") : Sent);
        await using var world = await OpenAsync(new AlertsOptions(), log, mail);
        await world.AddAlertAsync("Something failed");
        for (var hour = 0; hour < 73; hour++)
        {
            await world.TickAsync();
            world.Clock.Advance(TimeSpan.FromHours(1));
        }
        Assert.Equal("failed", (await world.DeliveryAsync("email")).Status);

        await world.Sender.LookForUndeliveredAsync(Stopping);
        var trouble = world.Troubles.Standing.Single(standing => standing.Trouble.Key == "alerts:undelivered").Trouble;
        Assert.Equal("1 alert reached nobody", trouble.Subject);
        Assert.Contains("'Something failed'", trouble.Detail, StringComparison.Ordinal);
        // A process that starts finds it as well.
        await world.AnotherSender().LookForUndeliveredAsync(Stopping);
        Assert.True(world.Troubles.Stands("alerts:undelivered"));

        isDown = false;
        await world.Store.Database.WriteAsync(
            transaction => AlertsTable.AddAsync(transaction, TroubleNews.Content(trouble, isReminder: false), null, world.Clock.GetUtcNow()), Stopping);
        await world.TickAsync();
        await world.Sender.LookForUndeliveredAsync(Stopping);
        Assert.False(world.Troubles.Stands("alerts:undelivered"));
        await world.AnotherSender().LookForUndeliveredAsync(Stopping);
        Assert.False(world.Troubles.Stands("alerts:undelivered"));
    }

    [Fact]
    public async Task What_concerns_one_recipient_holds_up_no_other_alert()
    {
        var mail = new ScriptedChannel("email", alert => alert.Subject == "slow" ? new ChannelAnswer.Retry("450") { IsOwn = true, HasReached = true, Recipients = """{"a@example.org":"sent"}""" } : Sent);
        await using var world = await OpenAsync(new AlertsOptions(), mail);
        var (slow, good) = (await world.AddAlertAsync("slow"), await world.AddAlertAsync("good"));

        await world.TickAsync();

        Assert.Equal([slow, good], mail.Tried);
        Assert.Empty(world.Troubles.Standing);
        Assert.Equal("""{"a@example.org":"sent"}""", await world.Store.ScalarAsync<string>("SELECT recipients FROM alert_deliveries WHERE alert_id = @slow", new { slow }));
    }

    [Fact]
    public async Task A_clock_that_is_set_back_delays_no_alert()
    {
        var isDown = true;
        var mail = new ScriptedChannel("email", _ => isDown ? new ChannelAnswer.Retry("nobody listens") : Sent);
        await using var world = await OpenAsync(new AlertsOptions(), mail);
        await world.AddAlertAsync();
        await world.TickAsync();
        // As if the clock had been two hours ahead until now.
        await world.Store.ExecuteAsync("UPDATE alert_deliveries SET next_attempt_at = next_attempt_at + 7200000");
        isDown = false;

        await world.TickAsync();

        Assert.Equal("sent", (await world.DeliveryAsync("email")).Status);
    }

    [Fact]
    public async Task Of_two_processes_only_one_sends_an_alert()
    {
        var mail = new ScriptedChannel("email", _ => Sent);
        await using var world = await OpenAsync(new AlertsOptions(), mail);
        var second = world.AnotherSender();
        for (var number = 0; number < 50; number++)
        {
            await world.AddAlertAsync();
        }

        await Task.WhenAll(world.Sender.DispatchAsync(Stopping), second.DispatchAsync(Stopping));
        await Task.WhenAll(world.Sender.SendDueAsync(mail, Stopping), second.SendDueAsync(mail, Stopping));

        Assert.Equal(50, mail.Tried.Count);
        Assert.Equal(50, mail.Tried.Distinct().Count());
    }

    [Fact]
    public async Task An_alert_whose_process_died_while_sending_is_sent_by_another()
    {
        var mail = new ScriptedChannel("email", _ => Sent);
        await using var world = await OpenAsync(new AlertsOptions(), mail);
        await world.AddAlertAsync();
        await world.Sender.DispatchAsync(Stopping);
        // As a process leaves it that was killed between claiming and recording.
        await world.Store.ExecuteAsync("UPDATE alert_deliveries SET attempts = 1, next_attempt_at = next_attempt_at + 180000");

        await world.TickAsync();
        Assert.Empty(mail.Tried);
        world.Clock.Advance(TimeSpan.FromMinutes(3));
        await world.TickAsync();

        Assert.Single(mail.Tried);
    }

    [Fact]
    public async Task The_fallback_gets_what_another_channel_could_not_send_in_time_and_nothing_else()
    {
        var isDown = true;
        var mail = new ScriptedChannel("email", alert => alert.Subject == "refused" ? new ChannelAnswer.Refused("550") : isDown ? new ChannelAnswer.Retry("nobody listens") : Sent);
        var webhook = new ScriptedChannel("webhook", _ => Sent);
        await using var world = await OpenAsync(new AlertsOptions { Fallback = "webhook", FallbackAfter = TimeSpan.FromMinutes(10) }, mail, webhook);
        var late = await world.AddAlertAsync();

        await world.TickAsync();
        Assert.Empty(webhook.Tried);
        for (var minute = 0; minute < 15; minute++)
        {
            world.Clock.Advance(TimeSpan.FromMinutes(1));
            await world.TickAsync();
        }
        Assert.Equal([late], webhook.Tried);
        isDown = false;
        var prompt = await world.AddAlertAsync();
        var refused = await world.AddAlertAsync("refused");
        world.Clock.Advance(TimeSpan.FromMinutes(15));
        await world.TickAsync();
        await world.TickAsync();

        Assert.Equal([late, refused], webhook.Tried);
        Assert.Equal("sent", (await world.DeliveryAsync("email", prompt)).Status);
    }
}

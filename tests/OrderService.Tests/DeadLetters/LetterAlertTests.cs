using OrderService.DeadLetters;
using OrderService.Inbox;
using OrderService.Notifications;
using OrderService.Observability;
using OrderService.Tests.Infrastructure;
using static OrderService.Tests.DeadLetters.LetterWorld;

namespace OrderService.Tests.DeadLetters;

public abstract class LetterAlertTests : LetterContract
{
    [Fact]
    public async Task A_new_kind_of_failure_alerts_at_once_in_business_terms_and_without_customers()
    {
        await using var world = await OpenAsync(new AlertsOptions { PageUrl = "https://orders.example.org/" });
        await world.RejectAsync(Arrival(Order("A-1", "CUSTOMER-7", "49.90"), "key-1"), RejectionReason.AmountPrecision, "/lines/0/unitPrice");
        await world.RejectAsync(Arrival(Order("A-2", "CUSTOMER-8", "500", "JPY"), "key-2"), RejectionReason.AmountPrecision, "/lines/1/unitPrice");

        await world.TakeInAsync(Arrival(Order("A-1", "CUSTOMER-7", "49.90"), "key-1"), Arrival(Order("A-2", "CUSTOMER-8", "500", "JPY"), "key-2"));

        var alert = Assert.Single(await new AlertQueries(world.Store.Database).ListAsync(null, 10, Stopping));
        Assert.Equal((AlertKind.First, 2L), (alert.Kind, alert.Letters));
        Assert.Equal("An amount has more decimals than its currency (lines.*.unitPrice) - 2 orders are stuck", alert.Subject);
        Assert.Contains("99.80 EUR", alert.Text, StringComparison.Ordinal);
        Assert.Contains("1000 JPY", alert.Text, StringComparison.Ordinal);
        Assert.Contains("Orders: A-1, A-2", alert.Text, StringComparison.Ordinal);
        Assert.Contains("customers  2", alert.Text, StringComparison.Ordinal);
        Assert.Contains("https://orders.example.org/#/incidents/", alert.Text, StringComparison.Ordinal);
        Assert.DoesNotContain("CUSTOMER", alert.Text + await world.Store.ScalarAsync<string>("SELECT data FROM alerts"), StringComparison.Ordinal);
        Assert.Equal(0, await world.UncoveredAsync());
    }

    [Fact]
    public async Task The_value_of_an_order_that_exists_counts_when_its_letter_does_not_say_it()
    {
        await using var world = await OpenAsync();
        await world.Store.ExecuteAsync(
            "INSERT INTO orders (order_id, version, status, customer_id, currency, total_minor, line_count, placed_at, updated_at, last_hash) VALUES ('A-1', 1, 1, 'C-1', 'EUR', 12345, 1, 0, 0, @hash)", new { hash = new byte[] { 0 } });
        var ship = """{"orderId":"A-1","speed":"fast"}"""u8.ToArray();
        await world.DieAsync(Arrival(ship, "key-1", type: "order.ship"), RejectionReason.UnknownField);
        await world.DieAsync(Arrival([.. ship, 0x20], "key-2", type: "order.ship"), RejectionReason.UnknownField);

        var incident = Assert.Single(await world.Queries.IncidentsAsync(Stopping));

        Assert.Equal((2L, 1L, 1L), (incident.Parked, incident.Orders, incident.Customers));
        Assert.Equal(new AlertAmount("EUR", 12345, "123.45"), Assert.Single(incident.Value));
    }

    [Fact]
    public async Task Repeats_are_told_of_in_one_digest_after_an_interval()
    {
        await using var world = await OpenAsync();
        for (var number = 1; number <= 5; number++)
        {
            await world.DieAsync(Arrival(Order($"A-{number}"), $"key-{number}"), RejectionReason.UnknownField);
        }
        Assert.Equal(4, await world.UncoveredAsync());
        Assert.Null(await world.Notifier.DigestAsync(Stopping));
        world.Clock.Advance(TimeSpan.FromMinutes(5));

        var alertId = await world.Notifier.DigestAsync(Stopping);

        Assert.NotNull(alertId);
        Assert.Null(await world.Notifier.DigestAsync(Stopping));
        Assert.Equal(0, await world.UncoveredAsync());
        var alert = (await new AlertQueries(world.Store.Database).ListAsync(null, 1, Stopping))[0];
        Assert.Equal((AlertKind.Digest, 4L, "4 more messages failed (1 kind) - 5 orders are stuck"), (alert.Kind, alert.Letters, alert.Subject));
        Assert.Contains("4 letters (numbers 2 to 5)", alert.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_letter_that_the_store_does_not_mark_as_covered_holds_up_no_other_and_brings_no_digest_each_second()
    {
        await using var world = await OpenAsync();
        for (var number = 1; number <= 6; number++)
        {
            await world.DieAsync(Arrival(Order($"A-{number}"), $"key-{number}"), RejectionReason.UnknownField);
        }
        await Refusal.AddAsync(world.Store.Database, "dead_letters", "NEW.order_id = 'A-3' AND NEW.alert_id IS NOT NULL");
        world.Clock.Advance(TimeSpan.FromMinutes(5));

        await world.NotifyAsync();

        Assert.Equal((1L, 1L), (await world.AlertsAsync("digest"), await world.UncoveredAsync()));
        var trouble = Assert.Single(world.Troubles.Standing).Trouble;
        Assert.Equal(("store:digests", TroubleLevel.Degraded), (trouble.Key, trouble.Level));
        Assert.Contains(Refusal.Code(world.Store.Database, "dead_letters"), trouble.Detail, StringComparison.Ordinal);
        Assert.DoesNotContain(Refusal.Secret, trouble.ToString(), StringComparison.Ordinal);
        Assert.DoesNotContain("A-3", trouble.ToString(), StringComparison.Ordinal);
        for (var minute = 0; minute < 10; minute++)
        {
            world.Clock.Advance(TimeSpan.FromMinutes(1));
            await world.NotifyAsync();
        }
        Assert.Equal((1L, 1L), (await world.AlertsAsync("digest"), await world.UncoveredAsync()));
        Assert.True(world.Troubles.Stands("store:digests"));

        await Refusal.RemoveAsync(world.Store.Database, "dead_letters");
        world.Clock.Advance(TimeSpan.FromMinutes(1));
        await world.NotifyAsync();

        Assert.Equal((2L, 0L), (await world.AlertsAsync("digest"), await world.UncoveredAsync()));
        Assert.Empty(world.Troubles.Standing);
    }

    [Fact]
    public async Task An_incident_that_the_store_does_not_change_holds_up_no_escalation_reminder_or_notice_of_another()
    {
        await using var world = await OpenAsync();
        foreach (var (reason, number) in RejectionReason.All.Take(4).Select((reason, number) => (reason, number)))
        {
            await world.DieAsync(Arrival(Order($"A-{number}"), $"key-{number}"), reason);
        }
        var incidents = await world.Store.QueryAsync<string>("SELECT fingerprint FROM incidents ORDER BY fingerprint");
        await world.Store.ExecuteAsync("UPDATE dead_letters SET status = 'resolved' WHERE incident IN (@over, @refused)", new { over = incidents[0], refused = incidents[1] });
        await Refusal.AddAsync(world.Store.Database, "incidents", $"NEW.fingerprint IN ('{incidents[1]}', '{incidents[2]}')");
        world.Clock.Advance(TimeSpan.FromHours(1));

        await world.NotifyAsync();

        Assert.Equal((1L, 1L), (await world.AlertsAsync("escalation"), await world.AlertsAsync("recovery")));
        Assert.Equal(incidents[3], await world.Store.ScalarAsync<string>("SELECT incident FROM alerts WHERE kind = 'escalation'"));
        var trouble = Assert.Single(world.Troubles.Standing).Trouble;
        Assert.Contains(Refusal.Code(world.Store.Database, "incidents"), trouble.Detail, StringComparison.Ordinal);
        // A table that is gone is said as well, and the digest does not wait for it.
        await world.Store.ExecuteAsync("ALTER TABLE schedules RENAME TO schedules_away");
        world.Clock.Advance(TimeSpan.FromHours(4));
        await world.NotifyAsync();
        Assert.Contains("schedules", Assert.Single(world.Troubles.Standing).Trouble.Detail, StringComparison.Ordinal);
        await world.Store.ExecuteAsync("ALTER TABLE schedules_away RENAME TO schedules");
        await Refusal.RemoveAsync(world.Store.Database, "incidents");
        world.Clock.Advance(TimeSpan.FromMinutes(1));
        await world.NotifyAsync();

        Assert.Equal((2L, 2L), (await world.AlertsAsync("escalation"), await world.AlertsAsync("recovery")));
        Assert.Empty(world.Troubles.Standing);
    }

    [Fact]
    public async Task A_store_that_takes_no_digest_at_all_gets_no_empty_alert_and_no_endless_attempts()
    {
        await using var world = await OpenAsync();
        await world.TakeInAsync([.. Enumerable.Range(1, 300).Select(number => Arrival(Order($"A-{number}"), $"key-{number}", Death("delivery_limit")))]);
        await world.Store.ExecuteAsync("UPDATE dead_letters SET alert_id = NULL");
        var before = await world.Store.ScalarAsync<long>("SELECT count(*) FROM alerts");
        await Refusal.AddAsync(world.Store.Database, "dead_letters", "NEW.alert_id IS NOT NULL");
        world.Clock.Advance(TimeSpan.FromMinutes(5));

        for (var second = 0; second < 10; second++)
        {
            world.Clock.Advance(TimeSpan.FromSeconds(1));
            await world.NotifyAsync();
        }

        Assert.Equal(before, await world.Store.ScalarAsync<long>("SELECT count(*) FROM alerts"));
        Assert.Equal("store:digests", Assert.Single(world.Troubles.Standing).Trouble.Key);
        await Refusal.RemoveAsync(world.Store.Database, "dead_letters");
        world.Clock.Advance(TimeSpan.FromMinutes(1));
        await world.NotifyAsync();

        Assert.Equal((before + 1, 0L), (await world.Store.ScalarAsync<long>("SELECT count(*) FROM alerts"), await world.UncoveredAsync()));
        Assert.Empty(world.Troubles.Standing);
    }

    [Fact]
    public async Task New_kinds_beyond_the_limit_of_an_interval_go_into_the_digest()
    {
        await using var world = await OpenAsync(new AlertsOptions { MaxFirstPerInterval = 3 });
        foreach (var (reason, number) in RejectionReason.All.Take(8).Select((reason, number) => (reason, number)))
        {
            await world.DieAsync(Arrival(Order($"A-{number}"), $"key-{number}"), reason);
        }

        Assert.Equal(3, await world.AlertsAsync("first"));
        world.Clock.Advance(TimeSpan.FromMinutes(5));
        await world.Notifier.DigestAsync(Stopping);

        Assert.Equal(1, await world.AlertsAsync("digest"));
        Assert.Equal(0, await world.UncoveredAsync());
    }

    [Fact]
    public async Task A_resolved_incident_that_comes_back_alerts_at_once_with_the_build()
    {
        await using var world = await OpenAsync();
        await world.DieAsync(Arrival(Order("A-1"), "key-1"), RejectionReason.UnknownField);
        await world.Store.ExecuteAsync("UPDATE incidents SET state = 'resolved'");

        await world.DieAsync(Arrival(Order("A-2"), "key-2"), RejectionReason.UnknownField);

        Assert.Equal(2, await world.AlertsAsync("first"));
        var incident = Assert.Single(await world.Queries.IncidentsAsync(Stopping));
        Assert.Equal(("regressed", DeadLetterParking.Build, 2L), (incident.State, incident.RegressedBuild, incident.Letters));
    }

    [Fact]
    public async Task The_letters_of_a_muted_incident_wait_until_it_is_not_muted_any_more()
    {
        await using var world = await OpenAsync();
        await world.DieAsync(Arrival(Order("A-1"), "key-1"), RejectionReason.UnknownField);
        await world.Store.ExecuteAsync("UPDATE incidents SET muted_until = @until", new { until = world.Clock.GetUtcNow().AddHours(1).ToUnixTimeMilliseconds() });
        await world.DieAsync(Arrival(Order("A-2"), "key-2"), RejectionReason.UnknownField);
        world.Clock.Advance(TimeSpan.FromMinutes(30));
        Assert.Null(await world.Notifier.DigestAsync(Stopping));
        world.Clock.Advance(TimeSpan.FromMinutes(31));

        Assert.NotNull(await world.Notifier.DigestAsync(Stopping));
        Assert.Equal(0, await world.UncoveredAsync());
    }

    [Fact]
    public async Task An_incident_nobody_acknowledges_is_escalated_once_and_reminded_of_until_somebody_does()
    {
        await using var world = await OpenAsync();
        var states = new IncidentStates(world.Store.Database, world.Clock);
        await world.DieAsync(Arrival(Order("A-1"), "key-1"), RejectionReason.UnknownField);
        var fingerprint = (await world.OnlyLetterAsync()).Incident;
        Assert.Equal(0, await world.Notifier.FollowUpAsync(Stopping));

        world.Clock.Advance(TimeSpan.FromHours(1));
        Assert.Equal(1, await world.Notifier.FollowUpAsync(Stopping));
        Assert.Equal(0, await world.Notifier.FollowUpAsync(Stopping));
        world.Clock.Advance(TimeSpan.FromHours(4));
        Assert.Equal(1, await world.Notifier.FollowUpAsync(Stopping));
        Assert.True(await states.AcknowledgeAsync(fingerprint, "ann", "on it", Stopping));
        world.Clock.Advance(TimeSpan.FromDays(3));

        Assert.Equal(0, await world.Notifier.FollowUpAsync(Stopping));
        Assert.Equal((1L, 1L), (await world.AlertsAsync("escalation"), await world.AlertsAsync("reminder")));
        var subjects = (await new AlertQueries(world.Store.Database).ListAsync(null, 10, Stopping)).Select(alert => alert.Subject).ToList();
        Assert.Contains("Nobody has acknowledged it: A message has a field that is not known - 1 order is stuck", subjects);
        Assert.Contains("Still waiting: A message has a field that is not known - 1 order is stuck", subjects);
        Assert.Equal("ann", (await world.Queries.IncidentAsync(fingerprint, Stopping))!.StateBy);
    }

    [Fact]
    public async Task When_no_letter_is_left_the_incident_is_over_and_a_notice_says_so()
    {
        await using var world = await OpenAsync();
        await world.DieAsync(Arrival(Order("A-1"), "key-1"), RejectionReason.UnknownField);
        await world.DieAsync(Arrival(Order("A-2"), "key-2"), RejectionReason.UnknownField);
        await world.Replay.DiscardAsync(1, "ann", "a test", Stopping);
        await world.Replay.ReplayAsync(new ReplayRequest(2, "ann"), Stopping);
        world.Clock.Advance(TimeSpan.FromMinutes(2));
        // The replay may still fail.
        Assert.Equal(0, await world.Notifier.FollowUpAsync(Stopping));
        await world.Store.ExecuteAsync("UPDATE dead_letters SET status = 'resolved' WHERE id = 2");

        Assert.Equal(1, await world.Notifier.FollowUpAsync(Stopping));
        Assert.Equal(0, await world.Notifier.FollowUpAsync(Stopping));

        Assert.Equal("Over: A message has a field that is not known", (await new AlertQueries(world.Store.Database).ListAsync(null, 1, Stopping))[0].Subject);
        Assert.Equal("resolved", Assert.Single(await world.Queries.IncidentsAsync(Stopping)).State);
        await world.DieAsync(Arrival(Order("A-3"), "key-3"), RejectionReason.UnknownField);
        Assert.Equal("regressed", Assert.Single(await world.Queries.IncidentsAsync(Stopping)).State);
        Assert.Equal(2, await world.AlertsAsync("first"));
    }

    [Fact]
    public async Task A_muted_incident_is_neither_reminded_of_nor_escalated_and_every_action_is_in_the_audit_log()
    {
        await using var world = await OpenAsync();
        var states = new IncidentStates(world.Store.Database, world.Clock);
        await world.DieAsync(Arrival(Order("A-1"), "key-1"), RejectionReason.UnknownField);
        var fingerprint = (await world.OnlyLetterAsync()).Incident;

        Assert.True(await states.MuteAsync(fingerprint, world.Clock.GetUtcNow().AddDays(1), "ann", "known", Stopping));
        world.Clock.Advance(TimeSpan.FromHours(12));
        Assert.Equal(0, await world.Notifier.FollowUpAsync(Stopping));
        Assert.True(await states.MuteAsync(fingerprint, null, "ann", "", Stopping));
        Assert.Equal(1, await world.Notifier.FollowUpAsync(Stopping));
        Assert.True(await states.ResolveAsync(fingerprint, "ann", "mended", Stopping));
        Assert.False(await states.AcknowledgeAsync("0000000000000000", "ann", "", Stopping));

        Assert.Equal(["incident.mute", "incident.unmute", "incident.resolve"], await world.Store.QueryAsync<string>("SELECT action FROM audit ORDER BY id"));
    }

    // 04:00 in Berlin when the clock of these tests begins: two hours of quiet are left.
    private static QuietHoursOptions Night(bool holdAll = false) => new() { From = new TimeOnly(22, 0), To = new TimeOnly(6, 0), TimeZone = "Europe/Berlin", HoldAll = holdAll };

    [Fact]
    public async Task In_quiet_hours_a_new_failure_and_an_escalation_go_out_digests_and_reminders_wait()
    {
        await using var world = await OpenAsync(new AlertsOptions { QuietHours = Night(), EscalateAfter = TimeSpan.FromMinutes(10), RemindAfter = TimeSpan.FromMinutes(30) });
        for (var number = 1; number <= 5; number++)
        {
            await world.DieAsync(Arrival(Order($"A-{number}"), $"key-{number}"), RejectionReason.UnknownField);
        }
        Assert.Equal((1L, 4L), (await world.AlertsAsync("first"), await world.UncoveredAsync()));

        world.Clock.Advance(TimeSpan.FromMinutes(119));
        Assert.Null(await world.Notifier.DigestAsync(Stopping));
        Assert.Equal(1, await world.Notifier.FollowUpAsync(Stopping));
        Assert.Equal((1L, 0L), (await world.AlertsAsync("escalation"), await world.AlertsAsync("reminder")));
        await world.DieAsync(Arrival(Order("A-6"), "key-6"), RejectionReason.UnknownField);

        world.Clock.Advance(TimeSpan.FromMinutes(1));
        Assert.NotNull(await world.Notifier.DigestAsync(Stopping));
        Assert.Equal(0, await world.UncoveredAsync());
        Assert.Equal((5L, 1L), (await world.Store.ScalarAsync<long>("SELECT letters FROM alerts WHERE kind = 'digest'"), await world.AlertsAsync("digest")));
        world.Clock.Advance(TimeSpan.FromMinutes(30));
        Assert.Equal(1, await world.Notifier.FollowUpAsync(Stopping));
        Assert.Equal(1, await world.AlertsAsync("reminder"));
    }

    [Fact]
    public async Task In_quiet_hours_that_hold_everything_nobody_is_woken_and_the_morning_tells_of_every_letter()
    {
        await using var world = await OpenAsync(new AlertsOptions { QuietHours = Night(holdAll: true), EscalateAfter = TimeSpan.FromMinutes(10) });
        await world.DieAsync(Arrival(Order("A-1"), "key-1"), RejectionReason.UnknownField);
        await world.DieAsync(Arrival(Order("A-2"), "key-2"), RejectionReason.InternalError);
        world.Clock.Advance(TimeSpan.FromMinutes(119));
        Assert.Null(await world.Notifier.DigestAsync(Stopping));
        Assert.Equal(0, await world.Notifier.FollowUpAsync(Stopping));
        Assert.Equal(0, await world.Store.ScalarAsync<long>("SELECT count(*) FROM alerts"));

        world.Clock.Advance(TimeSpan.FromMinutes(1));
        await world.Notifier.DigestAsync(Stopping);
        await world.Notifier.FollowUpAsync(Stopping);

        Assert.Equal(["digest", "escalation"], await world.Store.QueryAsync<string>("SELECT kind FROM alerts ORDER BY id"));
        Assert.Equal(0, await world.UncoveredAsync());
        await world.DieAsync(Arrival(Order("A-3"), "key-3"), RejectionReason.AmountPrecision);
        Assert.Equal(1, await world.AlertsAsync("first"));
    }

    [Fact]
    public async Task A_storm_of_thousands_of_letters_gives_a_handful_of_alerts_and_covers_every_letter()
    {
        await using var world = await OpenAsync();
        string[] reasons = [RejectionReason.UnknownField, RejectionReason.AmountPrecision, RejectionReason.InternalError];
        var number = 0;
        for (var minute = 0; minute < 20; minute++)
        {
            var letters = Enumerable.Range(0, 100).Select(_ => number++).Select(id => Letter(Arrival(Order($"A-{id}"), $"key-{id}"), reasons[id % 3])).ToList();
            await world.Store.Database.WriteAsync(transaction => world.Parking.ParkAsync(transaction, letters), Stopping);
            await world.Notifier.DigestAsync(Stopping);
            world.Clock.Advance(TimeSpan.FromMinutes(1));
        }
        world.Clock.Advance(TimeSpan.FromMinutes(5));
        await world.Notifier.DigestAsync(Stopping);

        Assert.Equal(3, await world.AlertsAsync("first"));
        Assert.InRange(await world.AlertsAsync("digest"), 1, 5);
        Assert.Equal((2_000L, 0L), (await world.Store.ScalarAsync<long>("SELECT count(*) FROM dead_letters"), await world.UncoveredAsync()));
        Assert.Equal(2_000, await world.Store.ScalarAsync<long>("SELECT sum(letters) FROM alerts"));
    }
}

public sealed class LetterAlertOnSqliteTests : LetterAlertTests
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync();
}

public sealed class LetterAlertOnPostgresTests(PostgresContainerFixture postgres) : LetterAlertTests
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync(postgres);
}

using OrderService.DeadLetters;
using OrderService.Inbox;
using OrderService.Notifications;
using OrderService.Tests.Infrastructure;
using static OrderService.Tests.DeadLetters.LetterWorld;

namespace OrderService.Tests.DeadLetters;

public abstract class DeadLetterParkingTests : LetterContract
{
    [Fact]
    public async Task A_letter_is_parked_with_its_exact_bytes_the_recorded_reason_and_its_business_facts()
    {
        await using var world = await OpenAsync();
        byte[] body = [.. Order("A-1", "C-7", "49.90"), 0x0a, 0x20];
        var arrival = Arrival(body, "key-1");

        await world.DieAsync(arrival, RejectionReason.AmountPrecision, "/lines/0/unitPrice");

        var letter = await world.OnlyLetterAsync();
        Assert.Equal((LetterStatus.Parked, RejectionReason.AmountPrecision, "Why.", "/lines/0/unitPrice"), (letter.Status, letter.Reason, letter.Detail, letter.Field));
        Assert.Equal(("A-1", "C-7", new AlertAmount("EUR", 9980, "99.80")), (letter.OrderId, letter.CustomerId, letter.Value));
        Assert.Equal(body, (await world.Queries.BodyAsync(letter.Id, Stopping))?.Bytes);
        var record = await world.Queries.GetAsync(letter.Id, Stopping);
        Assert.Equal("orders", record!.Deaths!.Value[0].GetProperty("queue").GetString());
        Assert.Equal("key-1", record.Properties.GetProperty("message_id").GetString());
        Assert.Equal("parked", Assert.Single(record.History).Kind);
    }

    [Fact]
    public async Task The_rejection_gives_its_bytes_up_once_the_letter_is_parked()
    {
        await using var world = await OpenAsync();

        await world.DieAsync(Arrival(Order("A-1"), "key-1"), RejectionReason.UnknownField);

        Assert.Equal(1, await world.Store.ScalarAsync<long>("SELECT count(*) FROM rejections WHERE parked = 1 AND body IS NULL AND properties IS NULL"));
    }

    [Theory]
    [InlineData("delivery_limit", RejectionReason.DeliveryLimit)]
    [InlineData("expired", RejectionReason.Expired)]
    [InlineData("maxlen", RejectionReason.InternalError)]
    [InlineData("rejected", RejectionReason.InternalError)]
    public async Task A_letter_without_a_recorded_reason_has_the_brokers_and_takes_its_key(string death, string reason)
    {
        await using var world = await OpenAsync();

        await world.TakeInAsync(Arrival(Order("A-1"), "key-1", Death(death)));

        Assert.Equal(reason, (await world.OnlyLetterAsync()).Reason);
        Assert.Equal(4, await world.Store.ScalarAsync<long>("SELECT outcome FROM inbox WHERE key = 'key-1'"));
    }

    [Fact]
    public async Task A_rejected_message_without_a_recorded_reason_is_decoded_once_more()
    {
        await using var world = await OpenAsync();

        await world.TakeInAsync(Arrival("{"u8.ToArray()));

        Assert.Equal(RejectionReason.MalformedJson, (await world.OnlyLetterAsync()).Reason);
        Assert.Equal(0, await world.Store.ScalarAsync<long>("SELECT count(*) FROM inbox"));
    }

    [Fact]
    public async Task A_reason_recorded_for_an_earlier_death_does_not_explain_a_later_one_of_another_kind()
    {
        await using var world = await OpenAsync();
        await world.RejectAsync(Arrival(Order("A-1"), "key-1"), RejectionReason.UnknownField);

        await world.TakeInAsync(Arrival(Order("A-1"), "key-1", Death("delivery_limit")));

        Assert.Equal(RejectionReason.DeliveryLimit, (await world.OnlyLetterAsync()).Reason);
    }

    [Fact]
    public async Task What_a_stranger_puts_among_the_dead_letters_is_foreign_and_alerts()
    {
        await using var world = await OpenAsync();

        await world.TakeInAsync(Arrival(Order("A-1"), "key-1", []), Arrival(Order("A-2"), "key-2", Death(queue: "somebody.else")));

        Assert.All(await world.Queries.ListAsync(new LetterFilter(), null, 10, Stopping), letter => Assert.Equal(RejectionReason.ForeignDeadLetter, letter.Reason));
        Assert.Equal(1, await world.AlertsAsync("first"));
        Assert.Equal(0, await world.Store.ScalarAsync<long>("SELECT count(*) FROM inbox"));
    }

    [Theory]
    [InlineData("x-first-death-queue")]
    [InlineData("x-first-death-reason")]
    [InlineData("time")]
    [InlineData("routing-keys")]
    [InlineData("exchange")]
    [InlineData("count")]
    public async Task A_death_that_the_broker_did_not_write_is_foreign(string missing)
    {
        await using var world = await OpenAsync();
        var headers = Death("delivery_limit");
        headers.Remove(missing);
        ((Dictionary<string, object?>)((List<object?>)headers["x-death"]!)[0]!).Remove(missing);
        Dictionary<string, object?> firstAlone = new() { ["x-first-death-queue"] = "orders", ["x-first-death-reason"] = "expired" };

        await world.TakeInAsync(Arrival(Order("A-1"), "key-1", headers), Arrival(Order("A-2"), "key-2", firstAlone));

        Assert.All(await world.Queries.ListAsync(new LetterFilter(), null, 10, Stopping), letter => Assert.Equal(RejectionReason.ForeignDeadLetter, letter.Reason));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task A_letter_of_a_message_that_was_decided_after_all_is_superseded_and_alarms_nobody(int outcome)
    {
        await using var world = await OpenAsync();
        var arrival = Arrival(Order("A-1"), "key-1", Death("delivery_limit"));
        await world.DecideAsync(arrival, outcome);

        Assert.Equal([ParkOutcome.Superseded], await world.TakeInAsync(arrival));

        Assert.Equal(LetterStatus.Superseded, (await world.OnlyLetterAsync()).Status);
        Assert.Equal(0, await world.Store.ScalarAsync<long>("SELECT count(*) FROM alerts"));
        world.Clock.Advance(TimeSpan.FromHours(1));
        Assert.Null(await world.Notifier.DigestAsync(Stopping));
    }

    [Fact]
    public async Task Other_bytes_under_a_decided_key_are_not_superseded()
    {
        await using var world = await OpenAsync();
        await world.DecideAsync(Arrival(Order("A-1"), "key-1"), 1);

        var outcome = await world.DieAsync(Arrival(Order("A-2"), "key-1"), RejectionReason.KeyConflict);

        Assert.Equal(ParkOutcome.Parked, outcome);
    }

    [Fact]
    public async Task Copies_are_counted_on_one_letter_and_redeliveries_are_not()
    {
        await using var world = await OpenAsync();
        var arrival = Arrival(Order("A-1"), "key-1");
        await world.RejectAsync(arrival, RejectionReason.UnknownField);

        var outcomes = await world.TakeInAsync(arrival, arrival, arrival, Again(arrival));

        Assert.Equal([ParkOutcome.Parked, ParkOutcome.Copy, ParkOutcome.Copy, ParkOutcome.Copy], outcomes);
        Assert.Equal(3, (await world.OnlyLetterAsync()).Copies);
        Assert.Equal(1, await world.Store.ScalarAsync<long>("SELECT letters FROM incidents"));
    }

    [Fact]
    public async Task A_discarded_letter_that_somebody_sends_again_waits_for_an_operator_again()
    {
        await using var world = await OpenAsync();
        var arrival = Arrival(Order("A-1"), "key-1");
        await world.DieAsync(arrival, RejectionReason.UnknownField);
        await world.Replay.DiscardAsync(1, "ann", "a test order", Stopping);

        Assert.Equal([ParkOutcome.Copy], await world.TakeInAsync(Again(arrival)));
        Assert.Equal(LetterStatus.Discarded, (await world.OnlyLetterAsync()).Status);
        Assert.Equal([ParkOutcome.Parked], await world.TakeInAsync(arrival));

        var letter = await world.OnlyLetterAsync();
        Assert.Equal((LetterStatus.Parked, null, null), (letter.Status, letter.SettledBy, letter.AlertId));
    }

    [Fact]
    public async Task A_command_whose_order_never_came_is_parked_in_the_flows_own_transaction()
    {
        await using var world = await OpenAsync();
        var properties = new MessageProperties { MessageId = "key-1", Type = "order.ship" };
        var body = """{"orderId":"A-9"}"""u8.ToArray();
        var (key, fingerprint) = EnvelopeDecoder.Identify(properties, body);
        await world.Store.ExecuteAsync("INSERT INTO inbox (key, fingerprint, outcome, order_id, decided_at) VALUES (@key, @fingerprint, 3, 'A-9', 0)", new { key, fingerprint });

        var outcome = await world.Store.Database.WriteAsync(transaction => world.Parking.ParkAsync(transaction, DeadLetter.Of(
            key, fingerprint, new Rejection(RejectionReason.OrderUnknown, "Its order did not come in time.", null), null, body, properties) with { Claims = true }), Stopping);

        Assert.Equal(ParkOutcome.Parked, outcome);
        Assert.Equal("A-9", (await world.OnlyLetterAsync()).OrderId);
        Assert.Equal((4L, "order_unknown"), Assert.Single(await world.Store.QueryAsync<(long, string)>("SELECT outcome, reason FROM inbox")));
    }

    [Fact]
    public async Task A_command_that_waited_too_long_for_its_order_becomes_a_letter_once()
    {
        await using var world = await OpenAsync();
        var properties = new MessageProperties { MessageId = "key-1", Type = "order.ship" };
        var body = """{"orderId":"A-9"}"""u8.ToArray();
        var (key, fingerprint) = EnvelopeDecoder.Identify(properties, body);
        await world.Store.ExecuteAsync(
            """
            INSERT INTO deferred (key, order_id, type, body, properties, fingerprint, correlation_id, received_at, expires_at)
            VALUES (@key, 'A-9', 'order.ship', @body, @properties, @fingerprint, 'c', 0, @expires)
            """,
            new { key, body, fingerprint, properties = MessagePropertiesJson.Write(properties), expires = world.Clock.GetUtcNow().AddMinutes(15).ToUnixTimeMilliseconds() });
        await world.Store.ExecuteAsync("INSERT INTO inbox (key, fingerprint, outcome, order_id, decided_at) VALUES (@key, @fingerprint, 3, 'A-9', 0)", new { key, fingerprint });
        Assert.Equal(0, await world.Overdue.ParkOverdueAsync(Stopping));
        world.Clock.Advance(TimeSpan.FromMinutes(15));

        await Task.WhenAll(world.Overdue.ParkOverdueAsync(Stopping), world.Overdue.ParkOverdueAsync(Stopping));

        var letter = await world.OnlyLetterAsync();
        Assert.Equal((RejectionReason.OrderUnknown, "A-9", 1L), (letter.Reason, letter.OrderId, letter.Copies));
        Assert.Equal(body, (await world.Queries.BodyAsync(letter.Id, Stopping))?.Bytes);
        Assert.Equal((0L, 4L), (await world.Store.ScalarAsync<long>("SELECT count(*) FROM deferred"), await world.Store.ScalarAsync<long>("SELECT outcome FROM inbox")));
    }

    [Fact]
    public async Task An_overdue_command_that_fails_by_itself_does_not_hold_up_the_others()
    {
        const int Commands = 150;
        await using var world = await OpenAsync();
        for (var number = 0; number < Commands; number++)
        {
            var body = System.Text.Encoding.UTF8.GetBytes($$"""{"orderId":"A-{{number}}"}""");
            await world.Store.ExecuteAsync(
                """
                INSERT INTO deferred (key, order_id, type, body, properties, fingerprint, correlation_id, received_at, expires_at)
                VALUES (@key, @orderId, 'order.ship', @body, @properties, @fingerprint, 'c', 0, @number)
                """,
                new
                {
                    key = $"key-{number}", orderId = $"A-{number}", body, number, fingerprint = EnvelopeDecoder.Fingerprint("order.ship", body),
                    properties = number == 7 ? "not what was written" : MessagePropertiesJson.Write(new MessageProperties { MessageId = $"key-{number}", Type = "order.ship" }),
                });
        }

        Assert.Equal(Commands, await world.Overdue.ParkOverdueAsync(Stopping));

        Assert.Equal(0, await world.Store.ScalarAsync<long>("SELECT count(*) FROM deferred"));
        Assert.Equal(Commands, await world.Store.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE status = 'parked' AND reason = 'order_unknown'"));
        Assert.Equal(Commands, await world.Store.ScalarAsync<long>("SELECT count(*) FROM inbox WHERE outcome = 4"));
        Assert.Equal(("A-7", "order.ship"), Assert.Single(await world.Store.QueryAsync<(string, string)>("SELECT order_id, type FROM dead_letters WHERE key = 'key-7'")));
    }

    [Fact]
    public async Task A_rejected_message_whose_letter_never_came_is_parked_from_the_kept_bytes()
    {
        await using var world = await OpenAsync();
        var arrival = Arrival(Order("A-1"), "key-1");
        await world.RejectAsync(arrival, RejectionReason.UnknownField);
        world.Clock.Advance(TimeSpan.FromMinutes(9));
        Assert.Equal(0, await world.Missing.ParkMissingAsync(Stopping));
        world.Clock.Advance(TimeSpan.FromMinutes(1));

        Assert.Equal(1, await world.Missing.ParkMissingAsync(Stopping));

        Assert.Equal(arrival.Body.ToArray(), (await world.Queries.BodyAsync(1, Stopping))?.Bytes);
        Assert.Equal(0, await world.Missing.ParkMissingAsync(Stopping));
        Assert.Equal([ParkOutcome.Copy], await world.TakeInAsync(arrival));
    }

    [Fact]
    public async Task No_header_and_no_body_can_stop_the_parking()
    {
        await using var world = await OpenAsync();
        var headers = Death();
        headers["zero\0name"] = "zero\0value";
        headers["bytes"] = new byte[] { 0xff, 0xfe };
        headers["nested"] = new Dictionary<string, object?> { ["list"] = new List<object?> { null, 1.5, true, new byte[] { 0 } } };
        headers["x-death-like"] = 12L;
        headers["x-orderservice-replay"] = "99999999999999999999/1";
        var odd = new LetterArrival("\0\0{]"u8.ToArray(), new MessageProperties { MessageId = "a\0b", CorrelationId = "\ud800", Type = "a\nb", Headers = headers, ContentType = new string('x', 255) });

        await world.TakeInAsync(odd, Arrival([], headers: new() { ["x-death"] = "not a table" }), Arrival(new byte[2_000_000]));

        var letters = await world.Queries.ListAsync(new LetterFilter(), null, 10, Stopping);
        Assert.Equal(3, letters.Count);
        foreach (var letter in letters)
        {
            Assert.NotNull(await world.Queries.GetAsync(letter.Id, Stopping));
        }
    }

    [Fact]
    public async Task Amounts_that_a_sender_makes_up_never_break_the_sums()
    {
        await using var world = await OpenAsync();
        var arrivals = Enumerable.Range(1, 40).Select(number => Arrival(Order($"A-{number}", price: "999999999999.99"), $"key-{number}")).ToArray();
        foreach (var arrival in arrivals)
        {
            await world.RejectAsync(arrival, RejectionReason.AmountOutOfRange);
        }
        var huge = Arrival(Order("B-1", price: "1e400"), "key-b");

        await world.TakeInAsync([.. arrivals, huge]);

        var incident = (await world.Queries.IncidentsAsync(Stopping)).Single(incident => incident.Reason == RejectionReason.AmountOutOfRange && incident.Letters >= 40);
        Assert.Equal(40, incident.Orders);
        Assert.Equal("EUR", Assert.Single(incident.Value).Currency);
    }

    [Fact]
    public void Letters_that_fail_in_the_same_way_share_an_incident_whatever_they_hold()
    {
        const string Stack = "System.InvalidOperationException\n   at System.Linq.First()\n   at OrderService.Inbox.BatchDecider.Run.Decide(Incoming incoming) in /src/BatchDecider.cs:line {0}\n   at X";
        Incident At(string reason, string? field, string? exception = null) => Incident.Of(new Rejection(reason, Guid.NewGuid().ToString(), field), exception);

        Assert.Equal(At("wrong_type", "/lines/0/quantity"), At("wrong_type", "/lines/499/quantity"));
        Assert.NotEqual(At("wrong_type", "/lines/0/quantity"), At("wrong_type", "/lines/0/unitPrice"));
        Assert.Equal(At("internal_error", null, Stack.Replace("{0}", "10", StringComparison.Ordinal)), At("internal_error", null, Stack.Replace("{0}", "99", StringComparison.Ordinal)));
        Assert.NotEqual(At("internal_error", null, Stack), At("internal_error", null, Stack.Replace("Decide", "Fail", StringComparison.Ordinal)));
        Assert.Equal("Processing failed with System.InvalidOperationException in Inbox.BatchDecider.Run.Decide", At("internal_error", null, Stack).Title);
        var others = new[] { Stack, Stack.Replace("Decide", "Fail", StringComparison.Ordinal), Stack.Replace("System.Inv", "Another.Inv", StringComparison.Ordinal), "System.InvalidOperationException", null };
        Assert.Equal(others.Length, others.Select(exception => At("internal_error", null, exception).Title).Distinct().Count());
        Assert.Matches("^[0-9a-f]{16}$", At("wrong_type", null).Fingerprint);
    }
}

public sealed class DeadLetterParkingOnSqliteTests : DeadLetterParkingTests
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync();
}

public sealed class DeadLetterParkingOnPostgresTests(PostgresContainerFixture postgres) : DeadLetterParkingTests
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync(postgres);
}

using System.Text;
using OrderService.DeadLetters;
using OrderService.Inbox;
using OrderService.Outbox;
using OrderService.RabbitMq;
using OrderService.Store;
using OrderService.Tests.Infrastructure;
using static OrderService.Tests.DeadLetters.LetterWorld;
using OutboxRow = OrderService.Tests.DeadLetters.LetterWorld.OutboxRow;

namespace OrderService.Tests.DeadLetters;

public abstract class DeadLetterReplayTests : LetterContract
{
    [Fact]
    public async Task A_replay_goes_out_with_the_original_key_and_bytes_and_without_the_brokers_marks()
    {
        await using var world = await OpenAsync();
        var headers = Death();
        headers["traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        headers["shop"] = "north"u8.ToArray();
        headers["x-delivery-count"] = 3L;
        headers["x-last-death-queue"] = "orders";
        headers["CC"] = new List<object?> { "elsewhere" };
        var body = Order("A-1");
        await world.DieAsync(Arrival(body, "key-1", headers, type: "order.place"), RejectionReason.InternalError);

        var answer = await world.Replay.ReplayAsync(new ReplayRequest(1, "ann", "mended"), Stopping);

        Assert.Equal(new LetterAnswer.Done(1, 1), answer);
        var row = Assert.Single(await world.Store.QueryAsync<OutboxRow>("SELECT message, body FROM outbox WHERE kind = 3 AND order_id = 'A-1'")).Opened(world.Store);
        var message = Announcement.Parse(row.Message);
        Assert.Equal(("orders.in", "orders", "key-1", "order.place", "application/json"), (message.Exchange, message.RoutingKey, message.MessageId, message.Type, message.ContentType));
        Assert.Equal(["shop", "traceparent", ReplayMark.Header], message.Headers!.Keys.Order(StringComparer.Ordinal));
        Assert.Equal(("north", "1/1"), (message.Headers["shop"], message.Headers[ReplayMark.Header]));
        Assert.Equal(body, row.Body);
        Assert.Equal(LetterStatus.Replayed, (await world.OnlyLetterAsync()).Status);
        Assert.Equal(("ann", "dead-letter.replay", "dead letter 1", "mended"), Assert.Single(await world.Store.QueryAsync<(string, string, string, string)>("SELECT who, action, subject, detail FROM audit")));
    }

    [Fact]
    public async Task Headers_go_along_as_far_as_the_publisher_sends_them_counted_in_bytes()
    {
        await using var world = await OpenAsync();
        var headers = Death();
        for (var number = 1; number <= 7; number++)
        {
            headers[$"h{number}"] = new string('\u6F22', 1000);
        }
        headers["small"] = "kept";
        headers[new string('n', 300)] = "from Kafka";
        await world.DieAsync(Arrival(Order("A-1"), "key-1", headers), RejectionReason.InternalError);

        Assert.IsType<LetterAnswer.Done>(await world.Replay.ReplayAsync(new ReplayRequest(1, "ann"), Stopping));

        var message = Announcement.Parse(Assert.Single(await world.Store.QueryAsync<OutboxRow>("SELECT message, body FROM outbox")).Message);
        Assert.Equal(["h1", "h2", "h3", "h4", "small", ReplayMark.Header], message.Headers!.Keys.Order(StringComparer.Ordinal));
        Assert.Null(ConfirmedPublisher.WhyNotSendable(message.ToMessage(Order("A-1"), "A-1")));
        Assert.Contains("4 of its headers are too large", string.Join(' ', (await world.Queries.GetAsync(1, Stopping))!.History.Select(line => line.Detail)), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_letter_whose_bytes_did_not_come_is_not_sent_empty_and_has_them_when_they_come()
    {
        await using var world = await OpenAsync();
        var large = Arrival(new byte[EnvelopeDecoder.MaxBodyBytes + 1], "key-1");
        await world.RejectAsync(large, RejectionReason.BodyTooLarge);
        await world.Store.ExecuteAsync("UPDATE rejections SET body = NULL");
        world.Clock.Advance(new DeadLettersOptions().MissingAfter + TimeSpan.FromSeconds(1));
        Assert.Equal(1, await world.Missing.ParkMissingAsync(Stopping));
        Assert.Contains("has not brought its bytes", await world.Store.ScalarAsync<string>("SELECT detail FROM dead_letters"), StringComparison.Ordinal);

        var refused = await world.Replay.ReplayAsync(new ReplayRequest(1, "ann"), Stopping);

        Assert.Contains("nothing to send", Assert.IsType<LetterAnswer.Invalid>(refused).Rejection.Detail, StringComparison.Ordinal);
        Assert.Equal(LetterStatus.Parked, (await world.OnlyLetterAsync()).Status);
        await world.TakeInAsync(large);
        Assert.Equal("Why.", await world.Store.ScalarAsync<string>("SELECT detail FROM dead_letters"));
        Assert.Equal(EnvelopeDecoder.MaxBodyBytes + 1, Assert.Single(await world.Store.BodiesAsync("SELECT body FROM dead_letters")).Length);
    }

    [Fact]
    public async Task What_cant_be_sent_as_it_is_is_said_at_once_and_goes_out_edited()
    {
        await using var world = await OpenAsync();
        var arrival = Arrival(Order("A-1"), "key-1");
        var properties = new MessageProperties { MessageId = "key-1", CorrelationId = new string('c', 300), ContentType = new string('t', 300), Headers = arrival.Properties.Headers };
        await world.DieAsync(arrival with { Properties = properties }, RejectionReason.UnsupportedContentType);

        var refused = await world.Replay.ReplayAsync(new ReplayRequest(1, "ann"), Stopping);

        Assert.Contains("the content type is longer than 255 bytes", Assert.IsType<LetterAnswer.Invalid>(refused).Rejection.Detail, StringComparison.Ordinal);
        Assert.Equal((LetterStatus.Parked, 0L), ((await world.OnlyLetterAsync()).Status, (await world.OnlyLetterAsync()).Replays));
        Assert.Equal(0, await world.Store.ScalarAsync<long>("SELECT count(*) FROM outbox"));
        Assert.IsType<LetterAnswer.Done>(await world.Replay.ReplayAsync(new ReplayRequest(1, "ann", Patch: LetterPatch.Edit(Order("A-2"), null, null, null)), Stopping));
    }

    [Fact]
    public async Task A_replay_that_the_broker_cant_be_sent_ends_and_its_letter_waits_again()
    {
        await using var world = await OpenAsync();
        await world.DieAsync(Arrival(Order("A-1"), "key-1"), RejectionReason.InternalError);
        await world.Replay.ReplayAsync(new ReplayRequest(1, "ann"), Stopping);
        var message = Announcement.Parse(Assert.Single(await world.Store.QueryAsync<OutboxRow>("SELECT message, body FROM outbox")).Message);

        for (var twice = 0; twice < 2; twice++)
        {
            await world.Store.Database.WriteAsync(async transaction => await world.Replay.RefusedAsync(transaction, message, "the body has 9 bytes"), Stopping);
        }

        Assert.Equal(LetterStatus.Parked, (await world.OnlyLetterAsync()).Status);
        var letter = (await world.Queries.GetAsync(1, Stopping))!;
        Assert.Equal(("failed", "not_sendable: the body has 9 bytes"), (Assert.Single(letter.Replays).Outcome, letter.Replays[0].Detail));
        Assert.Single(letter.History, line => line.Kind == "replay_failed");
        Assert.Equal(1, await world.UncoveredAsync());
        Assert.IsType<LetterAnswer.Done>(await world.Replay.DiscardAsync(1, "ann", "too large", Stopping));
    }

    [Fact]
    public async Task Of_two_who_replay_the_same_letter_one_does_and_the_other_is_told_who_was_first()
    {
        await using var world = await OpenAsync();
        await world.DieAsync(Arrival(Order("A-1"), "key-1"), RejectionReason.InternalError);

        var answers = await Task.WhenAll(
            world.Replay.ReplayAsync(new ReplayRequest(1, "ann"), Stopping), world.Replay.ReplayAsync(new ReplayRequest(1, "ben"), Stopping));

        Assert.Single(answers.OfType<LetterAnswer.Done>());
        var conflict = Assert.Single(answers.OfType<LetterAnswer.Conflict>());
        Assert.Equal("replayed", conflict.Code);
        Assert.Matches("by (ann|ben) since 2026-03-01 03:00:00Z", conflict.Detail);
        Assert.Equal(1, await world.Store.ScalarAsync<long>("SELECT count(*) FROM outbox"));
    }

    [Fact]
    public async Task A_replay_that_fails_parks_the_letter_again_with_the_new_reason_and_alerts_again()
    {
        await using var world = await OpenAsync();
        await world.DieAsync(Arrival(Order("A-1"), "key-1"), RejectionReason.InternalError);
        await world.Replay.ReplayAsync(new ReplayRequest(1, "ann"), Stopping);

        var outcome = await world.DieAsync(await world.ReplayedArrivalAsync(), RejectionReason.CrashSuspect);

        Assert.Equal(ParkOutcome.ReplayFailed, outcome);
        var letter = await world.OnlyLetterAsync();
        Assert.Equal((LetterStatus.Parked, RejectionReason.CrashSuspect, 1L, 1L), (letter.Status, letter.Reason, letter.Replays, letter.Copies));
        Assert.Equal("failed", Assert.Single((await world.Queries.GetAsync(1, Stopping))!.Replays).Outcome);
        Assert.Equal(2, await world.AlertsAsync("first"));
    }

    [Fact]
    public async Task An_old_copy_that_comes_while_a_replay_is_under_way_does_not_end_it()
    {
        await using var world = await OpenAsync();
        var arrival = Arrival(Order("A-1"), "key-1");
        await world.DieAsync(arrival, RejectionReason.InternalError);
        await world.Replay.ReplayAsync(new ReplayRequest(1, "ann"), Stopping);

        Assert.Equal([ParkOutcome.Copy], await world.TakeInAsync(arrival));

        Assert.Equal(LetterStatus.Replayed, (await world.OnlyLetterAsync()).Status);
    }

    [Fact]
    public async Task A_forged_replay_mark_opens_no_letter()
    {
        await using var world = await OpenAsync();
        await world.DieAsync(Arrival(Order("A-1"), "key-1"), RejectionReason.InternalError);
        await world.Replay.ReplayAsync(new ReplayRequest(1, "ann"), Stopping);
        var headers = Death();
        headers[ReplayMark.Header] = "1/1";

        Assert.Equal(ParkOutcome.Parked, await world.DieAsync(Arrival(Order("A-2"), "key-2", headers), RejectionReason.UnknownField));

        Assert.Equal(LetterStatus.Replayed, (await world.Queries.GetAsync(1, Stopping))!.Letter.Status);
    }

    [Fact]
    public async Task What_is_still_broken_can_be_replayed_a_bounded_number_of_times()
    {
        await using var world = await OpenAsync(letters: new DeadLettersOptions { MaxReplays = 3 });
        await world.DieAsync(Arrival(Order("A-1"), "key-1"), RejectionReason.InternalError);
        for (var round = 1; round <= 3; round++)
        {
            Assert.IsType<LetterAnswer.Done>(await world.Replay.ReplayAsync(new ReplayRequest(1, "ann"), Stopping));
            await world.DieAsync(await world.ReplayedArrivalAsync(), RejectionReason.InternalError);
        }

        var answer = await world.Replay.ReplayAsync(new ReplayRequest(1, "ann"), Stopping);

        Assert.Equal(RejectionReason.ReplayExhausted, Assert.IsType<LetterAnswer.Conflict>(answer).Code);
        Assert.Equal(3, await world.Store.ScalarAsync<long>("SELECT count(*) FROM outbox"));
    }

    [Fact]
    public async Task An_edited_body_is_checked_sent_under_the_original_key_and_the_original_is_kept()
    {
        await using var world = await OpenAsync();
        var broken = Order("A-1", price: "10.001");
        await world.DieAsync(Arrival(broken, "key-1"), RejectionReason.AmountPrecision);

        var invalid = await world.Replay.ReplayAsync(new ReplayRequest(1, "ann", "typo", LetterPatch.Edit(Order("A-1", price: "10.002"), null, null, null)), Stopping);
        Assert.Equal(RejectionReason.AmountPrecision, Assert.IsType<LetterAnswer.Invalid>(invalid).Rejection.Reason);
        Assert.Equal(LetterStatus.Parked, (await world.OnlyLetterAsync()).Status);

        var mended = Order("A-1", price: "10.00");
        Assert.IsType<LetterAnswer.Done>(await world.Replay.ReplayAsync(new ReplayRequest(1, "ann", "typo", LetterPatch.Edit(mended, null, null, null)), Stopping));
        Assert.Equal(mended, (await world.ReplayedArrivalAsync()).Body.ToArray());
        Assert.Equal(broken, (await world.Queries.BodyAsync(1, Stopping))?.Bytes);
        Assert.Equal(mended, (await world.Queries.ReplayBodyAsync(1, 1, Stopping))?.Bytes);

        // It dies again: the letter comes back although the bytes are others.
        Assert.Equal(ParkOutcome.ReplayFailed, await world.DieAsync(await world.ReplayedArrivalAsync(), RejectionReason.InternalError));
        Assert.Equal(LetterStatus.Parked, (await world.OnlyLetterAsync()).Status);

        var longer = Encoding.UTF8.GetBytes(Encoding.UTF8.GetString(mended) + new string(' ', 70_000));
        await world.Replay.ReplayAsync(new ReplayRequest(1, "ann", "again", LetterPatch.Edit(longer, null, null, null)), Stopping);
        await world.DieAsync(await world.ReplayedArrivalAsync(), RejectionReason.InternalError);
        await world.Replay.ReplayAsync(new ReplayRequest(1, "ann"), Stopping);
        Assert.Equal(
            [(true, Encoding.UTF8.GetString(mended), mended.Length), (true, null, longer.Length), (false, null, null)],
            (await world.Queries.GetAsync(1, Stopping))!.Replays.Select(replay => (replay.Edited, replay.Body, replay.BodyBytes)));
    }

    [Fact]
    public async Task A_letter_that_is_sent_under_another_key_comes_back_to_itself()
    {
        await using var world = await OpenAsync();
        await world.DieAsync(Arrival(Order("A-1"), "key-1"), RejectionReason.KeyConflict);

        Assert.IsType<LetterAnswer.Done>(await world.Replay.ReplayAsync(new ReplayRequest(1, "ann", Patch: LetterPatch.Edit(null, null, null, "key-2")), Stopping));
        var sent = await world.ReplayedArrivalAsync();
        Assert.Equal("key-2", sent.Properties.MessageId);
        Assert.Equal(ParkOutcome.ReplayFailed, await world.DieAsync(sent, RejectionReason.InternalError));

        // A mark with the letter's number does not do: the key has to fit.
        await world.Replay.ReplayAsync(new ReplayRequest(1, "ann", Patch: LetterPatch.Edit(null, null, null, "key-3")), Stopping);
        var forged = Arrival(Order("A-1"), "key-9", Death());
        var marked = forged with { Properties = new MessageProperties { MessageId = "key-9", Headers = sent.Properties.Headers } };
        Assert.Equal(ParkOutcome.Parked, await world.DieAsync(marked, RejectionReason.InternalError));
        var replays = (await world.Queries.GetAsync(1, Stopping))!.Replays;
        Assert.Equal("""{"key":{"before":"key-1","after":"key-2"}}""", replays[0].Change!.Value.GetRawText());
        Assert.Null(replays[1].Outcome);
    }

    [Fact]
    public async Task Many_letters_are_discarded_at_once_those_that_came_later_or_were_settled_are_not()
    {
        await using var world = await OpenAsync();
        await DieAsync(world, 1, 1_203, RejectionReason.UnknownField);
        await DieAsync(world, 1_204, 1_204, RejectionReason.InternalError);
        await world.Replay.ReplayAsync(new ReplayRequest(700, "ann"), Stopping);
        var wanted = new LetterSelection(null, new LetterFilter(Reason: RejectionReason.UnknownField));
        var (count, upTo) = await world.Discards.CountAsync(wanted, Stopping);
        await DieAsync(world, 1_205, 1_206, RejectionReason.UnknownField);

        var discarded = await world.Discards.DiscardAsync(wanted with { UpTo = upTo }, "ann", "test orders", Stopping);

        Assert.Equal((1_202L, 1_203L, 1_202L), (count, upTo, discarded));
        Assert.Equal((1_202L, 3L, 1L), (await world.Queries.CountAsync(new LetterFilter(LetterStatus.Discarded), Stopping), await world.Queries.CountAsync(new LetterFilter(LetterStatus.Parked), Stopping), await world.Queries.CountAsync(new LetterFilter(LetterStatus.Replayed), Stopping)));
        var letter = (await world.Queries.GetAsync(17, Stopping))!;
        Assert.Equal(("ann", "test orders", world.Clock.GetUtcNow()), (letter.Letter.SettledBy, letter.Letter.SettleReason, letter.Letter.SettledAt));
        Assert.Equal(("discarded", "Dead letter 17 was discarded by ann: test orders"), (letter.History[^1].Kind, letter.History[^1].Detail));
        Assert.Equal(1_202, await world.Store.ScalarAsync<long>("SELECT count(*) FROM history WHERE kind = 'discarded'"));
        Assert.Equal(
            ["dead letters 1 to 500: 500 letters: test orders", "dead letters 501 to 1001: 500 letters: test orders", "dead letters 1002 to 1203: 202 letters: test orders"],
            await world.Store.QueryAsync<string>("SELECT subject || ': ' || detail FROM audit WHERE action = 'dead-letter.discard' AND who = 'ann' ORDER BY id"));
        Assert.Equal(0, await world.Discards.DiscardAsync(wanted with { UpTo = upTo }, "bob", "test orders", Stopping));
    }

    [Fact]
    public async Task Letters_named_by_number_are_discarded_as_far_as_they_are_parked_and_the_limit_goes()
    {
        await using var world = await OpenAsync();
        await DieAsync(world, 1, 6, RejectionReason.UnknownField);
        await world.Replay.DiscardAsync(2, "bob", "mine", Stopping);

        Assert.Equal(2, await world.Discards.DiscardAsync(new LetterSelection([5, 2, 1, 99, 6], new LetterFilter(), Limit: 2), "ann", "test orders", Stopping));

        Assert.Equal([6L, 4, 3], (await world.Queries.ListAsync(new LetterFilter(LetterStatus.Parked), null, 10, Stopping)).Select(letter => letter.Id));
        Assert.Equal("bob", (await world.Queries.GetAsync(2, Stopping))!.Letter.SettledBy);
    }

    [Fact]
    public async Task An_incident_says_how_many_letters_came_in_each_of_the_last_24_hours()
    {
        await using var world = await OpenAsync();
        await DieAsync(world, 1, 7, RejectionReason.UnknownField);
        world.Clock.Advance(TimeSpan.FromHours(1));
        await DieAsync(world, 8, 9, RejectionReason.UnknownField);
        await DieAsync(world, 10, 10, RejectionReason.InternalError);
        world.Clock.Advance(TimeSpan.FromHours(22.5));
        await DieAsync(world, 11, 14, RejectionReason.UnknownField);

        var incident = (await world.Queries.IncidentsAsync(Stopping)).Single(incident => incident.Reason == RejectionReason.UnknownField);
        world.Clock.Advance(TimeSpan.FromHours(1));
        var later = (await world.Queries.IncidentAsync(incident.Fingerprint, Stopping))!;

        Assert.Equal([7L, 2, .. Enumerable.Repeat(0L, 21), 4], incident.Hourly);
        Assert.Equal([2L, .. Enumerable.Repeat(0L, 21), 4, 0], later.Hourly);
    }

    [Fact]
    public async Task A_letter_names_the_parked_letters_beside_it_in_its_incident_and_the_alert_that_told_of_it()
    {
        await using var world = await OpenAsync();
        foreach (var number in Enumerable.Range(1, 7))
        {
            await DieAsync(world, number, number, number == 3 ? RejectionReason.InternalError : RejectionReason.UnknownField);
        }
        await world.Replay.DiscardAsync(5, "ann", "mine", Stopping);

        async Task<(long?, long?)> BesideAsync(long id) => ((await world.Queries.GetAsync(id, Stopping))!.PreviousId, (await world.Queries.GetAsync(id, Stopping))!.NextId);
        Assert.Equal((null, 2), await BesideAsync(1));
        Assert.Equal((2L, 6), await BesideAsync(4));
        Assert.Equal((4L, 6), await BesideAsync(5));
        Assert.Equal((6L, null), await BesideAsync(7));
        var alert = Assert.Single((await world.Queries.GetAsync(1, Stopping))!.Alerts);
        Assert.Equal(("first", "A message has a field that is not known - 1 order is stuck"), (alert.Kind, alert.Subject));
        Assert.Empty((await world.Queries.GetAsync(2, Stopping))!.Alerts);
    }

    private static Task DieAsync(LetterWorld world, int first, int last, string reason) => world.Store.Database.WriteAsync(transaction => world.Parking.ParkAsync(
        transaction,
        [.. Enumerable.Range(first, last - first + 1).Select(number => Letter(Arrival(Order($"A-{number}"), $"key-{number}"), reason))]), Stopping);

    [Fact]
    public async Task A_letter_whose_key_was_not_valid_goes_out_under_the_key_it_was_parked_with()
    {
        await using var world = await OpenAsync();
        var headers = Death();
        headers["idempotency-key"] = "not valid";
        await world.DieAsync(Arrival(Order("A-1"), "also not valid", headers), RejectionReason.KeyInvalid);

        await world.Replay.ReplayAsync(new ReplayRequest(1, "ann"), Stopping);

        var replayed = await world.ReplayedArrivalAsync();
        var decoded = Assert.IsType<Decoded.Valid>(EnvelopeDecoder.Decode(replayed.Properties, replayed.Body));
        Assert.Equal((await world.OnlyLetterAsync()).Key, decoded.Envelope.Key);
    }

    [Fact]
    public async Task A_strangers_letter_is_replayed_only_after_a_confirmation()
    {
        await using var world = await OpenAsync();
        await world.TakeInAsync(Arrival(Order("A-1"), "key-1", []));

        Assert.Equal("confirmation_needed", Assert.IsType<LetterAnswer.Conflict>(await world.Replay.ReplayAsync(new ReplayRequest(1, "ann"), Stopping)).Code);
        Assert.IsType<LetterAnswer.Done>(await world.Replay.ReplayAsync(new ReplayRequest(1, "ann", Confirmed: true), Stopping));
    }

    [Fact]
    public async Task A_letter_is_discarded_with_a_reason_and_can_be_restored()
    {
        await using var world = await OpenAsync();
        await world.DieAsync(Arrival(Order("A-1"), "key-1"), RejectionReason.InternalError);

        Assert.IsType<LetterAnswer.Done>(await world.Replay.DiscardAsync(1, "ann", "a test order", Stopping));
        Assert.Equal("discarded", Assert.IsType<LetterAnswer.Conflict>(await world.Replay.DiscardAsync(1, "ben", "again", Stopping)).Code);
        Assert.Equal("discarded", Assert.IsType<LetterAnswer.Conflict>(await world.Replay.ReplayAsync(new ReplayRequest(1, "ben"), Stopping)).Code);
        Assert.Equal("a test order", (await world.OnlyLetterAsync()).SettleReason);
        Assert.IsType<LetterAnswer.Done>(await world.Replay.RestoreAsync(1, "ben", "it was real", Stopping));

        Assert.Equal(LetterStatus.Parked, (await world.OnlyLetterAsync()).Status);
        Assert.Equal(["dead-letter.discard", "dead-letter.restore"], await world.Store.QueryAsync<string>("SELECT action FROM audit ORDER BY id"));
        Assert.IsType<LetterAnswer.NotFound>(await world.Replay.ReplayAsync(new ReplayRequest(99, "ann"), Stopping));
        Assert.IsType<LetterAnswer.NotFound>(await world.Replay.DiscardAsync(99, "ann", "x", Stopping));
    }

    [Fact]
    public async Task Letters_are_listed_page_by_page_and_by_filter()
    {
        await using var world = await OpenAsync();
        for (var number = 1; number <= 7; number++)
        {
            await world.DieAsync(Arrival(Order($"A-{number}"), $"key-{number}"), number % 2 == 0 ? RejectionReason.UnknownField : RejectionReason.InternalError);
        }

        var first = await world.Queries.ListAsync(new LetterFilter(), null, 4, Stopping);
        var second = await world.Queries.ListAsync(new LetterFilter(), first[^1].Id, 4, Stopping);
        var odd = await world.Queries.ListAsync(new LetterFilter(Status: "parked", Reason: RejectionReason.InternalError), null, 10, Stopping);

        Assert.Equal([7L, 6, 5, 4, 3, 2, 1], [.. first.Select(letter => letter.Id), .. second.Select(letter => letter.Id)]);
        Assert.Equal([7L, 5, 3, 1], odd.Select(letter => letter.Id));
        Assert.Equal(3, await world.Queries.CountAsync(new LetterFilter(Reason: RejectionReason.UnknownField), Stopping));
        Assert.Equal("A-3", Assert.Single(await world.Queries.ListAsync(new LetterFilter(OrderId: "A-3"), null, 10, Stopping)).OrderId);
        Assert.Equal(4, Assert.Single(await world.Queries.ListAsync(new LetterFilter(Incident: odd[0].Incident), 5, 1, Stopping)).Id + 1);
        Assert.Empty(await world.Queries.ListAsync(new LetterFilter(Status: "' OR 1=1 --"), null, 10, Stopping));
        Assert.Null(await world.Queries.GetAsync(99, Stopping));
        Assert.Null(await world.Queries.BodyAsync(99, Stopping));
        Assert.Equal("A-7", LetterFacts.Read(null, Encoding.UTF8.GetBytes("{\"orderId\":\"A-7\",")).OrderId);
    }
}

public sealed class DeadLetterReplayOnSqliteTests : DeadLetterReplayTests
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync();
}

public sealed class DeadLetterReplayOnPostgresTests(PostgresContainerFixture postgres) : DeadLetterReplayTests
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync(postgres);
}

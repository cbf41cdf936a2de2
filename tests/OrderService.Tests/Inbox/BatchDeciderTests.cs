using System.Text;
using OrderService.Domain;
using OrderService.Inbox;
using OrderService.Store;

namespace OrderService.Tests.Inbox;

public sealed class BatchDeciderTests
{
    private const long Now = 1_800_000_000_000;
    private readonly BatchDecider decider = new(OrderRules.Default, TimeSpan.FromMinutes(15));
    private readonly BatchState state = new();

    [Fact]
    public void A_thousand_copies_in_one_batch_have_one_effect()
    {
        var batch = Enumerable.Range(0, 1000).Select(_ => Place("k-1", "A-1")).ToList();

        var append = decider.Decide(batch, state, Now);

        Assert.Single(append.Events);
        Assert.Single(append.Inbox);
        Assert.Single(append.Outbox);
        Assert.Equal(Fate.Accepted, batch[0].Fate);
        Assert.All(batch.Skip(1), copy => Assert.Equal(Fate.Duplicate, copy.Fate));
        // Counted in one place, however many they are.
        Assert.Empty(append.History);
        Assert.Equal(("k-1", 999), (Assert.Single(append.Copies).Key, append.Copies["k-1"]));
    }

    [Fact]
    public void A_waiting_command_that_can_not_be_read_any_more_becomes_a_letter_and_its_order_is_placed()
    {
        var early = decider.Decide([Message("k-2", CommandType.Ship, """{"orderId":"A-1"}""")], state, Now).Deferred[0];
        var later = new BatchState();
        later.Deferred["A-1"] = [early with { Key = "k-3", Body = "{"u8.ToArray() }, early with { Key = "k-4", Properties = "[" }, early];
        var place = Place("k-1", "A-1");

        var append = decider.Decide([place], later, Now);

        Assert.Equal(Fate.Accepted, place.Fate);
        Assert.Equal(["ORDER_PLACED", "ORDER_SHIPPED"], append.Events.Select(recorded => recorded.Type));
        Assert.Equal(["k-3 internal_error", "k-4 internal_error"], append.Rejections.Select(row => $"{row.Key} {row.Reason}"));
        Assert.Equal(["k-2", "k-3", "k-4"], append.DeferredDecided.Order());
        Assert.All(append.Inbox.Where(row => row.Key is "k-3" or "k-4"), row => Assert.Equal((InboxOutcome.Rejected, true), (row.Outcome, row.Replaces)));
    }

    [Fact]
    public void While_commands_that_came_before_their_order_are_being_decided_later_ones_stand_behind_them()
    {
        var early = decider.Decide([Message("k-2", CommandType.Ship, """{"orderId":"A-1"}""")], state, Now).Deferred[0];
        var later = new BatchState();
        later.Deferred["A-1"] = [early];
        later.Backlog.Add("A-1");
        var cancel = Message("k-9", CommandType.Cancel, """{"orderId":"A-1","reason":"changed mind"}""");

        var append = decider.Decide([Place("k-1", "A-1"), cancel], later, Now);

        Assert.Equal(Fate.Deferred, cancel.Fate);
        Assert.Equal(["A-1"], append.Backlog);
        Assert.Equal(("k-9", DeferredCommand.Never), (Assert.Single(append.Deferred).Key, append.Deferred[0].ExpiresAt));
        Assert.Equal(["ORDER_PLACED", "ORDER_SHIPPED"], append.Events.Select(recorded => recorded.Type));
    }

    [Fact]
    public void The_same_key_with_another_body_is_a_conflict_and_leaves_the_first_alone()
    {
        var batch = new[] { Place("k-1", "A-1"), Place("k-1", "A-2") };

        var append = decider.Decide(batch, state, Now);

        Assert.Equal(Fate.Rejected, batch[1].Fate);
        Assert.Equal(RejectionReason.KeyConflict, Assert.Single(append.Rejections).Reason);
        Assert.Equal("A-1", Assert.Single(append.Events).OrderId);
    }

    [Fact]
    public void Commands_before_their_order_wait_and_are_decided_with_it_in_the_order_of_an_orders_life()
    {
        var batch = new[]
        {
            Message("k-4", CommandType.Deliver, """{"orderId":"A-1"}"""),
            Message("k-3", CommandType.Ship, """{"orderId":"A-1"}"""),
            Message("k-2", CommandType.Pay, """{"orderId":"A-1","paymentReference":"P-1"}"""),
            Place("k-1", "A-1"),
        };

        var append = decider.Decide(batch, state, Now);

        Assert.Equal(["ORDER_PLACED", "ORDER_PAYMENT_RECEIVED", "ORDER_PAID", "ORDER_SHIPPED", "ORDER_DELIVERED"], append.Events.Select(recorded => recorded.Type));
        Assert.Equal([1L, 2, 3, 4, 5], append.Events.Select(recorded => recorded.Version));
        Assert.Empty(append.Deferred);
        Assert.All(append.Inbox, row => Assert.Equal(InboxOutcome.Accepted, row.Outcome));
        Assert.Equal(4, append.Inbox.Count);
        var head = Assert.Single(append.Heads);
        Assert.Equal((0L, 5L, OrderStatus.Delivered), (head.ExpectedVersion, head.Version, head.Status));
    }

    [Fact]
    public void A_command_that_waited_in_the_store_is_decided_when_its_order_appears()
    {
        var early = Message("k-2", CommandType.Ship, """{"orderId":"A-1","carrier":"DHL"}""");
        var waiting = Assert.Single(decider.Decide([early], state, Now).Deferred);
        var later = new BatchState();
        later.Deferred["A-1"] = [waiting];

        var append = decider.Decide([Place("k-1", "A-1")], later, Now);

        Assert.Equal(Fate.Deferred, early.Fate);
        Assert.Equal(["ORDER_PLACED", "ORDER_SHIPPED"], append.Events.Select(recorded => recorded.Type));
        Assert.Equal("k-2", append.Events[1].CausationId);
        Assert.Equal(["k-2"], append.DeferredDecided);
        Assert.Contains(append.Inbox, row => row is { Key: "k-2", Outcome: InboxOutcome.Accepted, Replaces: true });
    }

    [Fact]
    public void A_refused_command_is_recorded_and_announced_and_is_no_dead_letter()
    {
        var ship = Message("k-3", CommandType.Ship, """{"orderId":"A-1"}""");

        var append = decider.Decide([Place("k-1", "A-1"), Message("k-2", CommandType.Cancel, """{"orderId":"A-1","reason":"changed mind"}"""), ship], state, Now);

        Assert.Equal(Fate.Refused, ship.Fate);
        Assert.Empty(append.Rejections);
        var announcement = append.Outbox[^1];
        Assert.Equal(OutboxKind.Announcement, announcement.Kind);
        Assert.Contains("ORDER_COMMAND_REFUSED", announcement.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Each_event_is_chained_to_the_one_before_it()
    {
        var append = decider.Decide([Place("k-1", "A-1"), Message("k-2", CommandType.Ship, """{"orderId":"A-1"}""")], state, Now);

        var (first, second) = (append.Events[0], append.Events[1]);
        Assert.Equal(HashOf(EventHash.Genesis, first), first.Hash);
        Assert.Equal(HashOf(first.Hash, second), second.Hash);
        Assert.NotEqual(HashOf(EventHash.Genesis, second), second.Hash);
    }

    [Fact]
    public void A_copy_of_a_message_that_is_a_dead_letter_is_rejected_too()
    {
        var copy = Place("k-1", "A-1");
        state.Inbox["k-1"] = new InboxEntry(FingerprintOf(copy), InboxOutcome.Rejected, RejectionReason.DeliveryLimit);

        var append = decider.Decide([copy], state, Now);

        Assert.Equal((Fate.Rejected, RejectionReason.DeliveryLimit), (copy.Fate, copy.Reason));
        Assert.Empty(append.Events);
    }

    [Fact]
    public void A_replay_of_a_dead_letter_is_decided_anew_and_resolves_it()
    {
        var replay = Place("k-1", "A-1", replayOf: 7);
        state.Inbox["k-1"] = new InboxEntry(FingerprintOf(replay), InboxOutcome.Rejected, RejectionReason.InternalError);
        state.Letters["k-1"] = [new OpenLetter(7, FingerprintOf(replay), Replayed: true)];

        var append = decider.Decide([replay], state, Now);

        Assert.Equal(Fate.Accepted, replay.Fate);
        Assert.True(Assert.Single(append.Inbox).Replaces);
        Assert.Equal((7L, true), (append.Letters[0].LetterId, append.Letters[0].Resolved));
    }

    [Fact]
    public void A_forged_replay_mark_opens_nothing()
    {
        var forged = Place("k-1", "A-1", replayOf: 7);
        state.Inbox["k-1"] = new InboxEntry(FingerprintOf(forged), InboxOutcome.Rejected, RejectionReason.InternalError);
        state.Letters["k-1"] = [new OpenLetter(7, FingerprintOf(forged), Replayed: false)];

        var append = decider.Decide([forged], state, Now);

        Assert.Equal(Fate.Rejected, forged.Fate);
        Assert.Empty(append.Events);
    }

    [Fact]
    public void An_acceptance_supersedes_the_open_letter_of_another_copy()
    {
        var copy = Place("k-1", "A-1");
        state.Letters["k-1"] = [new OpenLetter(9, FingerprintOf(copy), Replayed: false)];

        var append = decider.Decide([copy], state, Now);

        Assert.Equal(Fate.Accepted, copy.Fate);
        Assert.Equal((9L, false), (append.Letters[0].LetterId, append.Letters[0].Resolved));
    }

    [Fact]
    public void A_message_given_up_takes_its_key_so_that_no_copy_is_accepted_beside_the_letter()
    {
        var (key, fingerprint) = EnvelopeDecoder.Identify(new MessageProperties { MessageId = "k-1" }, Body("A-1"));
        var failed = new Incoming(
            new Decoded.Invalid(key, fingerprint, new Rejection(RejectionReason.CrashSuspect, "It killed the process.", null), null, null),
            Body("A-1"), new MessageProperties { MessageId = "k-1" }) { Claims = true };
        var copy = Place("k-1", "A-1");

        var append = decider.Decide([failed, copy], state, Now);

        Assert.Equal((Fate.Rejected, Fate.Rejected), (failed.Fate, copy.Fate));
        Assert.Equal(InboxOutcome.Rejected, Assert.Single(append.Inbox).Outcome);
        Assert.Empty(append.Events);
    }

    private static byte[] HashOf(byte[] previous, RecordedEvent recorded) =>
        EventHash.Next(
            previous, recorded.OrderId, recorded.Version, recorded.Type, recorded.Data.Span, recorded.CorrelationId, recorded.CausationId,
            recorded.TraceContext, recorded.RecordedAt);

    private static byte[] FingerprintOf(Incoming incoming) => ((Decoded.Valid)incoming.Decoded).Envelope.Fingerprint;

    private static byte[] Body(string orderId) => Encoding.UTF8.GetBytes(
        $$"""{"orderId":"{{orderId}}","customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}]}""");

    private static Incoming Place(string key, string orderId, long? replayOf = null) =>
        Incoming(key, CommandType.Place, Body(orderId), replayOf);

    private static Incoming Message(string key, string type, string body) => Incoming(key, type, Encoding.UTF8.GetBytes(body), null);

    private static Incoming Incoming(string key, string type, byte[] body, long? replayOf)
    {
        var properties = new MessageProperties
        {
            MessageId = key,
            Type = type,
            Headers = replayOf is { } letter ? new Dictionary<string, object?> { [ReplayMark.Header] = Encoding.UTF8.GetBytes($"{letter}/1") } : null,
        };
        var decoded = EnvelopeDecoder.Decode(properties, body);
        Assert.IsType<Decoded.Valid>(decoded);
        return new Incoming(decoded, body, properties);
    }
}

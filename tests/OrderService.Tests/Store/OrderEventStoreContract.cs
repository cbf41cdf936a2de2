using System.Text;
using System.Security.Cryptography;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using Microsoft.Extensions.Time.Testing;
using OrderService.Database;
using OrderService.Domain;
using OrderService.Inbox;
using OrderService.Notifications;
using OrderService.Observability;
using OrderService.Outbox;
using OrderService.Projections;
using OrderService.Store;
using static OrderService.Tests.Store.Messages;

namespace OrderService.Tests.Store;

/// <summary>What every store promises. A subclass per database says how one is opened; each test has a database of its own.</summary>
public abstract class OrderEventStoreContract : IAsyncLifetime
{
    private const long Now = StoreInstance.Now;
    private readonly List<StoreInstance> instances = [];

    protected StoreInstance Store { get; private set; } = null!;

    protected static CancellationToken Token => TestContext.Current.CancellationToken;

    public virtual async ValueTask InitializeAsync()
    {
        Store = await OpenAsync();
        await Store.Database.MigrateAsync(Token);
    }

    public virtual async ValueTask DisposeAsync()
    {
        foreach (var instance in instances)
        {
            await instance.DisposeAsync();
        }
    }

    /// <summary>Opens this test's database once more, as another instance of the service would; a store for one process answers the same instance.</summary>
    protected abstract Task<StoreInstance> OpenInstanceAsync();

    protected async Task<StoreInstance> OpenAsync()
    {
        var instance = await OpenInstanceAsync();
        if (!instances.Contains(instance))
        {
            instances.Add(instance);
        }
        return instance;
    }

    [Fact]
    public async Task What_a_batch_would_be_decided_on_can_be_read_and_nothing_is_written()
    {
        await Store.AppendAsync(Place("k-1", "A-1"), Ship("k-2", "A-2"));
        await Store.AppendAsync(Place("k-3", "A-3"));

        var state = await Store.Log.ReadAsync(new BatchQuery(["k-1", "k-2", "k-9"], ["A-1", "A-2", "A-9"], ["A-1"], []), Token);

        Assert.Equal(["k-1", "k-2"], state.Inbox.Keys.Order());
        Assert.Equal((InboxOutcome.Accepted, InboxOutcome.Deferred), (state.Inbox["k-1"].Outcome, state.Inbox["k-2"].Outcome));
        Assert.Equal(("A-1", 1L), (Assert.Single(state.Heads).Key, state.Heads["A-1"].Order.Version));
        Assert.Equal("k-2", Assert.Single(Assert.Single(state.Deferred).Value).Key);
        // No number was drawn for the order that does not exist.
        await Store.AppendAsync(Place("k-4", "A-4"));
        Assert.Equal(1, await ScalarAsync("SELECT max(seq) - (SELECT seq FROM orders WHERE order_id = 'A-3') FROM orders"));
    }

    [Fact]
    public async Task An_order_is_appended_with_everything_that_belongs_to_it()
    {
        var place = Place("k-1", "A-1");

        var append = await Store.AppendAsync(place);

        var recorded = Assert.Single(await Store.Events.StreamAsync("A-1", Token));
        Assert.Equal(("ORDER_PLACED", 1L, "c-k-1", "k-1", Now), (recorded.Type, recorded.Version, recorded.CorrelationId, recorded.CausationId, recorded.RecordedAt));
        Assert.Equal(append.Events[0].Data.ToArray(), recorded.Data.ToArray());
        Assert.Equal(append.Events[0].Hash, recorded.Hash);
        Assert.Equal(append.Events[0].Position, recorded.Position);
        Assert.True(recorded.Position > 0);
        var (fingerprint, outcome, reason, orderId) = await InboxAsync("k-1");
        Assert.Equal(place.Fingerprint(), fingerprint);
        Assert.Equal((1L, null, "A-1"), (outcome, reason, orderId));
        var summary = Assert.Single(await new OrderQueries(Store.Database).ListAsync(new OrderFilter([]), null, 10, Token));
        Assert.Equal(("A-1", 1L, OrderStatus.Placed, "C-7", "EUR", 9980L, 1L), (summary.OrderId, summary.Version, summary.Status, summary.CustomerId, summary.Currency, summary.TotalMinor, summary.LineCount));
        var loaded = await new OutboxStore(Store.Database).LoadAsync(Load(10), Token);
        var rows = loaded.Rows;
        Assert.True(loaded.All);
        Assert.Equal((append.Outbox[0].Id, OutboxKind.Event, "A-1", 1L), (rows[0].Id, rows[0].Kind, rows[0].OrderId, rows[0].Version));
        Assert.Equal(recorded.Data.ToArray(), rows[0].Event!.Data.ToArray());
    }

    [Fact]
    public async Task A_full_batch_is_one_transaction_and_positions_and_ids_follow_its_order()
    {
        var batch = Enumerable.Range(0, 2000).Select(number => Place($"k-{number}", $"A-{number}")).ToList();

        var append = await Store.AppendAsync(batch);

        var log = await ReadAllAsync(Store.Events);
        Assert.Equal(batch.Count, log.Count);
        Assert.Equal(append.Events.Select(recorded => (recorded.OrderId, recorded.Position)), log.Select(recorded => (recorded.OrderId, recorded.Position)));
        Assert.Equal(Enumerable.Range(0, 2000).Select(number => $"A-{number}"), log.Select(recorded => recorded.OrderId));
        Assert.Equal(append.Outbox.Select(row => row.Id).Order(), append.Outbox.Select(row => row.Id));
        Assert.Equal(append.Outbox.Select(row => (row.Id, row.OrderId)), (await OutboxAsync()).Select(row => (row.Id, row.OrderId)));
    }

    [Fact]
    public async Task Copies_are_duplicates_whether_they_come_together_or_later()
    {
        await Store.AppendAsync([.. Enumerable.Range(0, 100).Select(_ => Place("k-1", "A-1"))]);
        var again = Place("k-1", "A-1");

        var append = await Store.AppendAsync(again);

        Assert.Equal(Fate.Duplicate, again.Fate);
        Assert.Empty(append.Events);
        Assert.Single(await Store.Events.StreamAsync("A-1", Token));
        Assert.Equal(1L, await CountAsync("inbox"));
        Assert.Equal(1L, await CountAsync("outbox"));
    }

    [Fact]
    public async Task The_same_key_with_another_body_is_rejected_with_its_bytes_and_the_first_message_stands()
    {
        await Store.AppendAsync(Place("k-1", "A-1"));
        var other = Place("k-1", "A-2");

        await Store.AppendAsync(other);
        await Store.AppendAsync(other);

        Assert.Equal((Fate.Rejected, RejectionReason.KeyConflict), (other.Fate, other.Reason));
        var (reason, body) = await Store.Database.ReadAsync(connection =>
            connection.QuerySingleAsync<(string, byte[])>("SELECT reason, body FROM rejections WHERE key = 'k-1'"), Token);
        body = Store.Database.Keys.OpenOrNone(body);
        Assert.Equal(RejectionReason.KeyConflict, reason);
        Assert.Equal(other.Body.ToArray(), body);
        Assert.Equal(1L, (await InboxAsync("k-1")).Outcome);
        Assert.Empty(await Store.Events.StreamAsync("A-2", Token));
    }

    [Fact]
    public async Task A_refused_command_is_recorded_and_announced_and_not_appended()
    {
        await Store.AppendAsync(Place("k-1", "A-1"), Cancel("k-2", "A-1"));
        var ship = Ship("k-3", "A-1");

        await Store.AppendAsync(ship);

        Assert.Equal(Fate.Refused, ship.Fate);
        Assert.Equal(2L, (await InboxAsync("k-3")).Outcome);
        Assert.Equal(2, (await Store.Events.StreamAsync("A-1", Token)).Count);
        var announcement = (await OutboxAsync())[^1];
        Assert.Equal(OutboxKind.Announcement, announcement.Kind);
        Assert.Null(announcement.Event);
        Assert.Contains("ORDER_COMMAND_REFUSED", announcement.Message, StringComparison.Ordinal);
        Assert.NotEmpty(announcement.Body!);
        Assert.Equal(1L, await CountAsync("history WHERE kind = 'refused' AND order_id = 'A-1'"));
    }

    [Fact]
    public async Task A_command_before_its_order_waits_and_is_decided_with_it()
    {
        var ship = Ship("k-2", "A-1");
        await Store.AppendAsync(ship);
        Assert.Equal(Fate.Deferred, ship.Fate);
        Assert.Equal(3L, (await InboxAsync("k-2")).Outcome);
        await Store.AppendAsync(Pay("k-3", "A-1"));

        await Store.AppendAsync(Place("k-1", "A-1"));

        var stream = await Store.Events.StreamAsync("A-1", Token);
        Assert.Equal(["ORDER_PLACED", "ORDER_PAYMENT_RECEIVED", "ORDER_PAID", "ORDER_SHIPPED"], stream.Select(recorded => recorded.Type));
        Assert.Equal(1L, (await InboxAsync("k-2")).Outcome);
        Assert.Equal(1L, (await InboxAsync("k-3")).Outcome);
        Assert.Equal(0L, await CountAsync("deferred"));
        await AssertSoundAsync();
    }

    [Fact]
    public async Task A_command_whose_wait_is_over_is_not_decided_with_its_order()
    {
        await Store.AppendAsync(Ship("k-2", "A-1"));
        await ExpireAsync(Store, "k-2");

        await Store.AppendAsync(Place("k-1", "A-1"));

        Assert.Equal("ORDER_PLACED", Assert.Single(await Store.Events.StreamAsync("A-1", Token)).Type);
        Assert.Equal(4L, (await InboxAsync("k-2")).Outcome);
    }

    [Fact]
    public async Task A_message_that_was_given_up_takes_its_key_so_that_no_copy_is_accepted_beside_the_letter()
    {
        await Store.AppendAsync(Place("k-1", "A-1").GivenUp());
        var copy = Place("k-1", "A-1");

        await Store.AppendAsync(copy);

        Assert.Equal((Fate.Rejected, RejectionReason.InternalError), (copy.Fate, copy.Reason));
        Assert.Equal(4L, (await InboxAsync("k-1")).Outcome);
        Assert.Empty(await Store.Events.StreamAsync("A-1", Token));
    }

    [Fact]
    public async Task A_replay_of_a_letter_rewrites_the_claim_and_resolves_the_letter()
    {
        var place = Place("k-1", "A-1");
        await Store.AppendAsync(place.GivenUp());
        var letter = await AddLetterAsync("k-1", place.Fingerprint(), "replayed");
        await Store.Database.WriteAsync(transaction => transaction.ExecuteAsync(
            "INSERT INTO replays (letter_id, requested_by, requested_at) VALUES (@letter, 'admin', 1)", new { letter }), Token);
        var replay = place.AsReplayOf(letter);

        await Store.AppendAsync(replay);

        Assert.Equal(Fate.Accepted, replay.Fate);
        Assert.Equal(1L, (await InboxAsync("k-1")).Outcome);
        Assert.Equal("resolved", await LetterStatusAsync(letter));
        Assert.Equal(1L, await CountAsync("replays WHERE outcome = 'resolved'"));
        var again = place.AsReplayOf(letter);
        await Store.AppendAsync(again);
        Assert.Equal(Fate.Duplicate, again.Fate);
        Assert.Single(await Store.Events.StreamAsync("A-1", Token));
    }

    [Fact]
    public async Task A_forged_replay_mark_rewrites_nothing()
    {
        var place = Place("k-1", "A-1");
        await Store.AppendAsync(place.GivenUp());
        var letter = await AddLetterAsync("k-1", place.Fingerprint(), "parked");
        var forged = place.AsReplayOf(letter);

        await Store.AppendAsync(forged);

        Assert.Equal(Fate.Rejected, forged.Fate);
        Assert.Equal("parked", await LetterStatusAsync(letter));
    }

    [Fact]
    public async Task An_accepted_copy_supersedes_an_open_letter_and_leaves_settled_ones_and_other_bytes_alone()
    {
        var place = Place("k-1", "A-1");
        var open = await AddLetterAsync("k-1", place.Fingerprint(), "parked");
        var other = await AddLetterAsync("k-1", Place("k-1", "A-2").Fingerprint(), "parked");
        var settled = await AddLetterAsync("k-2", place.Fingerprint(), "discarded");

        await Store.AppendAsync(place, Place("k-2", "A-3"));

        Assert.Equal("superseded", await LetterStatusAsync(open));
        Assert.Equal("parked", await LetterStatusAsync(other));
        Assert.Equal("discarded", await LetterStatusAsync(settled));
    }

    [Fact]
    public async Task Only_a_process_that_ended_without_a_stop_speaks_against_what_it_had_begun()
    {
        var message = Place("k-1", "A-1");
        byte[][] hashes = [SHA256.HashData(message.Body.Span)];
        await using var fresh = await OpenFreshAsync();
        await using (var first = await fresh.OpenAsync())
        {
            await first.Database.MigrateAsync(Token);
            await first.Log.Lives.BeginAsync(Now, CrashRule.Memory, Token);
            // Twice by one process, because the answer to the first COMMIT was lost.
            await first.Log.Lives.MarkStartedAsync(hashes, alone: true, Now, Token);
            await first.Log.Lives.MarkStartedAsync(hashes, alone: true, Now, Token);
            await KnownAsync(first, new Suspicion(0, 0, 0));
        }
        await using (var second = await fresh.OpenAsync())
        {
            await second.Log.Lives.BeginAsync(Now, CrashRule.Memory, Token);
            await KnownAsync(second, new Suspicion(0, 1, 1));
            await second.Log.Lives.MarkStartedAsync(hashes, alone: false, Now, Token);
        }
        await using (var third = await fresh.OpenAsync())
        {
            await third.Log.Lives.BeginAsync(Now, CrashRule.Memory, Token);
            await KnownAsync(third, new Suspicion(1, 1, 2));
            await third.Log.Lives.MarkStartedAsync(hashes, alone: true, Now, Token);
            await third.Log.Lives.EndAsync(Token);
        }
        await using var fourth = await fresh.OpenAsync();
        await fourth.Log.Lives.BeginAsync(Now, CrashRule.Memory, Token);
        await KnownAsync(fourth, new Suspicion(1, 1, 2));
        Assert.Equal(0, (await fourth.Log.Lives.LookAtAsync(hashes, Now + (long)CrashRule.Memory.TotalMilliseconds + 1, CrashRule.Memory, Token))[0].Ended);

        await fourth.AppendAsync(message with { StartedHash = hashes[0] });
        await KnownAsync(fourth, new Suspicion(0, 0, 2));
        await fourth.Log.Lives.ExplainAsync(Token);
        await KnownAsync(fourth, new Suspicion(0, 0, 0));

        // The server takes a moment to see that a process is gone.
        Task KnownAsync(StoreInstance instance, Suspicion expected) => OrderService.Tests.Infrastructure.Eventually.HoldsAsync(
            async () => Assert.Equal(expected, (await instance.Log.Lives.LookAtAsync(hashes, Now, CrashRule.Memory, Token))[0]));
    }

    [Fact]
    public async Task A_page_of_the_log_ends_with_the_event_that_fills_it()
    {
        await Store.AppendAsync(Place("k-1", "A-1"), Place("k-2", "A-2"), Place("k-3", "A-3"));
        await Store.Database.WriteAsync(transaction => transaction.ExecuteAsync(
            "UPDATE events SET data = @data WHERE position <= 2", new { data = new byte[EventPage.MaxBytes / 2] }), Token);

        var first = await Store.Events.AfterAsync(0, 10, Token);
        var second = await Store.Events.AfterAsync(2, 10, Token);

        Assert.Equal([1L, 2L], first.Events.Select(recorded => recorded.Position));
        Assert.Equal([3L], second.Events.Select(recorded => recorded.Position));
        Assert.Equal((true, false), (first.MayHaveMore, second.MayHaveMore));
    }

    [Fact]
    public async Task An_append_that_is_only_tried_leaves_nothing_and_meets_what_an_append_would_meet()
    {
        var batch = new[] { Place("k-1", "A-1"), Ship("k-2", "A-2") };
        await TryAsync();
        await Store.AppendAsync(Place("k-0", "A-0"));
        await TryAsync();

        Assert.Equal("A-0", Assert.Single((await Store.Events.AfterAsync(0, 10, Token)).Events).OrderId);
        await ExecuteAsync("DROP TABLE deferred");
        await Assert.ThrowsAsync<StoreUnavailableException>(TryAsync);

        Task TryAsync() => Store.Log.TryAppendAsync(InboxCommit.Query(batch), state => new BatchDecider(OrderRules.Default, TimeSpan.FromMinutes(1)).Decide(batch, state, Now), Token);
    }

    private Task<long> ScalarAsync(string sql) => Store.Database.ReadAsync(connection => connection.ExecuteScalarAsync<long>(sql), Token);

    [Fact]
    public async Task Many_commands_that_wait_for_one_order_are_decided_in_several_transactions_and_in_turn()
    {
        const int Ships = 1200;
        await Store.AppendAsync([.. Enumerable.Range(0, Ships).Select(number => Ship($"ship-{number:0000}", "A-1"))]);
        await Store.AppendAsync(Pay("pay-1", "A-1"));

        // One more comes with the order, before it.
        var placed = await Store.AppendAsync(Ship("ship-9999", "A-1"), Place("k-1", "A-1"));
        var cancel = Cancel("cancel-1", "A-1");
        await Store.AppendAsync(cancel);
        var transactions = new List<Append> { placed };
        do
        {
            transactions.Add(await Store.DecideBacklogAsync("A-1"));
        }
        while (transactions[^1].Backlog.Count > 0);

        Assert.Equal(Fate.Deferred, cancel.Fate);
        Assert.All(transactions, append => Assert.InRange(append.DeferredDecided.Count, 1, DeferredCommand.MostAtOnce));
        Assert.Equal("ORDER_PLACED ORDER_PAID ORDER_SHIPPED", string.Join(' ', (await Store.Events.StreamAsync("A-1", Token)).Select(recorded => recorded.Type).Where(type => type != "ORDER_PAYMENT_RECEIVED")));
        // The payment comes first, and what came after the order last.
        Assert.Equal(("pay-1", "cancel-1"), (placed.DeferredDecided[0], transactions[^1].DeferredDecided[^1]));
        Assert.Equal(Ships + 3, transactions.Sum(append => append.DeferredDecided.Count));
        Assert.Equal(0, await ScalarAsync("SELECT count(*) FROM deferred"));
        Assert.Equal(Ships + 1, await ScalarAsync("SELECT count(*) FROM inbox WHERE outcome = 2"));
        await AssertSoundAsync();
    }

    [Fact]
    public async Task Copies_are_counted_with_what_they_are_copies_of()
    {
        await Store.AppendAsync(Place("k-1", "A-1"));
        await Store.AppendAsync(Place("k-1", "A-1"), Place("k-1", "A-1"), Place("k-2", "A-2"));
        await Store.AppendAsync(Place("k-1", "A-1"));

        Assert.Equal(3, await ScalarAsync("SELECT copies FROM inbox WHERE key = 'k-1'"));
        Assert.Equal(Now, await ScalarAsync("SELECT last_copy_at FROM inbox WHERE key = 'k-1'"));
        Assert.Equal(0, await ScalarAsync("SELECT count(*) FROM history"));
    }

    [Fact]
    public async Task An_append_that_fails_writes_nothing()
    {
        await Store.AppendAsync(Place("k-1", "A-1"));

        await Assert.ThrowsAsync<InvalidOperationException>(() => Store.Log.AppendAsync(
            new BatchQuery(["k-2"], ["A-2"]), _ => throw new InvalidOperationException("The decision failed."), Token));
        // What this head expects never stood there; every attempt to write it has to end with nothing written.
        await Assert.ThrowsAnyAsync<Exception>(() => Store.Log.AppendAsync(
            new BatchQuery(["k-3"], ["A-1"]),
            _ =>
            {
                var append = new Append();
                append.Inbox.Add(new InboxRow("k-3", new byte[32], InboxOutcome.Accepted, null, "A-1", Now, Replaces: false));
                append.Heads.Add(new HeadChange("A-1", 7, 8, OrderStatus.Paid, "C-7", "EUR", 1, 1, Now, new byte[32]));
                return append;
            },
            Token));

        Assert.Equal(1L, await CountAsync("inbox"));
        Assert.Equal(1L, await CountAsync("events"));
        await AssertSoundAsync();
        await Store.AppendAsync(Place("k-3", "A-3"));
        Assert.Equal(2L, await CountAsync("inbox"));
    }

    [Fact]
    public async Task Writers_on_the_same_orders_take_turns_and_nothing_is_lost_or_doubled()
    {
        const int Orders = 12;
        var writers = new List<StoreInstance> { Store, await OpenAsync(), await OpenAsync() };

        // Every writer gets a copy of every message, in an order of its own: what several instances see after a network split.
        var fates = await Task.WhenAll(writers.Select((writer, index) => Task.Run(async () =>
        {
            var random = new Random(index);
            var messages = Enumerable.Range(0, Orders)
                .SelectMany(order => new[] { Place($"p-{order}", $"A-{order}"), Pay($"y-{order}", $"A-{order}"), Ship($"s-{order}", $"A-{order}") })
                .OrderBy(_ => random.Next())
                .ToList();
            foreach (var batch in messages.Chunk(5))
            {
                await writer.AppendAsync(batch);
            }
            return messages.Select(message => message.Fate).ToList();
        }, Token)));

        Assert.DoesNotContain(Fate.Rejected, fates.SelectMany(fate => fate));
        Assert.Equal(3L * Orders, await CountAsync("inbox"));
        Assert.Equal(0L, await CountAsync("inbox WHERE outcome = 3"));
        Assert.Equal(0L, await CountAsync("deferred"));
        // A payment has two events.
        Assert.Equal(await CountAsync("inbox WHERE outcome = 1") + Orders, await CountAsync("events"));
        Assert.Equal(Orders, await CountAsync("orders"));
        Assert.Equal(await CountAsync("events"), await CountAsync("outbox WHERE kind = 1"));
        await AssertSoundAsync();
    }

    [Fact]
    public async Task A_reader_that_goes_on_after_the_last_position_misses_nothing_while_eight_writers_append()
    {
        const int Writers = 8;
        const int Batches = 25;
        var instances = new List<StoreInstance>();
        for (var index = 0; index < Writers; index++)
        {
            instances.Add(await OpenAsync());
        }
        var writing = Task.WhenAll(instances.Select((instance, writer) => Task.Run(async () =>
        {
            for (var batch = 0; batch < Batches; batch++)
            {
                await instance.AppendAsync([.. Enumerable.Range(0, 1 + ((batch * 7 + writer) % 20)).Select(number => Place($"k-{writer}-{batch}-{number}", $"A-{writer}-{batch}-{number}"))]);
            }
        }, Token)));

        var seen = new List<long>();
        var reader = Store.Events;
        while (true)
        {
            var done = writing.IsCompleted;
            var page = (await reader.AfterAsync(seen.Count == 0 ? 0 : seen[^1], 50, Token)).Events;
            seen.AddRange(page.Select(recorded => recorded.Position));
            if (done && page.Count == 0)
            {
                break;
            }
        }

        await writing;
        Assert.Equal(await Store.Database.ReadAsync(connection => connection.QueryAsync<long>("SELECT position FROM events ORDER BY position"), Token), seen);
        Assert.Equal(seen[^1], await reader.LastPositionAsync(Token));
    }

    [Fact]
    public async Task Outbox_rows_are_loaded_by_shard_oldest_first_without_the_known_ones_until_they_are_marked()
    {
        var outbox = new OutboxStore(Store.Database);
        await Store.AppendAsync([.. Enumerable.Range(0, 60).Select(number => Place($"k-{number}", $"A-{number}"))]);
        var ids = (await OutboxAsync()).Select(row => row.Id).ToList();

        var first = await outbox.LoadAsync(Load(10) with { Known = ids.Take(5).ToHashSet() }, Token);
        Assert.False(first.All);
        Assert.Equal(ids.Skip(5).Take(10), first.Rows.Select(row => row.Id));

        int[] some = [0, 3, 7];
        var shared = await outbox.LoadAsync(Load(1000) with { Shards = some }, Token);
        Assert.True(shared.All);
        Assert.NotEmpty(shared.Rows);
        Assert.All(shared.Rows, row => Assert.Contains(Shard.Of(row.OrderId), some));

        await outbox.MarkSentAsync([.. ids.Where((_, index) => index % 3 != 0)]);
        Assert.Equal(ids.Where((_, index) => index % 3 == 0), (await OutboxAsync()).Select(row => row.Id));
        Assert.Equal((20L, (long?)Now), await outbox.BacklogAsync(Token));
        await outbox.MarkSentAsync([.. ids]);
        Assert.Equal((0L, null), await outbox.BacklogAsync(Token));
    }

    [Fact]
    public async Task Orders_beyond_the_plain_course_are_decided_by_their_whole_stream()
    {
        await Store.AppendAsync(Place("k-1", "A-1"), Place("k-2", "A-2"));
        await Store.AppendAsync(Of("k-3", CommandType.Ship, """{"orderId":"A-1","lines":[{"lineId":"1","quantity":1}]}"""), Payment("k-4", "A-1", "P-1", "120"));
        // Each in a transaction of its own, so each reads what the others left. A plain command too: its order is beyond the plain course.
        await Store.AppendAsync(Ship("k-5", "A-1"));
        await Store.AppendAsync(Of("k-6", CommandType.Return, """{"orderId":"A-1","returnId":"R-1","lines":[{"lineId":"1","quantity":1}],"reason":"too small"}"""));
        await Store.AppendAsync(Of("k-7", CommandType.Refund, """{"orderId":"A-1","refundReference":"REF-1","amount":20.20}"""));
        await Store.AppendAsync(Of("k-8", CommandType.Refund, """{"orderId":"A-1","refundReference":"REF-2","amount":99.81}"""));
        await Store.AppendAsync(Ship("k-9", "A-2"));

        Assert.Equal(
            [EventType.Placed, EventType.PartlyShipped, EventType.PaymentReceived, EventType.Paid, EventType.Shipped, EventType.Returned, EventType.Refunded],
            (await Store.Events.StreamAsync("A-1", Token)).Select(recorded => recorded.Type));
        Assert.Equal((2L, RefusalCode.RefundExceedsPaid), ((await InboxAsync("k-8")).Outcome, (await InboxAsync("k-8")).Reason));
        var queries = new OrderQueries(Store.Database);
        var all = (await queries.ListAsync(new OrderFilter([]), null, 9, Token)).ToDictionary(order => order.OrderId);
        Assert.Equal((OrderStatus.Shipped, PaymentStatus.PartlyRefunded, FulfillmentStatus.PartlyReturned), (all["A-1"].Status, all["A-1"].Payment, all["A-1"].Fulfillment));
        Assert.Equal((OrderStatus.Shipped, PaymentStatus.Unpaid, FulfillmentStatus.Fulfilled), (all["A-2"].Status, all["A-2"].Payment, all["A-2"].Fulfillment));
        Assert.Equal(["A-1"], (await queries.ListAsync(new OrderFilter([]) { Parts = new OrderParts(null, PaymentStatus.PartlyRefunded, FulfillmentStatus.PartlyReturned) }, null, 9, Token)).Select(order => order.OrderId));
        Assert.Equal(["A-2"], (await queries.ListAsync(new OrderFilter([]) { Parts = new OrderParts(null, PaymentStatus.Unpaid, FulfillmentStatus.Fulfilled) }, null, 9, Token)).Select(order => order.OrderId));
        Assert.Equal(1, await ScalarAsync("SELECT sum(needs_stream) FROM orders"));
        Assert.Empty((await new StoreVerification(Store.Database, Store.Events).RunAsync(repair: false, null, Token)).Findings);
    }

    [Fact]
    public async Task What_an_amended_order_costs_and_has_is_in_the_read_model()
    {
        await Store.AppendAsync(Place("k-1", "A-1"));
        await Store.AppendAsync(Of("k-2", CommandType.Amend, """{"orderId":"A-1","expectedVersion":1,"lines":[{"sku":"A","quantity":1,"unitPrice":1.5},{"sku":"B","quantity":1,"unitPrice":2}]}"""));
        await Store.AppendAsync(Of("k-3", CommandType.Amend, """{"orderId":"A-1","expectedVersion":1,"attributes":{"gift":"yes"}}"""));

        var order = Assert.Single(await new OrderQueries(Store.Database).ListAsync(new OrderFilter([]), null, 9, Token));
        Assert.Equal((2L, 3_50L, 2L), (order.Version, order.TotalMinor, order.LineCount));
        Assert.Equal(RefusalCode.VersionConflict, (await InboxAsync("k-3")).Reason);
        Assert.Empty((await new StoreVerification(Store.Database, Store.Events).RunAsync(repair: false, null, Token)).Findings);
    }

    [Fact]
    public async Task Early_commands_of_every_kind_are_decided_with_their_order()
    {
        await Store.AppendAsync(
            Of("k-1", CommandType.Refund, """{"orderId":"A-1","refundReference":"REF-1","amount":1}"""),
            Of("k-2", CommandType.Return, """{"orderId":"A-1","returnId":"R-1","lines":[{"lineId":"1","quantity":1}],"reason":"too small"}"""),
            Of("k-3", CommandType.Deliver, """{"orderId":"A-1"}"""),
            Ship("k-4", "A-1"),
            Of("k-5", CommandType.Capture, """{"orderId":"A-1","paymentReference":"AUTH"}"""),
            Of("k-6", CommandType.Authorize, """{"orderId":"A-1","paymentReference":"AUTH","amount":99.80}"""),
            Of("k-7", CommandType.Release, """{"orderId":"A-1"}"""),
            Of("k-8", CommandType.Hold, """{"orderId":"A-1","reason":"fraud?"}"""),
            Of("k-9", CommandType.Amend, """{"orderId":"A-1","attributes":{"gift":"yes"}}"""));
        await Store.AppendAsync(Place("k-10", "A-1"));

        Assert.Equal(
            [
                EventType.Placed, EventType.PaymentAuthorized, EventType.PaymentReceived, EventType.Paid, EventType.Amended, EventType.Held, EventType.Released,
                EventType.Shipped, EventType.Delivered, EventType.Returned, EventType.Refunded,
            ],
            (await Store.Events.StreamAsync("A-1", Token)).Select(recorded => recorded.Type));
        Assert.Empty((await new StoreVerification(Store.Database, Store.Events).RunAsync(repair: false, null, Token)).Findings);
    }

    [Fact]
    public async Task Orders_are_found_by_the_attributes_that_are_searchable()
    {
        var decider = new BatchDecider(OrderRules.Default, TimeSpan.FromMinutes(1), ["channel", "market"]);
        await PlaceAsync("k-1", "A-1", ",\"channel\":\"web\",\"attributes\":{\"market\":\"DE\",\"gift\":\"yes\"}");
        await PlaceAsync("k-2", "A-2", ",\"channel\":\"web\"");
        await PlaceAsync("k-3", "A-3", "");

        Assert.Equal(["A-2", "A-1"], await FoundAsync("channel", "web"));
        Assert.Equal(["A-1"], await FoundAsync("market", "DE"));
        Assert.Empty(await FoundAsync("market", "FR"));
        // Kept with the order, and no row of the index.
        Assert.Empty(await FoundAsync("gift", "yes"));
        Assert.Contains("\"gift\":\"yes\"", Encoding.UTF8.GetString(Assert.Single(await Store.Events.StreamAsync("A-1", Token)).Data.Span), StringComparison.Ordinal);
        Assert.Equal(3, await ScalarAsync("SELECT count(*) FROM order_attributes"));

        async Task PlaceAsync(string key, string orderId, string more)
        {
            var body = Encoding.UTF8.GetBytes($$"""{"orderId":"{{orderId}}","customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":1,"unitPrice":1.00}]{{more}}}""");
            var properties = new MessageProperties { MessageId = key, Type = CommandType.Place };
            IReadOnlyList<Incoming> batch = [new Incoming(EnvelopeDecoder.Decode(properties, body), body, properties)];
            await Store.Log.AppendAsync(InboxCommit.Query(batch), state => decider.Decide(batch, state, Now), Token);
        }

        async Task<IEnumerable<string>> FoundAsync(string name, string value) =>
            (await new OrderQueries(Store.Database).ListAsync(new OrderFilter([]) { Parts = new OrderParts(new OrderAttribute(name, value), null, null) }, null, 9, Token)).Select(order => order.OrderId);
    }

    [Fact]
    public async Task Orders_are_listed_newest_first_with_filters()
    {
        await Store.AppendAsync(Place("k-1", "A-1"), Place("k-2", "A-2"), Place("k-3", "A-3"), Pay("k-4", "A-2"));
        var queries = new OrderQueries(Store.Database);

        var all = await queries.ListAsync(new OrderFilter([]), null, 2, Token);
        Assert.Equal(["A-3", "A-2"], all.Select(order => order.OrderId));
        Assert.Equal(["A-1"], (await queries.ListAsync(new OrderFilter([]), (0, all[^1].Seq), 2, Token)).Select(order => order.OrderId));
        Assert.Equal(["A-2"], (await queries.ListAsync(new OrderFilter([OrderStatus.Paid], "C-7"), null, 9, Token)).Select(order => order.OrderId));
        Assert.Empty(await queries.ListAsync(new OrderFilter([], "C-8"), null, 9, Token));
    }

    [Fact]
    public async Task Instances_that_start_together_migrate_once()
    {
        await using var fresh = await OpenFreshAsync();
        var starting = await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => fresh.OpenAsync()));

        await Task.WhenAll(starting.Select(instance => Task.Run(() => instance.Database.MigrateAsync(Token), Token)));
        await starting[0].Database.MigrateAsync(Token);

        await starting[^1].AppendAsync(Place("k-1", "A-1"));
        Assert.Single(await starting[0].Events.StreamAsync("A-1", Token));
    }

    [Fact]
    public async Task A_store_whose_events_lie_by_order_id_is_brought_up_with_all_it_holds()
    {
        await Store.AppendAsync(
            Place("k-1", "A-1"), Pay("k-2", "A-1"), Place("k-3", "A-2"), Place("k-4", "A-3"), Payment("k-6", "A-2", "P-1", "1"), Ship("k-7", "A-3"), Payment("k-8", "A-3", "P-2", "100"));
        await AppendOldAsync("A-4", 99.81m);
        // From the last order to the first, so that a stream's number is not by chance the position of its event.
        var orders = await RowsAsync("orders", "order_id, version, status, customer_id, currency, total_minor, line_count, placed_at, updated_at, last_hash", "seq DESC");
        var events = await RowsAsync("events", "position, order_id, version, type, data, correlation_id, causation_id, recorded_at, hash", "position");
        var inbox = await RowsAsync("inbox", "key, fingerprint, outcome, order_id, decided_at", "key");
        await using var fresh = await OpenFreshAsync();
        var old = await fresh.OpenAsync();
        await old.Database.WriteAsync(async transaction =>
        {
            var before = Migration.All(old.Database.Provider).TakeWhile(migration => !migration.Name.EndsWith("fewer_random_pages", StringComparison.Ordinal)).ToList();
            var noted = old.Database.Provider == "Sqlite"
                ? $"PRAGMA user_version = {before.Count}"
                : $"CREATE TABLE schema_version (number BIGINT, name TEXT); INSERT INTO schema_version SELECT generate_series(1, {before.Count}), ''";
            await transaction.ExecuteAsync(string.Join(';', [.. before.Select(migration => migration.Sql), noted]));
            await transaction.ExecuteAsync(orders.Insert, orders.Rows);
            await transaction.ExecuteAsync(events.Insert, events.Rows);
            if (old.Database.Provider != "Sqlite")
            {
                // The rows brought their positions along; the next one comes behind them.
                await transaction.ExecuteAsync("SELECT setval(pg_get_serial_sequence('events', 'position'), (SELECT max(position) FROM events))");
            }
            await transaction.ExecuteAsync(inbox.Insert, inbox.Rows);
        }, Token);

        await old.Database.MigrateAsync(Token);

        var report = await new StoreVerification(old.Database, old.Events).RunAsync(repair: false, null, Token);
        Assert.Equal((11L, 4L, 0L), (report.Events, report.Orders, report.Wrong));
        // What later columns say is told by the events.
        Assert.Equal(
            [(PaymentStatus.Paid, FulfillmentStatus.Unfulfilled), (PaymentStatus.PartlyPaid, FulfillmentStatus.Unfulfilled), (PaymentStatus.Overpaid, FulfillmentStatus.Fulfilled),
                (PaymentStatus.Overpaid, FulfillmentStatus.Unfulfilled)],
            (await new OrderQueries(old.Database).ListAsync(new OrderFilter([]), null, 9, Token)).OrderBy(order => order.OrderId).Select(order => (order.Payment, order.Fulfillment)));
        Assert.Equal(["ORDER_PLACED", "ORDER_PAYMENT_RECEIVED", "ORDER_PAID"], (await old.Events.StreamAsync("A-1", Token)).Select(recorded => recorded.Type));
        Assert.Equal(Enumerable.Range(1, 11).Select(position => (long)position), (await old.Events.AfterAsync(0, 20, Token)).Events.Select(recorded => recorded.Position));
        var copy = Place("k-1", "A-1");
        var next = Ship("k-5", "A-1");
        await old.AppendAsync(copy, next);
        Assert.Equal((Fate.Duplicate, Fate.Accepted), (copy.Fate, next.Fate));

        async Task<(string Insert, List<Dictionary<string, object>> Rows)> RowsAsync(string table, string columns, string order)
        {
            var rows = await Store.Database.ReadAsync(connection => connection.QueryAsync<dynamic>($"SELECT {columns} FROM {table} ORDER BY {order}"), Token);
            var values = string.Join(", ", columns.Split(", ").Select(column => "@" + column));
            return ($"INSERT INTO {table} ({columns}) VALUES ({values})", [.. rows.Cast<IDictionary<string, object>>().Select(row => new Dictionary<string, object>(row))]);
        }
    }

    [Fact]
    public async Task Payments_add_up_over_batches_and_within_one()
    {
        await Store.AppendAsync(Place("k-1", "A-1"), Payment("k-2", "A-1", "P-1", "0.01"));
        await Store.AppendAsync(Payment("k-3", "A-1", "P-2", "50"));
        var conflict = Payment("k-4", "A-1", "P-2", "50.01");
        var again = Payment("k-5", "A-1", "P-2", "50.00");
        await Store.AppendAsync(Ship("k-6", "A-1"), conflict, again, Payment("k-7", "A-1", "P-3", "49.79"), Payment("k-8", "A-1", "P-4", "1"));

        Assert.Equal((Fate.Refused, Fate.Duplicate), (conflict.Fate, again.Fate));
        Assert.Equal(1L, (await InboxAsync("k-5")).Outcome);
        var stream = await Store.Events.StreamAsync("A-1", Token);
        Assert.Equal(
            [
                "ORDER_PLACED", """{"paymentReference":"P-1","amount":0.01,"paid":0.01,"due":99.79}""", """{"paymentReference":"P-2","amount":50.00,"paid":50.01,"due":49.79}""",
                "ORDER_SHIPPED", """{"paymentReference":"P-3","amount":49.79,"paid":99.80,"due":0.00}""", "ORDER_PAID",
                """{"paymentReference":"P-4","amount":1.00,"paid":100.80,"due":0.00,"overpaid":1.00}""",
            ],
            stream.Select(recorded => recorded.Type == "ORDER_PAYMENT_RECEIVED" ? System.Text.Encoding.UTF8.GetString(recorded.Data.Span) : recorded.Type));
        Assert.Equal(1L, await CountAsync("orders WHERE status = 3 AND version = 7"));
        Assert.Equal(1L, await CountAsync("refused_payments WHERE order_id = 'A-1' AND payment_reference = 'P-2' AND amount = '50.01' AND code = 'payment-conflict' AND alert_id IS NULL"));
        await AssertSoundAsync();
    }

    [Fact]
    public async Task Refused_payments_are_told_of_at_once_and_then_once_an_interval()
    {
        var clock = new FakeTimeProvider(DateTimeOffset.FromUnixTimeMilliseconds(Now));
        using var alerts = new RefusedPaymentAlerts(
            Store.Database, Options.Create(new AlertsOptions { DigestInterval = TimeSpan.FromMinutes(5) }), new Troubles(clock), clock, NullLogger<RefusedPaymentAlerts>.Instance);
        await Store.AppendAsync(Place("k-1", "A-1"), Cancel("k-2", "A-1"), Place("k-3", "A-2"), Payment("k-4", "A-2", "P-1", "10"));
        Assert.Null(await alerts.TellAsync(Token));

        await Store.AppendAsync(Payment("k-5", "A-1", "P-9", "99.80"));
        var first = await alerts.TellAsync(Token);
        await Store.AppendAsync(Payment("k-6", "A-2", "P-1", "11"), Payment("k-7", "A-1", "P-8", "1"));
        Assert.Null(await alerts.TellAsync(Token));
        clock.Advance(TimeSpan.FromMinutes(5));
        var second = await alerts.TellAsync(Token);
        clock.Advance(TimeSpan.FromMinutes(5));
        Assert.Null(await alerts.TellAsync(Token));

        Assert.Equal("A payment of 99.80 EUR for order A-1 was refused: the order is cancelled", await SubjectAsync(first));
        Assert.Equal(
            "2 payments were refused, the first of 11.00 EUR for order A-2: the order has a payment of the same reference with another amount", await SubjectAsync(second));
        Assert.Equal(0L, await CountAsync("refused_payments WHERE alert_id IS NULL"));

        // A clock that is put back an hour silences nothing.
        await Store.AppendAsync(Payment("k-10", "A-1", "P-7", "2"));
        clock.AdjustTime(DateTimeOffset.FromUnixTimeMilliseconds(Now).AddHours(-1));
        Assert.NotNull(await alerts.TellAsync(Token));

        Task<string?> SubjectAsync(long? alert) =>
            Store.Database.ReadAsync(connection => connection.ExecuteScalarAsync<string>("SELECT subject FROM alerts WHERE id = @alert", new { alert }), Token);
    }

    [Fact]
    public async Task A_refused_payment_that_the_store_does_not_mark_as_told_holds_up_no_other()
    {
        var clock = new FakeTimeProvider(DateTimeOffset.FromUnixTimeMilliseconds(Now));
        var troubles = new Troubles(clock);
        using var alerts = new RefusedPaymentAlerts(Store.Database, Options.Create(new AlertsOptions()), troubles, clock, NullLogger<RefusedPaymentAlerts>.Instance);
        await Store.AppendAsync(Place("k-1", "A-1"), Cancel("k-2", "A-1"), Payment("k-3", "A-1", "P-1", "1"), Payment("k-4", "A-1", "P-2", "2"), Payment("k-5", "A-1", "P-3", "3"));
        await Infrastructure.Refusal.AddAsync(Store.Database, "refused_payments", "NEW.payment_reference = 'P-1' AND NEW.alert_id IS NOT NULL");

        var first = await alerts.TellAsync(Token);

        Assert.NotNull(first);
        Assert.Equal(2L, await CountAsync($"refused_payments WHERE alert_id = {first}"));
        Assert.True(troubles.Stands("store:refused-payments"));
        clock.Advance(TimeSpan.FromMinutes(6));
        Assert.Null(await alerts.TellAsync(Token));
        Assert.Equal(1L, await CountAsync("alerts"));

        await Infrastructure.Refusal.RemoveAsync(Store.Database, "refused_payments");
        clock.Advance(TimeSpan.FromMinutes(1));
        Assert.NotNull(await alerts.TellAsync(Token));
        Assert.Equal(0L, await CountAsync("refused_payments WHERE alert_id IS NULL"));
    }

    /// <summary>A store that a version before ORDER_PAYMENT_RECEIVED wrote: its ORDER_PAID means paid, and what comes later adds to it.</summary>
    /// <summary>An order as versions before several payments left it: paid in full by the one payment it could have, whatever that brought.</summary>
    private Task AppendOldAsync(string orderId, decimal amount) => Store.Log.AppendAsync(
        new BatchQuery([$"old-{orderId}"], [orderId]),
        _ =>
        {
            var append = new Append();
            var head = new OrderHead(Order.None(orderId), EventHash.Genesis);
            foreach (var happened in new OrderEvent[] { Tests.Domain.Samples.Placed, new OrderEvent.Paid("P-1", amount) })
            {
                var (version, data) = (head.Order.Version + 1, EventSerializer.Serialize(happened, Store.Database.Keys.OfCustomer));
                var hash = EventHash.Next(head.LastHash, orderId, version, happened.Type, data, "c", $"old-{orderId}", null, Now);
                append.Events.Add(new RecordedEvent(orderId, version, happened.Type, data, "c", $"old-{orderId}", null, Now, hash));
                head = new OrderHead(head.Order.Apply(happened), hash);
            }
            append.Heads.Add(new HeadChange(orderId, 0, 2, head.Order.Status, "C-7", "EUR", 99_80, 1, Now, head.LastHash) { Payment = head.Order.PaymentStatus });
            return append;
        },
        Token);

    [Fact]
    public async Task Payments_go_on_upon_an_old_stream()
    {
        await AppendOldAsync("A-1", 0.01m);
        await AssertSoundAsync();
        var again = Payment("k-2", "A-1", "P-1", "0.01");
        var more = Payment("k-3", "A-1", "P-2", "10");

        await Store.AppendAsync(again, more, Ship("k-4", "A-1"));

        Assert.Equal((Fate.Duplicate, Fate.Accepted), (again.Fate, more.Fate));
        var stream = await Store.Events.StreamAsync("A-1", Token);
        Assert.Equal(["ORDER_PLACED", "ORDER_PAID", "ORDER_PAYMENT_RECEIVED", "ORDER_SHIPPED"], stream.Select(recorded => recorded.Type));
        Assert.Contains("\"paid\":109.80,\"due\":0.00,\"overpaid\":10.00", System.Text.Encoding.UTF8.GetString(stream[2].Data.Span), StringComparison.Ordinal);
        await AssertSoundAsync();
    }

    [Fact]
    public async Task Verification_finds_a_flipped_byte_and_repairs_the_read_model()
    {
        await Store.AppendAsync(Place("k-1", "A-1"), Pay("k-2", "A-1"), Place("k-3", "A-2"), Place("k-4", "A-3"));
        await AssertSoundAsync();
        var recorded = (await Store.Events.StreamAsync("A-1", Token))[1];
        var data = recorded.Data.ToArray();
        data[^3] ^= 1;
        await ExecuteAsync("UPDATE events SET data = @data WHERE order_id = 'A-1' AND version = 2", new { data });
        await ExecuteAsync("UPDATE orders SET total_minor = 1 WHERE order_id = 'A-2'");
        await ExecuteAsync("DELETE FROM orders WHERE order_id = 'A-3'");
        var verification = new StoreVerification(Store.Database, Store.Events);

        var found = await verification.RunAsync(repair: true, null, Token);

        Assert.Equal((5L, 3L, 3L), (found.Events, found.Orders, found.Wrong));
        Assert.Contains(found.Findings, finding => finding.Contains($"position {recorded.Position}", StringComparison.Ordinal));
        var after = await verification.RunAsync(repair: false, null, Token);
        Assert.Equal(1L, after.Wrong);
        Assert.Equal(3L, await CountAsync("orders"));
    }

    [Fact]
    public async Task A_write_that_throws_leaves_nothing_and_a_taken_key_is_a_conflict()
    {
        await Assert.ThrowsAsync<InvalidOperationException>(() => Store.Database.WriteAsync(async transaction =>
        {
            await transaction.ExecuteAsync("INSERT INTO checkpoints (reader, position) VALUES ('kafka', 1)");
            throw new InvalidOperationException("Something else went wrong.");
        }, Token));
        Assert.Equal(0L, await CountAsync("checkpoints"));
        await ExecuteAsync("INSERT INTO checkpoints (reader, position) VALUES ('kafka', 1)");

        await Assert.ThrowsAsync<StoreConflictException>(() => ExecuteAsync("INSERT INTO checkpoints (reader, position) VALUES ('kafka', 2)"));

        Assert.Equal(1L, await Store.Database.ReadAsync(connection => connection.ExecuteScalarAsync<long>("SELECT position FROM checkpoints"), Token));
    }

    [Fact]
    public async Task A_list_parameter_works_the_same_everywhere()
    {
        await Store.AppendAsync(Place("k-1", "A-1"), Place("k-2", "A-2"), Place("k-3", "A-3"));

        Task<List<string>> Orders(string[] wanted) => Store.Database.ReadAsync(connection => connection.QueryAsync<string>(
            $"SELECT order_id FROM orders WHERE order_id {connection.In("@wanted")} ORDER BY order_id", new { wanted }), Token);

        Assert.Equal(["A-1", "A-3"], await Orders(["A-3", "A-1", "A-9"]));
        Assert.Empty(await Orders([]));
    }

    protected static readonly int[] AllShards = [.. Enumerable.Range(0, Shard.Count)];

    /// <summary>A database without a schema, on which several instances may be opened.</summary>
    protected abstract Task<FreshDatabase> OpenFreshAsync();

    protected async Task AssertSoundAsync()
    {
        var report = await new StoreVerification(Store.Database, Store.Events).RunAsync(repair: false, null, Token);
        Assert.Empty(report.Findings);
    }

    protected Task<long> CountAsync(string rest) =>
        Store.Database.ReadAsync(connection => connection.ExecuteScalarAsync<long>($"SELECT count(*) FROM {rest}"), Token);

    [Fact]
    public async Task What_is_stuck_is_not_loaded_nor_what_comes_behind_it_and_comes_back_in_its_order()
    {
        const string Key = "order.cancelled";
        var outbox = new OutboxStore(Store.Database);
        await Store.AppendAsync([.. Enumerable.Range(0, 3).Select(number => Place($"k-{number}", $"A-{number}"))]);
        var placed = await OutboxAsync();
        await outbox.StickAsync(Key, "a queue refuses it", Now, [placed[1].Id], []);
        await Store.AppendAsync([.. Enumerable.Range(0, 3).Select(number => Ship($"s-{number}", $"A-{number}"))]);
        var request = Load(100) with { AnyStuck = true };

        var loaded = await outbox.LoadAsync(request, Token);

        Assert.Equal(["A-0", "A-2", "A-0", "A-2"], loaded.Rows.Select(row => row.OrderId));
        Assert.True(loaded.All);
        var behind = Assert.Single(loaded.Behind);
        await outbox.StickBehindAsync(loaded.Behind, Now + 5);
        Assert.Empty((await outbox.LoadAsync(request, Token)).Behind);
        Assert.Equal(new StuckKey(Key, 2, Now, "a queue refuses it", "A-1"), Assert.Single(await outbox.StuckAsync(null, Token)));
        Assert.Equal(6, (await outbox.BacklogAsync(Token)).Pending);
        Assert.Empty(await outbox.StuckAsync([(Shard.Of("A-1") + 1) % Shard.Count], Token));
        var streams = new List<string>();
        await outbox.VisitStuckStreamsAsync(AllShards, streams.Add, Token);
        Assert.Equal(["A-1"], streams);
        Assert.Empty((await outbox.ReleaseAsync("order.shipped", AllShards, 10, 100, Token)).Rows);

        var released = (await outbox.ReleaseAsync(Key, AllShards, 1, 100, Token)).Rows;

        Assert.Equal([(placed[1].Id, 1L), (behind, 2L)], released.Select(row => (row.Id, row.Version)));
        Assert.Equal(6, (await outbox.LoadAsync(request, Token)).Rows.Count);
    }

    [Fact]
    public async Task Of_one_stream_so_many_rows_are_loaded_or_released_and_the_others_go_by()
    {
        const string Key = "order.paid";
        var outbox = new OutboxStore(Store.Database);
        await Store.AppendAsync([Place("p-0", "A-0"), Pay("y-0", "A-0"), Ship("s-0", "A-0"), Place("p-1", "A-1")]);
        var rows = await OutboxAsync();
        var request = new LoadRequest(AllShards, new HashSet<long>(), 100, long.MaxValue, AnyStuck: false, After: 0) { MostOfOneStream = 2 };

        var loaded = await outbox.LoadAsync(request, Token);

        Assert.Equal(["A-0", "A-0", "A-1"], loaded.Rows.Select(row => row.OrderId));
        Assert.Equal((true, "A-0"), (loaded.All, Assert.Single(loaded.Cut)));
        Assert.Equal(["A-1"], (await outbox.LoadAsync(request with { Except = ["A-0"] }, Token)).Rows.Select(row => row.OrderId));

        await outbox.StickAsync(Key, "a queue refuses it", Now, [rows[0].Id], [.. rows.Skip(1).Where(row => row.OrderId == "A-0").Select(row => row.Id)]);
        var released = await outbox.ReleaseAsync(Key, AllShards, 1, 2, Token);

        Assert.Equal([1L, 2L], released.Rows.Select(row => row.Version));
        Assert.Equal("A-0", Assert.Single(released.Cut));
        Assert.Empty(await outbox.StuckAsync(null, Token));
    }

    [Fact]
    public async Task The_oldest_stuck_streams_come_back_first_and_an_operator_is_heard_once_something_waits()
    {
        const string Key = "order.placed";
        var outbox = new OutboxStore(Store.Database);
        await Store.AppendAsync([.. Enumerable.Range(0, 5).Select(number => Place($"k-{number}", $"A-{number}"))]);
        var rows = await OutboxAsync();
        Assert.Equal(0, await outbox.AskForReleaseAsync(Key, "ada", "", Now, Token));
        Assert.Empty(await outbox.ReleasesAsync(Token));
        await outbox.StickAsync(Key, "a queue refuses it", Now, [.. rows.Select(row => row.Id)], []);

        Assert.Equal(5, await outbox.AskForReleaseAsync(Key, "ada", "there is room", Now, Token));
        Assert.Equal(5, await outbox.AskForReleaseAsync(Key, "ada", "there is room", Now, Token));

        Assert.Equal((Key, 2L), Assert.Single(await outbox.ReleasesAsync(Token)));
        Assert.Equal(2, await CountAsync("audit WHERE who = 'ada' AND action = 'relay.release' AND detail = 'there is room'"));
        Assert.Equal(["A-0", "A-1"], (await outbox.ReleaseAsync(Key, AllShards, 2, 100, Token)).Rows.Select(row => row.OrderId));
        Assert.Equal(3, Assert.Single(await outbox.StuckAsync(null, Token)).Events);
    }

    [Fact]
    public async Task What_is_loaded_has_its_bounds_in_bytes_too_and_is_at_least_one_row()
    {
        var outbox = new OutboxStore(Store.Database);
        await Store.AppendAsync([.. Enumerable.Range(0, 20).Select(number => Place($"k-{number}", $"A-{number}"))]);
        var rows = await OutboxAsync();

        var some = await outbox.LoadAsync(Load(100) with { MaxBytes = rows.Take(7).Sum(row => row.Memory) }, Token);
        var one = await outbox.LoadAsync(Load(100) with { MaxBytes = 1 }, Token);

        Assert.Equal((7, false), (some.Rows.Count, some.All));
        Assert.Equal((1, false), (one.Rows.Count, one.All));
    }

    protected async Task<IReadOnlyList<OutboxRow>> OutboxAsync() =>
        (await new OutboxStore(Store.Database).LoadAsync(Load(100_000), Token)).Rows;

    private static LoadRequest Load(int limit) => new(AllShards, new HashSet<long>(), limit, long.MaxValue, AnyStuck: false, After: 0);

    /// <summary>What happens to a deferred command whose time is over.</summary>
    protected static Task ExpireAsync(StoreInstance instance, string key) => instance.Database.WriteAsync(async transaction =>
    {
        await transaction.ExecuteAsync("DELETE FROM deferred WHERE key = @key", new { key });
        await transaction.ExecuteAsync("UPDATE inbox SET outcome = 4, reason = 'order_unknown' WHERE key = @key", new { key });
    });

    protected Task<(byte[] Fingerprint, long Outcome, string? Reason, string? OrderId)> InboxAsync(string key) =>
        Store.Database.ReadAsync(connection => connection.QuerySingleAsync<(byte[], long, string?, string?)>(
            "SELECT fingerprint, outcome, reason, order_id FROM inbox WHERE key = @key", new { key }), Token);

    protected static async Task<List<RecordedEvent>> ReadAllAsync(EventQueries events)
    {
        var all = new List<RecordedEvent>();
        while (await events.AfterAsync(all.Count == 0 ? 0 : all[^1].Position, 500, Token) is { Events: { Count: > 0 } page })
        {
            all.AddRange(page);
        }
        return all;
    }

    private Task ExecuteAsync(string sql, object? parameters = null) =>
        Store.Database.WriteAsync(transaction => transaction.ExecuteAsync(sql, parameters), Token);

    private Task<long> AddLetterAsync(string key, byte[] fingerprint, string status) =>
        Store.Database.WriteAsync(transaction => transaction.ExecuteScalarAsync<long>(
            """
            INSERT INTO dead_letters (key, fingerprint, incident, status, reason, detail, body, properties, parked_at, opened_at)
            VALUES (@key, @fingerprint, 'i', @status, 'internal_error', 'd', @body, '{}', 1, 1) RETURNING id
            """,
            new { key, fingerprint, status, body = Array.Empty<byte>() }), Token);

    private Task<string?> LetterStatusAsync(long id) =>
        Store.Database.ReadAsync(connection => connection.ExecuteScalarAsync<string>("SELECT status FROM dead_letters WHERE id = @id", new { id }), Token);

    /// <summary>An empty database and what is open on it.</summary>
    protected sealed class FreshDatabase(Func<StoreInstance> open) : IAsyncDisposable
    {
        private readonly List<StoreInstance> opened = [];

        public Task<StoreInstance> OpenAsync()
        {
            var instance = open();
            opened.Add(instance);
            return Task.FromResult(instance);
        }

        public async ValueTask DisposeAsync()
        {
            foreach (var instance in opened)
            {
                await instance.DisposeAsync();
            }
        }
    }
}

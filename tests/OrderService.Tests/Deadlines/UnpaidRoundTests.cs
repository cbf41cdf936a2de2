using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using OrderService.Deadlines;
using OrderService.Domain;
using OrderService.Inbox;
using OrderService.Outbox;
using OrderService.Projections;
using OrderService.Store;
using OrderService.Tests.Infrastructure;
using OrderService.Tests.Store;
using static OrderService.Tests.Store.Messages;

namespace OrderService.Tests.Deadlines;

/// <summary>An order that nobody pays is cancelled once, through the queue; nothing else is.</summary>
public abstract class UnpaidRoundContract
{
    private static readonly TimeSpan After = TimeSpan.FromDays(3);
    private static readonly TimeSpan Later = After + TimeSpan.FromMinutes(1);

    private const string ALetter =
        """
        INSERT INTO dead_letters (key, fingerprint, incident, status, reason, detail, order_id, parked_at, opened_at, body, properties)
        VALUES ('l', @some, 'i', 'parked', 'r', 'd', 'A-1', 1, 1, @some, '{}')
        """;

    private const string AWaitingCommand =
        """
        INSERT INTO deferred (key, order_id, type, body, properties, fingerprint, correlation_id, received_at, expires_at)
        VALUES ('w', 'A-1', 'order.pay', @some, '{}', @some, 'c', 1, 1)
        """;

    private const string ARejection =
        "INSERT INTO rejections (key, fingerprint, reason, detail, order_id, rejected_at) VALUES ('r', @some, 'r', 'd', 'A-1', 1)";

    protected static CancellationToken Stopping => TestContext.Current.CancellationToken;

    protected abstract Task<TestStore> OpenStoreAsync();

    [Fact]
    public async Task An_unpaid_order_is_cancelled_after_its_time_and_not_before()
    {
        await using var world = await OpenAsync();
        await world.DecideAsync(Place("p-1", "A-1"));

        world.Clock.Advance(After - TimeSpan.FromSeconds(1));
        Assert.Equal(0, (await world.Round().RunAsync(Stopping)).Sent);
        world.Clock.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal(1, (await world.Round().RunAsync(Stopping)).Sent);

        var message = Assert.Single(world.Sent);
        Assert.Equal(("orders.in", "orders", "A-1", "order.cancel"), (message.Exchange, message.RoutingKey, message.OrderId, message.Type));
        Assert.Equal("""{"orderId":"A-1","reason":"Not paid in time.","expectedVersion":1}""", System.Text.Encoding.UTF8.GetString(message.Body.Span));
        Assert.Equal(Fate.Accepted, (await world.DeliverAsync()).Fate);
        var order = await world.OrderAsync("A-1");
        Assert.Equal((OrderStatus.Cancelled, "Not paid in time.", 2L), (order.Status, order.CancelReason, order.Version));
        Assert.Equal(0, (await world.Round().RunAsync(Stopping)).Sent);
    }

    [Fact]
    public async Task Who_asks_is_told_when_an_order_will_be_cancelled()
    {
        await using var world = await OpenAsync();
        await world.DecideAsync(Place("p-1", "A-1"), Place("p-2", "A-2"), Pay("pay-2", "A-2"));

        Assert.Equal("It is not paid, and is cancelled soon after 2026-03-04 03:00:00Z if nothing happens to it before.", await NextAsync("A-1", After));
        Assert.Equal("Nothing; the order waits for its next command.", await NextAsync("A-1", null));
        Assert.Equal("Nothing; the order waits for its next command.", await NextAsync("A-2", After));

        async Task<string> NextAsync(string orderId, TimeSpan? after) =>
            Assert.Single((await new OrderStory(world.Store.Database, new EventQueries(world.Store.Database)).WhyAsync(orderId, Stopping, after))!.Next);
    }

    [Theory]
    [InlineData("it is paid", "order.pay", """{"orderId":"A-1","paymentReference":"P-1"}""")]
    [InlineData("a part is paid", "order.pay", """{"orderId":"A-1","paymentReference":"P-1","amount":0.01}""")]
    [InlineData("money is set aside for it", "order.authorize", """{"orderId":"A-1","paymentReference":"P-1","amount":0.01}""")]
    [InlineData("it is shipped", "order.ship", """{"orderId":"A-1"}""")]
    [InlineData("a part is shipped", "order.ship", """{"orderId":"A-1","lines":[{"lineId":"1","quantity":1}]}""")]
    [InlineData("it is held", "order.hold", """{"orderId":"A-1","reason":"The bank transfer is on its way."}""")]
    [InlineData("it is cancelled", "order.cancel", """{"orderId":"A-1","reason":"changed my mind"}""")]
    public async Task An_order_stays_as_it_is_when(string what, string command, string body)
    {
        await using var world = await OpenAsync();
        await world.DecideAsync(Place("p-1", "A-1"), Place("p-2", "A-2"));
        Assert.Equal(Fate.Accepted, (await world.DecideAsync(Of("more", command, body)))[0].Fate);
        world.Clock.Advance(Later);

        await world.Round().RunAsync(Stopping);

        // Its neighbour goes.
        Assert.True(world.Sent.Select(message => message.OrderId).SequenceEqual(["A-2"]), what);
    }

    [Theory]
    [InlineData("a letter is open", ALetter)]
    [InlineData("a command waits", AWaitingCommand)]
    [InlineData("a rejected message has no letter yet", ARejection)]
    [InlineData("its stream can't be read", "UPDATE events SET data = @some WHERE order_id = 'A-1'; UPDATE orders SET needs_stream = 1 WHERE order_id = 'A-1'")]
    public async Task An_order_stays_as_it_is_while(string what, string sql)
    {
        await using var world = await OpenAsync();
        await world.DecideAsync(Place("p-1", "A-1"), Place("p-2", "A-2"));
        await world.Store.ExecuteAsync(sql, new { some = new byte[] { 1 } });
        world.Clock.Advance(Later);

        await world.Round().RunAsync(Stopping);

        Assert.True(world.Sent.Select(message => message.OrderId).SequenceEqual(["A-2"]), what);
    }

    [Fact]
    public async Task A_payment_that_came_before_the_cancellation_wins_and_the_refusal_asks_for_nobody()
    {
        await using var world = await OpenAsync();
        await world.DecideAsync(Place("p-1", "A-1"));
        world.Clock.Advance(Later);
        await world.Round().RunAsync(Stopping);

        // It waited in the queue before it.
        await world.DecideAsync(Pay("pay-1", "A-1"));
        var late = await world.DeliverAsync();

        Assert.Equal((Fate.Refused, RefusalCode.VersionConflict), (late.Fate, late.Reason));
        Assert.Equal(OrderStatus.Paid, (await world.OrderAsync("A-1")).Status);
        foreach (var table in (string[])["dead_letters", "rejections", "alerts", "refused_payments"])
        {
            Assert.Equal(0, await world.Store.ScalarAsync<long>($"SELECT count(*) FROM {table}"));
        }
        Assert.Equal(0, (await world.Round().RunAsync(Stopping)).Sent);
    }

    [Fact]
    public async Task An_order_that_changed_meanwhile_has_its_whole_time_again_and_is_cancelled_then()
    {
        await using var world = await OpenAsync();
        await world.DecideAsync(Place("p-1", "A-1"));
        world.Clock.Advance(Later);
        var round = world.Round();
        await round.RunAsync(Stopping);
        await world.DecideAsync(Of("amend", "order.amend", """{"orderId":"A-1","attributes":{"gift":"yes"}}"""));
        Assert.Equal(RefusalCode.VersionConflict, (await world.DeliverAsync()).Reason);

        Assert.Equal(0, (await round.RunAsync(Stopping)).Sent);
        world.Clock.Advance(Later);
        Assert.Equal(1, (await round.RunAsync(Stopping)).Sent);

        Assert.Equal(Fate.Accepted, (await world.DeliverAsync()).Fate);
        Assert.Equal(OrderStatus.Cancelled, (await world.OrderAsync("A-1")).Status);
    }

    [Fact]
    public async Task A_released_order_has_its_whole_time_again()
    {
        await using var world = await OpenAsync();
        await world.DecideAsync(Place("p-1", "A-1"), Of("hold", "order.hold", """{"orderId":"A-1","reason":"The address is checked."}"""));
        world.Clock.Advance(Later);
        await world.DecideAsync(Of("release", "order.release", """{"orderId":"A-1"}"""));

        Assert.Equal(0, (await world.Round().RunAsync(Stopping)).Sent);
        world.Clock.Advance(Later);
        Assert.Equal(1, (await world.Round().RunAsync(Stopping)).Sent);

        Assert.Equal(Fate.Accepted, (await world.DeliverAsync()).Fate);
    }

    [Fact]
    public async Task What_was_not_confirmed_is_sent_again_and_copies_have_one_effect()
    {
        await using var world = await OpenAsync();
        await world.DecideAsync(Place("p-1", "A-1"), Place("p-2", "A-2"));
        world.Clock.Advance(Later);
        world.Outcome = new PublishOutcome.Unknown("the connection broke");
        var round = world.Round();

        Assert.Equal(0, (await round.RunAsync(Stopping)).Sent);
        world.Outcome = PublishOutcome.Confirmed.Instance;
        world.Clock.Advance(TimeSpan.FromSeconds(5));
        Assert.Equal(2, (await round.RunAsync(Stopping)).Sent);
        // Another instance, or this one after a restart.
        world.Clock.Advance(TimeSpan.FromSeconds(5));
        Assert.Equal(2, (await world.Round().RunAsync(Stopping)).Sent);

        Assert.Equal(["A-1", "A-1", "A-2", "A-1", "A-2"], world.Sent.Select(message => message.OrderId));
        var fates = await world.DeliverAllAsync();
        Assert.Equal([Fate.Accepted, Fate.Duplicate, Fate.Accepted, Fate.Duplicate, Fate.Duplicate], fates);
        Assert.Equal(2, await world.Store.ScalarAsync<long>("SELECT count(*) FROM events WHERE type = 'ORDER_CANCELLED'"));
    }

    [Fact]
    public async Task Of_several_instances_one_sends_at_a_time()
    {
        await using var world = await OpenAsync();
        await world.DecideAsync(Place("p-1", "A-1"));
        world.Clock.Advance(Later);

        Assert.Equal(1, (await world.Round().RunAsync(Stopping)).Sent);
        Assert.Equal(0, (await world.Round().RunAsync(Stopping)).Sent);

        Assert.Single(world.Sent);
    }

    [Fact]
    public async Task Nothing_is_sent_while_intake_is_paused()
    {
        await using var world = await OpenAsync();
        await world.DecideAsync(Place("p-1", "A-1"));
        world.Clock.Advance(Later);
        var intake = new Intake(world.Store.Database, world.Time);
        await intake.PauseAsync(["orders"], "anna", "the disk is changed", Stopping);

        Assert.Equal(0, (await world.Round().RunAsync(Stopping)).Sent);
        await intake.ResumeAsync(["orders"], "anna", "it is changed", Stopping);
        Assert.Equal(1, (await world.Round().RunAsync(Stopping)).Sent);
    }

    [Fact]
    public async Task A_cancellation_whose_letter_was_discarded_is_not_sent_again()
    {
        await using var world = await OpenAsync();
        await world.DecideAsync(Place("p-1", "A-1"));
        world.Clock.Advance(Later);
        await world.Round().RunAsync(Stopping);
        await world.DecideAsync(World.Incoming(world.Sent[0]).GivenUp());
        await world.Store.ExecuteAsync("DELETE FROM rejections");
        world.Clock.Advance(TimeSpan.FromMinutes(1));

        Assert.Equal(0, (await world.Round().RunAsync(Stopping)).Sent);
    }

    [Fact]
    public async Task A_clock_that_is_set_forward_cancels_nothing()
    {
        await using var world = await OpenAsync();
        await world.DecideAsync(Place("p-1", "A-1"));
        var round = world.Round();
        await round.RunAsync(Stopping);

        world.Clock.Step(TimeSpan.FromDays(30));
        Assert.Equal(0, (await round.RunAsync(Stopping)).Sent);
        world.Clock.Advance(Later);
        Assert.Equal(1, (await round.RunAsync(Stopping)).Sent);
    }

    [Fact]
    public async Task Many_go_in_rounds_of_bounded_size_and_orders_that_stay_hold_none_up()
    {
        await using var world = await OpenAsync();
        // Authorized long ago: placed still, looked at and passed over.
        await world.FillAsync("old", 6000, PaymentStatus.Authorized);
        await world.FillAsync("unpaid", 700, PaymentStatus.Unpaid);
        world.Clock.Advance(Later);
        var round = world.Round();

        var results = new List<UnpaidResult>();
        do
        {
            results.Add(await round.RunAsync(Stopping));
            world.Clock.Advance(TimeSpan.FromSeconds(5));
        }
        while (results[^1].HasMore && results.Count < 10);

        Assert.Equal([new UnpaidResult(0, true), new UnpaidResult(500, true), new UnpaidResult(200, false)], results);
        Assert.Equal(700, world.Sent.Select(message => message.OrderId).Distinct().Count());
    }

    private async Task<World> OpenAsync() => new(await OpenStoreAsync());

    private sealed class World : IAsyncDisposable
    {
        private readonly InboxCommit commit;
        private int delivered;

        public World(TestStore store)
        {
            Store = store;
            Time = new StoreTime(Clock) { ServerClock = Clock.GetUtcNow };
            commit = new InboxCommit(store.Log, [], Options.Create(new OrdersOptions()), Clock);
        }

        public TestStore Store { get; }

        public SteppingTime Clock { get; } = new(new DateTimeOffset(2026, 3, 1, 3, 0, 0, TimeSpan.Zero));

        public StoreTime Time { get; }

        public List<OutgoingMessage> Sent { get; } = [];

        public PublishOutcome Outcome { get; set; } = PublishOutcome.Confirmed.Instance;

        /// <summary>What an instance has, from its start.</summary>
        public UnpaidRound Round() => new(
            Store.Database,
            message =>
            {
                Sent.Add(message);
                return Task.FromResult<PublishOutcome?>(Outcome);
            },
            Options.Create(new OrdersOptions { CancelUnpaidAfter = After }), Time, Clock, NullLogger<UnpaidRound>.Instance);

        public async Task<IReadOnlyList<Incoming>> DecideAsync(params Incoming[] batch)
        {
            await commit.CommitAsync(batch, Stopping);
            return batch;
        }

        public static Incoming Incoming(OutgoingMessage message)
        {
            var properties = new MessageProperties { MessageId = message.MessageId, Type = message.Type, ContentType = message.ContentType };
            return new Incoming(EnvelopeDecoder.Decode(properties, message.Body), message.Body, properties);
        }

        /// <summary>What was sent and not delivered yet: one message.</summary>
        public async Task<Incoming> DeliverAsync() => (await DecideAsync(Incoming(Sent[delivered++])))[0];

        public async Task<List<Fate>> DeliverAllAsync()
        {
            var fates = new List<Fate>();
            while (delivered < Sent.Count)
            {
                fates.Add((await DeliverAsync()).Fate);
            }
            return fates;
        }

        public async Task<Order> OrderAsync(string orderId)
        {
            var stream = await new EventQueries(Store.Database).StreamAsync(orderId, Stopping);
            return Order.Fold(orderId, stream.Select(recorded => EventSerializer.Read(recorded.Type, recorded.Data.Span)));
        }

        /// <summary>Rows alone, of now.</summary>
        public async Task FillAsync(string name, int count, PaymentStatus payment)
        {
            var now = Clock.GetUtcNow().ToUnixTimeMilliseconds();
            foreach (var chunk in Enumerable.Range(0, count).Chunk(500))
            {
                var rows = chunk.Select(number => $"('{name}-{number}', 1, 1, 'C-1', 'EUR', 100, 1, {now}, {now}, @hash, {(int)payment})");
                await Store.ExecuteAsync(
                    $"""
                    INSERT INTO orders
                        (order_id, version, status, customer_id, currency, total_minor, line_count, placed_at, updated_at, last_hash, payment_status)
                    VALUES {string.Join(", ", rows)}
                    """,
                    new { hash = new byte[32] });
            }
        }

        public ValueTask DisposeAsync() => Store.DisposeAsync();
    }
}

public sealed class SqliteUnpaidRoundTests : UnpaidRoundContract
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync();
}

public sealed class PostgresUnpaidRoundTests(PostgresContainerFixture postgres) : UnpaidRoundContract
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync(postgres);
}

using System.Text;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using OrderService.DeadLetters;
using OrderService.Inbox;
using OrderService.Notifications;
using OrderService.Observability;
using OrderService.Store;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.DeadLetters;

/// <summary>A store, a clock that stands still, and everything that handles dead letters, without a broker.</summary>
internal sealed class LetterWorld : IAsyncDisposable
{
    private LetterWorld(TestStore store, SteppingTime clock, AlertsOptions alerts, DeadLettersOptions letters)
    {
        Store = store;
        Clock = clock;
        Troubles = new Troubles(clock);
        Parking = new DeadLetterParking(Options.Create(alerts), clock);
        // PostgreSQL's clock is this one, too.
        Time = new StoreTime(clock) { ServerClock = clock.GetUtcNow };
        Steps = new ClockSteps(store.Database, Time, Troubles, Options.Create(new OrdersOptions()), clock, NullLogger<ClockSteps>.Instance);
        Notifier = new DeadLetterNotifier(store.Database, Options.Create(alerts), Troubles, Time, clock, NullLogger<DeadLetterNotifier>.Instance);
        Missing = new MissingLetters(store.Database, Parking, Options.Create(letters), Troubles, clock, NullLogger<MissingLetters>.Instance);
        Overdue = new OverdueCommands(store.Database, Parking, Steps, Troubles, clock, NullLogger<OverdueCommands>.Instance);
        Queries = new DeadLetterQueries(store.Database, clock);
        Discards = new DeadLetterDiscards(store.Database, clock);
        Replay = new DeadLetterReplay(store.Database, Options.Create(letters), clock);
    }

    public static CancellationToken Stopping => TestContext.Current.CancellationToken;

    public TestStore Store { get; }
    public SteppingTime Clock { get; }
    public StoreTime Time { get; }
    public ClockSteps Steps { get; }
    public Troubles Troubles { get; }
    public DeadLetterParking Parking { get; }
    public DeadLetterNotifier Notifier { get; }
    public MissingLetters Missing { get; }
    public OverdueCommands Overdue { get; }
    public DeadLetterQueries Queries { get; }
    public DeadLetterDiscards Discards { get; }
    public DeadLetterReplay Replay { get; }

    public static LetterWorld Over(TestStore store, AlertsOptions? alerts = null, DeadLettersOptions? letters = null) => new(
        store, new SteppingTime(new DateTimeOffset(2026, 3, 1, 3, 0, 0, TimeSpan.Zero)), alerts ?? new AlertsOptions(), letters ?? new DeadLettersOptions());

    public static byte[] Order(string orderId, string customerId = "C-1", string price = "10.00", string currency = "EUR") => Encoding.UTF8.GetBytes(
        $$"""{"orderId":"{{orderId}}","customerId":"{{customerId}}","currency":"{{currency}}","lines":[{"sku":"KB-01","quantity":2,"unitPrice":{{price}}}]}""");

    /// <summary>The headers a broker adds when it moves a message from <paramref name="queue"/> to the dead-letter queue.</summary>
    public static Dictionary<string, object?> Death(string reason = "rejected", string queue = "orders") => new()
    {
        ["x-death"] = new List<object?> { new Dictionary<string, object?> { ["queue"] = queue, ["reason"] = reason, ["count"] = 1L, ["exchange"] = "", ["time"] = 1_800_000_000L, ["routing-keys"] = new List<object?> { queue } } },
        ["x-delivery-count"] = 1L,
        ["x-first-death-queue"] = queue,
        ["x-first-death-reason"] = reason,
    };

    public static LetterArrival Arrival(byte[] body, string? messageId = null, Dictionary<string, object?>? headers = null, string? type = null) =>
        new(body, new MessageProperties { MessageId = messageId, Headers = headers ?? Death(), Type = type, ContentType = "application/json" });

    /// <summary>What the intake makes of an arrival that the flow rejected.</summary>
    public static DeadLetter Letter(LetterArrival arrival, string reason)
    {
        var (key, fingerprint) = EnvelopeDecoder.Identify(arrival.Properties, arrival.Body);
        return DeadLetter.Of(key, fingerprint, new Rejection(reason, "Why.", null), null, arrival.Body.ToArray(), arrival.Properties);
    }

    /// <summary>The same message when the dead-letter queue hands it out once more.</summary>
    public static LetterArrival Again(LetterArrival arrival) => arrival with
    {
        Properties = new MessageProperties
        {
            MessageId = arrival.Properties.MessageId,
            ContentType = arrival.Properties.ContentType,
            Headers = new Dictionary<string, object?>(arrival.Properties.Headers!) { ["x-delivery-count"] = 2L },
        },
    };

    /// <summary>What the intake does with a batch.</summary>
    public Task<IReadOnlyList<ParkOutcome>> TakeInAsync(params LetterArrival[] arrivals) => Store.Database.WriteAsync(async transaction =>
        await Parking.ParkAsync(transaction, await LetterArrival.ExplainAsync(transaction, arrivals)), Stopping);

    /// <summary>What the order flow commits before it rejects a delivery.</summary>
    public async Task RejectAsync(LetterArrival arrival, string reason, string? field = null, string? exception = null)
    {
        var (key, fingerprint) = EnvelopeDecoder.Identify(arrival.Properties, arrival.Body);
        await Store.ExecuteAsync(
            """
            INSERT INTO rejections (key, fingerprint, reason, detail, field, exception, body, properties, rejected_at) VALUES (@key, @fingerprint, @reason, 'Why.', @field, @exception, @body, @properties, @now)
            ON CONFLICT (key, fingerprint) DO UPDATE SET reason = excluded.reason, parked = 0, body = excluded.body, properties = excluded.properties
            """,
            new { key, fingerprint, reason, field, exception, body = arrival.Body.ToArray(), properties = MessagePropertiesJson.Write(arrival.Properties), now = Clock.GetUtcNow().ToUnixTimeMilliseconds() });
    }

    /// <summary>Rejected by the flow and taken in.</summary>
    public async Task<ParkOutcome> DieAsync(LetterArrival arrival, string reason, string? field = null, string? exception = null)
    {
        await RejectAsync(arrival, reason, field, exception);
        return (await TakeInAsync(arrival))[0];
    }

    public Task DecideAsync(LetterArrival arrival, int outcome)
    {
        var (key, fingerprint) = EnvelopeDecoder.Identify(arrival.Properties, arrival.Body);
        return Store.ExecuteAsync("INSERT INTO inbox (key, fingerprint, outcome, decided_at) VALUES (@key, @fingerprint, @outcome, 0)", new { key, fingerprint, outcome });
    }

    /// <summary>One tick of the notifier.</summary>
    public Task NotifyAsync() => Notifier.LookAsync(Stopping);

    public async Task<LetterSummary> OnlyLetterAsync() => Assert.Single(await Queries.ListAsync(new LetterFilter(), null, 100, Stopping));

    public Task<long> AlertsAsync(string kind) => Store.ScalarAsync<long>("SELECT count(*) FROM alerts WHERE kind = @kind", new { kind });

    public Task<long> UncoveredAsync() => Store.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE alert_id IS NULL AND status <> 'superseded'");

    /// <summary>The replay's message as the broker would hand it out after the flow rejected it again.</summary>
    public async Task<LetterArrival> ReplayedArrivalAsync()
    {
        var row = Assert.Single(await Store.QueryAsync<OutboxRow>("SELECT message, body FROM outbox ORDER BY id DESC LIMIT 1")).Opened(Store);
        var message = OrderService.Outbox.Announcement.Parse(row.Message);
        var headers = Death();
        foreach (var (name, value) in message.Headers!)
        {
            headers[name] = value;
        }
        return Arrival(row.Body, message.MessageId, headers);
    }

    public ValueTask DisposeAsync() => Store.DisposeAsync();

    public sealed class OutboxRow
    {
        public string Message { get; init; } = "";
        public byte[] Body { get; init; } = [];

        /// <summary>With the body as it came.</summary>
        public OutboxRow Opened(TestStore store) => new() { Message = Message, Body = store.Database.Keys.OpenOrNone(Body) };
    }
}

/// <summary>What holds on every store.</summary>
public abstract class LetterContract
{
    protected abstract Task<TestStore> OpenStoreAsync();

    private protected async Task<LetterWorld> OpenAsync(AlertsOptions? alerts = null, DeadLettersOptions? letters = null) =>
        LetterWorld.Over(await OpenStoreAsync(), alerts, letters);
}

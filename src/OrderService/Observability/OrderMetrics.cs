using System.Diagnostics.Metrics;

namespace OrderService.Observability;

/// <summary>
/// Every number that the service publishes about itself, in one place. Names follow OpenTelemetry; Prometheus shows <c>orders.received</c> as <c>orders_received_total</c>.
/// Labels are few and bounded: reasons, outcomes and channels, never ids or keys.
/// </summary>
public sealed class OrderMetrics : IDisposable
{
    public const string MeterName = "OrderService";

    private readonly Meter meter;
    private readonly Counter<long> received;
    private readonly Counter<long> processed;
    private readonly Counter<long> duplicates;
    private readonly Counter<long> deadLettered;
    private readonly Counter<long> relayed;
    private readonly Counter<long> relayFailures;
    private readonly Counter<long> replays;
    private readonly Counter<long> alerts;
    private readonly Counter<long> lettersParked;
    private readonly Counter<long> retained;
    private readonly Histogram<double> retentionStep;
    private readonly Histogram<double> commitDuration;
    private readonly Histogram<long> batchSize;

    private long receivedTotal, acceptedTotal, refusedTotal, deferredTotal, duplicatesTotal, deadLetteredTotal, relayedTotal;
    private volatile OutboxReading outbox = new(0, TimeSpan.Zero);
    private volatile IReadOnlyList<QueueReading> queues = [];
    private volatile IReadOnlyDictionary<string, long> openLetters = new Dictionary<string, long>();
    private volatile IReadOnlyList<string> knownReasons = [];
    private volatile int circuitState;
    private volatile IReadOnlyList<(string Queue, bool IsPaused)> intake = [];
    private volatile OutboxReading? kafka;
    private volatile Func<TimeSpan>? sealing;

    /// <param name="log">Null where nothing is logged.</param>
    public OrderMetrics(IMeterFactory meters, LogLines? log = null)
    {
        meter = meters.Create(MeterName);
        received = meter.CreateCounter<long>("orders.received", "{message}", "Deliveries taken from the queue, copies included.");
        processed = meter.CreateCounter<long>("orders.processed", "{message}", "Messages decided and committed, by outcome: accepted, refused or deferred.");
        duplicates = meter.CreateCounter<long>("orders.duplicates", "{message}", "Copies of a message that had been decided before.");
        deadLettered = meter.CreateCounter<long>("orders.dead_lettered", "{message}", "Messages given up, by reason.");
        relayed = meter.CreateCounter<long>("orders.relayed", "{message}", "Events that the broker confirmed.");
        relayFailures = meter.CreateCounter<long>("orders.relay.failures", "{message}", "Publishes that were refused, unroutable or not confirmed in time; they are tried again.");
        lettersParked = meter.CreateCounter<long>("orders.dlq.parked", "{message}", "Dead letters stored for an operator, by reason.");
        replays = meter.CreateCounter<long>("orders.replays", "{replay}", "Replayed dead letters, by outcome: resolved or failed.");
        alerts = meter.CreateCounter<long>("orders.alerts.sent", "{alert}", "Alerts handed to a channel, by channel and outcome.");
        retained = meter.CreateCounter<long>("orders.retention.removed", "{row}", "Rows that were old enough to go, by kind; an order counts as one.");
        var seconds = new InstrumentAdvice<double> { HistogramBucketBoundaries = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10] };
        commitDuration = meter.CreateHistogram("orders.commit.duration", "s", "One group commit to the store.", advice: seconds);
        retentionStep = meter.CreateHistogram("orders.retention.step.duration", "s", "How long a step of retention held the store's writer.", advice: seconds);
        batchSize = meter.CreateHistogram("orders.batch.size", "{message}", "Messages decided in one transaction.",
            advice: new InstrumentAdvice<long> { HistogramBucketBoundaries = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000] });
        meter.CreateObservableGauge("orders.outbox.pending", () => outbox.Pending, "{message}", "Committed events that the broker has not confirmed yet.");
        meter.CreateObservableGauge("orders.outbox.oldest_age", () => outbox.OldestAge.TotalSeconds, "s", "Age of the oldest event that is not confirmed yet.");
        meter.CreateObservableGauge("orders.queue.depth", MeasureQueues, "{message}", "Messages in each queue, by state: ready or unacknowledged.");
        meter.CreateObservableGauge("orders.queue.consumers", () => queues.Select(queue => new Measurement<long>(queue.Consumers, new KeyValuePair<string, object?>("queue", queue.Queue))), "{consumer}", "Consumers of each queue.");
        meter.CreateObservableGauge("orders.queue.oldest_age", () => queues.Where(queue => queue.OldestAge is not null).Select(queue => new Measurement<double>(queue.OldestAge!.Value.TotalSeconds, new KeyValuePair<string, object?>("queue", queue.Queue))), "s", "How long the oldest message that is ready in each queue has waited at the least; absent where that is not known.");
        meter.CreateObservableGauge("orders.dlq.open", MeasureLetters, "{message}", "Dead letters that wait for an operator, by reason.");
        meter.CreateObservableGauge("orders.kafka.lag", () => kafka is { } reading ? [new Measurement<long>(reading.Pending)] : (Measurement<long>[])[], "{message}", "Events of the log that Kafka does not have yet; only where the stream is on.");
        meter.CreateObservableGauge("orders.kafka.oldest_age", () => kafka is { } reading ? [new Measurement<double>(reading.OldestAge.TotalSeconds)] : (Measurement<double>[])[], "s", "Age of the oldest event that Kafka does not have yet.");
        meter.CreateObservableGauge("orders.intake.paused", () => intake.Select(queue => new Measurement<long>(queue.IsPaused ? 1 : 0, new KeyValuePair<string, object?>("queue", queue.Queue))), "{queue}", "1 while somebody paused the intake of the queue, else 0.");
        meter.CreateObservableGauge("orders.seals.age", () => sealing is { } age ? [new Measurement<double>(age().TotalSeconds)] : (Measurement<double>[])[], "s", "How long ago everything that was committed had its seal: no row without one is older. Only in processes that seal.");
        meter.CreateObservableCounter("orders.log.dropped", () => log?.Dropped ?? 0, "{line}", "Log lines that found no room because nobody took them in time.");
        meter.CreateObservableGauge("orders.circuit.state", () => (long)circuitState, "{state}", "The store's circuit breaker: 0 closed, 1 half open, 2 open.");
    }

    /// <summary>What happened since the process started, for <c>GET /api/stats</c>.</summary>
    public OrderTotals Totals => new(
        Interlocked.Read(ref receivedTotal), Interlocked.Read(ref acceptedTotal), Interlocked.Read(ref duplicatesTotal), Interlocked.Read(ref refusedTotal), Interlocked.Read(ref deferredTotal),
        Interlocked.Read(ref deadLetteredTotal), Interlocked.Read(ref relayedTotal));

    /// <summary>The last reading of the outbox.</summary>
    public OutboxReading Outbox => outbox;

    /// <summary>The last reading of the queues; empty until the first one.</summary>
    public IReadOnlyList<QueueReading> Queues => queues;

    /// <summary>The circuit breaker around the store.</summary>
    public CircuitState Circuit => (CircuitState)circuitState;

    /// <summary>Makes every series that can be known: whoever watches how much a counter grows must see its first event too.</summary>
    /// <param name="reasons">Why a message can be given up.</param>
    public void Begin(IEnumerable<string> reasons)
    {
        received.Add(0);
        duplicates.Add(0);
        relayed.Add(0);
        relayFailures.Add(0);
        foreach (var outcome in (string[])["accepted", "refused", "deferred"])
        {
            processed.Add(0, new KeyValuePair<string, object?>("outcome", outcome));
        }
        knownReasons = [.. reasons];
        foreach (var reason in knownReasons)
        {
            deadLettered.Add(0, new KeyValuePair<string, object?>("reason", reason));
            lettersParked.Add(0, new KeyValuePair<string, object?>("reason", reason));
        }
        foreach (var outcome in (string[])["resolved", "failed"])
        {
            replays.Add(0, new KeyValuePair<string, object?>("outcome", outcome));
        }
        foreach (var channel in (string[])["log", "email", "webhook", "slack", "teams"])
        {
            foreach (var outcome in (string[])["sent", "retried", "failed"])
            {
                alerts.Add(0, new KeyValuePair<string, object?>("channel", channel), new KeyValuePair<string, object?>("outcome", outcome));
            }
        }
    }

    /// <summary>Makes the series of retention, in the process that may do it.</summary>
    public void BeginRetention(IEnumerable<string> kinds)
    {
        foreach (var kind in kinds)
        {
            retained.Add(0, new KeyValuePair<string, object?>("kind", kind));
        }
    }

    public void Retained(string kind, long rows, TimeSpan step)
    {
        retained.Add(rows, new KeyValuePair<string, object?>("kind", kind));
        retentionStep.Record(step.TotalSeconds);
    }

    public void Received(int count = 1)
    {
        Interlocked.Add(ref receivedTotal, count);
        received.Add(count);
    }

    /// <param name="outcome"><c>accepted</c>, <c>refused</c> or <c>deferred</c>.</param>
    public void Processed(string outcome, int count = 1)
    {
        switch (outcome)
        {
            case "accepted":
                Interlocked.Add(ref acceptedTotal, count);
                break;
            case "refused":
                Interlocked.Add(ref refusedTotal, count);
                break;
            case "deferred":
                Interlocked.Add(ref deferredTotal, count);
                break;
        }
        processed.Add(count, new KeyValuePair<string, object?>("outcome", outcome));
    }

    public void Duplicate(int count = 1)
    {
        Interlocked.Add(ref duplicatesTotal, count);
        duplicates.Add(count);
    }

    /// <param name="reason">One of the stable reasons of the contract.</param>
    public void DeadLettered(string reason, int count = 1)
    {
        Interlocked.Add(ref deadLetteredTotal, count);
        deadLettered.Add(count, new KeyValuePair<string, object?>("reason", reason));
    }

    public void Relayed(int count = 1)
    {
        Interlocked.Add(ref relayedTotal, count);
        relayed.Add(count);
    }

    public void RelayFailed(int count = 1) => relayFailures.Add(count);

    public void LetterParked(string reason, int count = 1) => lettersParked.Add(count, new KeyValuePair<string, object?>("reason", reason));

    /// <param name="outcome"><c>resolved</c> (whatever was decided) or <c>failed</c> (a dead letter again).</param>
    public void Replayed(string outcome, int count = 1) => replays.Add(count, new KeyValuePair<string, object?>("outcome", outcome));

    /// <param name="channel"><c>log</c>, <c>email</c>, <c>webhook</c>, <c>slack</c> or <c>teams</c>.</param>
    /// <param name="outcome"><c>sent</c>, <c>retried</c> or <c>failed</c>.</param>
    public void AlertSent(string channel, string outcome) =>
        alerts.Add(1, new KeyValuePair<string, object?>("channel", channel), new KeyValuePair<string, object?>("outcome", outcome));

    public void BatchCommitted(int messages, TimeSpan commit)
    {
        batchSize.Record(messages);
        commitDuration.Record(commit.TotalSeconds);
    }

    public void SetOutbox(long pending, TimeSpan oldestAge) => outbox = new(pending, oldestAge);

    public void SetKafka(long behind, TimeSpan oldestAge) => kafka = new(behind, oldestAge);

    /// <param name="age">How long ago everything that was committed then had its seal.</param>
    public void SetSealing(Func<TimeSpan> age) => sealing = age;

    public void SetQueues(IReadOnlyList<QueueReading> readings) => queues = readings;

    public void SetOpenLetters(IReadOnlyDictionary<string, long> byReason) => openLetters = byReason;

    public void SetIntake(IReadOnlyList<(string Queue, bool IsPaused)> queues) => intake = queues;

    public void SetCircuit(CircuitState state) => circuitState = (int)state;

    public void Dispose() => meter.Dispose();

    private IEnumerable<Measurement<long>> MeasureLetters()
    {
        var open = openLetters;
        return knownReasons.Union(open.Keys).Select(reason => new Measurement<long>(open.GetValueOrDefault(reason), new KeyValuePair<string, object?>("reason", reason)));
    }

    private IEnumerable<Measurement<long>> MeasureQueues()
    {
        foreach (var queue in queues)
        {
            yield return new(queue.Ready, new("queue", queue.Queue), new("state", "ready"));
            if (queue.Unacknowledged is { } unacknowledged)
            {
                yield return new(unacknowledged, new("queue", queue.Queue), new("state", "unacknowledged"));
            }
        }
    }
}

/// <summary>Totals since the start of the process.</summary>
public sealed record OrderTotals(long Received, long Accepted, long Duplicates, long Refused, long Deferred, long DeadLettered, long Relayed);

/// <summary>How much is committed but not yet confirmed by the broker, and for how long.</summary>
public sealed record OutboxReading(long Pending, TimeSpan OldestAge);

/// <summary>What the broker says about a queue. <paramref name="Unacknowledged"/> is known only through its management API.</summary>
/// <param name="OldestAge">How long its oldest message has waited; null when that is not known.</param>
public sealed record QueueReading(string Queue, long Ready, long? Unacknowledged, long Consumers, TimeSpan? OldestAge);

/// <summary>The state of the circuit breaker around the store.</summary>
public enum CircuitState
{
    Closed = 0,
    HalfOpen = 1,
    Open = 2,
}

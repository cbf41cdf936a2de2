using System.Collections.Concurrent;
using System.Diagnostics;
using System.Diagnostics.Metrics;

namespace OrderService.Observability;

/// <summary>
/// The four messaging metrics of OpenTelemetry's semantic conventions, by the names and attributes of version 1.44 (there in development), and how long a message takes on its way.
/// All of this process alone. Destinations are queues, exchanges and topics of the settings, so that they are few.
/// </summary>
public sealed class MessagingMetrics : IDisposable
{
    public const string RabbitMq = "rabbitmq";
    public const string Kafka = "kafka";

    /// <summary>A time of sending older than this is no time of sending but a mistake of the producer's, such as milliseconds where seconds belong.</summary>
    private static readonly TimeSpan Implausible = TimeSpan.FromDays(366);

    private readonly Meter meter;
    private readonly Counter<long> sent;
    private readonly Counter<long> consumed;
    private readonly Histogram<double> operations;
    private readonly Histogram<double> processing;
    private readonly Histogram<double> critical;
    private readonly Histogram<double> relay;
    private readonly RollingTimes decidedOfLate;
    private readonly RollingTimes relayedOfLate;

    // One list of attributes for each destination and outcome, instead of one for each message.
    private readonly ConcurrentDictionary<(string Destination, string? Error), TagList> sends = new();

    public MessagingMetrics(IMeterFactory meters, TimeProvider clock)
    {
        (decidedOfLate, relayedOfLate) = (new RollingTimes(clock), new RollingTimes(clock));
        meter = meters.Create(OrderMetrics.MeterName);
        var seconds = new InstrumentAdvice<double> { HistogramBucketBoundaries = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10] };
        var waits = new InstrumentAdvice<double> { HistogramBucketBoundaries = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600] };
        sent = meter.CreateCounter<long>("messaging.client.sent.messages", "{message}", "Messages that were to be published, by destination; with error.type those that were not confirmed.");
        consumed = meter.CreateCounter<long>("messaging.client.consumed.messages", "{message}", "Messages that the broker handed over, by destination, repeated ones included.");
        operations = meter.CreateHistogram("messaging.client.operation.duration", "s", "From handing a message to the publisher until the broker confirmed it, or did not (error.type).", advice: seconds);
        processing = meter.CreateHistogram("messaging.process.duration", "s", "Deciding and committing one batch of messages.", advice: seconds);
        critical = meter.CreateHistogram("orders.critical_time", "s", "From sending (the AMQP property timestamp) to the commit of what was decided; messages without a timestamp are not in it.", advice: waits);
        relay = meter.CreateHistogram("orders.relay.delay", "s", "From the commit of an event to the broker's confirm.", advice: waits);
    }

    /// <summary>Makes the series that can be known.</summary>
    /// <param name="destinations">What is published to in the broker.</param>
    /// <param name="queues">What is consumed from.</param>
    public void Begin(IEnumerable<string> destinations, IEnumerable<string> queues)
    {
        foreach (var destination in destinations)
        {
            sent.Add(0, Sending(destination, null));
        }
        foreach (var queue in queues)
        {
            Delivered(RabbitMq, queue, 0);
        }
    }

    /// <summary>A publish has its outcome.</summary>
    /// <param name="destination">The exchange, or the queue behind the default exchange.</param>
    /// <param name="error">Null for a confirm; else what became of it, one of few words.</param>
    public void Sent(string destination, TimeSpan duration, string? error)
    {
        var tags = sends.GetOrAdd((destination, error), static key => Sending(key.Destination, key.Error));
        sent.Add(1, tags);
        operations.Record(duration.TotalSeconds, tags);
    }

    public void Delivered(string system, string source, long count) => consumed.Add(
        count, new("messaging.system", system), new("messaging.operation.name", "deliver"), new("messaging.destination.name", source));

    /// <summary>A batch was decided and committed, or was not.</summary>
    /// <param name="error">Null when it was; else the kind of failure.</param>
    public void Processed(string system, TimeSpan duration, string? error)
    {
        var tags = new TagList { { "messaging.system", system }, { "messaging.operation.name", "process" }, { "messaging.destination.name", "orders" } };
        if (error is not null)
        {
            tags.Add("error.type", error);
        }
        processing.Record(duration.TotalSeconds, tags);
    }

    /// <param name="sentAt">Unix seconds, by the producer's clock.</param>
    /// <param name="now">Unix milliseconds, by this process's.</param>
    public void Decided(long sentAt, long now)
    {
        // Whole seconds are all that AMQP has, and clocks differ: what would be negative is no time at all.
        var took = (now / 1000.0) - sentAt;
        if (took < Implausible.TotalSeconds && took > -Implausible.TotalSeconds)
        {
            critical.Record(Math.Max(0, took));
            decidedOfLate.Note(Math.Max(0, took));
        }
    }

    /// <param name="milliseconds">Between the event's commit and its confirm.</param>
    public void Relayed(long milliseconds)
    {
        var took = Math.Max(0, milliseconds) / 1000.0;
        relay.Record(took);
        relayedOfLate.Note(took);
    }

    /// <summary>What <see cref="Decided"/> was told in the last five minutes; null when nothing.</summary>
    public TimesOfLate? DecidedOfLate => decidedOfLate.Read();

    /// <summary>What <see cref="Relayed"/> was told in the last five minutes; null when nothing.</summary>
    public TimesOfLate? RelayedOfLate => relayedOfLate.Read();

    public void Dispose() => meter.Dispose();

    private static TagList Sending(string destination, string? error)
    {
        var tags = new TagList { { "messaging.system", RabbitMq }, { "messaging.operation.name", "publish" }, { "messaging.destination.name", destination } };
        if (error is not null)
        {
            tags.Add("error.type", error);
        }
        return tags;
    }
}

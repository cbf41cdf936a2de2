using Microsoft.Extensions.Options;
using OrderService.Configuration;
using OrderService.DeadLetters;
using OrderService.Inbox;
using OrderService.Kafka;
using OrderService.Observability;
using OrderService.Outbox;
using OrderService.RabbitMq;
using OrderService.Store;

namespace OrderService.Health;

/// <summary>Reads what the stations know about themselves every second, hands it to the metrics, and keeps the last quarter of an hour for the overview.</summary>
public sealed partial class StationReadings(
    ServiceRoles roles, IServiceProvider stations, IDatabase database, OrderMetrics metrics, MessagingMetrics messaging, TimeProvider clock, ILogger<StationReadings> logger) : BackgroundService
{
    public const int MaxSamples = 900;
    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(1);

    private readonly long[] counted = new long[Enum.GetValues<Fate>().Length];
    private readonly Lock gate = new();
    private readonly Queue<Sample> samples = new(MaxSamples);
    private readonly Dictionary<(string System, string Source), long> delivered = [];
    private long sent;
    private long position = -1;

    /// <summary>When this process began.</summary>
    public DateTimeOffset StartedAt { get; } = clock.GetUtcNow();

    /// <summary>The last samples, oldest first, one for each second.</summary>
    public IReadOnlyList<Sample> Samples
    {
        get
        {
            lock (gate)
            {
                return [.. samples];
            }
        }
    }

    /// <summary>Counts dead letters by their reasons, and replays that succeeded; called after each commit.</summary>
    internal void Count(Append append)
    {
        foreach (var rejection in append.Rejections)
        {
            metrics.DeadLettered(rejection.Reason);
        }
        foreach (var letter in append.Letters)
        {
            if (letter.Resolved)
            {
                metrics.Replayed("resolved");
            }
        }
    }

    protected override Task ExecuteAsync(CancellationToken stoppingToken)
    {
        metrics.Begin(RejectionReason.All);
        messaging.Begin([TopologyNames.OrderEvents, TopologyNames.OrdersIn], [.. stations.GetRequiredService<Topology>().OrderQueues, TopologyNames.DeadLetters]);
        return PeriodicLoop.AtOnceAsync(Interval, clock, async token =>
        {
            try
            {
                await ReadAsync(token);
            }
            catch (StoreUnavailableException)
            {
                // Readiness says so; the last readings stay.
            }
        }, stoppingToken, failed: LogReadingFailed);
    }

    private async Task ReadAsync(CancellationToken cancellationToken)
    {
        var before = metrics.Totals;
        if (roles.Orders)
        {
            ReadInbox(stations.GetRequiredService<OrderConsumer>(), stations.GetService<KafkaIntake>());
            foreach (var state in stations.GetRequiredService<OrderSubscriptions>().States)
            {
                Delivered(MessagingMetrics.RabbitMq, state.Queue, state.Delivered);
            }
        }
        if (roles.DeadLetters && stations.GetKeyedService<QueueSubscription>(TopologyNames.DeadLetters) is { } letterSubscription)
        {
            Delivered(MessagingMetrics.RabbitMq, TopologyNames.DeadLetters, letterSubscription.State.Delivered);
        }
        if (roles.Relay)
        {
            var relayed = stations.GetRequiredService<OutboxRelay>().Sent;
            metrics.Relayed((int)(relayed - sent));
            sent = relayed;
        }
        var monitor = stations.GetRequiredService<QueueMonitor>();
        var depths = monitor.Depths;
        var now = clock.GetUtcNow();
        metrics.SetQueues([.. depths.Where(depth => depth.Exists).Select(depth => new QueueReading(depth.Queue, depth.Ready, depth.Unacknowledged, depth.Consumers, depth.OldestAge(now)))]);
        var newEvents = await ReadStoreAsync(cancellationToken);

        var after = metrics.Totals;
        var orders = monitor.Orders;
        var letters = depths.FirstOrDefault(depth => depth.Queue == TopologyNames.DeadLetters);
        var sample = new Sample(
            now.ToUnixTimeSeconds(),
            after.Received - before.Received,
            // Where another process takes the orders in, the log tells how many there were.
            roles.Orders ? after.Accepted - before.Accepted : newEvents,
            after.Duplicates - before.Duplicates,
            after.Refused - before.Refused,
            after.DeadLettered - before.DeadLettered,
            after.Relayed - before.Relayed,
            orders?.Ready, orders?.Unacknowledged, letters?.Ready);
        lock (gate)
        {
            if (samples.Count == MaxSamples)
            {
                samples.Dequeue();
            }
            samples.Enqueue(sample);
        }
    }

    private void Delivered(string system, string source, long total)
    {
        messaging.Delivered(system, source, total - delivered.GetValueOrDefault((system, source)));
        delivered[(system, source)] = total;
    }

    private void ReadInbox(OrderConsumer inbox, KafkaIntake? kafka)
    {
        metrics.SetCircuit(inbox.StoreCircuit switch
        {
            Polly.CircuitBreaker.CircuitState.Closed => CircuitState.Closed,
            Polly.CircuitBreaker.CircuitState.HalfOpen => CircuitState.HalfOpen,
            _ => CircuitState.Open,
        });
        var all = 0;
        foreach (var fate in Enum.GetValues<Fate>())
        {
            var now = inbox.Fates[(int)fate] + (kafka?.Fates[(int)fate] ?? 0);
            var more = (int)(now - counted[(int)fate]);
            counted[(int)fate] = now;
            all += more;
            switch (fate)
            {
                case Fate.Accepted:
                    metrics.Processed("accepted", more);
                    break;
                case Fate.Refused:
                    metrics.Processed("refused", more);
                    break;
                case Fate.Deferred:
                    metrics.Processed("deferred", more);
                    break;
                case Fate.Duplicate:
                    metrics.Duplicate(more);
                    break;
            }
        }
        metrics.Received(all);
        if (kafka is not null)
        {
            Delivered(MessagingMetrics.Kafka, stations.GetRequiredService<IOptions<KafkaOptions>>().Value.Intake.Topic, kafka.Fates.Sum());
        }
    }

    private async Task<long> ReadStoreAsync(CancellationToken cancellationToken)
    {
        var (pending, oldest) = await stations.GetRequiredService<OutboxStore>().BacklogAsync(cancellationToken);
        metrics.SetOutbox(pending, oldest is { } at ? clock.GetUtcNow() - DateTimeOffset.FromUnixTimeMilliseconds(at) : TimeSpan.Zero);
        var (newest, open) = await database.ReadAsync(
            async connection => (
                await EventQueries.OrdinalAsync(connection),
                await LettersTable.ParkedByReasonAsync(connection)),
            cancellationToken);
        metrics.SetOpenLetters(open);
        var more = position < 0 ? 0 : newest - position;
        position = newest;
        return more;
    }

    [LoggerMessage(LogLevel.Warning, "The stations' readings failed; the metrics keep the last ones")]
    private partial void LogReadingFailed(Exception exception);
}

/// <summary>What happened within one second.</summary>
/// <param name="At">Unix seconds.</param>
/// <param name="Ready">How many messages were ready in <c>orders</c>, its partitions included; null when that is not known.</param>
public sealed record Sample(
    long At, long Received, long Accepted, long Duplicates, long Refused, long DeadLettered, long Published, long? Ready, long? Unacknowledged, long? DeadLetterDepth);

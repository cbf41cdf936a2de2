using System.Collections.Concurrent;
using System.Globalization;
using Microsoft.Extensions.Options;
using OrderService.Configuration;
using OrderService.Kafka;
using OrderService.Observability;
using OrderService.Outbox;
using OrderService.RabbitMq;
using OrderService.Store;

namespace OrderService.Health;

/// <summary>
/// Whether this process can do its work now, and if not, every cause in plain words. It follows progress: not ready is who has orders or dead letters in hand and decides none, or
/// takes none although some wait; what stands still while orders are decided makes it degraded, which turns no traffic away.
/// </summary>
public sealed class Readiness(ServiceRoles roles, IDatabase database, IServiceProvider stations, OrderMetrics metrics, Troubles troubles, TimeProvider clock) : IDisposable
{
    private static readonly TimeSpan StorePatience = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan RelayPatience = TimeSpan.FromMinutes(1);

    /// <summary>How long a lost connection may take to come back before an alert tells of it.</summary>
    private static readonly TimeSpan BrokerPatience = TimeSpan.FromMinutes(1);

    // Whoever may ask without a key may ask as often as they like.
    private static readonly TimeSpan Kept = TimeSpan.FromSeconds(1);


    private readonly SemaphoreSlim one = new(1);
    private readonly Dictionary<string, Progress> progress = new(StringComparer.Ordinal);
    private readonly Dictionary<string, Waiting> waiting = new(StringComparer.Ordinal);
    private readonly HashSet<string> raised = new(StringComparer.Ordinal);
    private readonly Lock gate = new();
    private Dictionary<string, ReadinessCheck>? last;
    private long lastAt;
    private Task? probe;
    private readonly ConcurrentDictionary<string, bool> hasPublished = new(StringComparer.Ordinal);

    /// <summary>What is so now, or was a second ago.</summary>
    public async Task<ReadinessReport> CheckAsync(CancellationToken cancellationToken)
    {
        var checks = (await LookAsync(cancellationToken)).ToDictionary(check => check.Key, check => check.Value with { Own = check.Value.Own ?? Subject(check.Key, check.Value) });
        foreach (var (trouble, since, _) in troubles.Standing.Where(standing => standing.Trouble.Level != TroubleLevel.Notice && !IsOwn(standing.Trouble.Key)))
        {
            var told = new ReadinessCheck(
                trouble.Level != TroubleLevel.NotReady, $"{trouble.Detail} (since {At(since)})", trouble.Level == TroubleLevel.Degraded, trouble.Level == TroubleLevel.Paused)
            {
                Own = $"{trouble.Subject} (since {At(since)})",
            };
            // Of two that bear one name the worse one is shown.
            checks[trouble.Key] = checks.TryGetValue(trouble.Key, out var own) && own.Weight > told.Weight ? own : told;
        }
        PlantedBug.Plant("always-ready", () => checks = new() { ["service"] = ReadinessCheck.Fine("it is") });
        PlantedBug.Plant("degraded-is-fine", () => checks = checks.ToDictionary(check => check.Key, check => check.Value with { Degraded = false }));
        var worst = checks.Values.Max(check => check.Weight);
        return new ReadinessReport(
            worst switch { 3 => "not ready", 2 => "degraded", 1 => "paused", _ => "ready" },
            checks.Values.Any(check => check.Degraded),
            checks.Values.Any(check => check.Paused),
            ReadinessReport.CausesIn(checks),
            checks);
    }

    /// <summary>Looks, and makes a trouble of every check that fails, so that an alert tells of it; called every second by <see cref="HealthWatch"/>.</summary>
    internal async Task WatchAsync(CancellationToken cancellationToken)
    {
        WatchProgress();
        var checks = await LookAsync(cancellationToken);
        foreach (var (name, check) in checks)
        {
            // The breaker is open because of what the queues' own checks say.
            if (check.Weight > 1 && name != "circuit")
            {
                if (!IsCovered(name, checks))
                {
                    Raise(name, check);
                }
            }
            else
            {
                Clear(name);
            }
        }
    }

    /// <summary>One cause, one alert: without the store nothing is decided anywhere, and why a station holds what it has is its own to say.</summary>
    private bool IsCovered(string name, Dictionary<string, ReadinessCheck> checks) =>
        !IsOwn(name) && ((name != Troubles.Store && !checks[Troubles.Store].Ready) || troubles.Stands($"store:{(name.StartsWith("orders", StringComparison.Ordinal) ? "orders" : name)}"));

    public void Dispose() => one.Dispose();

    private void Raise(string name, ReadinessCheck check)
    {
        lock (gate)
        {
            if (raised.Contains(name) || !troubles.Stands(name))
            {
                raised.Add(name);
                troubles.Raise(new Trouble(name, check.Ready ? TroubleLevel.Degraded : TroubleLevel.NotReady, Subject(name, check), check.Detail, Advice(name))
                {
                    Patience = check.Patience,
                    ConcernsStore = check.ConcernsStore,
                });
            }
        }
    }

    private void Clear(string name)
    {
        lock (gate)
        {
            if (raised.Remove(name))
            {
                troubles.Clear(name);
            }
        }
    }

    private bool IsOwn(string key)
    {
        lock (gate)
        {
            return raised.Contains(key);
        }
    }

    private static string Subject(string name, ReadinessCheck check) => name switch
    {
        "store" => "The store can't be used, no order is decided",
        "dead-letters" => check.Ready ? "Dead letters wait longer than they should" : "Dead letters are not taken in",
        "publisher" or "event-publisher" => "Nothing can be published to the broker",
        "relay" => "Committed events are not published",
        "partitions" => "Orders wait in a partition that nobody consumes",
        "kafka" => "Events do not reach Kafka",
        "circuit" => "The store takes nothing, so deliveries are held",
        "kafka-intake" => "No orders are taken from Kafka",
        _ when check.Paused => $"The intake of {name} is paused",
        _ when check.Ready && name.StartsWith(TopologyNames.Orders, StringComparison.Ordinal) => $"Messages of {name} wait longer than they should",
        _ => check.Ready ? $"{name} stands still" : $"Messages of {name} are not decided",
    };

    private static string? Advice(string name) => name switch
    {
        "store" => "Nothing is lost: what is in hand and in the queue waits. See \"The store\" in docs/operations.md; orderservice doctor looks closer.",
        "relay" => "The events are kept and go out by themselves, in order, once the broker takes them.",
        _ => "Nothing is lost: what is not decided waits. orderservice doctor looks closer.",
    };

    /// <summary>One at a time looks, and what was seen is good for a second.</summary>
    private async Task<Dictionary<string, ReadinessCheck>> LookAsync(CancellationToken cancellationToken)
    {
        await one.WaitAsync(cancellationToken);
        try
        {
            if (last is null || clock.GetElapsedTime(lastAt) >= Kept)
            {
                last = await LookNowAsync();
                lastAt = clock.GetTimestamp();
            }
            return last;
        }
        finally
        {
            one.Release();
        }
    }

    private async Task<Dictionary<string, ReadinessCheck>> LookNowAsync()
    {
        var checks = new Dictionary<string, ReadinessCheck> { [Troubles.Store] = await CheckStoreAsync() };
        if (roles.Orders)
        {
            var inbox = stations.GetRequiredService<OrderConsumer>();
            foreach (var state in stations.GetRequiredService<OrderSubscriptions>().States)
            {
                checks[state.Queue] = CheckSubscription(state.Queue, state, inbox.Trouble);
            }
            if (stations.GetRequiredService<QueueMonitor>().Unconsumed is { Count: > 0 } unconsumed)
            {
                checks["partitions"] = ReadinessCheck.Worse(string.Join(' ', unconsumed)) with { Patience = BrokerPatience };
            }
            checks["circuit"] = metrics.Circuit == CircuitState.Open
                ? ReadinessCheck.Failed($"The circuit breaker around the store is open: deliveries are held until it answers again{Why(inbox.Trouble)}.")
                : ReadinessCheck.Fine(metrics.Circuit == CircuitState.Closed ? "closed" : "half open");
        }
        if (roles.DeadLetters)
        {
            checks["dead-letters"] = CheckSubscription("dead-letters", stations.GetRequiredKeyedService<QueueSubscription>(TopologyNames.DeadLetters).State, null);
        }
        if (roles.Api)
        {
            checks["publisher"] = CheckPublisher("publisher", stations.GetRequiredKeyedService<ConfirmedPublisher>(TopologyNames.Orders).State);
        }
        if (roles.Relay)
        {
            checks["event-publisher"] = CheckPublisher("event-publisher", stations.GetRequiredService<ConfirmedPublisher>().State);
            checks["relay"] = CheckRelay();
        }
        if (stations.GetService<KafkaEventStream>() is { } stream)
        {
            checks["kafka"] = CheckKafka(stream.State);
        }
        if (stations.GetService<KafkaIntake>() is { } intake)
        {
            checks["kafka-intake"] = CheckKafka(intake.State);
        }
        return checks;
    }

    private void WatchProgress()
    {
        lock (gate)
        {
            if (roles.Orders)
            {
                foreach (var state in stations.GetRequiredService<OrderSubscriptions>().States)
                {
                    Watch(state.Queue, state);
                }
            }
            if (roles.DeadLetters)
            {
                Watch("dead-letters", stations.GetRequiredKeyedService<QueueSubscription>(TopologyNames.DeadLetters).State);
            }
            if (stations.GetService<KafkaIntake>() is { } intake)
            {
                ProgressOf("kafka-intake").Look(intake.IsDeciding, intake.Fates.Sum());
            }
        }
    }

    private void Watch(string name, SubscriptionState state)
    {
        ProgressOf(name).Look(state);
        if (!waiting.TryGetValue(name, out var queue))
        {
            queue = waiting[name] = new Waiting();
        }
        // Only what is consumed can be late; a pause, a store that takes nothing and a broker that is away have words of their own.
        var depth = state.Phase == SubscriptionPhase.Consuming ? DepthOf(state.Queue) : null;
        queue.Look(depth?.At ?? clock.GetUtcNow(), depth is { Exists: true } ? depth.Ready : 0, state.Acknowledged + state.Rejected, StandsStill);
    }

    private QueueDepth? DepthOf(string queue) => stations.GetRequiredService<QueueMonitor>().Depths.FirstOrDefault(depth => depth.Queue == queue);

    /// <summary>How long nothing may happen where something should.</summary>
    private TimeSpan StandsStill => Broker.StallAfter < Progress.Patience ? Broker.StallAfter : Progress.Patience;

    private RabbitMqOptions Broker => stations.GetRequiredService<IOptions<RabbitMqOptions>>().Value;

    private Progress ProgressOf(string name) => progress.TryGetValue(name, out var known) ? known : progress[name] = new Progress(clock);

    private DateTimeOffset? StuckSince(string name)
    {
        lock (gate)
        {
            return progress.GetValueOrDefault(name)?.StuckSince;
        }
    }

    private DateTimeOffset? WaitsSince(string name)
    {
        lock (gate)
        {
            return waiting.GetValueOrDefault(name)?.StuckSince;
        }
    }

    private async Task<ReadinessCheck> CheckStoreAsync()
    {
        try
        {
            // One question at a time: a store that answers none must not have a new one every second.
            probe = probe is { IsCompleted: false } ? probe : database.ProbeAsync(CancellationToken.None);
            await probe.WaitAsync(StorePatience, clock);
            return ReadinessCheck.Fine(database.Provider);
        }
        catch (TimeoutException)
        {
            return OfStore(string.Create(CultureInfo.InvariantCulture, $"The store did not answer within {StorePatience.TotalSeconds:0} s."));
        }
        catch (StoreUnavailableException exception)
        {
            return OfStore(exception.Message);
        }

        ReadinessCheck OfStore(string reason) =>
            ReadinessCheck.Failed(reason) with { ConcernsStore = true, Patience = database.Lost.IsCompleted ? TimeSpan.Zero : ReadinessCheck.Short };
    }

    /// <param name="name">The check's, and that of whoever may have paused it.</param>
    /// <param name="trouble">Why the store takes nothing, where that is known.</param>
    private ReadinessCheck CheckSubscription(string name, SubscriptionState state, string? trouble)
    {
        var queue = state.Queue;
        if (StuckSince(name) is { } since)
        {
            var (one, none) = state.InHand == 1 ? ("delivery of ", "it was not") : ("deliveries of ", "none was");
            return ReadinessCheck.Failed(string.Create(
                CultureInfo.InvariantCulture, $"{state.InHand} {one}{queue} {(state.InHand == 1 ? "is" : "are")} in hand and {none} decided since {At(since)}{Why(trouble ?? database.Waiting)}."))
                with { ConcernsStore = true, Patience = TimeSpan.Zero };
        }
        var depth = DepthOf(queue);
        return state switch
        {
            { Phase: SubscriptionPhase.Consuming } when depth is { Exists: true, Ready: > 0, Consumers: 0 } && depth.At > state.Since =>
                ReadinessCheck.Failed($"{depth.Ready} messages are ready in {queue}, and the broker counts no consumer.") with { Patience = BrokerPatience },
            { Phase: SubscriptionPhase.Consuming, SilentSince: { } silent } when clock.GetUtcNow() - silent >= StandsStill => ReadinessCheck.Failed(
                $"The broker does not answer on the channel that delivers {queue} since {At(silent)}: it may be at work on a message whose headers are nested very deep. What is behind it waits.")
                with { Patience = TimeSpan.Zero },
            { Phase: SubscriptionPhase.Consuming } when WaitsSince(name) is { } waits => ReadinessCheck.Failed(
                $"{depth?.Ready} messages are ready in {queue}, and none was decided since {At(waits)}.") with { Patience = BrokerPatience },
            { Phase: SubscriptionPhase.Consuming } when depth?.OldestAge(clock.GetUtcNow()) is { } age && age > Broker.MaxWait => ReadinessCheck.Worse(string.Create(
                CultureInfo.InvariantCulture, $"The oldest of {depth.Ready} messages in {queue} waits for {age.TotalSeconds:0} s at least.")) with { Patience = BrokerPatience },
            { Phase: SubscriptionPhase.Consuming } => ReadinessCheck.Fine($"consuming since {At(state.Since)}"),
            { Phase: SubscriptionPhase.Held } when state.IsPaused || IsPaused(name) => new ReadinessCheck(true, $"Intake of {queue} is paused since {At(state.Since)}: {state.HoldReason}", Paused: true),
            { Phase: SubscriptionPhase.Held } => ReadinessCheck.Failed($"Intake of {queue} is held since {At(state.Since)}: {state.HoldReason}{Why(trouble)}") with { ConcernsStore = true },
            { Phase: SubscriptionPhase.Connecting } => ReadinessCheck.Failed(
                $"Not consuming {queue} since {At(state.Since)}: {state.LastError ?? "connecting to the broker"}{(state.CircuitOpen ? " (attempts are spaced out)" : "")}") with { Patience = BrokerPatience },
            _ => ReadinessCheck.Failed($"The consumer of {queue} is stopped{(state.LastError is null ? "." : ": " + state.LastError)}") with { Patience = BrokerPatience },
        };
    }

    private bool IsPaused(string name) => troubles.Standing.Any(standing => standing.Trouble.Level == TroubleLevel.Paused && standing.Trouble.Key == name);

    /// <summary>Without publishing orders are decided all the same, and their events wait; only who never could publish has something to put right first.</summary>
    private ReadinessCheck CheckPublisher(string name, PublisherState state)
    {
        if (state.Connected)
        {
            hasPublished[name] = true;
        }
        var check = state switch
        {
            { Blocked: { } blocked } => ReadinessCheck.Worse($"The broker takes no publishes: {blocked}"),
            { Connected: false, LastError: { } error } => ReadinessCheck.Worse($"Not connected for publishing since {At(state.Since)}: {error}"),
            { Connected: false } => ReadinessCheck.Worse("Connecting to the broker for publishing."),
            _ => ReadinessCheck.Fine("connected"),
        };
        return (hasPublished.ContainsKey(name) ? check : ReadinessCheck.Failed(check.Detail)) with { Patience = BrokerPatience };
    }

    private ReadinessCheck CheckRelay()
    {
        var outbox = metrics.Outbox;
        if (stations.GetRequiredService<OutboxRelay>().Stuck.Count > 0)
        {
            // One cause, one alert: the troubles of the refused routing keys tell what waits and why.
            return ReadinessCheck.Fine(string.Create(CultureInfo.InvariantCulture, $"{outbox.Pending} events pending, some of them for a routing key that is refused"));
        }
        return outbox.OldestAge > RelayPatience
            // Orders are decided all the same, so no traffic is turned away.
            ? ReadinessCheck.Worse(string.Create(
                CultureInfo.InvariantCulture, $"{outbox.Pending} committed events are not published; the oldest waits for {outbox.OldestAge.TotalSeconds:0} s{Why(stations.GetRequiredService<OutboxRelay>().LastFailure)}."))
            : ReadinessCheck.Fine(string.Create(CultureInfo.InvariantCulture, $"{outbox.Pending} events pending"));
    }

    private static string Why(string? reason) => reason is null ? "" : $": {reason.TrimEnd('.')}";

    // Nothing else waits for Kafka, so its troubles are told here and turn no traffic away.
    private static ReadinessCheck CheckKafka(KafkaStreamState state)
    {
        var waiting = string.Create(CultureInfo.InvariantCulture, $"{state.Behind} events wait for Kafka, the oldest for {state.OldestAge.TotalSeconds:0} s");
        return state switch
        {
            { Behind: > 0, LastError: { } error } => ReadinessCheck.Worse($"{waiting}: {error}") with { Patience = BrokerPatience },
            { Behind: > 0 } when state.OldestAge > RelayPatience => ReadinessCheck.Worse(waiting) with { Patience = BrokerPatience },
            _ => ReadinessCheck.Fine(waiting),
        };
    }

    private ReadinessCheck CheckKafka(KafkaIntakeState state)
    {
        if (StuckSince("kafka-intake") is { } since)
        {
            return ReadinessCheck.Failed($"Records of Kafka are in hand and none was decided since {At(since)}{Why(database.Waiting)}.") with { ConcernsStore = true, Patience = TimeSpan.Zero };
        }
        return state switch
        {
            // Orders wait there as they would in a queue.
            { IsPaused: true, Left: { } reason } => new ReadinessCheck(true, $"Intake from Kafka is paused: {reason}", Paused: true),
            { Left: { } reason } => ReadinessCheck.Failed($"The consumer group is left: {reason}.") with { ConcernsStore = true },
            { LastError: { } error } => ReadinessCheck.Worse($"No orders come from Kafka: {error}") with { Patience = BrokerPatience },
            // A member more than there are partitions has none, and that is as it should be.
            _ => ReadinessCheck.Fine(string.Create(CultureInfo.InvariantCulture, $"{state.Partitions} partitions")),
        };
    }

    private static string At(DateTimeOffset? time) => time is { } known ? known.ToUniversalTime().ToString("yyyy-MM-dd HH:mm:ss'Z'", CultureInfo.InvariantCulture) : "the start";
}

/// <param name="Status"><c>ready</c>, <c>paused</c>, <c>degraded</c> or <c>not ready</c>; only the last one is a 503.</param>
/// <param name="Degraded">Something stands still that does not keep the process from deciding orders.</param>
/// <param name="Paused">Somebody paused something.</param>
/// <param name="Causes">One sentence for each check that is not as it should be, the worst first.</param>
public sealed record ReadinessReport(string Status, bool Degraded, bool Paused, IReadOnlyList<string> Causes, IReadOnlyDictionary<string, ReadinessCheck> Checks)
{
    [System.Text.Json.Serialization.JsonIgnore]
    public bool IsReady => Status != "not ready";

    /// <summary>Without what the store, the broker or another program said, for callers whom nobody knows.</summary>
    internal ReadinessReport InOwnWords()
    {
        var checks = Checks.ToDictionary(check => check.Key, check => check.Value.Weight > 0 ? check.Value with { Detail = check.Value.Own ?? "" } : check.Value);
        return this with { Causes = CausesIn(checks), Checks = checks };
    }

    internal static IReadOnlyList<string> CausesIn(Dictionary<string, ReadinessCheck> checks) =>
        [.. checks.Where(check => check.Value.Weight > 0).OrderByDescending(check => check.Value.Weight).Select(check => $"{check.Key}: {check.Value.Detail}")];
}

/// <param name="Degraded">Something is wrong that does not keep the process from its work.</param>
/// <param name="Paused">Somebody paused it.</param>
public sealed record ReadinessCheck(bool Ready, string Detail, bool Degraded = false, bool Paused = false)
{
    internal static readonly TimeSpan Short = TimeSpan.FromSeconds(10);

    /// <summary>How long it may be so before an alert tells of it.</summary>
    internal TimeSpan Patience { get; init; } = Short;

    /// <summary>The same in words of this service alone.</summary>
    internal string? Own { get; init; }

    /// <summary>The store may be the cause, so the alert must not need it.</summary>
    internal bool ConcernsStore { get; init; }

    /// <summary>0 for fine, 1 for paused, 2 for degraded, 3 for not ready.</summary>
    internal int Weight => !Ready ? 3 : Degraded ? 2 : Paused ? 1 : 0;

    /// <summary>In a word.</summary>
    internal string State => Weight switch { 3 => "down", 2 => "degraded", 1 => "paused", _ => "ok" };

    internal static ReadinessCheck Worse(string detail) => new(true, detail, Degraded: true);

    internal static ReadinessCheck Fine(string detail) => new(true, detail);

    internal static ReadinessCheck Failed(string detail) => new(false, detail);
}

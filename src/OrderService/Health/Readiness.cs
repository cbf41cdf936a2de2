using System.Globalization;
using OrderService.Configuration;
using OrderService.Database;
using OrderService.Kafka;
using OrderService.Observability;
using OrderService.Outbox;
using OrderService.RabbitMq;

namespace OrderService.Health;

/// <summary>Whether this process can do its work now, and if not, every cause in plain words.</summary>
public sealed class Readiness(ServiceRoles roles, IDatabase database, IServiceProvider stations, OrderMetrics metrics, Troubles troubles, TimeProvider clock)
{
    private static readonly TimeSpan StorePatience = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan RelayPatience = TimeSpan.FromMinutes(1);

    public async Task<ReadinessReport> CheckAsync(CancellationToken cancellationToken)
    {
        var checks = new Dictionary<string, ReadinessCheck> { ["store"] = await CheckStoreAsync(cancellationToken) };
        if (roles.Orders)
        {
            foreach (var state in stations.GetRequiredService<OrderSubscriptions>().States)
            {
                checks[state.Queue] = CheckSubscription(state);
            }
            if (stations.GetRequiredService<QueueMonitor>().Unconsumed is { Count: > 0 } unconsumed)
            {
                checks["partitions"] = ReadinessCheck.Worse(string.Join(' ', unconsumed));
            }
            checks["circuit"] = metrics.Circuit == CircuitState.Open
                ? ReadinessCheck.Failed("The circuit breaker around the store is open: deliveries are held until it answers again.")
                : ReadinessCheck.Fine(metrics.Circuit == CircuitState.Closed ? "closed" : "half open");
        }
        if (roles.DeadLetters)
        {
            checks["dead-letters"] = CheckSubscription(stations.GetRequiredKeyedService<QueueSubscription>(TopologyNames.DeadLetters).State);
        }
        if (roles.Relay || roles.Api)
        {
            checks["publisher"] = CheckPublisher();
        }
        if (roles.Relay)
        {
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
        foreach (var (trouble, since, _) in troubles.Standing.Where(standing => standing.Trouble.Level != TroubleLevel.Notice))
        {
            checks[trouble.Key] = new ReadinessCheck(trouble.Level != TroubleLevel.NotReady, $"{trouble.Detail} (since {At(since)})", trouble.Level == TroubleLevel.Degraded);
        }
        string[] causes = [.. checks.Where(check => !check.Value.Ready).Select(check => $"{check.Key}: {check.Value.Detail}")];
        return new ReadinessReport(causes.Length == 0 ? "ready" : "not ready", causes, checks);
    }

    private async Task<ReadinessCheck> CheckStoreAsync(CancellationToken cancellationToken)
    {
        try
        {
            await database.ReadAsync(async connection =>
            {
                await using var command = connection.CreateCommand();
                command.CommandText = "SELECT 1";
                return await command.ExecuteScalarAsync(cancellationToken);
            }, cancellationToken).WaitAsync(StorePatience, clock, cancellationToken);
            return ReadinessCheck.Fine(database.Provider);
        }
        catch (TimeoutException)
        {
            return ReadinessCheck.Failed(string.Create(CultureInfo.InvariantCulture, $"The store did not answer within {StorePatience.TotalSeconds:0} s."));
        }
        catch (StoreUnavailableException exception)
        {
            return ReadinessCheck.Failed(exception.Message);
        }
    }

    private static ReadinessCheck CheckSubscription(SubscriptionState state)
    {
        var queue = state.Queue;
        return state switch
        {
            { Phase: SubscriptionPhase.Consuming, Stalled: true } => ReadinessCheck.Failed($"Deliveries of {queue} are in hand, and none was settled since {At(state.LastProgress)}: processing is stuck."),
            { Phase: SubscriptionPhase.Consuming } => ReadinessCheck.Fine($"consuming since {At(state.Since)}"),
            { Phase: SubscriptionPhase.Held } => ReadinessCheck.Failed($"Intake of {queue} is held since {At(state.Since)}: {state.HoldReason}"),
            { Phase: SubscriptionPhase.Connecting } => ReadinessCheck.Failed($"Not consuming {queue} since {At(state.Since)}: {state.LastError ?? "connecting to the broker"}{(state.CircuitOpen ? " (attempts are spaced out)" : "")}"),
            _ => ReadinessCheck.Failed($"The consumer of {queue} is stopped{(state.LastError is null ? "." : ": " + state.LastError)}"),
        };
    }

    private ReadinessCheck CheckPublisher()
    {
        var state = stations.GetRequiredService<ConfirmedPublisher>().State;
        return state switch
        {
            { Blocked: { } blocked } => ReadinessCheck.Failed($"The broker takes no publishes: {blocked}"),
            { Connected: false, LastError: { } error } => ReadinessCheck.Failed($"Not connected for publishing since {At(state.Since)}: {error}"),
            { Connected: false } => ReadinessCheck.Failed("Connecting to the broker for publishing."),
            _ => ReadinessCheck.Fine("connected"),
        };
    }

    private ReadinessCheck CheckRelay()
    {
        var outbox = metrics.Outbox;
        return outbox.OldestAge > RelayPatience
            ? ReadinessCheck.Failed(string.Create(CultureInfo.InvariantCulture, $"{outbox.Pending} committed events are not published; the oldest waits for {outbox.OldestAge.TotalSeconds:0} s{WhyNotRelayed()}."))
            : ReadinessCheck.Fine(string.Create(CultureInfo.InvariantCulture, $"{outbox.Pending} events pending"));
    }

    private string WhyNotRelayed() => stations.GetRequiredService<OutboxRelay>().LastFailure is { } failure ? $": {failure}" : "";

    // Nothing else waits for Kafka, so its troubles are told here and turn no traffic away.
    private static ReadinessCheck CheckKafka(KafkaStreamState state)
    {
        var waiting = string.Create(CultureInfo.InvariantCulture, $"{state.Behind} events wait for Kafka, the oldest for {state.OldestAge.TotalSeconds:0} s");
        return state switch
        {
            { Behind: > 0, LastError: { } error } => ReadinessCheck.Worse($"{waiting}: {error}"),
            { Behind: > 0 } when state.OldestAge > RelayPatience => ReadinessCheck.Worse(waiting),
            _ => ReadinessCheck.Fine(waiting),
        };
    }

    private static ReadinessCheck CheckKafka(KafkaIntakeState state) => state switch
    {
        { Left: { } reason } => ReadinessCheck.Worse($"The consumer group is left: {reason}."),
        { LastError: { } error } => ReadinessCheck.Worse($"No orders come from Kafka: {error}"),
        // A member more than there are partitions has none, and that is as it should be.
        _ => ReadinessCheck.Fine(string.Create(CultureInfo.InvariantCulture, $"{state.Partitions} partitions")),
    };

    private static string At(DateTimeOffset? time) => time is { } known ? known.ToUniversalTime().ToString("yyyy-MM-dd HH:mm:ss'Z'", CultureInfo.InvariantCulture) : "the start";
}

/// <param name="Status"><c>ready</c> or <c>not ready</c>.</param>
/// <param name="Causes">One sentence for each check that failed.</param>
public sealed record ReadinessReport(string Status, IReadOnlyList<string> Causes, IReadOnlyDictionary<string, ReadinessCheck> Checks)
{
    [System.Text.Json.Serialization.JsonIgnore]
    public bool IsReady => Causes.Count == 0;
}

/// <param name="Degraded">Something is wrong that does not keep the process from its work.</param>
public sealed record ReadinessCheck(bool Ready, string Detail, bool Degraded = false)
{
    internal static ReadinessCheck Worse(string detail) => new(true, detail, Degraded: true);

    internal static ReadinessCheck Fine(string detail) => new(true, detail);

    internal static ReadinessCheck Failed(string detail) => new(false, detail);
}

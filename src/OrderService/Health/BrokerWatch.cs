using Microsoft.Extensions.Options;
using OrderService.Configuration;
using OrderService.Observability;
using OrderService.RabbitMq;

namespace OrderService.Health;

/// <summary>
/// Says what somebody did to the broker under the service: a policy that can lose messages, a queue that was deleted, a subscriber's binding that is gone, a management API that tells less
/// than it was asked.
/// </summary>
public sealed class BrokerWatch(ServiceRoles roles, QueueMonitor monitor, IServiceProvider stations, IOptions<RabbitMqOptions> options, Troubles troubles, TimeProvider clock) : BackgroundService
{
    private const string Policies = "policies";
    private const string Management = "management";
    private const string Unrouted = "unrouted";

    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(1);

    /// <summary>How long what happened in a moment is told of.</summary>
    private static readonly TimeSpan Echo = TimeSpan.FromMinutes(15);

    // By queue, the reading that first missed it.
    private readonly Dictionary<string, DateTimeOffset> missed = new(StringComparer.Ordinal);

    private DateTimeOffset? unroutedReadAt;
    private long unroutedReady;
    private long? unroutedSince;

    protected override Task ExecuteAsync(CancellationToken stoppingToken) =>
        PeriodicLoop.AtOnceAsync(Interval, clock, _ =>
        {
            LookAtPolicies();
            LookAtQueues();
            LookAtUnrouted();
            return Task.CompletedTask;
        }, stoppingToken);

    private void LookAtPolicies()
    {
        Set(monitor.UnsafePolicies is { Count: > 0 } found, new Trouble(
            Policies, TroubleLevel.Degraded, "A policy on the broker can lose orders", string.Join(' ', monitor.UnsafePolicies ?? []), "Remove the policy, or exclude the service's queues from its pattern."));
        Set(monitor.ManagementError is not null, new Trouble(
            Management, TroubleLevel.Degraded, "The broker's management API does not tell what it was asked",
            $"Unacknowledged messages and policies are not known: {monitor.ManagementError}. The depths by AMQP go on.",
            "Mend RabbitMq:ManagementUri or what it leads to, or remove the setting: then nobody asks.")
        { Patience = TimeSpan.FromMinutes(1) });
    }

    private void LookAtQueues()
    {
        foreach (var depth in monitor.Depths)
        {
            Set(IsMissing(depth), new Trouble(
                $"missing:{depth.Queue}", TroubleLevel.Degraded, $"The queue {depth.Queue} does not exist", $"The broker has no queue {depth.Queue}.", "Run: orderservice topology --declare"));
        }
        IEnumerable<SubscriptionState> states =
        [
            .. roles.Orders ? stations.GetRequiredService<OrderSubscriptions>().States : [],
            .. roles.DeadLetters ? [stations.GetRequiredKeyedService<QueueSubscription>(TopologyNames.DeadLetters).State] : (SubscriptionState[])[],
        ];
        foreach (var state in states)
        {
            // The queue is there again at once, empty: only the subscription knows that it was gone.
            var isRecent = state.LastErrorAt is { } at && clock.GetUtcNow() - at < Echo;
            Set(isRecent && state.LastError?.StartsWith(BrokerErrors.ConsumerCancelled, StringComparison.Ordinal) == true, new Trouble(
                $"cancelled:{state.Queue}", TroubleLevel.Notice, $"The broker took the consumer of {state.Queue} away",
                $"The broker cancelled the consumer of {state.Queue}: the queue was deleted, lost its leader, or a delivery was in hand for too long. If it was deleted, what lay in it is gone.",
                "If somebody deleted the queue, have the producers send again what has no order; copies take effect once.")
            { Patience = TimeSpan.Zero });
        }
    }

    /// <summary>Two readings missed it: on a new broker the first may come before the first declaration.</summary>
    private bool IsMissing(QueueDepth depth)
    {
        if (depth.Exists)
        {
            missed.Remove(depth.Queue);
            return false;
        }
        return !missed.TryAdd(depth.Queue, depth.At) && missed[depth.Queue] != depth.At;
    }

    private void LookAtUnrouted()
    {
        if (!options.Value.ExpectSubscribers || monitor.Depths.FirstOrDefault(depth => depth.Queue == TopologyNames.UnroutedEvents) is not { Exists: true } depth || depth.At == unroutedReadAt)
        {
            return;
        }
        if (unroutedReadAt is not null && depth.Ready > unroutedReady)
        {
            unroutedSince = clock.GetTimestamp();
        }
        else if (depth.Ready == 0 || (unroutedSince is { } last && clock.GetElapsedTime(last) >= Echo))
        {
            unroutedSince = null;
        }
        (unroutedReadAt, unroutedReady) = (depth.At, depth.Ready);
        Set(unroutedSince is not null, new Trouble(
            Unrouted, TroubleLevel.Notice, "Events reach no subscriber",
            $"Events lie in {TopologyNames.UnroutedEvents}, more of them by the minute: no queue is bound to {TopologyNames.OrderEvents} for their routing keys.",
            "If a subscriber should have them, its binding was removed: bind its queue again, and read what it missed by GET /api/events. If nobody should, set RabbitMq:ExpectSubscribers to false.")
        { Patience = TimeSpan.FromMinutes(1) });
    }

    private void Set(bool stands, Trouble trouble)
    {
        if (stands)
        {
            troubles.Raise(trouble);
        }
        else
        {
            troubles.Clear(trouble.Key);
        }
    }
}

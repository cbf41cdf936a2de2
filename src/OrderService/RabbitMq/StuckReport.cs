using System.Globalization;
using OrderService.Observability;
using OrderService.Outbox;

namespace OrderService.RabbitMq;

/// <summary>Tells which routing keys wait, how much waits for each and, where the management API says it, for which queue.</summary>
public sealed partial class StuckReport(
    OutboxRelay relay, OutboxStore store, SubscriberQueues queues, Troubles troubles, TimeProvider clock, ILogger<StuckReport> logger) : BackgroundService
{
    private const string Everything = "relay:everything";
    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(2);

    private readonly HashSet<string> told = new(StringComparer.Ordinal);

    protected override Task ExecuteAsync(CancellationToken stoppingToken) =>
        // What was told stands; the next tick tells more.
        PeriodicLoop.AtOnceAsync(Interval, clock, TellAsync, stoppingToken, failed: exception => LogNotTold(exception.Message));

    private async Task TellAsync(CancellationToken cancellationToken)
    {
        var lanes = relay.Stuck;
        if (lanes.Count == 0 && told.Count == 0)
        {
            return;
        }
        var waiting = lanes.Count == 0 ? [] : await store.StuckAsync(relay.Shards, cancellationToken);
        var standing = new List<string>();
        foreach (var key in waiting.Where(key => lanes.Any(lane => lane.RoutingKey == key.Key)))
        {
            var lane = lanes.First(lane => lane.RoutingKey == key.Key);
            var trouble = key.Key == RelayLane.Unsendable ? Unsendable(key) : Refused(key, lane, lane.IsClosed ? await queues.FindAsync(key.Key, cancellationToken) : null);
            troubles.Raise(trouble);
            standing.Add(trouble.Key);
        }
        if (lanes.Count > 1 && relay.IsEverythingRefused)
        {
            troubles.Raise(new Trouble(
                Everything, TroubleLevel.Degraded, "No event leaves: every routing key is refused",
                $"Every routing key that had events is refused ({string.Join(", ", lanes.Where(lane => lane.IsClosed).Select(lane => lane.RoutingKey))}): a queue that is bound to all of them takes nothing. Orders are decided all the same, and their events wait in the store.",
                "Make room in that queue, or unbind it from order-events."));
            standing.Add(Everything);
        }
        foreach (var key in told.Except(standing).ToList())
        {
            troubles.Clear(key);
        }
        told.Clear();
        told.UnionWith(standing);
    }

    private static Trouble Refused(StuckKey key, LaneState lane, IReadOnlyList<string>? refusing)
    {
        var reason = key.Reason ?? lane.Reason;
        var where = refusing is { Count: > 0 } ? " " + string.Join(' ', refusing) : "";
        return new Trouble(
            $"relay:{key.Key}", TroubleLevel.Degraded,
            $"Events {key.Key} wait: {reason}",
            string.Create(CultureInfo.InvariantCulture, $"{key.Events} {(key.Events == 1 ? "event waits" : "events wait")} for the routing key {key.Key}: {reason}.{where} Later events of the same orders wait behind them; everything else goes on."),
            $"Make room in the queue (consume from it, raise its limit), or unbind it from {TopologyNames.OrderEvents}. The events leave by themselves within ten seconds; to try at once: orderservice relay release {key.Key}");
    }

    private static Trouble Unsendable(StuckKey key) => new(
        $"relay:{RelayLane.Unsendable}", TroubleLevel.Degraded,
        "An event can't be sent as it is",
        string.Create(CultureInfo.InvariantCulture, $"{key.Events} {(key.Events == 1 ? "event" : "events")} can't be sent or wait{(key.Events == 1 ? "s" : "")} behind one that can't, the oldest of the order {key.OrderId}: {key.Reason}. Other orders go on."),
        $"Mend the cause (the broker's max_message_size, for instance), then: orderservice relay release {RelayLane.Unsendable}");

    [LoggerMessage(LogLevel.Warning, "What waits in the outbox could not be read: {Reason}")]
    private partial void LogNotTold(string reason);
}

using System.Threading.Channels;
using RabbitMQ.Client;

namespace OrderService.RabbitMq;

/// <summary>What a subscription is doing.</summary>
public enum SubscriptionPhase
{
    Stopped,
    Connecting,
    Consuming,
    Held,
}

/// <summary>A subscription at one moment, for health and the admin page. Free of credentials and message contents.</summary>
/// <param name="Since">When it entered this phase.</param>
/// <param name="LastError">Why the last generation ended or could not be built, in plain words.</param>
/// <param name="InHand">Deliveries of the living generation that are not settled.</param>
/// <param name="LastProgress">When a delivery came in or was settled last.</param>
/// <param name="Stalled">Deliveries in hand and none settled for the watchdog's time: whoever processes them is stuck, not the broker.</param>
public sealed record SubscriptionState(
    string Queue,
    SubscriptionPhase Phase,
    DateTimeOffset Since,
    string? HoldReason,
    string? LastError,
    DateTimeOffset? LastErrorAt,
    int Generation,
    int Prefetch,
    int InHand,
    long Delivered,
    long Acknowledged,
    long Rejected,
    DateTimeOffset? LastProgress,
    bool Stalled,
    bool CircuitOpen);

/// <summary>One queue's deliveries: a generation (connection, channel, consumer) is built, watched, thrown away and built again.</summary>
public sealed class QueueSubscription(
    BrokerConnector connector,
    string queue,
    ushort prefetch,
    TimeProvider clock,
    ILogger<QueueSubscription> logger,
    Func<IConnection, CancellationToken, Task>? declare = null) : IAsyncDisposable
{
    /// <summary>What was delivered, oldest first; ends after <see cref="RunAsync"/> was told to stop. Deliveries of dead generations may be among them: see <see cref="Generation.IsAlive"/>.</summary>
    public ChannelReader<Delivery> Deliveries => throw new NotSupportedException($"{connector}{queue}{clock}{logger}{declare}");

    public SubscriptionState State => throw new NotSupportedException();

    /// <summary>How many deliveries the broker may hand out unsettled; a change counts from the next generation or the next <see cref="Release"/> on.</summary>
    public ushort Prefetch { get; set; } = prefetch;

    /// <summary>Builds generation after generation until told to stop; then cancels the consumer and ends <see cref="Deliveries"/>, but keeps the channel so that what is in hand can be settled.</summary>
    public Task RunAsync(CancellationToken stopIntake) => throw new NotSupportedException();

    /// <summary>Takes no more deliveries; what is in hand can still be settled.</summary>
    public void Hold(string reason) => throw new NotSupportedException();

    /// <summary>Takes deliveries again.</summary>
    public void Release() => throw new NotSupportedException();

    /// <summary>Throws the living generation away, returning what is unsettled to the queue.</summary>
    public void Restart(string reason) => throw new NotSupportedException();

    /// <summary>Cancels the consumer for good and waits until no delivery can come any more.</summary>
    public Task StopConsumingAsync(CancellationToken cancellationToken) => throw new NotSupportedException();

    /// <summary>Tells the broker. Deliveries of dead generations, and deliveries settled before, are passed over.</summary>
    public ValueTask SettleAsync(IReadOnlyList<SettledDelivery> batch) => throw new NotSupportedException();

    public ValueTask SettleAsync(Delivery delivery, Inbox.Settlement settlement) => throw new NotSupportedException();

    /// <summary>Closes channel and connection: what is unsettled goes back to the queue.</summary>
    public ValueTask DisposeAsync() => ValueTask.CompletedTask;
}

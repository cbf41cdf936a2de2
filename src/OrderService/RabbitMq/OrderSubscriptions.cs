using System.Diagnostics.CodeAnalysis;
using System.Threading.Channels;

namespace OrderService.RabbitMq;

/// <summary>
/// The subscriptions that feed the inbox: <c>orders</c> and, where commands are partitioned, <c>orders.1</c>, <c>orders.2</c> and so on. They are read as one, so that one
/// transaction takes whatever has arrived in any of them, and settled apart, each delivery on the channel that brought it. For one reader.
/// </summary>
public sealed class OrderSubscriptions : IAsyncDisposable
{
    private readonly IReadOnlyList<QueueSubscription> subscriptions;
    private readonly List<Lane> lanes;
    private int turn;

    public OrderSubscriptions(IReadOnlyList<QueueSubscription> subscriptions)
    {
        this.subscriptions = subscriptions;
        lanes = [.. subscriptions.Select(subscription => new Lane(subscription.Deliveries))];
    }

    /// <summary>What each of them is doing, <c>orders</c> first.</summary>
    public IEnumerable<SubscriptionState> States => subscriptions.Select(subscription => subscription.State);

    /// <summary>The subscription to a queue; null when it is none of these.</summary>
    public QueueSubscription? To(string queue) => subscriptions.FirstOrDefault(subscription => subscription.State.Queue == queue);

    /// <inheritdoc cref="QueueSubscription.RunAsync"/>
    public Task RunAsync(CancellationToken stopIntake) => Task.WhenAll(subscriptions.Select(subscription => subscription.RunAsync(stopIntake)));

    /// <summary>False once the intake of all has ended and everything is read. True is no promise: what a dead generation brought may be gone by then.</summary>
    public async ValueTask<bool> WaitToReadAsync(CancellationToken cancellationToken)
    {
        while (lanes.Count > 0)
        {
            await Task.WhenAny(lanes.Select(lane => lane.Arrival ??= lane.Deliveries.WaitToReadAsync(cancellationToken).AsTask()));
            var arrived = false;
            for (var index = lanes.Count - 1; index >= 0; index--)
            {
                if (lanes[index].Arrival is not { IsCompleted: true } arrival)
                {
                    continue;
                }

                lanes[index].Arrival = null;
                if (await arrival)
                {
                    arrived = true;
                }
                else
                {
                    lanes.RemoveAt(index);
                }
            }

            if (arrived)
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>How many deliveries have arrived and are not read.</summary>
    public int Arrived => lanes.Sum(lane => lane.Deliveries.Count);

    /// <summary>Takes one delivery of each in turn, so that a long queue holds up no short one.</summary>
    public bool TryRead([MaybeNullWhen(false)] out Delivery delivery)
    {
        for (var tried = 0; tried < lanes.Count; tried++)
        {
            turn = (turn + 1) % lanes.Count;
            if (lanes[turn].Deliveries.TryRead(out delivery))
            {
                return true;
            }
        }

        delivery = null;
        return false;
    }

    /// <inheritdoc cref="QueueSubscription.SettleAsync(IReadOnlyList{SettledDelivery})"/>
    public async ValueTask SettleAsync(IReadOnlyList<SettledDelivery> batch)
    {
        foreach (var subscription in subscriptions)
        {
            // Each settles its own and passes over the others'.
            await subscription.SettleAsync(batch);
        }
    }

    /// <inheritdoc cref="QueueSubscription.Hold"/>
    public void Hold(string reason)
    {
        foreach (var subscription in subscriptions)
        {
            subscription.Hold(reason);
        }
    }

    /// <inheritdoc cref="QueueSubscription.Release"/>
    public void Release()
    {
        foreach (var subscription in subscriptions)
        {
            subscription.Release();
        }
    }

    /// <inheritdoc cref="QueueSubscription.Pause"/>
    public void Pause(string reason)
    {
        foreach (var subscription in subscriptions)
        {
            subscription.Pause(reason);
        }
    }

    /// <inheritdoc cref="QueueSubscription.Resume"/>
    public void Resume()
    {
        foreach (var subscription in subscriptions)
        {
            subscription.Resume();
        }
    }

    public async ValueTask DisposeAsync() => await Task.WhenAll(subscriptions.Select(subscription => subscription.DisposeAsync().AsTask()));

    private sealed class Lane(ChannelReader<Delivery> deliveries)
    {
        public ChannelReader<Delivery> Deliveries { get; } = deliveries;

        /// <summary>The wait that was begun and not looked at yet.</summary>
        public Task<bool>? Arrival { get; set; }
    }
}

using System.Collections.Immutable;
using System.Threading.Channels;
using OrderService.Store;

namespace OrderService.Events;

/// <summary>Committed events for one subscriber.</summary>
/// <param name="Missed">The subscriber was too slow and events before these were dropped; it can read them from the store by position.</param>
public sealed record EventBatch(IReadOnlyList<RecordedEvent> Events, bool Missed);

/// <summary>
/// Hands events to subscribers inside the process, after their commit. Publishing never waits and never throws:
/// each subscriber has a bounded queue and a loop of its own, so a slow or failing one harms nobody else.
/// What must not be missed is read from the store by position; the bus only says that there is something.
/// </summary>
public sealed partial class EventBus(ILogger<EventBus> logger) : IAsyncDisposable
{
    private ImmutableArray<Subscriber> subscribers = [];

    /// <summary>Calls <paramref name="handle"/> for each batch, one at a time; an exception is logged and the next batch goes on.</summary>
    /// <param name="capacity">How many batches may wait; when there are more, the oldest are dropped and the next is marked as missed.</param>
    /// <returns>Dispose it to end the subscription.</returns>
    public IDisposable Subscribe(string name, int capacity, Func<EventBatch, CancellationToken, Task> handle)
    {
        var subscriber = new Subscriber(this, name, capacity, handle);
        ImmutableInterlocked.Update(ref subscribers, list => list.Add(subscriber));
        subscriber.Start();
        return subscriber;
    }

    public void Publish(IReadOnlyList<RecordedEvent> events)
    {
        if (events.Count == 0)
        {
            return;
        }
        foreach (var subscriber in subscribers)
        {
            subscriber.Offer(events);
        }
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var subscriber in subscribers)
        {
            await subscriber.StopAsync();
        }
    }

    [LoggerMessage(LogLevel.Error, "Subscriber {Subscriber} of the event bus failed on events up to position {Position}; it goes on with the next ones")]
    private partial void LogSubscriberFailed(Exception exception, string subscriber, long position);

    private sealed class Subscriber : IDisposable
    {
        private readonly EventBus bus;
        private readonly string name;
        private readonly Func<EventBatch, CancellationToken, Task> handle;
        private readonly Channel<IReadOnlyList<RecordedEvent>> queue;
        private readonly CancellationTokenSource stop = new();
        private int missed;
        private Task loop = Task.CompletedTask;

        public Subscriber(EventBus bus, string name, int capacity, Func<EventBatch, CancellationToken, Task> handle)
        {
            this.bus = bus;
            this.name = name;
            this.handle = handle;
            queue = Channel.CreateBounded<IReadOnlyList<RecordedEvent>>(
                new BoundedChannelOptions(capacity) { FullMode = BoundedChannelFullMode.DropOldest, SingleReader = true },
                _ => Interlocked.Exchange(ref missed, 1));
        }

        public void Start() => loop = Task.Run(RunAsync);

        public void Offer(IReadOnlyList<RecordedEvent> events) => queue.Writer.TryWrite(events);

        public void Dispose()
        {
            ImmutableInterlocked.Update(ref bus.subscribers, list => list.Remove(this));
            queue.Writer.TryComplete();
            stop.Cancel();
        }

        public async Task StopAsync()
        {
            Dispose();
            await loop;
            stop.Dispose();
        }

        private async Task RunAsync()
        {
            try
            {
                await foreach (var events in queue.Reader.ReadAllAsync(stop.Token))
                {
                    try
                    {
                        await handle(new EventBatch(events, Interlocked.Exchange(ref missed, 0) == 1), stop.Token);
                    }
                    catch (Exception exception) when (!stop.IsCancellationRequested)
                    {
                        // The events are in the store; only this subscriber has to care.
                        bus.LogSubscriberFailed(exception, name, events[^1].Position);
                    }
                }
            }
            catch (OperationCanceledException)
            {
                // The subscription ended.
            }
        }
    }
}

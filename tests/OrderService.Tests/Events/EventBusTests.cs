using Microsoft.Extensions.Logging.Abstractions;
using OrderService.Events;
using OrderService.Store;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Events;

public sealed class EventBusTests
{
    [Fact]
    public async Task A_subscriber_that_hangs_delays_neither_the_publisher_nor_another_subscriber()
    {
        await using var bus = new EventBus(NullLogger<EventBus>.Instance);
        var release = new TaskCompletionSource();
        var heard = 0;
        using var hanging = bus.Subscribe("hanging", 4, (_, _) => release.Task);
        using var quick = bus.Subscribe("quick", 1000, (batch, _) =>
        {
            Interlocked.Add(ref heard, batch.Events.Count);
            return Task.CompletedTask;
        });

        for (var position = 1; position <= 500; position++)
        {
            bus.Publish([Event(position)]);
        }

        await Eventually.TrueAsync(() => Volatile.Read(ref heard) == 500);
        release.SetResult();
    }

    [Fact]
    public async Task A_subscriber_that_throws_gets_the_next_events_all_the_same()
    {
        await using var bus = new EventBus(NullLogger<EventBus>.Instance);
        var positions = new List<long>();
        using var subscription = bus.Subscribe("throwing", 10, (batch, _) =>
        {
            lock (positions)
            {
                positions.Add(batch.Events[0].Position);
            }
            return batch.Events[0].Position == 1 ? throw new InvalidOperationException("the first one fails") : Task.CompletedTask;
        });

        bus.Publish([Event(1)]);
        bus.Publish([Event(2)]);

        await Eventually.TrueAsync(() =>
        {
            lock (positions)
            {
                return positions.SequenceEqual([1L, 2]);
            }
        });
    }

    [Fact]
    public async Task A_subscriber_that_is_too_slow_is_told_that_it_missed_something()
    {
        await using var bus = new EventBus(NullLogger<EventBus>.Instance);
        var first = new TaskCompletionSource();
        var release = new TaskCompletionSource();
        var missed = new List<bool>();
        using var subscription = bus.Subscribe("slow", 2, async (batch, _) =>
        {
            lock (missed)
            {
                missed.Add(batch.Missed);
            }
            first.TrySetResult();
            await release.Task;
        });

        bus.Publish([Event(1)]);
        await first.Task;
        for (var position = 2; position <= 10; position++)
        {
            bus.Publish([Event(position)]);
        }
        release.SetResult();

        await Eventually.TrueAsync(() =>
        {
            lock (missed)
            {
                return missed.Count == 3;
            }
        });
        Assert.Equal([false, true, false], missed);
    }

    private static RecordedEvent Event(long position) =>
        new("A-1", position, "ORDER_PLACED", ReadOnlyMemory<byte>.Empty, "c", "k", null, 0, []) { Position = position };
}

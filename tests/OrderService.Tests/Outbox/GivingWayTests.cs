using System.Collections.Concurrent;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using Microsoft.Extensions.Time.Testing;
using OrderService.Database;
using OrderService.Outbox;
using OrderService.Tests.Infrastructure;
using OrderService.Tests.Store;
using static OrderService.Tests.Store.Messages;

namespace OrderService.Tests.Outbox;

/// <summary>The intake waits a little for a relay that is behind and at work, and not for one that stands still.</summary>
public sealed class GivingWayTests : IAsyncLifetime
{
    private readonly string folder = Directory.CreateTempSubdirectory("orderservice-relay-").FullName;
    private readonly FakeTimeProvider clock = new(DateTimeOffset.UnixEpoch.AddYears(56));
    private readonly ConcurrentQueue<(OutgoingMessage Message, Action<OutgoingMessage, PublishOutcome> Completed)> underWay = new();
    private StoreInstance store = null!;
    private OutboxRelay relay = null!;
    private int placed;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        var path = Path.Combine(folder, "orders.db");
        var database = new SqliteDatabase(path, TimeProvider.System, NullLogger<SqliteDatabase>.Instance);
        store = new StoreInstance(database, new SqliteOrderEventStore(database));
        await database.MigrateAsync(Token);
        var publisher = new EventPublisher(
            (message, completed, _) =>
            {
                underWay.Enqueue((message, completed));
                return ValueTask.CompletedTask;
            },
            _ => Task.CompletedTask,
            () => true);
        relay = new OutboxRelay(
            new OutboxStore(database), new SqliteRelayLease(path), publisher, Options.Create(new OutboxOptions { MaxInMemory = 100 }), clock, NullLogger<OutboxRelay>.Instance);
        await relay.StartAsync(Token);
        // Two looks at the table, after which what is committed goes straight to memory.
        await Eventually.TrueAsync(async () =>
        {
            clock.Advance(TimeSpan.FromSeconds(1));
            await PlaceAsync(1);
            return relay.InMemory > 0;
        });
    }

    public async ValueTask DisposeAsync()
    {
        while (underWay.TryDequeue(out var one))
        {
            one.Completed(one.Message, new PublishOutcome.Unknown("the test ends"));
        }
        await relay.StopAsync(CancellationToken.None);
        relay.Dispose();
        await store.DisposeAsync();
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public async Task Nobody_waits_for_a_relay_that_has_room()
    {
        await ConfirmAsync();

        Assert.True(relay.GiveWayAsync(Token).IsCompletedSuccessfully);
    }

    [Fact]
    public async Task Nobody_waits_for_a_relay_that_is_full_and_gets_no_confirm()
    {
        await FillAsync();
        clock.Advance(TimeSpan.FromMilliseconds(251));

        Assert.True(relay.GiveWayAsync(Token).IsCompletedSuccessfully);
    }

    [Fact]
    public async Task A_batch_waits_while_confirms_come_until_there_is_room()
    {
        await FillAsync();
        await ConfirmAsync();

        var waiting = relay.GiveWayAsync(Token);
        Assert.False(waiting.IsCompleted);
        await Eventually.TrueAsync(async () =>
        {
            await ConfirmAsync();
            // Marks gather for 20 ms, and what is marked makes room.
            clock.Advance(TimeSpan.FromMilliseconds(5));
            return waiting.IsCompleted;
        });
        Assert.True(relay.InMemory <= 50, $"{relay.InMemory} in memory");
    }

    [Fact]
    public async Task A_batch_waits_for_200_ms_and_no_longer()
    {
        await FillAsync();
        await ConfirmAsync();

        var waiting = relay.GiveWayAsync(Token);
        for (var passed = 0; passed < 200; passed++)
        {
            Assert.False(waiting.IsCompleted, $"after {passed} ms");
            clock.Advance(TimeSpan.FromMilliseconds(1));
            if (passed % 100 == 99)
            {
                await ConfirmAsync();
            }
        }
        await Eventually.TrueAsync(() =>
        {
            clock.Advance(TimeSpan.FromMilliseconds(1));
            return waiting.IsCompleted;
        });
    }

    private async Task FillAsync()
    {
        await PlaceAsync(80);
        Assert.True(relay.InMemory > 50, $"{relay.InMemory} in memory");
    }

    private async Task PlaceAsync(int orders)
    {
        for (var number = 0; number < orders; number++)
        {
            relay.Offer(await store.AppendAsync(Place($"p-{++placed}", $"A-{placed}")));
        }
    }

    /// <summary>One message has its confirm.</summary>
    private async Task ConfirmAsync()
    {
        (OutgoingMessage Message, Action<OutgoingMessage, PublishOutcome> Completed) one = default;
        await Eventually.TrueAsync(() => underWay.TryDequeue(out one) || relay.InMemory == 0);
        if (one.Message is not null)
        {
            one.Completed!(one.Message, PublishOutcome.Confirmed.Instance);
        }
    }
}

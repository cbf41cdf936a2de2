using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using System.Diagnostics.Metrics;
using OrderService.Customers;
using OrderService.DeadLetters;
using OrderService.Inbox;
using OrderService.Observability;
using OrderService.Projections;
using OrderService.Retention;
using OrderService.Seals;
using OrderService.Store;
using OrderService.Tests.DeadLetters;
using OrderService.Tests.Infrastructure;
using OrderService.Tests.Store;
using static OrderService.Tests.DeadLetters.LetterWorld;
using static OrderService.Tests.Store.Messages;

namespace OrderService.Tests.Seals;

/// <summary>A store with everything that writes to what is sealed, and what seals and verifies it.</summary>
internal sealed class SealWorld(TestStore store) : IAsyncDisposable
{
    private const long Day = 86_400_000;

    private readonly ServiceProvider services = new ServiceCollection().AddMetrics().BuildServiceProvider();
    private readonly LetterWorld letters = Over(store);
    private int number;

    public TestStore Store { get; } = store;

    public StoreInstance Instance { get; } = new(store.Database, store.Log);

    private SealMaker Maker { get; } = new(store.Database, TimeProvider.System);

    public Task<SealRound> SealAsync() => Maker.RunAsync(_ => Task.CompletedTask, Stopping);

    public Task<SealReport> VerifyAsync(SealHead? expected = null) => new SealVerification(Store.Database, TimeProvider.System).RunAsync(expected, isHere: true, null, Stopping);

    /// <summary>All is as it was written, orders included.</summary>
    public async Task<SealReport> SoundAsync()
    {
        var report = await VerifyAsync();
        Assert.Empty(report.Findings);
        Assert.True(report.IsSound);
        Assert.Empty((await new StoreVerification(Store.Database, Instance.Events).RunAsync(repair: false, null, Stopping)).Findings);
        return report;
    }

    public async Task<SealHead> HeadAsync() => await Store.Database.ReadAsync(
        async connection => (await SealsTable.NewestAsync(connection))!.Head(await EpochsTable.StoreIdAsync(connection)), Stopping);

    /// <summary>Orders, some of them closed.</summary>
    public async Task OrdersAsync(int count)
    {
        foreach (var order in Enumerable.Range(++number * 1000, count))
        {
            await Instance.AppendAsync(Place($"p-{order}", $"A-{order}"));
            await Instance.AppendAsync((order % 3) switch
            {
                0 => Pay($"y-{order}", $"A-{order}"),
                1 => Ship($"s-{order}", $"A-{order}"),
                _ => Cancel($"c-{order}", $"A-{order}"),
            });
        }
    }

    /// <summary>Letters that go through whatever a letter can go through.</summary>
    public async Task LettersAsync(int count)
    {
        foreach (var letter in Enumerable.Range(++number * 1000, count))
        {
            var arrival = Arrival(Order($"L-{letter}", customerId: $"C-{letter % 4}"), $"l-{letter}");
            await letters.DieAsync(arrival, RejectionReason.InternalError, exception: "System.Exception: why");
            var id = await Store.ScalarAsync<long>("SELECT max(id) FROM dead_letters");
            switch (letter % 7)
            {
                case 0:
                    await letters.Replay.DiscardAsync(id, "ann", "too old", Stopping);
                    break;
                case 1:
                    await letters.Replay.ReplayAsync(new ReplayRequest(id, "ben", "mended"), Stopping);
                    await letters.TakeInAsync(await letters.ReplayedArrivalAsync());
                    break;
                case 2:
                    await letters.Replay.DiscardAsync(id, "ann", "too old", Stopping);
                    await letters.Replay.RestoreAsync(id, "ann", "not so old", Stopping);
                    break;
                case 3:
                    // A copy of it.
                    await letters.TakeInAsync(Again(arrival));
                    break;
                case 4:
                    // Decided after all.
                    await Instance.AppendAsync(Place($"l-{letter}", $"L-{letter}").AsReplayOf(id));
                    break;
                case 5:
                    await letters.Replay.ReplayAsync(new ReplayRequest(id, "ben", Patch: LetterPatch.Edit(Order($"L-{letter}", customerId: "C-9"), null, null, null)), Stopping);
                    break;
            }
        }
        letters.Clock.Advance(TimeSpan.FromMinutes(10));
        await letters.NotifyAsync();
    }

    /// <summary>A customer is forgotten, with letters and with an event of a version that stored an e-mail as it came.</summary>
    public async Task ForgetAsync(string customerId)
    {
        var forgotten = await new CustomerForgetting(Store.Database, TimeProvider.System, NullLogger<CustomerForgetting>.Instance).ForgetAsync(customerId, "ann", "wanted", Stopping);
        Assert.IsType<ForgetAnswer.Forgotten>(forgotten);
    }

    /// <summary>Whatever is old enough leaves.</summary>
    public async Task<IReadOnlyDictionary<string, long>> RetainAsync()
    {
        await Store.ExecuteAsync("DELETE FROM outbox");
        await Store.ExecuteAsync("UPDATE alerts SET dispatched = 1");
        // Of times that are far apart: letters have the test's clock, orders another.
        var time = new StoreTime(TimeProvider.System) { ServerClock = () => DateTimeOffset.FromUnixTimeMilliseconds(StoreInstance.Now + (1000 * Day)) };
        var round = new RetentionRound(
            Store.Database, new RetentionKinds(NullLogger<RetentionKinds>.Instance), Options.Create(new RetentionOptions { ClosedOrders = 30, WithoutArchive = true }),
            new OrderMetrics(services.GetRequiredService<IMeterFactory>()), time, TimeProvider.System);
        return await round.RunAsync(null, Stopping) ?? throw new InvalidOperationException("Somebody else takes rows out.");
    }

    /// <summary>An event of a version before the keys of customers.</summary>
    public async Task OrderWithPlainEmailAsync(string orderId, string customerId)
    {
        await Instance.AppendAsync(Of("e-" + orderId, OrderService.Domain.CommandType.Place,
            $$"""{"orderId":"{{orderId}}","customerId":"{{customerId}}","currency":"EUR","lines":[{"sku":"KB-01","quantity":1,"unitPrice":1.00}],"email":"somebody@pii.example"}"""));
    }

    public async ValueTask DisposeAsync()
    {
        await services.DisposeAsync();
        await Store.DisposeAsync();
    }
}

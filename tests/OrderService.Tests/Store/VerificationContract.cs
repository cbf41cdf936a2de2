using OrderService.Projections;
using OrderService.Tests.Infrastructure;
using static OrderService.Tests.Store.Messages;

namespace OrderService.Tests.Store;

/// <summary>What <c>verify</c> finds in a store that somebody changed, among orders that nobody did.</summary>
public abstract class VerificationContract : IAsyncLifetime
{
    private const int Orders = 1_200;
    private TestStore store = null!;
    private StoreInstance instance = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    protected abstract Task<TestStore> OpenAsync();

    public async ValueTask InitializeAsync()
    {
        store = await OpenAsync();
        instance = new StoreInstance(store.Database, store.Log);
        foreach (var batch in Enumerable.Range(1, Orders).Chunk(400))
        {
            await instance.AppendAsync([.. batch.Select(number => Place($"k-{number}", $"A-{number}"))]);
        }
        await instance.AppendAsync([.. Enumerable.Range(1, 100).Select(number => Ship($"s-{number}", $"A-{number * 10}"))]);
    }

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        await store.DisposeAsync();
    }

    [Fact]
    public async Task Each_thing_that_was_changed_is_named_and_nothing_else()
    {
        Assert.Equal((Orders + 100, Orders, 0), await RunAsync() is var sound ? (sound.Events, sound.Orders, sound.Wrong) : default);
        await store.ExecuteAsync("UPDATE events SET recorded_at = recorded_at + 1 WHERE order_id = 'A-7'");
        await store.ExecuteAsync("DELETE FROM events WHERE order_id = 'A-500' AND version = 1");
        await store.ExecuteAsync("UPDATE orders SET customer_id = 'C-99' WHERE order_id = 'A-501'");
        await store.ExecuteAsync("UPDATE orders SET version = 3 WHERE order_id = 'A-1200'");
        await store.ExecuteAsync("DELETE FROM events WHERE order_id = 'A-999'");

        var report = await RunAsync();

        Assert.Equal((Orders + 98, Orders - 1), (report.Events, report.Orders));
        foreach (var (order, what) in new[]
        {
            ("A-7", "is not what was written: its hash does not fit"), ("A-500", "version 1 is missing before version 2"), ("A-501", "(another customer)"),
            ("A-1200", "(version 3 instead of 1)"), ("A-999", "is in the read model and has no events"),
        })
        {
            Assert.Contains(report.Findings, finding => finding.StartsWith($"Order {order}", StringComparison.Ordinal) && finding.Contains(what, StringComparison.Ordinal));
        }
        Assert.All(report.Findings, finding => Assert.Matches("^Order A-(7|500|501|1200|999)[: ]", finding));
    }

    [Fact]
    public async Task Rows_of_the_read_model_that_differ_are_rebuilt_from_their_events()
    {
        await store.ExecuteAsync("UPDATE orders SET customer_id = 'C-99' WHERE order_id IN ('A-1', 'A-501', 'A-1199')");

        var repaired = await RunAsync(repair: true);

        Assert.Equal(3, repaired.Wrong);
        Assert.All(repaired.Findings, finding => Assert.EndsWith("it was rebuilt.", finding, StringComparison.Ordinal));
        Assert.Equal(0, (await RunAsync()).Wrong);
        Assert.Equal(0, await store.ScalarAsync<long>("SELECT count(*) FROM orders WHERE customer_id = 'C-99'"));
    }

    private Task<VerificationReport> RunAsync(bool repair = false) => new StoreVerification(store.Database, instance.Events).RunAsync(repair, null, Token);
}

public sealed class SqliteVerificationTests : VerificationContract
{
    protected override Task<TestStore> OpenAsync() => TestStore.OpenAsync();
}

public sealed class PostgresVerificationTests(PostgresContainerFixture postgres) : VerificationContract
{
    protected override Task<TestStore> OpenAsync() => TestStore.OpenAsync(postgres);
}

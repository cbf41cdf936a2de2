using Microsoft.Extensions.Time.Testing;
using OrderService.Store;
using OrderService.Tests.Infrastructure;
using static OrderService.Tests.Store.Messages;

namespace OrderService.Tests.Store;

/// <summary>What <c>store sizes</c> tells of a store.</summary>
public abstract class StoreSizesContract : IAsyncLifetime
{
    private const int OrdersADay = 30;
    private TestStore store = null!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    protected abstract Task<TestStore> OpenAsync();

    public async ValueTask InitializeAsync() => store = await OpenAsync();

    public async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        await store.DisposeAsync();
    }

    [Fact]
    public async Task Rows_bytes_and_growth_of_each_table_are_told_the_largest_first()
    {
        var instance = new StoreInstance(store.Database, store.Log);
        for (var day = 0; day < 20; day++)
        {
            await instance.AppendAsync([.. Enumerable.Range(1, OrdersADay).Select(number => Place($"k-{day}-{number}", $"A-{day}-{number}"))]);
        }
        // All of them were written at once; they are spread over twenty days, as the numbers of their rows grow.
        await store.ExecuteAsync($"UPDATE events SET recorded_at = recorded_at - 86400000 * (19 - (position - 1) / {OrdersADay})");
        var clock = new FakeTimeProvider(DateTimeOffset.FromUnixTimeMilliseconds(StoreInstance.Now).AddHours(12));

        var size = await new StoreSizes(store.Database, clock).MeasureAsync(null, Token);

        Assert.Equal(7, size.Days);
        var events = size.Tables.Single(table => table.Table == "events");
        Assert.Equal((20 * OrdersADay, (long?)OrdersADay), (events.Rows, events.RowsADay));
        Assert.InRange(events.Bytes, 20 * OrdersADay * 200, 20 * OrdersADay * 2000);
        Assert.InRange(events.BytesADay!.Value, events.Bytes / 25, events.Bytes / 15);
        Assert.Equal(20 * OrdersADay, size.Tables.Single(table => table.Table == "inbox").Rows);
        Assert.Equal((0, (long?)0), size.Tables.Single(table => table.Table == "dead_letters") is var letters ? (letters.Rows, letters.RowsADay) : default);
        Assert.Null(size.Tables.Single(table => table.Table == "outbox").RowsADay);
        Assert.Equal(size.Tables.Select(table => table.Bytes).OrderDescending(), size.Tables.Select(table => table.Bytes));
        Assert.InRange(size.Tables.Sum(table => table.Bytes) + size.FreeBytes, size.Bytes * 0.99, size.Bytes);
    }

    [Fact]
    public async Task Of_a_young_store_growth_is_what_came_so_far()
    {
        var instance = new StoreInstance(store.Database, store.Log);
        await instance.AppendAsync([.. Enumerable.Range(1, OrdersADay).Select(number => Place($"k-{number}", $"A-{number}"))]);

        var size = await new StoreSizes(store.Database, new FakeTimeProvider(DateTimeOffset.FromUnixTimeMilliseconds(StoreInstance.Now).AddHours(1))).MeasureAsync(null, Token);

        Assert.Equal((1, (long?)OrdersADay), (size.Days, size.Tables.Single(table => table.Table == "orders").RowsADay));
    }

    [Fact]
    public async Task Every_table_is_measured_and_every_time_on_the_list_is_a_column()
    {
        var size = await new StoreSizes(store.Database, TimeProvider.System).MeasureAsync(null, Token);

        Assert.True(size.Tables.Count >= 25);
        foreach (var (table, (time, number)) in StoreSizes.Tables.Where(entry => size.Tables.Any(table => table.Table == entry.Key)))
        {
            foreach (var column in new[] { time, number }.OfType<string>())
            {
                Assert.Equal(0, await store.ScalarAsync<long>($"SELECT count({column}) FROM {table} WHERE 1 = 0"));
            }
        }
    }
}

public sealed class SqliteStoreSizesTests : StoreSizesContract
{
    protected override Task<TestStore> OpenAsync() => TestStore.OpenAsync();
}

public sealed class PostgresStoreSizesTests(PostgresContainerFixture postgres) : StoreSizesContract
{
    protected override Task<TestStore> OpenAsync() => TestStore.OpenAsync(postgres);
}

using Microsoft.Extensions.Logging.Abstractions;
using OrderService.Database;

namespace OrderService.Tests.Store;

public sealed class SqliteOrderEventStoreTests : OrderEventStoreContract
{
    private readonly string folder = Directory.CreateTempSubdirectory("orderservice-store-").FullName;
    private StoreInstance? only;

    public override async ValueTask DisposeAsync()
    {
        await base.DisposeAsync();
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public async Task Under_a_steady_load_the_log_file_starts_over_instead_of_growing()
    {
        await using var fresh = await OpenFreshAsync();
        var store = await fresh.OpenAsync();
        await store.Database.MigrateAsync(StoreInstance.Token);
        long most = 0;
        for (var written = 1; written <= 1000; written++)
        {
            await store.Database.WriteAsync(
                transaction => transaction.ExecuteAsync(
                    "INSERT INTO rejections (key, fingerprint, reason, detail, body, rejected_at) VALUES (@written, x'00', 'test', '', zeroblob(1048576), 0)",
                    new { written = $"{written}" }),
                StoreInstance.Token);
            var (_, frames, _) = await store.Database.ReadAsync(
                connection => connection.QuerySingleAsync<(long Busy, long Frames, long Copied)>("PRAGMA wal_checkpoint(NOOP)"), StoreInstance.Token);
            if (frames < most)
            {
                return;
            }
            most = frames;
        }
        Assert.Fail($"1,000 MB were written, and the log only grew: it holds {most} pages.");
    }

    // One process owns the file, whatever the number of threads in it.
    protected override Task<StoreInstance> OpenInstanceAsync() => Task.FromResult(only ??= Open("orders.db"));

    protected override Task<FreshDatabase> OpenFreshAsync() => Task.FromResult(new FreshDatabase(() => Open("fresh.db")));

    private StoreInstance Open(string file)
    {
        var database = new SqliteDatabase(Path.Combine(folder, file), TimeProvider.System, NullLogger<SqliteDatabase>.Instance);
        return new StoreInstance(database, new SqliteOrderEventStore(database));
    }
}

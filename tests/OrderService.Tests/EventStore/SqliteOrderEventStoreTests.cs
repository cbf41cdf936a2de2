using Microsoft.Extensions.Logging.Abstractions;
using OrderService.Database;

namespace OrderService.Tests.EventStore;

public sealed class SqliteOrderEventStoreTests : OrderEventStoreContract
{
    private readonly string folder = Directory.CreateTempSubdirectory("orderservice-store-").FullName;
    private StoreInstance? only;

    public override async ValueTask DisposeAsync()
    {
        await base.DisposeAsync();
        Directory.Delete(folder, recursive: true);
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

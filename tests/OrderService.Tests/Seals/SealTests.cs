using Microsoft.Extensions.Logging.Abstractions;
using Npgsql;
using OrderService.Database;
using OrderService.Store;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Seals;

public sealed class SqliteSealTests : SealContract
{
    protected override int Tamperings => 10_000;

    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync();

    private protected override IDatabase Reopen(TestStore store, SealsOptions seals) =>
        new SqliteDatabase(Path.Combine(store.Folder!, "orders.db"), TimeProvider.System, NullLogger<SqliteDatabase>.Instance, seals: seals);

    private protected override Task LoseKeysAsync(TestStore store)
    {
        File.Delete(Path.Combine(store.Folder!, "seal.keys"));
        File.Delete(Path.Combine(store.Folder!, "seal.head"));
        return Task.CompletedTask;
    }

    private protected override IOrderEventStore Log(IDatabase database) => new SqliteOrderEventStore((SqliteDatabase)database);

    [Fact]
    public async Task The_key_and_the_head_lie_beside_the_store_and_only_their_owner_reads_them()
    {
        await using var store = await TestStore.OpenAsync();
        var world = new SealWorld(store);
        await world.SealAsync();

        foreach (var name in (string[])["seal.keys", "seal.head"])
        {
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, ModeOf(Path.Combine(store.Folder!, name)));
        }
        Assert.EndsWith($" {await world.HeadAsync()}\n", await File.ReadAllTextAsync(Path.Combine(store.Folder!, "seal.head"), Stopping), StringComparison.Ordinal);
    }

    private static UnixFileMode ModeOf(string path) => OperatingSystem.IsWindows() ? UnixFileMode.UserRead | UnixFileMode.UserWrite : File.GetUnixFileMode(path);
}

public sealed class PostgresSealTests(PostgresContainerFixture postgres) : SealContract
{
    private string connectionString = "";

    protected override int Tamperings => 400;

    protected override async Task<TestStore> OpenStoreAsync()
    {
        var store = await TestStore.OpenAsync(postgres, address => connectionString = address);
        return store;
    }

    private protected override IDatabase Reopen(TestStore store, SealsOptions seals) => new PostgresDatabase(connectionString, NullLogger<PostgresDatabase>.Instance, seals: seals);

    private protected override async Task LoseKeysAsync(TestStore store)
    {
        await using var connection = new NpgsqlConnection(connectionString);
        await connection.OpenAsync(Stopping);
        await using var command = new NpgsqlCommand("DELETE FROM orderservice_keys.seal_keys; DELETE FROM orderservice_keys.seal_heads", connection);
        await command.ExecuteNonQueryAsync(Stopping);
    }

    private protected override IOrderEventStore Log(IDatabase database) =>
        new PostgresOrderEventStore((PostgresDatabase)database, TimeProvider.System, NullLogger<PostgresOrderEventStore>.Instance);
}

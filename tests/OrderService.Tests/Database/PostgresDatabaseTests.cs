using Dapper;
using Microsoft.Extensions.Logging.Abstractions;
using Npgsql;
using OrderService.Database;
using OrderService.Store;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Database;

/// <summary>Who has to wait for whom on PostgreSQL, and what its troubles are called.</summary>
public sealed class PostgresDatabaseTests(PostgresContainerFixture postgres)
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task However_many_pages_and_exports_are_open_leases_appends_writes_and_health_do_not_wait_for_them()
    {
        await using var database = new PostgresDatabase(await postgres.AddDatabaseAsync(), NullLogger<PostgresDatabase>.Instance);
        await database.MigrateAsync(Now);
        var reading = new TaskCompletionSource();
        var open = 0;
        var readers = Enumerable.Range(0, 40).Select(_ => database.ReadAsync(
            async connection =>
            {
                Interlocked.Increment(ref open);
                await reading.Task;
                return await connection.ExecuteScalarAsync<int>("SELECT 1");
            },
            Now)).ToList();
        await Eventually.TrueAsync(() => open == 12);

        // Each of these would wait for a connection until it is given up.
        await database.ProbeAsync(Now).WaitAsync(TimeSpan.FromSeconds(4), Now);
        await database.WriteVitalAsync(transaction => transaction.ExecuteAsync("UPDATE relay_leases SET owner = owner"), Now).WaitAsync(TimeSpan.FromSeconds(4), Now);
        await database.WriteAsync(transaction => transaction.ExecuteAsync("UPDATE checkpoints SET position = position"), Now).WaitAsync(TimeSpan.FromSeconds(4), Now);
        await using (await database.OpenForAppendAsync(Now).WaitAsync(TimeSpan.FromSeconds(4), Now))
        {
        }
        Assert.Equal(12, open);

        reading.SetResult();
        foreach (var reader in readers)
        {
            try
            {
                Assert.Equal(1, await reader);
            }
            catch (StoreUnavailableException busy)
            {
                // Those for whom no connection came free in time are told that, and not that PostgreSQL is away.
                Assert.Contains("in use", busy.Message, StringComparison.Ordinal);
            }
        }
    }

    [Fact]
    public void The_hosts_of_a_connection_string_are_read_as_the_driver_reads_them()
    {
        var hosts = PostgresHost.List(new NpgsqlConnectionStringBuilder("Host=db1, db2:6432,127.0.0.1:5433,[::1]:5434,::1;Port=5431"));

        Assert.Equal([("db1", 5431), ("db2", 6432), ("127.0.0.1", 5433), ("::1", 5434), ("::1", 5431)], hosts.Select(host => (host.Host, host.Port)));
        Assert.Equal([false, false, true, true, true], hosts.Select(host => host.IsAddress));
        Assert.True(Assert.Single(PostgresHost.List(new NpgsqlConnectionStringBuilder("Host=/var/run/postgresql"))).IsSocket);
    }

    [Fact]
    public async Task A_server_that_only_reads_is_called_read_only()
    {
        var address = await postgres.AddDatabaseAsync();
        var name = new NpgsqlConnectionStringBuilder(address).Database;
        await using (var migrating = new PostgresDatabase(address, NullLogger<PostgresDatabase>.Instance))
        {
            await migrating.MigrateAsync(Now);
            await migrating.ProbeAsync(Now);
        }
        await using (var operating = new NpgsqlConnection(address))
        {
            await operating.ExecuteAsync($"ALTER DATABASE {name} SET default_transaction_read_only = on");
        }
        await using var database = new PostgresDatabase(address, NullLogger<PostgresDatabase>.Instance);

        var probed = await Assert.ThrowsAsync<StoreUnavailableException>(() => database.ProbeAsync(Now));
        var written = await Assert.ThrowsAsync<StoreUnavailableException>(
            () => database.WriteAsync(transaction => transaction.ExecuteAsync("UPDATE checkpoints SET position = position"), Now));

        Assert.All([probed, written], trouble => Assert.Contains("read-only", trouble.Message, StringComparison.Ordinal));
        Assert.All([probed, written], trouble => Assert.Contains("25006", trouble.Message, StringComparison.Ordinal));
    }
}

using System.Text.Json;
using Microsoft.Data.Sqlite;
using Npgsql;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>Stops whose grace period does not suffice: what was in work then is not to blame for the end.</summary>
public sealed class StopJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    // With the settings below it is begun with others, then alone, then accused; the fourth process would blame it.
    private const int Stops = 3;

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    /// <summary>Some 15 s each: five starts of the process, for only whole ones show what the next makes of the end of the one before.</summary>
    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task An_order_that_is_in_work_whenever_a_stop_is_cut_off_is_placed_in_the_end(StoreKind store)
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, store, postgres, new() { ["Inbox__SuspectAfterReturns"] = "1", ["Inbox__MaxCrashes"] = "1" });
        await using var shop = await TestProducer.ConnectAsync(address);
        await service.StopAsync();
        await shop.PublishAsync(TestMessage.Place("A-1"));
        await using (var trouble = await Trouble.BeginAsync(service, store))
        {
            for (var stop = 1; stop <= Stops; stop++)
            {
                await service.StartAgainAsync(waitUntilReady: false);
                await Eventually.HoldsAsync(async () => Assert.True(await trouble.IsInWorkAsync(), $"stop {stop}, exited {service.HasExited}\n{service.Output}"));
                var told = trouble.ToldToStop();
                await service.SignalAsync("TERM");
                await Eventually.HoldsAsync(async () => Assert.True(store == StoreKind.Sqlite ? trouble.ToldToStop() != told : await trouble.LivesAsync() == 0, $"stop {stop} is not noted\n{service.Output}"));
                Assert.False(service.HasExited, $"stop {stop}\n{service.Output}");
                await service.KillAsync();
            }
        }

        await service.StartAgainAsync();
        await Eventually.TrueAsync(async () => await service.OrderStatusAsync("A-1") == "placed");
        Assert.Empty(await service.AllAsync("/api/dead-letters"));
        Assert.Equal((0u, 0u), (await shop.DepthAsync("orders"), await shop.DepthAsync("orders.dlq")));
    }

    /// <summary>Holds up the decision of the order A-1 and of no other, until it is disposed.</summary>
    private sealed class Trouble : IAsyncDisposable
    {
        private readonly ReleaseService service;
        private readonly StoreKind store;
        private readonly NpgsqlConnection? holder;

        private Trouble(ReleaseService service, StoreKind store, NpgsqlConnection? holder) => (this.service, this.store, this.holder) = (service, store, holder);

        public static async Task<Trouble> BeginAsync(ReleaseService service, StoreKind store)
        {
            if (store == StoreKind.Sqlite)
            {
                // SQLite has one lock for all writes, and whoever takes A-1 in holds it until the end of time: 10^15 rows are to be counted.
                await ExecuteSqliteAsync(
                    service,
                    """
                    CREATE TABLE filler AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 1000) SELECT x FROM n;
                    CREATE TRIGGER takes_long BEFORE INSERT ON inbox WHEN NEW.key = 'key-A-1' BEGIN SELECT count(*) FROM filler a, filler b, filler c, filler d, filler e; END;
                    """);
                return new Trouble(service, store, null);
            }
            // Somebody else has begun to write the same key and does not come to an end: whoever writes it waits.
            var holder = await OpenAsync(service);
            await using var command = new NpgsqlCommand(
                "BEGIN; INSERT INTO inbox (key, fingerprint, outcome, decided_at) VALUES ('key-A-1', '\\x00', 1, 0)", holder);
            await command.ExecuteNonQueryAsync(Now);
            return new Trouble(service, store, holder);
        }

        /// <summary>Whether the process is in the middle of the order's transaction.</summary>
        public async Task<bool> IsInWorkAsync()
        {
            if (store == StoreKind.Postgres)
            {
                return await ScalarAsync(
                    // The one before may still be waiting there without its process.
                    "SELECT count(*) FROM pg_locks AS lock JOIN pg_stat_activity AS session USING (pid) JOIN lives ON life = application_name WHERE NOT granted AND locktype = 'transactionid'") > 0;
            }
            try
            {
                // Longer than any other write of an idle shop takes.
                await ExecuteSqliteAsync(service, "BEGIN IMMEDIATE; ROLLBACK", patience: 1);
                return false;
            }
            catch (SqliteException exception) when (exception.SqliteErrorCode == 5)
            {
                return true;
            }
        }

        /// <summary>Which process last said, beside the store, that it was told to stop.</summary>
        public string? ToldToStop()
        {
            var note = Path.Combine(service.Folder, ".orders.db.note");
            return File.Exists(note) ? JsonDocument.Parse(File.ReadAllText(note)).RootElement.GetProperty("toldToStop").GetString() : null;
        }

        /// <summary>How many processes say that they take orders in.</summary>
        public Task<long> LivesAsync() => ScalarAsync("SELECT count(*) FROM lives");

        public async ValueTask DisposeAsync()
        {
            if (holder is null)
            {
                await ExecuteSqliteAsync(service, "DROP TRIGGER takes_long; DROP TABLE filler;");
                return;
            }
            await holder.DisposeAsync();
        }

        private async Task<long> ScalarAsync(string sql)
        {
            await using var connection = await OpenAsync(service);
            await using var command = new NpgsqlCommand(sql, connection);
            return (long)(await command.ExecuteScalarAsync(Now))!;
        }

        private static async Task<NpgsqlConnection> OpenAsync(ReleaseService service)
        {
            var connection = new NpgsqlConnection(service.Settings["Store__ConnectionString"] + ";Pooling=false");
            await connection.OpenAsync(Now);
            return connection;
        }

        private static async Task ExecuteSqliteAsync(ReleaseService service, string sql, int patience = 30)
        {
            await using var file = new SqliteConnection($"Data Source={Path.Combine(service.Folder, "orders.db")};Pooling=false;Default Timeout={patience}");
            await file.OpenAsync(Now);
            await using var command = file.CreateCommand();
            command.CommandText = sql;
            await command.ExecuteNonQueryAsync(Now);
        }
    }
}

using Microsoft.Data.Sqlite;
using Npgsql;

namespace OrderService.Chaos.Faults;

/// <summary>The store dies, freezes or takes no write.</summary>
internal static class StoreFaults
{
    public static IReadOnlyList<Fault> All { get; } =
    [
        Fault.Usual("database-killed", "F39", "PostgreSQL is killed and starts again.", KillAsync) with { Stores = [StoreKind.Postgres] },
        Fault.Usual("database-frozen", "F40", "PostgreSQL freezes for 30 s.", FreezeAsync, tells: true) with { Stores = [StoreKind.Postgres] },
        Fault.Usual("sessions-ended", "F41", "Another program ends all sessions in the database, again and again.", EndSessionsAsync) with { Stores = [StoreKind.Postgres] },
        Fault.Usual("store-locked", "F48", "Another program holds the store's write lock for 30 s.", LockAsync, tells: true),
    ];

    private static async Task<string> KillAsync(Trial trial)
    {
        await trial.World.Database.KillAsync();
        await Trial.LastAsync(3);
        await trial.World.Database.StartAsync();
        return "all sessions ended";
    }

    private static async Task<string> FreezeAsync(Trial trial)
    {
        await trial.World.Database.PauseAsync();
        await trial.JudgeAcknowledgementsAsync(seconds: 20);
        await trial.World.Database.ContinueAsync();
        return "it answered nobody";
    }

    private static async Task<string> EndSessionsAsync(Trial trial)
    {
        for (var round = 0; round < 10; round++)
        {
            await Trial.LastAsync(0.3 + trial.World.Random.NextDouble());
            await trial.World.ExecuteAsync("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()");
        }
        return "10 times all sessions";
    }

    private static async Task<string> LockAsync(Trial trial)
    {
        await using var held = await HoldAsync(trial.World);
        await trial.JudgeAcknowledgementsAsync(seconds: 20);
        return "the lock was held";
    }

    /// <summary>Another program's write lock; disposing gives it back.</summary>
    private static async Task<IAsyncDisposable> HoldAsync(World world)
    {
        if (world.Store == StoreKind.Sqlite)
        {
            var file = new SqliteConnection($"Data Source={world.StoreFile};Pooling=False;Default Timeout=60");
            await file.OpenAsync();
            _ = file.BeginTransaction(deferred: false);
            return file;
        }
        var connection = new NpgsqlConnection(new NpgsqlConnectionStringBuilder(world.ConnectionString) { Pooling = false }.ConnectionString);
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand("BEGIN; LOCK TABLE inbox IN EXCLUSIVE MODE", connection);
        await command.ExecuteNonQueryAsync();
        return connection;
    }
}

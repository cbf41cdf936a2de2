using Microsoft.Data.Sqlite;
using Npgsql;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>Somebody with rights on the store's database who is not the service.</summary>
internal sealed class StoreAdministrator(ReleaseService service, StoreKind store)
{
    /// <summary>Runs a statement, the first on SQLite and the second on PostgreSQL.</summary>
    public async Task ExecuteAsync(string sqlite, string postgres)
    {
        if (store == StoreKind.Sqlite)
        {
            await using var file = new SqliteConnection($"Data Source={Path.Combine(service.Folder, "orders.db")};Pooling=false;Default Timeout=30");
            await file.OpenAsync();
            await using var statement = file.CreateCommand();
            statement.CommandText = sqlite;
            await statement.ExecuteNonQueryAsync();
            return;
        }
        await using var connection = new NpgsqlConnection(service.Settings["Store__ConnectionString"] + ";Pooling=false");
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(postgres, connection);
        await command.ExecuteNonQueryAsync();
    }

    /// <summary>Adds something that refuses rows of a table.</summary>
    /// <param name="when">Which rows, as SQL over its columns.</param>
    public Task RefuseAsync(string table, string when = "1 = 1") => ExecuteAsync(
        $"CREATE TRIGGER added_later BEFORE INSERT ON {table} WHEN {Of("NEW.", when)} BEGIN SELECT RAISE(ABORT, 'secret-value'); END",
        $"ALTER TABLE {table} ADD CONSTRAINT added_later CHECK (NOT ({when})) NOT VALID");

    /// <summary>Takes it away again.</summary>
    public Task TakeAsync(string table) => ExecuteAsync("DROP TRIGGER added_later", $"ALTER TABLE {table} DROP CONSTRAINT added_later");

    private static string Of(string row, string when) => when.StartsWith('1') ? when : row + when;
}

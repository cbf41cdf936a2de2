using System.Data.Common;
using Microsoft.Data.Sqlite;
using OrderService.Store;

namespace OrderService.Database;

/// <summary>The keys of customers in a SQLite file of their own, which only its owner reads.</summary>
internal static class SqliteKeys
{
    public static KeyTable Open(string path, string connections)
    {
        return new KeyTable(Connect, () => File.Exists(path), Translate, isSqlite: true, Path.Combine(Path.GetDirectoryName(path)!, "master.key"), Scrub);

        DbConnection Connect()
        {
            OwnerOnly.CreateFolder(Path.GetDirectoryName(path)!);
            OwnerOnly.CreateFile(path);
            var connection = new SqliteConnection(connections);
            try
            {
                connection.Open();
                using var command = connection.CreateCommand();
                // What is overwritten leaves no trace in the file.
                command.CommandText = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000; PRAGMA secure_delete = ON";
                command.ExecuteNonQuery();
                return connection;
            }
            catch
            {
                connection.Dispose();
                throw;
            }
        }
    }

    public static string Connections(string path) =>
        new SqliteConnectionStringBuilder { DataSource = path, Mode = SqliteOpenMode.ReadWrite, Pooling = true, DefaultTimeout = 30 }.ToString();

    public static void Close(string connections)
    {
        using var pooled = new SqliteConnection(connections);
        SqliteConnection.ClearPool(pooled);
    }

    /// <summary>The log still has the pages as they were.</summary>
    private static void Scrub(DbConnection connection)
    {
        using var command = connection.CreateCommand();
        command.CommandText = "PRAGMA wal_checkpoint(TRUNCATE)";
        command.ExecuteNonQuery();
    }

    private static Exception Translate(Exception exception) => SqliteErrors.Translate(exception) is StoreUnavailableException unavailable
        ? new StoreUnavailableException($"The keys of customers can't be used. {unavailable.Message}", exception)
        : new StoreUnavailableException("The keys of customers can't be used.", exception);
}

using System.Data.Common;
using Npgsql;
using OrderService.Store;

namespace OrderService.Database;

/// <summary>The keys of customers in a schema of their own: <c>orderservice_keys</c>.</summary>
internal static class PostgresKeys
{
    /// <param name="open">Opens a connection that no write of the orders' store waits for.</param>
    public static KeyTable Open(Func<NpgsqlConnection> open, Func<Exception, Exception?> translate) => new(
        Connect(open, translate), () => Exists(open), exception => Translate(exception, translate), isSqlite: false, masterFile: null);

    private static Func<DbConnection> Connect(Func<NpgsqlConnection> open, Func<Exception, Exception?> translate) => () =>
    {
        try
        {
            return open();
        }
        // Not every failure to connect is the driver's own exception.
        catch (Exception exception) when (exception is not DbException && translate(exception) is { } translated)
        {
            throw translated;
        }
    };

    private static bool Exists(Func<NpgsqlConnection> open)
    {
        using var connection = open();
        using var command = new NpgsqlCommand("SELECT to_regclass('orderservice_keys.customer_keys') IS NOT NULL", connection);
        return command.ExecuteScalar() is true;
    }

    private static Exception Translate(Exception exception, Func<Exception, Exception?> translate) => exception switch
    {
        PostgresException { SqlState: PostgresErrorCodes.InsufficientPrivilege } => new StoreSettingsException(
            "PostgreSQL does not let the service make or use the schema orderservice_keys, which has the keys of customers. "
            + "As its administrator: CREATE SCHEMA IF NOT EXISTS orderservice_keys AUTHORIZATION (the user of Store:ConnectionString or Keys:ConnectionString)."),
        _ => new StoreUnavailableException($"The keys of customers can't be used. {translate(exception)?.Message}".TrimEnd(), exception),
    };
}

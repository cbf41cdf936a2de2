using OrderService.Store;

namespace OrderService.Tests.Infrastructure;

/// <summary>Something that an administrator added to the store, and that refuses rows of a table.</summary>
internal static class Refusal
{
    /// <summary>What its own words quote; nobody may repeat it.</summary>
    public const string Secret = "secret-value";

    /// <summary>How each store says that a row was refused by it.</summary>
    public static string Code(IDatabase database, string table) => database.Provider == "Sqlite" ? "(1811 trigger)" : $"(23514, constraint refusal of {table})";

    /// <param name="when">Which rows, by what they become: <c>NEW.id = 7</c>.</param>
    public static Task AddAsync(IDatabase database, string table, string when) => ExecuteAsync(database, database.Provider == "Sqlite"
        ? $"""
           CREATE TRIGGER refusal BEFORE INSERT ON {table} WHEN {when} BEGIN SELECT RAISE(ABORT, '{Secret}'); END;
           CREATE TRIGGER refusal_too BEFORE UPDATE ON {table} WHEN {when} BEGIN SELECT RAISE(ABORT, '{Secret}'); END
           """
        : $"ALTER TABLE {table} ADD CONSTRAINT refusal CHECK (NOT ({when.Replace("NEW.", "", StringComparison.Ordinal)})) NOT VALID");

    public static Task RemoveAsync(IDatabase database, string table) => ExecuteAsync(database, database.Provider == "Sqlite"
        ? "DROP TRIGGER refusal; DROP TRIGGER refusal_too"
        : $"ALTER TABLE {table} DROP CONSTRAINT refusal");

    private static Task ExecuteAsync(IDatabase database, string sql) => database.WriteAsync(transaction => transaction.ExecuteAsync(sql));
}

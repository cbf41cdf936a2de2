using System.Net.Sockets;
using System.Text.RegularExpressions;
using Npgsql;
using OrderService.Store;

namespace OrderService.Database;

/// <summary>What an error of PostgreSQL means to the stations: the one table of it. No text of a refusal holds a value, and so the driver's exception does not go with it into the log.</summary>
internal static partial class PostgresErrors
{
    /// <summary>The server itself said that the transaction is undone; after anything else that ends a connection nobody knows.</summary>
    public static bool WasRolledBack(Exception exception) => exception is PostgresException { InvariantSeverity: "ERROR" };

    /// <summary>The exception that callers of a store know; null for errors that are none of the store's.</summary>
    public static Exception? Translate(Exception exception) => exception switch
    {
        // A unique key that is not ours looks the same; whoever meets it again and again finds out.
        PostgresException { SqlState: PostgresErrorCodes.UniqueViolation } taken => new StoreConflictException(Sentence(taken), taken.SqlState, Constraint(taken)),
        PostgresException { SqlState: "2200H" } ended => new StoreUnavailableException($"A sequence is at its end ({ended.SqlState}): {ended.MessageText}", ended),
        PostgresException refused when MayBeAboutAValue(refused.SqlState) => new StoreRefusedException(Sentence(refused), refused.SqlState, Constraint(refused)),
        // A table that is gone, a right that was taken, no room, a replica: never a message's fault.
        PostgresException unable => new StoreUnavailableException($"PostgreSQL can't do it now ({unable.SqlState}): {unable.MessageText}", unable),
        NpgsqlException when exception.Message.Contains("pool has been exhausted", StringComparison.Ordinal) =>
            new StoreUnavailableException("All connections to PostgreSQL that may be used for this are in use.", exception),
        NpgsqlException { InnerException: TimeoutException } late => new StoreUnavailableException("PostgreSQL did not answer in time.", late),
        NpgsqlException or IOException or SocketException or TimeoutException => new StoreUnavailableException("PostgreSQL is out of reach.", exception),
        _ => null,
    };

    /// <summary>Another transaction came first: what was decided has to be decided again.</summary>
    public static bool IsConflict(PostgresException exception) =>
        exception.SqlState is PostgresErrorCodes.UniqueViolation or PostgresErrorCodes.SerializationFailure or PostgresErrorCodes.DeadlockDetected;

    // Cardinality, values, constraints, triggers and functions that somebody added, a view's check, limits such as the size of an index row.
    private static bool MayBeAboutAValue(string state) => state[..2] is "09" or "21" or "22" or "23" or "27" or "38" or "39" or "44" or "54" or "P0";

    private static string Sentence(PostgresException exception) =>
        $"PostgreSQL refuses it ({exception.SqlState}{(Constraint(exception) is { } constraint ? ", " + constraint : "")}).";

    /// <summary>Names only: the server's sentence quotes values for some states, and a trigger's says whatever it likes.</summary>
    private static string? Constraint(PostgresException exception) => exception switch
    {
        { ConstraintName: { Length: > 0 } name } => $"constraint {name}{Of(exception)}",
        { ColumnName: { Length: > 0 } name } => $"column {name}{Of(exception)}",
        { TableName: { Length: > 0 } name } => $"table {name}",
        { Where: { } where } when FunctionName().Match(where) is { Success: true } match => $"function {match.Groups[1].Value}",
        _ => null,
    };

    private static string Of(PostgresException exception) => string.IsNullOrEmpty(exception.TableName) ? "" : $" of {exception.TableName}";

    [GeneratedRegex(@"PL/pgSQL function ([\w.]+)")]
    private static partial Regex FunctionName();
}

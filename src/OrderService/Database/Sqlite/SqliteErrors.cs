using System.Globalization;
using Microsoft.Data.Sqlite;
using OrderService.Store;

namespace OrderService.Database;

/// <summary>What an error of SQLite means to the stations: the one table of it. No text of a refusal holds a value, and so the driver's exception does not go with it into the log.</summary>
internal static class SqliteErrors
{
    private const string Failed = " constraint failed: ";

    /// <returns>Null for what is not SQLite's.</returns>
    public static Exception? Translate(Exception exception) => exception is SqliteException sqlite ? Translate(sqlite) : null;

    /// <summary>The exception that callers of a store know.</summary>
    public static Exception Translate(SqliteException exception) => exception.SqliteErrorCode switch
    {
        5 or 6 => new StoreUnavailableException("The store is locked by another process.", exception),
        7 => new StoreUnavailableException("The store is out of memory.", exception),
        8 => new StoreUnavailableException("The store is read-only.", exception),
        10 => new StoreUnavailableException("The disk of the store reports an error.", exception),
        13 => new StoreUnavailableException("The disk of the store is full, or a table's numbers are used up.", exception),
        14 => new StoreUnavailableException("The store's file can't be opened.", exception),
        // A unique key that is not ours looks the same; whoever meets it again and again finds out.
        19 when exception.SqliteExtendedErrorCode is 1555 or 2067 or 2579 => new StoreConflictException(Sentence(exception), Code(exception), Constraint(exception)),
        18 or 19 or 20 => Refused(exception),
        1 when !IsAboutTheSchema(exception) => Refused(exception),
        // A table that is gone, a damaged file: never a message's fault.
        _ => new StoreUnavailableException($"SQLite can't do it ({Code(exception)}): {Text(exception)}.", exception),
    };

    /// <summary>SQLite rolled the whole transaction back, or can't go on with it.</summary>
    public static bool EndsTransaction(SqliteException exception) =>
        exception.SqliteErrorCode is 10 /* IOERR */ or 13 /* FULL */ or 7 /* NOMEM */ or 9 /* INTERRUPT */ or 5 /* BUSY */ or 11 /* CORRUPT */;

    private static StoreRefusedException Refused(SqliteException exception) => new(Sentence(exception), Code(exception), Constraint(exception));

    private static string Sentence(SqliteException exception) => exception.SqliteErrorCode == 1
        ? $"SQLite refuses it ({Code(exception)}): {Text(exception)}."
        : $"SQLite refuses it ({Code(exception)}{(Constraint(exception) is { } constraint ? $", constraint {constraint}" : "")}).";

    private static string Code(SqliteException exception) =>
        (exception.SqliteExtendedErrorCode == 0 ? exception.SqliteErrorCode : exception.SqliteExtendedErrorCode).ToString(CultureInfo.InvariantCulture) + exception.SqliteExtendedErrorCode switch
        {
            275 => " CHECK",
            1299 => " NOT NULL",
            787 => " FOREIGN KEY",
            1555 or 2067 or 2579 => " UNIQUE",
            // What a trigger says may quote a row, so its text stays out.
            1811 => " trigger",
            3091 => " datatype",
            _ => "",
        };

    /// <summary>A name, or columns as <c>orders.note</c>.</summary>
    private static string? Constraint(SqliteException exception)
    {
        if (exception.SqliteExtendedErrorCode == 1811)
        {
            return null;
        }
        var text = Text(exception);
        var start = text.IndexOf(Failed, StringComparison.Ordinal);
        return start < 0 ? null : text[(start + Failed.Length)..];
    }

    private static bool IsAboutTheSchema(SqliteException exception)
    {
        var text = Text(exception);
        return text.StartsWith("no such ", StringComparison.Ordinal) || text.Contains("has no column", StringComparison.Ordinal);
    }

    /// <summary>The library's own words, without what the provider puts around them: "SQLite Error 19: 'NOT NULL constraint failed: orders.note'."</summary>
    private static string Text(SqliteException exception)
    {
        var text = exception.Message;
        var start = text.IndexOf('\'', StringComparison.Ordinal);
        var end = text.LastIndexOf('\'');
        return text.StartsWith("SQLite Error", StringComparison.Ordinal) && end > start ? text[(start + 1)..end] : text;
    }
}

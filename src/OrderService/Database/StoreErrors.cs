namespace OrderService.Database;

internal static class StoreErrors
{
    /// <summary>The exception that callers of a store know, whichever store it is from.</summary>
    public static Exception Translate(Exception exception) =>
        SqliteErrors.Translate(exception) ?? PostgresErrors.Translate(exception) ?? exception;
}

using OrderService.Domain;
using OrderService.Store;

namespace OrderService.Projections;

/// <summary>What was sold with orders that have been taken out, by the day they were placed.</summary>
internal static class SalesTable
{
    private const long MillisecondsADay = 86_400_000;

    /// <summary>The day of a moment in UTC, counted from 1970.</summary>
    public static long DayOf(long milliseconds) => Math.DivRem(milliseconds, MillisecondsADay).Quotient;

    public static long BeginningOf(long day) => day * MillisecondsADay;

    public static Task KeepAsync(StoreTransaction transaction, OrderSummary order) => transaction.ExecuteAsync(
        """
        INSERT INTO sales_kept (day, currency, status, orders, total_minor) VALUES (@day, @Currency, @status, 1, @TotalMinor)
        ON CONFLICT (day, currency, status) DO UPDATE SET orders = sales_kept.orders + 1, total_minor = sales_kept.total_minor + excluded.total_minor
        """,
        new { day = DayOf(order.PlacedAt), order.Currency, status = (long)order.Status, order.TotalMinor });

    /// <summary>What is kept of a day.</summary>
    public static Task<List<SoldRow>> OfDayAsync(StoreConnection connection, long day) => connection.QueryAsync<SoldRow>(
        "SELECT currency, status, orders, total_minor FROM sales_kept WHERE day = @day", new { day });
}

internal sealed class SoldRow
{
    public string Currency { get; init; } = "";
    public OrderStatus Status { get; init; }
    public long Orders { get; init; }
    public long TotalMinor { get; init; }
}

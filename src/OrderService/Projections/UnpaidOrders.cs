using OrderService.DeadLetters;
using OrderService.Domain;
using OrderService.Store;

namespace OrderService.Projections;

/// <summary>A stretch of the orders that nothing happened to for long.</summary>
/// <param name="Orders">Those of it that are unpaid.</param>
/// <param name="Last">Where the next stretch begins.</param>
/// <param name="IsEnd">Nothing older comes behind it.</param>
internal sealed record UnpaidStretch(IReadOnlyList<OrderSummary> Orders, OldRow Last, bool IsEnd);

/// <summary>Orders that wait for a payment that does not come.</summary>
internal static class UnpaidOrders
{
    /// <summary>
    /// The next stretch of placed orders whose last event is older than <paramref name="before"/>, from behind <paramref name="last"/>; so many rows
    /// are looked at, whatever they are. Of them those of which nothing is paid, authorized or shipped, that nobody holds, and of which no message is
    /// with a person or on its way to one: it may be the payment.
    /// </summary>
    public static async Task<UnpaidStretch> ReadAsync(StoreConnection connection, long before, OldRow last, int most)
    {
        var rows = await OrderQueries.UnchangedAsync(connection, OrderStatus.Placed, before, last, most);
        if (rows.Count == 0)
        {
            return new UnpaidStretch([], last, true);
        }
        var onTheWay = (await RejectionsTable.UnparkedOrdersAsync(connection)).ToHashSet(StringComparer.Ordinal);
        var found = new List<OrderSummary>();
        foreach (var row in rows)
        {
            if (IsUnpaid(row.Status, row.PaymentStatus, row.FulfillmentStatus, row.TotalMinor) && row.HasOpenMessages == 0
                && !onTheWay.Contains(row.OrderId)
                && (row.NeedsStream == 0 || !await IsHeldAsync(connection, row)))
            {
                found.Add(row.ToSummary());
            }
        }
        return new UnpaidStretch(found, new OldRow(rows[^1].UpdatedAt, rows[^1].Seq), rows.Count < most);
    }

    /// <summary>Nothing is paid, authorized or shipped, and something is to be paid.</summary>
    public static bool IsUnpaid(Order order) => IsUnpaid(order.Status, order.PaymentStatus, order.FulfillmentStatus, order.TotalMinor);

    private static bool IsUnpaid(OrderStatus status, PaymentStatus payment, FulfillmentStatus fulfillment, long totalMinor) =>
        (status, payment, fulfillment) == (OrderStatus.Placed, PaymentStatus.Unpaid, FulfillmentStatus.Unfulfilled) && totalMinor > 0;

    /// <summary>The row does not say it. What can't be read counts as held: it is evidence, for <c>verify</c> to tell of.</summary>
    private static async Task<bool> IsHeldAsync(StoreConnection connection, OrderQueries.Row row)
    {
        try
        {
            var events = (await EventQueries.StreamAsync(connection, row.Seq)).Select(recorded => EventSerializer.Read(recorded.Type, recorded.Data.Span));
            return Order.Fold(row.OrderId, events).IsHeld;
        }
        catch (InvalidDataException)
        {
            return true;
        }
    }
}

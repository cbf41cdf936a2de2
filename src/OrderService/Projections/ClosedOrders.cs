using OrderService.DeadLetters;
using OrderService.Domain;
using OrderService.Notifications;
using OrderService.Outbox;
using OrderService.Store;

namespace OrderService.Projections;

/// <summary>An order that is over, with everything that is taken out with it.</summary>
/// <param name="Keys">The idempotency keys of its messages.</param>
internal sealed record ClosedOrder(OrderSummary Summary, IReadOnlyList<RecordedEvent> Events, IReadOnlyList<string> Keys, IReadOnlyList<HistoryLine> History);

/// <summary>Orders that are over and that nothing needs any more.</summary>
internal static class ClosedOrders
{
    private const int MostHistory = 10_000;

    /// <summary>With more than this to publish the relay is behind, and whether an order's events are out is not worth looking up.</summary>
    private const int MostUnsent = 10_000;

    public static IReadOnlyList<OrderStatus> Statuses { get; } = [OrderStatus.Delivered, OrderStatus.Cancelled];

    /// <summary>The oldest that may go, from behind <paramref name="last"/>: none with something to publish, to decide, to mend, to write to the customer, or to read for a reader of the log.</summary>
    public static async Task<(List<ClosedOrder> Orders, OldRow Last)> ReadAsync(StoreConnection connection, OrderStatus status, long before, OldRow last, int most)
    {
        var found = new List<ClosedOrder>();
        if (await BusyAsync(connection) is not { } busy)
        {
            return (found, last);
        }
        var least = await CheckpointsTable.LeastAsync(connection) ?? long.MaxValue;
        var newest = await EventQueries.NewestAsync(connection);
        while (found.Count == 0)
        {
            var page = await OrderQueries.ClosedAsync(connection, status, before, last, most);
            if (page.Count == 0)
            {
                break;
            }
            last = new OldRow(page[^1].UpdatedAt, page[^1].Seq);
            foreach (var row in page.Where(row => !busy.Contains(row.OrderId)))
            {
                var events = await EventQueries.StreamAsync(connection, row.Seq);
                // The newest event keeps its place: on SQLite its position would be handed out again.
                if (events.Count == row.Version && events[^1].Position < newest && events[^1].Position <= least)
                {
                    List<string> keys = [.. events.Select(recorded => recorded.CausationId).Concat(await InboxTable.WithoutEventAsync(connection, row.OrderId)).Distinct(StringComparer.Ordinal)];
                    found.Add(new ClosedOrder(row.ToSummary(), events, keys, await HistoryTable.OfOrderAsync(connection, row.OrderId, MostHistory)));
                }
            }
        }
        return (found, last);
    }

    /// <summary>Takes an order out, as it was read, and leaves a tombstone for it and for each of its keys.</summary>
    /// <returns>False when it changed since, or something came for it.</returns>
    public static async Task<bool> RemoveAsync(StoreTransaction transaction, ClosedOrder order, bool leaveTombstones, long now)
    {
        var (summary, events) = (order.Summary, order.Events);
        if (!await OrderQueries.RemoveClosedAsync(transaction, summary))
        {
            return false;
        }
        await EventQueries.RemoveStreamAsync(transaction, summary.Seq);
        var keys = await InboxTable.RemoveOfOrderAsync(transaction, summary.OrderId, [.. events.Select(recorded => recorded.CausationId).Distinct(StringComparer.Ordinal)]);
        await HistoryTable.RemoveOfOrderAsync(transaction, summary.OrderId);
        await SalesTable.KeepAsync(transaction, summary);
        if (leaveTombstones)
        {
            await TombstonesTable.AddAsync(transaction, TombstonesTable.OfOrder(summary.OrderId), null, now);
            foreach (var (key, fingerprint) in keys)
            {
                await TombstonesTable.AddAsync(transaction, TombstonesTable.OfKey(key), fingerprint, now);
            }
        }
        return true;
    }

    /// <summary>Orders that something waits for in a table without an index by order; null when that is too much to look at.</summary>
    private static async Task<HashSet<string>?> BusyAsync(StoreConnection connection)
    {
        if (await OutboxStore.OrderIdsAsync(connection, MostUnsent) is not { } busy)
        {
            return null;
        }
        busy.UnionWith(await RejectionsTable.UnparkedOrdersAsync(connection));
        busy.UnionWith(await OrderMailsTable.OrderIdsAsync(connection));
        busy.UnionWith(await RefusedPaymentsTable.UntoldOrdersAsync(connection));
        return busy;
    }
}

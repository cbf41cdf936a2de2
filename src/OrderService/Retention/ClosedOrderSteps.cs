using OrderService.Domain;
using OrderService.Projections;
using OrderService.Store;

namespace OrderService.Retention;

/// <summary>
/// Takes closed orders out, some at a time: they are read and written to the archive beside the store's writer, and only what lies on the disk there is deleted. How many that are is
/// adapted, so that a step has time for all that it archived.
/// </summary>
internal sealed partial class ClosedOrderSteps(RetentionContext context, OrderStatus status, ILogger logger)
{
    private const int Least = 1;
    private const int Most = 500;

    private OldRow last = OldRow.First;
    private int size = 10;

    public async Task<StepResult> NextAsync(CancellationToken cancellationToken)
    {
        var (orders, reached) = await context.Database.ReadAsync(
            connection => ClosedOrders.ReadAsync(connection, status, context.Before, last, size), cancellationToken);
        last = reached;
        if (orders.Count == 0)
        {
            return StepResult.Nothing;
        }
        var sound = orders.Where(IsSound).ToList();
        context.Archive?.Append([.. sound.Select(ArchivedOrder.Of)]);
        var rest = sound;
        var removed = 0L;
        var took = TimeSpan.Zero;
        while (rest.Count > 0)
        {
            var result = await context.Step.RunAsync(rest, RemoveAsync, cancellationToken);
            removed += result.Removed;
            took = result.Took > took ? result.Took : took;
            rest = rest[result.Looked..];
        }
        // Twice as many where all of them took less than half of the time, half as many where it did not suffice.
        size = took < RetentionStep.Budget / 2 ? Math.Min(size * 2, Most) : took > RetentionStep.Budget ? Math.Max(size / 2, Least) : size;
        return new StepResult(orders.Count, removed, took);
    }

    private async Task<long> RemoveAsync(StoreTransaction transaction, ClosedOrder order) =>
        await ClosedOrders.RemoveAsync(transaction, order, context.Options.Tombstones, context.Now) ? 1 : 0;

    /// <summary>What is not as it was written is evidence, and stays for <c>verify</c> to tell of.</summary>
    private bool IsSound(ClosedOrder order)
    {
        if (ArchivedOrder.Of(order).Mistake() is not { } mistake)
        {
            return true;
        }
        LogKept(order.Summary.OrderId, mistake);
        return false;
    }

    [LoggerMessage(LogLevel.Warning, "Order {OrderId} is closed and stays in the store: {Mistake} orderservice verify says more")]
    private partial void LogKept(string orderId, string mistake);
}

namespace OrderService.Outbox;

/// <summary>
/// Which shards this instance may relay. One instance a shard keeps the first occurrences of an order's events in order;
/// a holder that was frozen and wakes late can only add duplicates.
/// </summary>
public interface IRelayLease : IAsyncDisposable
{
    /// <summary>Takes or renews what this instance may hold and answers it.</summary>
    Task<IReadOnlyCollection<int>> RenewAsync(CancellationToken cancellationToken);
}

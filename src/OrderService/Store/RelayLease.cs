namespace OrderService.Store;

/// <summary>
/// Which shards this instance may relay. One instance a shard keeps duplicates rare; a holder that was frozen and wakes late can only add
/// duplicates, because every holder waits for the confirm of one event before it publishes the next of its stream.
/// </summary>
public interface IRelayLease : IAsyncDisposable
{
    /// <summary>Other processes append to the same streams, so what this process appended may have to wait for what it has not seen yet.</summary>
    bool SharesStreams { get; }

    /// <summary>Whether the last renewal still counts. False after a freeze or an outage of the store, before anybody else may have taken over.</summary>
    bool IsCurrent { get; }

    /// <summary>
    /// Rises each time a shard changes hands; events carry it, so that whoever reads them can tell a holder that woke late from the present one.
    /// Read beside <see cref="RenewAsync"/>; 0 for a shard that is not held.
    /// </summary>
    long EpochOf(int shard);

    /// <summary>Takes or renews what this instance may hold and answers it. Cheap enough for every tick.</summary>
    /// <param name="busy">Shards with messages under way; one that has to be given back stays until it is not busy any more.</param>
    /// <exception cref="Store.StoreUnavailableException">The store is out of reach; <see cref="IsCurrent"/> says how long the last answer counts.</exception>
    Task<IReadOnlyCollection<int>> RenewAsync(IReadOnlySet<int> busy, CancellationToken cancellationToken);

    /// <summary>Whether this instance may have the one attempt that a refused routing key has in each interval, over all instances.</summary>
    Task<bool> MayTryAsync(string routingKey, TimeSpan interval, CancellationToken cancellationToken);

    /// <summary>An attempt succeeded, so the other instances need not wait for theirs.</summary>
    Task OpenAsync(string routingKey, CancellationToken cancellationToken);
}

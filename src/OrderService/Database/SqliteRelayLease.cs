using OrderService.Outbox;

namespace OrderService.Database;

/// <summary>On SQLite one process relays everything: a file lock beside the store, which the operating system gives back when the process dies.</summary>
public sealed class SqliteRelayLease(string storePath) : IRelayLease
{
    private static readonly int[] All = [.. Enumerable.Range(0, Shard.Count)];
    private FileStream? held;

    public bool SharesStreams => false;

    public bool IsCurrent => held is not null;

    public Task<IReadOnlyCollection<int>> RenewAsync(IReadOnlySet<int> busy, CancellationToken cancellationToken)
    {
        try
        {
            held ??= new FileStream(Path.GetFullPath(storePath) + ".relay", FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            return Task.FromResult<IReadOnlyCollection<int>>(All);
        }
        catch (IOException)
        {
            // Another process on the same store relays.
            return Task.FromResult<IReadOnlyCollection<int>>([]);
        }
    }

    // The only instance there is.
    public Task<bool> MayTryAsync(string routingKey, TimeSpan interval, CancellationToken cancellationToken) => Task.FromResult(true);

    public Task OpenAsync(string routingKey, CancellationToken cancellationToken) => Task.CompletedTask;

    public async ValueTask DisposeAsync()
    {
        if (held is not null)
        {
            await held.DisposeAsync();
            held = null;
        }
    }
}

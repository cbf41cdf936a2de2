using System.Buffers.Text;
using System.Globalization;
using System.Text;
using OrderService.Store;

namespace OrderService.Database;

/// <summary>
/// On SQLite one process relays everything: a file lock beside the store, which the operating system gives back when the process dies. The file holds the number of the last holder.
/// </summary>
public sealed class SqliteRelayLease(string storePath) : IRelayLease
{
    private static readonly int[] All = [.. Enumerable.Range(0, Shard.Count)];
    private FileStream? held;
    private long epoch;

    public bool SharesStreams => false;

    public bool IsCurrent => held is not null;

    public Task<IReadOnlyCollection<int>> RenewAsync(IReadOnlySet<int> busy, CancellationToken cancellationToken)
    {
        try
        {
            if (held is null)
            {
                OwnerOnly.CreateFile(FileOf(storePath));
                held = new FileStream(FileOf(storePath), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
                Volatile.Write(ref epoch, Next(held));
            }
            return Task.FromResult<IReadOnlyCollection<int>>(All);
        }
        catch (IOException)
        {
            // Another process on the same store relays.
            return Task.FromResult<IReadOnlyCollection<int>>([]);
        }
    }

    /// <summary>The number of the last holder; 0 before the first.</summary>
    internal static long Highest(string storePath)
    {
        var path = FileOf(storePath);
        return File.Exists(path) && Utf8Parser.TryParse(File.ReadAllBytes(path), out long last, out _) ? last : 0;
    }

    /// <summary>The store was put back, or came from elsewhere: numbers that were given out before must not come again.</summary>
    internal static void Jump(string storePath, long above)
    {
        if (Highest(storePath) < above)
        {
            OwnerOnly.CreateFile(FileOf(storePath));
            File.WriteAllText(FileOf(storePath), above.ToString(CultureInfo.InvariantCulture));
        }
    }

    private static string FileOf(string storePath) => Path.GetFullPath(storePath) + ".relay";

    public long EpochOf(int shard) => Volatile.Read(ref epoch);

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

    /// <summary>One more than the file says; what is no number, or was lost, begins again.</summary>
    private static long Next(FileStream file)
    {
        Span<byte> text = stackalloc byte[32];
        var count = file.ReadAtLeast(text, text.Length, throwOnEndOfStream: false);
        var next = Utf8Parser.TryParse(text[..count], out long last, out _) ? last + 1 : 1;
        file.SetLength(0);
        file.Write(Encoding.ASCII.GetBytes(next.ToString(CultureInfo.InvariantCulture)));
        file.Flush();
        return next;
    }
}

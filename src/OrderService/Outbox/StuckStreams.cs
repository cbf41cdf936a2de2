namespace OrderService.Outbox;

/// <summary>
/// Remembers in a fixed 128 KiB which streams may have stuck messages in the table. It may take a stream for stuck that is not (the table then knows better), never the other way round.
/// Not thread-safe: the relay's lock guards it.
/// </summary>
internal sealed class StuckStreams
{
    private const int Bits = 1 << 20;

    private ulong[]? marks;

    /// <summary>False as long as nothing is stuck: then nobody has to ask.</summary>
    public bool Any => marks is not null;

    public void Add(string orderId)
    {
        marks ??= new ulong[Bits / 64];
        var (first, second) = Places(orderId);
        marks[first >> 6] |= 1UL << (first & 63);
        marks[second >> 6] |= 1UL << (second & 63);
    }

    public bool MayContain(string orderId)
    {
        if (marks is null)
        {
            return false;
        }
        var (first, second) = Places(orderId);
        return (marks[first >> 6] & (1UL << (first & 63))) != 0 && (marks[second >> 6] & (1UL << (second & 63))) != 0;
    }

    public void Clear() => marks = null;

    private static (int First, int Second) Places(string orderId)
    {
        var hash = 14695981039346656037UL;
        foreach (var character in orderId)
        {
            hash = (hash ^ character) * 1099511628211UL;
        }
        hash ^= hash >> 29;
        return ((int)(hash & (Bits - 1)), (int)((hash >> 32) & (Bits - 1)));
    }
}

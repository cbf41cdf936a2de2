namespace OrderService.RabbitMq;

/// <summary>
/// How many bytes of messages a station has in hand, and may have: all queues of orders together, the dead letters by themselves, so that neither can starve the other.
/// A message counts from its arrival until it is settled or its generation is dead; a body that was not kept too, for the client library held it.
/// </summary>
/// <param name="limit">At most so many, but for one message that is larger by itself.</param>
/// <param name="sharers">How many subscriptions share them.</param>
public sealed class BytesInHand(long limit, int sharers = 1)
{
    private long held;
    private volatile bool isAwaited;

    /// <summary>Raised when there is room again, after somebody found none.</summary>
    public event Action? RoomAgain;

    public long Held => Interlocked.Read(ref held);

    /// <summary>One subscription's share of the limit.</summary>
    internal long Share => limit / sharers;

    /// <summary>What of it is free.</summary>
    internal long Room => Math.Max(0, limit - Held) / sharers;

    /// <summary>No more should be asked for, so that what is on its way still fits.</summary>
    internal bool IsNearlyFull => Held > limit - (limit / 4);

    /// <summary>Takes the bytes in hand unless they don't fit. Into empty hands everything fits: a message larger than the limit must go on as well.</summary>
    internal bool TryTake(long bytes)
    {
        var now = Interlocked.Add(ref held, bytes);
        if (now <= limit || now == bytes)
        {
            return true;
        }

        Release(bytes);
        return false;
    }

    internal void Release(long bytes)
    {
        Interlocked.Add(ref held, -bytes);
        if (isAwaited && HasRoom)
        {
            isAwaited = false;
            RoomAgain?.Invoke();
        }
    }

    /// <summary>Whether it is worth while to ask for more; when not, <see cref="RoomAgain"/> is raised once it is.</summary>
    internal bool HasRoomOrTells()
    {
        isAwaited = true;
        return HasRoom;
    }

    private bool HasRoom => Held <= limit / 4;
}

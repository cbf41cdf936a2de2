namespace OrderService.RabbitMq;

/// <summary>
/// How many deliveries a consumer may have unsettled, from the sizes of those that came. The broker counts messages, not bytes, and hands out whatever comes up to the number
/// a consumer was allowed. So that is one at first (a few when they are few at most), more whenever those before were small enough, and few again once they were not.
/// <see cref="Delivered"/> is called by the client's loop, the rest by whoever builds consumers, while there is none.
/// </summary>
/// <param name="most">For small messages.</param>
internal sealed class Pace(int most)
{
    private const int Growth = 16;

    // So many are allowed at once: steps would leave a part of it unused.
    private const int Few = 4;
    private const int CarefulGrowth = 4;
    private const int CarefulLook = 32;

    private long bytes;
    private int count;
    private int largest;
    private int patience;
    private bool isCareful;
    private int next = First(most);

    /// <summary>What a consumer may be allowed at most.</summary>
    public int Most { get; set; } = most;

    /// <summary>What the present consumer was allowed.</summary>
    public ushort Allowed { get; private set; } = 1;

    /// <summary>Notes a delivery, kept or not.</summary>
    /// <param name="room">How many bytes are free.</param>
    /// <param name="cap">What other reasons allow.</param>
    /// <returns>Whether a new consumer should be allowed more.</returns>
    public bool Delivered(int size, long room, int cap)
    {
        bytes += size;
        count++;
        largest = Math.Max(largest, size);
        patience--;
        if (patience > 0 || count < (isCareful ? Math.Max((int)Allowed, CarefulLook) : Allowed))
        {
            return false;
        }

        // Half of the room for what they have on average; the other half is for those that are larger.
        var ceiling = Math.Min(Most, cap);
        next = (int)Math.Clamp(room / 2 / Math.Max(1, bytes / count), 1L, Step(ceiling));
        Forget();
        // A consumer makes way with full hands, so the next one has that much less.
        return Math.Min(next, ceiling - Allowed) >= 2 * Allowed;
    }

    /// <summary>More came than there is room for.</summary>
    /// <param name="limit">How many bytes may be in hand.</param>
    /// <param name="givenBack">How many were not kept. They come again first, and no more are allowed before.</param>
    public void TooMuch(long limit, int givenBack)
    {
        isCareful = true;
        patience = givenBack + CarefulLook;
        next = (int)Math.Clamp(limit / 2 / Math.Max(1, largest), 1L, Allowed);
        Forget();
    }

    /// <summary>A new connection: what comes on it is not known.</summary>
    public void Restart()
    {
        next = First(Most);
        Forget();
    }

    /// <summary>What the next consumer is allowed. The broker counts for each consumer, so what those before it left unsettled comes off.</summary>
    /// <param name="inHand">How many deliveries are unsettled.</param>
    public ushort Next(int cap, int inHand)
    {
        var ceiling = Math.Min(Most, cap);
        isCareful &= next < ceiling;
        Allowed = (ushort)Math.Clamp(next, 1, Math.Max(1, ceiling - inHand));
        Forget();
        return Allowed;
    }

    private static int First(int most) => most <= Few ? most : 1;

    /// <summary>The last step goes to the ceiling, and the one before it is small: what is in hand then comes off.</summary>
    private int Step(int ceiling) =>
        Allowed >= ceiling / Growth ? ceiling : Math.Max(2, Math.Min(Allowed * (isCareful ? CarefulGrowth : Growth), ceiling / 8));

    private void Forget() => (bytes, count, largest) = (0, 0, 0);
}

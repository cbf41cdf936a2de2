namespace OrderService.Outbox;

/// <summary>
/// How many copies subscribers may get. A publish that one queue refuses is delivered to the others all the same, and again when it is tried again; so in any ten minutes
/// at most one event in a hundred is risked, beside the one attempt that each refused routing key has every ten seconds.
/// </summary>
internal sealed class CopyBudget(TimeProvider clock)
{
    private const int Slots = 20;
    private const int EventsPerCopy = 100;

    /// <summary>What is counted.</summary>
    public static readonly TimeSpan Window = TimeSpan.FromMinutes(10);

    private static readonly TimeSpan Slot = Window / Slots;

    // One slot more than the window has: the oldest is partly in it.
    private readonly long[] sent = new long[Slots + 1];
    private readonly long[] spent = new long[Slots + 1];
    private readonly long start = clock.GetTimestamp();
    private long slot;
    private long sentInWindow;
    private long spentInWindow;

    /// <summary>How many publishes may be risked now, beside one for each routing key.</summary>
    public long Left
    {
        get
        {
            MoveOn();
            return Math.Max(0, (sentInWindow / EventsPerCopy) - spentInWindow);
        }
    }

    public void Sent()
    {
        MoveOn();
        sent[slot % sent.Length]++;
        sentInWindow++;
    }

    /// <summary>A publish was refused that was not a routing key's one attempt.</summary>
    public void Spend()
    {
        MoveOn();
        spent[slot % spent.Length]++;
        spentInWindow++;
    }

    private void MoveOn()
    {
        var now = clock.GetElapsedTime(start).Ticks / Slot.Ticks;
        if (now - slot > Slots)
        {
            Array.Clear(sent);
            Array.Clear(spent);
            (sentInWindow, spentInWindow, slot) = (0, 0, now);
        }
        while (slot < now)
        {
            slot++;
            var oldest = slot % sent.Length;
            sentInWindow -= sent[oldest];
            spentInWindow -= spent[oldest];
            (sent[oldest], spent[oldest]) = (0, 0);
        }
    }
}

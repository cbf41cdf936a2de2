namespace OrderService.Observability;

/// <summary>How long something took in the last minutes. Times are in seconds.</summary>
/// <param name="Count">How many there were.</param>
public sealed record TimesOfLate(long Count, double P50, double P95, double P99);

/// <summary>
/// Counts how long something took, in buckets that grow by a twentieth each, so that a percentile is right to five in a hundred; the last five minutes count. Takes notes from any thread.
/// </summary>
internal sealed class RollingTimes(TimeProvider clock)
{
    private const int Slots = 5;
    private const double Growth = 1.05;
    private const double Least = 0.001;

    // Up to a year.
    private const int Buckets = 498;

    private static readonly TimeSpan SlotLength = TimeSpan.FromMinutes(1);

    private readonly long begin = clock.GetTimestamp();
    private readonly Slot[] slots = [.. Enumerable.Range(0, Slots).Select(_ => new Slot())];
    private readonly Lock gate = new();

    public void Note(double seconds)
    {
        var minute = Minute();
        var slot = slots[minute % Slots];
        if (Volatile.Read(ref slot.Minute) < minute)
        {
            lock (gate)
            {
                if (slot.Minute < minute)
                {
                    Array.Clear(slot.Counts);
                    Volatile.Write(ref slot.Minute, minute);
                }
            }
        }
        Interlocked.Increment(ref slot.Counts[BucketOf(seconds)]);
    }

    /// <returns>Null when there was none.</returns>
    public TimesOfLate? Read()
    {
        var now = Minute();
        var counts = new long[Buckets];
        foreach (var slot in slots.Where(slot => Volatile.Read(ref slot.Minute) > now - Slots))
        {
            for (var bucket = 0; bucket < Buckets; bucket++)
            {
                counts[bucket] += Volatile.Read(ref slot.Counts[bucket]);
            }
        }
        var total = counts.Sum();
        return total == 0 ? null : new TimesOfLate(total, At(counts, total, 0.50), At(counts, total, 0.95), At(counts, total, 0.99));
    }

    private long Minute() => (long)(clock.GetElapsedTime(begin) / SlotLength);

    private static int BucketOf(double seconds) =>
        seconds <= Least ? 0 : Math.Min(Buckets - 1, 1 + (int)(Math.Log(seconds / Least) / Math.Log(Growth)));

    /// <summary>The upper bound of the bucket in which the share is reached, in seconds.</summary>
    private static double At(long[] counts, long total, double share)
    {
        var rank = (long)Math.Ceiling(total * share);
        var bucket = 0;
        for (var seen = counts[0]; seen < rank; seen += counts[bucket])
        {
            bucket++;
        }
        return bucket == 0 ? 0 : Math.Round(Least * Math.Pow(Growth, bucket), 3);
    }

    private sealed class Slot
    {
        public readonly long[] Counts = new long[Buckets];
        public long Minute = -Slots;
    }
}

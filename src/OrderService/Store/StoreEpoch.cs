using System.Globalization;

namespace OrderService.Store;

/// <summary>
/// The life of a store between two restores. A restore begins the next one, so that what is recorded after it is never taken for what was recorded, and lost, after the backup.
/// An event's epoch follows from its position, see docs/decisions/0032-epochs.md.
/// </summary>
public static class StoreEpoch
{
    /// <summary>Every store begins with it.</summary>
    public const long First = 1;

    /// <summary>Positions stay below 2^53: beyond that JavaScript's numbers have gaps.</summary>
    public const long Last = 9_000;

    /// <summary>How far apart the positions of two epochs begin: more events than a store records.</summary>
    public const long Step = 1_000_000_000_000;

    /// <summary>The same for the numbers of rows and of the relay's leases.</summary>
    public const long RowStep = 1_000_000_000;

    public static long Of(long position) => (position / Step) + 1;

    /// <summary>The position of an epoch's first event.</summary>
    public static long FirstPosition(long epoch) => ((epoch - 1) * Step) + 1;

    /// <summary>What numbers of rows and leases are above in an epoch.</summary>
    public static long RowsBefore(long epoch) => (epoch - 1) * RowStep;

    /// <summary>What ids end with from the second epoch on.</summary>
    public static string Suffix(long epoch) => epoch > First ? string.Create(CultureInfo.InvariantCulture, $".e{epoch}") : "";
}

/// <summary>One epoch of a store.</summary>
/// <param name="BeganAt">Unix milliseconds.</param>
/// <param name="LastPosition">The newest event that the store had when the epoch began; 0 for none. What others saw behind it, in epochs before, is not in this store.</param>
/// <param name="Cause"><c>first</c>, or why another one began: <c>restore</c>, <c>in-place</c>, <c>deleted</c>.</param>
public sealed record EpochRow(long Number, long BeganAt, long LastPosition, string Cause);

/// <summary>All epochs of a store, in order.</summary>
public sealed record EpochHistory(IReadOnlyList<EpochRow> Epochs)
{
    public EpochRow Current => Epochs[^1];

    /// <summary>The epoch whose beginning a position got lost with; null for a position that is, or may come to be, in the log.</summary>
    public EpochRow? LostWith(long position) =>
        Epochs.FirstOrDefault(epoch => epoch.Number > StoreEpoch.First && position > epoch.LastPosition && position < StoreEpoch.FirstPosition(epoch.Number));

    /// <summary>How many positions the log has up to one of its events: the difference of two is a number of events, across epochs too.</summary>
    public long Ordinal(long position)
    {
        var epoch = Epochs.FirstOrDefault(epoch => epoch.Number == StoreEpoch.Of(position));
        return epoch is null || epoch.Number == StoreEpoch.First
            ? position
            : Ordinal(epoch.LastPosition) + position - StoreEpoch.FirstPosition(epoch.Number) + 1;
    }
}

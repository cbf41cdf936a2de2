namespace OrderService.Observability;

/// <summary>What became of the log's lines.</summary>
public sealed class LogLines
{
    private Func<long> dropped = () => 0;

    /// <summary>How many found no room because their reader was too slow or had stopped.</summary>
    public long Dropped => dropped();

    /// <summary>Says who counts them.</summary>
    public void CountedBy(Func<long> count) => dropped = count;
}

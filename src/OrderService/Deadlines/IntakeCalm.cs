using OrderService.RabbitMq;

namespace OrderService.Deadlines;

/// <summary>
/// Tells whether what others sent has been taken in, so that nothing is decided by time while the answer may wait in a queue: two readings of the
/// queues in turn found none waiting, with consumers on all of them. After a stop the first reading may be from before what waits was counted, and
/// what was in hand at one reading has had its time at the next.
/// </summary>
/// <param name="obstacle">What keeps this process from taking messages in; null when nothing does.</param>
/// <param name="orders">The newest reading of the queues of orders together; null where they were not read, or not all of them.</param>
internal sealed class IntakeCalm(Func<string?> obstacle, Func<QueueDepth?> orders)
{
    private const int Enough = 2;

    private DateTimeOffset? seen;
    private int empty;

    /// <summary>Why nothing should be sent now; null when all is calm. To be asked more often than the queues are read.</summary>
    public string? WhyNot()
    {
        if ((obstacle() ?? Busy(orders())) is { } reason)
        {
            empty = 0;
            return reason;
        }
        if (orders()!.At is var at && at != seen)
        {
            seen = at;
            empty++;
        }
        return empty >= Enough ? null : "the queues of orders have not been seen empty twice in turn";
    }

    /// <summary>Begins anew: what was seen before is of no use any more.</summary>
    public void Forget() => empty = 0;

    private static string? Busy(QueueDepth? depth) => depth switch
    {
        null => "how many messages wait in the queues of orders is not known",
        { Consumers: 0 } => "a queue of orders has no consumer",
        { Ready: > 0 } => "messages wait in the queues of orders",
        _ => null,
    };
}

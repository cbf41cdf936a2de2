namespace OrderService.RabbitMq;

/// <summary>
/// Tells since when the oldest message of a queue has been waiting, without touching it: a queue hands out what came first, so with ten messages waiting the oldest is the
/// tenth last that came in, and the first reading that counted that one says since when it has been there at the least.
/// </summary>
internal sealed class QueueAge
{
    private const int Steps = 500;

    // Readings that saw messages come in, from the one that saw the oldest waiting one on. The longer a backlog lasts, the fewer of the new ones are kept.
    private readonly List<(DateTimeOffset At, long Arrived)> arrivals = [];
    private long missing;
    private long lacking;
    private long before;

    /// <summary>How many readings are remembered.</summary>
    internal int Kept => arrivals.Count;

    /// <summary>Takes the next reading in.</summary>
    /// <param name="ready">How many messages wait.</param>
    /// <param name="counted">How many messages have come in, counted from anywhere; null when that is not known, and then the past is of no use either.</param>
    /// <returns>The first reading that saw the oldest message; null when none waits, or nothing is known.</returns>
    public DateTimeOffset? Read(DateTimeOffset at, long ready, long? counted)
    {
        if (counted is not { } known)
        {
            arrivals.Clear();
            return null;
        }

        if (arrivals.Count > 0)
        {
            // It never becomes less: somebody took messages that we did not see go, or a counter began anew. What has just left the queue may only be on its way to where
            // it is counted, and is missing when it is so at the next reading too.
            var lacks = Math.Max(0, arrivals[^1].Arrived - known - missing);
            var onTheWay = Math.Max(0, Math.Min(lacks, before - ready) - lacking);
            (missing, lacking) = (missing + lacks - onTheWay, onTheWay);
        }
        before = ready;

        var arrived = arrivals.Count > 0 ? Math.Max(arrivals[^1].Arrived, known + missing) : known + missing;
        if (ready == 0)
        {
            arrivals.Clear();
        }

        if (arrivals.Count == 0 || arrived > arrivals[^1].Arrived)
        {
            if (arrivals.Count > 1 && arrivals[^1].At - arrivals[^2].At < (at - arrivals[0].At) / Steps)
            {
                arrivals.RemoveAt(arrivals.Count - 1);
            }

            arrivals.Add((at, arrived));
        }

        if (ready == 0)
        {
            return null;
        }

        arrivals.RemoveRange(0, arrivals.FindIndex(reading => reading.Arrived > arrived - ready));
        return arrivals[0].At;
    }
}

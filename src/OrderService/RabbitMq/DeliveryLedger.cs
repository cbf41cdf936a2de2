using System.Runtime.InteropServices;
using OrderService.Inbox;

namespace OrderService.RabbitMq;

/// <summary>What has to be written to a channel to settle a batch, in this order: the rejects, then the acks.</summary>
internal sealed class SettlePlan
{
    public List<ulong> Rejects { get; } = [];

    /// <summary>Acks everything up to and including this tag; 0 when nothing is to be acked that way.</summary>
    public ulong AckUpTo { get; set; }

    public List<ulong> Acks { get; } = [];

    /// <summary>How many deliveries the plan acknowledges, by either way.</summary>
    public int AckCount { get; set; }

    /// <summary>How many bytes are out of hand with it.</summary>
    public long Bytes { get; set; }

    public void Clear()
    {
        Bytes = 0;
        Rejects.Clear();
        Acks.Clear();
        AckUpTo = 0;
        AckCount = 0;
    }
}

/// <summary>
/// Which delivery tags of one channel are in hand. It makes one ack for many deliveries safe: "everything up to here" is only ever said when nothing up to there is
/// still in work, and only with a tag that is itself being acknowledged, because the broker closes a channel that names a tag it does not know any more.
/// </summary>
internal sealed class DeliveryLedger
{
    private readonly Lock gate = new();
    private readonly HashSet<ulong> unsettled = [];
    private readonly List<ulong> acked = [];
    private readonly List<ulong> unkept = [];
    private readonly List<ulong> ends = [];
    private ulong lowest = 1;
    private ulong highest;
    private long bytes;
    private bool isClosed;

    public int InHand
    {
        get
        {
            lock (gate)
            {
                return unsettled.Count;
            }
        }
    }

    /// <summary>How many cancelled consumers have deliveries in hand: a quorum queue counts them until those are settled.</summary>
    public int EndedConsumersInHand
    {
        get
        {
            lock (gate)
            {
                ends.RemoveAll(end => !unsettled.Any(tag => tag <= end));
                return ends.Where((end, index) => unsettled.Any(tag => tag <= end && (index == 0 || tag > ends[index - 1]))).Count();
            }
        }
    }

    /// <summary>The consumer of the deliveries since the last end is cancelled, and all of them came.</summary>
    public void ConsumerEnded()
    {
        lock (gate)
        {
            ends.Add(highest);
        }
    }

    /// <summary>How many deliveries of the present consumer are in hand.</summary>
    public int InHandOfConsumer
    {
        get
        {
            lock (gate)
            {
                var before = ends.Count == 0 ? 0 : ends[^1];
                return unsettled.Count(tag => tag > before);
            }
        }
    }

    /// <returns>False when the generation is over: the delivery is not in hand.</returns>
    public bool Delivered(ulong tag, int size)
    {
        lock (gate)
        {
            unsettled.Add(tag);
            highest = Math.Max(highest, tag);
            bytes += isClosed ? 0 : size;
            return !isClosed;
        }
    }

    /// <summary>A delivery that there was no room for. It is unsettled until it is given back.</summary>
    public void NotKept(ulong tag)
    {
        lock (gate)
        {
            unsettled.Add(tag);
            highest = Math.Max(highest, tag);
            unkept.Add(tag);
        }
    }

    /// <summary>Takes the deliveries that were not kept out of the ledger.</summary>
    public IReadOnlyList<ulong> TakeUnkept()
    {
        lock (gate)
        {
            ulong[] tags = [.. unkept];
            unkept.Clear();
            unsettled.ExceptWith(tags);
            return tags;
        }
    }

    /// <summary>The generation is over: what it had in hand goes back to the queue.</summary>
    /// <returns>How many bytes are out of hand with it.</returns>
    public long Close()
    {
        lock (gate)
        {
            var rest = bytes;
            (bytes, isClosed) = (0, true);
            return rest;
        }
    }

    /// <summary>Takes the deliveries out of the ledger. Tags that are settled already, or never came, are passed over.</summary>
    public void Settle(IReadOnlyList<SettledDelivery> batch, Generation generation, SettlePlan plan)
    {
        plan.Clear();
        lock (gate)
        {
            acked.Clear();
            for (var i = 0; i < batch.Count; i++)
            {
                var settled = batch[i];
                if (!ReferenceEquals(settled.Delivery.Generation, generation) || settled.Settlement is Settlement.None || !unsettled.Remove(settled.Delivery.Tag))
                {
                    continue;
                }

                plan.Bytes += isClosed ? 0 : settled.Delivery.Size;
                if (settled.Settlement is Settlement.Reject)
                {
                    plan.Rejects.Add(settled.Delivery.Tag);
                }
                else
                {
                    acked.Add(settled.Delivery.Tag);
                }
            }

            while (lowest <= highest && !unsettled.Contains(lowest))
            {
                lowest++;
            }

            PlantedBug.Plant("ack-takes-the-rest-along", () =>
            {
                if (acked.Count > 0)
                {
                    (plan.AckUpTo, lowest) = (highest, highest + 1);
                    unsettled.Clear();
                }
            });
            bytes -= plan.Bytes;
            plan.AckCount = acked.Count;
            foreach (var tag in CollectionsMarshal.AsSpan(acked))
            {
                if (tag >= lowest)
                {
                    plan.Acks.Add(tag);
                }
                else
                {
                    plan.AckUpTo = Math.Max(plan.AckUpTo, tag);
                }
            }
        }
    }
}

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

    public void Clear()
    {
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
    private ulong lowest = 1;
    private ulong highest;

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

    public void Delivered(ulong tag)
    {
        lock (gate)
        {
            unsettled.Add(tag);
            highest = Math.Max(highest, tag);
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

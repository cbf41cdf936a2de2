using CsCheck;
using OrderService.Inbox;
using OrderService.RabbitMq;

namespace OrderService.Tests.RabbitMq;

public sealed class DeliveryLedgerTests
{
    private readonly Generation generation = new(1);
    private readonly DeliveryLedger ledger = new();
    private readonly SettlePlan plan = new();

    [Fact]
    public void A_batch_in_order_is_one_ack()
    {
        Deliver(1, 5);

        Settle(Acks(1, 2, 3, 4, 5));

        Assert.Equal(5ul, plan.AckUpTo);
        Assert.Empty(plan.Acks);
        Assert.Equal(5, plan.AckCount);
        Assert.Equal(0, ledger.InHand);
    }

    [Fact]
    public void A_delivery_that_is_still_in_work_is_never_swept_up()
    {
        Deliver(1, 5);

        Settle(Acks(1, 2, 4, 5));

        Assert.Equal(2ul, plan.AckUpTo);
        Assert.Equal([4ul, 5ul], plan.Acks);
        Assert.Equal(1, ledger.InHand);

        Settle(Acks(3));

        Assert.Equal(3ul, plan.AckUpTo);
        Assert.Empty(plan.Acks);
    }

    [Fact]
    public void An_ack_never_names_a_tag_that_was_rejected()
    {
        Deliver(1, 3);

        Settle([.. Acks(1, 2), new SettledDelivery(Delivery(3), new Settlement.Reject("malformed_json"))]);

        Assert.Equal([3ul], plan.Rejects);
        Assert.Equal(2ul, plan.AckUpTo);
    }

    [Fact]
    public void A_second_settlement_of_one_delivery_writes_nothing()
    {
        Deliver(1, 2);
        Settle(Acks(1));

        Settle(Acks(1));

        Assert.Equal(0, plan.AckCount);
        Assert.Equal(0ul, plan.AckUpTo);
    }

    [Fact]
    public void A_delivery_of_another_generation_is_passed_over()
    {
        Deliver(1, 2);

        Settle([new SettledDelivery(Delivery(1) with { Generation = new Generation(2) }, Settlement.Acknowledge)]);

        Assert.Equal(0, plan.AckCount);
        Assert.Equal(2, ledger.InHand);
    }

    [Fact]
    public void A_delivery_that_is_left_stays_in_hand()
    {
        Deliver(1, 2);

        Settle([new SettledDelivery(Delivery(1), Settlement.Leave), .. Acks(2)]);

        Assert.Equal(0ul, plan.AckUpTo);
        Assert.Equal([2ul], plan.Acks);
        Assert.Equal(1, ledger.InHand);
    }

    [Fact]
    public void Whatever_the_order_the_broker_ends_with_exactly_what_was_settled()
    {
        // Each number is what happens to the next delivery: batches of random members, acknowledged, rejected or left, some twice.
        Gen.Select(Gen.Int[0, 9].Array[1, 60], Gen.Int[1, 7]).Sample((fates, batchSize) =>
        {
            var generation = new Generation(1);
            var ledger = new DeliveryLedger();
            var plan = new SettlePlan();
            var broker = new SortedSet<ulong>();
            var expected = new SortedSet<ulong>();
            for (ulong tag = 1; tag <= (ulong)fates.Length; tag++)
            {
                ledger.Delivered(tag, 0);
                broker.Add(tag);
                expected.Add(tag);
            }

            foreach (var batch in Shuffled(fates).Chunk(batchSize))
            {
                var settled = new List<SettledDelivery>();
                foreach (var tag in batch)
                {
                    var fate = fates[tag - 1];
                    var settlement = fate < 6 ? Settlement.Acknowledge : fate < 8 ? new Settlement.Reject("malformed_json") : Settlement.Leave;
                    settled.Add(new SettledDelivery(new Delivery(tag, default, MessageProperties.Empty, false, 0, "", "", generation), settlement));
                    if (fate == 5)
                    {
                        settled.Add(settled[^1]);
                    }

                    if (fate < 8)
                    {
                        expected.Remove(tag);
                    }
                }

                ledger.Settle(settled, generation, plan);
                plan.Rejects.ForEach(tag => Assert.True(broker.Remove(tag), "The broker closes the channel over an unknown tag."));
                if (plan.AckUpTo != 0)
                {
                    Assert.Contains(plan.AckUpTo, broker);
                    broker.RemoveWhere(tag => tag <= plan.AckUpTo);
                }

                plan.Acks.ForEach(tag => Assert.True(broker.Remove(tag), "The broker closes the channel over an unknown tag."));
                Assert.True(expected.IsSubsetOf(broker), "A delivery in work was swept up.");
            }

            Assert.Equal(expected, broker);
            Assert.Equal(expected.Count, ledger.InHand);
        });
    }

    private static ulong[] Shuffled(int[] seeds)
    {
        ulong[] tags = [.. Enumerable.Range(1, seeds.Length).Select(number => (ulong)number)];
        new Random(seeds.Sum()).Shuffle(tags);
        return tags;
    }

    private void Deliver(ulong first, ulong last)
    {
        for (var tag = first; tag <= last; tag++)
        {
            ledger.Delivered(tag, 0);
        }
    }

    private void Settle(params SettledDelivery[] batch) => ledger.Settle(batch, generation, plan);

    private SettledDelivery[] Acks(params ulong[] tags) => [.. tags.Select(tag => new SettledDelivery(Delivery(tag), Settlement.Acknowledge))];

    private Delivery Delivery(ulong tag) => new(tag, default, MessageProperties.Empty, false, 0, "", "orders", generation);
}

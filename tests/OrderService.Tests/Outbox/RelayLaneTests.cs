using Microsoft.Extensions.Time.Testing;
using OrderService.Outbox;

namespace OrderService.Tests.Outbox;

/// <summary>How a routing key closes and opens, and how many copies that costs.</summary>
public sealed class RelayLaneTests
{
    private readonly FakeTimeProvider clock = new();
    private readonly CopyBudget budget;
    private readonly RelayLane lane;

    public RelayLaneTests()
    {
        budget = new CopyBudget(clock);
        lane = new RelayLane("order.cancelled", budget, new OutboxOptions(), clock);
    }

    [Fact]
    public void A_key_that_nobody_refused_has_sixteen_under_way_and_more_once_there_were_many_events()
    {
        Assert.Equal(16, lane.Room(1));

        Confirm(10_000);

        Assert.Equal(100, lane.Room(1));
        Assert.Equal(25, lane.Room(4));
    }

    [Fact]
    public void A_refused_key_is_closed_and_has_one_attempt_every_ten_seconds()
    {
        Refuse();
        Assert.True(lane.IsClosed);

        var attempts = 0;
        for (var second = 0; second < 600; second++)
        {
            if (lane.Due(1) > 0)
            {
                Assert.Equal(1, lane.Due(1));
                attempts++;
                lane.Try("A-1");
                lane.Begin();
                Assert.Equal(0, lane.Due(1));
                lane.Refuse("a queue refuses it");
            }
            clock.Advance(TimeSpan.FromSeconds(1));
        }

        Assert.Equal(59, attempts);
    }

    [Fact]
    public void Those_that_were_under_way_when_it_closed_put_no_attempt_off_and_open_nothing()
    {
        Begin(3);
        lane.Refuse("a queue refuses it");
        clock.Advance(TimeSpan.FromSeconds(6));
        lane.Refuse("a queue refuses it");
        lane.Confirm();

        Assert.True(lane.IsClosed);
        clock.Advance(TimeSpan.FromSeconds(4));
        Assert.Equal(1, lane.Due(1));
    }

    [Fact]
    public void After_a_success_it_opens_with_one_and_is_at_full_pace_within_seconds()
    {
        Confirm(10_000);
        Refuse();
        lane.HasStuck = true;
        clock.Advance(TimeSpan.FromSeconds(10));
        lane.Try("A-1");
        lane.Begin();
        lane.Confirm();

        Assert.False(lane.IsClosed);
        Assert.Equal(0, lane.Room(1));
        var began = clock.GetTimestamp();
        while (lane.Room(1) < 50)
        {
            if (lane.Room(1) == 0)
            {
                clock.Advance(lane.UntilDue);
            }
            Confirm(lane.Room(1));
        }
        Assert.InRange(clock.GetElapsedTime(began).TotalSeconds, 1, 3);
    }

    [Theory]
    [InlineData(1, 10)]
    [InlineData(1, 90)]
    [InlineData(100, 10)]
    [InlineData(1_000, 200)]
    public void A_slow_queue_is_served_at_its_own_pace_and_costs_few_copies(int capacity, int perSecond)
    {
        // 20,000 events went out in the minute before, and from then on there is only this queue.
        Confirm(20_000);
        Refuse();
        lane.HasStuck = true;
        double held = capacity;
        var (sent, refused) = (0, 0);
        var step = TimeSpan.FromMilliseconds(1);
        for (var elapsed = TimeSpan.Zero; elapsed < TimeSpan.FromMinutes(9); elapsed += step)
        {
            held = Math.Max(0, held - (perSecond * step.TotalSeconds));
            var count = lane.Due(1);
            if (lane.IsClosed && count > 0)
            {
                lane.Try("A-1");
            }
            // Outcomes come together, a millisecond later.
            Begin(count);
            for (var one = 0; one < count; one++)
            {
                if (held <= capacity - 1)
                {
                    held++;
                    sent++;
                    lane.Confirm();
                }
                else
                {
                    refused++;
                    lane.Refuse("a queue refuses it");
                }
            }
            clock.Advance(step);
        }

        // Of what it could take, less the first minutes in which its pace is found.
        Assert.InRange(sent, 0.5 * perSecond * 9 * 60, (perSecond * 9 * 60) + capacity);
        Assert.InRange(refused, 1, (0.01 * (20_000 + sent)) + 54 + 1);
    }

    [Fact]
    public void What_was_found_in_the_table_is_tried_at_once_and_alone()
    {
        lane.Find("a queue refuses it", clock.GetUtcNow().AddHours(-1));

        Assert.True(lane.IsClosed);
        Assert.Equal(1, lane.Due(1));
    }

    [Fact]
    public void An_operator_does_not_wait_for_the_next_attempt()
    {
        lane.HasStuck = true;
        lane.HearOfReleases(3);
        Refuse();
        Assert.Equal(0, lane.Due(1));

        Assert.False(lane.HearOfReleases(3));
        Assert.Equal(0, lane.Due(1));
        Assert.True(lane.HearOfReleases(4));
        Assert.Equal(1, lane.Due(1));
    }

    [Fact]
    public void Only_the_last_ten_minutes_count()
    {
        Confirm(10_000);
        Assert.Equal(100, budget.Left);
        budget.Spend();
        Assert.Equal(99, budget.Left);

        clock.Advance(TimeSpan.FromMinutes(9.9));
        Assert.Equal(99, budget.Left);
        clock.Advance(TimeSpan.FromMinutes(1));
        Assert.Equal(0, budget.Left);
        clock.Advance(TimeSpan.FromDays(1));
        Assert.Equal(0, budget.Left);
    }

    private void Begin(int count)
    {
        for (var one = 0; one < count; one++)
        {
            lane.Begin();
        }
    }

    private void Confirm(int count)
    {
        for (var one = 0; one < count; one++)
        {
            lane.Begin();
            lane.Confirm();
        }
    }

    private void Refuse()
    {
        lane.Begin();
        lane.Refuse("a queue refuses it");
    }
}

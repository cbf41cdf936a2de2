using OrderService.Deadlines;
using OrderService.RabbitMq;

namespace OrderService.Tests.Deadlines;

/// <summary>Nothing is decided by time while what others sent may wait.</summary>
public sealed class IntakeCalmTests
{
    private DateTimeOffset now = new(2026, 3, 1, 3, 0, 0, TimeSpan.Zero);
    private string? obstacle;
    private QueueDepth? depth;

    [Fact]
    public void It_is_calm_once_two_readings_in_turn_found_the_queues_empty()
    {
        var calm = new IntakeCalm(() => obstacle, () => depth);
        Assert.Equal("how many messages wait in the queues of orders is not known", calm.WhyNot());

        Read(ready: 0);
        Assert.NotNull(calm.WhyNot());
        Assert.NotNull(calm.WhyNot());
        Read(ready: 0);
        Assert.Null(calm.WhyNot());
        Assert.Null(calm.WhyNot());
        calm.Forget();
        Assert.NotNull(calm.WhyNot());
    }

    [Fact]
    public void What_waits_what_nobody_consumes_and_what_keeps_this_process_from_it_begin_the_count_anew()
    {
        var calm = new IntakeCalm(() => obstacle, () => depth);
        foreach (var (disturb, reason) in new (Action, string)[]
        {
            (() => Read(ready: 1), "messages wait in the queues of orders"),
            (() => Read(ready: 0, consumers: 0), "a queue of orders has no consumer"),
            (() => depth = null, "how many messages wait in the queues of orders is not known"),
            (() => obstacle = "Intake of orders is paused by anna: a move", "Intake of orders is paused by anna: a move"),
        })
        {
            Read(ready: 0);
            _ = calm.WhyNot();
            disturb();
            Assert.Equal(reason, calm.WhyNot());
            obstacle = null;
            Read(ready: 0);
            Assert.Equal("the queues of orders have not been seen empty twice in turn", calm.WhyNot());
            Read(ready: 0);
            Assert.Null(calm.WhyNot());
        }
    }

    private void Read(long ready, int consumers = 1)
    {
        now += TimeSpan.FromSeconds(5);
        depth = new QueueDepth("orders", true, ready, consumers, null, null, now);
    }
}

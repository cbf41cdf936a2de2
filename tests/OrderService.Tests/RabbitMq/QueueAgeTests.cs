using CsCheck;
using OrderService.RabbitMq;

namespace OrderService.Tests.RabbitMq;

public sealed class QueueAgeTests
{
    private static readonly DateTimeOffset Noon = new(2026, 3, 1, 12, 0, 0, TimeSpan.Zero);

    private readonly QueueAge age = new();

    [Fact]
    public void An_empty_queue_has_no_oldest_message()
    {
        Assert.Null(Read(0, ready: 0, arrived: 0));
        Assert.Null(Read(5, ready: 0, arrived: 100));
    }

    [Fact]
    public void With_nobody_consuming_the_oldest_message_is_the_first_that_came_after_the_queue_was_empty()
    {
        Read(0, ready: 0, arrived: 100);
        Assert.Equal(At(5), Read(5, ready: 3, arrived: 103));
        Assert.Equal(At(5), Read(10, ready: 3, arrived: 103));
        Assert.Equal(At(5), Read(15, ready: 50, arrived: 150));
    }

    [Fact]
    public void As_messages_are_taken_out_the_oldest_is_a_later_one()
    {
        Read(0, ready: 0, arrived: 0);
        Read(5, ready: 10, arrived: 10);
        Read(10, ready: 20, arrived: 20);
        Read(15, ready: 20, arrived: 30);
        // Of 30 that came, 20 wait: the oldest is number 11, which came between 5 and 10.
        Assert.Equal(At(10), Read(20, ready: 20, arrived: 30));
        Assert.Equal(At(10), Read(25, ready: 11, arrived: 30));
        Assert.Equal(At(15), Read(30, ready: 10, arrived: 30));
        Assert.Null(Read(35, ready: 0, arrived: 30));
        Assert.Equal(At(40), Read(40, ready: 1, arrived: 31));
    }

    [Fact]
    public void What_was_there_at_the_first_reading_has_waited_at_least_since_then()
    {
        Assert.Equal(At(0), Read(0, ready: 10, arrived: 10));
        Assert.Equal(At(0), Read(5, ready: 5, arrived: 10));
    }

    [Fact]
    public void When_it_is_not_known_how_many_came_nothing_is_known_and_it_begins_anew()
    {
        Read(0, ready: 10, arrived: 10);
        Assert.Null(Read(5, ready: 10, arrived: null));
        Assert.Equal(At(10), Read(10, ready: 10, arrived: 10));
    }

    [Fact]
    public void A_counter_that_begins_anew_and_messages_taken_by_others_do_not_make_it_younger_than_it_is()
    {
        Read(0, ready: 0, arrived: 1_000);
        Read(5, ready: 10, arrived: 1_010);
        Assert.Equal(At(5), Read(10, ready: 10, arrived: 0));
        Assert.Equal(At(5), Read(15, ready: 12, arrived: 2));
        // Somebody takes the ten oldest by hand.
        Assert.Equal(At(15), Read(20, ready: 2, arrived: 2));
    }

    [Fact]
    public void A_delivery_that_is_not_counted_yet_does_not_make_it_younger_than_it_is()
    {
        Read(0, ready: 0, arrived: 0);
        Read(5, ready: 10, arrived: 10);
        Read(10, ready: 20, arrived: 20);
        // Six have left the queue, and where they are counted none has come yet.
        Assert.Equal(At(5), Read(15, ready: 14, arrived: 14));
        Assert.Equal(At(5), Read(20, ready: 14, arrived: 20));
        // Six that somebody else took are never counted.
        Read(25, ready: 8, arrived: 14);
        Assert.Equal(At(10), Read(30, ready: 8, arrived: 14));
        Assert.Equal(At(35), Read(35, ready: 1, arrived: 15));
    }

    [Fact]
    public void It_is_never_older_than_the_message_nor_younger_by_more_than_a_reading()
    {
        Gen.Select(Gen.Int[0, 20], Gen.Int[0, 20]).Array[1, 200].Sample(steps =>
        {
            var age = new QueueAge();
            var queue = new Queue<int>();
            long arrived = 0;
            Assert.Null(age.Read(At(0), 0, 0));
            for (var step = 1; step <= steps.Length; step++)
            {
                var (come, go) = steps[step - 1];
                for (var message = 0; message < come; message++)
                {
                    queue.Enqueue(step);
                }

                arrived += come;
                while (go-- > 0 && queue.TryDequeue(out _))
                {
                }

                Assert.Equal(queue.Count == 0 ? null : At(queue.Peek()), age.Read(At(step), queue.Count, arrived));
            }
        });
    }

    [Fact]
    public void A_backlog_of_days_is_known_to_within_a_500th_and_takes_little_memory()
    {
        Read(0, ready: 0, arrived: 0);
        for (var reading = 1; reading <= 100_000; reading++)
        {
            Assert.Equal(At(5), Read(reading * 5, ready: reading, arrived: reading));
        }

        // Half of it is processed at once.
        var since = Read(500_005, ready: 50_000, arrived: 100_000)!.Value;
        Assert.InRange(since, At(50_001 * 5), At(50_200 * 5));
        Assert.InRange(age.Kept, 100, 4_000);
    }

    private DateTimeOffset? Read(int second, long ready, long? arrived) => age.Read(At(second), ready, arrived);

    private static DateTimeOffset At(int second) => Noon.AddSeconds(second);
}

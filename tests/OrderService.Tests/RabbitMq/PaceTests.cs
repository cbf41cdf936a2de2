using OrderService.RabbitMq;

namespace OrderService.Tests.RabbitMq;

public sealed class PaceTests
{
    private const long Room = 16 << 20;
    private readonly Pace pace = new(2000);

    [Fact]
    public void Small_messages_are_soon_asked_for_by_the_thousand()
    {
        var allowed = new List<int>();
        for (var delivered = 0; delivered < 300; delivered++)
        {
            if (pace.Delivered(700, Room, int.MaxValue))
            {
                allowed.Add(pace.Next(int.MaxValue));
            }
        }

        Assert.Equal([16, 256, 2000], allowed);
    }

    [Fact]
    public void Large_messages_are_asked_for_as_there_is_room()
    {
        for (var delivered = 0; delivered < 100; delivered++)
        {
            if (pace.Delivered(1 << 20, Room, int.MaxValue))
            {
                Assert.InRange(pace.Next(int.MaxValue), 2, 8);
            }
        }

        Assert.Equal(8, pace.Allowed);
    }

    [Fact]
    public void Nothing_is_asked_for_that_could_be_too_much_again_before_all_that_went_back_has_come()
    {
        Grow(2000);
        pace.Delivered(4 << 20, Room, int.MaxValue);

        pace.TooMuch(Room, givenBack: 100);

        Assert.Equal(2, pace.Next(int.MaxValue));
        for (var delivered = 0; delivered < 130; delivered++)
        {
            Assert.False(pace.Delivered(700, Room, int.MaxValue));
        }

        Grow(2000);
        Assert.Equal(2000, pace.Allowed);
    }

    [Fact]
    public void Other_reasons_to_ask_for_few_hold()
    {
        for (var delivered = 0; delivered < 1000; delivered++)
        {
            if (pace.Delivered(700, Room, 32))
            {
                Assert.InRange(pace.Next(32), 1, 32);
            }
        }

        Assert.Equal(32, pace.Allowed);
    }

    private void Grow(int most)
    {
        for (var delivered = 0; delivered < 20_000 && pace.Allowed < most; delivered++)
        {
            if (pace.Delivered(700, Room, int.MaxValue))
            {
                pace.Next(int.MaxValue);
            }
        }
    }
}

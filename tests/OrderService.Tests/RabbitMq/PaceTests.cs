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
                allowed.Add(pace.Next(int.MaxValue, 0));
            }
        }

        Assert.Equal([16, 250, 2000], allowed);
    }

    [Fact]
    public void Large_messages_are_asked_for_as_there_is_room()
    {
        for (var delivered = 0; delivered < 100; delivered++)
        {
            if (pace.Delivered(1 << 20, Room, int.MaxValue))
            {
                Assert.InRange(pace.Next(int.MaxValue, 0), 2, 8);
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

        Assert.Equal(2, pace.Next(int.MaxValue, 0));
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
                Assert.InRange(pace.Next(32, 0), 1, 32);
            }
        }

        Assert.Equal(32, pace.Allowed);
    }

    [Theory]
    [InlineData(2, 2)]
    [InlineData(4, 4)]
    [InlineData(12, 11)]
    [InlineData(32, 27)]
    [InlineData(500, 421)]
    [InlineData(2000, 1733)]
    public void What_is_in_hand_already_comes_off_and_that_is_not_tried_again(int most, int last)
    {
        var limited = new Pace(most);
        limited.Next(int.MaxValue, inHand: 0);
        for (var inHand = 1; inHand <= most; inHand++)
        {
            if (limited.Delivered(700, Room, int.MaxValue))
            {
                limited.Next(int.MaxValue, inHand);
            }
        }

        Assert.Equal(last, limited.Allowed);
        for (var delivered = 0; delivered < 5000; delivered++)
        {
            Assert.False(limited.Delivered(700, Room, int.MaxValue));
        }
    }

    [Fact]
    public void A_consumer_that_begins_with_full_hands_is_soon_allowed_more()
    {
        Grow(2000);
        Assert.Equal(1, pace.Next(int.MaxValue, inHand: 2000));

        Grow(2000);

        Assert.Equal(2000, pace.Allowed);
    }

    private void Grow(int most)
    {
        for (var delivered = 0; delivered < 20_000 && pace.Allowed < most; delivered++)
        {
            if (pace.Delivered(700, Room, int.MaxValue))
            {
                pace.Next(int.MaxValue, 0);
            }
        }
    }
}

using OrderService.RabbitMq;
using RabbitMQ.Client;
using RabbitMQ.Client.Events;

namespace OrderService.Tests.RabbitMq;

public sealed class DoubtTests
{
    private readonly Doubt doubt = new();

    [Fact]
    public void One_end_makes_portions_and_a_second_makes_single_ones()
    {
        Ended(inHand: 1500, allowed: 2000);
        Assert.Equal(32, doubt.Cap);

        Deliver(1000);
        Ended(inHand: 10, allowed: 32);

        Assert.Equal(1, doubt.Cap);
        // 10 in hand, 32 on their way, and 32 whose acknowledgements were.
        Deliver(10 + 32 + 32);
        Assert.Equal(32, doubt.Cap);
        Deliver(1500 + 2000 + 2000 - 1000);
        Assert.Equal(int.MaxValue, doubt.Cap);
    }

    [Fact]
    public void Whatever_goes_back_is_taken_one_by_one_although_it_was_settled_here()
    {
        Ended(inHand: 2000, allowed: 2000);
        // All that comes is settled at once, and none of the last portion's acknowledgements arrives.
        Deliver(2000);
        Ended(inHand: 0, allowed: 4);

        Deliver(32 + 3);
        Assert.Equal(1, doubt.Cap);
        Ended(inHand: 0, allowed: 1);
        Assert.Equal(1, doubt.Cap);
    }

    [Fact]
    public void Three_ends_over_the_same_message_at_the_head_blame_it()
    {
        Ended(10, 100);
        Ended(10, 32);
        Deliver(3);
        Ended(0, 1);
        Ended(0, 1);
        Assert.False(doubt.Blames);

        Ended(0, 1);

        Assert.True(doubt.Blames);
        Deliver(1);
        Assert.False(doubt.Blames);
    }

    [Fact]
    public void Ends_with_something_in_hand_blame_nobody()
    {
        for (var end = 0; end < 50; end++)
        {
            Ended(1, 1);
            Assert.False(doubt.Blames);
        }
    }

    [Fact]
    public void Ends_over_an_empty_queue_blame_nobody()
    {
        for (var end = 0; end < 50; end++)
        {
            doubt.Ended(0, 1, isHeadKnown: false, isMessage: false);
            Assert.False(doubt.Blames);
        }
    }

    [Fact]
    public void Ends_with_deliveries_between_them_blame_nobody()
    {
        for (var end = 0; end < 50; end++)
        {
            Ended(0, 1);
            Deliver(1);
            Assert.False(doubt.Blames);
        }
    }

    [Fact]
    public void What_the_client_cannot_read_needs_no_second_end()
    {
        doubt.Ended(20, 100, isHeadKnown: false, isMessage: true);

        Assert.Equal(1, doubt.Cap);
    }

    [Fact]
    public void A_quiet_while_ends_the_doubt()
    {
        Ended(10, 100);
        Ended(10, 32);

        doubt.Calm();

        Assert.Equal(int.MaxValue, doubt.Cap);
        Ended(0, 100);
        Assert.Equal(32, doubt.Cap);
    }

    [Theory]
    [InlineData(0, true)]
    [InlineData(4.9, true)]
    [InlineData(5, false)]
    [InlineData(3600, false)]
    public void The_end_of_a_connection_that_was_quiet_is_no_sign_of_a_message(double seconds, bool isSign) =>
        Assert.Equal(isSign, Doubt.IsSoonEnough(TimeSpan.FromSeconds(seconds)));

    [Fact]
    public void Want_of_memory_is_no_sign_of_a_message_and_a_frame_that_cant_be_read_is_one()
    {
        var memory = new ShutdownEventArgs(ShutdownInitiator.Library, Constants.InternalError, "Unexpected Exception", new InsufficientMemoryException());
        var frame = new ShutdownEventArgs(ShutdownInitiator.Library, Constants.InternalError, "Unexpected Exception", new FormatException());

        Assert.Equal((true, false), (BrokerErrors.IsWantOfMemory(memory), BrokerErrors.IsUnreadable(memory)));
        Assert.Equal((false, true), (BrokerErrors.IsWantOfMemory(frame), BrokerErrors.IsUnreadable(frame)));
    }

    private void Ended(int inHand, int allowed) => doubt.Ended(inHand, allowed, isHeadKnown: true, isMessage: false);

    private void Deliver(int count)
    {
        for (var number = 0; number < count; number++)
        {
            doubt.Delivered();
        }
    }
}

using Microsoft.Extensions.Options;
using Microsoft.Extensions.Time.Testing;
using OrderService.DeadLetters;
using OrderService.Notifications;
using OrderService.Observability;
using OrderService.RabbitMq;

namespace OrderService.Tests.DeadLetters;

public sealed class UnreadableLettersTests
{
    [Fact]
    public void Messages_that_nobody_can_read_are_a_trouble_while_they_lie_there()
    {
        var clock = new FakeTimeProvider();
        var troubles = new Troubles(clock);
        QueueDepth? depth = null;
        using var letters = new UnreadableLetters(() => depth, troubles, Options.Create(new AlertsOptions()), clock);
        void Look(long? ready)
        {
            depth = ready is { } count ? new QueueDepth(TopologyNames.Unreadable, true, count, 0, null, null, clock.GetUtcNow()) : null;
            letters.Look();
        }

        Look(null);
        Look(0);
        Assert.Empty(troubles.Standing);
        Look(1);
        Assert.Equal("1 message can't be read and is held in the broker", Assert.Single(troubles.Standing).Trouble.Subject);
        Look(3);
        Assert.Equal(3, Assert.Single(troubles.Standing).Trouble.Size);
        // No reading is no news.
        Look(null);
        Assert.Single(troubles.Standing);
        Look(0);
        Assert.Empty(troubles.Standing);
    }
}

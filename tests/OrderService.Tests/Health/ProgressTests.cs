using Microsoft.Extensions.Time.Testing;
using OrderService.Health;

namespace OrderService.Tests.Health;

/// <summary>When work in hand counts as stuck.</summary>
public sealed class ProgressTests
{
    private readonly FakeTimeProvider clock = new();

    [Fact]
    public void Work_in_hand_of_which_nothing_is_decided_for_20_s_is_stuck_however_little_it_is()
    {
        var progress = new Progress(clock);
        var began = clock.GetUtcNow();
        Look(progress, seconds: 19, inHand: true, decided: 7);
        Assert.Null(progress.StuckSince);

        Look(progress, seconds: 2, inHand: true, decided: 7);
        Assert.Equal(began, progress.StuckSince);

        progress.Look(inHand: true, decidedInAll: 8);
        Assert.Null(progress.StuckSince);
    }

    [Fact]
    public void New_deliveries_are_no_progress_and_every_decision_is()
    {
        var progress = new Progress(clock);
        for (var decided = 1; decided < 5; decided++)
        {
            Look(progress, seconds: 19, inHand: true, decided);
            Assert.Null(progress.StuckSince);
        }
        Look(progress, seconds: 21, inHand: true, decided: 5);
        Assert.NotNull(progress.StuckSince);
    }

    [Fact]
    public void Empty_hands_are_never_stuck_and_the_time_counts_from_when_they_were_filled()
    {
        var progress = new Progress(clock);
        Look(progress, seconds: 3600, inHand: false, decided: 7);
        Assert.Null(progress.StuckSince);
        Look(progress, seconds: 19, inHand: true, decided: 7);
        Assert.Null(progress.StuckSince);
        Look(progress, seconds: 3, inHand: false, decided: 7);
        Look(progress, seconds: 19, inHand: true, decided: 7);
        Assert.Null(progress.StuckSince);
    }

    [Fact]
    public void Messages_that_wait_are_stuck_once_two_counts_20_s_apart_have_seen_them_and_nothing_was_decided_between()
    {
        var queue = new Waiting();
        var first = clock.GetUtcNow();
        Count(seconds: 0, ready: 3, decided: 7);
        Count(seconds: 19, ready: 5, decided: 7);
        Assert.Null(queue.StuckSince);
        // The same count once more says nothing about now.
        Count(seconds: 19, ready: 5, decided: 7);
        Assert.Null(queue.StuckSince);
        Count(seconds: 21, ready: 1, decided: 7);
        Assert.Equal(first, queue.StuckSince);

        Count(seconds: 25, ready: 1, decided: 8);
        Assert.Null(queue.StuckSince);
        Count(seconds: 46, ready: 1, decided: 8);
        Assert.Equal(first.AddSeconds(25), queue.StuckSince);
        Count(seconds: 50, ready: 0, decided: 8);
        Assert.Null(queue.StuckSince);

        void Count(int seconds, long ready, long decided) => queue.Look(first.AddSeconds(seconds), ready, decided, Progress.Patience);
    }

    /// <summary>As it is looked at: every second.</summary>
    private void Look(Progress progress, int seconds, bool inHand, long decided)
    {
        for (var second = 0; second < seconds; second++)
        {
            progress.Look(inHand, decided);
            clock.Advance(TimeSpan.FromSeconds(1));
        }
        progress.Look(inHand, decided);
    }
}

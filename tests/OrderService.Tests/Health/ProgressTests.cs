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

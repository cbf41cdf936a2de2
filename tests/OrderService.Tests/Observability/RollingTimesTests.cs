using Microsoft.Extensions.Time.Testing;
using OrderService.Observability;

namespace OrderService.Tests.Observability;

/// <summary>Percentiles of the last five minutes.</summary>
public sealed class RollingTimesTests
{
    private readonly FakeTimeProvider clock = new(new DateTimeOffset(2026, 11, 28, 9, 0, 0, TimeSpan.Zero));

    [Fact]
    public void Without_a_note_there_is_nothing_to_say() => Assert.Null(new RollingTimes(clock).Read());

    [Fact]
    public void Percentiles_are_right_to_five_in_a_hundred()
    {
        var times = new RollingTimes(clock);
        var random = new Random(5);
        var taken = Enumerable.Range(0, 10_000).Select(_ => Math.Exp((random.NextDouble() * 12) - 6)).ToArray();
        foreach (var seconds in taken)
        {
            times.Note(seconds);
        }

        Array.Sort(taken);
        var read = times.Read()!;
        Assert.Equal(10_000, read.Count);
        Assert.InRange(read.P50, taken[4_999], taken[4_999] * 1.051);
        Assert.InRange(read.P95, taken[9_499], taken[9_499] * 1.051);
        Assert.InRange(read.P99, taken[9_899], taken[9_899] * 1.051);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(0.0005)]
    [InlineData(400 * 86_400.0)]
    public void What_is_out_of_all_bounds_counts_as_well(double seconds)
    {
        var times = new RollingTimes(clock);

        times.Note(seconds);

        var read = times.Read()!;
        Assert.Equal(1, read.Count);
        Assert.Equal(read.P50, read.P99);
        Assert.True(seconds <= 0.001 ? read.P50 == 0 : read.P50 > 300 * 86_400, $"{read}");
    }

    [Fact]
    public void What_is_older_than_five_minutes_does_not_count()
    {
        var times = new RollingTimes(clock);
        times.Note(9);
        clock.Advance(TimeSpan.FromMinutes(4));
        times.Note(1);

        Assert.Equal(2, times.Read()!.Count);
        clock.Advance(TimeSpan.FromMinutes(1));
        Assert.InRange(Assert.IsType<TimesOfLate>(times.Read()).P99, 1, 1.05);
        clock.Advance(TimeSpan.FromMinutes(5));
        Assert.Null(times.Read());
        times.Note(2);
        Assert.Equal(1, times.Read()!.Count);
    }

    [Fact]
    public async Task Notes_from_many_threads_are_all_counted()
    {
        var times = new RollingTimes(clock);

        await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => Task.Run(() =>
        {
            for (var number = 0; number < 50_000; number++)
            {
                times.Note(0.5);
            }
        })));

        Assert.Equal(400_000, times.Read()!.Count);
    }
}

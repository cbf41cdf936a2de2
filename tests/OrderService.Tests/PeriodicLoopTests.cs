using System.Threading.Channels;
using Microsoft.Extensions.Time.Testing;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests;

/// <summary>The loop that background services have in common.</summary>
public sealed class PeriodicLoopTests : IDisposable
{
    private static readonly TimeSpan Interval = TimeSpan.FromMinutes(1);
    private static readonly DateTimeOffset Start = new(2026, 11, 28, 9, 0, 0, TimeSpan.Zero);

    private readonly FakeTimeProvider clock = new(Start);
    private readonly CancellationTokenSource stop = new();
    private readonly Channel<DateTimeOffset> rounds = Channel.CreateUnbounded<DateTimeOffset>();
    private readonly Channel<Exception> failures = Channel.CreateUnbounded<Exception>();

    private static CancellationToken Stopping => TestContext.Current.CancellationToken;

    public void Dispose() => stop.Dispose();

    [Fact]
    public async Task The_first_round_is_at_once_and_the_next_at_each_tick()
    {
        var loop = PeriodicLoop.AtOnceAsync(Interval, clock, NoteAsync, stop.Token);

        Assert.Equal(Start, await NextAsync(rounds));
        await TicksAreRoundsAsync();
        await StopsQuietlyAsync(loop);
    }

    [Fact]
    public async Task The_first_round_is_at_the_first_tick()
    {
        var loop = PeriodicLoop.AfterTickAsync(Interval, clock, NoteAsync, stop.Token);

        await TicksAreRoundsAsync();
        await StopsQuietlyAsync(loop);
    }

    [Fact]
    public async Task Every_round_that_fails_is_told_and_the_next_tick_brings_the_next()
    {
        // Of another token than the stop's: a failure as any other.
        Exception[] thrown = [new InvalidOperationException("first"), new OperationCanceledException("second")];
        var number = 0;
        var loop = PeriodicLoop.AtOnceAsync(
            Interval, clock, token => number < thrown.Length ? throw thrown[number++] : NoteAsync(token), stop.Token,
            failed: failure => failures.Writer.TryWrite(failure));

        Assert.Same(thrown[0], await NextAsync(failures));
        clock.Advance(Interval);
        Assert.Same(thrown[1], await NextAsync(failures));
        clock.Advance(Interval);
        Assert.Equal(Start + (2 * Interval), await NextAsync(rounds));
        await StopsQuietlyAsync(loop);
    }

    [Fact]
    public async Task A_failure_of_which_nobody_wants_to_be_told_ends_the_loop()
    {
        var loop = PeriodicLoop.AtOnceAsync(Interval, clock, _ => throw new InvalidOperationException("broken"), stop.Token);

        await Assert.ThrowsAsync<InvalidOperationException>(() => loop.WaitAsync(Eventually.Deadline, Stopping));
    }

    [Fact]
    public async Task The_stop_ends_a_round_that_is_under_way_and_nobody_is_told()
    {
        var loop = PeriodicLoop.AtOnceAsync(Interval, clock, async token =>
        {
            await NoteAsync(token);
            await Task.Delay(Timeout.InfiniteTimeSpan, token);
        }, stop.Token, failed: failure => failures.Writer.TryWrite(failure));

        await NextAsync(rounds);
        await StopsQuietlyAsync(loop);
    }

    [Fact]
    public async Task A_failure_that_meets_the_stop_is_no_quiet_end()
    {
        var loop = PeriodicLoop.AtOnceAsync(Interval, clock, async _ =>
        {
            await stop.CancelAsync();
            throw new InvalidOperationException("broken");
        }, stop.Token, failed: failure => failures.Writer.TryWrite(failure));

        await Assert.ThrowsAsync<InvalidOperationException>(() => loop.WaitAsync(Eventually.Deadline, Stopping));
        Assert.False(failures.Reader.TryRead(out _));
    }

    private Task NoteAsync(CancellationToken cancellationToken)
    {
        Assert.Equal(stop.Token, cancellationToken);
        return rounds.Writer.WriteAsync(clock.GetUtcNow(), Stopping).AsTask();
    }

    private static Task<T> NextAsync<T>(Channel<T> channel) => channel.Reader.ReadAsync(Stopping).AsTask().WaitAsync(Eventually.Deadline, Stopping);

    /// <summary>Each at its time: a round tells when it was, and there is none before.</summary>
    private async Task TicksAreRoundsAsync()
    {
        for (var tick = 1; tick <= 3; tick++)
        {
            clock.Advance(Interval - TimeSpan.FromSeconds(1));
            Assert.False(rounds.Reader.TryRead(out _));
            clock.Advance(TimeSpan.FromSeconds(1));
            Assert.Equal(Start + (tick * Interval), await NextAsync(rounds));
        }
    }

    private async Task StopsQuietlyAsync(Task loop)
    {
        Assert.False(loop.IsCompleted);
        await stop.CancelAsync();
        await loop.WaitAsync(Eventually.Deadline, Stopping);
        clock.Advance(Interval);
        Assert.False(rounds.Reader.TryRead(out _) || failures.Reader.TryRead(out _));
    }
}

using System.Runtime.CompilerServices;

namespace OrderService.Tests.Infrastructure;

/// <summary>Waits for what another process or thread is about to do. Never a fixed pause: as short as it can be, as long as the deadline.</summary>
public static class Eventually
{
    public static readonly TimeSpan Deadline = TimeSpan.FromSeconds(90);

    public static Task TrueAsync(Func<bool> condition, TimeSpan? deadline = null, [CallerArgumentExpression(nameof(condition))] string? what = null) =>
        TrueAsync(() => Task.FromResult(condition()), deadline, what);

    public static async Task TrueAsync(Func<Task<bool>> condition, TimeSpan? deadline = null, [CallerArgumentExpression(nameof(condition))] string? what = null)
    {
        using var timeout = new CancellationTokenSource(deadline ?? Deadline);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(timeout.Token, TestContext.Current.CancellationToken);
        using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
        try
        {
            while (!await condition())
            {
                await tick.WaitForNextTickAsync(either.Token);
            }
        }
        catch (OperationCanceledException) when (timeout.IsCancellationRequested)
        {
            Assert.Fail($"This did not become true within {deadline ?? Deadline}: {what}");
        }
    }

    /// <summary>Waits until the assertions hold; the last failure is the test's failure.</summary>
    public static async Task HoldsAsync(Func<Task> assertions, TimeSpan? deadline = null)
    {
        using var timeout = new CancellationTokenSource(deadline ?? Deadline);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(timeout.Token, TestContext.Current.CancellationToken);
        using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
        while (true)
        {
            try
            {
                await assertions();
                return;
            }
            catch (Exception) when (!either.IsCancellationRequested)
            {
                try
                {
                    await tick.WaitForNextTickAsync(either.Token);
                }
                catch (OperationCanceledException)
                {
                    // One last try tells what is still wrong.
                }
            }
        }
    }
}

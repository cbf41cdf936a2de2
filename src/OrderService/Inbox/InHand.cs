namespace OrderService.Inbox;

/// <summary>
/// What an intake does with deliveries that can't be done now: it keeps them in hand and tries them again until they can, while the others go on.
/// When the store takes nothing at all, nothing goes on, and after a while no more is taken.
/// </summary>
/// <param name="mayBeOvertaken">Others may be done before what is held; otherwise everything waits for it.</param>
/// <param name="stopTaking">Takes no more, with the reason; called again and again.</param>
/// <param name="takeAgain">Takes more again.</param>
/// <param name="holdAfter">How long the store has to take nothing before no more is taken.</param>
public sealed class InHand<T>(
    Blame<T> blame, Func<T, bool> isAlive, bool mayBeOvertaken, Action<string> stopTaking, Action takeAgain, TimeSpan holdAfter, TimeProvider clock) : IAsyncDisposable
{
    private static readonly TimeSpan FirstPause = TimeSpan.FromMilliseconds(200);
    private static readonly TimeSpan LongestPause = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan LongestPauseOfAll = TimeSpan.FromSeconds(2);

    private readonly Lock gate = new();
    private readonly List<T> waiting = [];
    private readonly CancellationTokenSource stop = new();
    private Task trying = Task.CompletedTask;

    /// <summary>How many wait.</summary>
    public int Waiting
    {
        get
        {
            lock (gate)
            {
                return waiting.Count;
            }
        }
    }

    /// <summary>Taken while something is to be alone: what waits is not tried meanwhile.</summary>
    public SemaphoreSlim Turn { get; } = new(1, 1);

    /// <summary>Does the work; returns when each is settled, given up, or waits.</summary>
    public Task DoAsync(IReadOnlyList<T> items, CancellationToken cancellationToken) => KeepAsync(() => blame.DoAsync(items, again: false, cancellationToken), cancellationToken);

    /// <summary>The same for what failed already.</summary>
    public Task SortOutAsync(IReadOnlyList<T> items, Exception failure, CancellationToken cancellationToken) =>
        KeepAsync(() => blame.SortOutAsync(items, failure, neighbourSucceeded: false, cancellationToken), cancellationToken);

    /// <summary>Ends the attempts; what waits is not settled.</summary>
    public async ValueTask DisposeAsync()
    {
        await stop.CancelAsync();
        Task last;
        lock (gate)
        {
            last = trying;
        }
        await last;
        stop.Dispose();
        Turn.Dispose();
    }

    private async Task KeepAsync(Func<Task<Held<T>>> first, CancellationToken cancellationToken)
    {
        var held = await first();
        if (held.IsNothing)
        {
            return;
        }
        var since = clock.GetTimestamp();
        var stopped = false;
        for (var pause = FirstPause; held.All || (!mayBeOvertaken && !held.IsNothing); pause = Longer(pause, LongestPauseOfAll))
        {
            if (clock.GetElapsedTime(since) > holdAfter)
            {
                stopped = true;
                stopTaking("the store does not take them");
            }
            await Task.Delay(pause, clock, cancellationToken);
            var alive = held.Items.Where(isAlive).ToList();
            held = alive.Count == 0 ? new Held<T>([], false) : await blame.DoAsync(alive, again: true, cancellationToken);
        }
        if (stopped)
        {
            takeAgain();
        }
        lock (gate)
        {
            waiting.AddRange(held.Items);
            if (waiting.Count == 0)
            {
                blame.Over();
            }
            else if (trying.IsCompleted)
            {
                trying = TryAgainAsync();
            }
        }
    }

    /// <summary>Tries what waits until nothing does.</summary>
    private async Task TryAgainAsync()
    {
        try
        {
            for (var pause = FirstPause; ; pause = Longer(pause, LongestPause))
            {
                await Task.Delay(pause, clock, stop.Token);
                List<T> alive;
                lock (gate)
                {
                    // What is not alive any more comes again by itself.
                    alive = waiting.FindAll(item => isAlive(item));
                    waiting.Clear();
                    waiting.AddRange(alive);
                }
                var held = new Held<T>([], false);
                if (alive.Count > 0)
                {
                    await Turn.WaitAsync(stop.Token);
                    try
                    {
                        held = await blame.DoAsync(alive, again: true, stop.Token);
                    }
                    finally
                    {
                        Turn.Release();
                    }
                }
                lock (gate)
                {
                    // Others may have come to wait meanwhile; they stand behind those that were tried.
                    waiting.RemoveRange(0, alive.Count);
                    waiting.InsertRange(0, held.Items);
                    if (waiting.Count == 0)
                    {
                        blame.Over();
                        trying = Task.CompletedTask;
                        return;
                    }
                }
            }
        }
        catch (Exception) when (stop.IsCancellationRequested)
        {
            // The station stops; what waits goes back to where it came from.
        }
    }

    private static TimeSpan Longer(TimeSpan pause, TimeSpan longest) => pause * 2 < longest ? pause * 2 : longest;
}

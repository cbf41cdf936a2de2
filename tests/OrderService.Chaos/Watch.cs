namespace OrderService.Chaos;

/// <summary>What an observer saw of one instance at one moment.</summary>
/// <param name="At">Since the watch began.</param>
/// <param name="Status">What <c>/health/ready</c> answered; null when nobody answered.</param>
/// <param name="IsDegraded">200, and it says that something stands still.</param>
/// <param name="Heard">Different events that a subscriber had by then.</param>
/// <param name="Ready">How many messages waited in <c>orders</c>; -1 when the broker did not say.</param>
/// <param name="Text">What readiness said.</param>
internal sealed record Sample(TimeSpan At, int? Status, bool IsDegraded, int Heard, long Ready, string Text);

/// <summary>Looks at health, queue and progress every half second, from before the fault until quiet.</summary>
internal sealed class Watch : IAsyncDisposable
{
    private static readonly TimeSpan Every = TimeSpan.FromMilliseconds(500);

    private readonly World world;
    private readonly Service service;
    private readonly Subscriber subscriber;
    private readonly CancellationTokenSource stop = new();
    private readonly List<Sample> samples = [];
    private readonly Task watching;
    private readonly long began = TimeProvider.System.GetTimestamp();
    private long peakMemory;

    public Watch(World world, Service service, Subscriber subscriber)
    {
        (this.world, this.service, this.subscriber) = (world, service, subscriber);
        watching = LookAsync();
    }

    public TimeSpan Elapsed => TimeProvider.System.GetElapsedTime(began);

    /// <summary>The largest resident set that was seen, in bytes.</summary>
    public long PeakMemory => Volatile.Read(ref peakMemory);

    public List<Sample> Samples
    {
        get
        {
            lock (samples)
            {
                return [.. samples];
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        await StopAsync();
        stop.Dispose();
    }

    public async Task StopAsync()
    {
        await stop.CancelAsync();
        await watching;
    }

    private async Task LookAsync()
    {
        using var tick = new PeriodicTimer(Every);
        try
        {
            while (await tick.WaitForNextTickAsync(stop.Token))
            {
                var health = await service.HealthAsync();
                using var patience = CancellationTokenSource.CreateLinkedTokenSource(stop.Token);
                patience.CancelAfter(TimeSpan.FromSeconds(2));
                var ready = await world.TryReadyAsync("orders", patience.Token);
                Volatile.Write(ref peakMemory, Math.Max(peakMemory, service.PeakMemory));
                lock (samples)
                {
                    samples.Add(new Sample(
                        Elapsed, health?.Status, health?.Text.Contains("\"degraded\":true", StringComparison.OrdinalIgnoreCase) == true, subscriber.Distinct, ready, health?.Text ?? ""));
                }
            }
        }
        catch (OperationCanceledException)
        {
            // The trial is over.
        }
    }
}

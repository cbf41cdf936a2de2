using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using OrderService.Bench.Contestants;
using RabbitMQ.Client;

namespace OrderService.Bench.Measurement;

/// <param name="P50">Milliseconds, as the others.</param>
internal sealed record Spread(int Count, double P50, double P99, double P999, double Max)
{
    public static Spread? Of(List<double> milliseconds)
    {
        if (milliseconds.Count == 0)
        {
            return null;
        }
        milliseconds.Sort();
        return new Spread(milliseconds.Count, Percentile.Of(milliseconds, 0.5), Percentile.Of(milliseconds, 0.99), Percentile.Of(milliseconds, 0.999), milliseconds[^1]);
    }
}

/// <summary>One contestant under a steady load.</summary>
/// <param name="Rate">Orders a second, published whether or not the contestant keeps up.</param>
/// <param name="Held">Everything was relayed within two seconds of the last publish.</param>
/// <param name="Committed">From the moment a message was due to be published until the contestant knew its commit; null when it can't tell.</param>
/// <param name="Relayed">From the same moment until its event reached a consumer.</param>
/// <param name="Lateness">How late the load generator itself was; part of the figures above.</param>
/// <param name="CpuShare">Of one processor, the contestant's.</param>
internal sealed record LatencyRun(string Contestant, int Round, int Rate, double Seconds, int Orders, bool Held, Spread? Committed, Spread? Relayed, Spread? Lateness, double CpuShare, long PeakMemory);

/// <summary>
/// Open loop: orders are published by the clock, and each latency counts from the moment the clock says, not from when the message got out. So a stall is charged to every
/// order it held up (no coordinated omission).
/// </summary>
internal sealed partial class Latency(BenchAddresses addresses, Broker broker, string folder)
{
    private const int WarmUpFrom = 50_000_000;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    public async Task<LatencyRun> RunAsync(Contestant contestant, int round, int rate, TimeSpan duration, CancellationToken cancellationToken)
    {
        var name = string.Create(CultureInfo.InvariantCulture, $"bench-{contestant.Name}-{rate}-{round}");
        await using var run = await broker.PrepareAsync(name, cancellationToken);
        await using var store = await StoreRun.CreateAsync(addresses, contestant.Store, name, Path.Combine(folder, "data"));
        await store.SettleAsync();
        var commitFile = Path.Combine(folder, "data", name + ".commits");
        await using var child = ChildProcess.Start(contestant.Start(run.Address, store, commitFile), Path.Combine(folder, "logs", name + ".log"));
        await using var channel = await run.OpenChannelAsync();
        await using var sinkChannel = await run.OpenChannelAsync();
        var sink = new SinkConsumer(sinkChannel, Math.Max(1, (int)(rate * duration.TotalSeconds)));
        await sinkChannel.BasicConsumeAsync(Broker.Sink, autoAck: true, sink, cancellationToken);

        // As long as the measurement, within limits: what is measured is a process that has been at work for a while.
        var warmUp = Math.Clamp(duration.TotalSeconds, 2, 25);
        // Twice: the first pass compiles, the second lets settle what the first one left behind.
        var warmUps = 0;
        foreach (var pace in new[] { Math.Max(rate, 500), rate })
        {
            var orders = Math.Max(100, (int)(pace * warmUp / 2));
            await PublishAsync(channel, WarmUpFrom + warmUps, orders, pace, null, cancellationToken);
            warmUps += orders;
            await Wait.UntilAsync(
                () =>
                {
                    child.EnsureRunning();
                    return Task.FromResult(sink.WarmUps >= warmUps);
                },
                Patience * 3, $"{contestant.Name} relayed the warm-up", cancellationToken);
        }

        var due = new long[sink.Arrivals.Length];
        var lateness = new List<double>(due.Length);
        var cpu = child.CpuTime();
        var began = Stopwatch.GetTimestamp();
        await PublishAsync(channel, 0, due.Length, rate, (number, at, sent) =>
        {
            due[number] = at;
            lateness.Add(Stopwatch.GetElapsedTime(at, sent).TotalMilliseconds);
        }, cancellationToken);
        var published = Stopwatch.GetTimestamp();
        var cpuShare = (child.CpuTime() - cpu) / Stopwatch.GetElapsedTime(began, published);

        var held = await FinishedAsync(sink, TimeSpan.FromSeconds(2));
        if (!held)
        {
            await FinishedAsync(sink, Patience);
        }
        var peak = child.PeakMemory();
        await child.StopAsync();

        var relayed = new List<double>(due.Length);
        for (var number = 0; number < due.Length; number++)
        {
            var arrived = Volatile.Read(ref sink.Arrivals[number]);
            if (arrived != 0)
            {
                relayed.Add(Stopwatch.GetElapsedTime(due[number], arrived).TotalMilliseconds);
            }
        }
        if (held && (relayed.Count != due.Length || (contestant.Deduplicates && sink.Again > 0)))
        {
            throw new BenchException($"{contestant.Name} relayed {relayed.Count:N0} of {due.Length:N0} orders, {sink.Again:N0} of them twice.");
        }
        var committed = new List<double>();
        if (contestant.TellsCommits)
        {
            committed.AddRange(CommitTimes.Load(commitFile).Where(commit => commit.Number < due.Length).Select(commit => Stopwatch.GetElapsedTime(due[commit.Number], commit.Ticks).TotalMilliseconds));
            if (held && committed.Count != due.Length)
            {
                throw new BenchException($"{contestant.Name} committed {committed.Count:N0} of {due.Length:N0} orders.");
            }
        }
        File.Delete(commitFile);
        return new LatencyRun(
            contestant.Name, round, rate, duration.TotalSeconds, due.Length, held, Spread.Of(committed), Spread.Of(relayed), Spread.Of(lateness), cpuShare, peak);
    }

    private static async Task<bool> FinishedAsync(SinkConsumer sink, TimeSpan limit)
    {
        try
        {
            await Wait.UntilAsync(() => Task.FromResult(sink.Distinct == sink.Arrivals.Length), limit, "everything was relayed", CancellationToken.None);
            return true;
        }
        catch (BenchException)
        {
            return false;
        }
    }

    /// <summary>A thread of its own that sleeps until the next message is due; timers of the runtime are a millisecond wide.</summary>
    private static Task PublishAsync(IChannel channel, int first, int count, int rate, Action<int, long, long>? sent, CancellationToken cancellationToken) =>
        Task.Factory.StartNew(
            () =>
            {
                var began = Stopwatch.GetTimestamp();
                for (var number = 0; number < count; number++)
                {
                    cancellationToken.ThrowIfCancellationRequested();
                    var due = began + (long)((double)number / rate * Stopwatch.Frequency);
                    SleepUntil(due);
                    var publish = BrokerRun.PublishAsync(channel, first + number, cancellationToken);
                    if (!publish.IsCompletedSuccessfully)
                    {
                        publish.AsTask().GetAwaiter().GetResult();
                    }
                    sent?.Invoke(number, due, Stopwatch.GetTimestamp());
                }
            },
            cancellationToken, TaskCreationOptions.LongRunning, TaskScheduler.Default);

    private static void SleepUntil(long due)
    {
        while (true)
        {
            var left = due - Stopwatch.GetTimestamp();
            if (left <= 0)
            {
                return;
            }
            var time = new TimeSpec { Seconds = (nint)(left / Stopwatch.Frequency), Nanoseconds = (nint)(left % Stopwatch.Frequency * (1_000_000_000 / Stopwatch.Frequency)) };
            _ = NanoSleep(in time, 0);
        }
    }

    [LibraryImport("libc", EntryPoint = "nanosleep", SetLastError = true)]
    private static partial int NanoSleep(in TimeSpec time, nint remaining);

    [StructLayout(LayoutKind.Sequential)]
    private struct TimeSpec
    {
        public nint Seconds;
        public nint Nanoseconds;
    }

    /// <summary>Notes when each order's event arrived.</summary>
    private sealed class SinkConsumer(IChannel channel, int orders) : AsyncDefaultBasicConsumer(channel)
    {
        private int distinct;
        private int warmUps;

        public long[] Arrivals { get; } = new long[orders];

        public int Distinct => Volatile.Read(ref distinct);

        public int WarmUps => Volatile.Read(ref warmUps);

        /// <summary>Events that came for an order again.</summary>
        public int Again { get; private set; }

        public override Task HandleBasicDeliverAsync(
            string consumerTag, ulong deliveryTag, bool redelivered, string exchange, string routingKey, IReadOnlyBasicProperties properties, ReadOnlyMemory<byte> body, CancellationToken cancellationToken = default)
        {
            var now = Stopwatch.GetTimestamp();
            var number = Workload.NumberOf(properties.MessageId, body.Span);
            if (number >= WarmUpFrom)
            {
                Interlocked.Increment(ref warmUps);
            }
            else if (number >= 0 && number < Arrivals.Length)
            {
                if (Arrivals[number] == 0)
                {
                    Volatile.Write(ref Arrivals[number], now);
                    Interlocked.Increment(ref distinct);
                }
                else
                {
                    Again++;
                }
            }
            return Task.CompletedTask;
        }
    }
}

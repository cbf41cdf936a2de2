using System.Diagnostics;
using System.Globalization;
using OrderService.Bench.Contestants;
using OrderService.RabbitMq;

namespace OrderService.Bench.Measurement;

/// <summary>One contestant draining one queue.</summary>
/// <param name="Partitions">How many queues beside <c>orders</c> shared them.</param>
/// <param name="Messages">Queued messages, copies included.</param>
/// <param name="Seconds">From the first delivery until everything is relayed and marked as sent.</param>
/// <param name="Rate">Messages a second over all of it, the process's cold start included.</param>
/// <param name="WarmRate">Messages a second over the last four fifths.</param>
/// <param name="StartSeconds">From the start of the process to the first delivery; not part of <paramref name="Seconds"/>.</param>
/// <param name="CpuPerThousand">The contestant's processor seconds for 1,000 messages.</param>
/// <param name="PeakMemory">Largest resident set of its process (of the largest of several), in bytes.</param>
/// <param name="StoreBytes">Size of the store at the end.</param>
internal sealed record Drain(
    string Contestant, int Round, int Instances, int Partitions, int Messages, int Distinct, double Seconds, double Rate, double WarmRate, double StartSeconds,
    double CpuPerThousand, double? BrokerCpuPerThousand, double? DatabaseCpuPerThousand, long PeakMemory, long StoreBytes);

/// <summary>Drains a queue and checks what came of it. What can't be right ends the run.</summary>
internal sealed class Throughput(BenchAddresses addresses, Broker broker, string folder)
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);
    private readonly ContainerClock brokerClock = new(addresses.RabbitMqContainer);
    private readonly ContainerClock databaseClock = new(addresses.PostgresContainer);

    /// <param name="instances">How many processes drain together.</param>
    /// <param name="prepared">A store that is not empty; null makes a new one.</param>
    /// <param name="partitions">How many queues beside <c>orders</c> share the messages.</param>
    /// <param name="profile">Where samples of the contestant's stacks go, from the fourth second on, when the code is compiled; null takes none.</param>
    public async Task<Drain> RunAsync(
        Contestant contestant, int round, Workload workload, CancellationToken cancellationToken, int instances = 1, StoreRun? prepared = null, string? profile = null, int partitions = 0)
    {
        var name = string.Create(CultureInfo.InvariantCulture, $"bench-{contestant.Name}-{round}");
        await using var run = await broker.PrepareAsync(name, cancellationToken, partitions);
        var store = prepared ?? await StoreRun.CreateAsync(addresses, contestant.Store, name, Path.Combine(folder, "data"));
        try
        {
            var before = prepared is null ? [] : await OncePerOrderAsync(contestant, store);
            await run.PreloadAsync(workload, cancellationToken);
            await store.SettleAsync();
            var children = new List<ChildProcess>();
            try
            {
                var expected = contestant.Deduplicates ? workload.Distinct : workload.Messages;
                var started = Stopwatch.GetTimestamp();
                for (var instance = 0; instance < instances; instance++)
                {
                    var start = contestant.Start(run.Address, store, commitFile: null, partitions);
                    if (profile is not null)
                    {
                        // Code that was compiled ahead of time, or lies in memory that is mapped twice, has no names for perf.
                        start.Environment["DOTNET_PerfMapEnabled"] = "1";
                        start.Environment["DOTNET_ReadyToRun"] = "0";
                        start.Environment["DOTNET_EnableWriteXorExecute"] = "0";
                    }
                    children.Add(ChildProcess.Start(start, Path.Combine(folder, "logs", $"{name}-{instance}.log")));
                }
                await FirstDeliveryAsync(run, workload, children, cancellationToken);
                var began = Stopwatch.GetTimestamp();
                var startSeconds = Stopwatch.GetElapsedTime(started, began).TotalSeconds;
                var cpu = Cpu(children);
                var (brokerCpu, databaseCpu) = (brokerClock.Used(), databaseClock.Used());
                using var sampling = profile is null ? null : Process.Start(new ProcessStartInfo("perf", ["record", "-q", "-D", "4000", "-F", "499", "-g", "-o", profile, "-p", children[0].Id.ToString(CultureInfo.InvariantCulture)]));

                var (ended, fifth) = await EverythingRelayedAsync(contestant, run, store, children, expected, began, cancellationToken);

                var seconds = Stopwatch.GetElapsedTime(began, ended).TotalSeconds;
                var used = Cpu(children) - cpu;
                var drain = new Drain(
                    contestant.Name, round, instances, partitions, workload.Messages, workload.Distinct, seconds, workload.Messages / seconds,
                    workload.Messages * (1 - fifth.Share) / Stopwatch.GetElapsedTime(fifth.At, ended).TotalSeconds, startSeconds,
                    PerThousand(used, workload), PerThousand(brokerClock.Used() - brokerCpu, workload), PerThousand(databaseClock.Used() - databaseCpu, workload),
                    children.Max(child => child.PeakMemory()), contestant.Store == StoreKind.None ? 0 : await store.SizeAsync());
                if (sampling is not null)
                {
                    // perf ends with the process it watches.
                    await Task.WhenAll(children.Select(child => child.StopAsync()));
                    await sampling.WaitForExitAsync(cancellationToken);
                }
                await Task.WhenAll(children.Select(child => child.StopAsync()));
                await CheckAsync(contestant, run, store, workload, before, cancellationToken);
                return drain;
            }
            finally
            {
                foreach (var child in children)
                {
                    await child.DisposeAsync();
                }
            }
        }
        finally
        {
            if (prepared is null)
            {
                await store.DisposeAsync();
            }
        }
    }

    private static TimeSpan Cpu(List<ChildProcess> children) => children.Aggregate(TimeSpan.Zero, (sum, child) => sum + child.CpuTime());

    private static double PerThousand(TimeSpan used, Workload workload) => used.TotalSeconds * 1000 / workload.Messages;

    private static double? PerThousand(TimeSpan? used, Workload workload) => used is { } known ? PerThousand(known, workload) : null;

    private static async Task FirstDeliveryAsync(BrokerRun run, Workload workload, List<ChildProcess> children, CancellationToken cancellationToken)
    {
        using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(5));
        var began = Stopwatch.GetTimestamp();
        while (await run.OrdersReadyAsync() == workload.Messages)
        {
            children.ForEach(child => child.EnsureRunning());
            if (Stopwatch.GetElapsedTime(began) > Patience)
            {
                throw new BenchException($"The contestant took no message within {Patience.TotalSeconds:F0} s. Its last words:\n{children[0].Tail()}");
            }
            await tick.WaitForNextTickAsync(cancellationToken);
        }
    }

    /// <summary>Waits until all events are in the sink and nothing is left to be marked as sent; notes when a fifth of the way was behind.</summary>
    private static async Task<(long Ended, (long At, double Share) Fifth)> EverythingRelayedAsync(
        Contestant contestant, BrokerRun run, StoreRun store, List<ChildProcess> children, int expected, long began, CancellationToken cancellationToken)
    {
        // Asking is work for the broker, which every contestant would pay for: 20 times a second is enough for runs of several seconds.
        using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(50));
        (long At, double Share) fifth = (began, 0);
        uint last = 0;
        var progress = began;
        while (true)
        {
            var relayed = await run.ReadyAsync(Broker.Sink);
            var now = Stopwatch.GetTimestamp();
            if (fifth.Share == 0 && relayed >= expected / 5)
            {
                fifth = (now, (double)relayed / expected);
            }
            if (relayed >= expected && await run.OrdersReadyAsync() == 0
                && (contestant.OutstandingSql is null || await store.NumberAsync(contestant.OutstandingSql) == 0))
            {
                return (Stopwatch.GetTimestamp(), fifth);
            }
            if (relayed != last)
            {
                (last, progress) = (relayed, now);
            }
            if (Stopwatch.GetElapsedTime(progress, now) > Patience)
            {
                throw new BenchException(
                    $"{contestant.Name} relayed {relayed:N0} of {expected:N0} events and nothing more within {Patience.TotalSeconds:F0} s; "
                    + $"{await run.OrdersReadyAsync():N0} messages are ready, outstanding {(contestant.OutstandingSql is null ? "-" : await store.NumberAsync(contestant.OutstandingSql))}. Its last words:\n{children[0].Tail()}");
            }
            children.ForEach(child => child.EnsureRunning());
            await tick.WaitForNextTickAsync(cancellationToken);
        }
    }

    /// <summary>Distinct orders, one effect each, all relayed; nothing left on the queue and nothing dead-lettered.</summary>
    private static async Task CheckAsync(Contestant contestant, BrokerRun run, StoreRun store, Workload workload, IReadOnlyList<long> before, CancellationToken cancellationToken)
    {
        void Ensure(bool right, string what)
        {
            if (!right)
            {
                throw new BenchException($"{contestant.Name} is fast but wrong: {what}.");
            }
        }

        Ensure(await run.OrdersReadyAsync() == 0, "messages are in orders after the end");
        foreach (var queue in new[] { TopologyNames.DeadLetters, TopologyNames.UnroutedEvents })
        {
            var left = await run.ReadyAsync(queue);
            Ensure(left == 0, $"{left:N0} messages are in {queue} after the end");
        }
        var sink = await run.ReadSinkAsync(cancellationToken);
        Ensure(sink.Strangers == 0, $"{sink.Strangers:N0} events name no order of the run");
        Ensure(sink.Counts.Count == workload.Distinct, $"events came for {sink.Counts.Count:N0} of {workload.Distinct:N0} orders");
        var expected = contestant.Deduplicates ? workload.Distinct : workload.Messages;
        Ensure(sink.Events == expected, $"{sink.Events:N0} events were published where {expected:N0} are right");
        if (contestant.OutstandingSql is not null)
        {
            Ensure(await store.NumberAsync(contestant.OutstandingSql) == 0, "not all is marked as sent");
        }
        var after = await OncePerOrderAsync(contestant, store);
        for (var index = 0; index < after.Count; index++)
        {
            var grown = after[index] - (before.Count > index ? before[index] : 0);
            Ensure(grown == workload.Distinct, $"{contestant.OncePerOrderSql[index]} grew by {grown:N0} where {workload.Distinct:N0} is right");
        }
    }

    private static async Task<IReadOnlyList<long>> OncePerOrderAsync(Contestant contestant, StoreRun store)
    {
        var numbers = new List<long>();
        foreach (var sql in contestant.OncePerOrderSql)
        {
            numbers.Add(await store.NumberAsync(sql) ?? -1);
        }
        return numbers;
    }
}

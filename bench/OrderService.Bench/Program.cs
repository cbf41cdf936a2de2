using System.Globalization;
using System.Runtime.InteropServices;
using OrderService.Bench;
using OrderService.Bench.Contestants;
using OrderService.Bench.Measurement;

// Each contestant is a process of its own, so that its processor time and memory are its own: this program starts itself again for that.
try
{
    switch (args)
    {
        case ["--help"]:
            Console.WriteLine(BenchOptions.Help);
            return 0;
        case ["--contestant", var name]:
            await ContestAsync(name);
            return 0;
        default:
            await MeasureAsync(BenchOptions.Parse(args));
            return 0;
    }
}
catch (BenchException exception)
{
    await Console.Error.WriteLineAsync(exception.Message);
    return 1;
}

static async Task ContestAsync(string name)
{
    using var stopping = new CancellationTokenSource();
    using var terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, context =>
    {
        context.Cancel = true;
        stopping.Cancel();
    });
    var settings = ContestantSettings.FromEnvironment(name);
    var commits = new CommitTimes(settings.CommitFile);
    await Contestant.Named(name).Run(settings, commits, stopping.Token);
    commits.Save();
}

static async Task MeasureAsync(BenchOptions options)
{
    using var stopping = new CancellationTokenSource();
    Console.CancelKeyPress += (_, pressed) =>
    {
        pressed.Cancel = true;
        stopping.Cancel();
    };
    var contestants = options.Contestants.Count == 0 ? Contestant.All : [.. options.Contestants.Select(Contestant.Named)];
    var folder = Path.GetDirectoryName(Path.GetFullPath(options.Output))!;
    var addresses = BenchAddresses.FromEnvironment();
    await using var broker = new Broker(addresses, options.Sink);
    var surroundings = await Surroundings.LookAsync(addresses, broker, folder, options.Sink);
    var throughput = new Throughput(addresses, broker, folder);
    var drains = new List<Drain>();
    var latency = new List<LatencyRun>();
    var points = new List<ScalePoint>();
    var extrapolated = new List<Extrapolation>();
    Results Collected() => new(surroundings, options, Results.Summarize(drains), drains, latency, points, extrapolated);

    async Task DrainAsync(Contestant contestant, int round, int instances = 1, int partitions = 0)
    {
        Progress($"round {round}: {contestant.Name}{(instances == 1 ? "" : $" x{instances}")}{(partitions == 0 ? "" : $" /{partitions}")}");
        var workload = Workload.WithCopies(Math.Max(Workload.CopyEvery, (int)(options.Orders * contestant.Share) / Workload.CopyEvery * Workload.CopyEvery));
        var drain = await throughput.RunAsync(contestant, round, workload, stopping.Token, instances, partitions: partitions);
        drains.Add(drain);
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $" {drain.Rate:N0} orders/s, {drain.WarmRate:N0} warm, {drain.PeakMemory / 1e6:N0} MB; right"));
        Collected().Save(options.Output);
    }

    if (options.Profile is { } profiled)
    {
        await ProfileAsync(Contestant.Named(profiled), options, throughput, folder, stopping.Token);
        return;
    }
    if (options.ScaleStore.Count > 0)
    {
        foreach (var contestant in contestants.Where(contestant => contestant.IsTheService))
        {
            Progress($"growth: {contestant.Name}\n");
            var measured = await new Scale(addresses, throughput, folder).RunAsync(
                contestant, options.ScaleStore, options.Orders, options.Rounds,
                point => Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"  {point.Events:N0} events: {point.Rate:N0} orders/s")), stopping.Token);
            points.AddRange(measured);
            extrapolated.AddRange(Scale.Extrapolate(measured, [10_000_000, 100_000_000]));
            Collected().Save(options.Output);
        }
    }
    else if (options.Instances.Count > 0)
    {
        for (var round = 1; round <= options.Rounds; round++)
        {
            foreach (var instances in options.Instances)
            {
                await DrainAsync(Contestant.Named("orderservice-postgres"), round, instances);
            }
        }
    }
    else if (options.Partitions.Count > 0)
    {
        // The parts alone show the broker's side, the service what is left of it once a store is behind.
        for (var round = 1; round <= options.Rounds; round++)
        {
            foreach (var contestant in contestants.Where(contestant => contestant.IsTheService || contestant.Name == "floor-parts"))
            {
                foreach (var partitions in options.Partitions)
                {
                    await DrainAsync(contestant, round, partitions: partitions);
                }
            }
        }
    }
    else
    {
        // Contestants take turns, so that what the machine does meanwhile hits all of them.
        for (var round = 1; round <= options.Rounds; round++)
        {
            foreach (var contestant in contestants)
            {
                await DrainAsync(contestant, round);
            }
        }
        for (var round = 1; round <= options.LatencyRounds && options.LatencySeconds > 0; round++)
        {
            foreach (var rate in options.Rates)
            {
                foreach (var contestant in contestants)
                {
                    Progress(string.Create(CultureInfo.InvariantCulture, $"latency {round} at {rate:N0}/s: {contestant.Name}"));
                    var run = await new Latency(addresses, broker, folder).RunAsync(
                        contestant, round, rate, TimeSpan.FromSeconds(options.LatencySeconds), stopping.Token);
                    latency.Add(run);
                    var committed = run.Committed is null ? "" : string.Create(CultureInfo.InvariantCulture, $" committed p50 {run.Committed.P50:F1} p99 {run.Committed.P99:F1},");
                    Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{committed} relayed p50 {run.Relayed?.P50:F1} p99 {run.Relayed?.P99:F1} ms{(run.Held ? "" : "; could not hold the rate")}"));
                    Collected().Save(options.Output);
                }
            }
        }
    }
    var results = Collected();
    results.Save(options.Output);
    Console.WriteLine();
    Console.WriteLine(results.Table());
    Console.WriteLine($"Written to {options.Output}");
}

static async Task ProfileAsync(Contestant contestant, BenchOptions options, Throughput throughput, string folder, CancellationToken stopping)
{
    if (Shell.Output("perf", "--version") is null)
    {
        throw new BenchException("perf is not installed (Debian: apt-get install linux-perf).");
    }
    var samples = Path.Combine(folder, $"profile-{contestant.Name}.data");
    Progress($"profile: {contestant.Name}");
    var drain = await throughput.RunAsync(contestant, 1, Workload.WithCopies((int)(options.Orders * 2 * contestant.Share)), stopping, profile: samples);
    Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $" {drain.Rate:N0} orders/s while profiled"));
    string[] Top(string heading, int count, Func<string, bool> wanted, params IEnumerable<string> how)
    {
        var report = Shell.Output("perf", ["report", "--stdio", "-g", "none", .. how, "-i", samples]) ?? throw new BenchException("perf report failed.");
        return ["", heading, .. report.Split('\n').Where(line => line.Length > 0 && !line.StartsWith('#') && wanted(line)).Take(count).Select(line => line.TrimEnd(' ', '-'))];
    }

    string[] lines =
    [
        .. Top("By library", 12, _ => true, "--no-children", "--sort", "dso"),
        .. Top("By function, itself", 25, _ => true, "--no-children", "--sort", "symbol"),
        .. Top("The service's own methods, with what they call", 25, line => line.Contains("[orderservice]", StringComparison.Ordinal), "--children", "--sort", "symbol"),
    ];
    var text = Path.ChangeExtension(samples, ".txt");
    await File.WriteAllLinesAsync(text, lines, stopping);
    Console.WriteLine(string.Join('\n', lines));
    Console.WriteLine($"\nThe same is in {text}; perf report -i {samples} shows callers.");
}

static void Progress(string what) => Console.Write(string.Create(CultureInfo.InvariantCulture, $"{TimeProvider.System.GetLocalNow():HH:mm:ss} {what}"));

using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;
using OrderService.Bench.Contestants;
using OrderService.Bench.Measurement;

namespace OrderService.Bench;

/// <summary>On what, with what and when it was measured.</summary>
/// <param name="LoadAtStart">The one-minute load average before the first run; well above 0 means that others were at work and the figures are noise.</param>
internal sealed record Surroundings(
    DateTimeOffset At, string Commit, string Processor, int Processors, double MemoryGigabytes, string System, string Runtime, string? LoadAtStart,
    string RabbitMq, IReadOnlyDictionary<string, string> Postgres, DiskRate Disk, string Sink)
{
    public static async Task<Surroundings> LookAsync(BenchAddresses addresses, Broker broker, string folder, string sink) => new(
        TimeProvider.System.GetUtcNow(),
        Shell.Output("git", "describe", "--always", "--dirty")?.Trim() ?? "unknown",
        File.Exists("/proc/cpuinfo") ? File.ReadLines("/proc/cpuinfo").FirstOrDefault(line => line.StartsWith("model name", StringComparison.Ordinal))?.Split(':')[1].Trim() ?? "unknown" : "unknown",
        Environment.ProcessorCount,
        GC.GetGCMemoryInfo().TotalAvailableMemoryBytes / 1e9,
        RuntimeInformation.OSDescription,
        RuntimeInformation.FrameworkDescription,
        File.Exists("/proc/loadavg") ? File.ReadAllText("/proc/loadavg").Split(' ')[0] : null,
        await broker.VersionAsync(),
        await StoreRun.PostgresSettingsAsync(addresses),
        DiskRate.Measure(Path.Combine(folder, "data"), TimeSpan.FromSeconds(2)),
        sink);
}

/// <summary>A median and what it lies between.</summary>
internal sealed record Figure(double Median, double Min, double Max)
{
    public static Figure Of(IEnumerable<double> values)
    {
        double[] all = [.. values];
        return new Figure(Percentile.Median(all), all.Min(), all.Max());
    }
}

internal sealed record ThroughputLine(
    string Contestant, string What, Figure Rate, Figure WarmRate, Figure? OfFloor, Figure? WarmOfFloor, double CpuPerThousand, double? BrokerCpuPerThousand, double? DatabaseCpuPerThousand, double PeakMegabytes, int Messages);

/// <summary>Everything a run found, as written to the results file.</summary>
internal sealed record Results(
    Surroundings Surroundings, BenchOptions Options, IReadOnlyList<ThroughputLine> Throughput, IReadOnlyList<Drain> Drains, IReadOnlyList<LatencyRun> Latency,
    IReadOnlyList<ScalePoint> Scale, IReadOnlyList<Extrapolation> Extrapolated)
{
    private static readonly JsonSerializerOptions Json = new(JsonSerializerDefaults.Web) { WriteIndented = true, NumberHandling = System.Text.Json.Serialization.JsonNumberHandling.AllowNamedFloatingPointLiterals };

    public void Save(string file)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(file))!);
        File.WriteAllText(file, JsonSerializer.Serialize(this, Json));
    }

    /// <summary>One line per contestant; ratios are taken within a round, against the faster of the two floors.</summary>
    public static IReadOnlyList<ThroughputLine> Summarize(IReadOnlyList<Drain> drains)
    {
        var floor = drains.Where(drain => Contestant.Named(drain.Contestant).IsFloor).GroupBy(drain => drain.Contestant)
            .Where(group => group.All(drain => drain.Partitions == 0)).MaxBy(group => Percentile.Median(group.Select(drain => drain.Rate)))?.ToDictionary(drain => drain.Round);
        return [.. drains.GroupBy(drain => (drain.Contestant, drain.Instances, drain.Partitions)).Select(group =>
        {
            var compared = floor is null ? [] : group.Where(drain => floor.ContainsKey(drain.Round)).ToList();
            return new ThroughputLine(
                $"{group.Key.Contestant}{(group.Key.Instances == 1 ? "" : $" x{group.Key.Instances}")}{(group.Key.Partitions == 0 ? "" : $" /{group.Key.Partitions}")}",
                Contestant.Named(group.Key.Contestant).What,
                Figure.Of(group.Select(drain => drain.Rate)),
                Figure.Of(group.Select(drain => drain.WarmRate)),
                compared.Count == 0 ? null : Figure.Of(compared.Select(drain => drain.Rate / floor![drain.Round].Rate)),
                compared.Count == 0 ? null : Figure.Of(compared.Select(drain => drain.WarmRate / floor![drain.Round].WarmRate)),
                Percentile.Median(group.Select(drain => drain.CpuPerThousand)),
                group.Any(drain => drain.BrokerCpuPerThousand is null) ? null : Percentile.Median(group.Select(drain => drain.BrokerCpuPerThousand!.Value)),
                group.Any(drain => drain.DatabaseCpuPerThousand is null) || Contestant.Named(group.Key.Contestant).Store != StoreKind.Postgres
                    ? null : Percentile.Median(group.Select(drain => drain.DatabaseCpuPerThousand!.Value)),
                group.Max(drain => drain.PeakMemory) / 1e6,
                group.First().Messages);
        })];
    }

    public string Table()
    {
        var text = new StringBuilder();
        void Line(FormattableString line) => text.AppendLine(line.ToString(CultureInfo.InvariantCulture).TrimEnd());

        Line($"{Surroundings.Processor}, {Surroundings.Processors} processors, {Surroundings.MemoryGigabytes:F0} GB; {Surroundings.System}; {Surroundings.Runtime}; load at start {Surroundings.LoadAtStart ?? "unknown"}");
        Line($"RabbitMQ {Surroundings.RabbitMq}, PostgreSQL {Surroundings.Postgres["version"]} (fsync={Surroundings.Postgres["fsync"]}, synchronous_commit={Surroundings.Postgres["synchronous_commit"]}), SQLite synchronous=FULL; commit {Surroundings.Commit}");
        Line($"Disk: {Surroundings.Disk}");
        if (Throughput.Count > 0)
        {
            Line($"");
            Line($"Throughput: drain the queue, 5 % copies, events relayed with confirms and marked sent; medians (min to max) of {Drains.Max(drain => drain.Round)} rounds");
            Line($"{"",-24}{"orders/s",9}{"",-18}{"of floor",9}{"",-15}{"warm/s",9}{"of floor",9}  {"CPU s per 1,000 orders",-28}{"peak",8}");
            Line($"{"",-24}{"",9}{"",-18}{"",9}{"",-15}{"",9}{"",9}  {"itself",8}{"broker",9}{"database",10} {"MB",8}");
            foreach (var line in Throughput)
            {
                Line($"{line.Contestant,-24}{line.Rate.Median,9:N0}{$"  ({line.Rate.Min:N0} to {line.Rate.Max:N0})",-18}{line.OfFloor?.Median,9:F2}{(line.OfFloor is { } of ? string.Create(CultureInfo.InvariantCulture, $"  ({of.Min:F2} to {of.Max:F2})") : ""),-15}{line.WarmRate.Median,9:N0}{line.WarmOfFloor?.Median,9:F2}  {line.CpuPerThousand,8:F3}{line.BrokerCpuPerThousand,9:F3}{line.DatabaseCpuPerThousand,10:F3} {line.PeakMegabytes,8:F0}");
            }
        }
        if (Latency.Count > 0)
        {
            Line($"");
            Line($"Latency in ms from the moment an order was due to be published, open loop; medians over {Latency.Max(run => run.Round)} rounds, the largest of all as max");
            Line($"{"",-24}{"rate/s",7}  {"committed p50",14}{"p99",9}{"max",9}  {"relayed p50",12}{"p99",9}{"max",9}  {"CPU %",6}  held");
            foreach (var group in Latency.GroupBy(run => (run.Contestant, run.Rate)))
            {
                double Of(Func<LatencyRun, Spread?> which, Func<Spread, double> what) => Percentile.Median(group.Select(which).OfType<Spread>().Select(what));
                double Max(Func<LatencyRun, Spread?> which) => group.Select(which).OfType<Spread>().Select(spread => spread.Max).DefaultIfEmpty(double.NaN).Max();
                static string Ms(double value) => double.IsNaN(value) ? "-" : value.ToString(value < 100 ? "F1" : "F0", CultureInfo.InvariantCulture);
                Line($"{group.Key.Contestant,-24}{group.Key.Rate,7:N0}  {Ms(Of(run => run.Committed, spread => spread.P50)),14}{Ms(Of(run => run.Committed, spread => spread.P99)),9}{Ms(Max(run => run.Committed)),9}  {Ms(Of(run => run.Relayed, spread => spread.P50)),12}{Ms(Of(run => run.Relayed, spread => spread.P99)),9}{Ms(Max(run => run.Relayed)),9}  {Percentile.Median(group.Select(run => run.CpuShare * 100)),6:F0}  {(group.All(run => run.Held) ? "yes" : $"no ({group.Count(run => run.Held)} of {group.Count()})")}");
            }
            Line($"The load generator was late by p99 {Percentile.Median(Latency.Select(run => run.Lateness?.P99 ?? double.NaN)):F1} ms (median over runs); that is part of the figures.");
        }
        if (Scale.Count > 0)
        {
            Line($"");
            Line($"Growth with the store: each event in it is a stream of its own, with its inbox row");
            Line($"{"",-24}{"events",13}{"orders/s",10}{"CPU s/1,000",13}{"database",10}{"start s",9}{"read ms p50",12}{"p99",7}{"store GB",10}{"peak MB",9}");
            foreach (var point in Scale)
            {
                Line($"{point.Contestant,-24}{point.Events,13:N0}{point.Rate,10:N0}{point.CpuPerThousand,13:F3}{(point.Contestant.Contains("postgres", StringComparison.Ordinal) ? point.DatabaseCpuPerThousand : null),10:F3}{point.StartSeconds,9:F1}{point.ReadStreamP50,12:F2}{point.ReadStreamP99,7:F1}{point.StoreBytes / 1e9,10:F2}{point.PeakMemory / 1e6,9:F0}");
            }
            foreach (var point in Extrapolated)
            {
                Line($"{point.Contestant,-24}{point.Events,13:N0}{point.Rate,10:N0}{"",-51}{point.StoreGigabytes,10:F1}  extrapolated");
            }
        }
        return text.ToString();
    }
}

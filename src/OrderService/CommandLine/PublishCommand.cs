using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using OrderService.Outbox;
using OrderService.RabbitMq;
using Spectre.Console;

namespace OrderService.CommandLine;

/// <summary><c>publish</c>: sends messages to the queue <c>orders</c> and waits for the broker's confirm of each.</summary>
internal static class PublishCommand
{
    private const int ShownFailures = 10;

    public static Command Create()
    {
        var file = new Argument<string?>("FILE") { Description = "A file with one message a line (NDJSON); - for standard input.", Arity = ArgumentArity.ZeroOrOne };
        var sample = new Option<int?>("--sample") { Description = "Instead of a file: make N messages that look like a shop's." };
        var poison = new Option<string?>("--poison") { Description = "With --sample: this share of the messages is broken, each in another way. 5, 5% and 0.05 all mean five in a hundred." };
        var duplicates = new Option<string?>("--duplicates") { Description = "With --sample: this share repeats a message that was sent before." };
        var early = new Option<string?>("--early") { Description = "With --sample: this share ships an order that is placed only later." };
        var command = new Command("publish", """
            Publishes messages to the queue orders and waits for the broker's confirm of each. With RabbitMq:Partitions a message that names its order goes to the order's partition.

            Each line is either the body of an order.place, or an envelope {"type","messageId","correlationId","contentType","headers","body"} of which all but body may be left out.
            A body that is a string goes out as its text, any other as its JSON. A line that is not JSON goes out as it is, byte for byte, so that broken messages can be sent; what is not UTF-8 text (UTF-16 with a byte order mark is read too) is not sent.
            A message without an id gets the one that its content stands for: sending a file twice takes effect once.
            """)
        { file, sample, poison, duplicates, early };
        command.Validators.Add(result =>
        {
            var hasSample = result.GetResult(sample) is not null;
            var hasFile = result.GetValue(file) is not null;
            if (hasSample == hasFile)
            {
                result.AddError("Name a file (or - for standard input), or --sample N: one of the two.");
            }
            if (result.GetValue(file) is ['-', _, ..] misspelt)
            {
                // A misspelt option must not be looked for on the disk.
                result.AddError($"There is no option {misspelt}; a file of that name is ./{misspelt}.");
            }
            if (result.ValueOf(sample) is < 1 or > 10_000_000)
            {
                result.AddError("--sample takes a number from 1 to 10000000.");
            }
            foreach (var option in new[] { poison, duplicates, early })
            {
                if (result.ValueOf(option) is { } text)
                {
                    if (!hasSample)
                    {
                        result.AddError($"{option.Name} goes with --sample.");
                    }
                    if (Share(text) is null)
                    {
                        result.AddError($"{option.Name} takes a share: 5, 5% or 0.05.");
                    }
                }
            }
        });
        command.SetAction((parsed, cancellationToken) => Commands.WithStationsAsync(async (stations, token) =>
        {
            if (parsed.GetValue(sample) is { } count)
            {
                var orders = new SampleOrders(count, Share(parsed.GetValue(poison)) ?? 0, Share(parsed.GetValue(duplicates)) ?? 0, Share(parsed.GetValue(early)) ?? 0, stations.GetRequiredService<TimeProvider>().GetUtcNow());
                return await RunAsync(stations, orders.Messages(token), count, token);
            }
            var path = parsed.GetValue(file)!;
            try
            {
                await using var stream = path == "-" ? Console.OpenStandardInput() : MessageFile.Open(path);
                return await RunAsync(stations, MessageFile.ReadAsync(stream, token), null, token);
            }
            catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or System.Text.DecoderFallbackException)
            {
                await Console.Error.WriteLineAsync($"{(path == "-" ? "Standard input" : path)} can't be read: {exception.Message}");
                return ExitCode.SomeFailed;
            }
        }, cancellationToken, needsStore: false));
        return command;
    }

    /// <summary>5, 5% and 0.05 all mean 0.05; null for anything else.</summary>
    internal static double? Share(string? text)
    {
        if (text is null || !double.TryParse(text.TrimEnd('%'), NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var number) || number > 100)
        {
            return null;
        }
        return number < 1 && !text.EndsWith('%') ? number : number / 100;
    }

    private static async Task<int> RunAsync(IServiceProvider stations, IAsyncEnumerable<MessageLine> lines, int? total, CancellationToken cancellationToken)
    {
        await Broker.RequireAsync(stations, cancellationToken);
        await using var publisher = stations.GetRequiredService<ConfirmedPublisher>();
        var tally = new Tally();
        var stopwatch = Stopwatch.StartNew();
        if (Console.IsOutputRedirected)
        {
            await PublishAllAsync(publisher, lines, tally, () => tally.ReportLine(stopwatch.Elapsed), cancellationToken);
        }
        else
        {
            await AnsiConsole.Progress().AutoClear(true)
                .Columns(new TaskDescriptionColumn(), new ProgressBarColumn(), new PercentageColumn(), new SpinnerColumn())
                .StartAsync(async progress =>
                {
                    var task = progress.AddTask("publishing", autoStart: true, maxValue: total ?? 1);
                    task.IsIndeterminate = total is null;
                    await PublishAllAsync(publisher, lines, tally, () =>
                    {
                        task.Value = total is null ? 0 : tally.Done;
                        task.Description = $"{tally.Confirmed:N0} confirmed";
                    }, cancellationToken);
                });
        }
        var seconds = Math.Max(stopwatch.Elapsed.TotalSeconds, 0.001);
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{(cancellationToken.IsCancellationRequested ? "Interrupted: " : "")}{tally.Confirmed} confirmed, {tally.Failed} failed, in {seconds:0.0} s ({tally.Confirmed / seconds:0}/s)"));
        foreach (var (sort, count) in tally.Sorts.OrderByDescending(pair => pair.Value))
        {
            Console.WriteLine($"  {count,8}  {sort}");
        }
        foreach (var failure in tally.Failures)
        {
            await Console.Error.WriteLineAsync(failure);
        }
        if (tally.Failed > tally.Failures.Count)
        {
            await Console.Error.WriteLineAsync($"and {tally.Failed - tally.Failures.Count} more");
        }
        return tally.Failed > 0 || cancellationToken.IsCancellationRequested ? ExitCode.SomeFailed : ExitCode.Done;
    }

    private static async Task PublishAllAsync(ConfirmedPublisher publisher, IAsyncEnumerable<MessageLine> lines, Tally tally, Action report, CancellationToken cancellationToken)
    {
        try
        {
            await foreach (var line in lines.WithCancellation(cancellationToken))
            {
                if (line.Message is null)
                {
                    tally.Fail(line.Number, line.Mistake ?? "can't be read");
                    continue;
                }
                await publisher.PublishAsync(line.Message, (_, outcome) => tally.Settle(line, outcome), cancellationToken);
                tally.Sent();
                if (tally.IsReportDue)
                {
                    report();
                }
            }
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
            // What was handed over is still counted below.
        }
        // Every publish has an end in time, so this has one too.
        await publisher.DrainAsync(CancellationToken.None);
        report();
    }

    private sealed class Tally
    {
        private static readonly TimeSpan ReportEvery = TimeSpan.FromMilliseconds(Console.IsOutputRedirected ? 2000 : 100);

        private readonly Lock gate = new();
        private long lastReport = Stopwatch.GetTimestamp();
        private long sent;

        public long Confirmed { get; private set; }
        public long Failed { get; private set; }
        public long Done => Confirmed + Failed;
        public List<string> Failures { get; } = [];
        public Dictionary<string, long> Sorts { get; } = [];

        public bool IsReportDue
        {
            get
            {
                if (Stopwatch.GetElapsedTime(lastReport) < ReportEvery)
                {
                    return false;
                }
                lastReport = Stopwatch.GetTimestamp();
                return true;
            }
        }

        public void Sent() => sent++;

        public void ReportLine(TimeSpan elapsed)
        {
            if (elapsed > ReportEvery)
            {
                Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{elapsed.TotalSeconds:0} s: {sent} sent, {Confirmed} confirmed, {Failed} failed"));
            }
        }

        public void Settle(MessageLine line, PublishOutcome outcome)
        {
            switch (outcome)
            {
                case PublishOutcome.Confirmed:
                    lock (gate)
                    {
                        Confirmed++;
                        if (line.Sort is { } sort)
                        {
                            Sorts[sort] = Sorts.GetValueOrDefault(sort) + 1;
                        }
                    }
                    break;
                case PublishOutcome.Returned:
                    Fail(line.Number, "the queue does not exist; run: orderservice topology --declare");
                    break;
                case PublishOutcome.Nacked:
                    Fail(line.Number, "the queue refused it");
                    break;
                case PublishOutcome.Unknown unknown:
                    Fail(line.Number, $"not confirmed, so it may or may not have arrived: {unknown.Reason}");
                    break;
                case PublishOutcome.Refused refused:
                    Fail(line.Number, $"can't be sent: {refused.Reason}");
                    break;
            }
        }

        public void Fail(long number, string reason)
        {
            lock (gate)
            {
                Failed++;
                if (Failures.Count < ShownFailures)
                {
                    Failures.Add($"message {number}: {reason}");
                }
            }
        }
    }
}

using System.CommandLine;
using System.Globalization;
using OrderService.DeadLetters;
using Spectre.Console;

namespace OrderService.CommandLine;

/// <summary>Replays of many letters: what they would do, their jobs and how far those are. The running service does the work.</summary>
internal static class ReplayCommands
{
    private static readonly TimeSpan Look = TimeSpan.FromMilliseconds(300);

    /// <summary>How long a new job may wait for a service before the command stops waiting with it.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(15);

    public static Command Jobs()
    {
        var limit = new Option<int>("--limit") { Description = "How many at most.", DefaultValueFactory = _ => 20 };
        var command = new Command("jobs", "Lists replay jobs, newest first.") { limit };
        var json = JsonOutput.Option();
        command.Options.Add(json);
        command.SetAction((parsed, cancellationToken) => Commands.WithStationsAsync(async (stations, token) =>
        {
            if (parsed.GetValue(json))
            {
                JsonOutput.Write(new { Items = await stations.GetRequiredService<ReplayJobs>().ListAsync(null, Math.Clamp(parsed.GetValue(limit), 1, 500), token) });
                return ExitCode.Done;
            }
            var table = DeadLetterCommands.NewTable("job", "state", "mode", "letters", "sent", "succeeded", "failed", "skipped", "by", "requested", "why");
            foreach (var job in await stations.GetRequiredService<ReplayJobs>().ListAsync(null, Math.Clamp(parsed.GetValue(limit), 1, 500), token))
            {
                table.AddRow(DeadLetterCommands.Cells(
                    job.Id, job.State, job.Mode, job.Total, job.Sent, job.Succeeded, job.Failed, job.Skipped, job.RequestedBy, DeadLetterCommands.Time(job.RequestedAt), job.Reason));
            }
            DeadLetterCommands.Write(table);
            return ExitCode.Done;
        }, cancellationToken));
        return command;
    }

    public static Command Job()
    {
        var id = new Argument<long>("ID") { Description = "The job's number." };
        var pause = new Option<bool>("--pause") { Description = "Send nothing more until it is resumed." };
        var resume = new Option<bool>("--resume") { Description = "Go on with a paused job." };
        var cancel = new Option<bool>("--cancel") { Description = "End it; letters that were not sent stay parked." };
        var follow = new Option<bool>("--follow") { Description = "Show its progress until it ends." };
        var command = new Command("job", "Shows one replay job; pauses, resumes or cancels it.") { id, pause, resume, cancel, follow };
        var json = JsonOutput.Option();
        command.Options.Add(json);
        command.Validators.Add(result =>
        {
            if (new[] { pause, resume, cancel }.Count(option => result.ValueOf(option)) > 1)
            {
                result.AddError("--pause, --resume and --cancel exclude one another.");
            }
        });
        command.SetAction((parsed, cancellationToken) => Commands.WithStationsAsync(async (stations, token) =>
        {
            var jobs = stations.GetRequiredService<ReplayJobs>();
            var number = parsed.GetValue(id);
            var answer = parsed.GetValue(pause) ? await jobs.PauseAsync(number, DeadLetterCommands.Who, token)
                : parsed.GetValue(resume) ? await jobs.ResumeAsync(number, DeadLetterCommands.Who, token)
                : parsed.GetValue(cancel) ? await jobs.CancelAsync(number, DeadLetterCommands.Who, token)
                : null;
            if (answer is ReplayJobAnswer.Conflict conflict)
            {
                await Console.Error.WriteLineAsync(conflict.Detail);
                return ExitCode.SomeFailed;
            }
            if (await jobs.GetAsync(number, token) is not { } job)
            {
                await Console.Error.WriteLineAsync($"There is no replay job {number}.");
                return ExitCode.SomeFailed;
            }
            if (parsed.GetValue(follow))
            {
                return await FollowAsync(jobs, job, token);
            }
            if (parsed.GetValue(json))
            {
                JsonOutput.Write(job);
            }
            else
            {
                Print(job);
            }
            return ExitCode.Done;
        }, cancellationToken));
        return command;
    }

    /// <summary>Prints what a replay would do.</summary>
    public static async Task<int> ForecastAsync(IServiceProvider stations, LetterSelection selection, LetterPatch? patch, CancellationToken cancellationToken)
    {
        var forecast = await stations.GetRequiredService<ReplayForecast>().OfAsync(selection, cancellationToken, patch);
        Console.WriteLine($"{forecast.Count} dead letters would be replayed{(forecast.Checked < forecast.Count ? $"; the oldest {forecast.Checked} were tried" : "")}. Nothing was changed.");
        foreach (var (outcome, letters) in forecast.Outcomes.OrderByDescending(pair => pair.Value))
        {
            Console.WriteLine($"  {letters,8}  {outcome}");
        }
        var table = DeadLetterCommands.NewTable("id", "order", "outcome", "detail");
        foreach (var item in forecast.Items.Where(item => item.Outcome is not (ForecastOutcome.Succeeds or ForecastOutcome.AlreadyApplied)))
        {
            table.AddRow(DeadLetterCommands.Cells(item.LetterId, item.OrderId, item.Outcome, item.Detail));
        }
        if (table.Rows.Count > 0)
        {
            DeadLetterCommands.Write(table);
        }
        return ExitCode.Done;
    }

    /// <summary>Makes a job and shows its progress until it ends.</summary>
    public static async Task<int> StartAsync(IServiceProvider stations, ReplayJobRequest request, CancellationToken cancellationToken)
    {
        var jobs = stations.GetRequiredService<ReplayJobs>();
        if (await jobs.CreateAsync(request, cancellationToken) is not { } job)
        {
            Console.WriteLine("No parked dead letter is chosen.");
            return ExitCode.SomeFailed;
        }
        Console.WriteLine($"Replay {job.Id} has {job.Total} dead letters");
        return await FollowAsync(jobs, job, cancellationToken);
    }

    private static async Task<int> FollowAsync(ReplayJobs jobs, ReplayJob job, CancellationToken cancellationToken)
    {
        var begun = TimeProvider.System.GetTimestamp();
        bool IsForgotten() => job.StartedAt is null && !job.IsOver && TimeProvider.System.GetElapsedTime(begun) > Patience;
        try
        {
            if (Console.IsOutputRedirected)
            {
                await WaitAsync(() => { });
            }
            else
            {
                await AnsiConsole.Progress().AutoClear(true)
                    .Columns(new TaskDescriptionColumn(), new ProgressBarColumn(), new PercentageColumn(), new SpinnerColumn())
                    .StartAsync(async progress =>
                    {
                        var bar = progress.AddTask("replaying", maxValue: job.Total);
                        await WaitAsync(() =>
                        {
                            bar.Value = job.Succeeded + job.Failed + job.Skipped;
                            bar.Description = Markup.Escape($"{job.State}, {job.Succeeded} succeeded, {job.Failed} failed {job.Waiting}".TrimEnd());
                        });
                    });
            }
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
            await Console.Error.WriteLineAsync($"The job goes on without this command: orderservice dlq job {job.Id} [--pause|--cancel]");
            return ExitCode.SomeFailed;
        }
        if (IsForgotten())
        {
            await Console.Error.WriteLineAsync($"No running service has taken it on yet; it begins when one runs with the role dead-letters: orderservice dlq job {job.Id}");
            return ExitCode.SomeFailed;
        }
        Print(job);
        return job is { State: ReplayJobState.Done, Failed: 0 } ? ExitCode.Done : ExitCode.SomeFailed;

        async Task WaitAsync(Action show)
        {
            using var tick = new PeriodicTimer(Look);
            while (true)
            {
                job = await jobs.GetAsync(job.Id, cancellationToken) ?? job;
                show();
                // A paused job is somebody's decision; waiting for the end of it is not this command's.
                if (job.IsOver || job.State == ReplayJobState.Paused || IsForgotten())
                {
                    return;
                }
                await tick.WaitForNextTickAsync(cancellationToken);
            }
        }
    }

    private static void Print(ReplayJob job)
    {
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"Replay {job.Id} is {job.State}: {job.Succeeded} succeeded, {job.Failed} failed, {job.UnderWay} under way, {job.Skipped} skipped, {job.Untouched} untouched of {job.Total}"));
        foreach (var line in new[] { job.StopReason, job.IsOver ? null : job.Waiting })
        {
            if (line is not null)
            {
                Console.WriteLine("  " + line);
            }
        }
        foreach (var failure in (job.Failures ?? []).Concat(job.Skips ?? []))
        {
            Console.WriteLine($"  {failure.LetterId}  {failure.Reason}: {DeadLetterCommands.Printable(failure.Detail)}");
        }
    }
}

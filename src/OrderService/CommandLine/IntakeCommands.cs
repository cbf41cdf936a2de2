using System.CommandLine;
using System.Globalization;
using OrderService.Inbox;

namespace OrderService.CommandLine;

/// <summary><c>intake</c>: pauses and resumes what the running services take out of the queues, through the store that they share.</summary>
internal static class IntakeCommands
{
    private static readonly TimeSpan Look = TimeSpan.FromMilliseconds(500);

    public static Command Create() => new("intake", "Pauses and resumes the intake of orders and dead letters, in every instance and over restarts.") { Pause(), Resume(), Status() };

    private static Command Pause()
    {
        var (queue, reason) = Options("Why, for the audit log and for whoever sees it.");
        var wait = new Option<string>("--wait") { Description = "Wait until nothing is in hand any more, at most this long: 60s, 5m or 00:05:00. Ends with 1 when something still is." };
        var command = new Command("pause", "Takes nothing more out of the queues until it is resumed. What is in hand is finished; events go on to be published.") { queue, reason, wait };
        command.Validators.Add(result =>
        {
            if (result.ValueOf(wait) is { } text && ServeCommand.Duration(text) is null)
            {
                result.AddError("--wait takes a time of at most 1 hour: 60s, 5m or 00:05:00.");
            }
        });
        command.SetAction((parsed, cancellationToken) => Commands.WithStationsAsync(
            async (stations, token) =>
            {
                var intake = stations.GetRequiredService<Intake>();
                var queues = Queues(parsed.GetValue(queue));
                await intake.PauseAsync(queues, DeadLetterCommands.Who, parsed.GetValue(reason)!, token);
                var drained = parsed.GetValue(wait) is not { } text
                    || await IsDrainedAsync(intake, queues, ServeCommand.Duration(text)!.Value, stations.GetRequiredService<TimeProvider>(), token);
                await PrintAsync(intake, token);
                return drained ? ExitCode.Done : ExitCode.SomeFailed;
            },
            cancellationToken));
        return command;
    }

    private static Command Resume()
    {
        var (queue, reason) = Options("Why, for the audit log.");
        var command = new Command("resume", "Takes messages in again.") { queue, reason };
        command.SetAction((parsed, cancellationToken) => Commands.WithStationsAsync(
            async (stations, token) =>
            {
                var intake = stations.GetRequiredService<Intake>();
                await intake.ResumeAsync(Queues(parsed.GetValue(queue)), DeadLetterCommands.Who, parsed.GetValue(reason)!, token);
                await PrintAsync(intake, token);
                return ExitCode.Done;
            },
            cancellationToken));
        return command;
    }

    private static Command Status()
    {
        var command = new Command("status", "Shows whether messages are taken in, and what is left in hand.");
        command.SetAction((_, cancellationToken) => Commands.WithStationsAsync(
            async (stations, token) =>
            {
                await PrintAsync(stations.GetRequiredService<Intake>(), token);
                return ExitCode.Done;
            },
            cancellationToken));
        return command;
    }

    private static (Option<string> Queue, Option<string> Reason) Options(string description)
    {
        var queue = new Option<string>("--queue") { Description = $"{string.Join(" or ", IntakeQueues.All)}; all of them without it." };
        queue.AcceptOnlyFromAmong([.. IntakeQueues.All]);
        return (queue, new Option<string>("--reason") { Description = description, Required = true });
    }

    private static IReadOnlyList<string> Queues(string? queue) => queue is null ? IntakeQueues.All : [queue];

    private static async Task<bool> IsDrainedAsync(Intake intake, IReadOnlyList<string> queues, TimeSpan patience, TimeProvider clock, CancellationToken cancellationToken)
    {
        var began = clock.GetTimestamp();
        using var tick = new PeriodicTimer(Look, clock);
        while (!(await intake.StateAsync(cancellationToken)).Where(state => queues.Contains(state.Queue)).All(state => state.Drained))
        {
            if (clock.GetElapsedTime(began) >= patience)
            {
                return false;
            }
            await tick.WaitForNextTickAsync(cancellationToken);
        }
        return true;
    }

    private static async Task PrintAsync(Intake intake, CancellationToken cancellationToken)
    {
        foreach (var state in await intake.StateAsync(cancellationToken))
        {
            if (state.Pause is not { } pause)
            {
                Console.WriteLine($"{state.Queue}: taken in");
                continue;
            }
            var since = pause.Since.ToString("yyyy-MM-dd HH:mm:ss'Z'", CultureInfo.InvariantCulture);
            var inHand = state.Drained ? "drained: nothing is in hand" : string.Create(CultureInfo.InvariantCulture, $"{state.InHand.Sum(one => one.InHand)} in hand so far as is known");
            Console.WriteLine($"{state.Queue}: paused since {since} by {pause.By}: {pause.Reason}; {inHand}");
            foreach (var one in state.InHand)
            {
                Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"  {one.Instance}: {one.InHand} in hand"));
            }
        }
    }
}

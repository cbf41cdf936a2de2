using OrderService.Observability;
using OrderService.Store;

namespace OrderService.Inbox;

/// <summary>Something that takes messages in, and can be told to take no more for a while.</summary>
/// <param name="Queue">One of <see cref="IntakeQueues"/>.</param>
/// <param name="Pause">Takes nothing more, for this reason; what is in hand is finished. May be called again with other words.</param>
/// <param name="InHand">How much of it is not settled.</param>
public sealed record IntakeValve(string Queue, Action<string> Pause, Action Resume, Func<int> InHand);

/// <summary>
/// Looks every second which queues are paused, and opens and closes the valves of this process. Registered before whatever takes messages in, so that a paused queue stays untouched
/// after a restart: until the store has said so once, nothing is taken.
/// </summary>
public sealed partial class IntakeWatch(
    IDatabase database, IEnumerable<IntakeValve> valves, Troubles troubles, OrderMetrics metrics, StoreTime time, TimeProvider clock, ILogger<IntakeWatch> logger) : BackgroundService
{
    /// <summary>A pause that is forgotten holds orders up for ever.</summary>
    private static readonly TimeSpan ReminderAfter = TimeSpan.FromHours(1);

    private readonly List<IntakeValve> valves = [.. valves];
    private readonly Dictionary<string, IntakePause> known = new(StringComparer.Ordinal);
    private readonly Dictionary<string, (long InHand, long At)> said = new(StringComparer.Ordinal);
    private volatile IReadOnlyList<IntakePause> pauses = [];

    /// <summary>What this process is called where several say what they have in hand.</summary>
    internal string Instance { get; init; } = $"{Environment.MachineName}:{Environment.ProcessId}";

    /// <summary>What is paused, as of the last look.</summary>
    public IReadOnlyList<IntakePause> Pauses => pauses;

    /// <summary>Why nothing should be sent into the queues now; null while all of them are taken in.</summary>
    public string? WhyPaused => pauses is [var pause, ..] ? $"Intake of {pause.Queue} is paused by {pause.By}: {pause.Reason}" : null;

    /// <summary>What this process has in hand of a queue; null when it does not take that queue in.</summary>
    public int? InHandOf(string queue) => valves.Exists(valve => valve.Queue == queue) ? valves.Where(valve => valve.Queue == queue).Sum(valve => valve.InHand()) : null;

    public override async Task StartAsync(CancellationToken cancellationToken)
    {
        try
        {
            await LookAsync(cancellationToken);
        }
        catch (StoreUnavailableException exception)
        {
            // Without the store nothing could be decided anyway.
            foreach (var valve in valves)
            {
                valve.Pause($"the store did not say yet whether intake is paused: {exception.Message}");
            }
        }
        await base.StartAsync(cancellationToken);
    }

    protected override Task ExecuteAsync(CancellationToken stoppingToken) =>
        PeriodicLoop.AfterTickAsync(Intake.Interval, clock, async token =>
        {
            try
            {
                await LookAsync(token);
            }
            catch (StoreUnavailableException)
            {
                // Readiness says so; what was paused stays paused.
            }
        }, stoppingToken, failed: LogFailed);

    internal async Task LookAsync(CancellationToken cancellationToken)
    {
        pauses = [.. (await database.ReadAsync(IntakeTable.PausesAsync, cancellationToken)).Select(Intake.ToPause)];
        metrics.SetIntake([.. IntakeQueues.All.Select(queue => (queue, pauses.Any(pause => pause.Queue == queue)))]);
        foreach (var queue in IntakeQueues.All)
        {
            Apply(queue, pauses.FirstOrDefault(pause => pause.Queue == queue));
        }
        await SayAsync(cancellationToken);
    }

    private void Apply(string queue, IntakePause? pause)
    {
        if (pause is null)
        {
            // Each time: one that waited for the first look is opened by it.
            valves.Where(valve => valve.Queue == queue).ToList().ForEach(valve => valve.Resume());
            if (known.Remove(queue))
            {
                said.Remove(queue);
                troubles.Clear(KeyOf(queue));
                LogResumed(queue);
            }
        }
        else if (known.GetValueOrDefault(queue) != pause)
        {
            known[queue] = pause;
            said.Remove(queue);
            valves.Where(valve => valve.Queue == queue).ToList().ForEach(valve => valve.Pause($"{pause.Reason} (paused by {pause.By})"));
            troubles.Raise(new Trouble(
                KeyOf(queue), TroubleLevel.Paused, $"Intake of {queue} is paused", $"Intake of {queue} is paused by {pause.By}: {pause.Reason.TrimEnd('.')}. What comes waits in the queue.",
                $"When it is over: orderservice intake resume --queue {queue}")
            {
                Patience = ReminderAfter,
            });
            LogPaused(queue, pause.By);
        }
    }

    /// <summary>Says what is in hand when it changes, and now and then that this instance is there.</summary>
    private async Task SayAsync(CancellationToken cancellationToken)
    {
        foreach (var pause in pauses)
        {
            if (InHandOf(pause.Queue) is not { } inHand
                || (said.TryGetValue(pause.Queue, out var last) && last.InHand == inHand && clock.GetElapsedTime(last.At) < Intake.Repeat))
            {
                continue;
            }
            await database.WriteAsync(transaction => IntakeTable.SayAsync(transaction, pause.Queue, Instance, inHand, time.Now()), cancellationToken);
            said[pause.Queue] = (inHand, clock.GetTimestamp());
        }
    }

    private static string KeyOf(string queue) => $"intake:{queue}";

    [LoggerMessage(LogLevel.Warning, "Intake of {Queue} is paused by {Who}; what is in hand is finished")]
    private partial void LogPaused(string queue, string who);

    [LoggerMessage(LogLevel.Information, "Intake of {Queue} goes on")]
    private partial void LogResumed(string queue);

    [LoggerMessage(LogLevel.Warning, "It could not be looked up which queues are paused; they stay as they are")]
    private partial void LogFailed(Exception exception);
}

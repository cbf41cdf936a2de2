using OrderService.Store;

namespace OrderService.Inbox;

/// <summary>The queues whose intake can be paused.</summary>
public static class IntakeQueues
{
    /// <summary>Commands; with its partitions, and with the topic of Kafka where that is read.</summary>
    public const string Orders = "orders";

    /// <summary>Dead letters.</summary>
    public const string DeadLetters = "orders.dlq";

    public static IReadOnlyList<string> All { get; } = [Orders, DeadLetters];
}

/// <summary>A pause that stands.</summary>
public sealed record IntakePause(string Queue, DateTimeOffset Since, string By, string Reason);

/// <summary>What an instance has left in hand of a paused queue.</summary>
public sealed record InstanceInHand(string Instance, long InHand, DateTimeOffset SeenAt);

/// <summary>How the intake of a queue stands.</summary>
/// <param name="Pause">Null while it is taken in.</param>
/// <param name="InHand">What the instances have left in hand, in the order of their names; known of a paused queue only.</param>
/// <param name="Drained">Every instance has heard of the pause and finished what it had in hand.</param>
public sealed record IntakeState(string Queue, IntakePause? Pause, IReadOnlyList<InstanceInHand> InHand, bool Drained);

/// <summary>
/// Pauses and resumes the intake, for all instances and over restarts: the store says what is paused, and each instance looks every second (<see cref="IntakeWatch"/>).
/// Events go out and commands in hand are finished all the while.
/// </summary>
public sealed class Intake(IDatabase database, StoreTime time)
{
    /// <summary>How often each instance looks.</summary>
    public static readonly TimeSpan Interval = TimeSpan.FromSeconds(1);

    /// <summary>How often an instance says that it is still there, when what it has in hand stays the same.</summary>
    internal static readonly TimeSpan Repeat = TimeSpan.FromSeconds(5);

    /// <summary>An instance that said nothing for so long is gone.</summary>
    private static readonly TimeSpan Gone = TimeSpan.FromSeconds(15);

    /// <summary>Until every instance has looked once and said what it has in hand, nobody can say that nothing is.</summary>
    private static readonly TimeSpan Hearing = TimeSpan.FromSeconds(3);

    /// <summary>How each queue stands.</summary>
    public async Task<IReadOnlyList<IntakeState>> StateAsync(CancellationToken cancellationToken)
    {
        // The store's own clock: what is typed may be typed on another machine.
        var now = (await time.ReadAsync(database, cancellationToken)).At;
        var (pauses, inHand) = await database.ReadAsync(
            async connection => (await IntakeTable.PausesAsync(connection), await IntakeTable.InHandAsync(connection, (now - Gone).ToUnixTimeMilliseconds())), cancellationToken);
        return [.. IntakeQueues.All.Select(queue => State(
            queue, pauses.Where(row => row.Queue == queue).Select(ToPause).FirstOrDefault(),
            [.. inHand.Where(row => row.Queue == queue).Select(row => new InstanceInHand(row.Instance, row.InHand, DateTimeOffset.FromUnixTimeMilliseconds(row.SeenAt)))], now))];
    }

    /// <summary>Pauses queues. One that is paused already stays as it is.</summary>
    public async Task PauseAsync(IReadOnlyCollection<string> queues, Caller who, string reason, CancellationToken cancellationToken)
    {
        var now = (await time.ReadAsync(database, cancellationToken)).At.ToUnixTimeMilliseconds();
        await database.WriteAsync(
            async transaction =>
            {
                foreach (var queue in queues)
                {
                    if (await IntakeTable.PauseAsync(transaction, queue, who.Shown, reason, now))
                    {
                        await AuditTrail.WriteAsync(transaction, who, "intake.pause", $"queue {queue}", reason, now);
                    }
                }
            },
            cancellationToken);
    }

    /// <summary>Takes queues in again. One that is not paused stays as it is.</summary>
    public Task ResumeAsync(IReadOnlyCollection<string> queues, Caller who, string reason, CancellationToken cancellationToken) => database.WriteAsync(
        async transaction =>
        {
            foreach (var queue in queues)
            {
                if (await IntakeTable.ResumeAsync(transaction, queue))
                {
                    await AuditTrail.WriteAsync(transaction, who, "intake.resume", $"queue {queue}", reason, time.Now());
                }
            }
        },
        cancellationToken);

    internal static IntakePause ToPause(PauseRow row) => new(row.Queue, DateTimeOffset.FromUnixTimeMilliseconds(row.PausedAt), row.PausedBy, row.Reason);

    private static IntakeState State(string queue, IntakePause? pause, IReadOnlyList<InstanceInHand> inHand, DateTimeOffset now) =>
        new(queue, pause, pause is null ? [] : inHand, pause is not null && now - pause.Since >= Hearing && inHand.All(one => one.InHand == 0));
}

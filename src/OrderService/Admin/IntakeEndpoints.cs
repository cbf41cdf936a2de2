using OrderService.Inbox;
using OrderService.RabbitMq;

namespace OrderService.Admin;

/// <summary>Pauses the intake for maintenance, and tells when nothing is in hand any more.</summary>
internal static class IntakeEndpoints
{
    public static void MapIntake(this IEndpointRouteBuilder api)
    {
        var intake = api.MapGroup("/intake").WithTags("Operations");
        intake.MapGet("", async (IntakeView view, CancellationToken cancellationToken) => TypedResults.Ok(new IntakeAnswer(await view.ReadAsync(cancellationToken))))
            .RequireAuthorization(Scopes.Read).WithName("intake")
            .WithSummary("Whether messages are taken in, queue by queue: since when not, by whom, why, and what is left in hand.").Produces<IntakeAnswer>();
        intake.MapPost("/pause", PauseAsync).RequireAuthorization(Scopes.Operate).WithName("intake.pause")
            .WithSummary("Takes nothing more out of the queues, in every instance and over restarts, until it is resumed.")
            .WithDescription("What is in hand is finished; `drained` says when. Events go on to be published, replay jobs wait, and orders over HTTP are taken and wait in the queue. A queue that is paused already stays as it is.")
            .Accepts<IntakeBody>("application/json").Produces<IntakeAnswer>().ProducesProblem(400);
        intake.MapPost("/resume", ResumeAsync).RequireAuthorization(Scopes.Operate).WithName("intake.resume")
            .WithSummary("Takes messages in again.").Accepts<IntakeBody>("application/json").Produces<IntakeAnswer>().ProducesProblem(400);
    }

    private static Task<IResult> PauseAsync(HttpContext context, Intake intake, IntakeView view) => ChangeAsync(context, view, intake.PauseAsync);

    private static Task<IResult> ResumeAsync(HttpContext context, Intake intake, IntakeView view) => ChangeAsync(context, view, intake.ResumeAsync);

    private static async Task<IResult> ChangeAsync(
        HttpContext context, IntakeView view, Func<IReadOnlyCollection<string>, Store.Caller, string, CancellationToken, Task> change)
    {
        var (given, mistake) = await DeadLetterEndpoints.ReadAsync<IntakeBody>(context);
        if (mistake is not null || !DeadLetterEndpoints.IsReason(given?.Reason, required: true, out mistake))
        {
            return mistake!;
        }
        var queues = given!.Queues ?? IntakeQueues.All;
        if (queues.Count == 0 || queues.Any(queue => !IntakeQueues.All.Contains(queue)))
        {
            return Problems.Result(
                StatusCodes.Status400BadRequest, "queue_unknown", $"queues names some of {string.Join(" and ", IntakeQueues.All)}; without it all of them are meant.",
                new FieldError("/queues", "queue_unknown", "Only these can be paused."));
        }
        await change(queues, CallerRight.CallerOf(context), given.Reason!, context.RequestAborted);
        return TypedResults.Ok(new IntakeAnswer(await view.ReadAsync(context.RequestAborted)));
    }
}

/// <summary>What people are shown of the intake: what the store knows, and how many consumers the broker counts.</summary>
internal sealed class IntakeView(Intake intake, IntakeWatch watch, QueueMonitor monitor)
{
    public async Task<IReadOnlyList<QueueIntake>> ReadAsync(CancellationToken cancellationToken) => [.. (await intake.StateAsync(cancellationToken)).Select(View)];

    private QueueIntake View(IntakeState state)
    {
        // An instance that did not hear of the pause still has a consumer.
        var consumes = monitor.Depths.Any(depth => depth.Queue == state.Queue && depth is { Exists: true, Consumers: > 0 });
        return state.Pause is { } pause
            ? new QueueIntake(
                state.Queue, "paused", pause.Since, pause.By, pause.Reason, state.InHand.Sum(one => one.InHand), state.Drained && !consumes,
                [.. state.InHand.Select(one => new InstanceIntake(one.Instance, one.InHand, one.SeenAt))])
            : new QueueIntake(state.Queue, "running", null, null, null, watch.InHandOf(state.Queue), false, []);
    }
}

/// <param name="Items"><c>orders</c>, its partitions and Kafka's topic included, and <c>orders.dlq</c>.</param>
internal sealed record IntakeAnswer(IReadOnlyList<QueueIntake> Items);

/// <param name="State"><c>running</c> or <c>paused</c>.</param>
/// <param name="Since">When it was paused; null while it runs, as are <paramref name="By"/> and <paramref name="Reason"/>.</param>
/// <param name="InHand">What is not decided yet: of all instances while it is paused, of the one that answers while it runs; null where it takes none.</param>
/// <param name="Drained">It is paused, and every instance has finished what it had in hand.</param>
/// <param name="Instances">What each of them says while it is paused.</param>
internal sealed record QueueIntake(
    string Queue, string State, DateTimeOffset? Since, string? By, string? Reason, long? InHand, bool Drained, IReadOnlyList<InstanceIntake> Instances);

internal sealed record InstanceIntake(string Instance, long InHand, DateTimeOffset SeenAt);

/// <param name="Reason">For the audit log, and for whoever sees that it is paused.</param>
/// <param name="Queues">Some of <c>orders</c> and <c>orders.dlq</c>; all of them when it is left out.</param>
internal sealed record IntakeBody(string? Reason = null, IReadOnlyList<string>? Queues = null);

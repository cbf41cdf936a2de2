using OrderService.Outbox;
using OrderService.RabbitMq;

namespace OrderService.Admin;

/// <summary>Events that a subscriber's queue refuses, and an attempt by hand.</summary>
internal static class RelayEndpoints
{
    private const int LongestReason = 500;

    public static void MapRelay(this IEndpointRouteBuilder api)
    {
        var relay = api.MapGroup("/relay").WithTags("Operations");
        relay.MapGet("", ListAsync).RequireAuthorization(Scopes.Read).WithName("relay")
            .WithSummary("Routing keys whose events wait in the store because a queue refuses them: how many, since when, why, and which queue.").Produces<RelayAnswer>();
        relay.MapPost("/{routingKey}/release", ReleaseAsync).RequireAuthorization(Scopes.Operate).WithName("relay.release")
            .WithSummary("Tries a routing key at once; when the queue takes the first event, the rest follows.")
            .WithDescription("Events try again by themselves every ten seconds; this is for those who just made room. `unsendable` stands for events that can't be sent as they are, which are tried by hand only. The audit log keeps who asked, from where and why.")
            .Accepts<RelayBody>(isOptional: true, "application/json").Produces<RelayRelease>(202).ProducesProblem(404);
    }

    private static async Task<IResult> ListAsync(HttpContext context, OutboxStore store, SubscriberQueues queues)
    {
        var waiting = await store.StuckAsync(null, context.RequestAborted);
        var items = new List<RelayKeyView>(waiting.Count);
        foreach (var key in waiting)
        {
            items.Add(new RelayKeyView(
                key.Key, key.Events, DateTimeOffset.FromUnixTimeMilliseconds(key.Since), key.Reason ?? "others of the same orders wait", key.OrderId,
                await queues.FindAsync(key.Key, context.RequestAborted)));
        }
        return TypedResults.Ok(new RelayAnswer(items));
    }

    private static async Task<IResult> ReleaseAsync(HttpContext context, OutboxStore store, TimeProvider clock, string routingKey)
    {
        var (body, mistake) = await DeadLetterEndpoints.ReadAsync<RelayBody>(context);
        if (mistake is not null)
        {
            return mistake;
        }
        if (body?.Reason?.Length > LongestReason)
        {
            return LetterChoice.Bad("/reason", $"reason has at most {LongestReason} characters.");
        }
        var events = await store.AskForReleaseAsync(
            routingKey, CallerRight.CallerOf(context), body?.Reason ?? "", clock.GetUtcNow().ToUnixTimeMilliseconds(), context.RequestAborted);
        return events == 0
            ? Problems.Result(StatusCodes.Status404NotFound, "nothing_waits", "No event waits for this routing key.")
            : TypedResults.Accepted($"{context.Request.PathBase}/api/relay", new RelayRelease(routingKey, events));
    }
}

/// <param name="Items">The longest waiting first; empty when every queue takes its events.</param>
internal sealed record RelayAnswer(IReadOnlyList<RelayKeyView> Items);

/// <param name="RoutingKey">What the events are published with; <c>orders</c> for replays; <c>unsendable</c> for what can't be sent as it is.</param>
/// <param name="Events">How many wait, those behind them in the same orders included.</param>
/// <param name="OrderId">The order that waits longest.</param>
/// <param name="Queues">Which queue refuses them and why, a sentence each; null without the management API.</param>
internal sealed record RelayKeyView(string RoutingKey, long Events, DateTimeOffset Since, string Reason, string? OrderId, IReadOnlyList<string>? Queues);

/// <param name="Reason">For the audit log.</param>
internal sealed record RelayBody(string? Reason = null);

/// <param name="Events">How many wait for it.</param>
internal sealed record RelayRelease(string RoutingKey, long Events);

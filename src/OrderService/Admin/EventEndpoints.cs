using System.Globalization;
using System.Text;
using Microsoft.Extensions.Options;
using OrderService.Events;
using OrderService.Outbox;
using OrderService.Store;

namespace OrderService.Admin;

/// <summary>All events by position: in pages, and live as Server-Sent Events.</summary>
internal static class EventEndpoints
{
    public static void MapEvents(this IEndpointRouteBuilder api)
    {
        var events = api.MapGroup("/events").RequireAuthorization(Scopes.Read).WithTags("Events");
        events.MapGet("", ListAsync).WithName("events.list")
            .WithSummary("Events of all orders after a position, oldest first: each as it is published, with position, orderId and version. next is the position to go on from.").Produces<Page<PositionedEventView>>().ProducesProblem(400).ProducesProblem(410);
        events.MapGet("/stream", (HttpContext context, LiveStream stream, string? after) => stream.RunAsync(context)).Within(limits => limits.Streams, "live streams of this caller").WithName("events.stream")
            .WithSummary("The same, live, as Server-Sent Events. The id of each is its position: Last-Event-ID (or after) goes on from there; without either it begins now.")
            .Produces(200, contentType: "text/event-stream").ProducesProblem(400).ProducesProblem(410).ProducesProblem(503);
    }

    private static async Task<IResult> ListAsync(HttpContext context, EventQueries events, string? after, string? limit)
    {
        if (!TryReadPosition(context.Request.Query["after"], out var position))
        {
            return Paging.BadParameter("after", "after is a position: a number from 0.");
        }
        var count = Paging.DefaultLimit;
        var given = context.Request.Query["limit"];
        if (given.Count > 1 || (given.Count == 1 && (!int.TryParse(given[0], NumberStyles.None, CultureInfo.InvariantCulture, out count) || count is < 1 or > Paging.MaxLimit)))
        {
            return Paging.BadParameter("limit", $"limit is a number from 1 to {Paging.MaxLimit}.");
        }
        if (position is { } seen && await GoneAsync(events, seen, context.RequestAborted) is { } gone)
        {
            return gone;
        }
        var found = await events.AfterAsync(position ?? 0, count, context.RequestAborted);
        return new RenderedList(
            [.. found.Events.Select(recorded => (ReadOnlyMemory<byte>)Encoding.UTF8.GetBytes(PublishedEvent.RenderWithPosition(recorded)))],
            found.MayHaveMore ? found.Events[^1].Position.ToString(CultureInfo.InvariantCulture) : null);
    }

    /// <summary>The answer to a reader who has seen events that a restore took; null for all others.</summary>
    public static async Task<IResult?> GoneAsync(EventQueries events, long position, CancellationToken cancellationToken)
    {
        if (await events.LostWithAsync(position, cancellationToken) is not { } lost)
        {
            return null;
        }
        var began = DateTimeOffset.FromUnixTimeMilliseconds(lost.BeganAt).ToString("yyyy-MM-dd HH:mm:ss'Z'", CultureInfo.InvariantCulture);
        return Problems.Gone(
            string.Create(
                CultureInfo.InvariantCulture,
                $"The store was put back on {began} and epoch {lost.Number} began. The events behind position {lost.LastPosition} that you have up to {position} are not in it: take them for not having happened, or ask "
                + $"about their orders, and go on with after={lost.LastPosition}. What is recorded since has ids that end with .e{lost.Number}."),
            lost.LastPosition);
    }

    public static bool TryReadPosition(Microsoft.Extensions.Primitives.StringValues given, out long? position)
    {
        position = null;
        if (given.Count == 0)
        {
            return true;
        }
        var fine = given.Count == 1 && long.TryParse(given[0], NumberStyles.None, CultureInfo.InvariantCulture, out var number) && (position = number) >= 0;
        return fine;
    }
}

/// <summary>Serves live streams from the store; the event bus only says when to look.</summary>
internal sealed class LiveStream(EventQueries events, EventBus bus, IOptions<ApiOptions> options, IHostApplicationLifetime lifetime, TimeProvider clock)
{
    private const int PageSize = 200;
    private static readonly TimeSpan Look = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan Heartbeat = TimeSpan.FromSeconds(15);

    private int open;

    public async Task<IResult> RunAsync(HttpContext context)
    {
        var lastEventId = context.Request.Headers["Last-Event-ID"];
        if (!EventEndpoints.TryReadPosition(lastEventId.Count > 0 ? lastEventId : context.Request.Query["after"], out var position))
        {
            return Paging.BadParameter("after", "Last-Event-ID is a position: a number from 0.");
        }
        if (position is { } seen && await EventEndpoints.GoneAsync(events, seen, context.RequestAborted) is { } gone)
        {
            return gone;
        }
        if (Interlocked.Increment(ref open) > options.Value.MaxStreams)
        {
            Interlocked.Decrement(ref open);
            return Problems.RetryLater(StatusCodes.Status503ServiceUnavailable, "too_many_streams", "Too many live streams are open.", 10);
        }
        try
        {
            position ??= await events.LastPositionAsync(context.RequestAborted);
            context.Response.ContentType = "text/event-stream";
            context.Response.Headers["X-Accel-Buffering"] = "no";
            await context.Response.WriteAsync("retry: 2000\n\n", context.RequestAborted);
            await context.Response.Body.FlushAsync(context.RequestAborted);
            // A stream must not hold up a stop.
            using var end = CancellationTokenSource.CreateLinkedTokenSource(context.RequestAborted, lifetime.ApplicationStopping);
            await FollowAsync(context, position.Value, end.Token);
        }
        catch (OperationCanceledException)
        {
            // The reader left, or the service stops: the reader comes back with its Last-Event-ID.
        }
        finally
        {
            Interlocked.Decrement(ref open);
        }
        return Results.Empty;
    }

    private async Task FollowAsync(HttpContext context, long position, CancellationToken cancellationToken)
    {
        // Not disposed: the bus may still be calling when the stream ends, and without a wait handle there is nothing to free.
        var something = new SemaphoreSlim(0, 1);
        using var subscription = bus.Subscribe("live stream", 1, (_, _) =>
        {
            if (something.CurrentCount == 0)
            {
                something.Release();
            }
            return Task.CompletedTask;
        });
        var lastWrite = clock.GetTimestamp();
        while (true)
        {
            var page = new EventPage([], false);
            try
            {
                page = await events.AfterAsync(position, PageSize, cancellationToken);
            }
            catch (StoreUnavailableException)
            {
                // The stream stays open and goes on when the store is back.
            }
            foreach (var recorded in page.Events)
            {
                await WriteAsync(context, recorded, cancellationToken);
                position = recorded.Position;
            }
            if (page.Events.Count == 0 && clock.GetElapsedTime(lastWrite) > Heartbeat)
            {
                await context.Response.WriteAsync(": still here\n\n", cancellationToken);
            }
            if (page.Events.Count > 0 || clock.GetElapsedTime(lastWrite) > Heartbeat)
            {
                await context.Response.Body.FlushAsync(cancellationToken);
                lastWrite = clock.GetTimestamp();
            }
            if (!page.MayHaveMore)
            {
                // Other instances commit too, and their commits don't pass this process's bus.
                await something.WaitAsync(Look, cancellationToken);
            }
        }
    }

    private static Task WriteAsync(HttpContext context, RecordedEvent recorded, CancellationToken cancellationToken) =>
        context.Response.WriteAsync(string.Create(CultureInfo.InvariantCulture,
            $"id: {recorded.Position}\ndata: {PublishedEvent.RenderWithPosition(recorded)}\n\n"), cancellationToken);
}

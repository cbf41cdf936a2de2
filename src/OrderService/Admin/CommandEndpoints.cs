using System.Buffers;
using System.Diagnostics;
using System.Text.Json;
using Microsoft.Extensions.Options;
using OrderService.Domain;
using OrderService.Inbox;
using OrderService.Observability;
using OrderService.Outbox;
using OrderService.RabbitMq;
using OrderService.Store;

namespace OrderService.Admin;

/// <summary>Commands over HTTP: checked by the queue's own parser, published to the queue with a confirm, answered 202.</summary>
internal static class CommandEndpoints
{
    public static void MapCommands(this IEndpointRouteBuilder api)
    {
        foreach (var shape in CommandShapes.All)
        {
            Map(api, shape);
        }
        api.MapGet("/commands", () => TypedResults.Ok(new Page<CommandView>([.. CommandShapes.All.Select(CommandView.Of)], null)))
            .RequireAuthorization(Scopes.Read).WithName("commands.list").WithTags("Orders")
            .WithSummary("The commands there are, in the order of an order's life.").Produces<Page<CommandView>>();
    }

    private static void Map(IEndpointRouteBuilder api, CommandShape shape)
    {
        var mapped = shape.Verb is not null
            ? api.MapPost(shape.Route, (HttpContext context, CommandIntake intake, string id) => intake.AcceptAsync(context, shape.Type, id))
            : api.MapPost(shape.Route, (HttpContext context, CommandIntake intake) => intake.AcceptAsync(context, shape.Type, null));
        mapped
            .RequireAuthorization(Scopes.Publish)
            .WithName(shape.Type)
            .WithTags("Orders")
            .WithSummary(shape.Summary)
            .WithDescription("The body is the command's, as on the queue. With the header Idempotency-Key a repetition gets the first answer, marked Idempotency-Replayed. With If-Match it is refused (version-conflict) when the order is at another version.")
            .Accepts(shape.Body, "application/json")
            .Produces<AcceptedCommand>(StatusCodes.Status202Accepted)
            .ProducesProblem(400).ProducesProblem(401).ProducesProblem(403).ProducesProblem(409).ProducesProblem(413).ProducesProblem(415).ProducesProblem(422).ProducesProblem(429).ProducesProblem(503);
    }
}

/// <summary>A command that orders understand.</summary>
/// <param name="Path">Where it is sent over HTTP.</param>
/// <param name="Example">A body as the address takes it.</param>
internal sealed record CommandView(string Type, string Path, string Summary, JsonElement Example)
{
    public static CommandView Of(CommandShape shape) => new(shape.Type, $"/api{shape.Route}", shape.Summary, JsonElement.Parse(shape.Example));
}

/// <summary>What a 202 says: the queue has the command; what becomes of it is seen at the order.</summary>
/// <param name="IdempotencyKey">The request's, or the one derived from the command: the same command again is the same key.</param>
internal sealed record AcceptedCommand(string OrderId, string Command, string IdempotencyKey, string CorrelationId, string Status);

/// <summary>Takes one command from a request to the queue.</summary>
internal sealed partial class CommandIntake(
    [FromKeyedServices(TopologyNames.Orders)] ConfirmedPublisher publisher, HttpRequests requests, IOptions<ApiOptions> options, IOptions<OrdersOptions> orders, TimeProvider clock, ILogger<CommandIntake> logger)
{
    private const string CorrelationHeader = "X-Correlation-Id";

    /// <summary>A caller is told to come back rather than kept waiting for those before it.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(2);

    public async Task<IResult> AcceptAsync(HttpContext context, string commandType, string? orderId)
    {
        if (!ApiAuthentication.MaySend(context, commandType))
        {
            var refusal = $"The key may not send {commandType}.";
            Refusals.Because(context, refusal);
            return Problems.Result(StatusCodes.Status403Forbidden, "forbidden", refusal);
        }
        if (!EnvelopeDecoder.IsJson(context.Request.ContentType))
        {
            return Problems.Result(StatusCodes.Status415UnsupportedMediaType, "unsupported_media_type", "The body must be application/json in UTF-8.");
        }
        if (context.Request.Headers.ContentEncoding.Count > 0)
        {
            return Problems.Result(StatusCodes.Status415UnsupportedMediaType, "unsupported_content_encoding", "Send the body uncompressed.");
        }
        if (!IdempotencyKey.TryRead(context.Request, out var givenKey))
        {
            return Problems.Result(StatusCodes.Status400BadRequest, "key_invalid", $"{IdempotencyKey.Header} must be sent once, with 1 to {EnvelopeDecoder.MaxKeyLength} visible ASCII characters.");
        }
        if (givenKey is null && options.Value.RequireIdempotencyKey)
        {
            return Problems.Result(StatusCodes.Status400BadRequest, "key_missing", $"The header {IdempotencyKey.Header} is required.");
        }
        var correlationId = CorrelationId(context);
        if (correlationId is null)
        {
            return Problems.Result(StatusCodes.Status400BadRequest, "property_invalid", $"{CorrelationHeader} must have 1 to {EnvelopeDecoder.MaxKeyLength} visible ASCII characters.");
        }

        var body = await ReadBodyAsync(context);
        if (!EnvelopeDecoder.TryDecodeBody(commandType, body, orderId, out var command, out var rejection))
        {
            return Refuse(rejection);
        }
        if (command is OrderCommand.Place { IsPlain: false } place && OrderDecider.Contradiction(place, orders.Value.Rules) is { } contradiction)
        {
            return Refuse(Rejection.Of(contradiction));
        }
        var expects = command;
        if (!ExpectedVersion.TryRead(context.Request, ref expects))
        {
            return Problems.Result(StatusCodes.Status400BadRequest, "version_invalid", ExpectedVersion.Rule);
        }
        // The address may have named the order; the message always does. A body that is complete goes out byte for byte,
        // so that the same order has the same derived key over HTTP and on the queue.
        var message = orderId is null && ReferenceEquals(expects, command) ? body : CommandWriter.Write(expects);
        var fingerprint = EnvelopeDecoder.Fingerprint(commandType, message);
        var key = givenKey ?? EnvelopeDecoder.DerivedKey(fingerprint);
        var answer = new AcceptedCommand(command.OrderId, commandType, key, correlationId, "accepted for processing");
        var location = $"/api/orders/{command.OrderId}";

        if (givenKey is null)
        {
            return await PublishAsync(message, answer, context) ?? new Accepted(JsonSerializer.Serialize(answer, JsonSerializerOptions.Web), location, false);
        }

        var principal = context.User.Identity?.Name ?? "";
        switch (await requests.BeginAsync(principal, key, fingerprint, context.RequestAborted))
        {
            case HttpRequests.Begun.Reused:
                return Problems.Result(StatusCodes.Status422UnprocessableEntity, "key_conflict", $"This {IdempotencyKey.Header} was used for another command.");
            case HttpRequests.Begun.InFlight:
                return Problems.RetryLater(StatusCodes.Status409Conflict, "request_in_flight", $"The first request with this {IdempotencyKey.Header} is still under way.", 1);
            case HttpRequests.Begun.Answered answered:
                return new Accepted(answered.Body, answered.Location, true);
        }
        var completed = false;
        try
        {
            var failure = await PublishAsync(message, answer, context);
            if (failure is not null)
            {
                return failure;
            }
            var text = JsonSerializer.Serialize(answer, JsonSerializerOptions.Web);
            completed = true;
            await requests.CompleteAsync(principal, key, StatusCodes.Status202Accepted, location, text);
            return new Accepted(text, location, false);
        }
        finally
        {
            if (!completed)
            {
                await requests.AbandonAsync(principal, key);
            }
        }
    }

    private async Task<IResult?> PublishAsync(byte[] body, AcceptedCommand answer, HttpContext context)
    {
        // Not the request's token: a caller who hangs up must not leave it open whether the command was taken.
        var outcome = await publisher.TryPublishAsync(new OutgoingMessage
        {
            Exchange = TopologyNames.OrdersIn,
            RoutingKey = TopologyNames.Orders,
            OrderId = answer.OrderId,
            MessageId = answer.IdempotencyKey,
            CorrelationId = answer.CorrelationId,
            Type = answer.Command,
            AppId = "order-service-http",
            Timestamp = clock.GetUtcNow(),
            Body = body,
            Headers = TraceHeaders(context.Request),
        }, Patience);
        if (outcome is PublishOutcome.Confirmed)
        {
            return null;
        }
        LogNotConfirmed(answer.IdempotencyKey, outcome?.GetType().Name ?? "no place", context.TraceIdentifier);
        return Problems.RetryLater(StatusCodes.Status503ServiceUnavailable, "not_confirmed", outcome switch
        {
            null => "The broker confirms too slowly; nothing was taken.",
            PublishOutcome.Returned => "The queue does not exist at the moment; nothing was taken.",
            PublishOutcome.Nacked => "The queue takes nothing at the moment; nothing was taken.",
            PublishOutcome.Unknown => "The broker did not confirm in time, so the command may or may not have been taken. Send the same request again: it takes effect once.",
            _ => "The broker does not take this message.",
        }, 2);
    }

    /// <summary>The request's own span where spans are collected, else the caller's as it came; a new trace where the caller has none.</summary>
    private static Dictionary<string, object?>? TraceHeaders(HttpRequest request)
    {
        var (parent, state) = !Tracing.IsCollected && ActivityContext.TryParse(request.Headers.TraceParent, request.Headers.TraceState, out _)
            ? (request.Headers.TraceParent.ToString(), request.Headers.TraceState.ToString())
            : Activity.Current is { IdFormat: ActivityIdFormat.W3C, Id: { } id } activity ? (id, activity.TraceStateString) : (null, null);
        return TraceText.Headers<object?>(TraceText.Join(parent, state));
    }

    private static IResult Refuse(Rejection rejection) => rejection.Reason == RejectionReason.BodyTooLarge
        ? Problems.Result(StatusCodes.Status413PayloadTooLarge, rejection.Reason, rejection.Detail)
        : Problems.Result(StatusCodes.Status400BadRequest, rejection.Reason, rejection.Detail, new FieldError(rejection.Field ?? "", rejection.Reason, rejection.Detail));

    private static string? CorrelationId(HttpContext context)
    {
        var given = context.Request.Headers[CorrelationHeader];
        return given.Count switch
        {
            0 => Activity.Current?.TraceId.ToString() ?? Guid.NewGuid().ToString("N"),
            1 when EnvelopeDecoder.IsKey(given[0]) => given[0],
            _ => null,
        };
    }

    private static async Task<byte[]> ReadBodyAsync(HttpContext context)
    {
        var body = new ArrayBufferWriter<byte>((int)Math.Clamp(context.Request.ContentLength ?? 1024, 1, EnvelopeDecoder.MaxBodyBytes));
        while (true)
        {
            // Kestrel ends a body that is too long with a 413 of its own.
            var read = await context.Request.BodyReader.ReadAsync(context.RequestAborted);
            foreach (var segment in read.Buffer)
            {
                body.Write(segment.Span);
            }
            context.Request.BodyReader.AdvanceTo(read.Buffer.End);
            if (read.IsCompleted)
            {
                return body.WrittenSpan.ToArray();
            }
        }
    }

    [LoggerMessage(LogLevel.Warning, "The publish of {Key} was not confirmed ({Outcome}); request {Request} got a 503")]
    private partial void LogNotConfirmed(string key, string outcome, string request);

    private sealed class Accepted(string body, string? location, bool replayed) : IResult
    {
        public Task ExecuteAsync(HttpContext httpContext)
        {
            httpContext.Response.StatusCode = StatusCodes.Status202Accepted;
            httpContext.Response.Headers.Location = $"{httpContext.Request.PathBase}{location}";
            if (replayed)
            {
                httpContext.Response.Headers["Idempotency-Replayed"] = "true";
            }
            httpContext.Response.ContentType = "application/json; charset=utf-8";
            return httpContext.Response.WriteAsync(body, httpContext.RequestAborted);
        }
    }
}

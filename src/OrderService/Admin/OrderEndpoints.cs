using Microsoft.Extensions.Options;
using OrderService.Domain;
using OrderService.Inbox;
using OrderService.Outbox;
using OrderService.Projections;
using OrderService.Store;

namespace OrderService.Admin;

/// <summary>Orders and events as they stand.</summary>
internal static class OrderEndpoints
{
    public static void MapOrders(this IEndpointRouteBuilder api)
    {
        var orders = api.MapGroup("/orders").RequireAuthorization(Scopes.Read).WithTags("Orders");
        orders.MapGet("", ListAsync).WithName("orders.list").WithSummary("Orders from the read model, newest first, by state, customer and time.").Produces<Page<OrderRow>>().ProducesProblem(400);
        api.MapGet("/sales", SalesAsync).RequireAuthorization(Scopes.Read).WithTags("Orders").WithName("sales")
            .WithSummary("What was ordered on a day (UTC), by currency, and how much of it was cancelled since.").Produces<SalesAnswer>().ProducesProblem(400);
        orders.MapGet("/{id}", ShowAsync).WithName("orders.show").WithSummary("One order, folded from its events.").Produces<OrderView>().ProducesProblem(400).ProducesProblem(404);
        orders.MapGet("/{id}/events", EventsAsync).WithName("orders.events").WithSummary("One order's events as they are published, with what is personal, oldest first.").Produces<Page<CloudEventView>>().ProducesProblem(400).ProducesProblem(404);
        orders.MapGet("/{id}/timeline", TimelineAsync).WithName("orders.timeline")
            .WithSummary("Everything that happened to an order, oldest first: events, copies, refusals, waits, dead letters, replays, alerts.").Produces<Page<TimelineEntry>>().ProducesProblem(400).ProducesProblem(404);
        api.MapGet("/why/{id}", WhyAsync).RequireAuthorization(Scopes.Read).WithTags("Orders").WithName("why")
            .WithSummary("What happened to an order, a message or a dead letter, what happens next, and what an operator may do, in words.").Produces<Explanation>().ProducesProblem(404);
    }

    private static async Task<IResult> ListAsync(
        HttpContext context, OrderQueries orders, IOptions<OrdersOptions> options, string? status, string? customerId, string? placedFrom, string? placedTo, string? attribute, string? paymentStatus,
        string? fulfillmentStatus, string? sort, string? after, string? limit)
    {
        if (OrderFilterReader.Read(context, options.Value, out var list, out var problem) is not { } filter || Paging.ReadPair(context, list, out problem) is not { } page)
        {
            return problem;
        }
        var found = await orders.ListAsync(filter, page.After, page.Limit + 1, context.RequestAborted);
        var items = found.Take(page.Limit).Select(OrderRow.Of).ToList();
        return TypedResults.Ok(new Page<OrderRow>(items, found.Count > page.Limit ? Next(found[page.Limit - 1]) : null));

        string Next(OrderSummary last) => filter.IsBySequence ? Paging.Encode(list, last.Seq) : Paging.Encode(list, filter.TimeOf(last), last.Seq);
    }

    private static async Task<IResult> SalesAsync(HttpContext context, OrderQueries orders, string? day)
    {
        if (!Paging.TryReadOne(context, "day", out day, out var problem))
        {
            return problem;
        }
        if (!DateOnly.TryParseExact(day, "yyyy-MM-dd", System.Globalization.CultureInfo.InvariantCulture, System.Globalization.DateTimeStyles.None, out var date))
        {
            return Paging.BadParameter("day", "day is a day in UTC, such as 2026-11-26.");
        }
        var sold = await orders.SoldAsync(date.DayNumber - DateOnly.FromDateTime(DateTime.UnixEpoch).DayNumber, context.RequestAborted);
        return TypedResults.Ok(new SalesAnswer(
            date.ToString("yyyy-MM-dd", System.Globalization.CultureInfo.InvariantCulture),
            [.. sold.Select(one => new SalesRow(one.Currency, one.Orders, OrderRow.Amount(one.TotalMinor, one.Currency), one.Cancelled, OrderRow.Amount(one.CancelledMinor, one.Currency)))]));
    }

    private static async Task<IResult> ShowAsync(HttpContext context, string id, EventQueries events, OrderQueries orders, PersonalKeys keys)
    {
        if (!TextRules.IsId(id))
        {
            return BadId();
        }
        var stream = await events.StreamAsync(id, context.RequestAborted);
        if (stream.Count == 0)
        {
            return NoSuchOrder(await orders.GoneAtAsync(id, context.RequestAborted));
        }
        context.Response.Headers.ETag = ExpectedVersion.Tag(stream[^1].Version);
        return TypedResults.Ok(OrderView.Of(id, stream, keys, PersonalSight.Has(context)));
    }

    private static async Task<IResult> EventsAsync(HttpContext context, string id, EventQueries events, PersonalKeys keys)
    {
        if (!TextRules.IsId(id))
        {
            return BadId();
        }
        var stream = await events.StreamAsync(id, context.RequestAborted);
        if (stream.Count == 0)
        {
            return NoSuchOrder();
        }
        var isMasked = !PersonalSight.Has(context);
        return new RenderedList([.. stream.Select(recorded => (ReadOnlyMemory<byte>)PublishedEvent.RenderWithPersonal(recorded, keys.Open, isMasked))], null);
    }

    private static async Task<IResult> TimelineAsync(HttpContext context, string id, OrderStory story)
    {
        if (!TextRules.IsId(id))
        {
            return BadId();
        }
        var entries = await story.OfOrderAsync(id, context.RequestAborted);
        return entries.Count == 0 ? NoSuchOrder() : TypedResults.Ok(new Page<TimelineEntry>([.. entries.Select(TimelineEntry.Of)], null));
    }

    private static async Task<IResult> WhyAsync(HttpContext context, string id, OrderStory story, IOptions<OrdersOptions> orders) =>
        await story.WhyAsync(id, context.RequestAborted, orders.Value.CancelUnpaidAfter) is { } explanation
            ? TypedResults.Ok(explanation)
            : Problems.Result(StatusCodes.Status404NotFound, "nothing_known", "No order, message or dead letter is known by that name.");

    private static IResult BadId() => Problems.Result(StatusCodes.Status400BadRequest, RejectionReason.IdInvalid, $"An order id is {TextRules.IdRule}.");

    /// <param name="goneAt">When it was taken out of the store, where it was.</param>
    private static IResult NoSuchOrder(DateTimeOffset? goneAt) => goneAt is { } at
        ? Problems.Result(
            StatusCodes.Status404NotFound, "order_archived",
            $"The order was closed long ago and taken out of the store on {at.ToUniversalTime().ToString("yyyy-MM-dd", System.Globalization.CultureInfo.InvariantCulture)}; the archive may have it: orderservice order show --archive.")
        : NoSuchOrder();

    private static IResult NoSuchOrder() => Problems.Result(StatusCodes.Status404NotFound, "order_not_found", "There is no such order (yet): commands are processed a moment after they are accepted.");
}

/// <param name="Day">In UTC, by when the orders were recorded.</param>
internal sealed record SalesAnswer(string Day, IReadOnlyList<SalesRow> Items);

/// <param name="Orders">How many were placed, whatever became of them.</param>
/// <param name="Total">What they add up to.</param>
/// <param name="Cancelled">How many of them were cancelled since.</param>
internal sealed record SalesRow(string Currency, long Orders, decimal Total, long Cancelled, decimal CancelledTotal);

/// <summary>A list whose items are JSON already.</summary>
internal sealed class RenderedList(IReadOnlyList<ReadOnlyMemory<byte>> items, string? next) : IResult
{
    public async Task ExecuteAsync(HttpContext httpContext)
    {
        httpContext.Response.ContentType = "application/json; charset=utf-8";
        await using var writer = new System.Text.Json.Utf8JsonWriter(httpContext.Response.BodyWriter);
        writer.WriteStartObject();
        writer.WriteStartArray("items");
        foreach (var item in items)
        {
            writer.WriteRawValue(item.Span, skipInputValidation: true);
        }
        writer.WriteEndArray();
        writer.WriteString("next", next);
        writer.WriteEndObject();
        await writer.FlushAsync(httpContext.RequestAborted);
    }
}

/// <summary>An event as it is published, for the document alone: it is written by the relay's own writer.</summary>
/// <param name="Sequence">Its version in the order's stream, from 1.</param>
/// <param name="Causationid">The idempotency key of the command behind it.</param>
/// <param name="Epoch">The store's epoch in which it was recorded, from the second on: the service was restored.</param>
internal sealed record CloudEventView(
    string Specversion, string Id, string Source, string Type, string Subject, DateTimeOffset Time, string Datacontenttype, System.Text.Json.JsonElement Data,
    long Sequence, string Correlationid, string Causationid, string Partitionkey, string? Traceparent = null, long? Epoch = null);

/// <summary>The same with its place in the log of all events.</summary>
internal sealed record PositionedEventView(
    long Position, string OrderId, long Version, string Specversion, string Id, string Source, string Type, string Subject, DateTimeOffset Time, string Datacontenttype, System.Text.Json.JsonElement Data,
    long Sequence, string Correlationid, string Causationid, string Partitionkey, string? Traceparent = null, long? Epoch = null);

/// <summary>An order in a list. Amounts are numbers with the currency's decimals.</summary>
internal sealed record OrderRow(
    string OrderId, string Status, long Version, string CustomerId, string Currency, decimal Total, long LineCount, DateTimeOffset PlacedAt, DateTimeOffset UpdatedAt,
    string PaymentStatus, string FulfillmentStatus)
{
    public static OrderRow Of(OrderSummary order) => new(
        order.OrderId, order.Status.ToWire(), order.Version, order.CustomerId, order.Currency, Amount(order.TotalMinor, order.Currency), order.LineCount,
        DateTimeOffset.FromUnixTimeMilliseconds(order.PlacedAt), DateTimeOffset.FromUnixTimeMilliseconds(order.UpdatedAt), order.Payment.ToWire(), order.Fulfillment.ToWire());

    internal static decimal Amount(long minor, string code) => Domain.Currency.TryGet(code, out var currency) ? Money.ToDecimal(minor, currency) : minor;
}

/// <summary>A moment of an order.</summary>
internal sealed record TimelineEntry(
    DateTimeOffset At, string Kind, string Title, string Detail, long? Version, System.Text.Json.JsonElement? Data, string? Key, string? CorrelationId, long? LetterId, long? AlertId)
{
    public static TimelineEntry Of(StoryEntry entry) => new(
        entry.At, entry.Kind, entry.Title, entry.Detail, entry.Version, entry.Event is { } recorded ? Published(recorded) : null, entry.Key, entry.CorrelationId, entry.LetterId, entry.AlertId);

    // As it is published: without the customer's e-mail address.
    private static System.Text.Json.JsonElement Published(RecordedEvent recorded)
    {
        using var document = System.Text.Json.JsonDocument.Parse(PublishedEvent.Render(recorded));
        return document.RootElement.GetProperty("data").Clone();
    }
}

using System.Diagnostics;
using System.Globalization;
using OrderService.DeadLetters;
using OrderService.Domain;
using OrderService.Notifications;
using OrderService.Store;

namespace OrderService.Projections;

/// <summary>One thing that happened to an order.</summary>
/// <param name="Kind"><c>event</c>, <c>duplicate</c>, <c>refused</c>, <c>deferred</c>, <c>rejected</c>, <c>dead_letter</c>, <c>replay</c>, <c>discard</c>, <c>restore</c> or <c>alert</c>.</param>
/// <param name="Version">The version in the stream, for events.</param>
/// <param name="Event">The event itself, for events.</param>
public sealed record StoryEntry(
    DateTimeOffset At, string Kind, string Title, string Detail, long? Version, string? Key, string? CorrelationId, long? LetterId, long? AlertId, RecordedEvent? Event);

/// <summary>What is known about an order, a message or a dead letter, in sentences for a person who was woken by it.</summary>
/// <param name="Next">What the service will do by itself.</param>
/// <param name="Actions">What an operator may do.</param>
public sealed record Explanation(string Subject, string State, IReadOnlyList<string> Happened, IReadOnlyList<string> Next, IReadOnlyList<string> Actions);

/// <summary>Everything that happened to an order in one ordered view: events, copies, refusals, waits, dead letters, replays and alerts.</summary>
public sealed class OrderStory(IDatabase database, EventQueries events)
{
    private const int MostEntries = 1000;

    /// <summary>Oldest first; empty when nothing is known of such an order. It may exist in dead letters or waiting commands alone.</summary>
    public async Task<IReadOnlyList<StoryEntry>> OfOrderAsync(string orderId, CancellationToken cancellationToken)
    {
        var stream = await events.StreamAsync(orderId, cancellationToken);
        var entries = stream.Select(Entry).ToList();
        entries.AddRange(await database.ReadAsync(async connection => await RestAsync(connection, await HistoryTable.OfOrderAsync(connection, orderId, MostEntries)), cancellationToken));
        if (stream.Count > 0)
        {
            entries.AddRange(await CopiesAsync([.. stream.Select(recorded => recorded.CausationId).Concat(entries.Select(entry => entry.Key).OfType<string>()).Distinct(StringComparer.Ordinal).Take(MostEntries)], cancellationToken));
        }
        return [.. entries.OrderBy(entry => entry.At).ThenBy(entry => entry.Kind == "event" ? 0 : 1).ThenBy(entry => entry.Version ?? 0).Take(MostEntries)];
    }

    /// <summary>Explains an order id, a message's key or id, or a letter's number; null when nothing is known by that name.</summary>
    /// <param name="cancelUnpaidAfter">When orders that nobody pays are cancelled (<c>Orders:CancelUnpaidAfter</c>); null when they are not.</param>
    public async Task<Explanation?> WhyAsync(string id, CancellationToken cancellationToken, TimeSpan? cancelUnpaidAfter = null)
    {
        var story = await OfOrderAsync(id, cancellationToken);
        if (story.Count > 0)
        {
            return await ExplainOrderAsync(id, story, cancelUnpaidAfter, cancellationToken);
        }
        return await ExplainMessageAsync(id, cancellationToken) ?? await ExplainGoneAsync(id, cancellationToken);
    }

    private async Task<Explanation> ExplainOrderAsync(
        string orderId, IReadOnlyList<StoryEntry> story, TimeSpan? cancelUnpaidAfter, CancellationToken cancellationToken)
    {
        var stream = story.Where(entry => entry.Event is not null).Select(entry => entry.Event!).OrderBy(recorded => recorded.Version).ToList();
        var order = Order.Fold(orderId, stream.Select(recorded => EventSerializer.Read(recorded.Type, recorded.Data.Span)));
        var (goneAt, waiting, letters) = await database.ReadAsync(async connection => (
            order.Status == OrderStatus.None ? await TombstonesTable.GoneAtAsync(connection, orderId) : null,
            await DeferredTable.OfOrderAsync(connection, orderId),
            await LettersTable.OfOrderAsync(connection, orderId)),
            cancellationToken);

        var state = order.Status == OrderStatus.None
            ? goneAt is { } left ? Gone(left) : letters.Exists(letter => letter.Status == "parked") ? "The order does not exist: the message that places it is a parked dead letter." : "The order does not exist yet."
            : $"The order is {order.Status.ToWire()} (version {order.Version}).{PaidOf(order)}{GoodsOf(order)}";
        var next = new List<string>();
        foreach (var (type, expiresAt) in waiting)
        {
            next.Add($"{type} waits for the order and is decided when it is placed, or becomes a dead letter at {Time(expiresAt)}.");
        }
        next.AddRange(letters.Where(letter => letter.Status == "replayed").Select(letter => $"Dead letter {letter.Id} is on its way through the queue again."));
        if (next.Count == 0 && order.IsHeld)
        {
            next.Add("Nothing is shipped until order.release comes.");
        }
        if (next.Count == 0 && cancelUnpaidAfter is { } after && UnpaidOrders.IsUnpaid(order) && !letters.Exists(letter => letter.Status == "parked"))
        {
            var due = Time(stream[^1].RecordedAt + (long)after.TotalMilliseconds);
            next.Add($"It is not paid, and is cancelled soon after {due} if nothing happens to it before.");
        }
        if (next.Count == 0)
        {
            next.Add(order.Status switch
            {
                OrderStatus.None => "Nothing, until somebody acts or another message comes.",
                OrderStatus.Delivered or OrderStatus.Cancelled => $"Nothing; the order is {order.Status.ToWire()}, and that is its end.",
                _ => "Nothing; the order waits for its next command.",
            });
        }
        return new Explanation($"order {orderId}", state, [.. story.Select(Sentence)], next, Actions(letters, orderId));
    }

    private static string Gone(long at) => $"The order was closed long ago and left the store at {Time(at)}; it does not begin anew.";

    /// <summary>An order, or a message of one, that was closed and left the store.</summary>
    private async Task<Explanation?> ExplainGoneAsync(string id, CancellationToken cancellationToken)
    {
        var (order, key) = await database.ReadAsync(
            async connection => (await TombstonesTable.GoneAtAsync(connection, id), await TombstonesTable.KeyGoneAtAsync(connection, id)), cancellationToken);
        return order is { } at
            ? new Explanation($"order {id}", Gone(at), [], ["Nothing; what comes for it is refused, and copies of its messages have no effect."], [$"orderservice order show {id} --archive FOLDER"])
            : key is { } keyAt
                ? new Explanation($"message {id}", $"The message was decided, and its order was closed and left the store at {Time(keyAt)}.", [], ["Nothing; further copies of it are acknowledged and have no effect."], [])
                : null;
    }

    private async Task<Explanation?> ExplainMessageAsync(string id, CancellationToken cancellationToken)
    {
        var isNumber = long.TryParse(id, NumberStyles.None, CultureInfo.InvariantCulture, out var number);
        var (entry, letters, history) = await database.ReadAsync(async connection => (
            await InboxTable.DecisionAsync(connection, id),
            await LettersTable.OfMessageAsync(connection, id, isNumber ? number : -1),
            await RestAsync(connection, await HistoryTable.OfMessageAsync(connection, id, isNumber ? number : null, MostEntries))), cancellationToken);
        if (entry is null && letters.Count == 0 && history.Count == 0)
        {
            return null;
        }
        var orderId = entry?.OrderId ?? letters.Select(letter => letter.OrderId).FirstOrDefault(order => order is not null);
        var state = letters.Count > 0
            ? string.Join(' ', letters.Select(State))
            : entry?.Outcome switch
            {
                InboxOutcome.Accepted => "The message was accepted and took effect once.",
                InboxOutcome.Refused => $"The message was refused: {entry.Reason}. That is an answer, not a failure.",
                InboxOutcome.Deferred => "The message came before its order and waits for it.",
                InboxOutcome.Rejected => $"The message was rejected ({entry.Reason}) and is on its way to the dead letters.",
                _ => "The message is known.",
            };
        var happened = new List<string>();
        if (entry is not null)
        {
            happened.Add($"{Time(entry.DecidedAt)} It was decided{(orderId is null ? "" : $", for order {orderId}")}.");
        }
        if (entry is { Copies: > 0, LastCopyAt: { } lastCopyAt })
        {
            happened.Add($"{Time(lastCopyAt)} {(entry.Copies == 1 ? "1 more copy" : $"{entry.Copies.ToString(CultureInfo.InvariantCulture)} more copies")} came and had no effect; this was the last.");
        }
        happened.AddRange(history.Select(Sentence));
        var next = letters.Exists(letter => letter.Status == "replayed") ? "It is on its way through the queue again."
            : letters.Exists(letter => letter.Status == "parked") ? "Nothing, until somebody acts."
            : "Nothing; further copies of it are acknowledged and have no effect.";
        return new Explanation(letters.Count > 0 && isNumber ? $"dead letter {id}" : $"message {id}", state, happened, [next], Actions(letters, orderId));
    }

    /// <summary>Where a letter stands; one that is done with says how first, and what had been wrong after that.</summary>
    private static string State(LetterState letter) => letter.SettledAt is { } at
        ? $"Dead letter {letter.Id} is {letter.Status} since {Time(at)} by {letter.SettledBy}: {letter.SettleReason?.TrimEnd('.')}. It had been {letter.Reason}. {letter.Detail}"
        : $"Dead letter {letter.Id} is {letter.Status}: {letter.Reason}. {letter.Detail}";

    /// <summary>How many more copies came of each of these messages.</summary>
    private Task<List<StoryEntry>> CopiesAsync(IReadOnlyList<string> keys, CancellationToken cancellationToken) => database.ReadAsync(
        async connection => (await InboxTable.CopiedAsync(connection, keys)).Select(row => new StoryEntry(
                At(row.LastCopyAt ?? 0), "duplicate", Title("duplicate"), $"{(row.Copies == 1 ? "1 more copy" : $"{row.Copies.ToString(CultureInfo.InvariantCulture)} more copies")} came and had no effect; this was the last.",
                null, row.Key, null, null, null, null)).ToList(),
        cancellationToken);

    private static List<string> Actions(IReadOnlyList<LetterState> letters, string? orderId)
    {
        var actions = new List<string>();
        foreach (var letter in letters.Where(letter => letter.Status == "parked"))
        {
            actions.Add($"orderservice dlq show {letter.Id}");
            actions.Add($"orderservice dlq replay {letter.Id}   (after the cause is mended, or with --edited-body FILE)");
            actions.Add($"orderservice dlq discard {letter.Id} --because REASON");
        }
        if (orderId is not null)
        {
            actions.Add($"orderservice order show {orderId}");
        }
        return actions;
    }

    private static async Task<List<StoryEntry>> RestAsync(StoreConnection connection, List<HistoryLine> rows)
    {
        var entries = rows.Select(row => new StoryEntry(
            At(row.At), Kind(row.Kind), Title(row.Kind), row.Detail, null, row.Key, null, row.LetterId, null, null)).ToList();
        var letterIds = rows.Where(row => row.LetterId is not null).Select(row => row.LetterId!.Value).Distinct().Take(100).ToList();
        foreach (var letterId in letterIds)
        {
            var alert = await AlertsTable.FindAsync(connection, await LettersTable.AlertAsync(connection, letterId));
            if (alert is not null && !entries.Exists(entry => entry.AlertId == alert.Id))
            {
                entries.Add(new StoryEntry(At(alert.CreatedAt), "alert", $"Alert ({alert.Kind})", alert.Subject, null, null, null, letterId, alert.Id, null));
            }
        }
        return entries;
    }

    private static StoryEntry Entry(RecordedEvent recorded) => new(
        At(recorded.RecordedAt), "event", recorded.Type, Describe(recorded), recorded.Version, recorded.CausationId, recorded.CorrelationId, null, null, recorded);

    private static string Describe(RecordedEvent recorded) => EventSerializer.Read(recorded.Type, recorded.Data.Span) switch
    {
        OrderEvent.Placed placed => $"{placed.Lines.Count} line{(placed.Lines.Count == 1 ? "" : "s")}, {Money.Format(placed.TotalMinor, placed.Currency)} {placed.Currency}",
        OrderEvent.PaymentReceived payment => Describe(payment),
        OrderEvent.Paid paid => $"payment {paid.PaymentReference}{(paid.Amount is { } amount ? $", {amount.ToString(CultureInfo.InvariantCulture)}" : "")}",
        OrderEvent.Shipped shipped => Parcel(shipped.ShipmentId, shipped.Lines, shipped.Carrier, shipped.TrackingNumber),
        OrderEvent.PartlyShipped shipped => Parcel(shipped.ShipmentId, shipped.Lines, shipped.Carrier, shipped.TrackingNumber),
        OrderEvent.Delivered delivered => delivered.ShipmentId is { } last ? $"shipment {last}, the last" : "",
        OrderEvent.ShipmentDelivered delivered => $"shipment {delivered.ShipmentId}",
        OrderEvent.Cancelled cancelled => cancelled.Reason,
        OrderEvent.LinesCancelled cancelled => string.Create(CultureInfo.InvariantCulture, $"{Pieces(cancelled.Lines)}; {cancelled.Amount} less, {cancelled.Total} in all; {cancelled.Reason}"),
        OrderEvent.Returned returned => $"return {returned.ReturnId}: {Pieces(returned.Lines)}; {returned.Reason}",
        OrderEvent.Refunded refunded => string.Create(
            CultureInfo.InvariantCulture,
            $"refund {refunded.RefundReference}, {refunded.Amount}; {refunded.TotalRefunded} refunded{(refunded.PaymentReference is { } payment ? $", of payment {payment}" : "")}{(refunded.Reason is { } reason ? $"; {reason}" : "")}"),
        OrderEvent.PaymentAuthorized authorized => string.Create(
            CultureInfo.InvariantCulture, $"authorization {authorized.PaymentReference}, {authorized.Amount}; {authorized.TotalAuthorized} may be captured"),
        OrderEvent.Amended amended => $"{amended.Lines.Count} line{(amended.Lines.Count == 1 ? "" : "s")}, {Money.Format(amended.TotalMinor, amended.Currency)} {amended.Currency}",
        OrderEvent.Held held => held.Reason,
        OrderEvent.Released => "",
        _ => throw new UnreachableException($"{recorded.Type} is an event and is not described."),
    };

    private static string Parcel(string? shipmentId, IReadOnlyList<LineQuantity>? lines, string? carrier, string? trackingNumber) => string.Join(
        ' ', new[] { shipmentId is null ? null : $"shipment {shipmentId}:", lines is null ? null : lines.Count == 0 ? "nothing more" : Pieces(lines), carrier, trackingNumber }.Where(text => text is not null));

    private static string Pieces(IReadOnlyList<LineQuantity> lines) =>
        string.Join(", ", lines.Take(10).Select(line => string.Create(CultureInfo.InvariantCulture, $"{line.Quantity} of line {line.LineId}"))) + (lines.Count > 10 ? ", ..." : "");

    private static string Describe(OrderEvent.PaymentReceived payment) => string.Create(
        CultureInfo.InvariantCulture,
        $"payment {payment.PaymentReference}, {payment.Amount}; {payment.TotalPaid} paid, {payment.Due} due{(payment.Overpaid is { } overpaid ? $", {overpaid} overpaid" : "")}");

    /// <summary>What of the order's total is paid, where something is.</summary>
    private static string PaidOf(Order order)
    {
        if (order.Currency is not { } currency || order.PaidMinor == 0)
        {
            return "";
        }
        var rest = order.OverpaidMinor > 0 ? $"{Money.Format(order.OverpaidMinor, currency)} {currency} too much" : $"{Money.Format(order.DueMinor, currency)} {currency} due";
        var back = order.Progress is { RefundedMinor: > 0 and var refunded } ? $" {Money.Format(refunded, currency)} {currency} were refunded." : "";
        return $" {Money.Format(order.PaidMinor, currency)} of {Money.Format(order.TotalMinor, currency)} {currency} paid, {rest}.{back}";
    }

    /// <summary>What of the goods is not where it should be, where that is so.</summary>
    private static string GoodsOf(Order order)
    {
        var said = order.IsHeld ? $" It is held: {order.Progress?.HoldReason?.TrimEnd('.')}." : "";
        if (order.FulfillmentStatus is FulfillmentStatus.Unfulfilled or FulfillmentStatus.Fulfilled)
        {
            return said;
        }
        var goods = order.Goods;
        return string.Create(
            CultureInfo.InvariantCulture,
            $"{said} It is {order.FulfillmentStatus.ToWire().Replace('_', ' ')}: {goods.Sum(line => line.Shipped)} of {goods.Sum(line => line.Ordered - line.Cancelled)} pieces shipped, {goods.Sum(line => line.Open)} open, {goods.Sum(line => line.Returned)} returned.");
    }

    private static string Kind(string history) => history switch
    {
        "parked" or "superseded" or "replay_failed" => "dead_letter",
        "replayed" => "replay",
        "discarded" => "discard",
        "restored" => "restore",
        _ => history,
    };

    private static string Title(string history) => history switch
    {
        "duplicate" => "Another copy",
        "refused" => "Refused",
        "deferred" => "Waits for its order",
        "parked" => "Dead letter",
        "superseded" => "Dead letter without effect",
        "replay_failed" => "Replay failed",
        "replayed" => "Replayed",
        "discarded" => "Discarded",
        "restored" => "Restored",
        _ => history,
    };

    private static string Sentence(StoryEntry entry) =>
        $"{entry.At.ToUniversalTime().ToString("yyyy-MM-dd HH:mm:ss'Z'", CultureInfo.InvariantCulture)} {entry.Title}{(entry.Detail.Length == 0 ? "" : ": " + entry.Detail)}";

    private static string Time(long milliseconds) => At(milliseconds).ToString("yyyy-MM-dd HH:mm:ss'Z'", CultureInfo.InvariantCulture);

    private static DateTimeOffset At(long milliseconds) => DateTimeOffset.FromUnixTimeMilliseconds(milliseconds);
}

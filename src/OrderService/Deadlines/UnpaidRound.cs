using Microsoft.Extensions.Options;
using OrderService.Domain;
using OrderService.Inbox;
using OrderService.Outbox;
using OrderService.Projections;
using OrderService.RabbitMq;
using OrderService.Store;

namespace OrderService.Deadlines;

/// <summary>Sends a command to the queue and tells what became of it; null when there was no room for it, and then nothing was sent.</summary>
internal delegate Task<PublishOutcome?> SendCommand(OutgoingMessage message);

/// <summary>What a round did.</summary>
/// <param name="Sent">How many cancellations were sent.</param>
/// <param name="HasMore">It ended for its size; there may be more.</param>
internal sealed record UnpaidResult(int Sent, bool HasMore);

/// <summary>
/// Sends a cancellation for each order that was unpaid for too long, as any other program would: into the queue, behind what waits there, for the
/// version that was seen. What came first wins, and a cancellation that came too late is refused. Its key is derived from its bytes, and they from
/// the order and its version, so that copies, of other instances or of the time before a restart, have one effect.
/// </summary>
internal sealed partial class UnpaidRound(
    IDatabase database, SendCommand send, IOptions<OrdersOptions> options, StoreTime time, TimeProvider clock, ILogger<UnpaidRound> logger)
{
    /// <summary>The same for every order: subscribers may know it by that, and the bytes must not change from one round to the next.</summary>
    public const string Reason = "Not paid in time.";

    private const int LookedAtOnce = 500;
    private const int MostLooks = 10;
    private const int MostSent = 500;

    /// <summary>Less is drift, or the time an answer took.</summary>
    private static readonly TimeSpan Step = TimeSpan.FromSeconds(5);

    /// <summary>Of several instances one sends at a time. Two that did would only send copies.</summary>
    private static readonly TimeSpan Turn = TimeSpan.FromSeconds(5);

    private OldRow last = OldRow.First;
    private StoreMoment? moment;
    private TimeSpan ahead;

    /// <summary>Looks at a stretch of the orders, from where the last round ended, and sends what is due.</summary>
    public async Task<UnpaidResult> RunAsync(CancellationToken cancellationToken)
    {
        if (options.Value.CancelUnpaidAfter is not { } after)
        {
            return new UnpaidResult(0, false);
        }
        var now = await ReadClockAsync(cancellationToken);
        var before = (now - after - ahead).ToUnixTimeMilliseconds();
        var (sent, isMyTurn) = (0, false);
        for (var look = 0; look < MostLooks && sent < MostSent; look++)
        {
            // A stretch of its own each time: the writer of SQLite is not held up by a long read.
            var (due, stretch) = await database.ReadAsync(connection => LookAsync(connection, before), cancellationToken);
            if (stretch is null)
            {
                return new UnpaidResult(sent, false);
            }
            if (due.Count > 0 && !isMyTurn && !(isMyTurn = await TakeTurnAsync(now, after, cancellationToken)))
            {
                return new UnpaidResult(0, false);
            }
            foreach (var (order, message) in due)
            {
                cancellationToken.ThrowIfCancellationRequested();
                if (await send(message) is not PublishOutcome.Confirmed and var outcome)
                {
                    // The next round looks at it again. Should this one have arrived all the same, the other is a copy.
                    LogNotConfirmed(order.OrderId, outcome?.GetType().Name ?? "no place");
                    return Sent(sent, hasMore: false);
                }
                sent++;
                last = new OldRow(order.UpdatedAt, order.Seq);
            }
            last = stretch.IsEnd ? OldRow.First : stretch.Last;
            if (stretch.IsEnd)
            {
                return Sent(sent, hasMore: false);
            }
        }
        return Sent(sent, hasMore: true);
    }

    /// <returns>No stretch while intake is paused: the store knows of a pause before this process has looked.</returns>
    private async Task<(List<(OrderSummary Order, OutgoingMessage Message)> Due, UnpaidStretch? Stretch)> LookAsync(StoreConnection connection, long before)
    {
        if ((await IntakeTable.PausesAsync(connection)).Count > 0)
        {
            return ([], null);
        }
        var stretch = await UnpaidOrders.ReadAsync(connection, before, last, LookedAtOnce);
        var due = stretch.Orders.Select(order => (Order: order, Message: Cancellation(order))).ToList();
        if (due.Count > 0)
        {
            // One that was decided and left the order as it is became a dead letter that somebody discarded: that is an answer, too.
            var known = await InboxTable.FindAsync(connection, [.. due.Select(one => one.Message.MessageId)]);
            due.RemoveAll(one => known.ContainsKey(one.Message.MessageId));
        }
        return (due, stretch);
    }

    private OutgoingMessage Cancellation(OrderSummary order)
    {
        var body = CommandWriter.Write(new OrderCommand.Cancel(order.OrderId, Reason) { ExpectedVersion = order.Version });
        return new OutgoingMessage
        {
            Exchange = TopologyNames.OrdersIn,
            RoutingKey = TopologyNames.Orders,
            OrderId = order.OrderId,
            MessageId = EnvelopeDecoder.DerivedKey(EnvelopeDecoder.Fingerprint(CommandType.Cancel, body)),
            Type = CommandType.Cancel,
            AppId = "order-service",
            Timestamp = clock.GetUtcNow(),
            Body = body,
        };
    }

    /// <summary>The store's clock. What it was set forward by since this process began counts for nothing: no order is cancelled for it.</summary>
    private async Task<DateTimeOffset> ReadClockAsync(CancellationToken cancellationToken)
    {
        var read = await time.ReadAsync(database, cancellationToken);
        if (moment is { } known && read.StepSince(known, clock) is var step && step >= Step)
        {
            ahead += step;
        }
        moment = read;
        return read.At;
    }

    private Task<bool> TakeTurnAsync(DateTimeOffset now, TimeSpan after, CancellationToken cancellationToken) => database.WriteAsync(
        transaction => SchedulesTable.TakeTurnAsync(
            transaction, SchedulesTable.Unpaid, (now - (after < Turn ? after : Turn)).ToUnixTimeMilliseconds(), now.ToUnixTimeMilliseconds()),
        cancellationToken);

    private UnpaidResult Sent(int sent, bool hasMore)
    {
        if (sent > 0)
        {
            LogSent(sent);
        }
        return new UnpaidResult(sent, hasMore);
    }

    [LoggerMessage(LogLevel.Information, "Cancellations of {Count} unpaid orders were sent to the queue")]
    private partial void LogSent(int count);

    [LoggerMessage(LogLevel.Warning, "The cancellation of the unpaid order {OrderId} was not confirmed ({Outcome}); the next round tries it again")]
    private partial void LogNotConfirmed(string orderId, string outcome);
}

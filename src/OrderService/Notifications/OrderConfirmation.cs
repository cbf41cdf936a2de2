using System.Globalization;
using System.Text;
using Microsoft.Extensions.Options;
using MimeKit;
using OrderService.Database;
using OrderService.Domain;
using OrderService.Events;
using OrderService.Observability;
using OrderService.Store;

namespace OrderService.Notifications;

/// <summary>The mail that tells a customer that the order has arrived. Sent through the server of <c>Alerts:Email</c>.</summary>
public sealed class OrderConfirmationOptions
{
    public const string Section = "OrderConfirmation";

    public bool Enabled { get; init; }

    /// <summary>The shop's address; that of <c>Alerts:Email:From</c> when not set.</summary>
    public string? From { get; init; }

    /// <summary>The shop's name in the mail's subject and text.</summary>
    public string ShopName { get; init; } = "our shop";

    /// <summary>The pause after a mail that could not be sent; it doubles, with jitter, up to <see cref="MaxRetryDelay"/>. 10 ms to 1 hour.</summary>
    public TimeSpan RetryDelay { get; init; } = TimeSpan.FromSeconds(10);

    public TimeSpan MaxRetryDelay { get; init; } = TimeSpan.FromMinutes(15);

    /// <summary>A mail that could not be sent for this long is not tried any more; up to 30 days.</summary>
    public TimeSpan GiveUpAfter { get; init; } = TimeSpan.FromDays(3);
}

internal sealed class OrderConfirmationOptionsValidator(IOptions<AlertsOptions> alerts) : IValidateOptions<OrderConfirmationOptions>
{
    public ValidateOptionsResult Validate(string? name, OrderConfirmationOptions options)
    {
        if (!options.Enabled)
        {
            return ValidateOptionsResult.Success;
        }
        var problems = new List<string>();
        if (string.IsNullOrWhiteSpace(alerts.Value.Email.Host))
        {
            problems.Add("OrderConfirmation:Enabled needs the mail server of Alerts:Email:Host.");
        }
        else if (!alerts.Value.Email.Enabled)
        {
            // With it on, its own check says so.
            problems.AddRange(AlertsOptionsValidator.Server(alerts.Value.Email));
        }
        if (EmailChannel.ParseAddress(options.From ?? alerts.Value.Email.From) is null)
        {
            problems.Add("OrderConfirmation:From (or Alerts:Email:From) is not a mail address.");
        }
        if (options.RetryDelay < TimeSpan.FromMilliseconds(10) || options.RetryDelay > TimeSpan.FromHours(1))
        {
            problems.Add("OrderConfirmation:RetryDelay is from 00:00:00.010 to 01:00:00.");
        }
        if (options.MaxRetryDelay < options.RetryDelay || options.MaxRetryDelay > TimeSpan.FromDays(1))
        {
            problems.Add("OrderConfirmation:MaxRetryDelay is from OrderConfirmation:RetryDelay to 1.00:00:00.");
        }
        if (options.GiveUpAfter < options.MaxRetryDelay || options.GiveUpAfter > TimeSpan.FromDays(30))
        {
            problems.Add("OrderConfirmation:GiveUpAfter is from OrderConfirmation:MaxRetryDelay to 30.00:00:00.");
        }
        if (options.ShopName.Any(char.IsControl))
        {
            problems.Add("OrderConfirmation:ShopName has control characters.");
        }
        return problems.Count == 0 ? ValidateOptionsResult.Success : ValidateOptionsResult.Fail(problems);
    }
}

/// <summary>
/// A subscriber of the event bus that must not miss an order: the bus wakes it, the log tells what happened since its checkpoint, and each mail that is due stands in the store with its own
/// time for the next attempt. A mailbox that takes nothing for now holds up nobody else's mail, and a mail server that is away delays these mails and nothing else; a crash may send the
/// last one twice, with the same message id.
/// </summary>
/// <param name="isMine">Whether this instance writes the mails; one of several does.</param>
public sealed partial class OrderConfirmation(
    IDatabase database,
    EventQueries events,
    EventBus bus,
    Func<bool> isMine,
    IOptions<OrderConfirmationOptions> options,
    IOptions<AlertsOptions> alerts,
    Smtp smtp,
    Troubles troubles,
    StoreTime time,
    TimeProvider clock,
    ILogger<OrderConfirmation> logger) : BackgroundService
{
    private const string Reader = "order-confirmation";

    /// <summary>A checkpoint of its own for each mail that the store refused to write down while it took others: nothing else looks behind the reader's.</summary>
    private const string Behind = "order-confirmation:";
    private const string Trouble = "mail:customers";
    private const string TakeIn = "take in";
    private const string Note = "note";
    private const string Forget = "forget";
    private const int PageSize = 200;

    /// <summary>So many mails may wait; the log holds the rest.</summary>
    private const int MostWaiting = 10_000;

    /// <summary>So many mails that fail one after the other are the server's fault, whatever it says to each.</summary>
    private const int MostFailuresInARow = 3;

    private static readonly TimeSpan PollInterval = TimeSpan.FromSeconds(2);

    private readonly RefusedRows<(string Step, long Position)> refused = new("confirmations", "Mails to customers", troubles, clock, logger);

    /// <summary>Mails that left, or never will, and that the store refuses to take out.</summary>
    private readonly HashSet<long> done = [];

    /// <summary>When the server is asked again after it failed, and how often it failed in a row.</summary>
    private (long From, TimeSpan For, int Times)? serverPause;

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var wake = new SemaphoreSlim(0, 1);
        using var subscription = bus.Subscribe(Reader, 1, (_, _) =>
        {
            if (wake.CurrentCount == 0)
            {
                wake.Release();
            }
            return Task.CompletedTask;
        });
        try
        {
            while (true)
            {
                try
                {
                    while (isMine() && await TakeInAsync(stoppingToken))
                    {
                    }
                    if (isMine())
                    {
                        await SendDueAsync(stoppingToken);
                    }
                    else
                    {
                        // Another instance writes them now, and tells how it fares.
                        troubles.Clear(Trouble);
                    }
                    refused.Pass("look");
                }
                catch (Exception exception) when (!stoppingToken.IsCancellationRequested)
                {
                    // What was not written down is found behind the checkpoint, and what was not sent is still due.
                    LogFailed(exception.GetType().Name);
                    refused.Fail("look", exception);
                    await Task.Delay(options.Value.RetryDelay, clock, stoppingToken);
                }
                using var poll = new CancellationTokenSource(options.Value.RetryDelay < PollInterval ? options.Value.RetryDelay : PollInterval, clock);
                using var either = CancellationTokenSource.CreateLinkedTokenSource(poll.Token, stoppingToken);
                try
                {
                    await wake.WaitAsync(either.Token);
                }
                catch (OperationCanceledException) when (!stoppingToken.IsCancellationRequested)
                {
                    // Other instances' commits are not on this bus, and some mails are due again.
                }
            }
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // The process stops.
        }
    }

    /// <summary>Writes down which mails the next page of the log asks for.</summary>
    /// <returns>False when there is nothing more to take in for now.</returns>
    internal async Task<bool> TakeInAsync(CancellationToken cancellationToken)
    {
        await RetryUnwrittenAsync(cancellationToken);
        var checkpoint = await CheckpointAsync(cancellationToken);
        var page = await events.AfterAsync(checkpoint, PageSize, cancellationToken);
        if (page.Events.Count == 0 || await database.ReadAsync(OrderMailsTable.CountAsync, cancellationToken) >= MostWaiting)
        {
            return false;
        }
        var mails = page.Events.Where(recorded => recorded.Type == EventType.Placed && Recipient(recorded) is not null)
            .Select(recorded => (recorded.Position, recorded.OrderId)).ToList();
        if (mails.Count > 0 && mails.TrueForAll(mail => refused.IsResting((TakeIn, mail.Position))))
        {
            return false;
        }
        var written = await database.WriteAsync(async transaction =>
        {
            var taken = mails.Count == 0 ? [] : await refused.WriteAsync(transaction, mails, mail => (TakeIn, mail.Position), some => WriteAsync(transaction, some));
            if (mails.Count == 0 || taken.Count > 0)
            {
                await CheckpointsTable.AdvanceAsync(transaction, Reader, page.Events[^1].Position);
                foreach (var (position, _) in mails.Except(taken))
                {
                    // Others went through: it waits alone, for whichever process writes the mails then.
                    await CheckpointsTable.BeginAsync(transaction, BehindAt(position), position);
                }
            }
            return taken;
        }, cancellationToken);
        if (mails.Count > 0 && written.Count == 0)
        {
            // The store takes none: all wait behind the checkpoint.
            return false;
        }
        foreach (var (_, orderId) in mails.Except(written))
        {
            LogUnwritten(orderId);
        }
        return page.MayHaveMore;
    }

    private static string BehindAt(long position) => string.Create(CultureInfo.InvariantCulture, $"{Behind}{position}");

    private async Task RetryUnwrittenAsync(CancellationToken cancellationToken)
    {
        var left = await database.ReadAsync(connection => CheckpointsTable.PositionsAsync(connection, Behind), cancellationToken);
        var mails = new List<(long Position, string OrderId)>();
        foreach (var position in left.Where(position => !refused.IsResting((TakeIn, position))).Take(PageSize))
        {
            mails.AddRange((await events.AfterAsync(position - 1, 1, cancellationToken)).Events.Where(recorded => recorded.Position == position).Select(recorded => (position, recorded.OrderId)));
        }
        if (mails.Count == 0)
        {
            return;
        }
        await database.WriteAsync(
            transaction => refused.WriteAsync(transaction, mails, mail => (TakeIn, mail.Position), async some =>
            {
                await WriteAsync(transaction, some);
                foreach (var (position, _) in some)
                {
                    await CheckpointsTable.RemoveAsync(transaction, BehindAt(position));
                }
                return some;
            }), cancellationToken);
    }

    private async Task<IReadOnlyList<(long Position, string OrderId)>> WriteAsync(StoreTransaction transaction, IReadOnlyList<(long Position, string OrderId)> mails)
    {
        foreach (var (position, orderId) in mails)
        {
            await OrderMailsTable.AddAsync(transaction, position, orderId, time.Now());
        }
        return mails;
    }

    /// <summary>Tries every mail that is due, until the server fails.</summary>
    internal async Task SendDueAsync(CancellationToken cancellationToken)
    {
        if (serverPause is { } pause && clock.GetElapsedTime(pause.From) < pause.For)
        {
            return;
        }
        var failures = 0;
        var last = (NextAttemptAt: long.MinValue, Position: 0L);
        while (await DueAsync(last, cancellationToken) is { Count: > 0 } due)
        {
            last = (due[^1].NextAttemptAt, due[^1].Position);
            foreach (var mail in due)
            {
                if (done.Contains(mail.Position))
                {
                    await ForgetAsync(mail, cancellationToken);
                    continue;
                }
                if (refused.IsResting((Note, mail.Position)))
                {
                    continue;
                }
                var (isDone, isOfServer) = await TryAsync(mail, cancellationToken);
                failures = isDone ? 0 : failures + 1;
                if (isOfServer || failures == MostFailuresInARow)
                {
                    var times = (serverPause?.Times ?? 0) + 1;
                    serverPause = (clock.GetTimestamp(), Backoff.Pause(times, options.Value.RetryDelay, options.Value.MaxRetryDelay), times);
                    return;
                }
            }
        }
    }

    /// <param name="last">The last one of the page before: what stays behind is passed over.</param>
    private Task<List<OrderMail>> DueAsync((long NextAttemptAt, long Position) last, CancellationToken cancellationToken)
    {
        var now = time.Now();
        return database.ReadAsync(
            connection => OrderMailsTable.DueAsync(connection, now, now + (long)(options.Value.MaxRetryDelay + TimeSpan.FromMinutes(1)).TotalMilliseconds, last), cancellationToken);
    }

    private async Task<(bool IsDone, bool IsOfServer)> TryAsync(OrderMail mail, CancellationToken cancellationToken)
    {
        var recorded = (await events.AfterAsync(mail.Position - 1, 1, cancellationToken)).Events.FirstOrDefault(recorded => recorded.Position == mail.Position);
        if (recorded is null || Recipient(recorded) is not { } recipient)
        {
            await ForgetAsync(mail, cancellationToken);
            return (true, false);
        }
        using var message = Compose(recorded, (OrderEvent.Placed)EventSerializer.Read(recorded.Type, recorded.Data.Span), recipient);
        var outcome = await smtp.SendAsync(message, [recipient], alerts.Value.Email, cancellationToken);
        // The server's text may quote the address: none of it is written anywhere.
        switch (outcome.Recipients[recipient.Address].Fate)
        {
            case RecipientFate.Taken:
                await ForgetAsync(mail, CancellationToken.None);
                serverPause = null;
                troubles.Clear(Trouble);
                LogSent(mail.OrderId);
                return (true, false);
            case RecipientFate.Refused:
                await ForgetAsync(mail, CancellationToken.None);
                LogRefused(mail.OrderId);
                return (true, false);
        }
        if (outcome.IsOfServer || serverPause is { Times: > 1 })
        {
            troubles.Raise(new Trouble(
                Trouble, TroubleLevel.Degraded, "Customers get no mail", $"The mail server {alerts.Value.Email.Host} takes no confirmations of orders: {(outcome.IsOfServer ? outcome.Trouble : "it refuses one after the other")}.",
                $"Look at the mail server (Alerts:Email); each mail is tried again for {options.Value.GiveUpAfter:c}.") { Patience = TimeSpan.FromMinutes(5) });
        }
        if (time.GetUtcNow() - DateTimeOffset.FromUnixTimeMilliseconds(mail.BegunAt) >= options.Value.GiveUpAfter)
        {
            await ForgetAsync(mail, cancellationToken);
            LogGivenUp(mail.OrderId, mail.Attempts + 1);
            return (false, outcome.IsOfServer);
        }
        var wait = Backoff.Pause(mail.Attempts + 1, options.Value.RetryDelay, options.Value.MaxRetryDelay);
        await database.WriteAsync(
            transaction => refused.WriteAsync(transaction, [mail], _ => (Note, mail.Position), async some =>
            {
                await OrderMailsTable.PostponeAsync(transaction, mail.Position, time.Now() + (long)wait.TotalMilliseconds);
                return some;
            }),
            cancellationToken);
        LogWaiting(mail.OrderId, (int)wait.TotalSeconds);
        return (false, outcome.IsOfServer);
    }

    /// <summary>Takes out a mail that left or never will. Where the store refuses that, it is not sent again for it.</summary>
    private async Task ForgetAsync(OrderMail mail, CancellationToken cancellationToken)
    {
        done.Add(mail.Position);
        if (refused.IsResting((Forget, mail.Position)))
        {
            return;
        }
        var forgotten = await database.WriteAsync(
            transaction => refused.WriteAsync(transaction, [mail], _ => (Forget, mail.Position), async some =>
            {
                await OrderMailsTable.RemoveAsync(transaction, mail.Position);
                return some;
            }),
            cancellationToken);
        if (forgotten.Count > 0)
        {
            done.Remove(mail.Position);
        }
    }

    private MailboxAddress? Recipient(RecordedEvent recorded) =>
        EventSerializer.Read(recorded.Type, recorded.Data.Span, database.Keys.Open) is OrderEvent.Placed { Personal.Email: { } email } ? EmailChannel.ParseAddress(email) : null;

    private MimeMessage Compose(RecordedEvent recorded, OrderEvent.Placed placed, MailboxAddress recipient)
    {
        var text = new StringBuilder()
            .AppendLine(CultureInfo.InvariantCulture, $"Thank you for your order {recorded.OrderId} at {options.Value.ShopName}.")
            .AppendLine();
        foreach (var line in OrderSum.Of(placed))
        {
            text.AppendLine(line);
        }
        var message = new MimeMessage
        {
            Subject = $"Your order {recorded.OrderId} at {options.Value.ShopName}",
            Date = DateTimeOffset.FromUnixTimeMilliseconds(recorded.RecordedAt),
            MessageId = $"{recorded.EventId}@orderservice.invalid",
            Body = new TextPart("plain") { Text = text.ToString() },
        };
        message.From.Add(EmailChannel.ParseAddress(options.Value.From ?? alerts.Value.Email.From)!);
        message.To.Add(recipient);
        message.Headers.Add("Auto-Submitted", "auto-generated");
        return message;
    }

    /// <summary>Where to go on. Customers of orders from before the mails were switched on are not written to: the first start begins at the end of the log.</summary>
    private async Task<long> CheckpointAsync(CancellationToken cancellationToken)
    {
        var known = await database.ReadAsync(connection => CheckpointsTable.PositionAsync(connection, Reader), cancellationToken);
        if (known is not null)
        {
            return known.Value;
        }
        await database.WriteAsync(transaction => CheckpointsTable.BeginAtEndAsync(transaction, Reader), cancellationToken);
        return await CheckpointAsync(cancellationToken);
    }

    [LoggerMessage(LogLevel.Information, "The customer of order {OrderId} was told of it")]
    private partial void LogSent(string orderId);

    [LoggerMessage(LogLevel.Warning, "The mail server refused the confirmation of order {OrderId}; it is not tried again")]
    private partial void LogRefused(string orderId);

    [LoggerMessage(LogLevel.Warning, "The confirmation of order {OrderId} was not taken; the next attempt is in {Seconds} s")]
    private partial void LogWaiting(string orderId, int seconds);

    [LoggerMessage(LogLevel.Error, "The confirmation of order {OrderId} was not taken in {Attempts} attempts and is given up")]
    private partial void LogGivenUp(string orderId, long attempts);

    [LoggerMessage(LogLevel.Error, "The store does not take the note that the customer of order {OrderId} is to be told of it; it waits alone and is tried again")]
    private partial void LogUnwritten(string orderId);

    [LoggerMessage(LogLevel.Warning, "Order confirmations stopped for a moment: {Reason}")]
    private partial void LogFailed(string reason);
}

using System.Globalization;
using System.Text;
using Dapper;
using Microsoft.Extensions.Options;
using MimeKit;
using OrderService.Database;
using OrderService.Domain;
using OrderService.Events;
using OrderService.EventStore;

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

    /// <summary>The pause after a mail that could not be sent.</summary>
    public TimeSpan RetryDelay { get; init; } = TimeSpan.FromSeconds(10);
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
        if (EmailChannel.ParseAddress(options.From ?? alerts.Value.Email.From) is null)
        {
            problems.Add("OrderConfirmation:From (or Alerts:Email:From) is not a mail address.");
        }
        if (options.ShopName.Any(char.IsControl))
        {
            problems.Add("OrderConfirmation:ShopName has control characters.");
        }
        return problems.Count == 0 ? ValidateOptionsResult.Success : ValidateOptionsResult.Fail(problems);
    }
}

/// <summary>
/// A subscriber of the event bus that must not miss an order: the bus wakes it, the log tells what happened since its checkpoint.
/// A mail server that is away delays these mails and nothing else; a crash may send the last one twice, with the same message id.
/// </summary>
/// <param name="isMine">Whether this instance writes the mails; one of several does.</param>
public sealed partial class OrderConfirmation(
    IDatabase database,
    EventQueries events,
    EventBus bus,
    Func<bool> isMine,
    IOptions<OrderConfirmationOptions> options,
    IOptions<AlertsOptions> alerts,
    TimeProvider clock,
    ILogger<OrderConfirmation> logger) : BackgroundService
{
    private const string Reader = "order-confirmation";
    private const int PageSize = 200;

    private static readonly TimeSpan PollInterval = TimeSpan.FromSeconds(2);

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
                    while (isMine() && await SendNextAsync(stoppingToken))
                    {
                    }
                }
                catch (Exception exception) when (!stoppingToken.IsCancellationRequested)
                {
                    // The checkpoint stays before what was not sent.
                    LogFailed(exception.GetType().Name);
                    await Task.Delay(options.Value.RetryDelay, clock, stoppingToken);
                }
                using var poll = new CancellationTokenSource(PollInterval, clock);
                using var either = CancellationTokenSource.CreateLinkedTokenSource(poll.Token, stoppingToken);
                try
                {
                    await wake.WaitAsync(either.Token);
                }
                catch (OperationCanceledException) when (!stoppingToken.IsCancellationRequested)
                {
                    // Other instances' commits are not on this bus.
                }
            }
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // The process stops.
        }
    }

    /// <summary>Sends the mails of the next page of the log.</summary>
    /// <returns>False when the end of the log was reached.</returns>
    internal async Task<bool> SendNextAsync(CancellationToken cancellationToken)
    {
        var checkpoint = await CheckpointAsync(cancellationToken);
        var page = await events.AfterAsync(checkpoint, PageSize, cancellationToken);
        foreach (var recorded in page)
        {
            if (recorded.Type == EventType.Placed
                && EventSerializer.Read(recorded.Type, recorded.Data.Span) is OrderEvent.Placed { Email: { } email } placed
                && EmailChannel.ParseAddress(email) is { } recipient)
            {
                await SendAsync(recorded, placed, recipient, cancellationToken);
                await AdvanceAsync(recorded.Position, cancellationToken);
            }
        }
        if (page.Count > 0)
        {
            await AdvanceAsync(page[^1].Position, cancellationToken);
        }
        return page.Count == PageSize;
    }

    private async Task SendAsync(RecordedEvent recorded, OrderEvent.Placed placed, MailboxAddress recipient, CancellationToken cancellationToken)
    {
        using var message = Compose(recorded, placed, recipient);
        while (true)
        {
            switch (await Smtp.SendAsync(message, alerts.Value.Email, clock, cancellationToken))
            {
                case ChannelAnswer.Sent:
                    LogSent(recorded.OrderId);
                    return;
                case ChannelAnswer.Refused:
                    // The address is wrong; the next customer's mail must not wait for it. The server's text may quote the address.
                    LogRefused(recorded.OrderId);
                    return;
                default:
                    LogWaiting(recorded.OrderId);
                    await Task.Delay(options.Value.RetryDelay, clock, cancellationToken);
                    break;
            }
        }
    }

    private MimeMessage Compose(RecordedEvent recorded, OrderEvent.Placed placed, MailboxAddress recipient)
    {
        var text = new StringBuilder()
            .AppendLine(CultureInfo.InvariantCulture, $"Thank you for your order {recorded.OrderId} at {options.Value.ShopName}.")
            .AppendLine();
        foreach (var line in placed.Lines)
        {
            text.AppendLine(CultureInfo.InvariantCulture, $"  {line.Quantity} x {line.Sku}  {Money.ToDecimal(line.UnitPriceMinor, placed.Currency)} {placed.Currency.Code}");
        }
        text.AppendLine().AppendLine(CultureInfo.InvariantCulture, $"Total: {Money.ToDecimal(placed.TotalMinor, placed.Currency)} {placed.Currency.Code}");
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
        var known = await database.ReadAsync(
            connection => connection.ExecuteScalarAsync<long?>("SELECT position FROM checkpoints WHERE reader = @Reader", new { Reader }), cancellationToken);
        if (known is not null)
        {
            return known.Value;
        }
        await database.WriteAsync(
            transaction => transaction.Connection!.ExecuteAsync(
                "INSERT INTO checkpoints (reader, position) SELECT @Reader, coalesce(max(position), 0) FROM events WHERE true ON CONFLICT (reader) DO NOTHING",
                new { Reader }, transaction),
            cancellationToken);
        return await CheckpointAsync(cancellationToken);
    }

    private Task AdvanceAsync(long position, CancellationToken cancellationToken) =>
        database.WriteAsync(
            transaction => transaction.Connection!.ExecuteAsync(
                "UPDATE checkpoints SET position = @position WHERE reader = @Reader AND position < @position", new { Reader, position }, transaction),
            cancellationToken);

    [LoggerMessage(LogLevel.Information, "The customer of order {OrderId} was told of it")]
    private partial void LogSent(string orderId);

    [LoggerMessage(LogLevel.Warning, "The mail server refused the confirmation of order {OrderId}; it is not tried again")]
    private partial void LogRefused(string orderId);

    [LoggerMessage(LogLevel.Warning, "The confirmation of order {OrderId} waits for the mail server")]
    private partial void LogWaiting(string orderId);

    [LoggerMessage(LogLevel.Warning, "Order confirmations stopped for a moment: {Reason}")]
    private partial void LogFailed(string reason);
}

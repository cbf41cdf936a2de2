using System.Globalization;
using Microsoft.Extensions.Options;
using OrderService.Database;
using OrderService.Domain;
using OrderService.Observability;
using OrderService.Store;

namespace OrderService.Notifications;

/// <summary>
/// Tells of payments that orders did not take: somebody has paid, and the money belongs to no order. The first is told of at once, what
/// follows in one alert for each interval. The refusal and the note of it are one transaction, so a crash in between leaves nothing untold.
/// </summary>
public sealed partial class RefusedPaymentAlerts(
    IDatabase database, IOptions<AlertsOptions> options, Troubles troubles, TimeProvider clock, ILogger<RefusedPaymentAlerts> logger) : BackgroundService
{
    private const int PageSize = 500;
    private const int MostOrderIds = 10;

    private readonly RefusedRows<long> refused = new("refused-payments", "Alerts about refused payments", troubles, clock, logger);

    protected override Task ExecuteAsync(CancellationToken stoppingToken)
    {
        return PeriodicLoop.AtOnceAsync(options.Value.PollInterval, clock, LookAsync, stoppingToken, failed: exception =>
        {
            // Nothing is lost: a refusal without an alert is found at the next tick.
            LogTellingFailed(exception.Message);
            refused.Fail("tell", exception);
        });

        async Task LookAsync(CancellationToken cancellationToken)
        {
            await TellAsync(cancellationToken);
            refused.Pass("tell");
        }
    }

    /// <summary>Writes one alert for all refusals that none tells of yet, where the last such alert is an interval old.</summary>
    /// <returns>The alert's number; null when none is due.</returns>
    internal async Task<long?> TellAsync(CancellationToken cancellationToken)
    {
        var now = clock.GetUtcNow();
        if (options.Value.QuietHours.HoldFirst(now)
            || !await database.ReadAsync(connection => RefusedPaymentsTable.AnyUntoldAsync(connection, refused.Resting), cancellationToken))
        {
            return null;
        }

        return await database.WriteAsync(async transaction =>
        {
            var (at, before) = (now.ToUnixTimeMilliseconds(), (now - options.Value.DigestInterval).ToUnixTimeMilliseconds());
            // A time that lies ahead must not silence the alerts.
            var isOurs = await SchedulesTable.TakeTurnAsync(transaction, SchedulesTable.Payments, before, at);
            var alertId = isOurs ? await WriteAsync(transaction, now) : null;
            if (isOurs && alertId is null)
            {
                // Nobody was told: the turn is not used up.
                await SchedulesTable.SetAsync(transaction, SchedulesTable.Payments, before);
            }
            return alertId;
        }, cancellationToken);
    }

    /// <returns>The alert's number; null when there is nothing to tell of, or nothing that the store takes.</returns>
    private async Task<long?> WriteAsync(StoreTransaction transaction, DateTimeOffset now)
    {
        var untold = await RefusedPaymentsTable.UntoldAsync(transaction, refused.Resting);
        if (untold.Count == 0)
        {
            return null;
        }
        var alertId = await AlertsTable.AddAsync(transaction, new AlertContent { Kind = AlertKind.First, Subject = "", Summary = "" }, null, now);
        // First the refusals are taken, then counted: what is said is what is covered.
        var told = 0;
        foreach (var page in untold.Chunk(PageSize))
        {
            var taken = await refused.WriteAsync(transaction, page, static id => id, async some =>
            {
                await RefusedPaymentsTable.CoverAsync(transaction, some, alertId);
                return some;
            });
            told += taken.Count;
            if (taken.Count < page.Length)
            {
                // Enough attempts for one transaction: the next alert tells of the rest.
                break;
            }
        }
        if (told == 0)
        {
            await AlertsTable.RemoveAsync(transaction, alertId);
            return null;
        }
        var codes = await RefusedPaymentsTable.CodesAsync(transaction, alertId);
        var first = await RefusedPaymentsTable.GetAsync(transaction, codes.Min(code => code.FirstId));
        var orderIds = await RefusedPaymentsTable.OrderIdsAsync(transaction, alertId, MostOrderIds);
        await AlertsTable.FillAsync(transaction, alertId, Content(codes, first, orderIds));
        return alertId;
    }

    private AlertContent Content(List<RefusedCode> codes, RefusedPaymentRow first, List<string> orderIds)
    {
        var payments = codes.Sum(code => code.Payments);
        var amount = first.Amount is null ? "" : $" of {first.Amount} {first.Currency}".TrimEnd();
        var what = payments == 1
            ? $"A payment{amount} for order {first.OrderId} was refused: {Why(first.Code)}"
            : $"{payments.ToString("N0", CultureInfo.InvariantCulture)} payments were refused, the first{amount} for order {first.OrderId}: {Why(first.Code)}";
        var kinds = string.Join(", ", codes.Select(code => $"{code.Payments.ToString("N0", CultureInfo.InvariantCulture)} because {Why(code.Code)}"));
        return new AlertContent
        {
            Kind = AlertKind.First,
            Subject = what,
            Summary = payments == 1 ? $"{what}. Whoever paid may be out of pocket." : $"{payments.ToString("N0", CultureInfo.InvariantCulture)} payments were refused: {kinds}. Those who paid may be out of pocket.",
            Advice = $"Look at the order and give the money back, or mend what sent it: orderservice why {first.OrderId}",
            OrderIds = orderIds,
            Link = string.IsNullOrEmpty(options.Value.PageUrl) ? null : $"{options.Value.PageUrl.TrimEnd('/')}/#/orders/{first.OrderId}",
        };
    }

    private static string Why(string code) => code switch
    {
        RefusalCode.WrongStatus => "the order is cancelled",
        RefusalCode.PaymentConflict => "the order has a payment of the same reference with another amount",
        RefusalCode.AmountPrecision => "the amount has more decimals than the order's currency",
        RefusalCode.AmountOutOfRange => "the amounts are larger than any order may cost",
        RefusalCode.VersionConflict => "the order was at another version than its sender had seen",
        RefusalCode.AuthorizationUnknown => "the order has no such authorization",
        RefusalCode.CaptureExceedsAuthorization => "more was taken than was authorized",
        _ => code,
    };

    [LoggerMessage(LogLevel.Warning, "The alert about refused payments could not be written and is tried again: {Reason}")]
    private partial void LogTellingFailed(string reason);
}

namespace OrderService.Domain;

/// <summary>What may happen to the money of an order: never more is captured than was authorized, never more refunded than was paid.</summary>
internal static class MoneyRules
{
    public static Decision Pay(Order order, OrderCommand.Pay pay)
    {
        var (payments, currency) = Known(order);
        if (!Minor(pay.Amount, currency, out var given, out var fault))
        {
            return fault;
        }

        // Before the status: the same payment told once more is no news, even to an order that was cancelled since.
        if (payments.TryGetValue(pay.PaymentReference, out var known))
        {
            return Again(given, known);
        }

        if (order.Status == OrderStatus.Cancelled)
        {
            return OrderDecider.WrongStatus(order, pay, NotCancelled);
        }

        var authorization = order.Progress?.Authorized.ContainsKey(pay.PaymentReference) == true ? pay.PaymentReference : null;
        return Received(order, pay.PaymentReference, given ?? order.DueMinor, currency, authorization);
    }

    public static Decision Authorize(Order order, OrderCommand.Authorize authorize)
    {
        var (payments, currency) = Known(order);
        if (!Minor(authorize.Amount, currency, out var given, out var fault))
        {
            return fault;
        }

        var amountMinor = given ?? 0;
        if (order.Progress is { } progress && progress.Authorized.TryGetValue(authorize.PaymentReference, out var known))
        {
            return known == amountMinor
                ? new Decision.AlreadyDone("This authorization of the order was recorded before.")
                : new Decision.Refused(RefusalCode.PaymentConflict, "The order has an authorization of this reference with another amount.");
        }

        if (payments.ContainsKey(authorize.PaymentReference))
        {
            return new Decision.Refused(RefusalCode.PaymentConflict, "The order has a payment of this reference already.");
        }

        if (order.Status == OrderStatus.Cancelled)
        {
            return OrderDecider.WrongStatus(order, authorize, NotCancelled);
        }

        var sum = (order.Progress?.AuthorizedMinor ?? 0) + amountMinor;
        return sum > Money.MaxMinor
            ? TooMuch
            : new Decision.Accepted(new OrderEvent.PaymentAuthorized(authorize.PaymentReference, Money.ToDecimal(amountMinor, currency), Money.ToDecimal(sum, currency)));
    }

    public static Decision Capture(Order order, OrderCommand.Capture capture)
    {
        var (payments, currency) = Known(order);
        if (!Minor(capture.Amount, currency, out var given, out var fault))
        {
            return fault;
        }

        var reference = capture.CaptureReference ?? capture.PaymentReference;
        if (payments.TryGetValue(reference, out var known))
        {
            return Again(given, known);
        }

        if (order.Progress is not { } progress || !progress.Authorized.TryGetValue(capture.PaymentReference, out var authorized))
        {
            return new Decision.Refused(RefusalCode.AuthorizationUnknown, "The order has no authorization of this paymentReference.");
        }

        if (order.Status == OrderStatus.Cancelled)
        {
            return OrderDecider.WrongStatus(order, capture, NotCancelled);
        }

        var captured = progress.Captured.GetValueOrDefault(capture.PaymentReference);
        var open = Math.Max(0, authorized - captured);
        var amountMinor = given ?? open;
        return amountMinor > open || open == 0
            ? new Decision.Refused(
                RefusalCode.CaptureExceedsAuthorization,
                $"At most {Text(open, currency)} can be captured ({Money.Format(authorized, currency)} authorized, {Money.Format(captured, currency)} captured before); {Money.Format(amountMinor, currency)} was asked for.")
            : Received(order, reference, amountMinor, currency, capture.PaymentReference);
    }

    public static Decision Refund(Order order, OrderCommand.Refund refund)
    {
        var (payments, currency) = Known(order);
        if (!Minor(refund.Amount, currency, out var given, out var fault))
        {
            return fault;
        }

        var amountMinor = given ?? 0;
        var refunds = order.Progress?.Refunds ?? [];
        if (refunds.Find(known => known.RefundReference == refund.RefundReference) is { } known)
        {
            return known.AmountMinor == amountMinor
                ? new Decision.AlreadyDone("This refund of the order was recorded before.")
                : new Decision.Refused(RefusalCode.RefundConflict, "The order has a refund of this refundReference with another amount.");
        }

        var (paid, back) = (order.PaidMinor, order.Progress?.RefundedMinor ?? 0);
        if (refund.PaymentReference is { } reference)
        {
            if (!payments.TryGetValue(reference, out var payment))
            {
                return new Decision.Refused(RefusalCode.PaymentUnknown, "The order has no payment of this paymentReference.");
            }

            var ofPayment = refunds.Where(known => known.PaymentReference == reference).Sum(known => known.AmountMinor);
            if (amountMinor > payment - ofPayment)
            {
                (paid, back) = (payment, ofPayment);
            }
        }

        return amountMinor > paid - back
            ? new Decision.Refused(
                RefusalCode.RefundExceedsPaid,
                $"At most {Text(paid - back, currency)} can be refunded ({Money.Format(paid, currency)} paid, {Money.Format(back, currency)} refunded before); {Money.Format(amountMinor, currency)} was asked for.")
            : new Decision.Accepted(new OrderEvent.Refunded(
                refund.RefundReference, Money.ToDecimal(amountMinor, currency), Money.ToDecimal((order.Progress?.RefundedMinor ?? 0) + amountMinor, currency), refund.PaymentReference, refund.Reason));
    }

    /// <summary>The event that says an order is paid, when a lower total makes it so.</summary>
    public static OrderEvent? PaidBy(Order order, long totalMinor) => !order.IsPaid && order.PaymentReference is { } last && order.PaidMinor >= totalMinor
        ? new OrderEvent.Paid(last, null)
        : null;

    private const string NotCancelled = "an order that is not cancelled";

    private static readonly Decision.Refused TooMuch = new(RefusalCode.AmountOutOfRange, "The payments would add up to more than any order may cost.");

    private static Decision Received(Order order, string reference, long amountMinor, Currency currency, string? authorization)
    {
        // Both are at most Money.MaxMinor, so the sum does not overflow.
        var paidMinor = order.PaidMinor + amountMinor;
        if (paidMinor > Money.MaxMinor)
        {
            return TooMuch;
        }

        var amount = Money.ToDecimal(amountMinor, currency);
        var open = order.TotalMinor - paidMinor;
        return new Decision.Accepted(
            new OrderEvent.PaymentReceived(
                reference, amount, Money.ToDecimal(paidMinor, currency), Money.ToDecimal(Math.Max(0, open), currency),
                open < 0 ? Money.ToDecimal(-open, currency) : null) { Authorization = authorization },
            open <= 0 && !order.IsPaid ? new OrderEvent.Paid(reference, amount) : null);
    }

    private static Decision Again(long? given, long known) => given is null || given == known
        ? new Decision.AlreadyDone("This payment of the order was recorded before.")
        : new Decision.Refused(RefusalCode.PaymentConflict, "The order has a payment of this reference with another amount.");

    private static (System.Collections.Immutable.ImmutableDictionary<string, long> Payments, Currency Currency) Known(Order order) =>
        order.Payments is { } payments && order.Currency is { } currency
            ? (payments, currency)
            : throw new InvalidOperationException("A payment is decided upon an order whose payments were not read.");

    // A payment need not name its currency, so only the order can tell whether the amount has too many decimals.
    private static bool Minor(decimal? amount, Currency currency, out long? minor, [System.Diagnostics.CodeAnalysis.NotNullWhen(false)] out Decision.Refused? fault)
    {
        minor = null;
        fault = null;
        if (amount is not { } given)
        {
            return true;
        }

        if (Money.TryToMinor(given, currency, out var read))
        {
            minor = read;
            return true;
        }

        fault = given.Scale > currency.Decimals && decimal.Round(given, currency.Decimals) != given
            ? new Decision.Refused(
                RefusalCode.AmountPrecision, $"The amount has more decimals than the {currency.Decimals} of the order's currency {currency.Code}.")
            : new Decision.Refused(RefusalCode.AmountOutOfRange, "The amount is larger than any order may cost.");
        return false;
    }

    private static string Text(long minor, Currency currency) => $"{Money.Format(minor, currency)} {currency.Code}";
}

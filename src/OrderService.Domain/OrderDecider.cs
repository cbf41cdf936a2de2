namespace OrderService.Domain;

/// <summary>What an operator may choose about orders.</summary>
/// <param name="RequirePaymentBeforeShipping">True when an order that is not paid must not be shipped.</param>
public sealed record OrderRules(bool RequirePaymentBeforeShipping)
{
    /// <summary>Unpaid orders may be shipped.</summary>
    public static OrderRules Default { get; } = new(RequirePaymentBeforeShipping: false);
}

/// <summary>The answer to a command. There is no fifth one.</summary>
public abstract record Decision
{
    private Decision() { }

    /// <summary>The command is done by appending this event.</summary>
    /// <param name="Then">A second event that follows from the first: the payment that reaches the total also pays the order.</param>
    public sealed record Accepted(OrderEvent Event, OrderEvent? Then = null) : Decision;

    /// <summary>What the command wants stands already, said by another message: nothing is appended.</summary>
    /// <param name="Reason">A plain sentence without personal data.</param>
    public sealed record AlreadyDone(string Reason) : Decision;

    /// <summary>The order's state does not allow the command.</summary>
    /// <param name="Code">One of <see cref="RefusalCode"/>.</param>
    /// <param name="Reason">A plain sentence without personal data.</param>
    public sealed record Refused(string Code, string Reason) : Decision;

    /// <summary>The order does not exist (yet): the command came early, or names the wrong order.</summary>
    public sealed record OrderUnknown : Decision
    {
        public static OrderUnknown Instance { get; } = new();
    }
}

/// <summary>Why a command is refused: stable strings, published in <c>ORDER_COMMAND_REFUSED</c>.</summary>
public static class RefusalCode
{
    public const string AlreadyPlaced = "already-placed";
    public const string WrongStatus = "wrong-status";
    public const string PaymentRequired = "payment-required";
    public const string AmountPrecision = "amount-precision";
    public const string AmountOutOfRange = "amount-out-of-range";
    public const string PaymentConflict = "payment-conflict";

    /// <summary>The order was closed, and what is kept of it is that it was there.</summary>
    public const string OrderArchived = "order-archived";
}

/// <summary>The rules of an order's life: the switch is the transition table.</summary>
public static class OrderDecider
{
    public static Decision Decide(Order order, OrderCommand command, OrderRules rules)
    {
        ArgumentNullException.ThrowIfNull(order);
        ArgumentNullException.ThrowIfNull(command);
        ArgumentNullException.ThrowIfNull(rules);

        return (command, order.Status) switch
        {
            (OrderCommand.Place place, OrderStatus.None) => Place(place),
            (OrderCommand.Place, _) => new Decision.Refused(RefusalCode.AlreadyPlaced, "There is an order with this id already."),

            (_, OrderStatus.None) => Decision.OrderUnknown.Instance,

            (OrderCommand.Pay pay, _) => Pay(order, pay),

            (OrderCommand.Ship, OrderStatus.Placed) when rules.RequirePaymentBeforeShipping && order.TotalMinor > 0 =>
                new Decision.Refused(RefusalCode.PaymentRequired, "The order is not paid in full, and only paid orders are shipped here."),
            (OrderCommand.Ship ship, OrderStatus.Placed or OrderStatus.Paid) =>
                new Decision.Accepted(new OrderEvent.Shipped(ship.Carrier, ship.TrackingNumber)),
            (OrderCommand.Ship, _) => WrongStatus(order, command, "an order that is placed or paid"),

            (OrderCommand.Deliver, OrderStatus.Shipped) => new Decision.Accepted(new OrderEvent.Delivered()),
            (OrderCommand.Deliver, _) => WrongStatus(order, command, "an order that is shipped"),

            (OrderCommand.Cancel cancel, OrderStatus.Placed or OrderStatus.Paid) =>
                new Decision.Accepted(new OrderEvent.Cancelled(cancel.Reason)),
            (OrderCommand.Cancel, _) => WrongStatus(order, command, "an order that is placed or paid"),

            _ => throw new ArgumentOutOfRangeException(nameof(command), "There is no such command."),
        };
    }

    private static Decision Place(OrderCommand.Place place) => Money.TryTotal(place.Lines, out var total)
        ? new Decision.Accepted(
            new OrderEvent.Placed(place.CustomerId, place.Currency, place.Lines, total, place.Email, place.PlacedAt))
        : new Decision.Refused(RefusalCode.AmountOutOfRange, "The lines add up to more than an order may cost.");

    // A payment need not name its currency, so only the order can tell whether the amount has too many decimals.
    private static Decision Pay(Order order, OrderCommand.Pay pay)
    {
        if (order.Payments is not { } payments || order.Currency is not { } currency)
        {
            throw new InvalidOperationException("A payment is decided upon an order whose payments were not read.");
        }

        long amountMinor = 0;
        if (pay.Amount is { } given && !Money.TryToMinor(given, currency, out amountMinor))
        {
            return given.Scale > currency.Decimals && decimal.Round(given, currency.Decimals) != given
                ? new Decision.Refused(
                    RefusalCode.AmountPrecision, $"The amount has more decimals than the {currency.Decimals} of the order's currency {currency.Code}.")
                : new Decision.Refused(RefusalCode.AmountOutOfRange, "The amount is larger than any order may cost.");
        }

        // Before the status: the same payment told once more is no news, even to an order that was cancelled since.
        if (payments.TryGetValue(pay.PaymentReference, out var known))
        {
            return pay.Amount is null || amountMinor == known
                ? new Decision.AlreadyDone("This payment of the order was recorded before.")
                : new Decision.Refused(RefusalCode.PaymentConflict, "The order has a payment of this reference with another amount.");
        }

        if (order.Status == OrderStatus.Cancelled)
        {
            return WrongStatus(order, pay, "an order that is not cancelled");
        }

        if (pay.Amount is null)
        {
            amountMinor = order.DueMinor;
        }

        // Both are at most Money.MaxMinor, so the sum does not overflow.
        var paidMinor = order.PaidMinor + amountMinor;
        return paidMinor > Money.MaxMinor
            ? new Decision.Refused(RefusalCode.AmountOutOfRange, "The payments would add up to more than any order may cost.")
            : Received(order, pay.PaymentReference, amountMinor, paidMinor, currency);
    }

    private static Decision.Accepted Received(Order order, string reference, long amountMinor, long paidMinor, Currency currency)
    {
        var amount = Money.ToDecimal(amountMinor, currency);
        var open = order.TotalMinor - paidMinor;
        return new Decision.Accepted(
            new OrderEvent.PaymentReceived(
                reference, amount, Money.ToDecimal(paidMinor, currency), Money.ToDecimal(Math.Max(0, open), currency),
                open < 0 ? Money.ToDecimal(-open, currency) : null),
            open <= 0 && !order.IsPaid ? new OrderEvent.Paid(reference, amount) : null);
    }

    private static Decision.Refused WrongStatus(Order order, OrderCommand command, string appliesTo) =>
        new(RefusalCode.WrongStatus, $"The order is {order.Status.ToWire()}; {command.Type} applies only to {appliesTo}.");
}

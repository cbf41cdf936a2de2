namespace OrderService.Domain;

/// <summary>What an operator may choose about orders.</summary>
/// <param name="RequirePaymentBeforeShipping">True when an order that is not paid must not be shipped.</param>
public sealed record OrderRules(bool RequirePaymentBeforeShipping)
{
    /// <summary>Unpaid orders may be shipped.</summary>
    public static OrderRules Default { get; } = new(RequirePaymentBeforeShipping: false);
}

/// <summary>The answer to a command. There is no fourth one.</summary>
public abstract record Decision
{
    private Decision() { }

    /// <summary>The command is done by appending this event: every command has exactly one.</summary>
    public sealed record Accepted(OrderEvent Event) : Decision;

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

            (OrderCommand.Pay pay, OrderStatus.Placed) => Pay(order, pay),
            (OrderCommand.Pay, _) => WrongStatus(order, command, "an order that is placed"),

            (OrderCommand.Ship, OrderStatus.Placed) when rules.RequirePaymentBeforeShipping =>
                new Decision.Refused(RefusalCode.PaymentRequired, "The order is not paid, and only paid orders are shipped here."),
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
        if (pay.Amount is not { } amount || order.Currency is not { } currency)
        {
            return new Decision.Accepted(new OrderEvent.Paid(pay.PaymentReference, pay.Amount));
        }

        if (Money.WithDecimalsOf(amount, currency) is { } exact)
        {
            return new Decision.Accepted(new OrderEvent.Paid(pay.PaymentReference, exact));
        }

        return amount.Scale > currency.Decimals && decimal.Round(amount, currency.Decimals) != amount
            ? new Decision.Refused(
                RefusalCode.AmountPrecision, $"The amount has more decimals than the {currency.Decimals} of the order's currency {currency.Code}.")
            : new Decision.Refused(RefusalCode.AmountOutOfRange, "The amount is larger than any order may cost.");
    }

    private static Decision.Refused WrongStatus(Order order, OrderCommand command, string appliesTo) =>
        new(RefusalCode.WrongStatus, $"The order is {order.Status.ToWire()}; {command.Type} applies only to {appliesTo}.");
}

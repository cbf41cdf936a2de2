namespace OrderService.Domain;

/// <summary>What an operator may choose about orders.</summary>
/// <param name="RequirePaymentBeforeShipping">True when an order that is not paid must not be shipped.</param>
/// <param name="TaxRounding">How the taxes of an order are rounded.</param>
public sealed record OrderRules(bool RequirePaymentBeforeShipping, TaxRounding TaxRounding = TaxRounding.LineHalfUp)
{
    /// <summary>Unpaid orders may be shipped.</summary>
    public static OrderRules Default { get; } = new(RequirePaymentBeforeShipping: false);
}

/// <summary>The answer to a command. There is no sixth one.</summary>
public abstract record Decision
{
    private Decision() { }

    /// <summary>The command is done by appending this event.</summary>
    /// <param name="Then">A second event that follows from the first: the payment that reaches the total also pays the order.</param>
    /// <param name="Last">One more: what is left of an order whose open lines are cancelled is all shipped.</param>
    public sealed record Accepted(OrderEvent Event, OrderEvent? Then = null, OrderEvent? Last = null) : Decision
    {
        /// <summary>All of them, in their order.</summary>
        public IEnumerable<OrderEvent> Events => new[] { Event, Then, Last }.OfType<OrderEvent>();
    }

    /// <summary>What the command wants stands already, said by another message: nothing is appended.</summary>
    /// <param name="Reason">A plain sentence without personal data.</param>
    public sealed record AlreadyDone(string Reason) : Decision;

    /// <summary>The order's state does not allow the command.</summary>
    /// <param name="Code">One of <see cref="RefusalCode"/>.</param>
    /// <param name="Reason">A plain sentence without personal data.</param>
    public sealed record Refused(string Code, string Reason) : Decision;

    /// <summary>The command contradicts itself, whatever the order's state: no refusal but a dead letter.</summary>
    /// <param name="Pointer">The JSON pointer of the member it is about.</param>
    /// <param name="Detail">One sentence that says what is wrong and how to mend it.</param>
    public sealed record Contradiction(PricingFaultKind Kind, string Pointer, string Detail) : Decision;

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
    public const string VersionConflict = "version-conflict";
    public const string TotalMismatch = "total-mismatch";
    public const string PaymentUnknown = "payment-unknown";
    public const string AuthorizationUnknown = "authorization-unknown";
    public const string CaptureExceedsAuthorization = "capture-exceeds-authorization";
    public const string RefundConflict = "refund-conflict";
    public const string RefundExceedsPaid = "refund-exceeds-paid";
    public const string OnHold = "on-hold";
    public const string LineUnknown = "line-unknown";
    public const string LineConflict = "line-conflict";
    public const string QuantityExceeded = "quantity-exceeded";
    public const string ShipmentUnknown = "shipment-unknown";
    public const string ShipmentConflict = "shipment-conflict";
    public const string ReturnConflict = "return-conflict";

    /// <summary>The order was closed, and what is kept of it is that it was there.</summary>
    public const string OrderArchived = "order-archived";
}

/// <summary>The rules of an order's life: who decides which command.</summary>
public static class OrderDecider
{
    public static Decision Decide(Order order, OrderCommand command, OrderRules rules)
    {
        ArgumentNullException.ThrowIfNull(order);
        ArgumentNullException.ThrowIfNull(command);
        ArgumentNullException.ThrowIfNull(rules);

        // Whatever the state: what contradicts itself is no better for an order that exists.
        Priced? priced = null;
        if (command is OrderCommand.Place { IsPlain: false } detailed)
        {
            priced = Pricing.TryPrice(detailed.Currency, detailed.Lines, detailed.Details, rules.TaxRounding, checkTotal: true, out var fault);
            if (fault is not null)
            {
                return new Decision.Contradiction(fault.Kind, fault.Pointer, fault.Detail);
            }
        }

        if (command.ExpectedVersion is { } expected && expected != order.Version && (order.Version > 0 || command is OrderCommand.Place))
        {
            return new Decision.Refused(RefusalCode.VersionConflict, $"The order is at version {order.Version}, not {expected}; look at it again.");
        }

        return (command, order.Status) switch
        {
            (OrderCommand.Place place, OrderStatus.None) => Place(place, priced),
            (OrderCommand.Place, _) => new Decision.Refused(RefusalCode.AlreadyPlaced, "There is an order with this id already."),

            (_, OrderStatus.None) => Decision.OrderUnknown.Instance,

            _ when (command.NeedsStream || order.NeedsStream) && !order.IsWhole =>
                throw new InvalidOperationException($"{command.Type} is decided upon an order whose stream was not read."),

            (OrderCommand.Pay pay, _) => MoneyRules.Pay(order, pay),
            (OrderCommand.Authorize authorize, _) => MoneyRules.Authorize(order, authorize),
            (OrderCommand.Capture capture, _) => MoneyRules.Capture(order, capture),
            (OrderCommand.Refund refund, _) => MoneyRules.Refund(order, refund),
            (OrderCommand.Ship ship, _) => GoodsRules.Ship(order, ship, rules),
            (OrderCommand.Deliver deliver, _) => GoodsRules.Deliver(order, deliver),
            (OrderCommand.Return back, _) => GoodsRules.Return(order, back),
            (OrderCommand.Cancel cancel, _) => GoodsRules.Cancel(order, cancel, rules),
            (OrderCommand.Hold hold, _) => GoodsRules.Hold(order, hold),
            (OrderCommand.Release, _) => GoodsRules.Release(order),
            (OrderCommand.Amend amend, _) => AmendRules.Amend(order, amend, rules),

            _ => throw new ArgumentOutOfRangeException(nameof(command), "There is no such command."),
        };
    }

    /// <summary>What makes an order impossible by itself; null when nothing does.</summary>
    public static Decision.Contradiction? Contradiction(OrderCommand.Place place, OrderRules rules)
    {
        ArgumentNullException.ThrowIfNull(place);
        ArgumentNullException.ThrowIfNull(rules);

        Pricing.TryPrice(place.Currency, place.Lines, place.Details, rules.TaxRounding, checkTotal: true, out var fault);
        return fault is null ? null : new Decision.Contradiction(fault.Kind, fault.Pointer, fault.Detail);
    }

    private static Decision Place(OrderCommand.Place place, Priced? priced)
    {
        if (priced is not null)
        {
            return new Decision.Accepted(
                new OrderEvent.Placed(place.CustomerId, place.Currency, priced.Lines, priced.TotalMinor, place.Personal, place.PlacedAt) { Details = priced.Details });
        }

        return Money.TryTotal(place.Lines, out var total)
            ? new Decision.Accepted(
                new OrderEvent.Placed(place.CustomerId, place.Currency, place.Lines, total, place.Personal, place.PlacedAt))
            : new Decision.Refused(RefusalCode.AmountOutOfRange, "The lines add up to more than an order may cost.");
    }

    internal static Decision.Refused WrongStatus(Order order, OrderCommand command, string appliesTo) =>
        new(RefusalCode.WrongStatus, $"The order is {order.Status.ToWire()}; {command.Type} applies only to {appliesTo}.");
}

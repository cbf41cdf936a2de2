namespace OrderService.Domain;

/// <summary>What may happen to the goods of an order: never more is shipped, cancelled or returned than there is.</summary>
internal static class GoodsRules
{
    private const string PlacedOrPaid = "an order that is placed or paid";

    public static Decision Ship(Order order, OrderCommand.Ship ship, OrderRules rules)
    {
        if (ship.ShipmentId is { } id && order.Shipment(id) is { } known)
        {
            return ship.Lines is null || Same(ship.Lines, known.Lines)
                ? new Decision.AlreadyDone("This shipment of the order was recorded before.")
                : new Decision.Refused(RefusalCode.ShipmentConflict, "The order has a shipment of this shipmentId with other lines.");
        }

        if (order.Status is not (OrderStatus.Placed or OrderStatus.Paid))
        {
            return OrderDecider.WrongStatus(order, ship, PlacedOrPaid);
        }

        if (order.IsHeld)
        {
            return new Decision.Refused(RefusalCode.OnHold, "The order is held; release it before it is shipped.");
        }

        if (rules.RequirePaymentBeforeShipping && order.IsPaymentDue)
        {
            return new Decision.Refused(RefusalCode.PaymentRequired, "The order is not paid in full, and only paid orders are shipped here.");
        }

        return ship.IsPlain && !order.NeedsStream
            ? new Decision.Accepted(new OrderEvent.Shipped(ship.Carrier, ship.TrackingNumber))
            : ShipLines(order, ship);
    }

    public static Decision Deliver(Order order, OrderCommand.Deliver deliver)
    {
        if (deliver.ShipmentId is not { } id)
        {
            return order.Status == OrderStatus.Shipped
                ? new Decision.Accepted(new OrderEvent.Delivered())
                : OrderDecider.WrongStatus(order, deliver, "an order that is shipped");
        }

        if (order.Shipment(id) is not { } shipment)
        {
            return new Decision.Refused(RefusalCode.ShipmentUnknown, "The order has no shipment of this shipmentId.");
        }

        if (shipment.IsDelivered || order.Status == OrderStatus.Delivered)
        {
            return new Decision.AlreadyDone("This shipment of the order was delivered before.");
        }

        var isLast = order.Status == OrderStatus.Shipped && order.Progress!.Shipments.All(other => other.IsDelivered || other.ShipmentId == id);
        return new Decision.Accepted(isLast ? new OrderEvent.Delivered { ShipmentId = id } : new OrderEvent.ShipmentDelivered(id));
    }

    public static Decision Return(Order order, OrderCommand.Return back)
    {
        if (order.Progress?.Returns.Find(known => known.ReturnId == back.ReturnId) is { } known)
        {
            return Same(back.Lines, known.Lines)
                ? new Decision.AlreadyDone("This return of the order was recorded before.")
                : new Decision.Refused(RefusalCode.ReturnConflict, "The order has a return of this returnId with other lines.");
        }

        return Beyond(order, back.Lines, static line => line.Shipped - line.Returned, static line => $"{line.Shipped} shipped, {line.Returned} returned before", "come back")
            ?? (Decision)new Decision.Accepted(new OrderEvent.Returned(back.ReturnId, back.Lines, back.Reason));
    }

    public static Decision Cancel(Order order, OrderCommand.Cancel cancel, OrderRules rules)
    {
        if (order.Status is not (OrderStatus.Placed or OrderStatus.Paid))
        {
            return OrderDecider.WrongStatus(order, cancel, PlacedOrPaid);
        }

        if (cancel.Lines is null)
        {
            return order.Progress is { Shipments.Count: > 0 }
                ? new Decision.Refused(RefusalCode.WrongStatus, "A part of the order is shipped, so it can't be cancelled as a whole; name the lines.")
                : new Decision.Accepted(new OrderEvent.Cancelled(cancel.Reason));
        }

        return (Decision?)Beyond(order, cancel.Lines, static line => line.Open, OpenOf, "be cancelled") ?? CancelLines(order, cancel, cancel.Lines, rules);
    }

    public static Decision Hold(Order order, OrderCommand.Hold hold) => order.Status is not (OrderStatus.Placed or OrderStatus.Paid)
        ? OrderDecider.WrongStatus(order, hold, PlacedOrPaid)
        : order.IsHeld
            ? new Decision.AlreadyDone("The order is held already.")
            : new Decision.Accepted(new OrderEvent.Held(hold.Reason));

    public static Decision Release(Order order) => order.IsHeld
        ? new Decision.Accepted(new OrderEvent.Released())
        : new Decision.AlreadyDone("The order is not held.");

    private static Decision ShipLines(Order order, OrderCommand.Ship ship)
    {
        var goods = order.Goods;
        if (ship.Lines is { } named && Beyond(order, named, static line => line.Open, OpenOf, "be shipped") is { } refused)
        {
            return refused;
        }

        var lines = ship.Lines ?? [.. goods.Where(line => line.Open > 0).Select(line => new LineQuantity(line.LineId, line.Open))];
        var rest = goods.Sum(line => (long)line.Open) - lines.Sum(line => (long)line.Quantity);
        if (rest > 0)
        {
            return new Decision.Accepted(new OrderEvent.PartlyShipped(ship.ShipmentId ?? order.NextShipmentId(), lines, ship.Carrier, ship.TrackingNumber));
        }

        // The whole order in one parcel needs no list of what is in it.
        var isAll = goods.All(line => line.Open == line.Ordered);
        return new Decision.Accepted(new OrderEvent.Shipped(ship.Carrier, ship.TrackingNumber)
        {
            ShipmentId = ship.ShipmentId ?? (isAll ? null : order.NextShipmentId()),
            Lines = isAll ? null : lines,
        });
    }

    private static Decision.Accepted CancelLines(Order order, OrderCommand.Cancel cancel, IReadOnlyList<LineQuantity> lines, OrderRules rules)
    {
        var goods = order.Goods;
        var rest = goods.Sum(line => (long)line.Open) - lines.Sum(line => (long)line.Quantity);
        var isAnyShipped = goods.Any(line => line.Shipped > 0);
        if (rest == 0 && !isAnyShipped)
        {
            return new Decision.Accepted(new OrderEvent.Cancelled(cancel.Reason));
        }

        var totalMinor = Math.Max(0, order.TotalMinor - Worth(order, goods, lines, rules));
        var currency = order.Currency!;
        return new Decision.Accepted(
            new OrderEvent.LinesCancelled(lines, cancel.Reason, Money.ToDecimal(order.TotalMinor - totalMinor, currency), Money.ToDecimal(totalMinor, currency)),
            MoneyRules.PaidBy(order, totalMinor),
            rest == 0 ? new OrderEvent.Shipped(null, null) { ShipmentId = order.NextShipmentId(), Lines = [] } : null);
    }

    /// <summary>What the cancelled pieces cost. Whole lines cost what they added to the total; of their parts the sums are rounded down, so that all parts together are the whole.</summary>
    private static long Worth(Order order, IReadOnlyList<LineGoods> goods, IReadOnlyList<LineQuantity> lines, OrderRules rules)
    {
        var priced = Pricing.TryPrice(order.Currency!, order.Lines, null, rules.TaxRounding, checkTotal: false, out _);
        var worth = 0L;
        for (var index = 0; index < goods.Count; index++)
        {
            var line = goods[index];
            var pieces = lines.Where(cancelled => cancelled.LineId == line.LineId).Sum(cancelled => cancelled.Quantity);
            if (pieces > 0 && priced is not null)
            {
                long Part(int count) => (long)((Int128)priced.LineTotals[index] * count / line.Ordered);
                worth += Part(line.Cancelled + pieces) - Part(line.Cancelled);
            }
        }

        return worth;
    }

    private static string OpenOf(LineGoods line) => $"{line.Ordered} ordered, {line.Cancelled} cancelled, {line.Shipped} shipped";

    /// <summary>The refusal of pieces that are not there; null when all are.</summary>
    private static Decision.Refused? Beyond(Order order, IReadOnlyList<LineQuantity> lines, Func<LineGoods, int> most, Func<LineGoods, string> how, string what)
    {
        var goods = order.Goods.ToDictionary(line => line.LineId, StringComparer.Ordinal);
        foreach (var asked in lines)
        {
            if (!goods.TryGetValue(asked.LineId, out var line))
            {
                return new Decision.Refused(RefusalCode.LineUnknown, $"The order has no line {asked.LineId}.");
            }

            if (asked.Quantity > most(line))
            {
                return new Decision.Refused(
                    RefusalCode.QuantityExceeded, $"Of line {asked.LineId} at most {most(line)} can {what} ({how(line)}); {asked.Quantity} were asked for.");
            }
        }

        return null;
    }

    private static bool Same(IReadOnlyList<LineQuantity> one, IReadOnlyList<LineQuantity> other) =>
        one.OrderBy(line => line.LineId, StringComparer.Ordinal).SequenceEqual(other.OrderBy(line => line.LineId, StringComparer.Ordinal));
}

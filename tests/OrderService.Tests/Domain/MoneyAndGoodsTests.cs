using CsCheck;
using OrderService.Domain;

namespace OrderService.Tests.Domain;

/// <summary>Payments, shipments, returns and refunds of an order: whatever comes in whatever order, there is never less than nothing and never more than there is.</summary>
public sealed class MoneyAndGoodsTests
{
    // Line "1": 2 x 49.90, line "b": 3 x 10.00.
    private static readonly OrderCommand.Place Two = Samples.Place with
    {
        Lines = [new OrderLine("KB-01", 2, 49_90), new OrderLine("M-1", 3, 10_00) { Details = new LineDetails { LineId = "b" } }],
    };

    private static readonly Order Placed = After(Order.None("A-1"), Two);

    private static readonly Gen<IReadOnlyList<LineQuantity>> Some = Gen.Select(
        Gen.OneOf("1", "b", "c"), Gen.Int[1, 3], Gen.Bool, (id, count, two) => (IReadOnlyList<LineQuantity>)(two ? [new(id, count), new(id == "1" ? "b" : "1", 1)] : [new(id, count)]));

    private static readonly Gen<decimal> Amount = Gen.OneOf(0.01m, 10m, 29.80m, 49.90m, 99.80m, 129.80m);

    private static readonly Gen<OrderCommand> Command = Gen.OneOf<OrderCommand>(
        Gen.Select(Gen.Int[0, 3], Amount, OrderCommand (reference, amount) => new OrderCommand.Pay("A-1", $"P-{reference}", amount)),
        Gen.Select(Gen.Int[0, 3], Amount, OrderCommand (reference, amount) => new OrderCommand.Authorize("A-1", $"P-{reference}", amount)),
        Gen.Select(Gen.Int[0, 3], Gen.Int[0, 9], Amount, Gen.Bool, OrderCommand (reference, capture, amount, all) => new OrderCommand.Capture("A-1", $"P-{reference}", $"C-{capture}", all ? null : amount)),
        Gen.Select(Gen.Int[0, 9], Amount, Gen.Int[0, 5], OrderCommand (reference, amount, payment) => new OrderCommand.Refund("A-1", $"R-{reference}", amount, payment > 3 ? null : $"P-{payment}", null)),
        Gen.Select(Some, Gen.Int[0, 4], Gen.Bool, OrderCommand (lines, id, all) => new OrderCommand.Ship("A-1", null, null, id == 0 ? null : $"S-{id}", all ? null : lines)),
        Gen.Select(Gen.Int[0, 4], OrderCommand (id) => new OrderCommand.Deliver("A-1", id == 0 ? null : $"S-{id}")),
        Gen.Select(Some, Gen.Int[0, 4], OrderCommand (lines, id) => new OrderCommand.Return("A-1", $"B-{id}", lines, "too small")),
        Gen.Select(Some, Gen.Int[0, 4], OrderCommand (lines, whole) => new OrderCommand.Cancel("A-1", "changed my mind", whole == 0 ? null : lines)),
        Gen.Const<OrderCommand>(new OrderCommand.Hold("A-1", "fraud?")),
        Gen.Const<OrderCommand>(new OrderCommand.Release("A-1")),
        Gen.Int[1, 4].Select(OrderCommand (count) => new OrderCommand.Amend("A-1", [new AmendedLine("KB-01", count, 49.90m, null), new AmendedLine("M-1", 3, 10m, new LineDetails { LineId = "b" })], null, null, null, null)));

    [Fact]
    public void Nothing_is_ever_below_zero_or_beyond_what_there_is() => Gen.Select(Command.Array[0, 40], Gen.Bool).Sample((commands, paymentFirst) =>
    {
        var rules = new OrderRules(paymentFirst);
        var order = Placed;
        var events = new List<OrderEvent>();
        foreach (var command in commands)
        {
            var before = order;
            if (OrderDecider.Decide(order, command, rules) is Decision.Accepted accepted)
            {
                foreach (var happened in accepted.Events)
                {
                    order = order.Apply(happened);
                    events.Add(happened);
                }
            }

            Assert.All(order.Goods, line =>
            {
                Assert.True(line is { Cancelled: >= 0, Shipped: >= 0, Returned: >= 0, Open: >= 0 });
                Assert.True(line.Returned <= line.Shipped);
            });
            var progress = order.Progress ?? OrderProgress.None;
            Assert.InRange(progress.RefundedMinor, 0, order.PaidMinor);
            Assert.True(order is { TotalMinor: >= 0, DueMinor: >= 0, OverpaidMinor: >= 0 });
            Assert.All(order.Payments!, payment => Assert.InRange(progress.Refunds.Where(refund => refund.PaymentReference == payment.Key).Sum(refund => refund.AmountMinor), 0, payment.Value));
            Assert.True(command is not OrderCommand.Capture || progress.Captured.All(captured => captured.Value <= progress.Authorized[captured.Key] || order.Payments!.ContainsKey(captured.Key)));
            Assert.False(before.IsHeld && command is OrderCommand.Ship && order.Goods.Sum(line => line.Shipped) > before.Goods.Sum(line => line.Shipped));
            Assert.False(paymentFirst && before.DueMinor > 0 && order.Goods.Sum(line => line.Shipped) > before.Goods.Sum(line => line.Shipped));
            Assert.Equal(order.Status is OrderStatus.Shipped or OrderStatus.Delivered, order.Status != OrderStatus.Cancelled && order.Goods.All(line => line.Open == 0));
        }

        Assert.InRange(events.OfType<OrderEvent.Paid>().Count(), 0, 1);
        Assert.InRange(events.OfType<OrderEvent.Shipped>().Count(), 0, 1);
        Assert.InRange(events.OfType<OrderEvent.Delivered>().Count(), 0, 1);
        // The state is nothing but the fold of what happened.
        var folded = Order.Fold("A-1", [.. Events(Two), .. events]);
        Assert.Equal((order.PaymentStatus, order.FulfillmentStatus, order.TotalMinor, order.PaidMinor, order.NeedsStream), (folded.PaymentStatus, folded.FulfillmentStatus, folded.TotalMinor, folded.PaidMinor, folded.NeedsStream));
        Assert.Equal(order.Goods, folded.Goods);
    });

    [Fact]
    public void Shipments_and_payments_come_to_the_same_in_whatever_order_they_arrive()
    {
        OrderCommand[] commands =
        [
            new OrderCommand.Ship("A-1", "DHL", "T-1", "s1", [new("1", 1)]),
            new OrderCommand.Ship("A-1", "DHL", "T-2", "s2", [new("1", 1), new("b", 2)]),
            new OrderCommand.Ship("A-1", "DHL", "T-3", "s3", [new("b", 1)]),
            new OrderCommand.Pay("A-1", "P-1", 29.80m),
            new OrderCommand.Pay("A-1", "P-2", 100m),
        ];
        var sorted = commands.Aggregate(Placed, (order, command) => After(order, command));

        Gen.Shuffle(commands).Sample(shuffled =>
        {
            var order = shuffled.Aggregate(Placed, (state, command) => After(state, command));

            Assert.Equal((sorted.Status, sorted.PaymentStatus, sorted.FulfillmentStatus, sorted.Version), (order.Status, order.PaymentStatus, order.FulfillmentStatus, order.Version));
            Assert.Equal(sorted.Goods, order.Goods);
        });
        Assert.Equal((OrderStatus.Shipped, PaymentStatus.Paid, FulfillmentStatus.Fulfilled), (sorted.Status, sorted.PaymentStatus, sorted.FulfillmentStatus));
    }

    [Fact]
    public void An_order_leaves_in_parts_and_is_shipped_with_the_last()
    {
        var first = Accepted(Placed, new OrderCommand.Ship("A-1", "DHL", "T-1", null, [new("1", 1)]));
        var order = After(Placed, new OrderCommand.Ship("A-1", "DHL", "T-1", null, [new("1", 1)]));
        var rest = Accepted(order, new OrderCommand.Ship("A-1", null, null));
        var all = After(order, new OrderCommand.Ship("A-1", null, null));

        Assert.Equal("1", Assert.IsType<OrderEvent.PartlyShipped>(first.Event).ShipmentId);
        Assert.Equal((OrderStatus.Placed, FulfillmentStatus.PartlyFulfilled), (order.Status, order.FulfillmentStatus));
        var shipped = Assert.IsType<OrderEvent.Shipped>(rest.Event);
        Assert.Equal(("2", "1x1 b3"), (shipped.ShipmentId, string.Join(' ', shipped.Lines!.Select(line => line.LineId == "1" ? $"1x{line.Quantity}" : $"{line.LineId}{line.Quantity}"))));
        Assert.Equal((OrderStatus.Shipped, FulfillmentStatus.Fulfilled), (all.Status, all.FulfillmentStatus));
        Assert.IsType<OrderEvent.ShipmentDelivered>(Accepted(all, new OrderCommand.Deliver("A-1", "1")).Event);
        var one = After(all, new OrderCommand.Deliver("A-1", "2"));
        Assert.Equal("1", Assert.IsType<OrderEvent.Delivered>(Accepted(one, new OrderCommand.Deliver("A-1", "1")).Event).ShipmentId);
        Assert.Equal(OrderStatus.Delivered, After(one, new OrderCommand.Deliver("A-1", "1")).Status);
    }

    [Theory]
    [InlineData("1", 3, "quantity-exceeded", "Of line 1 at most 1 can be shipped (2 ordered, 0 cancelled, 1 shipped); 3 were asked for.")]
    [InlineData("x", 1, "line-unknown", "The order has no line x.")]
    public void Never_more_is_shipped_than_there_is(string line, int quantity, string code, string reason)
    {
        var order = After(Placed, new OrderCommand.Ship("A-1", null, null, "s1", [new("1", 1)]));

        Refused(code, reason, order, new OrderCommand.Ship("A-1", null, null, null, [new(line, quantity)]));
        Assert.IsType<Decision.AlreadyDone>(Decide(order, new OrderCommand.Ship("A-1", null, null, "s1", [new("1", 1)])));
        Refused(RefusalCode.ShipmentConflict, null, order, new OrderCommand.Ship("A-1", null, null, "s1", [new("1", 2)]));
    }

    [Fact]
    public void Goods_come_back_once_and_never_more_than_were_shipped()
    {
        var order = After(Placed, new OrderCommand.Ship("A-1", null, null));
        var back = new OrderCommand.Return("A-1", "R-1", [new("1", 1)], "too small");
        var returned = After(order, back);

        Assert.Equal(FulfillmentStatus.PartlyReturned, returned.FulfillmentStatus);
        Assert.IsType<Decision.AlreadyDone>(Decide(returned, back));
        Refused(RefusalCode.ReturnConflict, null, returned, back with { Lines = [new("1", 2)] });
        Refused(
            RefusalCode.QuantityExceeded, "Of line 1 at most 1 can come back (2 shipped, 1 returned before); 2 were asked for.",
            returned, new OrderCommand.Return("A-1", "R-2", [new("1", 2)], "too small"));
        Assert.Equal(FulfillmentStatus.Returned, After(returned, new OrderCommand.Return("A-1", "R-2", [new("1", 1), new("b", 3)], "too small")).FulfillmentStatus);
        Refused(RefusalCode.QuantityExceeded, null, Placed, back);
    }

    [Fact]
    public void A_part_that_is_cancelled_lowers_the_total_and_may_make_the_order_paid_and_shipped()
    {
        var order = After(Placed, new OrderCommand.Pay("A-1", "P-1", 99.80m), new OrderCommand.Ship("A-1", null, null, null, [new("1", 2), new("b", 1)]));

        var accepted = Accepted(order, new OrderCommand.Cancel("A-1", "sold out", [new("b", 2)]));

        Assert.Equal((20.00m, 109.80m), Assert.IsType<OrderEvent.LinesCancelled>(accepted.Event) is var cancelled ? (cancelled.Amount, cancelled.Total) : default);
        Assert.Null(accepted.Then);
        Assert.Empty(Assert.IsType<OrderEvent.Shipped>(accepted.Last).Lines!);
        var paid = After(Placed, new OrderCommand.Pay("A-1", "P-1", 99.80m));
        Assert.IsType<OrderEvent.Paid>(Accepted(paid, new OrderCommand.Cancel("A-1", "sold out", [new("b", 3)])).Then);
        Assert.Equal((OrderStatus.Paid, PaymentStatus.Paid, 99_80), After(paid, new OrderCommand.Cancel("A-1", "sold out", [new("b", 3)])) is var now ? (now.Status, now.PaymentStatus, now.TotalMinor) : default);
        Assert.IsType<OrderEvent.Cancelled>(Accepted(Placed, new OrderCommand.Cancel("A-1", "sold out", [new("1", 2), new("b", 3)])).Event);
        Refused(RefusalCode.QuantityExceeded, null, order, new OrderCommand.Cancel("A-1", "sold out", [new("b", 3)]));
        Refused(RefusalCode.WrongStatus, null, order, new OrderCommand.Cancel("A-1", "sold out"));
    }

    [Fact]
    public void Money_is_set_aside_captured_in_parts_and_never_beyond_the_authorization()
    {
        var authorized = After(Placed, new OrderCommand.Authorize("A-1", "AUTH", 129.80m));
        var captured = After(authorized, new OrderCommand.Capture("A-1", "AUTH", "C-1", 100m));

        Assert.Equal((PaymentStatus.Authorized, PaymentStatus.PartlyPaid), (authorized.PaymentStatus, captured.PaymentStatus));
        Refused(
            RefusalCode.CaptureExceedsAuthorization, "At most 29.80 EUR can be captured (129.80 authorized, 100.00 captured before); 30.00 was asked for.",
            captured, new OrderCommand.Capture("A-1", "AUTH", "C-2", 30m));
        var rest = Accepted(captured, new OrderCommand.Capture("A-1", "AUTH", "C-2", null));
        Assert.Equal((29.80m, "AUTH"), Assert.IsType<OrderEvent.PaymentReceived>(rest.Event) is var received ? (received.Amount, received.Authorization) : default);
        Assert.IsType<OrderEvent.Paid>(rest.Then);
        Refused(RefusalCode.AuthorizationUnknown, null, Placed, new OrderCommand.Capture("A-1", "AUTH", null, null));
        Refused(RefusalCode.PaymentConflict, null, authorized, new OrderCommand.Authorize("A-1", "AUTH", 1m));
        Assert.IsType<Decision.AlreadyDone>(Decide(authorized, new OrderCommand.Authorize("A-1", "AUTH", 129.8m)));
    }

    [Fact]
    public void Money_goes_back_once_and_never_more_than_came()
    {
        var order = After(Placed, new OrderCommand.Pay("A-1", "P-1", 100m), new OrderCommand.Pay("A-1", "P-2", 29.80m));
        var refund = new OrderCommand.Refund("A-1", "R-1", 20m, "P-2", "too small");
        var partly = After(order, refund);

        Assert.Equal(PaymentStatus.PartlyRefunded, partly.PaymentStatus);
        Assert.IsType<Decision.AlreadyDone>(Decide(partly, refund));
        Refused(RefusalCode.RefundConflict, null, partly, refund with { Amount = 1m });
        Refused(
            RefusalCode.RefundExceedsPaid, "At most 109.80 EUR can be refunded (129.80 paid, 20.00 refunded before); 109.81 was asked for.",
            partly, new OrderCommand.Refund("A-1", "R-2", 109.81m, null, null));
        Refused(
            RefusalCode.RefundExceedsPaid, "At most 9.80 EUR can be refunded (29.80 paid, 20.00 refunded before); 10.00 was asked for.",
            partly, new OrderCommand.Refund("A-1", "R-2", 10m, "P-2", null));
        Refused(RefusalCode.PaymentUnknown, null, partly, new OrderCommand.Refund("A-1", "R-2", 1m, "P-9", null));
        Assert.Equal(PaymentStatus.Refunded, After(partly, new OrderCommand.Refund("A-1", "R-2", 109.80m, null, null)).PaymentStatus);
        // A cancelled order's money goes back too.
        Assert.IsType<Decision.Accepted>(Decide(After(order, new OrderCommand.Cancel("A-1", "x")), refund));
    }

    [Fact]
    public void A_held_order_is_not_shipped_until_it_is_released()
    {
        var held = After(Placed, new OrderCommand.Hold("A-1", "fraud?"));

        Refused(RefusalCode.OnHold, "The order is held; release it before it is shipped.", held, new OrderCommand.Ship("A-1", null, null));
        Assert.IsType<Decision.AlreadyDone>(Decide(held, new OrderCommand.Hold("A-1", "again")));
        Assert.Equal(OrderStatus.Shipped, After(held, new OrderCommand.Release("A-1"), new OrderCommand.Ship("A-1", null, null)).Status);
        Assert.IsType<Decision.AlreadyDone>(Decide(Placed, new OrderCommand.Release("A-1")));
    }

    [Fact]
    public void What_is_ordered_may_change_until_something_is_shipped()
    {
        var amend = new OrderCommand.Amend("A-1", [new AmendedLine("KB-01", 1, 49.9m, null)], [new("gift", "yes")], 4.9m, null, 54.8m);
        var amended = After(Placed, amend);

        Assert.Equal((54_80, 1, "gift"), (amended.TotalMinor, amended.Lines.Count, Assert.Single(amended.Details!.Attributes).Key));
        Refused(RefusalCode.TotalMismatch, "total is 54.81 and the order adds up to 54.80 EUR; mend the one that is wrong, or leave total out.", Placed, amend with { Total = 54.81m });
        Refused(RefusalCode.AmountPrecision, null, Placed, amend with { Lines = [new AmendedLine("KB-01", 1, 49.901m, null)] });
        Refused(RefusalCode.WrongStatus, null, After(Placed, new OrderCommand.Ship("A-1", null, null, null, [new("1", 1)])), amend);
        var paid = After(Placed, new OrderCommand.Pay("A-1", "P-1", 60m));
        Assert.IsType<OrderEvent.Paid>(Accepted(paid, amend).Then);
        Assert.Equal(PaymentStatus.Overpaid, After(paid, amend).PaymentStatus);
    }

    [Theory]
    [InlineData(1, true)]
    [InlineData(2, false)]
    [InlineData(0, false)]
    public void A_command_upon_another_version_is_refused(long expected, bool accepted)
    {
        var decision = Decide(Placed, new OrderCommand.Ship("A-1", null, null) { ExpectedVersion = expected });

        Assert.Equal(accepted, decision is Decision.Accepted);
        Assert.Equal(accepted ? null : $"The order is at version 1, not {expected}; look at it again.", (decision as Decision.Refused)?.Reason);
        Assert.IsType<Decision.OrderUnknown>(Decide(Order.None("A-1"), new OrderCommand.Ship("A-1", null, null) { ExpectedVersion = expected }));
    }

    [Fact]
    public void What_the_head_does_not_tell_is_not_decided_by_it()
    {
        var head = Order.AtHead("A-1", OrderStatus.Placed, 1, Samples.Euro, 99_80);

        Assert.Throws<InvalidOperationException>(() => Decide(head, new OrderCommand.Ship("A-1", null, null, null, [new("1", 1)])));
        Assert.Throws<InvalidOperationException>(() => Decide(head, new OrderCommand.Refund("A-1", "R-1", 1m, null, null)));
    }

    private static IEnumerable<OrderEvent> Events(OrderCommand command) => Accepted(Order.None("A-1"), command).Events;

    private static Decision Decide(Order order, OrderCommand command) => OrderDecider.Decide(order, command, OrderRules.Default);

    private static Decision.Accepted Accepted(Order order, OrderCommand command) => Assert.IsType<Decision.Accepted>(Decide(order, command));

    private static Order After(Order order, params OrderCommand[] commands) =>
        commands.Aggregate(order, (state, command) => Accepted(state, command).Events.Aggregate(state, (before, happened) => before.Apply(happened)));

    private static void Refused(string code, string? reason, Order order, OrderCommand command)
    {
        var refused = Assert.IsType<Decision.Refused>(Decide(order, command));
        Assert.Equal(code, refused.Code);
        Assert.Equal(reason ?? refused.Reason, refused.Reason);
    }
}

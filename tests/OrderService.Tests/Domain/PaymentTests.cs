using CsCheck;
using OrderService.Domain;

namespace OrderService.Tests.Domain;

/// <summary>Payments add up; an order costs 99.80 EUR here.</summary>
public sealed class PaymentTests
{
    [Fact]
    public void A_payment_of_a_cent_does_not_pay_an_order()
    {
        var order = After(Placed, Pay("P-1", 0.01m));

        Assert.Equal(OrderStatus.Placed, order.Status);
        Assert.Equal((0_01, 99_79, 0), (order.PaidMinor, order.DueMinor, order.OverpaidMinor));
    }

    [Fact]
    public void The_payment_that_reaches_the_total_pays_the_order_once()
    {
        var first = Accepted(Placed, Pay("P-1", 50m));
        Assert.Equal(new OrderEvent.PaymentReceived("P-1", 50.00m, 50.00m, 49.80m, null), first.Event);
        Assert.Null(first.Then);

        var second = Accepted(After(Placed, Pay("P-1", 50m)), Pay("P-2", 49.80m));
        Assert.Equal(new OrderEvent.PaymentReceived("P-2", 49.80m, 99.80m, 0.00m, null), second.Event);
        Assert.Equal(new OrderEvent.Paid("P-2", 49.80m), second.Then);

        var third = Accepted(After(Placed, Pay("P-1", 50m), Pay("P-2", 49.80m)), Pay("P-3", 0.20m));
        Assert.Equal(new OrderEvent.PaymentReceived("P-3", 0.20m, 100.00m, 0.00m, 0.20m), third.Event);
        Assert.Null(third.Then);
    }

    [Fact]
    public void A_payment_without_an_amount_pays_what_is_open()
    {
        var rest = Accepted(After(Placed, Pay("P-1", 50m)), Pay("P-2", null));
        Assert.Equal(new OrderEvent.PaymentReceived("P-2", 49.80m, 99.80m, 0.00m, null), rest.Event);

        var nothing = Accepted(After(Placed, Pay("P-1", null)), Pay("P-2", null));
        Assert.Equal(new OrderEvent.PaymentReceived("P-2", 0.00m, 99.80m, 0.00m, null), nothing.Event);
        Assert.Null(nothing.Then);
    }

    [Theory]
    [InlineData("50", true)]
    [InlineData("50.00", true)]
    [InlineData(null, true)]
    [InlineData("50.01", false)]
    public void A_reference_again_is_done_already_with_its_amount_and_refused_with_another(string? amount, bool isDone)
    {
        foreach (var order in new[] { After(Placed, Pay("P-1", 50m)), After(Placed, Pay("P-1", 50m), new OrderCommand.Cancel("A-1", "x")) })
        {
            var decision = Decide(order, Pay("P-1", amount is null ? null : Samples.Decimal(amount)));

            if (isDone)
            {
                Assert.IsType<Decision.AlreadyDone>(decision);
            }
            else
            {
                Assert.Equal(RefusalCode.PaymentConflict, Assert.IsType<Decision.Refused>(decision).Code);
            }
        }
    }

    [Fact]
    public void A_shipped_order_that_is_paid_stays_shipped_and_is_paid()
    {
        var shipped = After(Placed, new OrderCommand.Ship("A-1", null, null), Pay("P-1", 99.80m));
        var delivered = After(Placed, new OrderCommand.Ship("A-1", null, null), new OrderCommand.Deliver("A-1"), Pay("P-1", 99.80m));

        Assert.Equal((OrderStatus.Shipped, true, 0L), (shipped.Status, shipped.IsPaid, shipped.DueMinor));
        Assert.Equal((OrderStatus.Delivered, true, 0L), (delivered.Status, delivered.IsPaid, delivered.DueMinor));
    }

    [Fact]
    public void Only_an_order_that_is_paid_in_full_is_shipped_where_payment_comes_first()
    {
        var rules = new OrderRules(RequirePaymentBeforeShipping: true);
        var ship = new OrderCommand.Ship("A-1", null, null);

        Assert.Equal(RefusalCode.PaymentRequired, Assert.IsType<Decision.Refused>(OrderDecider.Decide(After(Placed, Pay("P-1", 99.79m)), ship, rules)).Code);
        Assert.IsType<Decision.Accepted>(OrderDecider.Decide(After(Placed, Pay("P-1", 99.79m), Pay("P-2", 0.01m)), ship, rules));

        // Nothing is due of an order that costs nothing.
        var free = Order.None("A-1").Apply(new OrderEvent.Placed("C-1", Samples.Euro, [new OrderLine("A", 1, 0)], 0, null, null));
        Assert.IsType<Decision.Accepted>(OrderDecider.Decide(free, ship, rules));
    }

    [Fact]
    public void Payments_never_add_up_to_more_than_an_order_may_cost()
    {
        var largest = Money.ToDecimal(Money.MaxMinor, Samples.Euro);

        var order = After(Placed, Pay("P-1", largest));

        Assert.Equal(RefusalCode.AmountOutOfRange, Assert.IsType<Decision.Refused>(Decide(order, Pay("P-2", 0.01m))).Code);
    }

    /// <summary>What versions before ORDER_PAYMENT_RECEIVED wrote: one ORDER_PAID, whatever it brought.</summary>
    [Theory]
    [InlineData(null, 99_80)]
    [InlineData("99.80", 99_80)]
    [InlineData("0.01", 99_80)]
    [InlineData("120.00", 120_00)]
    public void An_old_stream_means_paid(string? amount, long paidMinor)
    {
        var old = Placed.Apply(new OrderEvent.Paid("P-1", amount is null ? null : Samples.Decimal(amount)));

        Assert.Equal((OrderStatus.Paid, true, paidMinor, 0L), (old.Status, old.IsPaid, old.PaidMinor, old.DueMinor));

        var head = Order.AtHead("A-1", OrderStatus.Paid, 2, Samples.Euro, 99_80).WithPayments([new OrderEvent.Paid("P-1", amount is null ? null : Samples.Decimal(amount))]);
        Assert.Equal((OrderStatus.Paid, 2L, paidMinor), (head.Status, head.Version, head.PaidMinor));
        Assert.IsType<Decision.AlreadyDone>(Decide(head, Pay("P-1", null)));
        Assert.Null(Accepted(head, Pay("P-2", 1m)).Then);
    }

    [Fact]
    public void In_whatever_order_payments_arrive_the_end_is_the_same_and_no_money_is_negative()
    {
        var amounts = Gen.Long[1, 60_00].Select(minor => Money.ToDecimal(minor, Samples.Euro));
        Gen.Select(amounts.Array[1, 8], Gen.Int[0, 8], Gen.Int[0, 1000]).Sample((payments, shippedAfter, seed) =>
        {
            var commands = payments.Select((amount, index) => Pay($"P-{index}", amount)).ToArray();
            var shuffled = commands.ToArray();
            new Random(seed).Shuffle(shuffled);

            var (one, other) = (Run(commands, shippedAfter), Run(shuffled, 0));

            Assert.Equal(payments.Sum(), Money.ToDecimal(one.PaidMinor, Samples.Euro));
            Assert.Equal(
                (one.PaidMinor, one.DueMinor, one.OverpaidMinor, one.IsPaid, one.Status, one.Version),
                (other.PaidMinor, other.DueMinor, other.OverpaidMinor, other.IsPaid, other.Status, other.Version));
            Assert.Equal(one.Payments!.OrderBy(payment => payment.Key, StringComparer.Ordinal), other.Payments!.OrderBy(payment => payment.Key, StringComparer.Ordinal));
            Assert.Equal(one.PaidMinor >= 99_80, one.IsPaid);
        });

        static Order Run(OrderCommand[] commands, int shippedAfter)
        {
            var order = Placed;
            var paidEvents = 0;
            for (var index = 0; index <= commands.Length; index++)
            {
                if (index == Math.Min(shippedAfter, commands.Length))
                {
                    order = After(order, new OrderCommand.Ship("A-1", null, null));
                }

                if (index < commands.Length)
                {
                    var accepted = Accepted(order, commands[index]);
                    var payment = Assert.IsType<OrderEvent.PaymentReceived>(accepted.Event);
                    Assert.True(payment is { Amount: > 0, TotalPaid: > 0, Due: >= 0, Overpaid: null or > 0 });
                    paidEvents += accepted.Then is null ? 0 : 1;
                    order = After(order, commands[index]);
                }
            }

            Assert.InRange(paidEvents, 0, 1);
            return order;
        }
    }

    private static readonly Order Placed = Order.None("A-1").Apply(Samples.Placed);

    private static OrderCommand.Pay Pay(string reference, decimal? amount) => new("A-1", reference, amount);

    private static Decision Decide(Order order, OrderCommand command) => OrderDecider.Decide(order, command, OrderRules.Default);

    private static Decision.Accepted Accepted(Order order, OrderCommand command) => Assert.IsType<Decision.Accepted>(Decide(order, command));

    private static Order After(Order order, params OrderCommand[] commands)
    {
        foreach (var command in commands)
        {
            var accepted = Accepted(order, command);
            order = order.Apply(accepted.Event);
            order = accepted.Then is { } then ? order.Apply(then) : order;
        }

        return order;
    }
}

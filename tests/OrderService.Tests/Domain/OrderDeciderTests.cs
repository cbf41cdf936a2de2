using CsCheck;
using OrderService.Domain;

namespace OrderService.Tests.Domain;

public sealed class OrderDeciderTests
{
    private static readonly OrderRules PaymentFirst = new(RequirePaymentBeforeShipping: true);

    /// <summary>The whole transition table: every state, every command, both rules. "-" is an unknown order.</summary>
    public static TheoryData<string, string, string, string> Table { get; } = new()
    {
        // status, command, unpaid orders may be shipped, payment first
        { "none", CommandType.Place, "placed", "placed" },
        { "none", CommandType.Pay, "-", "-" },
        { "none", CommandType.Ship, "-", "-" },
        { "none", CommandType.Deliver, "-", "-" },
        { "none", CommandType.Cancel, "-", "-" },
        { "placed", CommandType.Place, "already-placed", "already-placed" },
        { "placed", CommandType.Pay, "paid", "paid" },
        { "placed", CommandType.Ship, "shipped", "payment-required" },
        { "placed", CommandType.Deliver, "wrong-status", "wrong-status" },
        { "placed", CommandType.Cancel, "cancelled", "cancelled" },
        { "paid", CommandType.Place, "already-placed", "already-placed" },
        { "paid", CommandType.Pay, "paid", "paid" },
        { "paid", CommandType.Ship, "shipped", "shipped" },
        { "paid", CommandType.Deliver, "wrong-status", "wrong-status" },
        { "paid", CommandType.Cancel, "cancelled", "cancelled" },
        { "shipped", CommandType.Place, "already-placed", "already-placed" },
        { "shipped", CommandType.Pay, "shipped", "shipped" },
        { "shipped", CommandType.Ship, "wrong-status", "wrong-status" },
        { "shipped", CommandType.Deliver, "delivered", "delivered" },
        { "shipped", CommandType.Cancel, "wrong-status", "wrong-status" },
        { "delivered", CommandType.Place, "already-placed", "already-placed" },
        { "delivered", CommandType.Pay, "delivered", "delivered" },
        { "delivered", CommandType.Ship, "wrong-status", "wrong-status" },
        { "delivered", CommandType.Deliver, "wrong-status", "wrong-status" },
        { "delivered", CommandType.Cancel, "wrong-status", "wrong-status" },
        { "cancelled", CommandType.Place, "already-placed", "already-placed" },
        { "cancelled", CommandType.Pay, "wrong-status", "wrong-status" },
        { "cancelled", CommandType.Ship, "wrong-status", "wrong-status" },
        { "cancelled", CommandType.Deliver, "wrong-status", "wrong-status" },
        { "cancelled", CommandType.Cancel, "wrong-status", "wrong-status" },
        { "none", CommandType.Authorize, "-", "-" },
        { "placed", CommandType.Authorize, "placed", "placed" },
        { "paid", CommandType.Authorize, "paid", "paid" },
        { "shipped", CommandType.Authorize, "shipped", "shipped" },
        { "delivered", CommandType.Authorize, "delivered", "delivered" },
        { "cancelled", CommandType.Authorize, "wrong-status", "wrong-status" },
        { "none", CommandType.Capture, "-", "-" },
        { "placed", CommandType.Capture, "authorization-unknown", "authorization-unknown" },
        { "paid", CommandType.Capture, "authorization-unknown", "authorization-unknown" },
        { "shipped", CommandType.Capture, "authorization-unknown", "authorization-unknown" },
        { "delivered", CommandType.Capture, "authorization-unknown", "authorization-unknown" },
        { "cancelled", CommandType.Capture, "authorization-unknown", "authorization-unknown" },
        { "none", CommandType.Amend, "-", "-" },
        { "placed", CommandType.Amend, "placed", "placed" },
        { "paid", CommandType.Amend, "paid", "paid" },
        { "shipped", CommandType.Amend, "wrong-status", "wrong-status" },
        { "delivered", CommandType.Amend, "wrong-status", "wrong-status" },
        { "cancelled", CommandType.Amend, "wrong-status", "wrong-status" },
        { "none", CommandType.Hold, "-", "-" },
        { "placed", CommandType.Hold, "placed", "placed" },
        { "paid", CommandType.Hold, "paid", "paid" },
        { "shipped", CommandType.Hold, "wrong-status", "wrong-status" },
        { "delivered", CommandType.Hold, "wrong-status", "wrong-status" },
        { "cancelled", CommandType.Hold, "wrong-status", "wrong-status" },
        { "none", CommandType.Release, "-", "-" },
        { "placed", CommandType.Release, "-", "-" },
        { "paid", CommandType.Release, "-", "-" },
        { "shipped", CommandType.Release, "-", "-" },
        { "delivered", CommandType.Release, "-", "-" },
        { "cancelled", CommandType.Release, "-", "-" },
        { "none", CommandType.Return, "-", "-" },
        { "placed", CommandType.Return, "quantity-exceeded", "quantity-exceeded" },
        { "paid", CommandType.Return, "quantity-exceeded", "quantity-exceeded" },
        { "shipped", CommandType.Return, "shipped", "shipped" },
        { "delivered", CommandType.Return, "delivered", "delivered" },
        { "cancelled", CommandType.Return, "quantity-exceeded", "quantity-exceeded" },
        { "none", CommandType.Refund, "-", "-" },
        { "placed", CommandType.Refund, "refund-exceeds-paid", "refund-exceeds-paid" },
        { "paid", CommandType.Refund, "paid", "paid" },
        { "shipped", CommandType.Refund, "refund-exceeds-paid", "refund-exceeds-paid" },
        { "delivered", CommandType.Refund, "refund-exceeds-paid", "refund-exceeds-paid" },
        { "cancelled", CommandType.Refund, "refund-exceeds-paid", "refund-exceeds-paid" },
    };

    public static TheoryData<string, string, string, string> HeadTable { get; } = [.. Table.Where(row => !Samples.Command(row.Data.Item2).NeedsStream)];

    [Theory]
    [MemberData(nameof(Table))]
    public void An_order_answers_a_command_as_its_status_says(string status, string command, string answer, string answerPaymentFirst)
    {
        var order = Samples.OrderThatIs(status);

        Assert.Equal(answer, Answer(order, OrderDecider.Decide(order, Samples.Command(command), OrderRules.Default)));
        Assert.Equal(answerPaymentFirst, Answer(order, OrderDecider.Decide(order, Samples.Command(command), PaymentFirst)));
    }

    [Theory]
    [MemberData(nameof(HeadTable))]
    public void The_head_of_a_stream_is_enough_to_decide(string status, string command, string answer, string answerPaymentFirst)
    {
        var folded = Samples.OrderThatIs(status);
        var head = Order.AtHead(folded.OrderId, folded.Status, folded.Version, folded.Currency, folded.TotalMinor)
            .WithPayments(status == "paid" ? Samples.Payments : []);

        Assert.Equal(answer, Answer(head, OrderDecider.Decide(head, Samples.Command(command), OrderRules.Default)));
        Assert.Equal(answerPaymentFirst, Answer(head, OrderDecider.Decide(head, Samples.Command(command), PaymentFirst)));
    }

    [Fact]
    public void The_table_above_has_every_state_and_every_command()
    {
        var rows = Table.Select(row => (row.Data.Item1, row.Data.Item2)).ToList();

        var all = Enum.GetValues<OrderStatus>().SelectMany(status => CommandType.All.Select(command => (status.ToWire(), command)));
        Assert.Equal(all.Order(), rows.Order());
    }

    [Fact]
    public void A_placed_order_costs_the_sum_of_its_lines()
    {
        var place = Samples.Place with { Lines = [new OrderLine("A", 2, 49_90), new OrderLine("B", 3, 1)] };

        var placed = Accepted<OrderEvent.Placed>(OrderDecider.Decide(Order.None(place.OrderId), place, OrderRules.Default));

        Assert.Equal(99_83, placed.TotalMinor);
        Assert.Equal(place.Personal, placed.Personal);
        Assert.Equal(place.PlacedAt, placed.PlacedAt);
    }

    [Fact]
    public void A_sum_beyond_every_amount_is_refused_and_not_thrown()
    {
        var place = Samples.Place with { Lines = [.. Enumerable.Repeat(new OrderLine("A", int.MaxValue, long.MaxValue), 500)] };

        Assert.Equal(
            RefusalCode.AmountOutOfRange,
            Assert.IsType<Decision.Refused>(OrderDecider.Decide(Order.None("A-1"), place, OrderRules.Default)).Code);
    }

    [Theory]
    [InlineData("EUR", "49.9", "49.90")]
    [InlineData("EUR", "49.900", "49.90")]
    [InlineData("JPY", "1500", "1500")]
    [InlineData("KWD", "1.5", "1.500")]
    [InlineData("EUR", "49.901", null)]
    [InlineData("JPY", "1.5", null)]
    public void A_payment_is_recorded_with_the_decimals_of_the_orders_currency(string code, string amount, string? recorded)
    {
        Assert.True(Currency.TryGet(code, out var currency));
        var order = Order.AtHead("A-1", OrderStatus.Placed, 1, currency, 1_000_000).WithPayments([]);

        var decision = OrderDecider.Decide(order, new OrderCommand.Pay("A-1", "P-1", Samples.Decimal(amount)), OrderRules.Default);

        if (recorded is null)
        {
            Assert.Equal(RefusalCode.AmountPrecision, Assert.IsType<Decision.Refused>(decision).Code);
        }
        else
        {
            Assert.Equal(recorded, Samples.Text(Accepted<OrderEvent.PaymentReceived>(decision).Amount));
        }
    }

    [Fact]
    public void Early_commands_are_decided_in_the_order_of_an_orders_life()
    {
        Assert.Equal(CommandType.All, CommandType.All.Reverse().Select(Samples.Command).OrderBy(command => command.LifecycleRank).ThenBy(command => command.Type).Select(command => command.Type));
        // What is cancelled of it is not shipped.
        Assert.True(new OrderCommand.Cancel("A-1", "sold out", [new("1", 1)]).LifecycleRank < Samples.Command(CommandType.Ship).LifecycleRank);
    }

    [Fact]
    public void Whatever_is_asked_in_whatever_order_an_order_only_takes_legal_steps()
    {
        var legal = new HashSet<(OrderStatus, OrderStatus)>
        {
            (OrderStatus.None, OrderStatus.Placed), (OrderStatus.Placed, OrderStatus.Paid), (OrderStatus.Placed, OrderStatus.Shipped),
            (OrderStatus.Placed, OrderStatus.Cancelled), (OrderStatus.Paid, OrderStatus.Shipped), (OrderStatus.Paid, OrderStatus.Cancelled),
            (OrderStatus.Shipped, OrderStatus.Delivered),
        };

        Gen.Select(Generators.Command.Array[0, 20], Gen.Bool).Sample((commands, paymentFirst) =>
        {
            var rules = new OrderRules(paymentFirst);
            var order = Order.None("A-1");
            var events = new List<OrderEvent>();
            foreach (var command in commands)
            {
                var decision = OrderDecider.Decide(order, command, rules);
                Assert.Equal(decision, OrderDecider.Decide(order, command, rules), SameDecision);
                if (decision is Decision.Accepted accepted)
                {
                    foreach (var happened in Events(accepted))
                    {
                        var next = order.Apply(happened);
                        Assert.True(legal.Contains((order.Status, next.Status)) || ((command is OrderCommand.Pay || command.NeedsStream) && order.Status == next.Status));
                        Assert.False(paymentFirst && order.DueMinor > 0 && (order.Status, next.Status) == (OrderStatus.Placed, OrderStatus.Shipped));
                        Assert.Equal(order.Version + 1, next.Version);
                        order = next;
                        events.Add(happened);
                    }
                }
                else if (decision is not Decision.AlreadyDone)
                {
                    Assert.Equal(decision is Decision.OrderUnknown, order.Status == OrderStatus.None && command is not OrderCommand.Place);
                }
            }

            // The state is nothing but the fold of what happened.
            var folded = Order.Fold("A-1", events);
            Assert.Equal(
                (order.Status, order.Version, order.TotalMinor, order.PaidMinor, order.IsPaid, order.PaymentStatus, order.FulfillmentStatus, order.NeedsStream),
                (folded.Status, folded.Version, folded.TotalMinor, folded.PaidMinor, folded.IsPaid, folded.PaymentStatus, folded.FulfillmentStatus, folded.NeedsStream));
            Assert.Equal(order.Payments, folded.Payments);
        });
    }

    private static bool SameDecision(Decision one, Decision other) => one switch
    {
        // Lists are not compared item by item.
        Decision.Accepted accepted => other is Decision.Accepted same && accepted.Events.Select(happened => happened.Type).SequenceEqual(same.Events.Select(happened => happened.Type)),
        _ => one.Equals(other),
    };

    private static IEnumerable<OrderEvent> Events(Decision.Accepted accepted) => accepted.Events;

    private static string Answer(Order order, Decision decision) => decision switch
    {
        Decision.Accepted accepted => Events(accepted).Aggregate(order, (state, happened) => state.Apply(happened)).Status.ToWire(),
        Decision.Refused refused => refused.Code,
        _ => "-",
    };

    private static T Accepted<T>(Decision decision)
        where T : OrderEvent => Assert.IsType<T>(Assert.IsType<Decision.Accepted>(decision).Event);
}

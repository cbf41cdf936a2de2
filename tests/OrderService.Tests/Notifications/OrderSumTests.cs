using OrderService.Domain;
using OrderService.Notifications;
using OrderService.Tests.Domain;

namespace OrderService.Tests.Notifications;

public sealed class OrderSumTests
{
    [Fact]
    public void A_plain_order_is_its_lines_and_their_total() =>
        Assert.Equal(["  2 x KB-01  49.90 EUR", "", "Total: 99.80 EUR"], OrderSum.Of(Samples.Placed));

    [Fact]
    public void What_a_customer_reads_adds_up_to_the_total()
    {
        var place = Samples.Place with
        {
            Lines =
            [
                new OrderLine("KB-01", 2, 49_90) { Details = new LineDetails { Name = "Keyboard", Discount = 9.8m, Tax = new Tax(20, null, false) } },
                new OrderLine("M-1", 1, 11_90) { Details = new LineDetails { Tax = new Tax(19, null, true) } },
            ],
            Details = new OrderDetails { ShippingCost = 4.9m, Discounts = [new Discount(5, "SPRING", null)] },
        };
        var placed = Assert.IsType<OrderEvent.Placed>(Assert.IsType<Decision.Accepted>(OrderDecider.Decide(Order.None("A-1"), place, OrderRules.Default)).Event);

        Assert.Equal(
            [
                "  2 x Keyboard  49.90 EUR", "    less 9.80 EUR", "  1 x M-1  11.90 EUR", "", "Shipping: 4.90 EUR", "Discount SPRING: -5.00 EUR", "Tax (20 %): 18.00 EUR", "Total: 119.80 EUR",
                "  of which tax (19 %): 1.90 EUR",
            ],
            OrderSum.Of(placed));
    }
}

using System.Numerics;
using CsCheck;
using OrderService.Domain;

namespace OrderService.Tests.Domain;

public sealed class PricingTests
{
    [Theory]
    // 3 x 0.05 at 10 % on top: 0.005 each.
    [InlineData(TaxRounding.LineHalfUp, "EUR", "0.05", "10", false, "0.18", "0.03")]
    [InlineData(TaxRounding.LineHalfEven, "EUR", "0.05", "10", false, "0.15", "0.00")]
    [InlineData(TaxRounding.OrderHalfUp, "EUR", "0.05", "10", false, "0.17", "0.02")]
    [InlineData(TaxRounding.OrderHalfEven, "EUR", "0.05", "10", false, "0.17", "0.02")]
    // The price holds the tax: the total stays.
    [InlineData(TaxRounding.LineHalfUp, "EUR", "11.90", "19", true, "35.70", "5.70")]
    [InlineData(TaxRounding.LineHalfUp, "EUR", "9.99", "7.7", true, "29.97", "2.13")]
    [InlineData(TaxRounding.OrderHalfUp, "EUR", "9.99", "7.7", true, "29.97", "2.14")]
    // Without decimals.
    [InlineData(TaxRounding.LineHalfUp, "JPY", "105", "10", false, "348", "33")]
    [InlineData(TaxRounding.LineHalfEven, "JPY", "105", "10", false, "345", "30")]
    [InlineData(TaxRounding.OrderHalfUp, "JPY", "105", "10", false, "347", "32")]
    [InlineData(TaxRounding.LineHalfUp, "KWD", "1.005", "5", false, "3.165", "0.150")]
    public void Taxes_are_rounded_as_the_shop_says(TaxRounding rounding, string code, string price, string rate, bool included, string total, string tax)
    {
        Assert.True(Currency.TryGet(code, out var currency));
        Assert.True(Money.TryToMinor(Samples.Decimal(price), currency, out var minor));
        var line = new OrderLine("A", 1, minor) { Details = new LineDetails { Tax = new Tax(Samples.Decimal(rate), null, included) } };

        var priced = Price(currency, [line, line, line], null, rounding);

        Assert.Equal(total, Money.Format(priced.TotalMinor, currency));
        Assert.Equal(tax, Samples.Text(Assert.Single(priced.Details!.Taxes).Amount));
    }

    [Fact]
    public void An_order_costs_its_lines_less_discounts_with_shipping_and_taxes_on_top()
    {
        var priced = Price(
            Samples.Euro,
            [
                new OrderLine("A", 2, 10_00) { Details = new LineDetails { Discount = 2, Tax = new Tax(20, null, false) } },
                new OrderLine("B", 1, 5_00) { Details = new LineDetails { Tax = new Tax(7, 0.33m, true) } },
                new OrderLine("C", 1, 1_00),
            ],
            new OrderDetails { ShippingCost = 5, ShippingTax = new Tax(20, null, false), Discounts = [new Discount(4, "SPRING", null)] });

        // 18.00 + 3.60 + 5.00 + 1.00 + 5.00 + 1.00 - 4.00
        Assert.Equal(29_60, priced.TotalMinor);
        Assert.Equal([21_60, 5_00, 1_00], priced.LineTotals);
        Assert.Equal([new TaxSum(7, true, 0.33m), new TaxSum(20, false, 4.60m)], priced.Details!.Taxes);
    }

    [Theory]
    [InlineData("29.59", "total is 29.59 and the order adds up to 29.60 EUR; mend the one that is wrong, or leave total out.")]
    [InlineData("29.60", null)]
    [InlineData("29.6", null)]
    public void A_total_that_is_not_the_sum_is_told_with_both(string total, string? detail)
    {
        var details = new OrderDetails { Total = Samples.Decimal(total) };
        var lines = new[] { new OrderLine("A", 1, 29_60) };

        Pricing.TryPrice(Samples.Euro, lines, details, TaxRounding.LineHalfUp, checkTotal: true, out var fault);

        Assert.Equal(detail, fault?.Detail);
        Assert.Equal(detail is null ? null : PricingFaultKind.TotalMismatch, fault?.Kind);
        var decision = OrderDecider.Decide(Order.None("A-1"), Samples.Place with { Lines = lines, Details = details }, OrderRules.Default);
        Assert.Equal(detail is null ? typeof(Decision.Accepted) : typeof(Decision.Contradiction), decision.GetType());
    }

    [Fact]
    public void Discounts_never_make_an_order_cost_less_than_nothing()
    {
        OrderLine[] lines = [new OrderLine("A", 1, 5_00)];

        Assert.Equal(0, Price(Samples.Euro, lines, new OrderDetails { Discounts = [new Discount(5, null, null)] }).TotalMinor);
        Assert.Equal("/discounts", Fault(lines, new OrderDetails { Discounts = [new Discount(5.01m, null, null)] }).Pointer);
        Assert.Equal("/lines/0/discount", Fault([lines[0] with { Details = new LineDetails { Discount = 5.01m } }], null).Pointer);
        Assert.Equal("/lines/0/tax/amount", Fault([lines[0] with { Details = new LineDetails { Tax = new Tax(19, 5.01m, true) } }], null).Pointer);
    }

    [Fact]
    public void Every_total_agrees_with_arithmetic_that_has_no_limits() =>
        Gen.Select(Generators.DetailedPlace, Gen.Enum<TaxRounding>()).Sample((place, rounding) =>
        {
            var priced = Price(place.Currency, place.Lines, place.Details, rounding);

            var scale = BigInteger.Pow(10, place.Currency.Decimals);
            BigInteger Minor(decimal? amount) => new BigInteger((amount ?? 0) * 10_000) * scale / 10_000;
            var sum = place.Lines.Aggregate(BigInteger.Zero, (total, line) => total + (new BigInteger(line.Quantity) * line.UnitPriceMinor) - Minor(line.Details?.Discount));
            sum += Minor(place.Details?.ShippingCost) - (place.Details?.Discounts ?? []).Aggregate(BigInteger.Zero, (total, discount) => total + Minor(discount.Amount));
            var onTop = (priced.Details?.Taxes ?? []).Where(tax => !tax.Included).Aggregate(BigInteger.Zero, (total, tax) => total + Minor(tax.Amount));
            Assert.Equal(sum + onTop, priced.TotalMinor);

            // Rounding once or by line: each tax is off by half a unit at most.
            var other = Price(place.Currency, place.Lines, place.Details, rounding is TaxRounding.LineHalfUp ? TaxRounding.OrderHalfUp : TaxRounding.LineHalfUp);
            Assert.InRange(Math.Abs(priced.TotalMinor - other.TotalMinor), 0, (place.Lines.Count + 2) / 2 + 1);
        });

    [Fact]
    public void Lines_without_details_cost_what_they_always_did() => Generators.Line.Array[1, 20].Sample(lines =>
    {
        Assert.True(Money.TryTotal(lines, out var total));
        var priced = Price(Samples.Euro, lines, null);
        Assert.Equal((total, null), (priced.TotalMinor, priced.Details));
    });

    private static Priced Price(Currency currency, IReadOnlyList<OrderLine> lines, OrderDetails? details, TaxRounding rounding = TaxRounding.LineHalfUp)
    {
        var priced = Pricing.TryPrice(currency, lines, details, rounding, checkTotal: true, out var fault);
        Assert.Null(fault);
        return priced!;
    }

    private static PricingFault Fault(IReadOnlyList<OrderLine> lines, OrderDetails? details)
    {
        Assert.Null(Pricing.TryPrice(Samples.Euro, lines, details, TaxRounding.LineHalfUp, checkTotal: true, out var fault));
        return fault!;
    }
}

using CsCheck;
using System.Numerics;
using OrderService.Domain;

namespace OrderService.Tests.Domain;

public sealed class MoneyTests
{
    [Theory]
    [InlineData("EUR", 2)]
    [InlineData("USD", 2)]
    [InlineData("JPY", 0)]
    [InlineData("KWD", 3)]
    [InlineData("CLF", 4)]
    public void A_currency_knows_its_decimals(string code, int decimals)
    {
        Assert.True(Currency.TryGet(code, out var currency));
        Assert.Equal((code, decimals), (currency.Code, currency.Decimals));
    }

    [Theory]
    [InlineData("XXX")]
    [InlineData("XTS")]
    [InlineData("XAU")]
    [InlineData("XDR")]
    [InlineData("usd")]
    [InlineData("US$")]
    [InlineData("EUR ")]
    [InlineData("EU")]
    [InlineData("ＥＵＲ")]
    [InlineData("HRK")]
    [InlineData("")]
    [InlineData(null)]
    public void What_is_no_currency_in_use_is_not_found(string? code) => Assert.False(Currency.TryGet(code, out _));

    [Fact]
    public void The_table_is_the_whole_of_ISO_4217_each_code_once()
    {
        Assert.Equal(Currency.All.Count, Currency.All.Select(currency => currency.Code).Distinct().Count());
        Assert.InRange(Currency.All.Count, 160, 170);
        Assert.All(Currency.All, currency => Assert.True(
            Currency.TryGet(System.Text.Encoding.ASCII.GetBytes(currency.Code), out var found) && ReferenceEquals(found, currency)));
    }

    [Theory]
    [InlineData("EUR", 9980, "99.80")]
    [InlineData("EUR", 5, "0.05")]
    [InlineData("EUR", 0, "0.00")]
    [InlineData("EUR", -5, "-0.05")]
    [InlineData("JPY", 1500, "1500")]
    [InlineData("KWD", 1500, "1.500")]
    [InlineData("EUR", Money.MaxMinor, "9999999999999.99")]
    public void Amounts_are_written_with_the_currencys_decimals(string code, long minor, string text)
    {
        Assert.True(Currency.TryGet(code, out var currency));

        Assert.Equal(text, Money.Format(minor, currency));
        Assert.True(Money.TryToMinor(Samples.Decimal(text), currency, out var back));
        Assert.Equal(minor, back);
    }

    [Theory]
    [InlineData("EUR", "0.001")]
    [InlineData("JPY", "0.5")]
    [InlineData("EUR", "1.0000000000000000000000000001")]
    [InlineData("EUR", "10000000000000")]
    [InlineData("EUR", "79228162514264337593543950335")]
    public void What_does_not_fit_is_told_and_neither_rounded_nor_thrown(string code, string amount)
    {
        Assert.True(Currency.TryGet(code, out var currency));

        Assert.False(Money.TryToMinor(Samples.Decimal(amount), currency, out _));
        Assert.Null(Money.WithDecimalsOf(Samples.Decimal(amount), currency));
    }

    [Fact]
    public void Totals_agree_with_arithmetic_that_has_no_limits() =>
        Gen.Select(Gen.Int, Gen.Long, (quantity, price) => new OrderLine("A", quantity, price)).Array[0, 500].Sample(lines =>
        {
            var exact = lines.Aggregate(BigInteger.Zero, (sum, line) => sum + (new BigInteger(line.Quantity) * line.UnitPriceMinor));

            var fits = Money.TryTotal(lines, out var total);

            Assert.Equal(BigInteger.Abs(exact) <= Money.MaxMinor, fits);
            Assert.Equal(fits ? exact : 0, total);
        });

    [Fact]
    public void Statuses_keep_their_written_names()
    {
        Assert.Equal(["none", "placed", "paid", "shipped", "delivered", "cancelled"], Enum.GetValues<OrderStatus>().Select(status => status.ToWire()));
        Assert.All(Enum.GetValues<OrderStatus>(), status => Assert.True(OrderStatusNames.TryParse(status.ToWire(), out var back) && back == status));
        Assert.False(OrderStatusNames.TryParse("Placed", out _));
        Assert.False(OrderStatusNames.TryParse(null, out _));
    }
}

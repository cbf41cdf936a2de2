using System.Text;
using OrderService.Domain;
using OrderService.Inbox;

namespace OrderService.Tests.Inbox;

/// <summary>What an order may say beyond its lines, read as strictly as the rest.</summary>
public sealed class OrderDetailsTests
{
    private const string Line = """{"sku":"KB-01","quantity":2,"unitPrice":49.90}""";

    /// <summary>More members of the order, more members of its line, reason, field.</summary>
    public static TheoryData<string, string, string, string> Mistakes { get; } = new()
    {
        { ",\"shippingCost\":\"4.90\"", "", RejectionReason.WrongType, "/shippingCost" },
        { ",\"shippingCost\":-1", "", RejectionReason.AmountOutOfRange, "/shippingCost" },
        { ",\"shippingCost\":4.901", "", RejectionReason.AmountPrecision, "/shippingCost" },
        { ",\"shippingCost\":1,\"shippingCost\":1", "", RejectionReason.DuplicateField, "/shippingCost" },
        { ",\"shippingTax\":{\"rate\":19}", "", RejectionReason.MissingField, "/shippingTax/included" },
        { ",\"shippingTax\":{\"rate\":101,\"included\":true}", "", RejectionReason.AmountOutOfRange, "/shippingTax/rate" },
        { ",\"shippingTax\":{\"rate\":19,\"included\":1}", "", RejectionReason.WrongType, "/shippingTax/included" },
        { ",\"shippingTax\":[]", "", RejectionReason.WrongType, "/shippingTax" },
        { ",\"discounts\":{}", "", RejectionReason.WrongType, "/discounts" },
        { ",\"discounts\":[1]", "", RejectionReason.WrongType, "/discounts/0" },
        { ",\"discounts\":[{\"amount\":1},{\"code\":\"X\"}]", "", RejectionReason.MissingField, "/discounts/1/amount" },
        { ",\"discounts\":[{\"amount\":1,\"cod\":\"X\"}]", "", RejectionReason.UnknownField, "/discounts/0" },
        { ",\"discounts\":[{\"amount\":100}]", "", RejectionReason.AmountOutOfRange, "/discounts" },
        { ",\"discounts\":[{\"amount\":1.001}]", "", RejectionReason.AmountPrecision, "/discounts/0/amount" },
        { ",\"total\":99.801", "", RejectionReason.AmountPrecision, "/total" },
        { ",\"attributes\":[]", "", RejectionReason.WrongType, "/attributes" },
        { ",\"attributes\":{\"a\":1}", "", RejectionReason.WrongType, "/attributes" },
        { ",\"attributes\":{\"a\":\" \"}", "", RejectionReason.TextInvalid, "/attributes" },
        { ",\"attributes\":{\"\":\"x\"}", "", RejectionReason.TextInvalid, "/attributes" },
        { ",\"attributes\":{\"a\":\"1\",\"\\u0061\":\"2\"}", "", RejectionReason.DuplicateField, "/attributes" },
        { ",\"attributes\":{" + string.Join(',', Enumerable.Range(0, 51).Select(number => $"\"k{number}\":\"v\"")) + "}", "", RejectionReason.TooManyEntries, "/attributes" },
        { ",\"attributes\":{\"" + new string('k', 41) + "\":\"v\"}", "", RejectionReason.TextInvalid, "/attributes" },
        { ",\"attributes\":{\"k\":\"" + new string('v', 501) + "\"}", "", RejectionReason.TextInvalid, "/attributes" },
        { ",\"channel\":7", "", RejectionReason.WrongType, "/channel" },
        { ",\"channels\":\"web\"", "", RejectionReason.UnknownField, "" },
        { ",\"expectedVersion\":-1", "", RejectionReason.WrongType, "/expectedVersion" },
        { ",\"expectedVersion\":\"1\"", "", RejectionReason.WrongType, "/expectedVersion" },
        { "", ",\"lineId\":\"a b\"", RejectionReason.IdInvalid, "/lines/0/lineId" },
        { "", ",\"lineId\":\"2\"", RejectionReason.IdInvalid, "/lines" },
        { "", ",\"discount\":99.81", RejectionReason.AmountOutOfRange, "/lines/0/discount" },
        { "", ",\"discount\":0.001", RejectionReason.AmountPrecision, "/lines/0/discount" },
        { "", ",\"tax\":{\"included\":true}", RejectionReason.MissingField, "/lines/0/tax/rate" },
        { "", ",\"tax\":{\"rate\":19,\"included\":true,\"amount\":200}", RejectionReason.AmountOutOfRange, "/lines/0/tax/amount" },
        { "", ",\"tax\":{\"rate\":19,\"included\":true,\"name\":\"VAT\"}", RejectionReason.UnknownField, "/lines/0/tax" },
        { "", ",\"attributes\":{\"colour\":null}", RejectionReason.WrongType, "/lines/0/attributes" },
        { "", ",\"name\":\"\"", RejectionReason.TextInvalid, "/lines/0/name" },
        { "", ",\"colour\":\"red\"", RejectionReason.UnknownField, "/lines/0" },
    };

    [Theory]
    [MemberData(nameof(Mistakes))]
    public void A_mistake_is_told_with_its_place(string order, string line, string reason, string field)
    {
        Assert.False(EnvelopeDecoder.TryDecodeBody(CommandType.Place, Body(order, line), null, out _, out var rejection));

        Assert.Equal((reason, field), (rejection.Reason, rejection.Field));
        Assert.EndsWith(".", rejection.Detail, StringComparison.Ordinal);
    }

    [Fact]
    public void Everything_an_order_may_say_is_read()
    {
        var place = Read(
            ",\"shippingCost\":4.90,\"shippingTax\":{\"rate\":19,\"included\":true},\"discounts\":[{\"amount\":5,\"code\":\"SPRING\",\"name\":\"Spring sale\"}],\"total\":99.70,"
            + "\"attributes\":{\"gift\":\"yes\"},\"channel\":\"web\",\"externalReferences\":{\"purchaseOrder\":\"PO-7\"},\"expectedVersion\":0",
            ",\"lineId\":\"a\",\"name\":\"Keyboard\",\"tax\":{\"rate\":7.7,\"amount\":1.00,\"included\":false},\"discount\":1,\"attributes\":{\"colour\":\"red\"}");

        var (line, details) = (place.Lines[0].Details!, place.Details!);
        Assert.Equal(("a", "Keyboard", 1m, new Tax(7.7m, 1m, false)), (line.LineId, line.Name, line.Discount, line.Tax));
        Assert.Equal([new("colour", "red")], line.Attributes);
        Assert.Equal((4.90m, new Tax(19, null, true), 99.70m, "web", 0L), (details.ShippingCost, details.ShippingTax, details.Total, details.Channel, place.ExpectedVersion));
        Assert.Equal([new Discount(5, "SPRING", "Spring sale")], details.Discounts);
        Assert.Equal([new("gift", "yes")], details.Attributes);
        Assert.Equal([new("purchaseOrder", "PO-7")], details.ExternalReferences);
        Assert.Equal(["a", "2"], [LineIds.Of(place.Lines, 0), LineIds.Of(place.Lines, 1)]);
    }

    [Fact]
    public void An_order_without_any_of_it_is_plain()
    {
        Assert.True(Read("", "").IsPlain);
        Assert.False(Read(",\"channel\":\"web\"", "").IsPlain);
        Assert.False(Read("", ",\"name\":\"Keyboard\"").IsPlain);
    }

    [Theory]
    [MemberData(nameof(Types))]
    public void No_command_is_ever_read_as_another(string type)
    {
        var body = Encoding.UTF8.GetBytes(type == CommandType.Place ? CommandShapes.Of(type).Example : CommandShapes.Of(type).Example);

        Assert.True(EnvelopeDecoder.TryDecodeBody(type, body, "A-1001", out var command, out var rejection), rejection?.Detail);
        Assert.Equal(type, command.Type);
        Assert.Throws<KeyNotFoundException>(() => CommandShapes.Of("order.forget"));
    }

    public static TheoryData<string> Types { get; } = [.. CommandType.All];

    [Fact]
    public void The_table_of_commands_has_every_command() => Assert.Equal(CommandType.All, CommandShapes.All.Select(shape => shape.Type));

    private static OrderCommand.Place Read(string order, string line)
    {
        Assert.True(EnvelopeDecoder.TryDecodeBody(CommandType.Place, Body(order, line), null, out var command, out var rejection), $"{rejection?.Field} {rejection?.Detail}");
        return Assert.IsType<OrderCommand.Place>(command);
    }

    private static byte[] Body(string order, string line) => Encoding.UTF8.GetBytes(
        $"{{\"orderId\":\"A-1\",\"customerId\":\"C-7\",\"currency\":\"EUR\",\"lines\":[{Line[..^1]}{line}}},{{\"sku\":\"B\",\"quantity\":1,\"unitPrice\":0}}]{order}}}");
}

using System.Buffers;
using System.Text;
using System.Text.Json;
using CsCheck;
using OrderService.Domain;
using OrderService.Store;
using OrderService.Tests.Domain;

namespace OrderService.Tests.Store;

public sealed class EventSerializerTests
{
    [Fact]
    public void A_placed_order_is_stored_like_this() => Assert.Equal(
        """{"customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}],"total":99.80,"placedAt":"2026-01-31T12:00:00+01:00"}""",
        Text(Samples.Placed with { Personal = null }));

    [Fact]
    public void What_is_personal_is_stored_for_whoever_has_the_key()
    {
        var text = Text(Samples.Placed);

        Assert.StartsWith(Text(Samples.Placed with { Personal = null })[..^1] + ",\"personal\":\"AP9zZWFsZQ", text, StringComparison.Ordinal);
        Assert.DoesNotContain("someone", text, StringComparison.Ordinal);
        Assert.Equal(Samples.Placed.Personal, ((OrderEvent.Placed)EventSerializer.Read(EventType.Placed, Encoding.UTF8.GetBytes(text), Open)).Personal);
        Assert.Null(((OrderEvent.Placed)EventSerializer.Read(EventType.Placed, Encoding.UTF8.GetBytes(text))).Personal);
        Assert.True(((OrderEvent.Placed)EventSerializer.Read(EventType.Placed, Encoding.UTF8.GetBytes(text), _ => null)).Personal!.IsForgotten);
        Assert.Throws<InvalidOperationException>(() => EventSerializer.Serialize(Samples.Placed));
    }

    [Fact]
    public void The_address_that_a_version_before_the_keys_stored_is_read()
    {
        var stored = Encoding.UTF8.GetBytes(Text(Samples.Placed with { Personal = null })[..^1] + ",\"email\":\"someone@example.org\"}");

        Assert.Equal(Samples.Placed.Personal, ((OrderEvent.Placed)EventSerializer.Read(EventType.Placed, stored, Open)).Personal);
    }

    [Theory]
    [InlineData("49.90", """{"paymentReference":"P-1","amount":49.90}""")]
    [InlineData("1500", """{"paymentReference":"P-1","amount":1500}""")]
    public void A_payment_keeps_the_decimals_of_its_currency(string amount, string json) =>
        Assert.Equal(json, Text(new OrderEvent.Paid("P-1", Samples.Decimal(amount))));

    [Fact]
    public void What_is_absent_is_left_out()
    {
        Assert.Equal("""{"paymentReference":"P-1"}""", Text(new OrderEvent.Paid("P-1", null)));
        Assert.Equal("{}", Text(new OrderEvent.Shipped(null, null)));
        Assert.Equal("{}", Text(new OrderEvent.Delivered()));
        Assert.Equal("""{"reason":"x"}""", Text(new OrderEvent.Cancelled("x")));
    }

    [Fact]
    public void What_is_stored_is_read_back_the_same() => Generators.Event.Sample(happened =>
    {
        var data = EventSerializer.Serialize(happened, KeyOf);

        var back = EventSerializer.Read(happened.Type, data, Open);

        if (happened is OrderEvent.Placed detailed && !Pricing.IsPlain(detailed.Lines, detailed.Details))
        {
            // The bytes say it all: lists are not compared item by item.
            Assert.IsType<OrderEvent.Placed>(back);
        }
        else if (happened is OrderEvent.Placed placed)
        {
            var read = Assert.IsType<OrderEvent.Placed>(back);
            Assert.Equal(placed.Lines, read.Lines);
            Assert.Equal(placed with { Lines = read.Lines }, read);
        }
        else if (happened is not (OrderEvent.PartlyShipped or OrderEvent.Shipped { Lines: not null } or OrderEvent.Returned or OrderEvent.LinesCancelled or OrderEvent.Amended))
        {
            Assert.Equal(happened, back);
        }
    });

    [Fact]
    public void The_order_is_the_same_after_a_round_through_the_store() => Generators.Event.Array[0, 6].Sample(events =>
    {
        var stored = events.Select(happened => EventSerializer.Read(happened.Type, EventSerializer.Serialize(happened, KeyOf), Open));

        var (before, after) = (Order.Fold("A-1", events), Order.Fold("A-1", stored));

        Assert.Equal(before.Lines.Select(line => line with { Details = null }), after.Lines.Select(line => line with { Details = null }));
        Assert.Equal(Shown(before), Shown(after));

    });

    [Fact]
    public void Members_of_a_newer_version_and_any_order_of_members_are_read()
    {
        const string Json =
            """{"total":3,"gift":{"note":[1,{"email":"x"}]},"lines":[{"unitPrice":1.5,"color":"red","quantity":2,"sku":"A"}],"currency":"EUR","customerId":"C","email":null,"placedAt":null}""";

        var placed = Assert.IsType<OrderEvent.Placed>(EventSerializer.Read(EventType.Placed, Encoding.UTF8.GetBytes(Json)));

        Assert.Equal((3_00, "C", null), (placed.TotalMinor, placed.CustomerId, placed.Personal));
        Assert.Equal([new OrderLine("A", 2, 1_50)], placed.Lines);
    }

    [Theory]
    [InlineData(EventType.Placed, "{}")]
    [InlineData(EventType.Placed, """{"customerId":"C","currency":"XXX","lines":[],"total":1}""")]
    [InlineData(EventType.Placed, """{"customerId":"C","currency":"EUR","lines":[],"total":0.001}""")]
    [InlineData(EventType.Placed, """{"customerId":"C","currency":"EUR","lines":[],"total":"1"}""")]
    [InlineData(EventType.Paid, "{}")]
    [InlineData(EventType.Cancelled, "[]")]
    [InlineData(EventType.Cancelled, "")]
    [InlineData(EventType.Shipped, "{")]
    [InlineData("ORDER_LOST", "{}")]
    public void Data_that_cannot_be_read_is_told_as_such(string type, string json) =>
        Assert.Throws<InvalidDataException>(() => EventSerializer.Read(type, Encoding.UTF8.GetBytes(json)));

    [Fact]
    public void Without_personal_data_the_address_is_gone_and_nothing_else()
    {
        var output = new ArrayBufferWriter<byte>();
        using (var writer = new Utf8JsonWriter(output))
        {
            EventSerializer.WriteData(Samples.Placed, writer);
        }

        Assert.Equal(Text(Samples.Placed with { Personal = null }), Encoding.UTF8.GetString(output.WrittenSpan));
    }

    private static object Shown(Order order) => (
        (order.Status, order.Version, order.CustomerId, order.Currency, order.TotalMinor, order.Personal, order.PlacedAt),
        (order.PaymentReference, order.PaidMinor, order.IsPaid, order.Carrier, order.TrackingNumber, order.CancelReason));

    [Fact]
    public void An_order_with_everything_is_stored_like_this()
    {
        var place = Samples.Place with
        {
            Lines = [new OrderLine("KB-01", 2, 49_90) { Details = new LineDetails { LineId = "a", Name = "Keyboard", Discount = 9.8m, Tax = new Tax(19, null, true), Attributes = [new("colour", "red")] } }],
            Details = new OrderDetails
            {
                ShippingCost = 4.9m,
                ShippingTax = new Tax(19, null, true),
                Discounts = [new Discount(5, "SPRING", null)],
                Total = 89.9m,
                Channel = "web",
                Attributes = [new("gift", "yes")],
                ExternalReferences = [new("purchaseOrder", "PO-7")],
            },
        };
        var accepted = Assert.IsType<Decision.Accepted>(OrderDecider.Decide(Order.None("A-1"), place, OrderRules.Default));

        Assert.Equal(
            """{"customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90,"lineId":"a","name":"Keyboard","discount":9.80,"tax":{"rate":19,"included":true,"amount":14.37},"attributes":{"colour":"red"}}],"total":89.90,"placedAt":"2026-01-31T12:00:00+01:00","shippingCost":4.90,"shippingTax":{"rate":19,"included":true},"discounts":[{"amount":5.00,"code":"SPRING"}],"taxes":[{"rate":19,"included":true,"amount":15.15}],"channel":"web","attributes":{"gift":"yes"},"externalReferences":{"purchaseOrder":"PO-7"}}""",
            Text((OrderEvent.Placed)accepted.Event with { Personal = null }));
    }

    private static SealingKey Key { get; } = new(Guid.NewGuid(), new byte[32]);

    private static SealingKey KeyOf(string customerId) => Key;

    private static byte[]? Open(byte[] bytes) => SealedBytes.Open(Key, bytes);

    private static string Text(OrderEvent happened) => Encoding.UTF8.GetString(EventSerializer.Serialize(happened, KeyOf));
}

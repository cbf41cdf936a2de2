using System.Text;
using System.Text.Json;
using CsCheck;
using OrderService.Domain;
using OrderService.Outbox;
using OrderService.Store;
using OrderService.Tests.Domain;

namespace OrderService.Tests.Outbox;

public sealed class CloudEventWriterTests
{
    private static readonly CloudEventHead Head = new(
        "A-1.1", EventType.Placed, "A-1", 1, new DateTimeOffset(2026, 1, 31, 12, 0, 0, 7, TimeSpan.FromHours(1)), "c-1", "k-1",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");

    [Fact]
    public void An_event_is_published_like_this() => Assert.Equal(
        """{"specversion":"1.0","id":"A-1.1","source":"/order-service","type":"ORDER_PLACED","subject":"A-1","time":"2026-01-31T11:00:00.007Z","datacontenttype":"application/json","data":{"customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}],"total":99.80,"placedAt":"2026-01-31T12:00:00+01:00"},"sequence":1,"correlationid":"c-1","causationid":"k-1","partitionkey":"A-1","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}""",
        Encoding.UTF8.GetString(CloudEventWriter.Write(Head, Samples.Placed)));

    [Fact]
    public void A_refusal_is_published_like_this() => Assert.Equal(
        """{"specversion":"1.0","id":"r-1","source":"/order-service","type":"ORDER_COMMAND_REFUSED","subject":"A-1","time":"2026-01-31T11:00:00.007Z","datacontenttype":"application/json","data":{"orderId":"A-1","command":"order.ship","code":"wrong-status","reason":"No.","status":"cancelled"},"correlationid":"c-1","causationid":"k-1","partitionkey":"A-1"}""",
        Encoding.UTF8.GetString(CloudEventWriter.WriteRefusal(
            Head with { EventId = "r-1", Type = EventType.CommandRefused, Version = null, TraceParent = null },
            CommandType.Ship,
            new Decision.Refused(RefusalCode.WrongStatus, "No."),
            OrderStatus.Cancelled)));

    [Fact]
    public void From_the_store_it_is_byte_for_byte_what_it_was_when_it_happened() => Generators.Event.Sample(happened =>
    {
        var head = Head with { Type = happened.Type };

        Assert.Equal(CloudEventWriter.Write(head, happened), CloudEventWriter.Write(head, EventSerializer.Serialize(happened, _ => new SealingKey(Guid.Empty, new byte[32]))));
    });

    [Fact]
    public void Personal_data_is_never_published_and_what_a_newer_version_stored_is()
    {
        var stored = """{ "email" : "someone@example.org", "personal":"AP9z", "gift": {"email":"inner"}, "\u0065mail":"again", "n\u0061me" : [1, 2] }"""u8;

        using var published = JsonDocument.Parse(CloudEventWriter.Write(Head, stored));

        Assert.Equal("""{"gift":{"email":"inner"},"name":[1, 2]}""", published.RootElement.GetProperty("data").GetRawText());
    }

    [Fact]
    public void Every_event_has_a_routing_key_of_two_words() => Generators.Event.Sample(happened =>
    {
        Assert.Equal(EventRoutingKey.Of(happened.Type), happened.RoutingKey);
        Assert.Equal(2, happened.RoutingKey.Split('.').Length);
    });
}

using System.Text;
using OrderService.Domain;

namespace OrderService.Inbox;

/// <summary>Orders that nobody placed and that are sure to be good: decided, written and undone before a message is blamed that has no neighbours to be compared with.</summary>
internal static class KnownGood
{
    /// <summary>An order as its body.</summary>
    public static byte[] Order(string orderId) => OrderOf(orderId, "");

    /// <param name="everything">Not only an order that is placed, but a command of every kind of fate.</param>
    public static IReadOnlyList<Incoming> Batch(bool everything)
    {
        // A name of its own each time: nothing of it is kept, and it must not meet another that is tried at the same moment.
        var id = $"known-good-{Guid.NewGuid():N}";
        var placed = Message(id, "place", CommandType.Place, Order(id));
        return everything
            ?
            [
                placed,
                // Found by its channel, where orders are.
                Message(id, "channel", CommandType.Place, OrderOf(id + "-channel", ",\"channel\":\"known-good\"")),
                Message(id, "cancel", CommandType.Cancel, Json(id, ",\"reason\":\"known good\"")),
                // Refused, for the order is cancelled.
                Message(id, "ship", CommandType.Ship, Json(id, "")),
                // The same for money, which is noted apart.
                Message(id, "pay", CommandType.Pay, Json(id, ",\"paymentReference\":\"known-good\"")),
                // Waits, for there is no such order.
                Message(id, "early", CommandType.Deliver, Json(id + "-never", "")),
                // Rejected, for it is no JSON.
                Message(id, "broken", CommandType.Place, "{"u8.ToArray()),
            ]
            : [placed];
    }

    private static byte[] OrderOf(string orderId, string more) => Encoding.UTF8.GetBytes(
        $$"""{"orderId":"{{orderId}}","customerId":"known-good","currency":"EUR","lines":[{"sku":"KNOWN-GOOD","quantity":1,"unitPrice":1.00}]{{more}}}""");

    private static byte[] Json(string orderId, string more) => Encoding.UTF8.GetBytes($$"""{"orderId":"{{orderId}}"{{more}}}""");

    private static Incoming Message(string id, string name, string type, byte[] body)
    {
        var properties = new MessageProperties { MessageId = $"{id}-{name}", Type = type };
        return new Incoming(EnvelopeDecoder.Decode(properties, body), body, properties);
    }
}

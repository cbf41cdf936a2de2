using OrderService.Domain;

namespace OrderService.Store;

internal static class HeadRow
{
    /// <summary>The events that tell what was paid for an order.</summary>
    public const string PaymentTypes = $"'{EventType.PaymentReceived}', '{EventType.Paid}'";

    public static OrderHead Read(string orderId, long version, OrderStatus status, string currency, byte[] lastHash, long totalMinor, PaymentStatus payment) =>
        Currency.TryGet(currency, out var known)
            ? new OrderHead(Order.AtHead(orderId, status, version, known, totalMinor, payment), lastHash)
            : throw new InvalidDataException($"Order {orderId} has the currency '{currency}', which this build does not know.");

    /// <summary>The head with what was paid; <paramref name="payments"/> are the stream's events of <see cref="PaymentTypes"/>, oldest first.</summary>
    public static OrderHead WithPayments(OrderHead head, IEnumerable<(string Type, byte[] Data)> payments) =>
        head with { Order = head.Order.WithPayments(payments.Select(payment => EventSerializer.Read(payment.Type, payment.Data))) };

    /// <summary>The head with everything its stream tells.</summary>
    /// <param name="events">The stream's events, oldest first. Those that came after the head was read are left out: what is decided upon it must meet the version it had.</param>
    public static OrderHead Whole(OrderHead head, IEnumerable<(string Type, byte[] Data)> events)
    {
        var order = Order.Fold(head.Order.OrderId, events.Take((int)head.Order.Version).Select(happened => EventSerializer.Read(happened.Type, happened.Data)));
        return order.Version == head.Order.Version
            ? head with { Order = order }
            : throw new InvalidDataException($"Order {order.OrderId} is at version {head.Order.Version} and has {order.Version} events; see orderservice verify.");
    }
}

using OrderService.Domain;

namespace OrderService.Store;

internal static class HeadRow
{
    /// <summary>The events that tell what was paid for an order.</summary>
    public const string PaymentTypes = $"'{EventType.PaymentReceived}', '{EventType.Paid}'";

    public static OrderHead Read(string orderId, long version, OrderStatus status, string currency, byte[] lastHash, long totalMinor) =>
        Currency.TryGet(currency, out var known)
            ? new OrderHead(Order.AtHead(orderId, status, version, known, totalMinor), lastHash)
            : throw new InvalidDataException($"Order {orderId} has the currency '{currency}', which this build does not know.");

    /// <summary>The head with what was paid; <paramref name="payments"/> are the stream's events of <see cref="PaymentTypes"/>, oldest first.</summary>
    public static OrderHead WithPayments(OrderHead head, IEnumerable<(string Type, byte[] Data)> payments) =>
        head with { Order = head.Order.WithPayments(payments.Select(payment => EventSerializer.Read(payment.Type, payment.Data))) };
}

using OrderService.Domain;
using OrderService.EventStore;

namespace OrderService.Database;

internal static class HeadRow
{
    public static OrderHead Read(string orderId, long version, OrderStatus status, string currency, byte[] lastHash) =>
        Currency.TryGet(currency, out var known)
            ? new OrderHead(Order.AtHead(orderId, status, version, known), lastHash)
            : throw new InvalidDataException($"Order {orderId} has the currency '{currency}', which this build does not know.");
}

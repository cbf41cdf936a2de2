using OrderService.Inbox;

namespace OrderService.RabbitMq;

/// <summary>One message in hand.</summary>
/// <param name="Tag">The broker's number for it; valid on the channel of <paramref name="Generation"/> alone.</param>
/// <param name="Body">A copy: the client takes its own buffer back when its callback returns.</param>
/// <param name="DeliveryCount">How often it was returned before, by the broker's count; 0 on a first delivery, whatever the headers claim.</param>
public sealed record Delivery(
    ulong Tag,
    ReadOnlyMemory<byte> Body,
    MessageProperties Properties,
    bool Redelivered,
    int DeliveryCount,
    string Exchange,
    string RoutingKey,
    Generation Generation) : IInboxMessage
{
    bool IInboxMessage.IsAlive => Generation.IsAlive;
}

/// <summary>A delivery and what the broker is to be told about it.</summary>
public readonly record struct SettledDelivery(Delivery Delivery, Settlement Settlement);

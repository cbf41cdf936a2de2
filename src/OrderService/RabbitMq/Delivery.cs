using OrderService.Inbox;

namespace OrderService.RabbitMq;

/// <summary>One message in hand.</summary>
/// <param name="Tag">The broker's number for it; valid on the channel of <paramref name="Generation"/> alone.</param>
/// <param name="Body">A copy: the client takes its own buffer back when its callback returns. Empty for a body that is not kept: see <see cref="IInboxMessage.Unkept"/>.</param>
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

    /// <summary>How many bytes of memory it counts for.</summary>
    public int Size { get; init; } = Body.Length;

    public UnkeptBody? Unkept { get; init; }
}

/// <summary>A delivery and what the broker is to be told about it.</summary>
public readonly record struct SettledDelivery(Delivery Delivery, Settlement Settlement);

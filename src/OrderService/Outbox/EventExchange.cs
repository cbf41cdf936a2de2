namespace OrderService.Outbox;

public static class EventExchange
{
    /// <summary>The topic exchange that events are published to (contract, section 1).</summary>
    public const string Name = "order-events";
}

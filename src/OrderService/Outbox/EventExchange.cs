namespace OrderService.Outbox;

/// <summary>The exchange that commands are published to, HTTP's and replayed ones: no right to the default exchange is needed, which reaches every queue.</summary>
public static class CommandExchange
{
    /// <summary>The fanout exchange in front of the queue <c>orders</c> (contract, section 1).</summary>
    public const string Name = "orders.in";
}

public static class EventExchange
{
    /// <summary>The topic exchange that events are published to (contract, section 1).</summary>
    public const string Name = "order-events";
}

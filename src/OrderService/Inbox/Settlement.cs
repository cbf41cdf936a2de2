namespace OrderService.Inbox;

/// <summary>What the broker is told about a delivery. There is no requeue: a delivery that must wait is held in process, not thrown back to the head of the queue.</summary>
public abstract record Settlement
{
    private Settlement() { }

    /// <summary>The outcome is committed; the broker may forget the message.</summary>
    public static Settlement Acknowledge { get; } = new Ack();

    /// <summary>Nothing is told: the delivery goes back to the queue when its channel closes.</summary>
    public static Settlement Leave { get; } = new None();

    /// <summary>The outcome is committed; the broker may forget the message.</summary>
    public sealed record Ack : Settlement;

    /// <summary>The broker dead-letters the message, body untouched.</summary>
    /// <param name="Reason">One of the stable reasons of docs/messages.md; already committed to the inbox.</param>
    public sealed record Reject(string Reason) : Settlement;

    /// <summary>Nothing is told: the delivery goes back to the queue when its channel closes.</summary>
    public sealed record None : Settlement;
}

namespace OrderService.Outbox;

/// <summary>How the relay hands messages to the broker.</summary>
/// <param name="PublishAsync">Returns when the message is on its way; the outcome is told later, once.</param>
/// <param name="DrainAsync">Waits until every message that is on its way has its outcome.</param>
/// <param name="IsOpen">Connected, and the broker does not block publishers.</param>
public sealed record EventPublisher(
    Func<OutgoingMessage, Action<OutgoingMessage, PublishOutcome>, CancellationToken, ValueTask> PublishAsync,
    Func<CancellationToken, Task> DrainAsync,
    Func<bool> IsOpen);

using Microsoft.Extensions.Options;
using OrderService.Outbox;
using RabbitMQ.Client;

namespace OrderService.RabbitMq;

/// <summary>A publisher at one moment, for health and the admin page.</summary>
/// <param name="Blocked">Why the broker takes no publishes (an alarm), in its own words.</param>
/// <param name="Unconfirmed">Publishes whose outcome is not known yet, waiting ones included.</param>
public sealed record PublisherState(
    bool Connected,
    DateTimeOffset Since,
    string? Blocked,
    string? LastError,
    DateTimeOffset? LastErrorAt,
    int Unconfirmed,
    long Confirmed,
    long Returned,
    long Nacked,
    long Unknown,
    long Refused,
    bool CircuitOpen);

/// <summary>Publishes with confirms over a connection of its own: many publishes share one window, every publish has exactly one outcome and an end in time.</summary>
public sealed class ConfirmedPublisher(
    BrokerConnector connector,
    IOptions<RabbitMqOptions> options,
    TimeProvider clock,
    ILogger<ConfirmedPublisher> logger,
    Func<IConnection, CancellationToken, Task>? declare = null) : IAsyncDisposable
{
    public PublisherState State => throw new NotSupportedException($"{connector}{options}{clock}{logger}{declare}");

    /// <summary>Hands a message over; waits only for a free place in the window.</summary>
    /// <param name="completed">Called exactly once, on the connection's reading loop or a timer: it must be quick, must not block and must not throw.</param>
    /// <param name="cancellationToken">Ends the wait for a place. A message that was handed over can't be called back.</param>
    public ValueTask PublishAsync(OutgoingMessage message, Action<OutgoingMessage, PublishOutcome> completed, CancellationToken cancellationToken) => throw new NotSupportedException();

    /// <summary>Publishes one message and waits for its outcome, which comes within the confirm timeout.</summary>
    public Task<PublishOutcome> PublishAsync(OutgoingMessage message, CancellationToken cancellationToken) => throw new NotSupportedException();

    /// <summary>Waits until every publish has its outcome.</summary>
    public Task DrainAsync(CancellationToken cancellationToken) => throw new NotSupportedException();

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;
}

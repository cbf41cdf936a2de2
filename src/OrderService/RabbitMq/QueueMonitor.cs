namespace OrderService.RabbitMq;

/// <summary>How full a queue is.</summary>
/// <param name="Unacknowledged">Known only with the management API.</param>
/// <param name="Total">Ready, unacknowledged and dead letters held back at their source; known only with the management API.</param>
public sealed record QueueDepth(string Queue, bool Exists, long Ready, int Consumers, long? Unacknowledged, long? Total, DateTimeOffset At);

/// <summary>Reads the depths of the service's queues every few seconds.</summary>
public sealed class QueueMonitor : BackgroundService
{
    /// <summary>The newest reading of each queue; empty before the first.</summary>
    public IReadOnlyList<QueueDepth> Depths => [];

    /// <summary>Policies that could lose messages, one sentence each; known only with the management API.</summary>
    public IReadOnlyList<string> UnsafePolicies => [];

    /// <summary>Why the newest reading failed; null when it did not.</summary>
    public string? LastError => null;

    protected override Task ExecuteAsync(CancellationToken stoppingToken) => Task.CompletedTask;
}

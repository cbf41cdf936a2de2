using Microsoft.Extensions.Options;
using RabbitMQ.Client;

namespace OrderService.RabbitMq;

/// <summary>The queues and exchanges of docs/messages.md as data, declared and compared.</summary>
public sealed partial class Topology(IOptions<RabbitMqOptions> options, ILogger<Topology> logger)
{
    private readonly RabbitMqOptions _options = options.Value;
    private readonly ILogger _logger = logger;

    /// <summary>Declares what is missing. Idempotent.</summary>
    /// <exception cref="TopologyMismatchException">Something exists with other arguments.</exception>
    public Task DeclareAsync(IConnection connection, CancellationToken cancellationToken) => throw new NotSupportedException(_options.Redacted + _logger);

    /// <summary>Everything that is not as it should be; declares nothing.</summary>
    public Task<IReadOnlyList<TopologyDifference>> CheckAsync(IConnection connection, CancellationToken cancellationToken) => throw new NotSupportedException();
}

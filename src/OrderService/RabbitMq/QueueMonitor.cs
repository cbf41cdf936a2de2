using Microsoft.Extensions.Options;
using RabbitMQ.Client;
using RabbitMQ.Client.Exceptions;

namespace OrderService.RabbitMq;

/// <summary>How full a queue is.</summary>
/// <param name="Ready">Messages that wait for a consumer.</param>
/// <param name="Unacknowledged">Messages in hand of consumers; known only with the management API.</param>
/// <param name="Total">Ready, unacknowledged, and dead letters held back at their source; known only with the management API.</param>
/// <param name="OldestSince">
/// The reading that saw the oldest message that waits now for the first time: it has been there at least since then. Null when none waits, and when it is not known how many
/// came in: where other processes consume too and the management API does not say.
/// </param>
public sealed record QueueDepth(string Queue, bool Exists, long Ready, int Consumers, long? Unacknowledged, long? Total, DateTimeOffset At, DateTimeOffset? OldestSince = null)
{
    /// <summary>How many messages were ever published to it, by the management API's count.</summary>
    internal long? Published { get; init; }

    /// <summary>AMQP refused to tell the numbers.</summary>
    internal bool IsHidden { get; init; }

    /// <summary>How long the oldest message has waited at the least; zero when none waits, null when that is not known.</summary>
    public TimeSpan? OldestAge(DateTimeOffset now) => OldestSince is { } since ? now - since : Exists && Ready == 0 ? TimeSpan.Zero : null;

    // Of several queues the least served tells whether all are, and the oldest message of all is known to have waited as long as the oldest that is known.
    internal static QueueDepth Sum(QueueDepth one, QueueDepth other) => one with
    {
        Ready = one.Ready + other.Ready,
        Consumers = Math.Min(one.Consumers, other.Consumers),
        Unacknowledged = one.Unacknowledged + other.Unacknowledged,
        Total = one.Total + other.Total,
        OldestSince = one.OldestSince is null || other.OldestSince < one.OldestSince ? other.OldestSince : one.OldestSince,
    };
}

/// <summary>
/// Reads the depths of the service's queues every few seconds, over AMQP alone, and with the management API more. Where the broker has several nodes it asks another one every
/// minute, and tells this process's subscriptions what it saw there.
/// </summary>
public sealed partial class QueueMonitor : BackgroundService
{
    private static readonly TimeSpan Turn = TimeSpan.FromMinutes(1);

    private readonly BrokerConnector connector;
    private readonly Topology topology;
    private readonly RabbitMqOptions options;
    private readonly TimeProvider clock;
    private readonly ILogger logger;
    private readonly ManagementApi? management;
    private readonly Func<string, QueueSubscription?> own;
    private readonly Dictionary<string, QueueAge> ages;

    private long connectedAt;
    private AmqpTcpEndpoint? left;
    private volatile IReadOnlyList<QueueDepth> depths = [];
    private volatile IReadOnlyList<string> unconsumed = [];
    private IReadOnlyList<string> beyond = [];
    private volatile IReadOnlyList<string>? unsafePolicies;
    private readonly Outage outage;
    private volatile string? lastError;
    private volatile string? managementError;

    /// <param name="own">This process's own subscription to a queue; null where there is none.</param>
    public QueueMonitor(BrokerConnector connector, Topology topology, IOptions<RabbitMqOptions> options, Func<string, QueueSubscription?> own, TimeProvider clock, ILogger<QueueMonitor> logger)
    {
        this.own = own;
        this.connector = connector;
        this.topology = topology;
        ages = topology.Queues.ToDictionary(queue => queue.Name, _ => new QueueAge());
        this.options = options.Value;
        this.clock = clock;
        this.logger = logger;
        outage = new Outage(clock);
        management = ManagementApi.Open(connector);
    }

    /// <summary>The newest reading of each queue; empty before the first.</summary>
    public IReadOnlyList<QueueDepth> Depths => depths;

    /// <summary>The queues that the inbox takes its messages from, together, under the name of the first; with the fewest consumers that one of them has. Null before the first reading.</summary>
    public QueueDepth? Orders => depths.Where(depth => depth.Exists && topology.OrderQueues.Contains(depth.Queue)).DefaultIfEmpty().Aggregate((one, other) => QueueDepth.Sum(one!, other!));

    /// <summary>Partitions above those that are consumed and not empty, one sentence each.</summary>
    public IReadOnlyList<string> Unconsumed => unconsumed;

    /// <summary>Policies that could lose messages, one sentence each; null where it is not known, which <see cref="PoliciesUnknown"/> explains.</summary>
    public IReadOnlyList<string>? UnsafePolicies => unsafePolicies;

    /// <summary>Why it is not known which policies are in force; null when it is known.</summary>
    public string? PoliciesUnknown => unsafePolicies is not null ? null : management is null ? "RabbitMq:ManagementUri is not set" : managementError ?? "not read yet";

    /// <summary>Why the newest reading failed; null when it did not.</summary>
    public string? LastError => lastError;

    /// <summary>Why the management API did not answer, or not all of it; null when it did, or is not used. The depths over AMQP are there all the same.</summary>
    public string? ManagementError => managementError;

    public override void Dispose()
    {
        management?.Dispose();
        base.Dispose();
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        IConnection? connection = null;
        try
        {
            await PeriodicLoop.AtOnceAsync(options.QueuePollInterval, clock, LookAsync, stoppingToken);
        }
        finally
        {
            await BrokerConnector.DisposeQuietlyAsync(connection);
        }

        async Task LookAsync(CancellationToken cancellationToken)
        {
            try
            {
                connection = connection is { IsOpen: true } && !IsTurnOver() ? connection : await ReconnectAsync(connection, cancellationToken);
                await ReadAsync(connection, cancellationToken);
                lastError = null;
                outage.End();
            }
            catch (Exception exception) when (!cancellationToken.IsCancellationRequested)
            {
                // Readings are only looked at: the next tick tries again, on a new connection.
                var reason = BrokerErrors.Describe(exception);
                lastError = outage.Meet(reason, out var news);
                if (news)
                {
                    LogNoReading(connector.Redacted, lastError);
                }

                await BrokerConnector.DisposeQuietlyAsync(connection);
                connection = null;
            }
        }
    }

    private bool IsTurnOver() => connector.Address.Hosts.Count > 1 && clock.GetElapsedTime(connectedAt) >= Turn;

    private async Task<IConnection> ReconnectAsync(IConnection? last, CancellationToken cancellationToken)
    {
        var wasLost = last is not { IsOpen: true };
        await BrokerConnector.DisposeQuietlyAsync(last);
        var connection = await connector.OpenAsync("watches the queues", cancellationToken, left);
        left = connection.Endpoint;
        connectedAt = clock.GetTimestamp();
        if (!wasLost)
        {
            return connection;
        }

        try
        {
            // Once after each loss: to lower the number takes a restart, and the broker logs every look at a queue that is not there.
            beyond = [.. (await topology.FindBeyondAsync(connection, cancellationToken)).Select(queue => queue.QueueName)];
            return connection;
        }
        catch
        {
            await BrokerConnector.DisposeQuietlyAsync(connection);
            throw;
        }
    }

    private async Task ReadAsync(IConnection connection, CancellationToken cancellationToken)
    {
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        deadline.CancelAfter(TimeSpan.FromSeconds(15));
        var read = new List<(QueueDepth Depth, long? Arrived)>();
        foreach (var queue in topology.Queues.Select(queue => queue.Name))
        {
            var depth = await ReadAsync(connection, queue, deadline.Token);
            if (depth is { Exists: true, IsHidden: false })
            {
                own(queue)?.HearOf(depth.Ready, depth.Consumers);
            }

            read.Add((depth, Arrived(depth)));
        }

        // What AMQP says stays whatever the management API says or does not say.
        var managed = management is null ? [] : await ReadManagementAsync(read.Select(one => one.Depth), cancellationToken);
        var depths = new List<QueueDepth>();
        foreach (var (depth, arrived) in read)
        {
            if (managed.GetValueOrDefault(depth.Queue) is not { } more)
            {
                if (!depth.IsHidden)
                {
                    depths.Add(depth with { OldestSince = ages[depth.Queue].Read(depth.At, depth.Ready, arrived) });
                }

                continue;
            }

            if (depth.IsHidden && more.Ready is null)
            {
                continue;
            }

            var whole = depth with
            {
                Ready = more.Ready ?? depth.Ready,
                Consumers = more.Consumers ?? depth.Consumers,
                Unacknowledged = more.Unacknowledged,
                Total = more.Total,
                Published = more.Published,
            };
            depths.Add(whole with { OldestSince = more.Published is null ? ages[depth.Queue].Read(depth.At, depth.Ready, arrived) : ages[depth.Queue].Read(depth.At, whole.Ready, more.Published) });
        }

        var unconsumed = new List<string>();
        foreach (var queue in beyond)
        {
            // While an instance with the number of before still consumes it, all is well.
            var depth = await ReadAsync(connection, queue, deadline.Token);
            if (depth is { Exists: true, Consumers: 0 })
            {
                await topology.RetireAsync(connection, queue, deadline.Token);
                if (depth.Ready > 0)
                {
                    depths.Add(depth);
                    unconsumed.Add(Topology.Unconsumed(queue, depth.Ready, beyond[^1]).Sentence);
                }
            }
        }

        if (unconsumed.Count > this.unconsumed.Count)
        {
            unconsumed.ForEach(LogUnconsumed);
        }

        this.depths = depths;
        this.unconsumed = unconsumed;
    }

    /// <summary>Asks the management API for every queue that exists, and keeps what it says of policies and why it said less than it could.</summary>
    private async Task<Dictionary<string, ManagedQueue>> ReadManagementAsync(IEnumerable<QueueDepth> depths, CancellationToken stopping)
    {
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(stopping);
        deadline.CancelAfter(TimeSpan.FromSeconds(15));
        var managed = new Dictionary<string, ManagedQueue>();
        var policies = new List<string>();
        string? error = null;
        foreach (var queue in depths.Where(depth => depth.Exists).Select(depth => depth.Queue))
        {
            try
            {
                var read = await management!.ReadAsync(queue, deadline.Token);
                managed[queue] = read;
                if (queue == TopologyNames.UnroutedEvents)
                {
                    // A look-out, not a store: it may lose what is in it.
                }
                else if (read.UnsafePolicies is { } found)
                {
                    policies.AddRange(found);
                }
                else
                {
                    error ??= ManagementApi.NoPolicies;
                }
            }
            catch (ManagementException exception)
            {
                // The next queue would wait as long for the same answer.
                error = exception.Message;
                break;
            }
            catch (OperationCanceledException) when (!stopping.IsCancellationRequested)
            {
                error = "the management API takes too long";
                break;
            }
        }

        foreach (var policy in policies.Except(unsafePolicies ?? []))
        {
            LogUnsafePolicy(policy);
        }

        if (error is not null && error != managementError)
        {
            LogManagement(error);
        }
        else if (error is null && managementError is not null)
        {
            LogManagementAgain();
        }

        // One that was seen stays known while the others are not: it is unsafe whatever they are.
        unsafePolicies = error is null || policies.Count > 0 ? policies : null;
        managementError = error;
        return managed;
    }

    /// <summary>How many messages have come in since this process started, by its own count; null where others take messages out as well.</summary>
    private long? Arrived(QueueDepth depth)
    {
        var own = this.own(depth.Queue)?.State;
        return depth.Exists && depth.Consumers <= (own?.Consumers ?? 0)
            ? depth.Ready + (own is null ? 0 : own.InHand + own.Acknowledged + own.Rejected)
            : null;
    }

    private async Task<QueueDepth> ReadAsync(IConnection connection, string queue, CancellationToken cancellationToken)
    {
        await using var channel = await connection.CreateChannelAsync(null, cancellationToken);
        try
        {
            var read = await channel.QueueDeclarePassiveAsync(queue, cancellationToken);
            return new QueueDepth(queue, true, read.MessageCount, (int)read.ConsumerCount, null, null, clock.GetUtcNow());
        }
        catch (OperationInterruptedException exception) when (exception.ShutdownReason?.ReplyCode == Constants.NotFound)
        {
            return new QueueDepth(queue, false, 0, 0, null, null, clock.GetUtcNow());
        }
        catch (OperationInterruptedException exception) when (exception.ShutdownReason?.ReplyCode == Constants.AccessRefused && management is not null)
        {
            // Some versions ask for the right to configure even for looking; the management API says it all.
            return new QueueDepth(queue, true, 0, 0, null, null, clock.GetUtcNow()) { IsHidden = true };
        }
    }

    [LoggerMessage(LogLevel.Warning, "The queues of {Broker} can't be read: {Reason}")]
    private partial void LogNoReading(string broker, string reason);

    [LoggerMessage(LogLevel.Warning, "{Finding}")]
    private partial void LogUnconsumed(string finding);

    [LoggerMessage(LogLevel.Warning, "Unacknowledged messages and policies are not known: {Reason}. The depths by AMQP go on")]
    private partial void LogManagement(string reason);

    [LoggerMessage(LogLevel.Information, "The management API answers again")]
    private partial void LogManagementAgain();

    [LoggerMessage(LogLevel.Error, "{Policy}")]
    private partial void LogUnsafePolicy(string policy);
}

using System.Globalization;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
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

    // What a policy may not set on the queues whose messages must not get lost. Overflow drop-head even deletes dead letters that wait for their target.
    private static readonly string[] LosingPolicyKeys = ["max-length", "max-length-bytes", "overflow", "message-ttl", "expires", "delivery-limit", "dead-letter-exchange", "dead-letter-routing-key", "dead-letter-strategy"];

    private readonly BrokerConnector connector;
    private readonly Topology topology;
    private readonly RabbitMqOptions options;
    private readonly TimeProvider clock;
    private readonly ILogger logger;
    private readonly HttpClient? management;
    private readonly Func<string, QueueSubscription?> own;
    private readonly Dictionary<string, QueueAge> ages;

    private long connectedAt;
    private AmqpTcpEndpoint? left;
    private volatile IReadOnlyList<QueueDepth> depths = [];
    private volatile IReadOnlyList<string> unconsumed = [];
    private IReadOnlyList<string> beyond = [];
    private volatile IReadOnlyList<string> unsafePolicies = [];
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
        if (this.options.ManagementUri is { Length: > 0 } management)
        {
            this.management = ManagementClient(new Uri(management), connector.Address);
        }
    }

    /// <summary>The newest reading of each queue; empty before the first.</summary>
    public IReadOnlyList<QueueDepth> Depths => depths;

    /// <summary>The queues that the inbox takes its messages from, together, under the name of the first; with the fewest consumers that one of them has. Null before the first reading.</summary>
    public QueueDepth? Orders => depths.Where(depth => depth.Exists && topology.OrderQueues.Contains(depth.Queue)).DefaultIfEmpty().Aggregate((one, other) => QueueDepth.Sum(one!, other!));

    /// <summary>Partitions above those that are consumed and not empty, one sentence each.</summary>
    public IReadOnlyList<string> Unconsumed => unconsumed;

    /// <summary>Policies that could lose messages, one sentence each; known only with the management API.</summary>
    public IReadOnlyList<string> UnsafePolicies => unsafePolicies;

    /// <summary>Why the newest reading failed; null when it did not.</summary>
    public string? LastError => lastError;

    /// <summary>Why the management API did not answer; null when it did, or is not used. The depths over AMQP are there all the same.</summary>
    public string? ManagementError => managementError;

    public override void Dispose()
    {
        management?.Dispose();
        base.Dispose();
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        IConnection? connection = null;
        using var tick = new PeriodicTimer(options.QueuePollInterval, clock);
        try
        {
            do
            {
                try
                {
                    connection = connection is { IsOpen: true } && !IsTurnOver() ? connection : await ReconnectAsync(connection, stoppingToken);
                    await ReadAsync(connection, stoppingToken);
                    lastError = null;
                }
                catch (Exception exception) when (!stoppingToken.IsCancellationRequested)
                {
                    // Readings are only looked at: the next tick tries again, on a new connection.
                    var reason = BrokerErrors.Describe(exception);
                    if (reason != lastError)
                    {
                        LogNoReading(connector.Redacted, reason);
                    }

                    lastError = reason;
                    await BrokerConnector.DisposeQuietlyAsync(connection);
                    connection = null;
                }
            }
            while (await tick.WaitForNextTickAsync(stoppingToken));
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // The host stops.
        }
        finally
        {
            await BrokerConnector.DisposeQuietlyAsync(connection);
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
        var depths = new List<QueueDepth>();
        var unsafePolicies = new List<string>();
        managementError = null;
        foreach (var queue in topology.Queues.Select(queue => queue.Name))
        {
            var depth = await ReadAsync(connection, queue, deadline.Token);
            own(queue)?.HearOf(depth.Ready);
            var arrived = Arrived(depth);
            var managed = depth.Exists && management is not null ? await ReadManagementAsync(depth, unsafePolicies, deadline.Token) : depth;
            depths.Add(managed with { OldestSince = managed.Published is null ? ages[queue].Read(depth.At, depth.Ready, arrived) : ages[queue].Read(depth.At, managed.Ready, managed.Published) });
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

        foreach (var policy in unsafePolicies)
        {
            if (!this.unsafePolicies.Contains(policy))
            {
                LogUnsafePolicy(policy);
            }
        }

        this.depths = depths;
        this.unconsumed = unconsumed;
        this.unsafePolicies = unsafePolicies;
    }

    /// <summary>How many messages have come in since this process started, by its own count; null where others take messages out as well.</summary>
    private long? Arrived(QueueDepth depth)
    {
        var own = this.own(depth.Queue)?.State;
        return depth.Exists && depth.Consumers <= (own?.Phase == SubscriptionPhase.Consuming ? 1 : 0)
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
            return new QueueDepth(queue, true, 0, 0, null, null, clock.GetUtcNow());
        }
    }

    private async Task<QueueDepth> ReadManagementAsync(QueueDepth depth, List<string> unsafePolicies, CancellationToken cancellationToken)
    {
        try
        {
            using var document = await JsonDocument.ParseAsync(
                await management!.GetStreamAsync(new Uri($"api/queues/{Uri.EscapeDataString(connector.VirtualHost)}/{Uri.EscapeDataString(depth.Queue)}", UriKind.Relative), cancellationToken),
                cancellationToken: cancellationToken);
            var queue = document.RootElement;
            if (depth.Queue != TopologyNames.UnroutedEvents)
            {
                FindUnsafePolicy(depth.Queue, queue, unsafePolicies);
            }

            return depth with
            {
                Ready = Number(queue, "messages_ready") ?? depth.Ready,
                Consumers = (int)(Number(queue, "consumers") ?? depth.Consumers),
                Unacknowledged = Number(queue, "messages_unacknowledged"),
                Total = Number(queue, "messages"),
                // Not counted for what the broker itself puts there: dead letters.
                Published = queue.TryGetProperty("message_stats", out var stats) ? Number(stats, "publish") : null,
            };
        }
        catch (Exception exception) when (exception is HttpRequestException or JsonException or OperationCanceledException && !cancellationToken.IsCancellationRequested)
        {
            managementError = exception is HttpRequestException { StatusCode: { } status } ? string.Create(CultureInfo.InvariantCulture, $"the management API answered {(int)status}") : "the management API does not answer";
            return depth;
        }
    }

    private static long? Number(JsonElement queue, string name) =>
        queue.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.Number && value.TryGetInt64(out var number) ? number : null;

    private static void FindUnsafePolicy(string name, JsonElement queue, List<string> unsafePolicies)
    {
        if (!queue.TryGetProperty("effective_policy_definition", out var definition) || definition.ValueKind != JsonValueKind.Object)
        {
            return;
        }

        var policy = queue.TryGetProperty("policy", out var named) && named.ValueKind == JsonValueKind.String ? named.GetString()! : "(operator policy)";
        foreach (var setting in definition.EnumerateObject())
        {
            var harmless = setting is { Name: "overflow", Value.ValueKind: JsonValueKind.String } && setting.Value.GetString() == "reject-publish";
            if (LosingPolicyKeys.Contains(setting.Name) && !harmless)
            {
                unsafePolicies.Add($"The policy '{policy}' sets {setting.Name} to {setting.Value} on the queue '{name}', which can lose or divert messages; remove it: rabbitmqctl clear_policy '{policy}'");
            }
        }
    }

    private static HttpClient ManagementClient(Uri management, BrokerAddress address)
    {
        var credentials = management.UserInfo.Length > 0 ? Uri.UnescapeDataString(management.UserInfo) : $"{address.User}:{address.Password}";
        var client = new HttpClient(new SocketsHttpHandler { AllowAutoRedirect = false, PooledConnectionLifetime = TimeSpan.FromMinutes(5) })
        {
            BaseAddress = new UriBuilder(management) { UserName = "", Password = "", Path = management.AbsolutePath.TrimEnd('/') + "/" }.Uri,
            Timeout = TimeSpan.FromSeconds(5),
        };
        client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Basic", Convert.ToBase64String(Encoding.UTF8.GetBytes(credentials)));
        return client;
    }

    [LoggerMessage(LogLevel.Warning, "The queues of {Broker} can't be read: {Reason}")]
    private partial void LogNoReading(string broker, string reason);

    [LoggerMessage(LogLevel.Warning, "{Finding}")]
    private partial void LogUnconsumed(string finding);

    [LoggerMessage(LogLevel.Error, "{Policy}")]
    private partial void LogUnsafePolicy(string policy);
}

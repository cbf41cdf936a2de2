using System.Security.Cryptography;
using System.Threading.Channels;
using Microsoft.Extensions.Options;
using OrderService.Database;
using OrderService.Domain;
using OrderService.EventStore;
using OrderService.RabbitMq;
using Polly;
using Polly.CircuitBreaker;
using Polly.Retry;

namespace OrderService.Inbox;

/// <summary>
/// Takes deliveries, decides them in batches, and settles them after the commit that holds their outcome.
/// While one transaction commits the next batch gathers, so an idle system has the latency of one commit and a busy one its throughput.
/// </summary>
public sealed partial class InboxProcessor : IHostedService, IDisposable
{
    private readonly QueueSubscription subscription;
    private readonly IOrderEventStore store;
    private readonly BatchDecider decider;
    private readonly InboxOptions options;
    private readonly TimeProvider clock;
    private readonly ILogger<InboxProcessor> logger;
    private readonly IReadOnlyList<Committed> committed;
    private readonly ResiliencePipeline pipeline;
    private readonly CircuitBreakerStateProvider breaker = new();
    private readonly CancellationTokenSource stopIntake = new();
    private readonly CancellationTokenSource abort = new();
    private Task intake = Task.CompletedTask;
    private Task processing = Task.CompletedTask;
    private long troubleSince;
    private volatile string? trouble;

    public InboxProcessor(
        [FromKeyedServices(TopologyNames.Orders)] QueueSubscription subscription,
        IOrderEventStore store,
        IEnumerable<Committed> committed,
        IOptions<InboxOptions> options,
        IOptions<OrdersOptions> orders,
        TimeProvider clock,
        ILogger<InboxProcessor> logger)
    {
        this.subscription = subscription;
        this.store = store;
        this.committed = [.. committed];
        this.options = options.Value;
        this.clock = clock;
        this.logger = logger;
        decider = new BatchDecider(new OrderRules(orders.Value.RequirePaymentBeforeShipping), orders.Value.DeferFor);
        pipeline = Pipeline();
    }

    /// <summary>What the store's circuit breaker thinks; open means that nothing is taken in.</summary>
    public CircuitState StoreCircuit => breaker.CircuitState;

    /// <summary>Why nothing is being committed at the moment; null when all is well.</summary>
    public string? Trouble => trouble;

    /// <summary>Counts since the start: accepted, duplicate, refused, deferred, rejected, in the order of <see cref="Fate"/>.</summary>
    public IReadOnlyList<long> Fates => fates;

    private readonly long[] fates = new long[5];

    public Task StartAsync(CancellationToken cancellationToken)
    {
        intake = subscription.RunAsync(stopIntake.Token);
        processing = Task.Run(ProcessAllAsync, CancellationToken.None);
        return Task.CompletedTask;
    }

    /// <summary>Ends the intake, then commits and settles what is in hand. What the grace period does not suffice for goes back to the queue.</summary>
    public async Task StopAsync(CancellationToken cancellationToken)
    {
        await stopIntake.CancelAsync();
        await using (cancellationToken.Register(abort.Cancel))
        {
            await processing;
            await intake;
        }
    }

    public void Dispose()
    {
        stopIntake.Dispose();
        abort.Dispose();
    }

    private async Task ProcessAllAsync()
    {
        var batch = new List<Delivery>(options.MaxBatch);
        var suspects = new List<Delivery>();
        try
        {
            while (await subscription.Deliveries.WaitToReadAsync(abort.Token))
            {
                Gather(subscription.Deliveries, batch, suspects);
                if (batch.Count > 0)
                {
                    await ProcessAsync(batch);
                }
                foreach (var suspect in suspects)
                {
                    await ProcessSuspectAsync(suspect);
                }
            }
        }
        catch (OperationCanceledException) when (abort.IsCancellationRequested)
        {
            // The grace period is over; what is unsettled goes back to the queue and finds its inbox row, if it has one.
        }
    }

    private void Gather(ChannelReader<Delivery> deliveries, List<Delivery> batch, List<Delivery> suspects)
    {
        batch.Clear();
        suspects.Clear();
        var bytes = 0;
        while (batch.Count + suspects.Count < options.MaxBatch && bytes < options.MaxBatchBytes && deliveries.TryRead(out var delivery))
        {
            if (!delivery.Generation.IsAlive)
            {
                // The broker has taken it back and delivers it again.
                continue;
            }
            bytes += delivery.Body.Length;
            (delivery.DeliveryCount >= options.SuspectAfterReturns ? suspects : batch).Add(delivery);
        }
    }

    /// <summary>Decides and settles; when the batch fails for a reason of one message, halves find it, so that it alone is held back.</summary>
    private async Task ProcessAsync(IReadOnlyList<Delivery> deliveries)
    {
        try
        {
            await CommitAsync(deliveries, [.. deliveries.Select(Decode)]);
        }
        catch (Exception exception) when (!abort.IsCancellationRequested)
        {
            if (deliveries.Count > 1)
            {
                var half = deliveries.Count / 2;
                await ProcessAsync([.. deliveries.Take(half)]);
                await ProcessAsync([.. deliveries.Skip(half)]);
                return;
            }
            await ProcessCulpritAsync(deliveries[0], exception, null);
        }
    }

    /// <summary>A message that fails by itself: a few more attempts, alone, then its end as a dead letter.</summary>
    private async Task ProcessCulpritAsync(Delivery delivery, Exception exception, byte[]? startedHash)
    {
        for (var attempt = 2; attempt <= options.MaxAttempts; attempt++)
        {
            try
            {
                await CommitAsync([delivery], [Decode(delivery) with { StartedHash = startedHash }]);
                return;
            }
            catch (Exception again) when (!abort.IsCancellationRequested)
            {
                exception = again;
            }
        }
        LogCulprit(exception, delivery.Properties.MessageId, options.MaxAttempts);
        await RejectAsync(delivery, new Rejection(
            RejectionReason.InternalError,
            $"Processing failed {options.MaxAttempts} times with {exception.GetType().Name}; replay it after the cause is mended.", null), exception, startedHash);
    }

    /// <summary>
    /// A delivery that came back again and again is begun alone, after a note of that. A note without an end is the trace of a crash;
    /// after some of those the message is a dead letter, and its neighbours are not.
    /// </summary>
    private async Task ProcessSuspectAsync(Delivery delivery)
    {
        var hash = SHA256.HashData(delivery.Body.Span);
        var crashes = await pipeline.ExecuteAsync(
            async token => await store.MarkStartedAsync(hash, Now(), token), abort.Token);
        if (crashes >= options.MaxCrashes)
        {
            LogCrashSuspect(delivery.Properties.MessageId, crashes);
            await RejectAsync(delivery, new Rejection(
                RejectionReason.CrashSuspect,
                $"The process ended {crashes} times while it worked on this message alone.", null), null, hash);
            return;
        }
        try
        {
            await CommitAsync([delivery], [Decode(delivery) with { StartedHash = hash }]);
        }
        catch (Exception exception) when (!abort.IsCancellationRequested)
        {
            await ProcessCulpritAsync(delivery, exception, hash);
        }
    }

    private Task RejectAsync(Delivery delivery, Rejection rejection, Exception? exception, byte[]? startedHash)
    {
        // The body is not read again: it may be what killed the process.
        var (key, fingerprint) = EnvelopeDecoder.Identify(delivery.Properties, delivery.Body);
        return CommitAsync([delivery], [new Incoming(new Decoded.Invalid(key, fingerprint, rejection, null, delivery.Properties.CorrelationId), delivery.Body, delivery.Properties)
        {
            Claims = true,
            Exception = exception is null ? null : ExceptionText.Of(exception),
            StartedHash = startedHash,
        }]);
    }

    private async Task CommitAsync(IReadOnlyList<Delivery> deliveries, IReadOnlyList<Incoming> batch)
    {
        var query = Query(batch);
        Failpoint.Hit("inbox-before-begin");
        var append = await pipeline.ExecuteAsync(
            async token => await store.AppendAsync(query, state => decider.Decide(batch, state, Now()), token), abort.Token);
        Failpoint.Hit("inbox-after-commit");
        if (trouble is not null)
        {
            trouble = null;
            subscription.Release();
            LogStoreBack();
        }

        // Only now may the broker forget the messages. On a dead generation this does nothing, and the copies that come find their inbox rows.
        var settled = new SettledDelivery[batch.Count];
        for (var index = 0; index < settled.Length; index++)
        {
            settled[index] = new SettledDelivery(deliveries[index], Settle(batch[index]));
        }
        await subscription.SettleAsync(settled);
        Failpoint.Hit("inbox-after-ack");
        foreach (var listener in committed)
        {
            listener(append);
        }
    }

    private Settlement Settle(Incoming incoming)
    {
        fates[(int)incoming.Fate]++;
        if (incoming.Fate != Fate.Accepted || logger.IsEnabled(LogLevel.Debug))
        {
            LogFate(incoming);
        }
        return incoming.Fate == Fate.Rejected ? new Settlement.Reject(incoming.Reason ?? RejectionReason.InternalError) : Settlement.Acknowledge;
    }

    private static Incoming Decode(Delivery delivery)
    {
        var decoded = EnvelopeDecoder.Decode(delivery.Properties, delivery.Body);
        Failpoint.Hit("inbox-decoded", decoded is Decoded.Valid valid ? valid.Envelope.Command.OrderId : null);
        return new Incoming(decoded, delivery.Body, delivery.Properties);
    }

    private static BatchQuery Query(IReadOnlyList<Incoming> batch)
    {
        var keys = new HashSet<string>(batch.Count, StringComparer.Ordinal);
        var orderIds = new HashSet<string>(batch.Count, StringComparer.Ordinal);
        foreach (var incoming in batch)
        {
            switch (incoming.Decoded)
            {
                case Decoded.Valid { Envelope: var envelope }:
                    keys.Add(envelope.Key);
                    orderIds.Add(envelope.Command.OrderId);
                    break;
                case Decoded.Invalid invalid when incoming.Claims:
                    keys.Add(invalid.Key);
                    break;
            }
        }
        return new BatchQuery(keys, orderIds);
    }

    private ResiliencePipeline Pipeline()
    {
        var unavailable = new PredicateBuilder().Handle<StoreUnavailableException>();
        return new ResiliencePipelineBuilder { TimeProvider = clock }
            .AddRetry(new RetryStrategyOptions
            {
                // Trouble of the store is never a failure of a message: it is held, however long that takes.
                ShouldHandle = new PredicateBuilder().Handle<StoreUnavailableException>().Handle<BrokenCircuitException>(),
                MaxRetryAttempts = int.MaxValue,
                BackoffType = DelayBackoffType.Exponential,
                UseJitter = true,
                Delay = TimeSpan.FromMilliseconds(50),
                MaxDelay = TimeSpan.FromSeconds(2),
                OnRetry = arguments => { StoreTrouble(arguments.Outcome.Exception!); return ValueTask.CompletedTask; },
            })
            .AddCircuitBreaker(new CircuitBreakerStrategyOptions
            {
                ShouldHandle = unavailable,
                FailureRatio = 1,
                MinimumThroughput = 5,
                SamplingDuration = TimeSpan.FromSeconds(30),
                BreakDuration = TimeSpan.FromSeconds(1),
                StateProvider = breaker,
            })
            .Build();
    }

    private void StoreTrouble(Exception exception)
    {
        if (trouble is null)
        {
            troubleSince = clock.GetTimestamp();
            LogStoreTrouble(exception.Message);
        }
        if (exception is StoreUnavailableException)
        {
            trouble = exception.Message;
        }
        if (clock.GetElapsedTime(troubleSince) > options.HoldAfter)
        {
            subscription.Hold("the store is out of reach");
        }
    }

    private long Now() => clock.GetUtcNow().ToUnixTimeMilliseconds();

    private void LogFate(Incoming incoming)
    {
        var (orderId, key, correlationId) = incoming.Decoded switch
        {
            Decoded.Valid { Envelope: var envelope } => (envelope.Command.OrderId, envelope.Key, envelope.CorrelationId),
            Decoded.Invalid invalid => (invalid.OrderId, invalid.Key, invalid.CorrelationId),
            _ => (null, "", null),
        };
        switch (incoming.Fate)
        {
            case Fate.Accepted: LogAccepted(orderId, correlationId, key); break;
            case Fate.Duplicate: LogDuplicate(orderId, correlationId, key); break;
            case Fate.Refused: LogRefused(orderId, incoming.Reason, correlationId, key); break;
            case Fate.Deferred: LogDeferred(orderId, correlationId, key); break;
            case Fate.Rejected: LogRejected(incoming.Reason, orderId, correlationId, key); break;
        }
    }

    [LoggerMessage(LogLevel.Debug, "A command for order {OrderId} was accepted (correlation {CorrelationId}, cause {Key})")]
    private partial void LogAccepted(string? orderId, string? correlationId, string key);

    [LoggerMessage(LogLevel.Debug, "Another copy of a message for order {OrderId} was acknowledged (correlation {CorrelationId}, cause {Key})")]
    private partial void LogDuplicate(string? orderId, string? correlationId, string key);

    [LoggerMessage(LogLevel.Information, "A command for order {OrderId} was refused: {Reason} (correlation {CorrelationId}, cause {Key})")]
    private partial void LogRefused(string? orderId, string? reason, string? correlationId, string key);

    [LoggerMessage(LogLevel.Information, "A command came before order {OrderId} and waits for it (correlation {CorrelationId}, cause {Key})")]
    private partial void LogDeferred(string? orderId, string? correlationId, string key);

    [LoggerMessage(LogLevel.Warning, "A message was dead-lettered: {Reason} (order {OrderId}, correlation {CorrelationId}, key {Key})")]
    private partial void LogRejected(string? reason, string? orderId, string? correlationId, string key);

    [LoggerMessage(LogLevel.Error, "Message {MessageId} failed {Attempts} times by itself and becomes a dead letter")]
    private partial void LogCulprit(Exception exception, string? messageId, int attempts);

    [LoggerMessage(LogLevel.Error, "The process ended {Crashes} times on message {MessageId}; it becomes a dead letter")]
    private partial void LogCrashSuspect(string? messageId, int crashes);

    [LoggerMessage(LogLevel.Warning, "The store is out of reach; deliveries are held until it is back: {Reason}")]
    private partial void LogStoreTrouble(string reason);

    [LoggerMessage(LogLevel.Information, "The store is back; deliveries are taken again")]
    private partial void LogStoreBack();
}

/// <summary>Is told of each append after its commit and after its deliveries were settled; must be quick and must not throw.</summary>
public delegate void Committed(Append append);

/// <summary>An exception as it may be stored: types and frames. Messages are left out, they can quote the input.</summary>
public static class ExceptionText
{
    public static string Of(Exception exception) => $"{exception.GetType().FullName}\n{exception.StackTrace}";
}

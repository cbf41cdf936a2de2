using System.Text;
using Confluent.Kafka;
using Microsoft.Extensions.Options;
using OrderService.Events;
using OrderService.Observability;
using OrderService.Outbox;
using OrderService.Store;
using Polly;
using Polly.Retry;

namespace OrderService.Kafka;

/// <summary>How the stream to Kafka stands.</summary>
/// <param name="Behind">How many events of the log Kafka does not have yet.</param>
/// <param name="OldestAge">For how long the oldest of them has waited.</param>
/// <param name="LastError">What went wrong last; null since records were acknowledged again.</param>
public sealed record KafkaStreamState(long Behind, TimeSpan OldestAge, string? LastError);

/// <summary>
/// Publishes the log to Kafka: a reader with a checkpoint of its own, so a cluster that is away delays nothing else.
/// The checkpoint moves when every record up to it was acknowledged: at least once, and for each order in the order of its stream.
/// </summary>
/// <param name="isMine">Whether this instance publishes; one of several does. Two at once, for the moment of a hand-over, only add duplicates.</param>
public sealed partial class KafkaEventStream(
    IDatabase database,
    EventQueries events,
    EventBus bus,
    Func<bool> isMine,
    IOptions<KafkaOptions> options,
    OrderMetrics metrics,
    TimeProvider clock,
    ILogger<KafkaEventStream> logger,
    IOptions<EventsOptions>? published = null) : BackgroundService
{
    private const string Reader = "kafka";

    private static readonly TimeSpan ReadingInterval = TimeSpan.FromSeconds(1);

    // A stop waits this long for what is on its way; the rest is sent again after the restart.
    private static readonly TimeSpan Farewell = TimeSpan.FromSeconds(5);

    private static readonly byte[] ContentType = Encoding.ASCII.GetBytes(CloudEventWriter.ContentType);

    private readonly KafkaOptions settings = options.Value;
    private IProducer<string, byte[]>? producer;
    private BatchInFlight? inFlight;
    private volatile string? lastError;
    private volatile KafkaStreamState state = new(0, TimeSpan.Zero, null);

    public KafkaStreamState State => state with { LastError = lastError };

    protected override Task ExecuteAsync(CancellationToken stoppingToken) =>
        Task.WhenAll(PublishAllAsync(stoppingToken), PeriodicLoop.AtOnceAsync(ReadingInterval, clock, ReadLagAsync, stoppingToken));

    public override void Dispose()
    {
        producer?.Dispose();
        base.Dispose();
    }

    private async Task PublishAllAsync(CancellationToken stoppingToken)
    {
        using var wake = new SemaphoreSlim(0, 1);
        using var subscription = bus.Subscribe(Reader, 1, (_, _) =>
        {
            if (wake.CurrentCount == 0)
            {
                wake.Release();
            }
            return Task.CompletedTask;
        });
        var pipeline = Pipeline();
        try
        {
            while (true)
            {
                bool more;
                do
                {
                    more = await pipeline.ExecuteAsync(PublishNextAsync, stoppingToken);
                }
                while (more);
                await WaitAsync(wake, stoppingToken);
            }
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // The checkpoint says where to go on.
        }
        finally
        {
            DropProducer();
        }
    }

    /// <summary>Publishes the next page of the log and moves the checkpoint behind it.</summary>
    /// <returns>True when there may be more right now.</returns>
    private async ValueTask<bool> PublishNextAsync(CancellationToken stoppingToken)
    {
        if (!isMine())
        {
            return false;
        }
        var page = await events.AfterAsync(await CheckpointAsync(stoppingToken), settings.BatchSize, stoppingToken);
        if (page.Events.Count == 0)
        {
            return false;
        }
        producer ??= Connect();
        var batch = new BatchInFlight(page.Events.Count);
        inFlight = batch;
        foreach (var recorded in page.Events)
        {
            await ProduceAsync(producer, recorded, batch, stoppingToken);
        }
        Failpoint.Hit("kafka-after-produce");
        await WaitForAcknowledgementsAsync(batch, stoppingToken);
        lastError = null;
        Failpoint.Hit("kafka-before-checkpoint");
        // Kafka has them. A stop request must not turn that into a second publish after the restart.
        await AdvanceAsync(page.Events[^1].Position, CancellationToken.None);
        return page.MayHaveMore;
    }

    private async Task WaitForAcknowledgementsAsync(BatchInFlight batch, CancellationToken stoppingToken)
    {
        try
        {
            await batch.Acknowledged.WaitAsync(stoppingToken);
        }
        catch (OperationCanceledException)
        {
            try
            {
                await batch.Acknowledged.WaitAsync(Farewell, clock, CancellationToken.None);
            }
            catch (TimeoutException)
            {
                stoppingToken.ThrowIfCancellationRequested();
            }
        }
    }

    private async Task ProduceAsync(IProducer<string, byte[]> to, RecordedEvent recorded, BatchInFlight batch, CancellationToken stoppingToken)
    {
        var message = Render(recorded);
        while (true)
        {
            try
            {
                to.Produce(settings.Topic, message, batch.Done);
                return;
            }
            catch (ProduceException<string, byte[]> exception) when (exception.Error.Code == ErrorCode.Local_QueueFull)
            {
                // The client's memory is bounded; acknowledgements make room.
                await Task.WhenAny(batch.Acknowledged, Task.Delay(settings.PollInterval, clock, stoppingToken));
                stoppingToken.ThrowIfCancellationRequested();
                if (batch.Acknowledged.IsFaulted)
                {
                    await batch.Acknowledged;
                }
            }
        }
    }

    /// <summary>The same JSON as the exchange <c>order-events</c> gets, in CloudEvents' structured mode.</summary>
    private Message<string, byte[]> Render(RecordedEvent recorded)
    {
        var head = PublishedEvent.Head(recorded);
        var headers = new Headers
        {
            { "content-type", ContentType },
            { "ce_id", Encoding.UTF8.GetBytes(recorded.EventId) },
            { "ce_type", Encoding.UTF8.GetBytes(recorded.Type) },
        };
        if (recorded.TraceParent is { } traceParent)
        {
            headers.Add("traceparent", Encoding.ASCII.GetBytes(traceParent));
        }
        if (recorded.TraceState is { } traceState)
        {
            headers.Add("tracestate", Encoding.ASCII.GetBytes(traceState));
        }
        // The record's own time is that of the publishing: by the event's, a topic's retention would throw an old log away as it arrives.
        return new Message<string, byte[]>
        {
            Key = recorded.OrderId,
            Value = CloudEventWriter.Write(head, recorded.Data.Span, published?.Value.Personal == true ? PublishedEvent.Personal(recorded, database.Keys.Open) : null),
            Headers = headers,
        };
    }

    private IProducer<string, byte[]> Connect() => new ProducerBuilder<string, byte[]>(KafkaClients.Producer(settings))
        .SetErrorHandler((_, error) => OnError(error))
        .SetLogHandler((_, message) => KafkaClients.Log(logger, message))
        .Build();

    /// <summary>Runs on the client's thread.</summary>
    private void OnError(Error error)
    {
        if (error.Code == ErrorCode.Local_Transport)
        {
            // One broker closed one connection, perhaps because it was idle; that all are away is another error.
            return;
        }
        if (lastError is null)
        {
            LogTrouble(error.Reason);
        }
        lastError = error.Reason;
        if (error.IsFatal)
        {
            // This producer takes nothing any more; what was not acknowledged goes out through the next one.
            inFlight?.Fail(error);
        }
    }

    /// <summary>What is in its queue is forgotten; the checkpoint is before it.</summary>
    private void DropProducer()
    {
        var dropped = producer;
        producer = null;
        dropped?.Dispose();
    }

    private ResiliencePipeline Pipeline() => new ResiliencePipelineBuilder { TimeProvider = clock }
        .AddRetry(new RetryStrategyOptions
        {
            ShouldHandle = static arguments => ValueTask.FromResult(arguments.Outcome.Exception is not null && !arguments.Context.CancellationToken.IsCancellationRequested),
            MaxRetryAttempts = int.MaxValue,
            BackoffType = DelayBackoffType.Exponential,
            UseJitter = true,
            Delay = TimeSpan.FromMilliseconds(200),
            MaxDelay = settings.MaxRetryDelay,
            OnRetry = arguments =>
            {
                lastError = arguments.Outcome.Exception!.Message;
                LogFailed(arguments.RetryDelay, arguments.Outcome.Exception!.Message);
                if (arguments.Outcome.Exception is KafkaException)
                {
                    DropProducer();
                }
                return default;
            },
        })
        .Build();

    private async Task WaitAsync(SemaphoreSlim wake, CancellationToken stoppingToken)
    {
        using var poll = new CancellationTokenSource(settings.PollInterval, clock);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(poll.Token, stoppingToken);
        try
        {
            await wake.WaitAsync(either.Token);
        }
        catch (OperationCanceledException) when (!stoppingToken.IsCancellationRequested)
        {
            // Other processes' commits are not on this bus.
        }
    }

    private async Task ReadLagAsync(CancellationToken stoppingToken)
    {
        try
        {
            var (behind, oldest) = await LagAsync(stoppingToken);
            var age = oldest is { } at ? clock.GetUtcNow() - DateTimeOffset.FromUnixTimeMilliseconds(at) : TimeSpan.Zero;
            state = new KafkaStreamState(behind, age, null);
            metrics.SetKafka(behind, age);
        }
        catch (StoreUnavailableException)
        {
            // Readiness says so; the last reading stays.
        }
    }

    private Task<(long Behind, long? OldestAt)> LagAsync(CancellationToken cancellationToken) => database.ReadAsync(
        async connection =>
        {
            var checkpoint = await CheckpointsTable.PositionAsync(connection, Reader) ?? 0;
            return await EventQueries.BehindAsync(connection, checkpoint);
        },
        cancellationToken);

    private Task<long> CheckpointAsync(CancellationToken cancellationToken) =>
        database.ReadAsync(async connection => await CheckpointsTable.PositionAsync(connection, Reader) ?? 0, cancellationToken);

    private Task AdvanceAsync(long position, CancellationToken cancellationToken) =>
        database.WriteAsync(transaction => CheckpointsTable.AdvanceAsync(transaction, Reader, position), cancellationToken);

    [LoggerMessage(LogLevel.Warning, "Kafka: {Reason}. Events wait in the log; nothing else is delayed")]
    private partial void LogTrouble(string reason);

    [LoggerMessage(LogLevel.Warning, "Publishing to Kafka failed and goes on from the checkpoint in {Delay}: {Reason}")]
    private partial void LogFailed(TimeSpan delay, string reason);

    /// <summary>Counts acknowledgements; the first failure fails the whole.</summary>
    private sealed class BatchInFlight(int count)
    {
        private readonly TaskCompletionSource completion = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private int open = count;

        public Task Acknowledged => completion.Task;

        /// <summary>Runs on the client's thread.</summary>
        public void Done(DeliveryReport<string, byte[]> report)
        {
            if (report.Error.IsError)
            {
                Fail(report.Error);
            }
            else if (Interlocked.Decrement(ref open) == 0)
            {
                completion.TrySetResult();
            }
        }

        public void Fail(Error error) => completion.TrySetException(new KafkaException(error));
    }
}

using Microsoft.Extensions.Options;
using OrderService.Inbox;
using OrderService.Observability;
using OrderService.RabbitMq;
using OrderService.Store;
using Polly;
using Polly.Retry;

namespace OrderService.DeadLetters;

/// <summary>
/// Consumes the dead-letter queue on a connection of its own: finds out why each message was given up, parks it, and only then acknowledges it.
/// While the store is out of reach the letters wait, in hand or in the queue; a letter that can't be handled never stops the others.
/// </summary>
public sealed partial class DeadLetterIntake : IHostedService, IStation, IDisposable
{
    // Of bodies in one transaction, beyond the first letter: a large one is parked alone.
    private const int MaxBatchBytes = 1 << 20;

    private readonly QueueSubscription subscription;
    private readonly IDatabase database;
    private readonly DeadLetterParking parking;
    private readonly DeadLettersOptions options;
    private readonly OrderMetrics metrics;
    private readonly TimeProvider clock;
    private readonly ILogger<DeadLetterIntake> logger;
    private readonly ResiliencePipeline pipeline;
    private readonly Blame<Delivery> blame;
    private readonly InHand<Delivery> inHand;
    private readonly CancellationTokenSource stopIntake = new();
    private readonly CancellationTokenSource abort = new();
    private Task intake = Task.CompletedTask;
    private Task processing = Task.CompletedTask;
    private long? troubleSince;
    private bool held;

    public DeadLetterIntake(
        [FromKeyedServices(TopologyNames.DeadLetters)] QueueSubscription subscription, IDatabase database, DeadLetterParking parking,
        IOptions<DeadLettersOptions> options, OrderMetrics metrics, Troubles troubles, TimeProvider clock, ILogger<DeadLetterIntake> logger)
    {
        this.subscription = subscription;
        this.database = database;
        this.parking = parking;
        this.options = options.Value;
        this.metrics = metrics;
        this.clock = clock;
        this.logger = logger;
        pipeline = new ResiliencePipelineBuilder { TimeProvider = clock }
            .AddRetry(new RetryStrategyOptions
            {
                ShouldHandle = new PredicateBuilder().Handle<StoreUnavailableException>(),
                MaxRetryAttempts = int.MaxValue,
                BackoffType = DelayBackoffType.Exponential,
                UseJitter = true,
                Delay = TimeSpan.FromMilliseconds(100),
                MaxDelay = TimeSpan.FromSeconds(10),
                OnRetry = arguments =>
                {
                    OnTrouble(arguments.Outcome.Exception!.Message);
                    return default;
                },
            })
            .AddRetry(new RetryStrategyOptions
            {
                // A conflict means that another process wrote the same row at the same time. One that goes on means something else.
                ShouldHandle = new PredicateBuilder().Handle<StoreConflictException>(),
                MaxRetryAttempts = 5,
                BackoffType = DelayBackoffType.Exponential,
                UseJitter = true,
                Delay = TimeSpan.FromMilliseconds(10),
            })
            .Build();
        blame = new Blame<Delivery>(
            new BlamedWork<Delivery>(
                "dead-letters", "Dead letters", TroubleLevel.NotReady,
                (batch, _) => ParkAsync(batch),
                GiveUpAsync,
                async (_, token) => await pipeline.ExecuteAsync(async retry => await parking.TryAsync(database, retry), token))
            {
                IsAlive = static delivery => delivery.Generation.IsAlive,
                IsAloneInHand = () => subscription.State.InHand <= 1,
            },
            troubles, logger);
        inHand = new InHand<Delivery>(blame, static delivery => delivery.Generation.IsAlive, mayBeOvertaken: true, subscription.Hold, subscription.Release, options.Value.HoldAfter, clock);
    }

    IReadOnlyList<Task> IStation.Loops => [intake, processing];

    public Task StartAsync(CancellationToken cancellationToken)
    {
        intake = subscription.RunAsync(stopIntake.Token);
        processing = Task.Run(ProcessAllAsync, CancellationToken.None);
        return Task.CompletedTask;
    }

    /// <summary>Ends the intake, then parks and acknowledges what is in hand. What the grace period does not suffice for goes back to the queue.</summary>
    public async Task StopAsync(CancellationToken cancellationToken)
    {
        await stopIntake.CancelAsync();
        await using (cancellationToken.Register(abort.Cancel))
        {
            await processing;
            await inHand.DisposeAsync();
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
        // The one that was too large for the batch before. It was read and not peeked at: after a peek the queue keeps what is taken out of it.
        Delivery? next = null;
        try
        {
            while (next is not null || await subscription.Deliveries.WaitToReadAsync(abort.Token))
            {
                var batch = new List<Delivery>();
                var bytes = 0;
                while (batch.Count < options.MaxBatch && (next is not null || subscription.Deliveries.TryRead(out next)) && (batch.Count == 0 || bytes + next.Size <= MaxBatchBytes))
                {
                    batch.Add(next);
                    bytes += next.Size;
                    next = null;
                }
                await inHand.DoAsync(batch, abort.Token);
            }
        }
        catch (OperationCanceledException) when (abort.IsCancellationRequested)
        {
            // The grace period is over; what is unsettled goes back to the queue.
        }
    }

    /// <summary>A letter that fails by itself: its bytes are kept and nothing of it is looked at.</summary>
    private Task GiveUpAsync(Delivery delivery, Exception failure, CancellationToken cancellationToken)
    {
        LogLetterFailed(failure);
        return ParkAsync([delivery], raw: true);
    }

    private async Task ParkAsync(IReadOnlyList<Delivery> batch, bool raw = false)
    {
        var living = batch;
        IReadOnlyList<DeadLetter> letters = [];
        var outcomes = await pipeline.ExecuteAsync(async token =>
        {
            // What belongs to a dead generation comes again.
            living = [.. batch.Where(delivery => delivery.Generation.IsAlive)];
            if (living.Count == 0)
            {
                return [];
            }
            Failpoint.Hit("letters-before-begin");
            PlantedBug.Plant("letter-acked-before-parking", () => _ = subscription.SettleAsync([.. living.Select(delivery => new SettledDelivery(delivery, Settlement.Acknowledge))]).AsTask());
            return await database.WriteAsync(async transaction =>
            {
                letters = raw
                    ? [.. living.Select(delivery => DeadLetter.Raw(delivery.Body.ToBytes()))]
                    : await LetterArrival.ExplainAsync(transaction, [.. living.Select(delivery => new LetterArrival(delivery.Body, delivery.Properties))]);
                PlantedBug.Plant("letter-is-cut", () => letters = [.. letters.Select(letter => letter with { Body = letter.Body[..^Math.Min(1, letter.Body.Length)] })]);
                PlantedBug.Plant("letter-has-another-key", () => letters = [.. letters.Select(letter => letter with { Key = letter.Key + "-" })]);
                return await parking.ParkAsync(transaction, letters);
            }, token);
        }, abort.Token);
        OnSuccess();
        Failpoint.Hit("letters-after-commit");
        await subscription.SettleAsync([.. living.Select(delivery => new SettledDelivery(delivery, Settlement.Acknowledge))]);
        Failpoint.Hit("letters-after-ack");
        var parked = 0;
        for (var index = 0; index < outcomes.Count; index++)
        {
            if (outcomes[index] is ParkOutcome.Parked or ParkOutcome.ReplayFailed)
            {
                parked++;
                metrics.LetterParked(letters[index].Rejection.Reason);
            }
            if (outcomes[index] == ParkOutcome.ReplayFailed)
            {
                metrics.Replayed("failed");
            }
        }
        if (outcomes.Count > 0)
        {
            LogParked(outcomes.Count, parked);
        }
    }

    private void OnTrouble(string reason)
    {
        LogTrouble(reason);
        troubleSince ??= clock.GetTimestamp();
        if (!held && clock.GetElapsedTime(troubleSince.Value) >= options.HoldAfter)
        {
            held = true;
            subscription.Hold($"the store: {reason}");
            blame.Say(reason, all: true);
        }
    }

    private void OnSuccess()
    {
        troubleSince = null;
        if (held)
        {
            held = false;
            subscription.Release();
            LogBack();
            if (inHand.Waiting == 0)
            {
                blame.Over();
            }
        }
    }

    [LoggerMessage(LogLevel.Information, "Took in {Count} dead letters, {Parked} of them wait for an operator now")]
    private partial void LogParked(int count, int parked);

    [LoggerMessage(LogLevel.Warning, "Dead letters can't be parked for now and wait: {Reason}")]
    private partial void LogTrouble(string reason);

    [LoggerMessage(LogLevel.Information, "The store takes dead letters again")]
    private partial void LogBack();

    [LoggerMessage(LogLevel.Error, "A dead letter failed by itself; only its bytes are kept")]
    private partial void LogLetterFailed(Exception exception);
}

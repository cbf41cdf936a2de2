using Microsoft.Extensions.Options;
using OrderService.Inbox;
using OrderService.Store;
using Polly.CircuitBreaker;

namespace OrderService.RabbitMq;

/// <summary>
/// Takes deliveries, decides them in batches, and settles them after the commit that holds their outcome.
/// While one batch commits the next one arrives and is read, so an idle system has the latency of one commit and a busy one its throughput.
/// Under a steady load a batch gathers for a moment where the store finds it worthwhile, and behind a long queue until it is large: orders that are written together share the pages of the indexes.
/// </summary>
public sealed partial class OrderConsumer : IHostedService, Observability.IStation, IDisposable
{
    /// <summary>Deliveries a millisecond; they come as fast only from a long queue, whose orders are late anyway.</summary>
    private const double LongQueue = 4;

    private static readonly TimeSpan LongestGathering = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan GatheringStep = TimeSpan.FromMilliseconds(3);
    private static readonly TimeSpan EmptyingStep = TimeSpan.FromMilliseconds(20);

    /// <summary>How long a stop waits to have it noted that it is one.</summary>
    private static readonly TimeSpan FarewellPatience = TimeSpan.FromSeconds(2);

    private readonly OrderSubscriptions subscriptions;
    private readonly BatchProcessor<Delivery> processor;
    private readonly InboxCommit commit;
    private readonly ILogger<OrderConsumer> logger;
    private readonly InboxOptions options;
    private readonly int largestBatch;
    private readonly bool isGatheringWorthwhile;
    private readonly TimeProvider clock;
    private readonly GiveWay? giveWay;
    private readonly CancellationTokenSource stopIntake = new();
    private readonly CancellationTokenSource abort = new();

    /// <summary>Messages that stand accused of ending the process; begun when nothing else is in hand.</summary>
    private readonly List<Delivery> accused = [];
    private bool heldForTrial;
    private Task intake = Task.CompletedTask;
    private Task processing = Task.CompletedTask;
    private Task beginning = Task.CompletedTask;

    public OrderConsumer(
        OrderSubscriptions subscriptions, InboxCommit commit, IOptions<InboxOptions> options, IOptions<RabbitMqOptions> broker,
        Observability.Troubles troubles, TimeProvider clock, ILogger<OrderConsumer> logger, GiveWay? giveWay = null)
    {
        this.giveWay = giveWay;
        this.subscriptions = subscriptions;
        this.commit = commit;
        this.logger = logger;
        this.options = options.Value;
        // Half of what is handed out at once: the other half arrives while the first is committed.
        largestBatch = Math.Min(options.Value.MaxBatch, Math.Max(1, broker.Value.Prefetch / 2));
        isGatheringWorthwhile = commit.IsGatheringWorthwhile;
        this.clock = clock;
        processor = new BatchProcessor<Delivery>(
            commit, options.Value,
            new IntakeOfMessages<Delivery>("orders", "Orders", Observability.TroubleLevel.NotReady, MayBeOvertaken: true, SettleAsync, subscriptions.Hold, subscriptions.Release)
            {
                DeliveryLimit = broker.Value.DeliveryLimit,
                CountReturns = static delivery => delivery.DeliveryCount,
                CountInHand = () => subscriptions.States.Sum(state => state.InHand),
            },
            troubles, clock, logger);
    }

    IReadOnlyList<Task> Observability.IStation.Loops => [intake, processing];

    /// <summary>What the store's circuit breaker thinks; open means that nothing is taken in.</summary>
    public CircuitState StoreCircuit => processor.StoreCircuit;

    /// <summary>Why nothing is being committed at the moment; null when all is well.</summary>
    public string? Trouble => processor.Trouble;

    /// <summary>Counts since the start: accepted, duplicate, refused, deferred, rejected, in the order of <see cref="Fate"/>.</summary>
    public IReadOnlyList<long> Fates => processor.Fates;

    public Task StartAsync(CancellationToken cancellationToken)
    {
        intake = subscriptions.RunAsync(stopIntake.Token);
        processing = Task.Run(ProcessAllAsync, CancellationToken.None);
        beginning = Task.Run(BeginLifeAsync, CancellationToken.None);
        return Task.CompletedTask;
    }

    /// <summary>Ends the intake, then commits and settles what is in hand. What the grace period does not suffice for goes back to the queue.</summary>
    public async Task StopAsync(CancellationToken cancellationToken)
    {
        await stopIntake.CancelAsync();
        var farewell = processing.IsFaulted ? Task.CompletedTask : Task.Run(SayFarewellAsync, CancellationToken.None);
        await using (cancellationToken.Register(abort.Cancel))
        {
            await processing;
            await processor.DisposeAsync();
            await intake;
            await beginning;
            await farewell;
        }
    }

    private async Task BeginLifeAsync()
    {
        try
        {
            await processor.BeginLifeAsync(stopIntake.Token);
        }
        catch (OperationCanceledException)
        {
            // Told to stop before the store could be told of the beginning.
        }
    }

    /// <summary>At the beginning of a stop, not at its end: what a grace period that is over cuts off is no message's fault.</summary>
    private async Task SayFarewellAsync()
    {
        await beginning;
        using var patience = new CancellationTokenSource(FarewellPatience, clock);
        try
        {
            await commit.EndLifeAsync(patience.Token).WaitAsync(patience.Token);
        }
        catch (Exception exception)
        {
            // It counts as an end that nobody asked for, and one of those blames nobody.
            LogNoFarewell(exception.Message);
        }
    }

    public void Dispose()
    {
        stopIntake.Dispose();
        abort.Dispose();
    }

    private async Task ProcessAllAsync()
    {
        var committing = Task.CompletedTask;
        var began = clock.GetTimestamp();
        var last = 0;
        try
        {
            while (!abort.IsCancellationRequested)
            {
                if (accused.Count > 0 && subscriptions.Arrived == 0)
                {
                    await committing;
                    if (await TryAccusedAsync())
                    {
                        continue;
                    }
                }
                if (subscriptions.Arrived == 0)
                {
                    // Nothing to read meanwhile. A commit that failed for good is heard of here, whether or not another delivery comes.
                    await committing;
                    if (!await subscriptions.WaitToReadAsync(abort.Token))
                    {
                        break;
                    }
                }
                var batch = new Batch();
                Take(batch);
                await committing;
                await LetGatherAsync(batch, last, clock.GetElapsedTime(began));
                Take(batch);
                began = clock.GetTimestamp();
                last = batch.Deliveries.Count;
                committing = CommitAsync(batch);
                if (batch.Suspects.Count > 0)
                {
                    // A suspect is begun alone: were another message read meanwhile, the crash could be that one's.
                    await committing;
                }
            }
        }
        catch (OperationCanceledException) when (abort.IsCancellationRequested)
        {
            // The grace period is over; what is unsettled goes back to the queue and finds its inbox row, if it has one.
        }
        finally
        {
            await committing;
        }
    }

    /// <summary>Waits while more is sure to come soon: a moment where the store finds it worthwhile and messages come steadily, longer behind a long queue, until the batch is full.</summary>
    /// <param name="last">How many deliveries the last batch had.</param>
    /// <param name="cycle">How long ago it began.</param>
    private async Task LetGatherAsync(Batch batch, int last, TimeSpan cycle)
    {
        // One alone stands for no steady load; the next one should not wait for company that does not come.
        if (last < 2 || (!isGatheringWorthwhile && last < LongQueue * cycle.TotalMilliseconds))
        {
            return;
        }
        for (var waited = TimeSpan.Zero; waited < LongestGathering; waited += GatheringStep)
        {
            var before = subscriptions.Arrived;
            if (batch.Count + before >= largestBatch || batch.Bytes >= options.MaxBatchBytes)
            {
                return;
            }
            await Task.Delay(GatheringStep, clock, abort.Token);
            if (subscriptions.Arrived - before < LongQueue * GatheringStep.TotalMilliseconds)
            {
                return;
            }
        }
    }

    /// <summary>Reads what has arrived, as far as there is room in the batch.</summary>
    private void Take(Batch batch)
    {
        while (batch.Count < largestBatch && batch.Bytes < options.MaxBatchBytes && subscriptions.TryRead(out var delivery))
        {
            if (!delivery.Generation.IsAlive)
            {
                // The broker has taken it back and delivers it again.
                continue;
            }
            batch.Bytes += delivery.Body.Length;
            PlantedBug.Plant("ack-before-commit", () => _ = subscriptions.SettleAsync([new SettledDelivery(delivery, Settlement.Acknowledge)]).AsTask());
            // A suspect is not even read before it is noted as begun; what is refused for its size is never read.
            if (delivery.DeliveryCount < options.SuspectAfterReturns || delivery.Unkept is not null)
            {
                Read(delivery, batch);
            }
            else
            {
                batch.Suspects.Add(delivery);
            }
        }
    }

    private static void Read(Delivery delivery, Batch batch)
    {
        try
        {
            batch.Decoded.Add(Incoming.Read(delivery));
            batch.Deliveries.Add(delivery);
        }
        catch (OutOfMemoryException)
        {
            // No message's fault. All of them are read again where they are committed, by halves if need be.
            batch.IsUnread = true;
            batch.Deliveries.Add(delivery);
        }
        catch (Exception)
        {
            // A mistake of ours, for the decoder lets nothing through. Alone, the message meets it again, and becomes a dead letter with its trace.
            batch.Suspects.Add(delivery);
        }
    }

    private async Task CommitAsync(Batch batch)
    {
        try
        {
            if (batch.Deliveries.Count > 0)
            {
                await processor.ProcessAsync(batch.Deliveries, batch.IsUnread ? null : batch.Decoded, abort.Token);
                if (giveWay is not null)
                {
                    await giveWay(abort.Token);
                }
            }
            if (batch.Suspects.Count > 0)
            {
                accused.AddRange(await processor.ProcessSuspectsAsync(batch.Suspects, abort.Token));
                if (accused.Count > 0 && !heldForTrial)
                {
                    heldForTrial = true;
                    subscriptions.Hold("a message that may end the process is begun when nothing else is in hand");
                }
            }
        }
        catch (OperationCanceledException) when (abort.IsCancellationRequested)
        {
            // The loop ends for the same reason.
        }
    }

    /// <summary>Begins the next accused message, as soon as nothing but the accused is in hand.</summary>
    /// <returns>Whether there is still something to do about them.</returns>
    private async Task<bool> TryAccusedAsync()
    {
        accused.RemoveAll(delivery => !delivery.Generation.IsAlive);
        if (accused.Count == 0 || stopIntake.IsCancellationRequested)
        {
            // Come again, or go back to the queue.
            accused.Clear();
        }
        else if (subscriptions.States.Any(state => state.Phase == SubscriptionPhase.Consuming) || subscriptions.States.Sum(state => state.InHand) > accused.Count + processor.Waiting)
        {
            await Task.Delay(EmptyingStep, clock, abort.Token);
            return true;
        }
        else
        {
            var next = accused[0];
            accused.RemoveAt(0);
            await processor.TryAloneAsync(next, abort.Token);
        }
        if (accused.Count == 0 && heldForTrial)
        {
            heldForTrial = false;
            subscriptions.Release();
        }
        return accused.Count > 0;
    }

    private ValueTask SettleAsync(IReadOnlyList<Delivery> deliveries, IReadOnlyList<Incoming> decided, Append append)
    {
        // Only now may the broker forget the messages. On a dead generation this does nothing, and the copies that come find their inbox rows.
        var settled = new SettledDelivery[decided.Count];
        for (var index = 0; index < settled.Length; index++)
        {
            settled[index] = new SettledDelivery(
                deliveries[index],
                decided[index].Fate == Fate.Rejected ? new Settlement.Reject(decided[index].Reason ?? RejectionReason.InternalError) : Settlement.Acknowledge);
        }
        PlantedBug.Plant("rejected-is-acknowledged", () => settled = [.. deliveries.Take(settled.Length).Select(delivery => new SettledDelivery(delivery, Settlement.Acknowledge))]);
        return subscriptions.SettleAsync(settled);
    }

    [LoggerMessage(LogLevel.Warning, "The store could not be told that this process stops: {Reason}")]
    private partial void LogNoFarewell(string reason);

    private sealed class Batch
    {
        public List<Delivery> Deliveries { get; } = [];

        /// <summary>What was read from each of <see cref="Deliveries"/>.</summary>
        public List<Incoming> Decoded { get; } = [];

        /// <summary>There was no memory to read some of them.</summary>
        public bool IsUnread { get; set; }

        /// <summary>Came back again and again, or could not be read; each is begun alone.</summary>
        public List<Delivery> Suspects { get; } = [];

        public int Count => Deliveries.Count + Suspects.Count;

        /// <summary>Of the bodies.</summary>
        public int Bytes { get; set; }
    }
}

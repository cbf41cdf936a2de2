using Microsoft.Extensions.Options;
using OrderService.EventStore;
using OrderService.RabbitMq;
using Polly.CircuitBreaker;

namespace OrderService.Inbox;

/// <summary>
/// Takes deliveries, decides them in batches, and settles them after the commit that holds their outcome.
/// While one transaction commits the next batch gathers, so an idle system has the latency of one commit and a busy one its throughput.
/// Under a steady load it gathers as long as the store finds it worth, and behind a long queue a little longer: orders that are written together share the pages of the indexes.
/// </summary>
public sealed class InboxProcessor : IHostedService, Observability.IStation, IDisposable
{
    /// <summary>As many deliveries within one commit come only from a long queue, whose orders are late anyway.</summary>
    private const int LongQueue = 100;

    private static readonly TimeSpan BehindLongQueue = TimeSpan.FromMilliseconds(20);

    private readonly OrderSubscriptions subscriptions;
    private readonly BatchProcessor<Delivery> processor;
    private readonly InboxOptions options;
    private readonly int prefetch;
    private readonly TimeSpan worthGathering;
    private readonly TimeProvider clock;
    private readonly CancellationTokenSource stopIntake = new();
    private readonly CancellationTokenSource abort = new();
    private Task intake = Task.CompletedTask;
    private Task processing = Task.CompletedTask;

    public InboxProcessor(
        OrderSubscriptions subscriptions, InboxCommit commit, IOptions<InboxOptions> options, IOptions<RabbitMqOptions> broker, TimeProvider clock, ILogger<InboxProcessor> logger)
    {
        this.subscriptions = subscriptions;
        this.options = options.Value;
        prefetch = broker.Value.Prefetch;
        worthGathering = commit.WorthGathering;
        this.clock = clock;
        processor = new BatchProcessor<Delivery>(commit, options.Value, SettleAsync, subscriptions.Hold, subscriptions.Release, clock, logger);
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
            while (await subscriptions.WaitToReadAsync(abort.Token))
            {
                if (Pause(batch.Count) is { Ticks: > 0 } pause)
                {
                    await Task.Delay(pause, clock, abort.Token);
                }
                Gather(batch, suspects);
                if (batch.Count > 0)
                {
                    await processor.ProcessAsync(batch, abort.Token);
                }
                foreach (var suspect in suspects)
                {
                    await processor.ProcessSuspectAsync(suspect, abort.Token);
                }
            }
        }
        catch (OperationCanceledException) when (abort.IsCancellationRequested)
        {
            // The grace period is over; what is unsettled goes back to the queue and finds its inbox row, if it has one.
        }
    }

    /// <summary>How long the next batch gathers, by the size of the last one.</summary>
    private TimeSpan Pause(int last)
    {
        if (last < LongQueue)
        {
            // One alone stands for no steady load; the next one should not wait for company that does not come.
            return last < 2 ? TimeSpan.Zero : worthGathering;
        }
        // Where half of what the broker hands out at once is in one batch, there is too little left to wait for.
        return last < prefetch / 2 ? BehindLongQueue : TimeSpan.Zero;
    }

    private void Gather(List<Delivery> batch, List<Delivery> suspects)
    {
        batch.Clear();
        suspects.Clear();
        var bytes = 0;
        while (batch.Count + suspects.Count < options.MaxBatch && bytes < options.MaxBatchBytes && subscriptions.TryRead(out var delivery))
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
        return subscriptions.SettleAsync(settled);
    }
}

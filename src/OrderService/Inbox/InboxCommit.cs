using System.Diagnostics;
using Microsoft.Extensions.Options;
using OrderService.Domain;
using OrderService.EventStore;
using OrderService.Observability;

namespace OrderService.Inbox;

/// <summary>
/// Decides a batch and commits what was decided: the one place where messages become events, whichever way they came in.
/// One batch at a time within a process, so that the listeners hear of the appends in the order of their commits; the relay relies on that.
/// </summary>
public sealed class InboxCommit : IDisposable
{
    private readonly IOrderEventStore store;
    private readonly IReadOnlyList<Committed> committed;
    private readonly BatchDecider decider;
    private readonly TimeProvider clock;
    private readonly SemaphoreSlim turn = new(1, 1);

    private readonly OrderMetrics? metrics;

    public InboxCommit(IOrderEventStore store, IEnumerable<Committed> committed, IOptions<OrdersOptions> orders, TimeProvider clock, OrderMetrics? metrics = null)
    {
        this.metrics = metrics;
        this.store = store;
        this.committed = [.. committed];
        this.clock = clock;
        decider = new BatchDecider(new OrderRules(orders.Value.RequirePaymentBeforeShipping), orders.Value.DeferFor);
    }

    /// <inheritdoc cref="IOrderEventStore.IsGatheringWorthwhile"/>
    public bool IsGatheringWorthwhile => store.IsGatheringWorthwhile;

    /// <summary>Writes the fate of every message of the batch, and what follows from it, in one transaction.</summary>
    /// <exception cref="Database.StoreUnavailableException">The store is out of reach; nothing may be settled.</exception>
    public async Task<Append> CommitAsync(IReadOnlyList<Incoming> batch, CancellationToken cancellationToken)
    {
        var query = Query(batch);
        await turn.WaitAsync(cancellationToken);
        try
        {
            Failpoint.Hit("inbox-before-begin");
            var began = clock.GetTimestamp();
            var spans = StartSpans(batch);
            var append = await store.AppendAsync(query, state => decider.Decide(batch, state, Now()), cancellationToken);
            Failpoint.Hit("inbox-after-commit");
            spans?.ForEach(span => span.Dispose());
            metrics?.BatchCommitted(batch.Count, clock.GetElapsedTime(began));
            foreach (var listener in committed)
            {
                listener(append);
            }
            return append;
        }
        finally
        {
            turn.Release();
        }
    }

    /// <summary>Decides and writes orders that are known to be good, and undoes it. It throws what a batch of others would meet.</summary>
    /// <param name="everything">With a command of every kind of fate, which writes to every table that a batch can write to.</param>
    public async Task TryAsync(bool everything, CancellationToken cancellationToken)
    {
        var batch = KnownGood.Batch(everything);
        await turn.WaitAsync(cancellationToken);
        try
        {
            await store.TryAppendAsync(Query(batch), state => decider.Decide(batch, state, Now()), cancellationToken);
        }
        finally
        {
            turn.Release();
        }
    }

    /// <summary>Notes that a message is begun alone; answers how often that was noted before without an end.</summary>
    public Task<int> MarkStartedAsync(byte[] hash, CancellationToken cancellationToken) => store.MarkStartedAsync(hash, Now(), cancellationToken);

    public void Dispose() => turn.Dispose();

    /// <summary>A span for each message, child of its producer's, from the decision to the commit; none when nobody listens.</summary>
    private static List<Activity>? StartSpans(IReadOnlyList<Incoming> batch)
    {
        if (!Tracing.Source.HasListeners())
        {
            return null;
        }
        var spans = new List<Activity>(batch.Count);
        foreach (var incoming in batch)
        {
            if (incoming.Decoded is Decoded.Valid { Envelope: var envelope } && Tracing.StartProcess("orders", envelope.TraceParent, envelope.TraceState) is { } span)
            {
                span.SetTag("messaging.message.conversation_id", envelope.CorrelationId);
                spans.Add(span);
            }
        }
        // The next span must not become the child of this batch's last one.
        Activity.Current = null;
        return spans;
    }

    /// <summary>What has to be known before the batch can be decided.</summary>
    internal static BatchQuery Query(IReadOnlyList<Incoming> batch)
    {
        var keys = new HashSet<string>(batch.Count, StringComparer.Ordinal);
        var orderIds = new HashSet<string>(batch.Count, StringComparer.Ordinal);
        var fingerprints = new List<byte[]>(batch.Count);
        HashSet<string>? paid = null;
        foreach (var incoming in batch)
        {
            switch (incoming.Decoded)
            {
                case Decoded.Valid { Envelope: var envelope }:
                    keys.Add(envelope.Key);
                    orderIds.Add(envelope.Command.OrderId);
                    fingerprints.Add(envelope.Fingerprint);
                    if (envelope.Command is OrderCommand.Pay)
                    {
                        (paid ??= new HashSet<string>(StringComparer.Ordinal)).Add(envelope.Command.OrderId);
                    }
                    break;
                case Decoded.Invalid invalid when incoming.Claims:
                    keys.Add(invalid.Key);
                    break;
            }
        }
        return new BatchQuery(keys, orderIds, paid is null ? [] : paid, fingerprints);
    }

    private long Now() => clock.GetUtcNow().ToUnixTimeMilliseconds();
}

/// <summary>Is told of each append after its commit, in the order of the commits; must be quick and must not throw.</summary>
public delegate void Committed(Append append);

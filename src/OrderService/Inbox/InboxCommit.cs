using System.Diagnostics;
using Microsoft.Extensions.Options;
using OrderService.Domain;
using OrderService.Observability;
using OrderService.Store;

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
    private readonly System.Collections.Concurrent.ConcurrentQueue<string> backlog = new();
    private readonly TimeProvider clock;
    private readonly StoreTime? time;
    private readonly SemaphoreSlim turn = new(1, 1);

    private readonly OrderMetrics? metrics;
    private readonly MessagingMetrics? times;

    public InboxCommit(IOrderEventStore store, IEnumerable<Committed> committed, IOptions<OrdersOptions> orders, TimeProvider clock, OrderMetrics? metrics = null, StoreTime? time = null, MessagingMetrics? times = null)
    {
        this.times = times;
        this.metrics = metrics;
        this.store = store;
        this.committed = [.. committed];
        this.clock = clock;
        this.time = time;
        decider = new BatchDecider(orders.Value.Rules, orders.Value.DeferFor, [.. orders.Value.SearchableAttributes]);
    }

    /// <inheritdoc cref="IOrderEventStore.IsGatheringWorthwhile"/>
    public bool IsGatheringWorthwhile => store.IsGatheringWorthwhile;

    /// <summary>Writes the fate of every message of the batch, and what follows from it, in one transaction.</summary>
    /// <exception cref="Store.StoreUnavailableException">The store is out of reach; nothing may be settled.</exception>
    public Task<Append> CommitAsync(IReadOnlyList<Incoming> batch, CancellationToken cancellationToken) => CommitAsync(batch, MessagingMetrics.RabbitMq, cancellationToken);

    /// <inheritdoc cref="CommitAsync(IReadOnlyList{Incoming}, CancellationToken)"/>
    /// <param name="system">Where the batch came from, for the metrics.</param>
    public async Task<Append> CommitAsync(IReadOnlyList<Incoming> batch, string system, CancellationToken cancellationToken)
    {
        var query = Query(batch);
        // Durable before what is written under them.
        var keys = await KeysAsync(batch, cancellationToken);
        await turn.WaitAsync(cancellationToken);
        var began = clock.GetTimestamp();
        try
        {
            Failpoint.Hit("inbox-before-begin");
            var spans = StartSpans(batch);
            var append = await store.AppendAsync(query, state => decider.Decide(batch, state, Now(), time?.Now(), keys), cancellationToken);
            Failpoint.Hit("inbox-after-commit");
            spans?.ForEach(span => span.Dispose());
            foreach (var orderId in append.Backlog)
            {
                backlog.Enqueue(orderId);
            }
            Measure(batch, system, clock.GetElapsedTime(began));
            foreach (var listener in committed)
            {
                listener(append);
            }
            return append;
        }
        catch (Exception exception) when (exception is not OperationCanceledException)
        {
            times?.Processed(system, clock.GetElapsedTime(began), exception.GetType().Name);
            throw;
        }
        finally
        {
            turn.Release();
        }
    }

    private void Measure(IReadOnlyList<Incoming> batch, string system, TimeSpan took)
    {
        metrics?.BatchCommitted(batch.Count, took);
        if (times is null)
        {
            return;
        }
        times.Processed(system, took, null);
        var now = Now();
        foreach (var incoming in batch)
        {
            // A copy was decided with the first one, and a command that waits is decided later.
            if (incoming is { Fate: not (Fate.Duplicate or Fate.Deferred), Properties.Timestamp: { } sentAt })
            {
                times.Decided(sentAt, now);
            }
        }
    }

    /// <summary>An order for which more commands wait than one transaction decides, as this process knows; null when there is none.</summary>
    public string? NextBacklog() => backlog.TryDequeue(out var orderId) ? orderId : null;

    /// <summary>Decides as many of the commands that waited for an order as one transaction takes.</summary>
    /// <returns>Whether there may be more.</returns>
    public async Task<bool> DecideBacklogAsync(string orderId, CancellationToken cancellationToken)
    {
        await turn.WaitAsync(cancellationToken);
        try
        {
            var append = await store.AppendAsync(BacklogQuery(orderId), state => decider.DecideBacklog(state, Now()), cancellationToken);
            foreach (var listener in committed)
            {
                listener(append);
            }
            return append.Backlog.Count > 0;
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
            await store.TryAppendAsync(Query(batch), state => decider.Decide(batch, state, Now(), time?.Now()), cancellationToken);
        }
        finally
        {
            turn.Release();
        }
    }

    /// <summary>Notes that this process takes orders in from now on.</summary>
    public Task BeginLifeAsync(CancellationToken cancellationToken) => store.Lives.BeginAsync(Now(), CrashRule.Memory, cancellationToken);

    /// <inheritdoc cref="Store.Lives.EndAsync"/>
    public Task EndLifeAsync(CancellationToken cancellationToken) => store.Lives.EndAsync(cancellationToken);

    /// <inheritdoc cref="Store.Lives.ExplainAsync"/>
    public Task ExplainEndsAsync(CancellationToken cancellationToken) => store.Lives.ExplainAsync(cancellationToken);

    /// <inheritdoc cref="Store.Lives.LookAtAsync"/>
    public Task<IReadOnlyList<Suspicion>> LookAtAsync(IReadOnlyList<byte[]> hashes, CancellationToken cancellationToken) =>
        store.Lives.LookAtAsync(hashes, Now(), CrashRule.Memory, cancellationToken);

    /// <inheritdoc cref="Store.Lives.MarkStartedAsync"/>
    public Task MarkStartedAsync(IReadOnlyList<byte[]> hashes, bool alone, CancellationToken cancellationToken) => store.Lives.MarkStartedAsync(hashes, alone, Now(), cancellationToken);

    public void Dispose() => turn.Dispose();

    /// <summary>The keys of the customers of whom the batch says something personal; null where it says nothing, which costs nothing.</summary>
    private async Task<KeyOfCustomer?> KeysAsync(IReadOnlyList<Incoming> batch, CancellationToken cancellationToken)
    {
        HashSet<string>? customers = null;
        foreach (var incoming in batch)
        {
            if (incoming.Decoded is Decoded.Valid { Envelope.Command: OrderCommand.Place { Personal: not null } place })
            {
                (customers ??= new HashSet<string>(StringComparer.Ordinal)).Add(place.CustomerId);
            }
        }
        if (customers is null)
        {
            return null;
        }
        // Asking for them blocks a thread for a moment.
        var keys = await Task.Run(() => store.Keys.OfCustomers(customers), cancellationToken);
        return customer => keys[customer];
    }

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
                incoming.Span = span.Context;
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
        HashSet<string>? paid = null, whole = null;
        foreach (var incoming in batch)
        {
            switch (incoming.Decoded)
            {
                case Decoded.Valid { Envelope: var envelope }:
                    keys.Add(envelope.Key);
                    orderIds.Add(envelope.Command.OrderId);
                    fingerprints.Add(envelope.Fingerprint);
                    if (envelope.Command.NeedsStream)
                    {
                        (whole ??= new HashSet<string>(StringComparer.Ordinal)).Add(envelope.Command.OrderId);
                    }
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
        return new BatchQuery(keys, orderIds, paid is null ? [] : paid, fingerprints) { WholeOrderIds = whole is null ? [] : whole };
    }

    /// <summary>What has to be known before more of the commands that waited for an order can be decided.</summary>
    internal static BatchQuery BacklogQuery(string orderId) => new([], [orderId], [], []) { WholeOrderIds = [orderId] };

    private long Now() => clock.GetUtcNow().ToUnixTimeMilliseconds();
}

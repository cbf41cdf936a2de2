using System.Threading.Channels;
using Microsoft.Extensions.Options;
using OrderService.Domain;
using OrderService.EventStore;
using OrderService.Observability;
using OrderService.RabbitMq;

namespace OrderService.Outbox;

/// <summary>
/// Publishes what was committed. Fresh rows are handed over in memory and never read back; what was not handed over (from before a restart,
/// from another process, more than memory holds) is loaded from the table. At most one message of a stream is unconfirmed at any time,
/// so the first occurrences of an order's events leave in order; a row leaves the table only after a routed confirm.
/// </summary>
public sealed partial class OutboxRelay(
    OutboxStore store,
    IRelayLease lease,
    ConfirmedPublisher publisher,
    IOptions<OutboxOptions> options,
    TimeProvider clock,
    ILogger<OutboxRelay> logger) : IHostedService, IStation, IDisposable
{
    private enum Intake
    {
        /// <summary>Handed-over rows are ignored: they are in the table and will be loaded, in their order.</summary>
        Ignore,

        /// <summary>A load is under way; handed-over rows wait for its end.</summary>
        Buffer,

        /// <summary>Memory knows of everything in the table; handed-over rows are taken as they come.</summary>
        Direct,
    }

    /// <summary>
    /// How long confirmed messages gather before they are marked as sent. Nobody waits for the mark, but every commit that comes is held up by the one for it.
    /// What a crash leaves unmarked is published again, with the same ids.
    /// </summary>
    private static readonly TimeSpan MarkDelay = TimeSpan.FromMilliseconds(20);

    private readonly Lock gate = new();
    private readonly Dictionary<string, StreamInHand> streams = new(StringComparer.Ordinal);
    private readonly HashSet<long> known = [];
    private readonly int[] underWay = new int[Shard.Count];
    private readonly SentVersions sent = new();
    private readonly List<OutboxRow> buffer = [];
    private readonly Channel<OutboxRow> ready = Channel.CreateUnbounded<OutboxRow>(new() { SingleReader = true });
    private readonly Channel<Confirmed> confirmed = Channel.CreateUnbounded<Confirmed>(new() { SingleReader = true });
    private readonly Channel<OutboxRow> failed = Channel.CreateUnbounded<OutboxRow>(new() { SingleReader = true });
    private readonly CancellationTokenSource stop = new();
    private readonly CancellationTokenSource abort = new();
    private Intake intake = Intake.Ignore;
    private HashSet<int> shards = [];
    private Task[] loops = [];

    /// <summary>How many messages the relay holds in memory, unconfirmed ones included.</summary>
    public int InMemory
    {
        get
        {
            lock (gate)
            {
                return known.Count;
            }
        }
    }

    /// <summary>How many messages were confirmed and marked as sent since the start.</summary>
    public long Sent { get; private set; }

    /// <summary>Why the last publish failed, in plain words; null after a success.</summary>
    public string? LastFailure { get; private set; }

    IReadOnlyList<Task> IStation.Loops => loops;

    /// <summary>The shards that this instance relays.</summary>
    public IReadOnlyCollection<int> Shards => shards;

    /// <summary>Hands over what was just committed. Never waits: what memory has no room for is in the table.</summary>
    public void Offer(Append append)
    {
        if (append.Outbox.Count == 0)
        {
            return;
        }
        lock (gate)
        {
            switch (intake)
            {
                case Intake.Ignore:
                    break;
                case Intake.Buffer:
                    buffer.AddRange(append.Outbox);
                    break;
                case Intake.Direct when known.Count + append.Outbox.Count > options.Value.MaxInMemory:
                    // From here on rows are missing in memory, so nothing newer may be taken before they are loaded.
                    intake = Intake.Ignore;
                    break;
                case Intake.Direct:
                    append.Outbox.ForEach(TakeFresh);
                    break;
            }
        }
    }

    public Task StartAsync(CancellationToken cancellationToken)
    {
        loops = [Task.Run(LoadLoopAsync, CancellationToken.None), Task.Run(PublishLoopAsync, CancellationToken.None), Task.Run(MarkLoopAsync, CancellationToken.None), Task.Run(RetryLoopAsync, CancellationToken.None)];
        return Task.CompletedTask;
    }

    /// <summary>Waits for the outcomes of what is under way; what is not sent stays in the table.</summary>
    public async Task StopAsync(CancellationToken cancellationToken)
    {
        await stop.CancelAsync();
        await using (cancellationToken.Register(abort.Cancel))
        {
            try
            {
                await publisher.DrainAsync(abort.Token);
            }
            catch (OperationCanceledException)
            {
                // Unconfirmed messages stay in the table and are published again, with the same ids.
            }
            confirmed.Writer.TryComplete();
            failed.Writer.TryComplete();
            ready.Writer.TryComplete();
            await Task.WhenAll(loops);
        }
        await lease.DisposeAsync();
    }

    public void Dispose()
    {
        stop.Dispose();
        abort.Dispose();
    }

    /// <summary>
    /// Takes a row that was just committed here. Where others append to the same streams, an event is taken only when the one before it is
    /// in hand or was sent from here; otherwise that one may still be in the table, and the next load brings both in their order.
    /// Call with <see cref="gate"/> held.
    /// </summary>
    private void TakeFresh(OutboxRow row)
    {
        if (row.Kind == OutboxKind.Event && lease.SharesStreams && row.Version > 1)
        {
            var before = streams.TryGetValue(row.OrderId, out var stream) && stream.LastVersion > 0 ? stream.LastVersion : sent.Of(row.OrderId);
            if (before != row.Version - 1)
            {
                return;
            }
        }
        Take(row);
    }

    /// <summary>Call with <see cref="gate"/> held.</summary>
    private void Take(OutboxRow row)
    {
        if (!shards.Contains(Shard.Of(row.OrderId)) || !known.Add(row.Id))
        {
            return;
        }
        if (streams.TryGetValue(row.OrderId, out var stream))
        {
            (stream.Waiting ??= new Queue<OutboxRow>()).Enqueue(row);
        }
        else
        {
            streams[row.OrderId] = stream = new StreamInHand();
            ready.Writer.TryWrite(row);
        }
        if (row.Kind == OutboxKind.Event)
        {
            stream.LastVersion = row.Version;
        }
    }

    /// <summary>Whether the row may be published now. When its shard was lost meanwhile, its stream is left to whoever has the shard.</summary>
    private bool TryBegin(OutboxRow row)
    {
        lock (gate)
        {
            var shard = Shard.Of(row.OrderId);
            if (shards.Contains(shard) && lease.IsCurrent)
            {
                underWay[shard]++;
                return true;
            }
            known.Remove(row.Id);
            if (streams.Remove(row.OrderId, out var stream))
            {
                Forget(stream);
            }
            return false;
        }
    }

    /// <summary>Leaves what waits in a stream to the table. Call with <see cref="gate"/> held.</summary>
    private void Forget(StreamInHand stream)
    {
        while (stream.Waiting?.TryDequeue(out var row) == true)
        {
            known.Remove(row.Id);
        }
        stream.LastVersion = 0;
    }

    private async Task LoadLoopAsync()
    {
        using var tick = new PeriodicTimer(options.Value.PollInterval, clock);
        try
        {
            do
            {
                try
                {
                    do
                    {
                        await RenewAsync();
                    }
                    while (shards.Count > 0 && await LoadAsync());
                }
                catch (Exception exception) when (!stop.IsCancellationRequested)
                {
                    // Nothing is lost: what was not loaded is in the table at the next tick.
                    LogLoadFailed(exception.Message);
                }
            }
            while (await tick.WaitForNextTickAsync(stop.Token));
        }
        catch (OperationCanceledException)
        {
            // The relay stops.
        }
    }

    private async Task RenewAsync()
    {
        HashSet<int> busy;
        lock (gate)
        {
            busy = [.. Enumerable.Range(0, Shard.Count).Where(shard => underWay[shard] > 0)];
        }
        var held = await lease.RenewAsync(busy, stop.Token);
        lock (gate)
        {
            if (shards.SetEquals(held))
            {
                return;
            }
            shards = [.. held];
            intake = Intake.Ignore;
            foreach (var (orderId, stream) in streams)
            {
                if (!shards.Contains(Shard.Of(orderId)))
                {
                    // What is on its way to the broker ends here; what waits behind it is in the table for the next holder.
                    Forget(stream);
                }
            }
            LogShards(held.Count);
        }
    }

    /// <returns>True when there is more to load right now.</returns>
    private async Task<bool> LoadAsync()
    {
        HashSet<long> snapshot;
        int room;
        lock (gate)
        {
            room = options.Value.MaxInMemory - known.Count;
            if (room < options.Value.MaxInMemory / 2)
            {
                return false;
            }
            intake = Intake.Buffer;
            buffer.Clear();
            snapshot = [.. known];
        }
        try
        {
            var (rows, all) = await store.LoadAsync(shards, snapshot, room, stop.Token);
            lock (gate)
            {
                foreach (var row in rows)
                {
                    Take(row);
                }
                if (all && known.Count + buffer.Count <= options.Value.MaxInMemory)
                {
                    // Whatever was committed after the query began has been handed over meanwhile.
                    buffer.ForEach(TakeFresh);
                    intake = Intake.Direct;
                }
                else
                {
                    intake = Intake.Ignore;
                }
                buffer.Clear();
                return !all && rows.Count > 0;
            }
        }
        catch
        {
            lock (gate)
            {
                intake = Intake.Ignore;
                buffer.Clear();
            }
            throw;
        }
    }

    private async Task PublishLoopAsync()
    {
        Action<OutgoingMessage, PublishOutcome> completed = Completed;
        try
        {
            await foreach (var row in ready.Reader.ReadAllAsync(stop.Token))
            {
                if (!TryBegin(row))
                {
                    continue;
                }
                try
                {
                    Failpoint.Hit("relay-before-publish");
                    await publisher.PublishAsync(Render(row), completed, stop.Token);
                    Failpoint.Hit("relay-after-publish");
                }
                catch (Exception exception) when (!stop.IsCancellationRequested)
                {
                    Fail(row, exception.GetType().Name);
                }
            }
        }
        catch (OperationCanceledException)
        {
            // The relay stops; what is ready stays in the table.
        }
    }

    /// <summary>Runs on the connection's reading loop: quick, and without exceptions.</summary>
    private void Completed(OutgoingMessage message, PublishOutcome outcome)
    {
        var row = (OutboxRow)message.State!;
        if (outcome is not PublishOutcome.Confirmed)
        {
            Fail(row, Describe(outcome));
            return;
        }
        LastFailure = null;
        confirmed.Writer.TryWrite(new Confirmed(row.Id, Shard.Of(row.OrderId)));
        lock (gate)
        {
            if (row.Kind == OutboxKind.Event && lease.SharesStreams)
            {
                sent.Add(row.OrderId, row.Version);
            }
            if (streams[row.OrderId].Waiting?.TryDequeue(out var next) == true)
            {
                ready.Writer.TryWrite(next);
            }
            else
            {
                streams.Remove(row.OrderId);
            }
        }
    }

    private static string Describe(PublishOutcome outcome) => outcome switch
    {
        PublishOutcome.Returned returned => $"no queue takes it ({returned.Text})",
        PublishOutcome.Nacked => "a queue refuses it",
        PublishOutcome.Unknown unknown => unknown.Reason,
        PublishOutcome.Refused refused => refused.Reason,
        _ => outcome.ToString(),
    };

    private void Fail(OutboxRow row, string reason)
    {
        // The row's stream waits behind it; other streams go on.
        LastFailure = reason;
        lock (gate)
        {
            underWay[Shard.Of(row.OrderId)]--;
        }
        failed.Writer.TryWrite(row);
    }

    private async Task RetryLoopAsync()
    {
        try
        {
            while (await failed.Reader.WaitToReadAsync(stop.Token))
            {
                LogPublishFailed(LastFailure);
                await Task.Delay(options.Value.RetryDelay * (0.5 + Random.Shared.NextDouble()), clock, stop.Token);
                // All are taken out before the first goes back: one that fails again at once waits for the next round.
                var again = new List<OutboxRow>();
                while (failed.Reader.TryRead(out var row))
                {
                    again.Add(row);
                }
                again.ForEach(row => ready.Writer.TryWrite(row));
            }
        }
        catch (OperationCanceledException)
        {
            // The relay stops; what failed stays in the table.
        }
    }

    private async Task MarkLoopAsync()
    {
        var rows = new List<Confirmed>();
        while (await confirmed.Reader.WaitToReadAsync(CancellationToken.None))
        {
            await Task.Delay(MarkDelay, clock, stop.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            while (confirmed.Reader.TryRead(out var row))
            {
                rows.Add(row);
            }
            Failpoint.Hit("relay-after-confirm");
            try
            {
                // The broker has them. A stop request must not turn that into a second publish after the restart.
                await store.MarkSentAsync(rows.ConvertAll(row => row.Id));
            }
            catch (Exception exception)
            {
                // Kept in hand, and marked with the next ones; in the worst case they are published again, with the same ids.
                LogMarkFailed(exception.Message);
                if (stop.IsCancellationRequested)
                {
                    return;
                }
                await Task.Delay(options.Value.RetryDelay, clock, CancellationToken.None);
                confirmed.Writer.TryWrite(rows[^1]);
                rows.RemoveAt(rows.Count - 1);
                continue;
            }
            Failpoint.Hit("relay-after-mark");
            Sent += rows.Count;
            lock (gate)
            {
                foreach (var row in rows)
                {
                    known.Remove(row.Id);
                    underWay[row.Shard]--;
                }
            }
            rows.Clear();
        }
    }

    private static OutgoingMessage Render(OutboxRow row)
    {
        if (row.Event is { } recorded)
        {
            var eventId = recorded.EventId;
            var head = new CloudEventHead(
                eventId, recorded.Type, recorded.OrderId, recorded.Version, DateTimeOffset.FromUnixTimeMilliseconds(recorded.RecordedAt),
                recorded.CorrelationId, recorded.CausationId, recorded.TraceParent);
            return new OutgoingMessage
            {
                Exchange = TopologyNames.OrderEvents,
                RoutingKey = EventRoutingKey.Of(recorded.Type),
                MessageId = eventId,
                Body = CloudEventWriter.Write(head, recorded.Data.Span),
                ContentType = CloudEventWriter.ContentType,
                CorrelationId = recorded.CorrelationId,
                Type = recorded.Type,
                Headers = TraceText.Headers<object?>(recorded.TraceContext),
                State = row,
            };
        }
        var message = Announcement.Parse(row.Message ?? throw new InvalidDataException($"Outbox row {row.Id} has neither an event nor a message."));
        return new OutgoingMessage
        {
            Exchange = message.Exchange,
            RoutingKey = message.RoutingKey,
            OrderId = row.OrderId,
            MessageId = message.MessageId,
            Body = row.Body,
            ContentType = message.ContentType,
            ContentEncoding = message.ContentEncoding,
            CorrelationId = message.CorrelationId,
            Type = message.Type,
            Headers = message.Headers?.ToDictionary(header => header.Key, header => (object?)header.Value),
            State = row,
        };
    }

    [LoggerMessage(LogLevel.Information, "This instance relays {Shards} of 16 shares of the streams")]
    private partial void LogShards(int shards);

    [LoggerMessage(LogLevel.Warning, "The outbox could not be read and is read again: {Reason}")]
    private partial void LogLoadFailed(string reason);

    [LoggerMessage(LogLevel.Warning, "Publishing failed and is tried again, with the same ids: {Reason}")]
    private partial void LogPublishFailed(string? reason);

    [LoggerMessage(LogLevel.Warning, "Confirmed messages could not be marked as sent yet: {Reason}")]
    private partial void LogMarkFailed(string reason);

    /// <summary>A row that waits for its mark. Its message is let go: a batch of them, held for nobody, would be copied by every collection.</summary>
    private readonly record struct Confirmed(long Id, int Shard);

    /// <summary>A stream with a message in <see cref="ready"/>, under way or waiting for its next attempt, and those behind it.</summary>
    private sealed class StreamInHand
    {
        public Queue<OutboxRow>? Waiting;

        /// <summary>The version of the newest event in hand; 0 when there is none.</summary>
        public long LastVersion;
    }

    /// <summary>The versions that were sent last, of the streams that had one recently.</summary>
    private sealed class SentVersions
    {
        private const int Half = 10_000;
        private Dictionary<string, long> newer = new(StringComparer.Ordinal);
        private Dictionary<string, long> older = new(StringComparer.Ordinal);

        public long Of(string orderId) => newer.TryGetValue(orderId, out var version) || older.TryGetValue(orderId, out version) ? version : 0;

        public void Add(string orderId, long version)
        {
            if (newer.Count >= Half)
            {
                (newer, older) = (older, newer);
                newer.Clear();
            }
            newer[orderId] = version;
        }
    }
}

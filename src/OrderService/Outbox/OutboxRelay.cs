using System.Threading.Channels;
using Microsoft.Extensions.Options;
using OrderService.Domain;
using OrderService.Observability;
using OrderService.Store;

namespace OrderService.Outbox;

/// <summary>
/// Publishes what was committed. Fresh rows are handed over in memory and never read back; what was not handed over (from before a restart,
/// from another process, more than memory holds) is loaded from the table. At most one message of a stream is unconfirmed at any time,
/// so the first occurrences of an order's events leave in order; a row leaves the table only after a routed confirm.
/// What a queue refuses is marked as stuck in the table and forgotten here, with all that comes behind it in its stream; see <see cref="RelayLane"/>.
/// </summary>
public sealed partial class OutboxRelay(
    OutboxStore store,
    IRelayLease lease,
    EventPublisher publisher,
    IOptions<OutboxOptions> options,
    TimeProvider clock,
    ILogger<OutboxRelay> logger,
    OrderMetrics? metrics = null,
    MessagingMetrics? times = null,
    ReplayRefused? replayRefused = null,
    IOptions<EventsOptions>? events = null) : IHostedService, IStation, IDisposable
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

    /// <summary>A key whose messages wait in memory has had no outcome for so long: they make room for others.</summary>
    private static readonly TimeSpan Silence = TimeSpan.FromSeconds(2);

    /// <summary>No append takes longer than this to commit, so that below what was seen by then no new row appears.</summary>
    private static readonly TimeSpan LongestAppend = TimeSpan.FromMinutes(1);

    /// <summary>How long one batch of the intake gives way at the most.</summary>
    private static readonly TimeSpan LongestWay = TimeSpan.FromMilliseconds(200);

    private static readonly TimeSpan WayStep = TimeSpan.FromMilliseconds(3);

    /// <summary>No confirm for so long: waiting for the relay helps nobody.</summary>
    private static readonly TimeSpan StandsStill = TimeSpan.FromMilliseconds(250);

    /// <summary>Fresh rows above this are taken without the decided event beside its bytes.</summary>
    private const int LargeEvent = 16 * 1024;

    private const int StickAtOnce = 5_000;
    private const int ReleaseAtOnce = 200;

    /// <summary>
    /// One stream's messages leave one after the other, so that a stream with a long queue would fill memory for minutes while others wait: the rest of it stays in the table.
    /// </summary>
    private const int MostOfOneStream = 200;

    /// <summary>On each event: how often its shard had changed hands when it was published (contract, section 3).</summary>
    private const string EpochHeader = "x-relay-epoch";

    private readonly Lock gate = new();
    private readonly Dictionary<string, StreamInHand> streams = new(StringComparer.Ordinal);
    private readonly Dictionary<long, long> known = [];

    // Streams of which more is in the table than in memory.
    private readonly HashSet<string> partial = new(StringComparer.Ordinal);
    private readonly Dictionary<string, RelayLane> lanes = new(StringComparer.Ordinal);
    private readonly CopyBudget budget = new(clock);
    private readonly StuckStreams stuck = new();
    private readonly Queue<(long At, long Id)> seen = new();
    private readonly Channel<bool> wake = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { SingleReader = true, FullMode = BoundedChannelFullMode.DropWrite });
    private readonly int[] underWay = new int[Shard.Count];
    private readonly SentVersions sent = new();
    private readonly List<OutboxRow> buffer = [];
    private readonly Channel<Ready> ready = Channel.CreateUnbounded<Ready>(new() { SingleReader = true });
    private readonly Channel<Confirmed> confirmed = Channel.CreateUnbounded<Confirmed>(new() { SingleReader = true });
    private readonly Channel<OutboxRow> failed = Channel.CreateUnbounded<OutboxRow>(new() { SingleReader = true });
    private readonly CancellationTokenSource stop = new();
    private readonly CancellationTokenSource abort = new();
    private readonly Queue<(OutboxRow Row, string Reason)> ending = new();
    private readonly Queue<string> opened = new();
    private List<Sticking> sticking = [];
    private Intake intake = Intake.Ignore;
    private HashSet<int> shards = [];
    private bool shardsAreNew;
    private long bytes;
    private long bufferBytes;
    private long confirmedAt;
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

    /// <summary>How many bytes the messages in memory take.</summary>
    public long BytesInMemory
    {
        get
        {
            lock (gate)
            {
                return bytes;
            }
        }
    }

    /// <summary>The routing keys that something waits for in this instance's share.</summary>
    public IReadOnlyList<LaneState> Stuck
    {
        get
        {
            lock (gate)
            {
                return [.. lanes.Values.Where(lane => lane.HasStuck).Select(lane => new LaneState(lane.Key, lane.IsClosed, lane.Reason, lane.Since))];
            }
        }
    }

    /// <summary>Whatever had an outcome lately was refused.</summary>
    public bool IsEverythingRefused
    {
        get
        {
            lock (gate)
            {
                return lanes.Values.Count(lane => lane is { IsClosed: true, HasStuck: true } && lane.Key != RelayLane.Unsendable) > 1
                    && lanes.Values.All(lane => lane.IsClosed || clock.GetElapsedTime(lane.LastOutcomeAt) > CopyBudget.Window);
            }
        }
    }

    /// <summary>Hands over what was just committed. Never waits: what memory has no room for is in the table.</summary>
    public void Offer(Append append)
    {
        if (append.Outbox.Count == 0)
        {
            return;
        }
        var size = 0L;
        foreach (var row in append.Outbox)
        {
            size += row.Memory;
        }
        lock (gate)
        {
            var isFull = known.Count + buffer.Count + append.Outbox.Count > options.Value.MaxInMemory || bytes + bufferBytes + size > options.Value.MaxBytesInMemory;
            switch (intake)
            {
                case Intake.Ignore:
                    break;
                case not Intake.Ignore when isFull:
                    // From here on rows are missing in memory, so nothing newer may be taken before they are loaded.
                    intake = Intake.Ignore;
                    ClearBuffer();
                    break;
                case Intake.Buffer:
                    buffer.AddRange(append.Outbox);
                    bufferBytes += size;
                    break;
                case Intake.Direct:
                    append.Outbox.ForEach(TakeFresh);
                    break;
            }
        }
    }

    /// <summary>
    /// Waits a little while memory fills and confirms come: what is committed beyond memory has to be read back, which costs more than the wait.
    /// A relay that stands still holds nobody up, and one that is slow not for long.
    /// </summary>
    public async Task GiveWayAsync(CancellationToken cancellationToken)
    {
        for (var waited = TimeSpan.Zero; waited < LongestWay && IsBehind(); waited += WayStep)
        {
            await Task.Delay(WayStep, clock, cancellationToken);
        }
    }

    private bool IsBehind()
    {
        lock (gate)
        {
            var limits = options.Value;
            return (known.Count > limits.MaxInMemory / 2 || bytes > limits.MaxBytesInMemory / 2) && clock.GetElapsedTime(confirmedAt) < StandsStill;
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
    /// So it is with a stream that may be stuck. Call with <see cref="gate"/> held.
    /// </summary>
    private void TakeFresh(OutboxRow row)
    {
        if (stuck.MayContain(row.OrderId) || partial.Contains(row.OrderId))
        {
            return;
        }
        if (row.Kind == OutboxKind.Event && lease.SharesStreams && row.Version > 1)
        {
            var before = streams.TryGetValue(row.OrderId, out var stream) && stream.LastVersion > 0 ? stream.LastVersion : sent.Of(row.OrderId);
            if (before != row.Version - 1)
            {
                return;
            }
        }
        Take(row.Event is { Data.Length: > LargeEvent } large ? row with { Event = large with { Event = null } } : row);
    }

    /// <summary>Call with <see cref="gate"/> held.</summary>
    /// <param name="releasedFor">The key whose stuck ones it is taken from.</param>
    private void Take(OutboxRow row, RelayLane? releasedFor = null)
    {
        if (!shards.Contains(Shard.Of(row.OrderId)) || known.ContainsKey(row.Id))
        {
            return;
        }
        if (streams.TryGetValue(row.OrderId, out var stream))
        {
            if (stream.IsSticking)
            {
                // It follows the others into the table: the next load finds that its stream is stuck.
                return;
            }
            if (stream.Waiting?.Count >= MostOfOneStream)
            {
                LeaveRest(row.OrderId);
                return;
            }
            (stream.Waiting ??= new Queue<OutboxRow>()).Enqueue(row);
        }
        else
        {
            streams[row.OrderId] = stream = new StreamInHand { MayPass = releasedFor is not null, ReleasedFor = releasedFor };
            if (releasedFor is not null)
            {
                releasedFor.Released++;
            }
            ready.Writer.TryWrite(new Ready(row));
        }
        known.Add(row.Id, row.Memory);
        bytes += row.Memory;
        if (row.Kind == OutboxKind.Event)
        {
            stream.LastVersion = row.Version;
        }
    }

    /// <summary>What follows in this stream waits in the table until those in hand have left. Call with <see cref="gate"/> held.</summary>
    private void LeaveRest(string orderId)
    {
        partial.Add(orderId);
        seen.Clear();
    }

    /// <summary>Call with <see cref="gate"/> held.</summary>
    private void Drop(long id)
    {
        if (known.Remove(id, out var size))
        {
            bytes -= size;
        }
    }

    private void ClearBuffer()
    {
        buffer.Clear();
        bufferBytes = 0;
    }

    /// <summary>
    /// Whether the row may be published now. When its shard was lost meanwhile, its stream is left to whoever has the shard; when its key is closed, or others wait for it in the table,
    /// its stream goes there too; when the key has enough under way, the row waits for an outcome.
    /// </summary>
    private bool TryBegin(Ready one)
    {
        lock (gate)
        {
            var row = one.Row;
            var lane = LaneOf(row);
            if (one.HasPlace)
            {
                lane.Abandon();
            }
            var shard = Shard.Of(row.OrderId);
            if (!shards.Contains(shard) || !lease.IsCurrent)
            {
                Drop(row.Id);
                seen.Clear();
                if (streams.Remove(row.OrderId, out var left))
                {
                    Forget(left);
                }
                return false;
            }
            var stream = streams[row.OrderId];
            EndRelease(stream);
            if (lane.IsClosed ? lane.Attempt != row.OrderId : lane.HasStuck && !stream.MayPass)
            {
                Stick(row, stream, lane, lane.Reason);
                return false;
            }
            if (!lane.IsClosed && !one.HasPlace && (lane.Waiting.Count > 0 || lane.Room(BusyLanes()) == 0))
            {
                if (lane.Waiting.Count >= options.Value.MaxInMemory / 4 && clock.GetElapsedTime(lane.LastOutcomeAt) > Silence && publisher.IsOpen())
                {
                    Stick(row, stream, lane, "no confirm comes for those before it");
                    return false;
                }
                lane.Waiting.Enqueue(row);
                Admit(lane);
                return false;
            }
            lane.Begin();
            underWay[shard]++;
            return true;
        }
    }

    /// <summary>Leaves what waits in a stream to the table. Call with <see cref="gate"/> held.</summary>
    private void Forget(StreamInHand stream)
    {
        EndRelease(stream);
        while (stream.Waiting?.TryDequeue(out var row) == true)
        {
            Drop(row.Id);
        }
        stream.LastVersion = 0;
    }

    private static void EndRelease(StreamInHand stream)
    {
        if (stream.ReleasedFor is { } lane)
        {
            lane.Released--;
            stream.ReleasedFor = null;
        }
    }

    /// <summary>Sends a stream into the table, to wait there. Call with <see cref="gate"/> held.</summary>
    private void Stick(OutboxRow row, StreamInHand stream, RelayLane lane, string reason)
    {
        stream.IsSticking = true;
        stuck.Add(row.OrderId);
        lane.HasStuck = true;
        sticking.Add(new Sticking(row, lane.Key, reason));
        wake.Writer.TryWrite(true);
    }

    private RelayLane LaneOf(OutboxRow row) => Lane(KeyOf(row));

    private RelayLane Lane(string key)
    {
        if (!lanes.TryGetValue(key, out var lane))
        {
            lanes[key] = lane = new RelayLane(key, budget, options.Value, clock);
        }
        return lane;
    }

    /// <summary>What a queue refuses or takes together: the routing key of an event, the queue's name for what goes to one.</summary>
    private static string KeyOf(OutboxRow row)
    {
        if (row.Event is { } recorded)
        {
            return EventRoutingKey.TryOf(recorded.Type) ?? recorded.Type;
        }
        try
        {
            var message = Announcement.Parse(row.Message ?? "");
            return message.Exchange is "" or CommandExchange.Name or EventExchange.Name ? message.RoutingKey : $"{message.Exchange}/{message.RoutingKey}";
        }
        catch (Exception exception) when (exception is System.Text.Json.JsonException or InvalidDataException)
        {
            // Rendering it fails as well, and says so.
            return "unreadable";
        }
    }

    private int BusyLanes()
    {
        var busy = 0;
        foreach (var lane in lanes.Values)
        {
            if (lane.InFlight > 0 || lane.Waiting.Count > 0)
            {
                busy++;
            }
        }
        return busy;
    }

    private async Task LoadLoopAsync()
    {
        Task<bool>? woken = null;
        try
        {
            while (true)
            {
                try
                {
                    bool more;
                    do
                    {
                        await RenewAsync();
                        more = shards.Count > 0 && await MoveAsync();
                    }
                    while (more);
                }
                catch (Exception exception) when (!stop.IsCancellationRequested)
                {
                    // Nothing is lost: what was not loaded is in the table at the next tick.
                    lock (gate)
                    {
                        seen.Clear();
                    }
                    LogLoadFailed(exception.Message);
                    await Task.Delay(options.Value.PollInterval, clock, stop.Token);
                    continue;
                }
                woken ??= wake.Reader.ReadAsync(stop.Token).AsTask();
                await Task.WhenAny(woken, Task.Delay(UntilDue(), clock, stop.Token));
                stop.Token.ThrowIfCancellationRequested();
                if (woken.IsCompleted)
                {
                    woken = null;
                }
            }
        }
        catch (OperationCanceledException)
        {
            // The relay stops.
        }
    }

    private TimeSpan UntilDue()
    {
        lock (gate)
        {
            var pause = options.Value.PollInterval;
            foreach (var lane in lanes.Values)
            {
                if ((lane.HasStuck || lane.Waiting.Count > 0) && lane.UntilDue is var due && due > TimeSpan.Zero && due < pause)
                {
                    pause = due + TimeSpan.FromMilliseconds(1);
                }
            }
            return pause;
        }
    }

    /// <summary>What is refused goes into the table, what may be tried comes out of it, and what is new is loaded: one after the other, so that no stream is in two states.</summary>
    /// <returns>True when there is more to load right now.</returns>
    private async Task<bool> MoveAsync()
    {
        if (shardsAreNew)
        {
            await FindStuckAsync();
        }
        await EndReplaysAsync();
        await StickAsync();
        await ReleaseAsync();
        return await LoadAsync();
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
            shardsAreNew = true;
            intake = Intake.Ignore;
            seen.Clear();
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

    /// <summary>Learns what was stuck before this instance had its shards.</summary>
    private async Task FindStuckAsync()
    {
        var keys = await store.StuckAsync(shards, stop.Token);
        var orders = new List<string>();
        if (keys.Count > 0)
        {
            await store.VisitStuckStreamsAsync(
                shards,
                orderId =>
                {
                    lock (gate)
                    {
                        stuck.Add(orderId);
                    }
                },
                stop.Token);
        }
        lock (gate)
        {
            foreach (var key in keys)
            {
                Lane(key.Key).Find(key.Reason, DateTimeOffset.FromUnixTimeMilliseconds(key.Since));
            }
            shardsAreNew = false;
        }
    }

    /// <summary>Marks in the table what is to wait there, and forgets it.</summary>
    private async Task StickAsync()
    {
        List<Sticking> batch;
        var groups = new Dictionary<(string Key, string Reason), (List<long> Heads, List<long> Behind)>();
        lock (gate)
        {
            if (sticking.Count == 0)
            {
                return;
            }
            batch = sticking.Count <= StickAtOnce ? sticking : sticking[..StickAtOnce];
            sticking = sticking.Count <= StickAtOnce ? [] : sticking[StickAtOnce..];
            foreach (var one in batch)
            {
                if (!groups.TryGetValue((one.Key, one.Reason), out var group))
                {
                    groups[(one.Key, one.Reason)] = group = ([], []);
                }
                group.Heads.Add(one.Row.Id);
                group.Behind.AddRange(streams[one.Row.OrderId].Waiting?.Select(row => row.Id) ?? []);
            }
        }
        try
        {
            foreach (var ((key, reason), (heads, behind)) in groups)
            {
                long since;
                lock (gate)
                {
                    since = (lanes[key].Since ?? clock.GetUtcNow()).ToUnixTimeMilliseconds();
                }
                await store.StickAsync(key, reason, since, heads, behind);
            }
        }
        catch
        {
            lock (gate)
            {
                sticking.InsertRange(0, batch);
            }
            throw;
        }
        lock (gate)
        {
            foreach (var one in batch)
            {
                Drop(one.Row.Id);
                if (streams.Remove(one.Row.OrderId, out var stream))
                {
                    Forget(stream);
                }
                lanes[one.Key].HasStuck = true;
            }
            if (sticking.Count > 0)
            {
                wake.Writer.TryWrite(true);
            }
        }
    }

    /// <summary>Gives back to their operators the replays that can't be sent as they are.</summary>
    private async Task EndReplaysAsync()
    {
        while (true)
        {
            (OutboxRow Row, string Reason) one;
            lock (gate)
            {
                if (!ending.TryPeek(out one))
                {
                    return;
                }
            }
            await store.EndReplayAsync(one.Row, Announcement.Parse(one.Row.Message!), one.Reason, replayRefused!);
            LogReplayEnded(one.Reason);
            lock (gate)
            {
                ending.Dequeue();
                Drop(one.Row.Id);
                GoOn(one.Row);
            }
        }
    }

    /// <summary>Takes out of the table what may be tried now.</summary>
    private async Task ReleaseAsync()
    {
        RelayLane[] waiting;
        string[] free;
        lock (gate)
        {
            foreach (var lane in lanes.Values)
            {
                // Where a pace is kept, no outcome may be under way that would give the next place away.
                Admit(lane);
            }
            free = [.. opened];
            opened.Clear();
        }
        foreach (var key in free)
        {
            await lease.OpenAsync(key, stop.Token);
        }
        lock (gate)
        {
            waiting = [.. lanes.Values.Where(lane => lane.HasStuck)];
            if (waiting.Length == 0)
            {
                if (stuck.Any && sticking.Count == 0)
                {
                    // Memory has to see everything once more before fresh rows are taken from hand to hand again.
                    stuck.Clear();
                    seen.Clear();
                    intake = Intake.Ignore;
                }
                return;
            }
        }
        var asked = await store.ReleasesAsync(stop.Token);
        foreach (var lane in waiting)
        {
            int count;
            bool isClosed;
            lock (gate)
            {
                var isAsked = lane.HearOfReleases(asked.FirstOrDefault(one => one.Key == lane.Key).Releases);
                if (isAsked)
                {
                    LogReleased(lane.Key);
                }
                isClosed = lane.IsClosed;
                count = lane.Key == RelayLane.Unsendable ? isAsked ? ReleaseAtOnce : 0 : Math.Min(ReleaseAtOnce, lane.Due(BusyLanes()));
            }
            if (count == 0)
            {
                continue;
            }
            if (isClosed && lane.Key != RelayLane.Unsendable && !await lease.MayTryAsync(lane.Key, options.Value.ProbeInterval, stop.Token))
            {
                lock (gate)
                {
                    lane.PutOff(options.Value.ProbeInterval / 10);
                }
                continue;
            }
            var released = await store.ReleaseAsync(lane.Key, shards, count, MostOfOneStream, stop.Token);
            lock (gate)
            {
                if (released.Rows.Count == 0)
                {
                    lane.Empty();
                    continue;
                }
                if (isClosed)
                {
                    lane.Try(released.Rows[0].OrderId);
                }
                foreach (var orderId in released.Cut)
                {
                    LeaveRest(orderId);
                }
                foreach (var row in released.Rows)
                {
                    Take(row, lane);
                }
            }
        }
    }

    /// <returns>True when there is more to load right now.</returns>
    private async Task<bool> LoadAsync()
    {
        LoadRequest request;
        lock (gate)
        {
            var (most, mostBytes) = (options.Value.MaxInMemory, options.Value.MaxBytesInMemory);
            if (known.Count > most / 2 || bytes > mostBytes / 2)
            {
                return false;
            }
            intake = Intake.Buffer;
            ClearBuffer();
            request = new LoadRequest(shards, known.Keys.ToHashSet(), most - known.Count, mostBytes - bytes, stuck.Any, stuck.Any ? SeenBefore() : 0)
            {
                Except = [.. partial.Where(orderId => streams.TryGetValue(orderId, out var stream) && stream.Waiting?.Count > MostOfOneStream / 2)],
                MostOfOneStream = MostOfOneStream,
            };
        }
        try
        {
            var loaded = await store.LoadAsync(request, stop.Token);
            if (loaded.Behind.Count > 0)
            {
                await store.StickBehindAsync(loaded.Behind, clock.GetUtcNow().ToUnixTimeMilliseconds());
            }
            lock (gate)
            {
                if (loaded.All)
                {
                    partial.IntersectWith(request.Except);
                }
                foreach (var orderId in loaded.Cut)
                {
                    LeaveRest(orderId);
                }
                foreach (var row in loaded.Rows)
                {
                    Take(row);
                }
                if (loaded.All && stuck.Any && partial.Count == 0)
                {
                    seen.Enqueue((clock.GetTimestamp(), loaded.Last));
                }
                if (loaded.All && intake == Intake.Buffer)
                {
                    // Whatever was committed after the query began has been handed over meanwhile.
                    buffer.ForEach(TakeFresh);
                    intake = Intake.Direct;
                }
                else
                {
                    intake = Intake.Ignore;
                }
                ClearBuffer();
                return !loaded.All && loaded.Rows.Count + loaded.Behind.Count > 0;
            }
        }
        catch
        {
            lock (gate)
            {
                intake = Intake.Ignore;
                ClearBuffer();
            }
            throw;
        }
    }

    /// <summary>Up to which id everything is in hand or stuck: a look at the table need not pass over all that is stuck. Call with <see cref="gate"/> held.</summary>
    private long SeenBefore()
    {
        var known = 0L;
        while (seen.TryPeek(out var oldest) && clock.GetElapsedTime(oldest.At) > LongestAppend)
        {
            known = oldest.Id;
            if (seen.Count == 1 || clock.GetElapsedTime(seen.ElementAt(1).At) <= LongestAppend)
            {
                break;
            }
            seen.Dequeue();
        }
        return known;
    }

    private async Task PublishLoopAsync()
    {
        Action<OutgoingMessage, PublishOutcome> completed = Completed;
        try
        {
            await foreach (var one in ready.Reader.ReadAllAsync(stop.Token))
            {
                if (!TryBegin(one))
                {
                    continue;
                }
                var row = one.Row;
                OutgoingMessage message;
                try
                {
                    Failpoint.Hit("relay-before-publish");
                    message = Render(row, lease.EpochOf(Shard.Of(row.OrderId)));
                }
                catch (Exception exception) when (!stop.IsCancellationRequested)
                {
                    Refuse(row, $"it can't be rendered ({exception.GetType().Name}: {exception.Message})");
                    continue;
                }
                try
                {
                    PlantedBug.Plant("sent-before-confirm", () => completed = (_, _) => { });
                    await publisher.PublishAsync(message, completed, stop.Token);
                    PlantedBug.Plant("sent-before-confirm", () => Confirm(row));
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
        PlantedBug.Plant("unknown-is-sent", () => outcome = outcome is PublishOutcome.Unknown ? PublishOutcome.Confirmed.Instance : outcome);
        PlantedBug.Plant("nacked-is-sent", () => outcome = outcome is PublishOutcome.Nacked ? PublishOutcome.Confirmed.Instance : outcome);
        switch (outcome)
        {
            case PublishOutcome.Confirmed:
                Confirm(row);
                break;
            case PublishOutcome.Refused refused:
                Refuse(row, refused.Reason);
                break;
            case PublishOutcome.Unknown { IsUnanswered: false } unknown:
                Fail(row, unknown.Reason);
                break;
            default:
                Close(row, Describe(outcome));
                break;
        }
    }

    private void Confirm(OutboxRow row)
    {
        LastFailure = null;
        if (row.Kind == OutboxKind.Event)
        {
            times?.Relayed(clock.GetUtcNow().ToUnixTimeMilliseconds() - row.CreatedAt);
        }
        confirmed.Writer.TryWrite(new Confirmed(row.Id, Shard.Of(row.OrderId)));
        lock (gate)
        {
            if (row.Kind == OutboxKind.Event && lease.SharesStreams)
            {
                sent.Add(row.OrderId, row.Version);
            }
            if (known.TryGetValue(row.Id, out var size))
            {
                // Its number stays until it is marked; the rest is let go.
                bytes -= size;
                known[row.Id] = 0;
            }
            var lane = LaneOf(row);
            var wasClosed = lane.IsClosed;
            confirmedAt = clock.GetTimestamp();
            lane.Confirm();
            if (wasClosed && !lane.IsClosed)
            {
                LogOpened(lane.Key);
                opened.Enqueue(lane.Key);
            }
            if (lane.HasStuck)
            {
                wake.Writer.TryWrite(true);
            }
            Admit(lane);
            GoOn(row);
        }
    }

    /// <summary>The next of the row's stream. Call with <see cref="gate"/> held.</summary>
    private void GoOn(OutboxRow row)
    {
        var stream = streams[row.OrderId];
        if (stream.Waiting?.TryDequeue(out var next) == true)
        {
            ready.Writer.TryWrite(new Ready(next));
        }
        else
        {
            streams.Remove(row.OrderId);
        }
        if (partial.Count > 0 && (stream.Waiting?.Count ?? 0) is MostOfOneStream / 2 or 0 && partial.Contains(row.OrderId))
        {
            wake.Writer.TryWrite(true);
        }
    }

    /// <summary>
    /// Gives free places to those that wait: many at once, because they leave in one write and come back in one confirm. Call with <see cref="gate"/> held.
    /// </summary>
    private void Admit(RelayLane lane)
    {
        if (lane.Waiting.Count == 0)
        {
            return;
        }
        var room = lane.Room(BusyLanes());
        if (room < Math.Min(lane.InFlight, lane.Waiting.Count))
        {
            return;
        }
        for (; room > 0 && lane.Waiting.TryDequeue(out var row); room--)
        {
            lane.Begin();
            ready.Writer.TryWrite(new Ready(row, HasPlace: true));
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

    /// <summary>A queue refused it: nothing more of its key leaves for now, and whatever of it is in hand waits in the table.</summary>
    private void Close(OutboxRow row, string reason)
    {
        LastFailure = reason;
        metrics?.RelayFailed();
        lock (gate)
        {
            underWay[Shard.Of(row.OrderId)]--;
            var lane = LaneOf(row);
            if (lane.Refuse(reason))
            {
                LogClosed(lane.Key, reason);
            }
            Stick(row, streams[row.OrderId], lane, reason);
            while (lane.Waiting.TryDequeue(out var waiting))
            {
                Stick(waiting, streams[waiting.OrderId], lane, reason);
            }
        }
    }

    /// <summary>
    /// It can't be sent as it is, whatever the queues are like. A replay ends, and its stream goes on. An event waits for an operator, and later ones of its stream behind it:
    /// a subscriber must not take a later one for the next.
    /// </summary>
    private void Refuse(OutboxRow row, string reason)
    {
        LastFailure = reason;
        metrics?.RelayFailed();
        lock (gate)
        {
            underWay[Shard.Of(row.OrderId)]--;
            var lane = LaneOf(row);
            lane.Abandon();
            Admit(lane);
            if (row.Kind == OutboxKind.Replay && replayRefused is not null && lane.Key != "unreadable")
            {
                ending.Enqueue((row, reason));
                wake.Writer.TryWrite(true);
                return;
            }
            LogUnsendable(row.Event?.EventId ?? $"of {row.OrderId}", reason);
            var unsendable = Lane(RelayLane.Unsendable);
            unsendable.Find(reason, clock.GetUtcNow());
            Stick(row, streams[row.OrderId], unsendable, reason);
        }
    }

    private void Fail(OutboxRow row, string reason)
    {
        // The row's stream waits behind it; other streams go on.
        LastFailure = reason;
        metrics?.RelayFailed();
        lock (gate)
        {
            underWay[Shard.Of(row.OrderId)]--;
            var lane = LaneOf(row);
            lane.Abandon();
            Admit(lane);
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
                again.ForEach(row => ready.Writer.TryWrite(new Ready(row)));
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
                    Drop(row.Id);
                    underWay[row.Shard]--;
                }
            }
            rows.Clear();
        }
    }

    private OutgoingMessage Render(OutboxRow row, long epoch)
    {
        if (row.Event is { } recorded)
        {
            var headers = TraceText.Headers<object?>(recorded.TraceContext) ?? [];
            headers[EpochHeader] = epoch;
            PlantedBug.Plant("epoch-falls", () => headers[EpochHeader] = epoch - recorded.Version);
            PlantedBug.Plant("epoch-is-missing", () => headers.Remove(EpochHeader));
            var head = PublishedEvent.Head(recorded);
            var body = CloudEventWriter.Write(head, recorded.Data.Span, events?.Value.Personal == true ? store.Personal(recorded) : null);
            PlantedBug.Plant("copy-differs", () => body = [.. body, .. Enumerable.Repeat((byte)' ', Environment.TickCount & 7)]);
            return new OutgoingMessage
            {
                Exchange = EventExchange.Name,
                RoutingKey = EventRoutingKey.Of(recorded.Type),
                MessageId = head.EventId,
                Body = body,
                ContentType = CloudEventWriter.ContentType,
                CorrelationId = recorded.CorrelationId,
                Type = recorded.Type,
                Headers = headers,
                State = row,
            };
        }
        return Announcement.Parse(row.Message ?? throw new InvalidDataException($"Outbox row {row.Id} has neither an event nor a message.")).ToMessage(row.Body, row.OrderId, row);
    }

    [LoggerMessage(LogLevel.Information, "This instance relays {Shards} of 16 shares of the streams")]
    private partial void LogShards(int shards);

    [LoggerMessage(LogLevel.Warning, "The outbox could not be read and is read again: {Reason}")]
    private partial void LogLoadFailed(string reason);

    [LoggerMessage(LogLevel.Warning, "Publishing failed and is tried again, with the same ids: {Reason}")]
    private partial void LogPublishFailed(string? reason);

    [LoggerMessage(LogLevel.Warning, "Events with the routing key {RoutingKey} wait in the store, and so do later events of their orders: {Reason}")]
    private partial void LogClosed(string routingKey, string reason);

    [LoggerMessage(LogLevel.Information, "Events with the routing key {RoutingKey} leave again")]
    private partial void LogOpened(string routingKey);

    [LoggerMessage(LogLevel.Information, "An operator asked for an attempt with {RoutingKey}")]
    private partial void LogReleased(string routingKey);

    [LoggerMessage(LogLevel.Error, "Message {MessageId} can't be sent as it is and waits for an operator, with later events of its order: {Reason}")]
    private partial void LogUnsendable(string messageId, string reason);

    [LoggerMessage(LogLevel.Error, "A replay can't be sent as it is, so its dead letter is parked again: {Reason}")]
    private partial void LogReplayEnded(string reason);

    [LoggerMessage(LogLevel.Warning, "Confirmed messages could not be marked as sent yet: {Reason}")]
    private partial void LogMarkFailed(string reason);

    /// <summary>A row that may leave.</summary>
    /// <param name="HasPlace">It is counted among its lane's unconfirmed ones already.</param>
    private readonly record struct Ready(OutboxRow Row, bool HasPlace = false);

    /// <summary>A row that waits for its mark. Its message is let go: a batch of them, held for nobody, would be copied by every collection.</summary>
    private readonly record struct Confirmed(long Id, int Shard);

    /// <summary>A stream that is to be marked as stuck in the table.</summary>
    private readonly record struct Sticking(OutboxRow Row, string Key, string Reason);

    /// <summary>A stream with a message in <see cref="ready"/>, under way or waiting for its next attempt, and those behind it.</summary>
    private sealed class StreamInHand
    {
        public Queue<OutboxRow>? Waiting;

        /// <summary>The version of the newest event in hand; 0 when there is none.</summary>
        public long LastVersion;

        /// <summary>It is on its way into the table and takes nothing any more.</summary>
        public bool IsSticking;

        /// <summary>It was taken from the stuck ones, so it goes before what comes fresh.</summary>
        public bool MayPass;

        /// <summary>The key for which it was taken, until its first message is published.</summary>
        public RelayLane? ReleasedFor;
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

/// <summary>A routing key that something waits for.</summary>
/// <param name="IsClosed">Nothing of it leaves, beside an attempt now and then.</param>
public sealed record LaneState(string RoutingKey, bool IsClosed, string Reason, DateTimeOffset? Since);

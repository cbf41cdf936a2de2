using System.Threading.Channels;
using OrderService.Inbox;
using OrderService.Observability;
using RabbitMQ.Client;
using RabbitMQ.Client.Events;
using RabbitMQ.Client.Exceptions;

namespace OrderService.RabbitMq;

/// <summary>What a subscription is doing.</summary>
public enum SubscriptionPhase
{
    /// <summary>Not started, or told to stop: no delivery comes any more.</summary>
    Stopped,

    /// <summary>No generation lives; the next one is being built, or waits for its turn.</summary>
    Connecting,

    Consuming,

    /// <summary>Connected and not consuming, because it was told to hold.</summary>
    Held,
}

/// <summary>A subscription at one moment, for health and the admin page. Free of credentials and message contents.</summary>
/// <param name="Since">When it entered this phase.</param>
/// <param name="LastError">Why the last generation ended or could not be built, in plain words.</param>
/// <param name="InHand">Deliveries of the living generation that are not settled.</param>
/// <param name="Consumers">How many consumers of ours the broker counts.</param>
/// <param name="LastProgress">When a delivery came in or was settled last.</param>
/// <param name="Stalled">All that may be in hand is in hand and none was settled for the watchdog's time: whoever processes deliveries is stuck, not the broker.</param>
/// <param name="CircuitOpen">The last attempts to connect all failed, so that none is made for a moment.</param>
/// <param name="IsPaused">Somebody paused the intake.</param>
/// <param name="SilentSince">When the channel that delivers was asked something that it has not answered; null while it answers. What the broker works at there no count of messages shows.</param>
public sealed record SubscriptionState(
    string Queue,
    SubscriptionPhase Phase,
    DateTimeOffset Since,
    string? HoldReason,
    string? LastError,
    DateTimeOffset? LastErrorAt,
    int Generation,
    int Prefetch,
    int InHand,
    int Consumers,
    long Delivered,
    long Acknowledged,
    long Rejected,
    DateTimeOffset? LastProgress,
    bool Stalled,
    bool CircuitOpen,
    bool IsPaused = false,
    DateTimeOffset? SilentSince = null);

/// <summary>
/// One queue's deliveries. A generation (connection, channel, consumer) is built, watched, and thrown away at the first sign of trouble of any kind, and the next one is
/// built from nothing. Nothing is ever repaired in place: a half-repaired consumer is one that looks alive and receives nothing.
/// </summary>
public sealed partial class QueueSubscription : IAsyncDisposable
{
    private static readonly TimeSpan LongestWaitForFullHands = TimeSpan.FromMilliseconds(20);
    private static readonly TimeSpan PauseWithoutMemory = TimeSpan.FromSeconds(1);

    private static readonly TimeSpan SettleTimeout = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan LongestAnswer = TimeSpan.FromHours(1);

    private readonly BrokerConnector connector;
    private readonly string queue;
    private readonly TimeProvider clock;
    private readonly ILogger logger;
    private readonly Func<IConnection, CancellationToken, Task>? declare;
    private readonly BytesInHand room;
    private readonly int keepsUpTo;
    private readonly Troubles? troubles;
    private readonly Reconnection reconnection;
    private readonly Pace pace;
    private readonly Doubt doubt = new();

    // Unbounded in form; in fact bounded by the prefetch, because what a dead generation left is taken out before the next one is built.
    private readonly Channel<Delivery> deliveries = Channel.CreateUnbounded<Delivery>(new UnboundedChannelOptions { SingleWriter = false, SingleReader = false });

    private readonly Channel<bool> changes = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });
    private readonly TaskCompletionSource intakeEnded = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly CancellationTokenSource stopIntake = new();
    private readonly Lock gate = new();

    private volatile Generation? current;
    private volatile string? holdReason;
    private volatile string? pauseReason;
    private int generations;
    private int started;
    private SubscriptionPhase phase = SubscriptionPhase.Stopped;
    private DateTimeOffset since;
    private readonly Outage outage;
    private string? lastError;
    private DateTimeOffset? lastErrorAt;
    private long delivered;
    private long acknowledged;
    private long rejected;
    private long progressTimestamp;
    private DateTimeOffset? watchedProgressAt;
    private long watchedProgress;
    private volatile bool stalled;
    private long? doubted;
    private long? uncounted;
    private AmqpTcpEndpoint? left;
    private string? lastMessageId;
    private volatile bool isBlaming;

    /// <param name="declare">Run on every new connection before anything is consumed: a queue that was deleted is there again.</param>
    /// <param name="room">How many bytes may be in hand, perhaps together with other subscriptions; null for <see cref="RabbitMqOptions.MaxBytesInHand"/>.</param>
    /// <param name="keepsUpTo">Of a larger body only what <see cref="UnkeptBody"/> says is kept.</param>
    public QueueSubscription(
        BrokerConnector connector,
        string queue,
        ushort prefetch,
        TimeProvider clock,
        ILogger<QueueSubscription> logger,
        Func<IConnection, CancellationToken, Task>? declare = null,
        BytesInHand? room = null,
        int keepsUpTo = int.MaxValue,
        Troubles? troubles = null)
    {
        this.connector = connector;
        this.queue = queue;
        this.clock = clock;
        this.logger = logger;
        this.declare = declare;
        this.keepsUpTo = keepsUpTo;
        this.troubles = troubles;
        this.room = room ?? new BytesInHand(connector.Options.MaxBytesInHand);
        this.room.RoomAgain += () => changes.Writer.TryWrite(true);
        since = clock.GetUtcNow();
        outage = new Outage(clock);
        pace = new Pace(prefetch);
        reconnection = new Reconnection(connector.Options, clock, OnFailure);
    }

    /// <summary>What was delivered, oldest first; ends after intake was told to stop. Deliveries of dead generations may be among them: see <see cref="Generation.IsAlive"/>.</summary>
    public ChannelReader<Delivery> Deliveries => deliveries.Reader;

    /// <summary>
    /// How many deliveries the broker may hand out unsettled, as far as there is room for their bytes; a change counts from the next generation or the next <see cref="Release"/> on.
    /// </summary>
    public ushort Prefetch
    {
        get => (ushort)pace.Most;
        set => pace.Most = value;
    }

    internal Generation? Current => current;

    public SubscriptionState State
    {
        get
        {
            lock (gate)
            {
                // Progress is counted per delivery and put on the calendar here, where it is rare.
                var progress = Volatile.Read(ref progressTimestamp);
                if (progress != watchedProgress)
                {
                    watchedProgress = progress;
                    watchedProgressAt = clock.GetUtcNow() - clock.GetElapsedTime(progress);
                }

                return new SubscriptionState(
                    queue,
                    phase,
                    since,
                    WhyHeld,
                    lastError,
                    lastErrorAt,
                    Volatile.Read(ref generations),
                    doubt.IsOneByOne ? 1 : Prefetch,
                    current?.Ledger.InHand ?? 0,
                    current is { } generation ? generation.Ledger.EndedConsumersInHand + (generation.Consumer is null ? 0 : 1) : 0,
                    Interlocked.Read(ref delivered),
                    Interlocked.Read(ref acknowledged),
                    Interlocked.Read(ref rejected),
                    watchedProgressAt,
                    stalled,
                    reconnection.CircuitOpen,
                    pauseReason is not null,
                    current is { IsAlive: true, Answer.IsCompleted: false } asked ? asked.AskedAt : null);
            }
        }
    }

    /// <summary>
    /// Builds generation after generation until told to stop; then cancels the consumer and ends <see cref="Deliveries"/>, but keeps the channel, so that what is in hand
    /// can still be settled until <see cref="DisposeAsync"/>. To be called once.
    /// </summary>
    public async Task RunAsync(CancellationToken stopIntake)
    {
        if (Interlocked.Exchange(ref started, 1) != 0)
        {
            throw new InvalidOperationException("A subscription runs once.");
        }

        using var stop = stopIntake.UnsafeRegister(static subscription => ((QueueSubscription)subscription!).stopIntake.Cancel(), this);
        try
        {
            Enter(SubscriptionPhase.Connecting);
            while (!this.stopIntake.IsCancellationRequested)
            {
                await reconnection.RunAsync(RunGenerationAsync, this.stopIntake.Token);
            }
        }
        catch (Exception) when (this.stopIntake.IsCancellationRequested)
        {
            // That is the end we were told to come to; an attempt to connect that fails at the same moment changes nothing about it.
        }
        finally
        {
            EndIntake();
        }
    }

    /// <summary>Takes no more deliveries; what is in hand can still be settled. Works between generations too.</summary>
    public void Hold(string reason)
    {
        holdReason = reason;
        changes.Writer.TryWrite(true);
    }

    /// <summary>Takes deliveries again.</summary>
    public void Release()
    {
        holdReason = null;
        changes.Writer.TryWrite(true);
    }

    /// <summary>Takes no more deliveries because somebody paused the intake. Apart from <see cref="Hold"/>: neither ends the other.</summary>
    public void Pause(string reason)
    {
        pauseReason = reason;
        changes.Writer.TryWrite(true);
    }

    /// <summary>Ends <see cref="Pause"/>.</summary>
    public void Resume()
    {
        if (pauseReason is not null)
        {
            pauseReason = null;
            changes.Writer.TryWrite(true);
        }
    }

    private string? WhyHeld => pauseReason ?? holdReason;

    /// <summary>Throws the living generation away, which returns what is unsettled to the queue, and builds the next.</summary>
    public void Restart(string reason)
    {
        if (current is { } generation)
        {
            generation.EndedByUs = true;
            generation.Kill(reason);
        }
    }

    /// <summary>
    /// Hears how many messages wait, and how many consumers there are, by the count of another connection, which is one to another node where there are
    /// several. A leader that is cut off from the other nodes counts its consumers as ever and says that its queue is empty, while the others have a new
    /// leader and new messages; a node that has not heard of the new leader counts neither. For one caller.
    /// </summary>
    public void HearOf(long ready, int consumers)
    {
        if ((ready == 0 && consumers > 0) || current is not { IsAlive: true } generation || !IsIdle(generation) || IsFull(generation))
        {
            doubted = null;
            return;
        }

        // The first time a message may be on its way here, or the consumer may be new.
        if (IsSecondTime(ref doubted))
        {
            generation.EndedByUs = true;
            generation.Kill(
                ready > 0
                    ? $"{ready} messages are ready by the count of another connection, "
                        + $"and none was delivered for {connector.Options.StallAfter.TotalSeconds:0} s"
                    : "the queue has no consumer by the count of another connection, to a node that knows no leader of it or another one");
        }
    }

    /// <summary>Cancels the consumer for good and waits until no delivery can come any more. <see cref="RunAsync"/> ends with it.</summary>
    public async Task StopConsumingAsync(CancellationToken cancellationToken)
    {
        await stopIntake.CancelAsync();
        if (Volatile.Read(ref started) == 0)
        {
            EndIntake();
        }

        await intakeEnded.Task.WaitAsync(cancellationToken);
    }

    /// <summary>
    /// Tells the broker. Deliveries of dead generations, and deliveries settled before, are passed over: the broker delivers them again and the inbox knows them.
    /// That this returns does not prove that the broker heard it; nothing may depend on that.
    /// </summary>
    public async ValueTask SettleAsync(IReadOnlyList<SettledDelivery> batch)
    {
        var generation = current;
        if (generation is not { IsAlive: true } || batch.Count == 0)
        {
            return;
        }

        await generation.Settling.WaitAsync();
        try
        {
            if (generation.IsAlive)
            {
                await WriteAsync(generation, batch);
            }
        }
        finally
        {
            generation.Settling.Release();
        }
    }

    /// <inheritdoc cref="SettleAsync(IReadOnlyList{SettledDelivery})"/>
    public ValueTask SettleAsync(Delivery delivery, Settlement settlement) => SettleAsync([new SettledDelivery(delivery, settlement)]);

    /// <summary>Closes channel and connection: what is unsettled goes back to the queue.</summary>
    public async ValueTask DisposeAsync()
    {
        await StopConsumingAsync(CancellationToken.None);
        if (current is { } last)
        {
            last.Kill("the subscription was closed");
            await EndAsync(last);
        }
    }

    private async ValueTask RunGenerationAsync(CancellationToken stopping)
    {
        Enter(SubscriptionPhase.Connecting);
        var generation = new Generation(Interlocked.Increment(ref generations));
        pace.Restart();
        long opened;
        try
        {
            await OpenAsync(generation, stopping);
            opened = clock.GetTimestamp();
            current = generation;
            await SuperviseAsync(generation, stopping);
        }
        catch (Exception exception)
        {
            generation.Kill(BrokerErrors.Describe(exception));
            await EndAsync(generation);
            throw;
        }

        if (stopping.IsCancellationRequested && generation.IsAlive)
        {
            // What is in hand is still to be settled; DisposeAsync closes.
            return;
        }

        var reason = await generation.Dead;
        var inHand = generation.Ledger.InHand;
        var sinceHandedOut = clock.GetElapsedTime(Volatile.Read(ref generation.HandedOutAt));
        await EndAsync(generation);
        if (generation is { MayDeliver: true, EndedByUs: false } && Doubt.IsSoonEnough(sinceHandedOut))
        {
            Suspect(generation, inHand, reason);
        }

        var worked = Volatile.Read(ref generation.Settled) > 0 || clock.GetElapsedTime(opened) > TimeSpan.FromSeconds(10);
        if (!worked)
        {
            // The pauses grow: a generation that dies at birth must not be rebuilt in a tight loop.
            throw new BrokerLostException(reason);
        }

        // The attempts that follow meet other errors; this one tells what happened.
        Remember(outage.Meet(reason, out _));
        LogGenerationEnded(queue, generation.Number, reason);
    }

    private async Task OpenAsync(Generation generation, CancellationToken stopping)
    {
        generation.Connection = await reconnection.ConnectAsync(async token => await connector.OpenAsync($"consumes {queue}", token, left), stopping);
        left = generation.Connection.Endpoint;
        generation.Connection.ConnectionShutdownAsync += (_, shutdown) =>
        {
            generation.MetUnreadable |= generation.IsAlive && BrokerErrors.IsUnreadable(shutdown);
            generation.EndedByUs |= generation.IsAlive && BrokerErrors.IsWantOfMemory(shutdown);
            return Lost(generation, $"connection {BrokerErrors.Describe(shutdown)}");
        };
        generation.Connection.CallbackExceptionAsync += (_, failure) => Lost(generation, $"a callback failed: {BrokerErrors.Describe(failure.Exception)}");
        if (declare is not null)
        {
            await declare(generation.Connection, stopping);
        }

        generation.Channel = await generation.Connection.CreateChannelAsync(new CreateChannelOptions(false, false, null, 1), stopping);
        generation.Channel.ChannelShutdownAsync += (_, shutdown) => Lost(generation, $"channel {BrokerErrors.Describe(shutdown)}");
        generation.Channel.CallbackExceptionAsync += (_, failure) => Lost(generation, $"a callback failed: {BrokerErrors.Describe(failure.Exception)}");
    }

    /// <summary>Closes the connection, and lets go of what was in hand.</summary>
    private async Task EndAsync(Generation generation)
    {
        await BrokerConnector.DisposeQuietlyAsync(generation.Connection);
        room.Release(generation.Ledger.Close());
        DropDead();
    }

    /// <summary>
    /// The connection ended while messages were handed out. Perhaps one of them is the reason: the next connection meets it too, everything in hand goes back again and gains a
    /// return. Taken alone, it uses up its own delivery limit and nobody else's, and the broker moves it on to where dead letters go.
    /// </summary>
    private void Suspect(Generation generation, int inHand, string reason)
    {
        var before = doubt.IsOneByOne;
        doubt.Ended(inHand, generation.Prefetch, generation.IsHeadKnown, generation.MetUnreadable);
        if (!doubt.IsOneByOne)
        {
            return;
        }

        if (!before)
        {
            LogOneByOne(queue, reason);
        }

        if (doubt.Blames)
        {
            Blame(reason);
        }

        if (doubt.EndsAtHead > 0 || !before)
        {
            throw new UnreadableMessageException(reason);
        }
    }

    private string BlameKey => $"head:{queue}";

    private void Forgive()
    {
        isBlaming = false;
        troubles?.Clear(BlameKey);
    }

    private void Blame(string reason)
    {
        isBlaming = true;
        var before = lastMessageId is { } id ? $"the last one before it had the message id {id}" : "none came before it on this connection";
        troubles?.Raise(new Trouble(
            BlameKey,
            TroubleLevel.Degraded,
            $"A message at the head of {queue} can't be handed out",
            $"Connections end as soon as it is delivered ({reason}); {before}. The broker moves it on to "
                + $"{(queue == TopologyNames.DeadLetters ? TopologyNames.Unreadable : TopologyNames.DeadLetters)} when its returns are used up, and what is behind it waits for so long.",
            "See docs/operations.md, Unreadable messages: how to look at it and how to take it out.")
        {
            Patience = TimeSpan.Zero,
        });
    }

    private static Task Lost(Generation generation, string reason)
    {
        // Only says so. The supervisor closes and rebuilds; an event handler that did would wait for itself.
        generation.Kill(reason);
        return Task.CompletedTask;
    }

    private async Task SuperviseAsync(Generation generation, CancellationToken stopping)
    {
        var change = changes.Reader.WaitToReadAsync(CancellationToken.None).AsTask();
        var began = clock.GetTimestamp();
        using var watch = new PeriodicTimer(WatchInterval, clock);
        var tick = watch.WaitForNextTickAsync(CancellationToken.None).AsTask();
        var stop = StopSignal(stopping, out var registration);
        using (registration)
        {
            while (generation.IsAlive && !stopping.IsCancellationRequested)
            {
                await AdjustAsync(generation, stopping);
                await Task.WhenAny(generation.Dead, stop, change, tick);
                if (change.IsCompleted)
                {
                    changes.Reader.TryRead(out _);
                    change = changes.Reader.WaitToReadAsync(CancellationToken.None).AsTask();
                }

                if (tick.IsCompleted)
                {
                    Ask(generation);
                    await WatchAsync(generation, stopping);
                    if (clock.GetElapsedTime(began) >= WatchInterval && generation.Ledger.InHand == 0 && SinceProgress >= WatchInterval)
                    {
                        doubt.Calm();
                        Forgive();
                    }

                    tick = watch.WaitForNextTickAsync(CancellationToken.None).AsTask();
                }
            }

            if (generation.IsAlive)
            {
                await CancelConsumerAsync(generation);
            }
        }
    }

    private static Task StopSignal(CancellationToken stopping, out CancellationTokenRegistration registration)
    {
        var signal = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        registration = stopping.UnsafeRegister(static source => ((TaskCompletionSource)source!).TrySetResult(), signal);
        return signal.Task;
    }

    /// <summary>Brings the consumer to what is wanted: delivering, or held.</summary>
    private async Task AdjustAsync(Generation generation, CancellationToken stopping)
    {
        if (WhyHeld is { } reason)
        {
            if (generation.Consumer is not null)
            {
                LogHeld(queue, reason);
                await CancelConsumerAsync(generation);
                await GiveBackAsync(generation);
            }

            Enter(SubscriptionPhase.Held);
        }
        else
        {
            // What a consumer is allowed can't be changed; another one can be allowed something else.
            if (generation.Consumer is not null && generation.HasTooMuch)
            {
                await CancelConsumerAsync(generation);
                await GiveBackAsync(generation);
            }
            else if (generation.Consumer is not null && generation.IsSlow)
            {
                await MakeWayAsync(generation);
            }

            if (generation.Consumer is null && generation.IsAlive && (!generation.HasTooMuch || room.HasRoomOrTells()))
            {
                await ConsumeAsync(generation, stopping);
            }
        }
    }

    private async Task ConsumeAsync(Generation generation, CancellationToken stopping)
    {
        generation.HasTooMuch = false;
        generation.Prefetch = pace.Next(doubt.Cap, generation.Ledger.InHand);
        await generation.Channel!.BasicQosAsync(0, generation.Prefetch, global: false, stopping);
        if (doubt.IsOneByOne)
        {
            generation.IsHeadKnown = await AnyReadyAsync(generation, stopping);
        }

        Volatile.Write(ref generation.HandedOutAt, MarkProgress());
        var consumer = new Consumer(this, generation);
        generation.MayDeliver = true;
        consumer.Tag = await generation.Channel.BasicConsumeAsync(queue, autoAck: false, consumerTag: "", noLocal: false, exclusive: false, arguments: null, consumer, stopping);
        generation.Consumer = consumer;
        Enter(SubscriptionPhase.Consuming);
        if (!generation.IsAnnounced && !doubt.IsOneByOne)
        {
            generation.IsAnnounced = true;
            outage.End();
            LogConsuming(queue, connector.Redacted, generation.Number, Prefetch);
        }
    }

    /// <summary>
    /// Cancels the consumer for one that is allowed more. What is on its way to a cancelled consumer the broker returns to the queue, and counts that; so it is done while all
    /// that this one may have is in hand, and nothing is settled meanwhile.
    /// </summary>
    private async Task MakeWayAsync(Generation generation)
    {
        generation.IsSlow = false;
        if (InHand() < (generation.Prefetch + 1) / 2)
        {
            // So many do not come at once; there is no need for more.
            return;
        }

        await generation.Settling.WaitAsync();
        try
        {
            var began = clock.GetTimestamp();
            while (generation.IsAlive && InHand() < generation.Prefetch && clock.GetElapsedTime(began) < LongestWaitForFullHands)
            {
                await Task.Delay(TimeSpan.FromMilliseconds(1), clock);
            }

            if (InHand() >= generation.Prefetch)
            {
                await CancelConsumerAsync(generation);
            }
        }
        finally
        {
            generation.Settling.Release();
        }

        int InHand() => generation.Ledger.InHandOfConsumer;
    }

    /// <summary>Whether a message waits; also when the broker does not say.</summary>
    private async Task<bool> AnyReadyAsync(Generation generation, CancellationToken stopping)
    {
        try
        {
            await using var channel = await generation.Connection!.CreateChannelAsync(null, stopping);
            return (await channel.QueueDeclarePassiveAsync(queue, stopping)).MessageCount > 0;
        }
        catch (OperationInterruptedException exception) when (exception.ShutdownReason?.ReplyCode == Constants.AccessRefused)
        {
            return true;
        }
    }

    /// <summary>
    /// Returns what there was no room for to the queue, at the price of one return each. It comes first again, to a consumer that is allowed no more than there is room for.
    /// </summary>
    private async Task GiveBackAsync(Generation generation)
    {
        // While they are out of the ledger and not yet returned, an ack up to a later one would take them along.
        await generation.Settling.WaitAsync();
        using var deadline = new CancellationTokenSource(SettleTimeout, clock);
        try
        {
            var tags = generation.Ledger.TakeUnkept();
            if (generation.HasTooMuch)
            {
                pace.TooMuch(room.Share, tags.Count);
            }

            if (tags.Count == 0 || !generation.IsAlive)
            {
                return;
            }

            LogTooMuch(queue, tags.Count, generation.Prefetch);
            foreach (var tag in tags)
            {
                await generation.Channel!.BasicNackAsync(tag, multiple: false, requeue: true, deadline.Token);
            }
        }
        catch (Exception exception)
        {
            generation.Kill($"deliveries could not be given back: {BrokerErrors.Describe(exception)}");
        }
        finally
        {
            generation.Settling.Release();
        }

        if (generation.HasNoMemory)
        {
            // Others let go of theirs meanwhile; at once it would only use up returns.
            generation.HasNoMemory = false;
            await Task.WhenAny(Task.Delay(PauseWithoutMemory, clock), generation.Dead);
        }
    }

    /// <summary>Returns when the last delivery has come in, or when the generation is dead.</summary>
    private static async Task CancelConsumerAsync(Generation generation)
    {
        if (generation.Consumer is not { } consumer)
        {
            return;
        }

        generation.Consumer = null;
        try
        {
            await generation.Channel!.BasicCancelAsync(consumer.Tag, noWait: false, CancellationToken.None);

            // The client's loop has the broker's answer; what came before it may still be on its way to the consumer.
            await Task.WhenAny(consumer.Cancelled, generation.Dead);
            generation.MayDeliver &= !generation.IsAlive;
            generation.Ledger.ConsumerEnded();
        }
        catch (Exception exception)
        {
            generation.Kill($"the consumer could not be cancelled: {BrokerErrors.Describe(exception)}");
        }
    }

    private TimeSpan WatchInterval => connector.Options.StallAfter / 3;

    private TimeSpan SinceProgress => clock.GetElapsedTime(Volatile.Read(ref progressTimestamp));

    private bool IsIdle(Generation generation) => (generation.Consumer is not null || generation.HasTooMuch) && SinceProgress >= connector.Options.StallAfter;

    /// <summary>Whether a doubt has come up before, without progress in between.</summary>
    private bool IsSecondTime(ref long? doubt)
    {
        var progress = Volatile.Read(ref progressTimestamp);
        if (doubt == progress)
        {
            return true;
        }

        doubt = progress;
        return false;
    }

    private static bool IsFull(Generation generation) => generation.HasTooMuch || generation.Ledger.InHand >= generation.Prefetch;

    /// <summary>
    /// Asks the channel that delivers for something that it grants at once and that changes nothing. Headers that are nested thousands deep cost the broker seconds a message, in the
    /// process of this channel: its connection lives meanwhile, the queue counts them as delivered, and what is behind them waits.
    /// </summary>
    private void Ask(Generation generation)
    {
        if (generation.Consumer is null || generation.Answer is { IsCompleted: false })
        {
            return;
        }

        var channel = generation.Channel!;
        var patience = channel.ContinuationTimeout;
        generation.AskedAt = clock.GetUtcNow();
        // An answer that nobody waits for any more would be taken for that to the next question.
        channel.ContinuationTimeout = LongestAnswer;
        generation.Answer = AskAsync(generation);
        channel.ContinuationTimeout = patience;
    }

    private static async Task AskAsync(Generation generation)
    {
        try
        {
            await generation.Channel!.BasicQosAsync(0, generation.Prefetch, global: false, CancellationToken.None);
        }
        catch (Exception exception)
        {
            generation.Kill($"the channel did not answer: {BrokerErrors.Describe(exception)}");
        }
    }

    /// <summary>Notices what no event tells: messages are ready and nothing comes, or the broker knows nothing of our consumer. A queue without a leader counts neither.</summary>
    private async Task WatchAsync(Generation generation, CancellationToken stopping)
    {
        var idle = IsIdle(generation);
        var full = IsFull(generation);

        // With its hands full a subscription can't progress, and to throw the generation away would only use up the delivery limit of innocent messages.
        stalled = idle && full;
        if (!idle || full || !generation.IsAlive)
        {
            return;
        }

        try
        {
            // A channel of its own: a refusal closes it, and must not close the one that settles.
            using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(10), clock);
            using var either = CancellationTokenSource.CreateLinkedTokenSource(deadline.Token, stopping);
            await using var channel = await generation.Connection!.CreateChannelAsync(null, either.Token);
            var queue = await channel.QueueDeclarePassiveAsync(this.queue, either.Token);
            if (queue.MessageCount > 0)
            {
                generation.EndedByUs = true;
                generation.Kill($"{queue.MessageCount} messages were ready and none was delivered for {connector.Options.StallAfter.TotalSeconds:0} s");
            }
            else if (queue.ConsumerCount > 0)
            {
                uncounted = null;
            }
            else if (IsSecondTime(ref uncounted))
            {
                // Once, a queue whose leader is slow to answer says this as well.
                generation.EndedByUs = true;
                generation.Kill("the broker counts no consumer of the queue any more: it has no leader, or has lost sight of this one");
            }
        }
        catch (OperationInterruptedException exception) when (exception.ShutdownReason?.ReplyCode == Constants.AccessRefused)
        {
            // Some versions do not allow to look without the right to configure. Then the depth monitor, and the other signs, must do.
        }
        catch (Exception exception) when (!stopping.IsCancellationRequested)
        {
            generation.EndedByUs = true;
            generation.Kill($"nothing was delivered for {connector.Options.StallAfter.TotalSeconds:0} s, and the broker does not say how many messages are ready: {BrokerErrors.Describe(exception)}");
        }
    }

    private async Task WriteAsync(Generation generation, IReadOnlyList<SettledDelivery> batch)
    {
        var plan = generation.Plan;
        generation.Ledger.Settle(batch, generation, plan);
        room.Release(plan.Bytes);
        if (plan.Rejects.Count == 0 && plan.AckCount == 0)
        {
            return;
        }

        // The write waits only for a peer that stopped reading. Then the generation is lost, and what was not told comes again.
        using var deadline = new CancellationTokenSource(SettleTimeout, clock);
        try
        {
            var channel = generation.Channel!;
            // With the room that this makes the broker hands out the next ones at once.
            Volatile.Write(ref generation.HandedOutAt, clock.GetTimestamp());
            foreach (var tag in plan.Rejects)
            {
                await channel.BasicRejectAsync(tag, requeue: false, deadline.Token);
            }

            if (plan.AckUpTo != 0)
            {
                await channel.BasicAckAsync(plan.AckUpTo, multiple: true, deadline.Token);
            }

            foreach (var tag in plan.Acks)
            {
                await channel.BasicAckAsync(tag, multiple: false, deadline.Token);
            }

            Interlocked.Add(ref generation.Settled, plan.Rejects.Count + plan.AckCount);
            Interlocked.Add(ref rejected, plan.Rejects.Count);
            Interlocked.Add(ref acknowledged, plan.AckCount);
            MarkProgress();
        }
        catch (Exception exception)
        {
            generation.Kill($"deliveries could not be settled: {BrokerErrors.Describe(exception)}");
        }
    }

    private void Take(Generation generation, ulong tag, bool redelivered, string exchange, string routingKey, IReadOnlyBasicProperties from, ReadOnlyMemory<byte> body)
    {
        if (!generation.IsAlive)
        {
            return;
        }

        var properties = PropertyMapping.Read(from);
        var size = PropertyMapping.SizeOf(properties) + body.Length;
        doubt.Delivered();
        lastMessageId = EnvelopeDecoder.IsKey(properties.MessageId) ? properties.MessageId : null;
        generation.IsSlow |= pace.Delivered(size, room.Room, doubt.Cap);
        if (Keep(generation, tag, redelivered, exchange, routingKey, properties, body, size) is not { } delivery)
        {
            NoRoomFor(generation, tag);
        }
        else if (generation.Ledger.Delivered(tag, size))
        {
            deliveries.Writer.TryWrite(delivery);
        }
        else
        {
            room.Release(size);
        }

        generation.HasTooMuch |= generation.Prefetch > 1 && room.IsNearlyFull;
        Interlocked.Increment(ref delivered);
        Volatile.Write(ref generation.HandedOutAt, MarkProgress());
        if (generation.IsSlow || generation.HasTooMuch)
        {
            changes.Writer.TryWrite(true);
        }

        if (isBlaming)
        {
            // The message behind it came: the broker has moved it on.
            Forgive();
        }
    }

    /// <summary>It is given back when the consumer is cancelled, which is next.</summary>
    private void NoRoomFor(Generation generation, ulong tag)
    {
        generation.Ledger.NotKept(tag);
        generation.HasTooMuch = true;
        changes.Writer.TryWrite(true);
    }

    /// <returns>Null when there is no room for it.</returns>
    private Delivery? Keep(
        Generation generation, ulong tag, bool redelivered, string exchange, string routingKey, MessageProperties properties, ReadOnlyMemory<byte> body, int size)
    {
        if (!room.TryTake(size))
        {
            return null;
        }

        try
        {
            return Delivery(generation, tag, redelivered, exchange, routingKey, properties, body, size);
        }
        catch (OutOfMemoryException)
        {
            generation.HasNoMemory = true;
            room.Release(size);
            return null;
        }
    }

    private Delivery Delivery(
        Generation generation, ulong tag, bool redelivered, string exchange, string routingKey, MessageProperties properties, ReadOnlyMemory<byte> body, int size)
    {
        var unkept = body.Length > keepsUpTo ? UnkeptBody.Of(properties, body.Span) : null;
        var kept = unkept is null ? body.ToArray() : ReadOnlyMemory<byte>.Empty;
        PlantedBug.Plant("body-is-not-copied", () => kept = body);
        return new Delivery(
            tag, kept, properties, redelivered, PropertyMapping.ReadDeliveryCount(properties, redelivered), exchange, routingKey, generation)
        {
            Size = size,
            Unkept = unkept,
        };
    }

    private long MarkProgress()
    {
        var now = clock.GetTimestamp();
        Volatile.Write(ref progressTimestamp, now);
        stalled = false;
        return now;
    }

    /// <summary>Between two generations nothing in there can be settled any more, and left in there it would fill the memory, once for each generation.</summary>
    private void DropDead()
    {
        while (deliveries.Reader.TryRead(out _))
        {
        }
    }

    private void EndIntake()
    {
        Enter(SubscriptionPhase.Stopped);
        deliveries.Writer.TryComplete();
        intakeEnded.TrySetResult();
    }

    private void Enter(SubscriptionPhase phase)
    {
        lock (gate)
        {
            if (this.phase != phase)
            {
                this.phase = phase;
                since = clock.GetUtcNow();
            }
        }
    }

    private void Remember(string error)
    {
        lock (gate)
        {
            lastError = error;
            lastErrorAt = clock.GetUtcNow();
        }
    }

    private void OnFailure(Exception exception, TimeSpan pause)
    {
        var reason = BrokerErrors.Describe(exception);
        var told = outage.Meet(reason, out var news);
        Remember(told);
        if (news)
        {
            LogNotConsuming(queue, connector.Redacted, told, pause);
        }
    }

    [LoggerMessage(LogLevel.Information, "Consuming {Queue} from {Broker}, generation {Generation}, up to {Prefetch} at a time")]
    private partial void LogConsuming(string queue, string broker, int generation, int prefetch);

    [LoggerMessage(LogLevel.Warning, "Generation {Generation} of {Queue} ended: {Reason}; the next one is being built")]
    private partial void LogGenerationEnded(string queue, int generation, string reason);

    [LoggerMessage(LogLevel.Warning, "Not consuming {Queue} from {Broker}: {Reason}; trying again in {Pause} and on")]
    private partial void LogNotConsuming(string queue, string broker, string reason, TimeSpan pause);

    [LoggerMessage(LogLevel.Error, "Connections end over what {Queue} hands out ({Reason}); messages are taken one by one until the broker has moved the one that does it on")]
    private partial void LogOneByOne(string queue, string reason);

    [LoggerMessage(LogLevel.Information, "{Count} messages of {Queue} were too large to be in hand together and go back until there is room; {Prefetch} were asked for")]
    private partial void LogTooMuch(string queue, int count, int prefetch);

    [LoggerMessage(LogLevel.Warning, "Holding {Queue}: {Reason}")]
    private partial void LogHeld(string queue, string reason);

    /// <summary>The client's end of a generation. Nothing it does may throw or wait: it runs on the client's own loop.</summary>
    internal sealed class Consumer(QueueSubscription subscription, Generation generation) : IAsyncBasicConsumer
    {
        private readonly TaskCompletionSource cancelled = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public string Tag { get; set; } = "";

        /// <summary>Completes once every delivery before the cancellation has been taken.</summary>
        public Task Cancelled => cancelled.Task;

        public IChannel? Channel => generation.Channel;

        public Task HandleBasicDeliverAsync(
            string consumerTag,
            ulong deliveryTag,
            bool redelivered,
            string exchange,
            string routingKey,
            IReadOnlyBasicProperties properties,
            ReadOnlyMemory<byte> body,
            CancellationToken cancellationToken = default)
        {
            try
            {
                subscription.Take(generation, deliveryTag, redelivered, exchange, routingKey, properties, body);
            }
            catch (OutOfMemoryException)
            {
                // Not this message's fault: others fill the memory.
                generation.HasNoMemory = true;
                subscription.NoRoomFor(generation, deliveryTag);
            }
            catch (Exception exception)
            {
                // The last resort: an unsettled delivery nobody knows of would eat one place of the prefetch for ever.
                generation.Kill($"a delivery could not be taken: {exception.GetType().Name}");
            }

            return body.Length < LargeBuffers.From ? Task.CompletedTask : LargeBuffers.LetGoAsync(body.Length);
        }

        public Task HandleBasicCancelAsync(string consumerTag, CancellationToken cancellationToken = default) =>
            Lost(generation, BrokerErrors.ConsumerCancelled);

        public Task HandleBasicCancelOkAsync(string consumerTag, CancellationToken cancellationToken = default)
        {
            cancelled.TrySetResult();
            return Task.CompletedTask;
        }

        public Task HandleBasicConsumeOkAsync(string consumerTag, CancellationToken cancellationToken = default) => Task.CompletedTask;

        public Task HandleChannelShutdownAsync(object channel, ShutdownEventArgs reason) => Lost(generation, $"channel {BrokerErrors.Describe(reason)}");
    }
}

using System.Threading.Channels;
using OrderService.Inbox;
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
/// <param name="LastProgress">When a delivery came in or was settled last.</param>
/// <param name="Stalled">All that may be in hand is in hand and none was settled for the watchdog's time: whoever processes deliveries is stuck, not the broker.</param>
/// <param name="CircuitOpen">The last attempts to connect all failed, so that none is made for a moment.</param>
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
    long Delivered,
    long Acknowledged,
    long Rejected,
    DateTimeOffset? LastProgress,
    bool Stalled,
    bool CircuitOpen);

/// <summary>
/// One queue's deliveries. A generation (connection, channel, consumer) is built, watched, and thrown away at the first sign of trouble of any kind, and the next one is
/// built from nothing. Nothing is ever repaired in place: a half-repaired consumer is one that looks alive and receives nothing.
/// </summary>
public sealed partial class QueueSubscription : IAsyncDisposable
{
    private static readonly TimeSpan SettleTimeout = TimeSpan.FromSeconds(30);

    private readonly BrokerConnector connector;
    private readonly string queue;
    private readonly TimeProvider clock;
    private readonly ILogger logger;
    private readonly Func<IConnection, CancellationToken, Task>? declare;
    private readonly Reconnection reconnection;

    // Unbounded in form; in fact bounded by the prefetch, because what a dead generation left is taken out before the next one is built.
    private readonly Channel<Delivery> deliveries = Channel.CreateUnbounded<Delivery>(new UnboundedChannelOptions { SingleWriter = false, SingleReader = false });

    private readonly Channel<bool> changes = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });
    private readonly TaskCompletionSource intakeEnded = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly CancellationTokenSource stopIntake = new();
    private readonly Lock gate = new();

    private volatile Generation? current;
    private volatile string? holdReason;
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
    private volatile bool oneByOne;

    /// <param name="declare">Run on every new connection before anything is consumed: a queue that was deleted is there again.</param>
    public QueueSubscription(
        BrokerConnector connector,
        string queue,
        ushort prefetch,
        TimeProvider clock,
        ILogger<QueueSubscription> logger,
        Func<IConnection, CancellationToken, Task>? declare = null)
    {
        this.connector = connector;
        this.queue = queue;
        this.clock = clock;
        this.logger = logger;
        this.declare = declare;
        since = clock.GetUtcNow();
        Prefetch = prefetch;
        outage = new Outage(clock);
        reconnection = new Reconnection(connector.Options, clock, OnFailure);
    }

    /// <summary>What was delivered, oldest first; ends after intake was told to stop. Deliveries of dead generations may be among them: see <see cref="Generation.IsAlive"/>.</summary>
    public ChannelReader<Delivery> Deliveries => deliveries.Reader;

    /// <summary>How many deliveries the broker may hand out unsettled; a change counts from the next generation or the next <see cref="Release"/> on.</summary>
    public ushort Prefetch { get; set; }

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
                    holdReason,
                    lastError,
                    lastErrorAt,
                    Volatile.Read(ref generations),
                    oneByOne ? 1 : Prefetch,
                    current?.Ledger.InHand ?? 0,
                    Interlocked.Read(ref delivered),
                    Interlocked.Read(ref acknowledged),
                    Interlocked.Read(ref rejected),
                    watchedProgressAt,
                    stalled,
                    reconnection.CircuitOpen);
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

    /// <summary>Throws the living generation away, which returns what is unsettled to the queue, and builds the next.</summary>
    public void Restart(string reason) => current?.Kill(reason);

    /// <summary>
    /// Hears how many messages wait by the count of another connection, which is one to another node where there are several. A leader that is cut off from the other
    /// nodes counts its consumers as ever and says that its queue is empty, while the others have a new leader and new messages. For one caller.
    /// </summary>
    public void HearOf(long ready)
    {
        if (ready == 0 || current is not { IsAlive: true } generation || !IsIdle(generation) || IsFull(generation))
        {
            doubted = null;
            return;
        }

        // The first time it may be on its way here.
        if (IsSecondTime(ref doubted))
        {
            generation.Kill($"{ready} messages are ready by the count of another connection, and none was delivered for {connector.Options.StallAfter.TotalSeconds:0} s");
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
            await BrokerConnector.DisposeQuietlyAsync(last.Connection);
        }
    }

    private async ValueTask RunGenerationAsync(CancellationToken stopping)
    {
        Enter(SubscriptionPhase.Connecting);
        var generation = new Generation(Interlocked.Increment(ref generations));
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
            await BrokerConnector.DisposeQuietlyAsync(generation.Connection);
            DropDead();
            throw;
        }

        if (stopping.IsCancellationRequested && generation.IsAlive)
        {
            // What is in hand is still to be settled; DisposeAsync closes.
            return;
        }

        var reason = await generation.Dead;
        await BrokerConnector.DisposeQuietlyAsync(generation.Connection);
        DropDead();
        if (generation.MetUnreadable)
        {
            MeetOneByOne(reason);
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

    /// <summary>
    /// The client library reads headers before we see them, and some that the broker lets pass it can't read: the connection ends, everything in hand goes back, and all of
    /// it gains a return. Delivered alone, the message uses up its own delivery limit and nobody else's, and the broker moves it on to where dead letters go.
    /// </summary>
    private void MeetOneByOne(string reason)
    {
        if (!oneByOne)
        {
            oneByOne = true;
            LogUnreadable(queue, reason);
        }

        throw new UnreadableMessageException(reason);
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
                    await WatchAsync(generation, stopping);
                    if (oneByOne && clock.GetElapsedTime(began) >= WatchInterval)
                    {
                        // The unreadable message would have come first. Cancelling makes way for a consumer with the full prefetch.
                        oneByOne = false;
                        await CancelConsumerAsync(generation);
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
        if (holdReason is { } reason)
        {
            if (generation.Consumer is not null)
            {
                LogHeld(queue, reason);
                await CancelConsumerAsync(generation);
            }

            Enter(SubscriptionPhase.Held);
        }
        else if (generation.Consumer is null)
        {
            generation.Prefetch = oneByOne ? (ushort)1 : Prefetch;
            await generation.Channel!.BasicQosAsync(0, generation.Prefetch, global: false, stopping);
            MarkProgress();
            var consumer = new Consumer(this, generation);
            consumer.Tag = await generation.Channel.BasicConsumeAsync(queue, autoAck: false, consumerTag: "", noLocal: false, exclusive: false, arguments: null, consumer, stopping);
            generation.Consumer = consumer;
            Enter(SubscriptionPhase.Consuming);
            if (!oneByOne)
            {
                outage.End();
                LogConsuming(queue, connector.Redacted, generation.Number, generation.Prefetch);
            }
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
        }
        catch (Exception exception)
        {
            generation.Kill($"the consumer could not be cancelled: {BrokerErrors.Describe(exception)}");
        }
    }

    private TimeSpan WatchInterval => connector.Options.StallAfter / 3;

    private bool IsIdle(Generation generation) =>
        generation.Consumer is not null && clock.GetElapsedTime(Volatile.Read(ref progressTimestamp)) >= connector.Options.StallAfter;

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

    private static bool IsFull(Generation generation) => generation.Ledger.InHand >= generation.Prefetch;

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
                generation.Kill($"{queue.MessageCount} messages were ready and none was delivered for {connector.Options.StallAfter.TotalSeconds:0} s");
            }
            else if (queue.ConsumerCount > 0)
            {
                uncounted = null;
            }
            else if (IsSecondTime(ref uncounted))
            {
                // Once, a queue whose leader is slow to answer says this as well.
                generation.Kill("the broker counts no consumer of the queue any more: it has no leader, or has lost sight of this one");
            }
        }
        catch (OperationInterruptedException exception) when (exception.ShutdownReason?.ReplyCode == Constants.AccessRefused)
        {
            // Some versions do not allow to look without the right to configure. Then the depth monitor, and the other signs, must do.
        }
        catch (Exception exception) when (!stopping.IsCancellationRequested)
        {
            generation.Kill($"nothing was delivered for {connector.Options.StallAfter.TotalSeconds:0} s, and the broker does not say how many messages are ready: {BrokerErrors.Describe(exception)}");
        }
    }

    private async Task WriteAsync(Generation generation, IReadOnlyList<SettledDelivery> batch)
    {
        var plan = generation.Plan;
        generation.Ledger.Settle(batch, generation, plan);
        if (plan.Rejects.Count == 0 && plan.AckCount == 0)
        {
            return;
        }

        // The write waits only for a peer that stopped reading. Then the generation is lost, and what was not told comes again.
        using var deadline = new CancellationTokenSource(SettleTimeout, clock);
        try
        {
            var channel = generation.Channel!;
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

    private void Take(Generation generation, Delivery delivery)
    {
        if (!generation.IsAlive)
        {
            return;
        }

        generation.Ledger.Delivered(delivery.Tag);
        Interlocked.Increment(ref generation.Delivered);
        Interlocked.Increment(ref delivered);
        MarkProgress();
        deliveries.Writer.TryWrite(delivery);
    }

    private void MarkProgress()
    {
        Volatile.Write(ref progressTimestamp, clock.GetTimestamp());
        stalled = false;
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

    [LoggerMessage(LogLevel.Information, "Consuming {Queue} from {Broker}, generation {Generation}, prefetch {Prefetch}")]
    private partial void LogConsuming(string queue, string broker, int generation, int prefetch);

    [LoggerMessage(LogLevel.Warning, "Generation {Generation} of {Queue} ended: {Reason}; the next one is being built")]
    private partial void LogGenerationEnded(string queue, int generation, string reason);

    [LoggerMessage(LogLevel.Warning, "Not consuming {Queue} from {Broker}: {Reason}; trying again in {Pause} and on")]
    private partial void LogNotConsuming(string queue, string broker, string reason, TimeSpan pause);

    [LoggerMessage(LogLevel.Error, "{Queue} holds a message that the client library can't read ({Reason}); messages are taken one by one until the broker has moved it on")]
    private partial void LogUnreadable(string queue, string reason);

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
                var read = PropertyMapping.Read(properties);
                subscription.Take(
                    generation,
                    new Delivery(deliveryTag, body.ToArray(), read, redelivered, PropertyMapping.ReadDeliveryCount(read, redelivered), exchange, routingKey, generation));
            }
            catch (Exception exception)
            {
                // The last resort: an unsettled delivery nobody knows of would eat one place of the prefetch for ever.
                generation.Kill($"a delivery could not be taken: {exception.GetType().Name}");
            }

            return Task.CompletedTask;
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

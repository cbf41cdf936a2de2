using System.Collections.Concurrent;
using System.Globalization;
using System.Text.RegularExpressions;
using System.Threading.Channels;
using Microsoft.Extensions.Options;
using OrderService.Observability;
using OrderService.Outbox;
using RabbitMQ.Client;
using RabbitMQ.Client.Events;
using RabbitMQ.Client.Exceptions;

namespace OrderService.RabbitMq;

/// <summary>A publisher at one moment, for health and the admin page.</summary>
/// <param name="Since">When it was connected, or lost the connection.</param>
/// <param name="Blocked">Why the broker takes no publishes (an alarm), in its own words.</param>
/// <param name="LastError">Why the last channel or connection ended or could not be opened, in plain words.</param>
/// <param name="Unconfirmed">Publishes whose outcome is not known yet, waiting ones included.</param>
/// <param name="CircuitOpen">The last attempts to connect all failed, so that none is made for a moment.</param>
public sealed record PublisherState(
    bool Connected,
    DateTimeOffset Since,
    string? Blocked,
    string? LastError,
    DateTimeOffset? LastErrorAt,
    int Unconfirmed,
    long Confirmed,
    long Returned,
    long Nacked,
    long Unknown,
    long Refused,
    bool CircuitOpen);

/// <summary>
/// Publishes with confirms over a connection of its own: many publishes share one window, every publish has exactly one outcome, and an end in time. The client's own
/// tracking of confirms is off; it waits publish by publish, and its limiter does not limit what is unconfirmed.
/// </summary>
public sealed partial class ConfirmedPublisher : IAsyncDisposable
{
    /// <summary>How long a channel that is given up waits for the answers to the rest.</summary>
    private static readonly TimeSpan DrainPatience = TimeSpan.FromSeconds(1);

    private readonly BrokerConnector connector;
    private readonly RabbitMqOptions options;
    private readonly TimeProvider clock;
    private readonly ILogger logger;
    private readonly Func<IConnection, CancellationToken, Task>? declare;
    private readonly string purpose;
    private readonly MessagingMetrics? metrics;
    private readonly Suspects suspects = new();
    private readonly Reconnection reconnection;
    private readonly SemaphoreSlim window;
    private readonly Channel<PendingPublish> waiting = Channel.CreateUnbounded<PendingPublish>(new UnboundedChannelOptions { SingleReader = false });
    private readonly Lock taking = new();
    private readonly Lock gate = new();
    private readonly CancellationTokenSource closing = new();

    // Exchange and routing key as bytes, once: there are few, and each publish would encode them again.
    private readonly ConcurrentDictionary<string, CachedString> names = new(StringComparer.Ordinal);

    private Task? running;
    private volatile bool closed;
    private volatile PublishSession? session;
    private volatile string? blocked;
    private TaskCompletionSource unblocked = Completed();
    private bool connected;
    private DateTimeOffset since;
    private AmqpTcpEndpoint? left;
    private readonly Outage outage;
    private string? lastError;
    private DateTimeOffset? lastErrorAt;
    private int unconfirmed;
    private long confirmed;
    private long returned;
    private long nacked;
    private long unknown;
    private long refused;

    /// <param name="declare">Run before every new channel: an exchange that was deleted is there again.</param>
    /// <param name="purpose">What the broker's list of connections says it does.</param>
    public ConfirmedPublisher(
        BrokerConnector connector,
        IOptions<RabbitMqOptions> options,
        TimeProvider clock,
        ILogger<ConfirmedPublisher> logger,
        Func<IConnection, CancellationToken, Task>? declare = null,
        string purpose = "publishes",
        MessagingMetrics? metrics = null)
    {
        this.metrics = metrics;
        this.purpose = purpose;
        this.connector = connector;
        this.options = options.Value;
        this.clock = clock;
        this.logger = logger;
        this.declare = declare;
        since = clock.GetUtcNow();
        window = new SemaphoreSlim(this.options.MaxUnconfirmed, this.options.MaxUnconfirmed);
        outage = new Outage(clock);
        reconnection = new Reconnection(this.options, clock, (failure, _) => Remember(BrokerErrors.Describe(failure)));
    }

    public PublisherState State
    {
        get
        {
            lock (gate)
            {
                return new PublisherState(
                    connected,
                    since,
                    blocked,
                    lastError,
                    lastErrorAt,
                    Volatile.Read(ref unconfirmed),
                    Interlocked.Read(ref confirmed),
                    Interlocked.Read(ref returned),
                    Interlocked.Read(ref nacked),
                    Interlocked.Read(ref unknown),
                    Interlocked.Read(ref refused),
                    reconnection.CircuitOpen);
            }
        }
    }

    /// <summary>As the relay has it.</summary>
    public EventPublisher ForRelay() => new(PublishAsync, DrainAsync, () => State is { Connected: true, Blocked: null });

    /// <summary>Why a message can't be sent as it is, to any broker; null when it can.</summary>
    public static string? WhyNotSendable(OutgoingMessage message) => PropertyMapping.Write(message, out var refusal) is null ? refusal : null;

    /// <summary>Connects before the first publish does, so that <see cref="State"/> means something.</summary>
    public void Start()
    {
        if (running is not null)
        {
            return;
        }

        lock (gate)
        {
            running ??= Task.WhenAll(Task.Run(RunAsync), Task.Run(ExpireAsync));
        }
    }

    /// <summary>Hands a message over; waits only for a free place in the window.</summary>
    /// <param name="completed">
    /// Called exactly once, on the connection's reading loop, a timer, or the caller itself: it must be quick and must not block. It may not wait for another publish.
    /// </param>
    /// <param name="cancellationToken">Ends the wait for a place. A message that was handed over can't be called back.</param>
    public ValueTask PublishAsync(OutgoingMessage message, Action<OutgoingMessage, PublishOutcome> completed, CancellationToken cancellationToken)
    {
        var properties = PropertyMapping.Write(message, out var refusal);
        if (properties is not null && suspects.TooLarge(message.Body.Length) is { } tooLarge)
        {
            (properties, refusal) = (null, tooLarge);
        }

        if (properties is null)
        {
            Interlocked.Increment(ref refused);
            LogRefused(message.MessageId, refusal!);
            completed(message, new PublishOutcome.Refused(refusal!));
            return ValueTask.CompletedTask;
        }

        var pending = new PendingPublish(message, Partition(message), properties, completed);
        if (window.Wait(0, CancellationToken.None))
        {
            Enqueue(pending);
            return ValueTask.CompletedTask;
        }

        return WaitAndEnqueueAsync(pending, cancellationToken);
    }

    /// <summary>Publishes one message and waits for its outcome, which comes within the confirm timeout of its getting a place in the window.</summary>
    /// <param name="cancellationToken">Ends the waiting; the message may arrive all the same.</param>
    public async Task<PublishOutcome> PublishAsync(OutgoingMessage message, CancellationToken cancellationToken)
    {
        var outcome = new TaskCompletionSource<PublishOutcome>(TaskCreationOptions.RunContinuationsAsynchronously);
        await PublishAsync(message, (_, result) => outcome.TrySetResult(result), cancellationToken);
        return await outcome.Task.WaitAsync(cancellationToken);
    }

    /// <summary>The same, with an end to the waiting for a place: null when none came free in time, and then nothing was sent.</summary>
    public async Task<PublishOutcome?> TryPublishAsync(OutgoingMessage message, TimeSpan patience)
    {
        var outcome = new TaskCompletionSource<PublishOutcome>(TaskCreationOptions.RunContinuationsAsynchronously);
        using var wait = new CancellationTokenSource(patience, clock);
        try
        {
            await PublishAsync(message, (_, result) => outcome.TrySetResult(result), wait.Token);
        }
        catch (OperationCanceledException)
        {
            return null;
        }

        return await outcome.Task;
    }

    /// <summary>Waits until every publish has its outcome. New publishes wait meanwhile.</summary>
    public async Task DrainAsync(CancellationToken cancellationToken)
    {
        var places = 0;
        try
        {
            while (places < options.MaxUnconfirmed)
            {
                await window.WaitAsync(cancellationToken);
                places++;
            }
        }
        finally
        {
            if (places > 0)
            {
                window.Release(places);
            }
        }
    }

    /// <summary>Closes the connection. What has no outcome yet gets <see cref="PublishOutcome.Unknown"/>.</summary>
    public async ValueTask DisposeAsync()
    {
        closed = true;
        await closing.CancelAsync();
        Task? running;
        lock (gate)
        {
            running = this.running;
        }

        if (running is not null)
        {
            await running;
        }

        while (TakeWaiting(long.MaxValue) is { } left)
        {
            Complete(left, new PublishOutcome.Unknown("the publisher was closed before the message was sent"));
        }
    }

    private async ValueTask WaitAndEnqueueAsync(PendingPublish pending, CancellationToken cancellationToken)
    {
        await window.WaitAsync(cancellationToken);
        Enqueue(pending);
    }

    private void Enqueue(PendingPublish pending)
    {
        pending.Since = clock.GetTimestamp();
        Interlocked.Increment(ref unconfirmed);
        Start();
        waiting.Writer.TryWrite(pending);
        if (closed && TakeWaiting(long.MaxValue) is { } late)
        {
            Complete(late, new PublishOutcome.Unknown("the publisher is closed"));
        }
    }

    private async Task RunAsync()
    {
        while (!closing.IsCancellationRequested)
        {
            try
            {
                await reconnection.RunAsync(RunConnectionAsync, closing.Token);
            }
            catch (Exception) when (closing.IsCancellationRequested)
            {
                return;
            }
        }
    }

    private async ValueTask RunConnectionAsync(CancellationToken stopping)
    {
        IConnection? connection = null;
        try
        {
            connection = await reconnection.ConnectAsync(async token => await connector.OpenAsync(purpose, token, left), stopping);
            left = connection.Endpoint;
            suspects.ForgetLimit();
            connection.ConnectionBlockedAsync += (_, blocked) => Block(blocked.Reason);
            connection.ConnectionUnblockedAsync += (_, _) => Unblock();
            Enter(connected: true);
            outage.End();
            LogConnected(connector.Redacted);
            await RunChannelsAsync(connection, stopping);
        }
        finally
        {
            Enter(connected: false);
            await Unblock();
            await BrokerConnector.DisposeQuietlyAsync(connection);
        }
    }

    /// <summary>Opens channel after channel while the connection is good; throws when it is not, unless it did good work.</summary>
    private async Task RunChannelsAsync(IConnection connection, CancellationToken stopping)
    {
        var timeouts = 0;
        var worked = false;
        while (true)
        {
            if (declare is not null)
            {
                await declare(connection, stopping);
            }

            await using var session = await RunChannelAsync(connection, stopping);
            worked |= session.Settled > 0;
            Remember(session.Reason);
            LogChannelEnded(session.Reason, session.Settled);

            // A channel that lost one confirm may have been unlucky. If it heard nothing at all, or the next one loses one too, the connection is what is broken.
            timeouts = session.TimedOut ? timeouts + 1 : 0;
            if (connection.IsOpen && (session.IsFull || (timeouts < 2 && session.Settled > 0)))
            {
                continue;
            }

            if (connection.IsOpen && session.WasBlamed)
            {
                // The broker closed the channel over one message; the next channel sends that one alone.
                continue;
            }

            if (worked)
            {
                return;
            }

            // The pauses grow: an exchange that is missing, or a broker that confirms nothing, must not be tried in a tight loop.
            throw new BrokerLostException(session.Reason);
        }
    }

    private async Task<PublishSession> RunChannelAsync(IConnection connection, CancellationToken stopping)
    {
        var channel = await connection.CreateChannelAsync(new CreateChannelOptions(publisherConfirmationsEnabled: true, publisherConfirmationTrackingEnabled: false), stopping);
        var session = new PublishSession(this, channel);
        using var stop = stopping.UnsafeRegister(static ended => ((PublishSession)ended!).Kill("the publisher was closed"), session);
        channel.BasicAcksAsync += (_, ack) => session.Confirm(ack.DeliveryTag, ack.Multiple, PublishOutcome.Confirmed.Instance);
        channel.BasicNacksAsync += (_, nack) => session.Confirm(nack.DeliveryTag, nack.Multiple, PublishOutcome.Nacked.Instance);
        channel.BasicReturnAsync += (_, returned) => session.Return(returned);
        channel.ChannelShutdownAsync += (_, shutdown) => session.Lost($"channel {BrokerErrors.Describe(shutdown)}", shutdown);
        channel.CallbackExceptionAsync += (_, failure) => session.Lost($"a callback failed: {BrokerErrors.Describe(failure.Exception)}");
        connection.ConnectionShutdownAsync += (_, shutdown) => session.Lost($"connection {BrokerErrors.Describe(shutdown)}");
        if (!connection.IsOpen)
        {
            session.Kill("the connection was lost");
        }

        this.session = session;
        try
        {
            await SendAsync(channel, session);
        }
        finally
        {
            this.session = null;
            session.Kill("the channel was closed");
            await DisposeQuietlyAsync(channel);
        }

        return session;
    }

    private async Task SendAsync(IChannel channel, PublishSession session)
    {
        while (session.IsAlive)
        {
            if (session.IsFull)
            {
                await Task.WhenAny(session.DrainAsync(), Task.Delay(DrainPatience, clock, CancellationToken.None));
                session.Kill("publishes stayed without an answer");
                return;
            }

            if (blocked is not null)
            {
                // Whatever is written now only fills buffers, and its time runs out there.
                await Task.WhenAny(unblocked.Task, session.Ended);
                continue;
            }

            if (TakeWaiting(long.MaxValue) is not { } pending)
            {
                await WaitForWorkAsync(session);
                continue;
            }

            if (suspects.TooLarge(pending.Message.Body.Length) is { } tooLarge)
            {
                LogRefused(pending.Message.MessageId, tooLarge);
                Complete(pending, new PublishOutcome.Refused(tooLarge));
                continue;
            }

            var isSuspect = suspects.Contains(pending.Message.MessageId);
            if (isSuspect)
            {
                // Alone, so that it is known whose fault it is when the broker closes the channel again.
                await session.DrainAsync();
            }

            if (!session.TryAdd(pending))
            {
                Complete(pending, new PublishOutcome.Unknown($"not sent: {session.Reason}"));
                return;
            }

            // The client makes a span of its own, child of this one, and writes it into the headers: without a parent it would begin another trace.
            using var span = Tracing.StartSend(pending.Exchange.Length == 0 ? pending.RoutingKey : pending.Exchange, pending.Message.Headers);
            try
            {
                // Ids of orders are too many to be kept.
                var routingKey = pending.IsPartitioned ? new CachedString(pending.RoutingKey) : Name(pending.RoutingKey);
                await channel.BasicPublishAsync(Name(pending.Exchange), routingKey, mandatory: true, pending.Properties, pending.Message.Body, session.Token);
                if (isSuspect)
                {
                    await session.DrainAsync();
                    suspects.Remove(pending.Message.MessageId);
                }
            }
            catch (Exception exception) when (exception is ArgumentException or WireFormattingException)
            {
                // The client could not put it on the wire, so the broker never counted it.
                session.TakeBack(pending);
                Complete(pending, new PublishOutcome.Refused(exception.Message));
            }
            catch (Exception exception)
            {
                session.Kill(BrokerErrors.Describe(exception));
            }
        }
    }

    private async Task WaitForWorkAsync(PublishSession session)
    {
        try
        {
            await waiting.Reader.WaitToReadAsync(session.Token);
        }
        catch (OperationCanceledException)
        {
            // The session ended; the loop sees it.
        }
    }

    /// <summary>The routing key for the exchange in front of the partitions; null for what goes where it says.</summary>
    private string? Partition(OutgoingMessage message) => options.Partitions > 0 && message is { Exchange: "" or TopologyNames.OrdersIn, RoutingKey: TopologyNames.Orders } ? message.OrderId : null;

    private CachedString Name(string text)
    {
        if (names.TryGetValue(text, out var cached))
        {
            return cached;
        }

        cached = new CachedString(text);
        if (names.Count < 1000)
        {
            names[text] = cached;
        }

        return cached;
    }

    /// <summary>Gives every publish its end in time, sent or not.</summary>
    private async Task ExpireAsync()
    {
        var interval = options.ConfirmTimeout / 10;
        using var tick = new PeriodicTimer(interval < TimeSpan.FromSeconds(1) ? interval : TimeSpan.FromSeconds(1), clock);
        try
        {
            while (await tick.WaitForNextTickAsync(closing.Token))
            {
                var expired = clock.GetTimestamp() - (long)(options.ConfirmTimeout.TotalSeconds * clock.TimestampFrequency);
                while (TakeWaiting(expired) is { } waiting)
                {
                    Complete(waiting, new PublishOutcome.Unknown($"not sent within {options.ConfirmTimeout.TotalSeconds:0.#} s: {WhyNotSent()}"));
                }

                session?.Expire(expired, expired + (long)(options.ConfirmTimeout.TotalSeconds / 2 * clock.TimestampFrequency));
            }
        }
        catch (OperationCanceledException)
        {
            // Closing; what is left gets its outcome there.
        }
    }

    private string WhyNotSent() => blocked is { } alarm ? $"the broker takes no publishes ({alarm})" : State is { Connected: false } state ? $"not connected ({state.LastError ?? "connecting"})" : "the broker takes publishes too slowly";

    /// <summary>Takes the oldest waiting publish if it is as old as that.</summary>
    private PendingPublish? TakeWaiting(long notAfter)
    {
        lock (taking)
        {
            return waiting.Reader.TryPeek(out var first) && first.Since <= notAfter && waiting.Reader.TryRead(out var taken) ? taken : null;
        }
    }

    private void Complete(PendingPublish pending, PublishOutcome outcome)
    {
        metrics?.Sent(pending.Exchange.Length > 0 ? pending.Exchange : pending.RoutingKey, clock.GetElapsedTime(pending.Since), ErrorOf(outcome));
        switch (outcome)
        {
            case PublishOutcome.Confirmed:
                Interlocked.Increment(ref confirmed);
                break;
            case PublishOutcome.Returned:
                Interlocked.Increment(ref returned);
                break;
            case PublishOutcome.Nacked:
                Interlocked.Increment(ref nacked);
                break;
            case PublishOutcome.Refused:
                Interlocked.Increment(ref refused);
                break;
            default:
                Interlocked.Increment(ref unknown);
                break;
        }

        Interlocked.Decrement(ref unconfirmed);
        try
        {
            pending.Completed(pending.Message, outcome);
        }
        catch (Exception exception)
        {
            // One careless callback must not cost the others their outcome.
            LogCallbackFailed(exception, pending.Message.MessageId);
        }
        finally
        {
            window.Release();
        }
    }

    private static string? ErrorOf(PublishOutcome outcome) => outcome switch
    {
        PublishOutcome.Confirmed => null,
        PublishOutcome.Returned => "returned",
        PublishOutcome.Nacked => "nacked",
        PublishOutcome.Refused => "refused",
        _ => "unknown",
    };

    private Task Block(string reason)
    {
        lock (gate)
        {
            if (blocked is null)
            {
                unblocked = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            }

            blocked = reason;
        }

        LogBlocked(reason);
        return Task.CompletedTask;
    }

    private Task Unblock()
    {
        lock (gate)
        {
            if (blocked is not null)
            {
                blocked = null;
                LogUnblocked();
            }

            unblocked.TrySetResult();
        }

        return Task.CompletedTask;
    }

    private void Enter(bool connected)
    {
        lock (gate)
        {
            if (this.connected != connected)
            {
                this.connected = connected;
                since = clock.GetUtcNow();
            }
        }
    }

    private void Remember(string error)
    {
        var told = outage.Meet(error, out var news);
        lock (gate)
        {
            lastError = told;
            lastErrorAt = clock.GetUtcNow();
        }

        if (news && !closing.IsCancellationRequested)
        {
            LogTrouble(connector.Redacted, told);
        }
    }

    private static TaskCompletionSource Completed()
    {
        var source = new TaskCompletionSource();
        source.SetResult();
        return source;
    }

    private static async Task DisposeQuietlyAsync(IChannel channel)
    {
        try
        {
            // A broker that does not read does not answer either; the connection's end then ends the channel.
            await channel.DisposeAsync().AsTask().WaitAsync(TimeSpan.FromSeconds(3));
        }
        catch (Exception)
        {
            // It is of no use any more, whatever it says.
        }
    }

    [LoggerMessage(LogLevel.Information, "Publishing to {Broker}")]
    private partial void LogConnected(string broker);

    [LoggerMessage(LogLevel.Debug, "A channel for publishing ended after {Settled} outcomes: {Reason}")]
    private partial void LogChannelEnded(string reason, long settled);

    [LoggerMessage(LogLevel.Warning, "Not publishing to {Broker}: {Reason}; what has no confirm is published again")]
    private partial void LogTrouble(string broker, string reason);

    [LoggerMessage(LogLevel.Warning, "The broker takes no publishes: {Reason}")]
    private partial void LogBlocked(string reason);

    [LoggerMessage(LogLevel.Information, "The broker takes publishes again")]
    private partial void LogUnblocked();

    [LoggerMessage(LogLevel.Error, "Message {MessageId} can't be published as it is: {Reason}")]
    private partial void LogRefused(string messageId, string reason);

    [LoggerMessage(LogLevel.Error, "The callback for message {MessageId} failed")]
    private partial void LogCallbackFailed(Exception exception, string messageId);

    /// <summary>One publish between its hand-over and its outcome.</summary>
    private sealed class PendingPublish(OutgoingMessage message, string? partition, BasicProperties properties, Action<OutgoingMessage, PublishOutcome> completed)
    {
        public OutgoingMessage Message { get; } = message;

        public bool IsPartitioned => partition is not null;

        // A replay that an older version left in the outbox names the default exchange, which the user may not be allowed to use.
        public string Exchange => partition is not null ? TopologyNames.OrdersPartitioned : Message is { Exchange: "", RoutingKey: TopologyNames.Orders } ? TopologyNames.OrdersIn : Message.Exchange;

        public string RoutingKey => partition ?? Message.RoutingKey;

        /// <summary>Of this publish alone: the client writes into it.</summary>
        public BasicProperties Properties { get; } = properties;

        public Action<OutgoingMessage, PublishOutcome> Completed { get; } = completed;

        /// <summary>The clock's timestamp of the hand-over.</summary>
        public long Since { get; set; }

        public PublishOutcome.Returned? Returned { get; set; }
    }

    /// <summary>The life of one channel: what was sent on it, by the broker's numbering, and has no outcome yet.</summary>
    private sealed class PublishSession(ConfirmedPublisher publisher, IChannel channel) : IAsyncDisposable
    {
        /// <summary>
        /// So many publishes without an answer make room for a new channel: the broker holds up the whole connection when a channel has 32 commands open at a queue without a leader.
        /// </summary>
        private const int MostUnanswered = 16;

        private readonly Lock gate = new();
        private readonly Dictionary<ulong, PendingPublish> sent = [];
        private readonly CancellationTokenSource ended = new();
        private readonly TaskCompletionSource endedSignal = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private ulong next = 1;
        private ulong lowest = 1;
        private string? reason;
        private Task cancelling = Task.CompletedTask;
        private TaskCompletionSource? drained;
        private long answeredAt = publisher.clock.GetTimestamp();
        private int unanswered;
        private bool asking;

        public bool IsAlive => Volatile.Read(ref reason) is null;

        public string Reason => Volatile.Read(ref reason) ?? "";

        public Task Ended => endedSignal.Task;

        public CancellationToken Token => ended.Token;

        /// <summary>It ended because a confirm did not come.</summary>
        public bool TimedOut { get; private set; }

        /// <summary>How many publishes the broker answered.</summary>
        public long Settled { get; private set; }

        /// <summary>The broker closed it over one of its messages.</summary>
        public bool WasBlamed { get; private set; }

        /// <summary>Too many publishes stay without an answer while others get theirs.</summary>
        public bool IsFull => Volatile.Read(ref unanswered) >= MostUnanswered;

        /// <summary>Waits until nothing is without an outcome.</summary>
        public Task DrainAsync()
        {
            lock (gate)
            {
                return sent.Count == 0 ? Task.CompletedTask : (drained ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously)).Task;
            }
        }

        public bool TryAdd(PendingPublish pending)
        {
            lock (gate)
            {
                if (reason is not null)
                {
                    return false;
                }

                sent.Add(next++, pending);
                return true;
            }
        }

        public void TakeBack(PendingPublish pending)
        {
            lock (gate)
            {
                if (sent.TryGetValue(next - 1, out var last) && ReferenceEquals(last, pending))
                {
                    sent.Remove(--next);
                    SignalWhenDrained();
                }
            }
        }

        public Task Confirm(ulong tag, bool multiple, PublishOutcome outcome)
        {
            if (!multiple)
            {
                PendingPublish? one;
                lock (gate)
                {
                    if (sent.Remove(tag, out one))
                    {
                        Settled++;
                        answeredAt = publisher.clock.GetTimestamp();
                        SignalWhenDrained();
                    }
                }

                if (one is not null)
                {
                    publisher.Complete(one, one.Returned ?? outcome);
                }

                return Task.CompletedTask;
            }

            List<PendingPublish>? several = null;
            lock (gate)
            {
                for (; lowest <= tag && lowest < next; lowest++)
                {
                    if (sent.Remove(lowest, out var pending))
                    {
                        (several ??= []).Add(pending);
                        Settled++;
                    }
                }

                answeredAt = publisher.clock.GetTimestamp();
                SignalWhenDrained();
            }

            foreach (var pending in several ?? [])
            {
                publisher.Complete(pending, pending.Returned ?? outcome);
            }

            return Task.CompletedTask;
        }

        /// <summary>A return comes before the confirm of the same message, in the order of publishing; the message id tells which it was.</summary>
        public Task Return(BasicReturnEventArgs returned)
        {
            var messageId = returned.BasicProperties.MessageId;
            lock (gate)
            {
                for (var tag = Lowest(); tag < next; tag++)
                {
                    if (sent.TryGetValue(tag, out var pending)
                        && pending.Returned is null
                        && pending.Message.MessageId == messageId
                        && pending.Exchange == returned.Exchange
                        && pending.RoutingKey == returned.RoutingKey)
                    {
                        pending.Returned = new PublishOutcome.Returned(returned.ReplyCode, returned.ReplyText);
                        break;
                    }
                }
            }

            return Task.CompletedTask;
        }

        /// <summary>
        /// Ends the publishes that are as old as that. When the broker answered something that was sent later, the channel is good and a queue is at fault, so only they end;
        /// under an alarm the reason is known as well. Otherwise the session ends.
        /// </summary>
        /// <param name="notAfter">What was sent by then has had its time.</param>
        /// <param name="askAfter">What was sent by then is reason enough to ask the broker whether it still listens.</param>
        public void Expire(long notAfter, long askAfter)
        {
            var blocked = publisher.blocked is not null;
            var ask = false;
            List<PendingPublish>? expired = null;
            lock (gate)
            {
                for (var tag = Lowest(); tag < next && sent.TryGetValue(tag, out var pending) && pending.Since <= notAfter; tag = Lowest())
                {
                    // Where nothing is answered it may be the connection, or the broker holds the connection up over the oldest.
                    TimedOut = !blocked && answeredAt <= pending.Since;
                    sent.Remove(tag);
                    unanswered += blocked ? 0 : 1;
                    (expired ??= []).Add(pending);
                    if (TimedOut)
                    {
                        break;
                    }
                }

                SignalWhenDrained();
                if (!asking && !blocked && !TimedOut && sent.TryGetValue(Lowest(), out var oldest) && oldest.Since <= askAfter && answeredAt <= oldest.Since)
                {
                    ask = asking = true;
                }
            }

            if (ask)
            {
                _ = AskAsync();
            }

            if (TimedOut)
            {
                Kill($"no confirm within {publisher.options.ConfirmTimeout.TotalSeconds:0.#} s");
            }

            foreach (var pending in expired ?? [])
            {
                publisher.Complete(pending, blocked
                    ? new PublishOutcome.Unknown($"no confirm: {publisher.WhyNotSent()}")
                    : new PublishOutcome.Unknown($"no confirm within {publisher.options.ConfirmTimeout.TotalSeconds:0.#} s: a queue has no leader or hangs", IsUnanswered: true));
            }
        }

        /// <summary>Asks for anything that the broker answers on this channel.</summary>
        private async Task AskAsync()
        {
            try
            {
                // Without a consumer it changes nothing, and it needs no right.
                await channel.BasicQosAsync(0, 0, false, Token);
                lock (gate)
                {
                    answeredAt = publisher.clock.GetTimestamp();
                }
            }
            catch (Exception)
            {
                // No answer: the timeout ends the session.
            }
            finally
            {
                lock (gate)
                {
                    asking = false;
                }
            }
        }

        /// <param name="shutdown">When the broker closed the channel: over one of the messages that are under way, perhaps.</param>
        public Task Lost(string reason, ShutdownEventArgs? shutdown = null)
        {
            if (shutdown is { Initiator: ShutdownInitiator.Peer, ReplyCode: Constants.PreconditionFailed or Constants.ContentTooLarge })
            {
                FindCulprit(shutdown.ReplyText);
            }

            Kill(reason);
            return Task.CompletedTask;
        }

        private void FindCulprit(string text)
        {
            List<PendingPublish> culprits = [];
            lock (gate)
            {
                WasBlamed = true;
                if (publisher.suspects.LearnLimit(text))
                {
                    foreach (var (tag, pending) in sent.Where(one => publisher.suspects.TooLarge(one.Value.Message.Body.Length) is not null).ToList())
                    {
                        sent.Remove(tag);
                        culprits.Add(pending);
                    }
                }
                else if (sent.Count == 1)
                {
                    culprits.AddRange(sent.Values);
                    sent.Clear();
                }
                else
                {
                    publisher.suspects.Add(sent.Values.Select(pending => pending.Message.MessageId));
                }
            }

            foreach (var culprit in culprits)
            {
                publisher.suspects.Remove(culprit.Message.MessageId);
                var refusal = publisher.suspects.TooLarge(culprit.Message.Body.Length) ?? $"the broker refuses it ({text})";
                publisher.LogRefused(culprit.Message.MessageId, refusal);
                publisher.Complete(culprit, new PublishOutcome.Refused(refusal));
            }
        }

        /// <summary>Call with <see cref="gate"/> held.</summary>
        private void SignalWhenDrained()
        {
            if (sent.Count == 0 && drained is not null)
            {
                drained.TrySetResult();
                drained = null;
            }
        }

        /// <summary>The first reason stays. Whatever has no outcome gets one.</summary>
        public void Kill(string reason)
        {
            PendingPublish[] orphans;
            lock (gate)
            {
                if (this.reason is not null)
                {
                    return;
                }

                Volatile.Write(ref this.reason, reason);
                orphans = [.. sent.Values];
                sent.Clear();
                SignalWhenDrained();

                // On another thread: what waits for the token must not run on the client's loop.
                cancelling = ended.CancelAsync();
            }

            endedSignal.TrySetResult();
            foreach (var orphan in orphans)
            {
                // What came back did not arrive, whatever became of the channel since.
                publisher.Complete(orphan, orphan.Returned ?? (PublishOutcome)new PublishOutcome.Unknown(reason));
            }
        }

        public async ValueTask DisposeAsync()
        {
            Kill("the channel was closed");
            await cancelling;
            ended.Dispose();
        }

        private ulong Lowest()
        {
            while (lowest < next && !sent.ContainsKey(lowest))
            {
                lowest++;
            }

            return lowest;
        }
    }

    /// <summary>What is known of messages over which the broker closed a channel.</summary>
    private sealed partial class Suspects
    {
        private readonly ConcurrentDictionary<string, bool> messages = new(StringComparer.Ordinal);
        private int largest = int.MaxValue;

        private const int MostKept = 20_000;

        public bool Contains(string messageId) => !messages.IsEmpty && messages.ContainsKey(messageId);

        public void Add(IEnumerable<string> messageIds)
        {
            if (messages.Count > MostKept)
            {
                // Whoever sent them did not send them again.
                messages.Clear();
            }

            foreach (var messageId in messageIds)
            {
                messages[messageId] = true;
            }
        }

        public void Remove(string messageId) => messages.TryRemove(messageId, out _);

        /// <summary>Why a body can't be sent; null when it can, as far as is known.</summary>
        public string? TooLarge(int length) => length > Volatile.Read(ref largest)
            ? $"the body has {length} bytes; the broker takes at most {Volatile.Read(ref largest)} (its max_message_size)"
            : null;

        /// <summary>The broker says how large a message may be when it refuses one: from then on none is sent that would close the channel under everybody else's publishes.</summary>
        public bool LearnLimit(string text)
        {
            var match = TooLargeText().Match(text);
            if (match.Success && int.TryParse(match.Groups["most"].Value, NumberStyles.None, CultureInfo.InvariantCulture, out var most))
            {
                Volatile.Write(ref largest, most);
                return true;
            }

            return false;
        }

        /// <summary>A new connection may lead to a broker that takes more.</summary>
        public void ForgetLimit() => Volatile.Write(ref largest, int.MaxValue);

        [GeneratedRegex(@"message size \d+ is larger than (?:configured )?max(?:imum)? (?:message )?size (?<most>\d+)", RegexOptions.CultureInvariant)]
        private static partial Regex TooLargeText();
    }
}

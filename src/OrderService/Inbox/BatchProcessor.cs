using System.Diagnostics;
using System.Security.Cryptography;
using OrderService.Observability;
using OrderService.Store;
using Polly;
using Polly.CircuitBreaker;
using Polly.Retry;
using CircuitState = Polly.CircuitBreaker.CircuitState;

namespace OrderService.Inbox;

/// <summary>A message that an intake has in hand.</summary>
public interface IInboxMessage
{
    /// <summary>The exact bytes.</summary>
    ReadOnlyMemory<byte> Body { get; }

    MessageProperties Properties { get; }

    /// <summary>Set in place of <see cref="Body"/> where the body is too large to be kept.</summary>
    UnkeptBody? Unkept => null;

    /// <summary>Whether it can still be settled; when not, it comes again.</summary>
    bool IsAlive => true;
}

/// <summary>An intake, as <see cref="BatchProcessor{TMessage}"/> has to know it.</summary>
/// <param name="Name">Its name in the key of a trouble.</param>
/// <param name="What">What it takes in, in the plural and with a capital.</param>
/// <param name="Level">What it means when all of it is held.</param>
/// <param name="MayBeOvertaken">Messages that are held may be overtaken by others.</param>
/// <param name="Settle">Tells the messages' sender of their fates, after the commit.</param>
/// <param name="Hold">Stops taking more, with the reason; called, perhaps repeatedly, once the store has been out of reach for a while.</param>
/// <param name="Release">Takes more again.</param>
public sealed record IntakeOfMessages<TMessage>(
    string Name, string What, TroubleLevel Level, bool MayBeOvertaken, BatchSettled<TMessage> Settle, Action<string> Hold, Action Release)
{
    /// <summary>What brings the messages, as the metrics call it.</summary>
    public string System { get; init; } = MessagingMetrics.RabbitMq;

    /// <summary>How many are in hand, processed or not; null when nobody counts them.</summary>
    public Func<int>? CountInHand { get; init; }

    /// <summary>How often a message is returned before its sender gives it up.</summary>
    public int DeliveryLimit { get; init; } = int.MaxValue;

    /// <summary>How often a message was returned.</summary>
    public Func<TMessage, int> CountReturns { get; init; } = static _ => 0;
}

/// <summary>
/// What every intake does with the messages it has in hand: they are decided in batches and settled after the commit that holds their outcome.
/// While the store is out of reach they are held; one that fails by itself, or that kills the process, is found, and it alone becomes a dead letter.
/// </summary>
/// <typeparam name="TMessage">What the intake has in hand.</typeparam>
public sealed partial class BatchProcessor<TMessage> : IAsyncDisposable
    where TMessage : IInboxMessage
{
    private readonly InboxCommit commit;
    private readonly InboxOptions options;
    private readonly IntakeOfMessages<TMessage> intake;
    private readonly TimeProvider clock;
    private readonly ILogger logger;
    private readonly ResiliencePipeline pipeline;
    private readonly Blame<TMessage> blame;
    private readonly InHand<TMessage> inHand;
    private readonly CrashRule crashes;
    private readonly CircuitBreakerStateProvider breaker = new();
    private readonly long[] fates = new long[Enum.GetValues<Fate>().Length];
    private long troubleSince;
    private volatile string? trouble;

    public BatchProcessor(InboxCommit commit, InboxOptions options, IntakeOfMessages<TMessage> intake, Troubles troubles, TimeProvider clock, ILogger logger)
    {
        this.commit = commit;
        this.options = options;
        this.intake = intake;
        this.clock = clock;
        this.logger = logger;
        pipeline = Pipeline();
        crashes = new CrashRule(options.SuspectAfterReturns, options.MaxCrashes, intake.DeliveryLimit);
        blame = new Blame<TMessage>(
            new BlamedWork<TMessage>(
                intake.Name, intake.What, intake.Level,
                (messages, abort) => CommitAsync(messages, [.. messages.Select(message => Incoming.Read(message))], abort),
                (message, failure, abort) => RejectAsync(message, Rejected(failure), failure, null, abort),
                async (everything, abort) => await pipeline.ExecuteAsync(async token => await commit.TryAsync(everything, token), abort))
            {
                MaxAttempts = options.MaxAttempts,
                IsAlive = static message => message.IsAlive,
                IsAloneInHand = () => intake.CountInHand is not { } count || count() <= 1,
            },
            troubles, logger);
        inHand = new InHand<TMessage>(blame, static message => message.IsAlive, intake.MayBeOvertaken, intake.Hold, intake.Release, options.HoldAfter, clock);
    }

    /// <summary>What the store's circuit breaker thinks; open means that nothing is taken in.</summary>
    public CircuitState StoreCircuit => breaker.CircuitState;

    /// <summary>Why nothing is being committed at the moment; null when all is well.</summary>
    public string? Trouble => trouble;

    /// <summary>Counts since the start: accepted, duplicate, refused, deferred, rejected, in the order of <see cref="Fate"/>.</summary>
    public IReadOnlyList<long> Fates => fates;

    /// <summary>How many messages are held because the store does not take them now.</summary>
    public int Waiting => inHand.Waiting;

    /// <inheritdoc cref="ProcessAsync(IReadOnlyList{TMessage}, IReadOnlyList{Incoming}?, CancellationToken)"/>
    public Task ProcessAsync(IReadOnlyList<TMessage> messages, CancellationToken abort) => ProcessAsync(messages, null, abort);

    /// <summary>Decides and settles; what fails by itself becomes a dead letter, and what the store does not take is held. See <see cref="BlameRule"/>.</summary>
    /// <param name="decoded">What <see cref="Incoming.Read"/> made of each message; null when that is still to be done.</param>
    /// <param name="abort">Gives up waiting for the store; what is not committed then is not settled.</param>
    public async Task ProcessAsync(IReadOnlyList<TMessage> messages, IReadOnlyList<Incoming>? decoded, CancellationToken abort)
    {
        try
        {
            await CommitAsync(messages, decoded ?? [.. messages.Select(message => Incoming.Read(message))], abort);
        }
        catch (Exception exception) when (!abort.IsCancellationRequested)
        {
            await inHand.SortOutAsync(messages, exception, abort);
        }
    }

    /// <summary>
    /// Messages that came back again and again are begun after a note of that, which goes with their decision. A note that a process leaves behind is evidence: see <see cref="CrashRule"/>.
    /// </summary>
    /// <returns>Those that stand accused: each is to be given to <see cref="TryAloneAsync"/> when nothing else is in hand.</returns>
    public async Task<IReadOnlyList<TMessage>> ProcessSuspectsAsync(IReadOnlyList<TMessage> suspects, CancellationToken abort)
    {
        await inHand.Turn.WaitAsync(abort);
        try
        {
            byte[][] hashes = [.. suspects.Select(message => SHA256.HashData(message.Body.Span))];
            var suspicions = await UntilTakenAsync(token => commit.LookAtAsync(hashes, token), abort);
            var trials = crashes.Arrange(suspicions, index => intake.CountReturns(suspects[index]));
            foreach (var index in trials.Urgent)
            {
                if (crashes.IsToBlame(suspicions[index]))
                {
                    await BlameAsync(suspects[index], hashes[index], suspicions[index], abort);
                    continue;
                }
                await TryAsync([suspects[index]], [hashes[index]], alone: false, abort);
            }
            foreach (var index in trials.Alone)
            {
                await TryAsync([suspects[index]], [hashes[index]], alone: true, abort);
            }
            foreach (var group in trials.Groups)
            {
                await TryAsync([.. group.Select(index => suspects[index])], [.. group.Select(index => hashes[index])], alone: false, abort);
            }
            return [.. trials.Accused.Select(index => suspects[index])];
        }
        finally
        {
            inHand.Turn.Release();
        }
    }

    /// <summary>
    /// Begins an accused message; nothing else may be in hand. What is beyond doubt is not begun any more and becomes a dead letter. Before the others something known to be good
    /// goes the same way in the same process: where that does not come to an end, the message is not to be blamed for it.
    /// </summary>
    public async Task TryAloneAsync(TMessage message, CancellationToken abort)
    {
        await inHand.Turn.WaitAsync(abort);
        try
        {
            var hash = SHA256.HashData(message.Body.Span);
            var suspicion = (await UntilTakenAsync(token => commit.LookAtAsync([hash], token), abort))[0];
            if (crashes.IsToBlame(suspicion))
            {
                await BlameAsync(message, hash, suspicion, abort);
                return;
            }
            await UntilTakenAsync(
                async token =>
                {
                    await commit.TryAsync(everything: false, token);
                    return true;
                },
                abort);
            await TryAsync([message], [hash], alone: true, abort);
        }
        finally
        {
            inHand.Turn.Release();
        }
    }

    /// <summary>Notes that this process takes messages in; waits for the store as long as it has to.</summary>
    public Task BeginLifeAsync(CancellationToken abort) => UntilTakenAsync(
        async token =>
        {
            await commit.BeginLifeAsync(token);
            return true;
        },
        abort);

    /// <summary>Notes that something is begun with others, under a name of its own; answers what speaks against it.</summary>
    public async Task<Suspicion> MarkStartedAsync(byte[] hash, CancellationToken abort)
    {
        var suspicion = (await UntilTakenAsync(token => commit.LookAtAsync([hash], token), abort))[0];
        await MarkAsync([hash], alone: false, abort);
        return suspicion;
    }

    private async Task BlameAsync(TMessage message, byte[] hash, Suspicion suspicion, CancellationToken abort)
    {
        using (Tracing.LinesOf(TraceOf(message)))
        {
            LogCrashSuspect(EnvelopeDecoder.Identify(message.Properties, message.Body, message.Unkept).Key, suspicion.Alone);
        }
        var rejection = new Rejection(RejectionReason.CrashSuspect, $"The process ended {suspicion.Alone} times while it worked on this message alone.", null);
        await UntilTakenAsync(
            async token =>
            {
                await RejectAsync(message, rejection, null, hash, token);
                return true;
            },
            abort);
        await UntilTakenAsync(
            async token =>
            {
                await commit.ExplainEndsAsync(token);
                return true;
            },
            abort);
    }

    private async Task TryAsync(IReadOnlyList<TMessage> messages, IReadOnlyList<byte[]> hashes, bool alone, CancellationToken abort)
    {
        await MarkAsync(hashes, alone, abort);
        try
        {
            await CommitAsync(messages, [.. messages.Select((message, index) => Incoming.Read(message) with { StartedHash = hashes[index] })], abort);
        }
        catch (Exception exception) when (!abort.IsCancellationRequested)
        {
            await inHand.SortOutAsync(messages, exception, abort);
        }
    }

    private Task MarkAsync(IReadOnlyList<byte[]> hashes, bool alone, CancellationToken abort) => UntilTakenAsync(
        async token =>
        {
            await commit.MarkStartedAsync(hashes, alone, token);
            return true;
        },
        abort);

    /// <summary>Does what is no message's own; what the store refuses there is the store's trouble.</summary>
    private async Task<T> UntilTakenAsync<T>(Func<CancellationToken, Task<T>> work, CancellationToken abort)
    {
        while (true)
        {
            try
            {
                return await pipeline.ExecuteAsync(async token => await work(token), abort);
            }
            catch (Exception exception) when (!abort.IsCancellationRequested)
            {
                blame.Say(exception is StoreRefusedException ? exception.Message : $"It fails with {exception.GetType().Name}.", all: true);
            }
            await Task.Delay(TimeSpan.FromSeconds(1), clock, abort);
        }
    }

    /// <summary>Ends the attempts for what is held; it is not settled.</summary>
    public ValueTask DisposeAsync() => inHand.DisposeAsync();

    private Rejection Rejected(Exception failure)
    {
        var why = failure is StoreRefusedException refused ? refused.Message.TrimEnd('.') : failure.GetType().Name;
        return new Rejection(RejectionReason.InternalError, $"Processing failed {options.MaxAttempts} times alone, while others went through: {why}; replay it after the cause is mended.", null);
    }

    private Task RejectAsync(TMessage message, Rejection rejection, Exception? exception, byte[]? startedHash, CancellationToken abort)
    {
        // The body is not read again: it may be what killed the process.
        var (key, fingerprint) = EnvelopeDecoder.Identify(message.Properties, message.Body, message.Unkept);
        if (exception is not null)
        {
            using var lines = Tracing.LinesOf(TraceOf(message));
            LogCulprit(key, options.MaxAttempts, ExceptionText.Of(exception));
        }
        return CommitAsync([message], [new Incoming(new Decoded.Invalid(key, fingerprint, rejection, null, message.Properties.CorrelationId), message.Body, message.Properties)
        {
            Claims = true,
            Exception = exception is null ? null : ExceptionText.Of(exception),
            StartedHash = startedHash,
            IsBodyUnkept = message.Unkept is not null,
        }], abort);
    }

    private async Task CommitAsync(IReadOnlyList<TMessage> messages, IReadOnlyList<Incoming> batch, CancellationToken abort)
    {
        var append = await pipeline.ExecuteAsync(async token => await commit.CommitAsync(batch, intake.System, token), abort);
        if (trouble is not null)
        {
            trouble = null;
            intake.Release();
            LogStoreBack();
        }
        if (inHand.Waiting == 0)
        {
            blame.Over();
        }
        foreach (var incoming in batch)
        {
            Interlocked.Increment(ref fates[(int)incoming.Fate]);
            if (incoming.Fate != Fate.Accepted || logger.IsEnabled(LogLevel.Debug))
            {
                LogFate(incoming);
            }
        }
        await intake.Settle(messages, batch, append);
        Failpoint.Hit("inbox-after-ack");
    }

    private ResiliencePipeline Pipeline()
    {
        var unavailable = new PredicateBuilder().Handle<StoreUnavailableException>();
        return new ResiliencePipelineBuilder { TimeProvider = clock }
            .AddRetry(new RetryStrategyOptions
            {
                // Trouble of the store is never a failure of a message: it is held, however long that takes.
                ShouldHandle = new PredicateBuilder().Handle<StoreUnavailableException>().Handle<BrokenCircuitException>(),
                MaxRetryAttempts = int.MaxValue,
                BackoffType = DelayBackoffType.Exponential,
                UseJitter = true,
                Delay = TimeSpan.FromMilliseconds(50),
                MaxDelay = TimeSpan.FromSeconds(2),
                OnRetry = arguments => { StoreTrouble(arguments.Outcome.Exception!); return ValueTask.CompletedTask; },
            })
            .AddCircuitBreaker(new CircuitBreakerStrategyOptions
            {
                ShouldHandle = unavailable,
                FailureRatio = 1,
                MinimumThroughput = 5,
                SamplingDuration = TimeSpan.FromSeconds(30),
                BreakDuration = TimeSpan.FromSeconds(1),
                StateProvider = breaker,
            })
            .Build();
    }

    private void StoreTrouble(Exception exception)
    {
        if (trouble is null)
        {
            troubleSince = clock.GetTimestamp();
            LogStoreTrouble(exception.Message);
        }
        if (exception is StoreUnavailableException)
        {
            trouble = exception.Message;
        }
        if (clock.GetElapsedTime(troubleSince) > options.HoldAfter)
        {
            intake.Hold("the store takes nothing for now");
            blame.Say(exception.Message, all: true);
        }
    }

    private static ActivityContext TraceOf(TMessage message) => Tracing.Parse(EnvelopeDecoder.TraceParent(message.Properties));

    private void LogFate(Incoming incoming)
    {
        var (orderId, key, correlationId) = incoming.Decoded switch
        {
            Decoded.Valid { Envelope: var envelope } => (envelope.Command.OrderId, envelope.Key, envelope.CorrelationId),
            Decoded.Invalid invalid => (invalid.OrderId, invalid.Key, invalid.CorrelationId),
            _ => (null, "", null),
        };
        using var lines = Tracing.LinesOf(incoming.Trace);
        switch (incoming.Fate)
        {
            case Fate.Accepted: LogAccepted(orderId, correlationId, key); break;
            case Fate.Duplicate: LogDuplicate(orderId, correlationId, key); break;
            case Fate.Refused: LogRefused(orderId, incoming.Reason, correlationId, key); break;
            case Fate.Deferred: LogDeferred(orderId, correlationId, key); break;
            case Fate.Rejected: LogRejected(incoming.Reason, orderId, correlationId, key); break;
        }
    }

    [LoggerMessage(LogLevel.Debug, "A command for order {OrderId} was accepted (correlation {CorrelationId}, cause {Key})")]
    private partial void LogAccepted(string? orderId, string? correlationId, string key);

    [LoggerMessage(LogLevel.Debug, "Another copy of a message for order {OrderId} was acknowledged (correlation {CorrelationId}, cause {Key})")]
    private partial void LogDuplicate(string? orderId, string? correlationId, string key);

    [LoggerMessage(LogLevel.Information, "A command for order {OrderId} was refused: {Reason} (correlation {CorrelationId}, cause {Key})")]
    private partial void LogRefused(string? orderId, string? reason, string? correlationId, string key);

    [LoggerMessage(LogLevel.Information, "A command came before order {OrderId} and waits for it (correlation {CorrelationId}, cause {Key})")]
    private partial void LogDeferred(string? orderId, string? correlationId, string key);

    [LoggerMessage(LogLevel.Warning, "A message was dead-lettered: {Reason} (order {OrderId}, correlation {CorrelationId}, key {Key})")]
    private partial void LogRejected(string? reason, string? orderId, string? correlationId, string key);

    // The key, because a message id may be anything; and no exception's message, because it may quote the input.
    [LoggerMessage(LogLevel.Error, "The message with the key {Key} failed {Attempts} times by itself and becomes a dead letter: {Exception}")]
    private partial void LogCulprit(string key, int attempts, string exception);

    [LoggerMessage(LogLevel.Error, "The process ended {Crashes} times on the message with the key {Key}; it becomes a dead letter")]
    private partial void LogCrashSuspect(string key, int crashes);

    [LoggerMessage(LogLevel.Warning, "The store takes nothing for now; deliveries are held until it does: {Reason}")]
    private partial void LogStoreTrouble(string reason);

    [LoggerMessage(LogLevel.Information, "The store is back; deliveries are taken again")]
    private partial void LogStoreBack();
}

/// <summary>Told of the fates of <paramref name="messages"/>, which are those of <paramref name="decided"/> in the same order, after the commit.</summary>
public delegate ValueTask BatchSettled<in TMessage>(IReadOnlyList<TMessage> messages, IReadOnlyList<Incoming> decided, Append append);

/// <summary>An exception as it may be stored: types and frames. Messages are left out, they can quote the input.</summary>
public static class ExceptionText
{
    public static string Of(Exception exception) => $"{exception.GetType().FullName}\n{exception.StackTrace}";
}

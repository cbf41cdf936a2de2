using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Confluent.Kafka;
using Microsoft.Extensions.Options;
using OrderService.DeadLetters;
using OrderService.Inbox;
using OrderService.Observability;
using OrderService.Store;
using Polly;
using Polly.Retry;

namespace OrderService.Kafka;

/// <summary>How the intake stands.</summary>
/// <param name="Partitions">How many of the topic's partitions this member has now.</param>
/// <param name="LastError">What went wrong last; null since records or an assignment came again.</param>
/// <param name="Left">Why the group was left for now, if it was.</param>
/// <param name="IsPaused">Because somebody paused the intake.</param>
public sealed record KafkaIntakeState(int Partitions, string? LastError, string? Left, bool IsPaused = false);

/// <summary>
/// A member of a consumer group that feeds the same inbox as the queue: records are decided, committed to the store, and only then is their offset committed.
/// What another member had in hand when it died or lost a partition comes again, and its inbox rows say so. There is no broker that dead-letters here:
/// a rejected record is parked from its rejection, which holds the bytes from the commit on.
/// </summary>
public sealed partial class KafkaIntake : IHostedService, IDisposable
{
    private const long Never = long.MinValue;
    private static readonly TimeSpan PollTimeout = TimeSpan.FromMilliseconds(100);

    /// <summary>Until the first records of a new partition are here, a look that finds none says nothing.</summary>
    private static readonly TimeSpan Settling = TimeSpan.FromSeconds(10);

    private static readonly TimeSpan ReplyTimeout = TimeSpan.FromSeconds(1);

    private readonly KafkaOptions settings;
    private readonly InboxOptions inbox;
    private readonly IDatabase database;
    private readonly DeadLetterParking parking;
    private readonly OrderMetrics metrics;
    private readonly TimeProvider clock;
    private readonly ILogger<KafkaIntake> logger;
    private readonly BatchProcessor<KafkaRecord> processor;
    private readonly ResiliencePipeline reconnection;
    private readonly ResiliencePipeline storeRetry;
    private readonly ResiliencePipeline parkingRetry;
    private readonly CancellationTokenSource stopIntake = new();
    private readonly CancellationTokenSource abort = new();

    // The rest belongs to the consuming thread.
    private readonly List<KafkaRecord> batch = [];
    private readonly Dictionary<TopicPartition, Offset> uncommitted = [];

    // Partitions whose records may have been in somebody's hand before, until a batch of them is done.
    private readonly HashSet<TopicPartition> fresh = [];
    private long assignedAt;
    private volatile bool hold;
    private volatile bool isDeciding;
    private volatile int inHand;
    private long emptyAt = Never;
    private volatile string? pauseReason;
    // Only a question to the cluster tells whether a broken connection means anything.
    private volatile bool doubtful;
    private Task consuming = Task.CompletedTask;
    private volatile KafkaIntakeState state = new(0, null, null);

    public KafkaIntake(
        InboxCommit commit, IDatabase database, DeadLetterParking parking, IOptions<KafkaOptions> options, IOptions<InboxOptions> inbox,
        OrderMetrics metrics, Troubles troubles, TimeProvider clock, ILogger<KafkaIntake> logger)
    {
        settings = options.Value;
        this.inbox = inbox.Value;
        this.database = database;
        this.parking = parking;
        this.metrics = metrics;
        this.clock = clock;
        this.logger = logger;
        processor = new BatchProcessor<KafkaRecord>(
            commit, inbox.Value,
            // An offset says that everything before it is done, so nothing is overtaken.
            new IntakeOfMessages<KafkaRecord>("kafka-intake", "Orders from Kafka", TroubleLevel.Degraded, MayBeOvertaken: false, SettleAsync, _ => hold = true, () => hold = false) { System = MessagingMetrics.Kafka },
            troubles, clock, logger);
        reconnection = Reconnection();
        storeRetry = StoreRetry(int.MaxValue);
        parkingRetry = StoreRetry(5);
    }

    public KafkaIntakeState State => state;

    /// <summary>Whether records are in hand.</summary>
    public bool IsDeciding => isDeciding;

    /// <summary>A look at this member's partitions found nothing to take within that time.</summary>
    public bool WasEmptyWithin(TimeSpan time) =>
        state is { Partitions: > 0, LastError: null, Left: null } && Interlocked.Read(ref emptyAt) is var at && at != Never && clock.GetElapsedTime(at) < time;

    /// <summary>How many records are in hand.</summary>
    public int InHand => inHand;

    /// <summary>Decides what is in hand, leaves the group, and takes nothing until <see cref="Resume"/>.</summary>
    public void Pause(string reason) => pauseReason = reason;

    /// <summary>Joins the group again.</summary>
    public void Resume() => pauseReason = null;

    /// <summary>Counts since the start: accepted, duplicate, refused, deferred, rejected, in the order of <see cref="Fate"/>.</summary>
    public IReadOnlyList<long> Fates => processor.Fates;

    public Task StartAsync(CancellationToken cancellationToken)
    {
        // The client has blocking calls alone, so it has a thread of its own.
        consuming = Task.Factory.StartNew(ConsumeAll, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        return Task.CompletedTask;
    }

    /// <summary>Decides what is in hand, commits its offsets and leaves the group. What the grace period does not suffice for comes again.</summary>
    public async Task StopAsync(CancellationToken cancellationToken)
    {
        await stopIntake.CancelAsync();
        await using (cancellationToken.Register(abort.Cancel))
        {
            try
            {
                // A cluster that is away must not hold the stop up: the group notices a member that is gone.
                await consuming.WaitAsync(cancellationToken);
            }
            catch (OperationCanceledException)
            {
                LogNotLeft();
            }
        }
    }

    public void Dispose()
    {
        stopIntake.Dispose();
        abort.Dispose();
    }

    private void ConsumeAll()
    {
        try
        {
            while (!stopIntake.IsCancellationRequested)
            {
                WaitWhilePaused();
                reconnection.Execute(ConsumeAsMember, stopIntake.Token);
            }
        }
        catch (OperationCanceledException) when (stopIntake.IsCancellationRequested)
        {
            // What was not committed comes again.
        }
        catch (Exception exception)
        {
            LogEndedBadly(exception);
        }
        finally
        {
            state = new KafkaIntakeState(0, state.LastError, "the service stops");
        }
    }

    private void WaitWhilePaused()
    {
        while (pauseReason is { } reason && !stopIntake.IsCancellationRequested)
        {
            state = new KafkaIntakeState(0, null, reason, IsPaused: true);
            stopIntake.Token.WaitHandle.WaitOne(PollTimeout);
        }
    }

    /// <summary>One membership, from joining the group to leaving it; ends with the stop, or when the store is away for long.</summary>
    private void ConsumeAsMember(CancellationToken stopping)
    {
        uncommitted.Clear();
        fresh.Clear();
        hold = false;
        isDeciding = false;
        Interlocked.Exchange(ref emptyAt, Never);
        inHand = 0;
        using var consumer = Join();
        try
        {
            while (!stopping.IsCancellationRequested && pauseReason is null)
            {
                Gather(consumer);
                if (batch.Count == 0)
                {
                    if (state.Partitions > 0 && clock.GetElapsedTime(assignedAt) >= Settling)
                    {
                        Interlocked.Exchange(ref emptyAt, clock.GetTimestamp());
                    }
                    LookForCluster(consumer);
                }
                else if (Decide() is { IsCompleted: false } held)
                {
                    Leave(consumer);
                    state = new KafkaIntakeState(0, null, "the store takes nothing for now");
                    LogLeft();
                    // Until the store is back, or the stop gives up. The offsets stay where they are: the records come again and are recognised.
                    held.GetAwaiter().GetResult();
                    return;
                }
                CommitOffsets(consumer, [.. uncommitted.Keys]);
            }
        }
        finally
        {
            Leave(consumer);
        }
    }

    private IConsumer<byte[], byte[]> Join()
    {
        var consumer = new ConsumerBuilder<byte[], byte[]>(KafkaClients.Consumer(settings))
            .SetErrorHandler((_, error) => OnError(error))
            .SetLogHandler((_, message) => KafkaClients.Log(logger, message))
            .SetPartitionsAssignedHandler((member, added) =>
            {
                fresh.UnionWith(added);
                assignedAt = clock.GetTimestamp();
                Interlocked.Exchange(ref emptyAt, Never);
                state = new KafkaIntakeState(member.Assignment.Count + added.Count, null, null);
                LogAssigned(added.Count, settings.Intake.Topic);
            })
            .SetPartitionsRevokedHandler((member, taken) =>
            {
                CommitOffsets(member, [.. taken.Select(place => place.TopicPartition)]);
                Forget(taken);
                state = state with { Partitions = Math.Max(0, member.Assignment.Count - taken.Count) };
            })
            .SetPartitionsLostHandler((_, taken) =>
            {
                Forget(taken);
                state = state with { Partitions = 0 };
            })
            .Build();
        consumer.Subscribe(settings.Intake.Topic);
        return consumer;
    }

    /// <summary>Another member reads these again from the last committed offset.</summary>
    private void Forget(List<TopicPartitionOffset> taken)
    {
        var gone = taken.Select(place => place.TopicPartition).ToHashSet();
        batch.RemoveAll(record => gone.Contains(record.Place.TopicPartition));
        fresh.ExceptWith(gone);
        foreach (var partition in gone)
        {
            uncommitted.Remove(partition);
        }
    }

    /// <summary>What is there is taken; nothing waits for a batch to fill.</summary>
    private void Gather(IConsumer<byte[], byte[]> consumer)
    {
        batch.Clear();
        var bytes = 0;
        try
        {
            var result = consumer.Consume(PollTimeout);
            while (result is not null)
            {
                var record = KafkaRecord.Of(result, fresh.Contains(result.TopicPartition));
                batch.Add(record);
                bytes += record.Body.Length;
                // There is no broker here that keeps a refused body, so it is in hand until it is parked; a large one is the last of its batch.
                if (batch.Count >= settings.Intake.MaxBatch || bytes >= inbox.MaxBatchBytes || record.Body.Length > EnvelopeDecoder.MaxBodyBytes)
                {
                    return;
                }
                result = consumer.Consume(TimeSpan.Zero);
            }
        }
        catch (ConsumeException exception) when (!exception.Error.IsFatal)
        {
            // The client goes on by itself; what was gathered before is in hand.
            OnError(exception.Error);
        }
    }

    /// <returns>The work; not completed when the store has been away for so long that other instances should have the partitions.</returns>
    private Task Decide()
    {
        isDeciding = true;
        inHand = batch.Count;
        var work = ProcessAsync([.. batch]);
        while (Task.WaitAny([work], PollTimeout) < 0)
        {
            if (hold)
            {
                return work;
            }
        }
        work.GetAwaiter().GetResult();
        isDeciding = false;
        inHand = 0;
        foreach (var record in batch)
        {
            uncommitted[record.Place.TopicPartition] = record.Place.Offset + 1;
            fresh.Remove(record.Place.TopicPartition);
        }
        if (state.LastError is not null)
        {
            state = state with { LastError = null };
        }
        return work;
    }

    /// <summary>
    /// Asks the cluster whether it is there, while there is doubt. The client tells of connections that broke and, not always, of all of them being down; of a cluster that came back it tells nothing.
    /// </summary>
    private void LookForCluster(IConsumer<byte[], byte[]> consumer)
    {
        if ((state.LastError is null && !doubtful) || consumer.Assignment is not { Count: > 0 } assignment)
        {
            return;
        }
        doubtful = false;
        try
        {
            consumer.Committed(assignment, ReplyTimeout);
            state = state with { LastError = null };
        }
        catch (KafkaException exception)
        {
            OnTrouble(exception.Error);
        }
    }

    private void Leave(IConsumer<byte[], byte[]> consumer)
    {
        try
        {
            consumer.Close();
        }
        catch (Exception exception) when (exception is KafkaException or ObjectDisposedException)
        {
            // Left before, or the cluster is away and notices by itself.
            LogLeaveFailed(exception.Message);
        }
    }

    /// <summary>
    /// Kafka keeps no count of how often a record was handed out. So the first batch of an assignment is noted under the offset it begins at: when it was begun
    /// there several times without an end, something in it ends the process, and its records are taken one by one.
    /// </summary>
    private async Task ProcessAsync(List<KafkaRecord> records)
    {
        var together = new List<KafkaRecord>(records.Count);
        var alone = new List<KafkaRecord>();
        var notes = new List<byte[]>();
        foreach (var partition in records.GroupBy(record => record.Place.TopicPartition))
        {
            var suspicious = false;
            if (partition.First().MayBeAgain)
            {
                var note = SHA256.HashData(Encoding.UTF8.GetBytes(string.Create(
                    CultureInfo.InvariantCulture, $"kafka {settings.Intake.GroupId} {partition.Key.Topic} {partition.Key.Partition.Value} {partition.First().Place.Offset.Value}")));
                suspicious = (await processor.MarkStartedAsync(note, abort.Token)).InCompany >= inbox.SuspectAfterReturns;
                notes.Add(note);
            }
            (suspicious ? alone : together).AddRange(partition);
        }
        if (together.Count > 0)
        {
            await processor.ProcessAsync(together, abort.Token);
        }
        if (alone.Count > 0)
        {
            foreach (var accused in await processor.ProcessSuspectsAsync(alone, abort.Token))
            {
                await processor.TryAloneAsync(accused, abort.Token);
            }
        }
        if (notes.Count > 0)
        {
            await storeRetry.ExecuteAsync(async token => await database.WriteAsync(transaction => Lives.ForgetAsync(transaction, notes), token), abort.Token);
        }
    }

    /// <summary>
    /// After the commit, and before the offset: what was rejected becomes a dead letter. Should the process end in between, the rejection still holds the bytes;
    /// the record comes again, and the search for missing letters would find it too. Parking knows a letter by key and content, so there is one.
    /// </summary>
    private async ValueTask SettleAsync(IReadOnlyList<KafkaRecord> records, IReadOnlyList<Incoming> decided, Append append)
    {
        if (append.Rejections.Count == 0)
        {
            return;
        }
        Failpoint.Hit("kafka-before-parking");
        for (var index = 0; index < records.Count; index++)
        {
            if (decided[index].Fate != Fate.Rejected)
            {
                continue;
            }
            var (key, fingerprint) = EnvelopeDecoder.Identify(records[index].Properties, records[index].Body);
            var row = append.Rejections.First(rejection => rejection.Key == key && rejection.Fingerprint.AsSpan().SequenceEqual(fingerprint));
            await ParkAsync(records[index], row);
        }
    }

    private async Task ParkAsync(KafkaRecord record, RejectionRow row)
    {
        var letter = DeadLetter.Of(
            row.Key, row.Fingerprint, new Rejection(row.Reason, row.Detail, row.Field), row.Exception, record.Body.ToBytes(), record.Properties, row.OrderId) with { Redelivered = record.MayBeAgain };
        try
        {
            var outcome = await parkingRetry.ExecuteAsync(
                async token => await database.WriteAsync(transaction => parking.ParkAsync(transaction, letter), token), abort.Token);
            if (outcome is ParkOutcome.Parked or ParkOutcome.ReplayFailed)
            {
                metrics.LetterParked(row.Reason);
            }
        }
        catch (Exception exception) when (!abort.IsCancellationRequested)
        {
            // The rejection holds the bytes; the search for missing letters parks it, raw if need be. The partition goes on.
            LogParkingFailed(exception);
        }
    }

    /// <summary>A rebalance may overtake a commit: then whoever has the partition now reads the records again.</summary>
    private void CommitOffsets(IConsumer<byte[], byte[]> consumer, IReadOnlyCollection<TopicPartition> partitions)
    {
        var offsets = partitions.Where(uncommitted.ContainsKey).Select(partition => new TopicPartitionOffset(partition, uncommitted[partition])).ToList();
        if (offsets.Count == 0)
        {
            return;
        }
        Failpoint.Hit("kafka-before-offset");
        try
        {
            consumer.Commit(offsets);
            foreach (var offset in offsets)
            {
                uncommitted.Remove(offset.TopicPartition);
            }
        }
        catch (KafkaException exception) when (!exception.Error.IsFatal)
        {
            // Kept, and committed with the next ones if the partition stays.
            LogCommitFailed(exception.Error.Reason);
        }
    }

    private void OnError(Error error)
    {
        if (error.Code == ErrorCode.Local_Transport)
        {
            // One broker closed one connection, perhaps because it was idle.
            doubtful = true;
            return;
        }
        OnTrouble(error);
    }

    private void OnTrouble(Error error)
    {
        if (state.LastError is null)
        {
            LogTrouble(error.Reason);
        }
        state = state with { LastError = error.Reason };
    }

    private ResiliencePipeline Reconnection() => new ResiliencePipelineBuilder { TimeProvider = clock }
        .AddRetry(new RetryStrategyOptions
        {
            ShouldHandle = static arguments => ValueTask.FromResult(arguments.Outcome.Exception is not null && !arguments.Context.CancellationToken.IsCancellationRequested),
            MaxRetryAttempts = int.MaxValue,
            BackoffType = DelayBackoffType.Exponential,
            UseJitter = true,
            Delay = TimeSpan.FromMilliseconds(200),
            MaxDelay = settings.MaxRetryDelay,
            OnRetry = arguments =>
            {
                state = new KafkaIntakeState(0, arguments.Outcome.Exception!.Message, null);
                LogFailed(arguments.RetryDelay, arguments.Outcome.Exception);
                return default;
            },
        })
        .Build();

    private ResiliencePipeline StoreRetry(int attempts) => new ResiliencePipelineBuilder { TimeProvider = clock }
        .AddRetry(new RetryStrategyOptions
        {
            // A conflict means that another process wrote the same row at the same time.
            ShouldHandle = new PredicateBuilder().Handle<StoreUnavailableException>().Handle<StoreConflictException>(),
            MaxRetryAttempts = attempts,
            BackoffType = DelayBackoffType.Exponential,
            UseJitter = true,
            Delay = TimeSpan.FromMilliseconds(50),
            MaxDelay = TimeSpan.FromSeconds(2),
        })
        .Build();

    [LoggerMessage(LogLevel.Information, "This instance takes {Partitions} more partitions of the topic {Topic}")]
    private partial void LogAssigned(int partitions, string topic);

    [LoggerMessage(LogLevel.Warning, "The consumer group is left until the store is back; other instances get the partitions")]
    private partial void LogLeft();

    [LoggerMessage(LogLevel.Warning, "The consumer group could not be left in time; it notices by itself")]
    private partial void LogNotLeft();

    [LoggerMessage(LogLevel.Warning, "Kafka intake: {Reason}. Orders from RabbitMQ are not affected")]
    private partial void LogTrouble(string reason);

    [LoggerMessage(LogLevel.Warning, "The Kafka intake failed and joins the group again in {Delay}")]
    private partial void LogFailed(TimeSpan delay, Exception exception);

    [LoggerMessage(LogLevel.Debug, "Leaving the consumer group: {Reason}")]
    private partial void LogLeaveFailed(string reason);

    [LoggerMessage(LogLevel.Error, "The Kafka intake ended; what was not committed comes again after the next start")]
    private partial void LogEndedBadly(Exception exception);

    [LoggerMessage(LogLevel.Information, "Offsets were not committed and go with the next ones: {Reason}")]
    private partial void LogCommitFailed(string reason);

    [LoggerMessage(LogLevel.Error, "A rejected record could not be parked; its bytes are kept with the rejection until they are")]
    private partial void LogParkingFailed(Exception exception);
}

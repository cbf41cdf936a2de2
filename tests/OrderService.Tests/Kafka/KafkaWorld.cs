using System.Diagnostics.Metrics;
using System.Text;
using Confluent.Kafka;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using OrderService.Database;
using OrderService.DeadLetters;
using OrderService.Events;
using OrderService.Inbox;
using OrderService.Kafka;
using OrderService.Notifications;
using OrderService.Observability;
using OrderService.Store;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Kafka;

/// <summary>A store, a cluster, and what of the service stands between them; no RabbitMQ.</summary>
internal sealed class KafkaWorld : IAsyncDisposable
{
    private readonly ServiceProvider meters = new ServiceCollection().AddMetrics().BuildServiceProvider();
    private readonly OrderMetrics metrics;
    private readonly EventBus bus = new(NullLogger<EventBus>.Instance);

    private KafkaWorld(TestStore store, MockKafka cluster)
    {
        Store = store;
        Cluster = cluster;
        metrics = new OrderMetrics(meters.GetRequiredService<IMeterFactory>());
        Log = new SwitchableStore(store.Database is PostgresDatabase postgres ? new PostgresOrderEventStore(postgres, TimeProvider.System, NullLogger<PostgresOrderEventStore>.Instance) : new SqliteOrderEventStore((SqliteDatabase)store.Database));
        Commit = NewCommit();
    }

    public static CancellationToken Stopping => TestContext.Current.CancellationToken;

    public TestStore Store { get; }
    public MockKafka Cluster { get; }
    public SwitchableStore Log { get; }
    public InboxCommit Commit { get; }

    public static async Task<KafkaWorld> OpenAsync() => new(await TestStore.OpenAsync(), new MockKafka().WithTopic("order-events").WithTopic("orders"));

    /// <summary>On PostgreSQL, where several instances share the store.</summary>
    public static async Task<KafkaWorld> OpenAsync(PostgresContainerFixture postgres) =>
        new(await TestStore.OpenAsync(postgres), new MockKafka().WithTopic("order-events").WithTopic("orders"));

    /// <summary>What one more instance has for itself.</summary>
    public InboxCommit NewCommit() => new(Log, [append => bus.Publish(append.Events)], Options.Create(new OrdersOptions()), TimeProvider.System);

    public KafkaOptions Settings(int batchSize = 100) => new()
    {
        Enabled = true,
        BootstrapServers = Cluster.BootstrapServers,
        BatchSize = batchSize,
        PollInterval = TimeSpan.FromMilliseconds(50),
        MaxRetryDelay = TimeSpan.FromMilliseconds(500),
        Intake = new KafkaIntakeOptions { Enabled = true, SessionTimeout = TimeSpan.FromSeconds(2), MaxBatch = 50 },
    };

    public async Task<RunningStream> StreamAsync(Func<bool>? isMine = null, KafkaOptions? settings = null)
    {
        var stream = new KafkaEventStream(
            Store.Database, new EventQueries(Store.Database), bus, isMine ?? (static () => true), Options.Create(settings ?? Settings()), metrics, TimeProvider.System, NullLogger<KafkaEventStream>.Instance);
        await stream.StartAsync(Stopping);
        return new RunningStream(stream);
    }

    public Troubles Troubles { get; } = new(TimeProvider.System);

    public async Task<RunningIntake> IntakeAsync(KafkaOptions? settings = null, InboxOptions? inbox = null, InboxCommit? commit = null)
    {
        var intake = new KafkaIntake(
            commit ?? Commit, Store.Database, new DeadLetterParking(Options.Create(new AlertsOptions()), TimeProvider.System),
            Options.Create(settings ?? Settings()), Options.Create(inbox ?? new InboxOptions()), metrics, Troubles, TimeProvider.System, NullLogger<KafkaIntake>.Instance);
        await intake.StartAsync(Stopping);
        return new RunningIntake(intake);
    }

    /// <summary>Commits messages as if they had come through the queue.</summary>
    public Task CommitAsync(params Incoming[] batch) => Commit.CommitAsync(batch, Stopping);

    /// <summary>Reads a topic to its end, as any other client would.</summary>
    public List<ConsumeResult<string, byte[]>> ReadAll(string topic = "order-events") => ReadAll(Cluster, topic);

    public static List<ConsumeResult<string, byte[]>> ReadAll(MockKafka cluster, string topic)
    {
        using var reader = new ConsumerBuilder<string, byte[]>(new ConsumerConfig { BootstrapServers = cluster.BootstrapServers, GroupId = "a-test", EnableAutoCommit = false, EnablePartitionEof = true })
            .SetLogHandler((_, _) => { }).Build();
        reader.Assign(Enumerable.Range(0, 3).Select(partition => new TopicPartitionOffset(topic, partition, Offset.Beginning)));
        var records = new List<ConsumeResult<string, byte[]>>();
        for (var ended = 0; ended < 3;)
        {
            var result = reader.Consume(Stopping);
            if (result.IsPartitionEOF)
            {
                ended++;
            }
            else
            {
                records.Add(result);
            }
        }
        return records;
    }

    /// <summary>How far the group has committed, over all partitions.</summary>
    public long CommittedOffsets()
    {
        using var reader = new ConsumerBuilder<string, byte[]>(new ConsumerConfig { BootstrapServers = Cluster.BootstrapServers, GroupId = "order-service" }).SetLogHandler((_, _) => { }).Build();
        return reader.Committed(Enumerable.Range(0, 3).Select(partition => new TopicPartition("orders", partition)), TimeSpan.FromSeconds(10)).Sum(place => Math.Max(0, place.Offset.Value));
    }

    public Task SendAsync(params IEnumerable<TestMessage> messages) => SendAsync(Cluster, messages);

    /// <summary>What a producer of orders does: the order id as the record's key.</summary>
    /// <param name="more">Headers of its own, in each record.</param>
    public static async Task SendAsync(MockKafka cluster, IEnumerable<TestMessage> messages, params IEnumerable<(string Name, string Value)> more)
    {
        using var producer = new ProducerBuilder<string, byte[]>(new ProducerConfig { BootstrapServers = cluster.BootstrapServers, EnableIdempotence = true, LingerMs = 1, Partitioner = Partitioner.Murmur2Random, MessageMaxBytes = 16 << 20 })
            .SetLogHandler((_, _) => { }).Build();
        var sent = new List<Task>();
        foreach (var message in messages)
        {
            var headers = new Headers();
            if (message.Key is { } key)
            {
                headers.Add("message_id", Encoding.UTF8.GetBytes(key));
            }
            if (message.Type is { } type)
            {
                headers.Add("type", Encoding.UTF8.GetBytes(type));
            }
            foreach (var (name, value) in more)
            {
                headers.Add(name, Encoding.UTF8.GetBytes(value));
            }
            sent.Add(producer.ProduceAsync("orders", new Message<string, byte[]> { Key = OrderIdOf(message.Body), Value = message.Body, Headers = headers }, Stopping));
        }
        await Task.WhenAll(sent);
    }

    /// <summary>Every order there is with the versions of its events; asserts that no key had two effects.</summary>
    public async Task<Dictionary<string, int>> EffectsAsync()
    {
        Assert.Equal(0, await Store.ScalarAsync<long>("SELECT count(*) FROM (SELECT causation_id FROM events GROUP BY causation_id, type HAVING count(*) > 1)"));
        return (await Store.QueryAsync<Effect>("SELECT order_id, count(*) AS Events FROM events GROUP BY order_id")).ToDictionary(row => row.OrderId, row => (int)row.Events);
    }

    public async ValueTask DisposeAsync()
    {
        await bus.DisposeAsync();
        Cluster.Dispose();
        Commit.Dispose();
        metrics.Dispose();
        await meters.DisposeAsync();
        await Store.DisposeAsync();
    }

    private static string OrderIdOf(byte[] body)
    {
        var text = Encoding.UTF8.GetString(body);
        var start = text.IndexOf("\"orderId\":\"", StringComparison.Ordinal);
        return start < 0 ? "none" : text[(start + 11)..text.IndexOf('"', start + 11)];
    }

    private sealed class Effect
    {
        public string OrderId { get; init; } = "";
        public long Events { get; init; }
    }
}

/// <summary>A started stream; disposing it is a graceful stop.</summary>
internal sealed record RunningStream(KafkaEventStream Stream) : IAsyncDisposable
{
    public async ValueTask DisposeAsync()
    {
        await Stream.StopAsync(CancellationToken.None);
        Stream.Dispose();
    }
}

/// <summary>A started intake; disposing it is a graceful stop.</summary>
internal sealed record RunningIntake(KafkaIntake Intake) : IAsyncDisposable
{
    public long Count(Fate fate) => Intake.Fates[(int)fate];

    public async ValueTask DisposeAsync()
    {
        using var grace = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        await Intake.StopAsync(grace.Token);
        Intake.Dispose();
    }
}

/// <summary>A store that a test can put out of reach.</summary>
internal sealed class SwitchableStore(IOrderEventStore inner) : IOrderEventStore
{
    public volatile bool Away;

    public PersonalKeys Keys => inner.Keys;

    /// <summary>How many messages each transaction refused.</summary>
    public System.Collections.Concurrent.ConcurrentQueue<int> Batches { get; } = [];

    public Task<Append> AppendAsync(BatchQuery query, Func<BatchState, Append> decide, CancellationToken cancellationToken)
    {
        return Away ? throw new StoreUnavailableException("The test took the store away.") : inner.AppendAsync(query, Decide, cancellationToken);

        Append Decide(BatchState state)
        {
            var append = decide(state);
            Batches.Enqueue(append.Rejections.Count);
            return append;
        }
    }

    public Task TryAppendAsync(BatchQuery query, Func<BatchState, Append> decide, CancellationToken cancellationToken) =>
        Away ? throw new StoreUnavailableException("The test took the store away.") : inner.TryAppendAsync(query, decide, cancellationToken);

    public Task<BatchState> ReadAsync(BatchQuery query, CancellationToken cancellationToken) => inner.ReadAsync(query, cancellationToken);

    public Lives Lives => inner.Lives;
}

using System.Text.Json;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using OrderService.Database;
using OrderService.Inbox;
using OrderService.Outbox;
using OrderService.RabbitMq;
using OrderService.Tests.Infrastructure;
using OrderService.Tests.RabbitMq;
using OrderService.Tests.Store;
using RabbitMQ.Client;
using static OrderService.Tests.Store.Messages;

namespace OrderService.Tests.Outbox;

/// <summary>Several instances append to the same streams and relay them: every event is published, and first occurrences are in order for each order.</summary>
public sealed class SeveralRelaysTests(PostgresContainerFixture postgres, RabbitMqContainerFixture rabbit)
{
    private const int Orders = 60;
    private const string Queue = "seen";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task First_occurrences_stay_in_order_while_instances_come_go_and_freeze()
    {
        await using var broker = await TestBroker.StartAsync(rabbit);
        await using var channel = await BindAsync(broker);
        var connectionString = await postgres.AddDatabaseAsync();
        await using var first = new Instance(connectionString, broker);
        await first.Store.Database.MigrateAsync(Token);
        await using var second = new Instance(connectionString, broker);
        await using var third = new Instance(connectionString, broker);
        await first.Relay.StartAsync(Token);
        await second.Relay.StartAsync(Token);

        // Each order's life is spread over the instances, one right after the other.
        Instance[] instances = [first, second, third];
        var done = 0;
        var lives = Enumerable.Range(0, Orders).Select(number => Task.Run(async () =>
        {
            var orderId = $"A-{number}";
            Incoming[] life = [Place($"p-{number}", orderId), Pay($"y-{number}", orderId), Ship($"s-{number}", orderId), Of($"d-{number}", "order.deliver", $$"""{"orderId":"{{orderId}}"}""")];
            for (var step = 0; step < life.Length; step++)
            {
                var instance = instances[(number + step) % instances.Length];
                instance.Relay.Offer(await instance.Store.AppendAsync(life[step]));
                Interlocked.Increment(ref done);
            }
        }, Token)).ToList();

        await Eventually.TrueAsync(() => Volatile.Read(ref done) > Orders / 2);
        await third.Relay.StartAsync(Token);
        second.Clock.Freeze(TimeSpan.FromMinutes(1));
        await Eventually.TrueAsync(() => Volatile.Read(ref done) > Orders * 2);
        await first.Relay.StopAsync(Token);
        await Task.WhenAll(lives);

        var outbox = new OutboxStore(third.Store.Database);
        await Eventually.TrueAsync(async () => (await outbox.BacklogAsync(Token)).Pending == 0, TimeSpan.FromMinutes(1));
        await third.Relay.StopAsync(Token);
        await second.Relay.StopAsync(Token);

        var seen = await FirstOccurrencesAsync(channel);
        Assert.Equal(Orders, seen.Count);
        Assert.All(seen, order => Assert.Equal([1L, 2, 3, 4, 5], order.Value));
    }

    [Fact]
    public async Task An_event_waits_for_the_one_before_it_that_another_instance_appended()
    {
        await using var broker = await TestBroker.StartAsync(rabbit);
        await using var channel = await BindAsync(broker);
        var connectionString = await postgres.AddDatabaseAsync();
        await using var relaying = new Instance(connectionString, broker, pollInterval: TimeSpan.FromSeconds(1));
        await relaying.Store.Database.MigrateAsync(Token);
        await using var other = new Instance(connectionString, broker);
        await relaying.Relay.StartAsync(Token);
        var outbox = new OutboxStore(relaying.Store.Database);
        async Task SentAsync() => await Eventually.TrueAsync(async () => (await outbox.BacklogAsync(Token)).Pending == 0);

        // Once the relay takes what is appended here straight from memory...
        for (var number = 0; number < 3; number++)
        {
            relaying.Relay.Offer(await relaying.Store.AppendAsync(Place($"w-{number}", $"W-{number}")));
            await SentAsync();
        }
        // ...it is offered events whose predecessors it has never seen.
        await other.Store.AppendAsync([.. Enumerable.Range(0, 20).Select(number => Place($"p-{number}", $"A-{number}"))]);
        relaying.Relay.Offer(await relaying.Store.AppendAsync([.. Enumerable.Range(0, 20).Select(number => Pay($"y-{number}", $"A-{number}"))]));
        await SentAsync();
        await relaying.Relay.StopAsync(Token);

        var seen = await FirstOccurrencesAsync(channel);
        Assert.Equal(23, seen.Count);
        Assert.All(seen.Where(order => order.Key.StartsWith('A')), order => Assert.Equal([1L, 2, 3], order.Value));
    }

    private static async Task<IChannel> BindAsync(TestBroker broker)
    {
        await broker.DeclareAsync();
        var channel = await broker.ChannelAsync();
        await channel.QueueDeclareAsync(Queue, durable: true, exclusive: false, autoDelete: false, cancellationToken: Token);
        await channel.QueueBindAsync(Queue, TopologyNames.OrderEvents, "#", cancellationToken: Token);
        return channel;
    }

    /// <summary>The versions of each order in the order in which they were seen first.</summary>
    private static async Task<Dictionary<string, List<long>>> FirstOccurrencesAsync(IChannel channel)
    {
        var seen = new Dictionary<string, List<long>>();
        while (await channel.BasicGetAsync(Queue, autoAck: true, Token) is { } message)
        {
            using var json = JsonDocument.Parse(message.Body);
            var orderId = json.RootElement.GetProperty("subject").GetString()!;
            var version = json.RootElement.GetProperty("sequence").GetInt64();
            if (!seen.TryGetValue(orderId, out var versions))
            {
                seen[orderId] = versions = [];
            }
            if (!versions.Contains(version))
            {
                versions.Add(version);
            }
        }
        return seen;
    }

    private sealed class Instance : IAsyncDisposable
    {
        private readonly ConfirmedPublisher publisher;
        private readonly PostgresRelayLease lease;

        public Instance(string connectionString, TestBroker broker, TimeSpan? pollInterval = null)
        {
            Store = PostgresInstance.Open(connectionString);
            publisher = broker.Publisher();
            var options = Options.Create(new OutboxOptions { PollInterval = pollInterval ?? TimeSpan.FromMilliseconds(50), LeaseDuration = TimeSpan.FromSeconds(2), RetryDelay = TimeSpan.FromMilliseconds(100) });
            lease = new PostgresRelayLease((PostgresDatabase)Store.Database, options, Clock);
            Relay = new OutboxRelay(new OutboxStore(Store.Database), lease, publisher.ForRelay(), options, TimeProvider.System, NullLogger<OutboxRelay>.Instance);
        }

        public StoreInstance Store { get; }

        public OutboxRelay Relay { get; }

        public FreezableClock Clock { get; } = new();

        public async ValueTask DisposeAsync()
        {
            await lease.DisposeAsync();
            Relay.Dispose();
            await publisher.DisposeAsync();
            await Store.DisposeAsync();
        }
    }

    /// <summary>The system's clock, as a process sees it that was stopped for a while.</summary>
    private sealed class FreezableClock : TimeProvider
    {
        private long offset;

        public void Freeze(TimeSpan duration) => Interlocked.Add(ref offset, (long)(duration.TotalSeconds * TimestampFrequency));

        public override long GetTimestamp() => base.GetTimestamp() + Interlocked.Read(ref offset);
    }
}

using System.Text;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using Microsoft.Extensions.Time.Testing;
using OrderService.DeadLetters;
using OrderService.Notifications;
using OrderService.Observability;
using OrderService.RabbitMq;
using OrderService.Store;
using OrderService.Tests.Infrastructure;
using OrderService.Tests.RabbitMq;
using RabbitMQ.Client;
using RabbitMQ.Client.Events;

namespace OrderService.Tests.DeadLetters;

/// <summary>The intake against a real broker.</summary>
public sealed class DeadLetterIntakeTests(RabbitMqContainerFixture fixture)
{
    private static readonly TimeSpan Long = TimeSpan.FromMinutes(2);

    private static CancellationToken Stopping => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_storm_of_5_000_letters_gives_a_few_mails_and_loses_no_letter_though_the_mail_server_is_down_half_the_time()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await RejectEverythingAsync(broker);
        await using var store = await TestStore.OpenAsync();
        await using var mail = new FakeSmtpServer();
        mail.GoDown();
        var clock = new FakeTimeProvider(new DateTimeOffset(2026, 3, 1, 3, 0, 0, TimeSpan.Zero));
        await using var intake = new RunningIntake(broker, store.Database, clock);
        var channel = new EmailChannel(Options.Create(new AlertsOptions
        {
            Email = new EmailOptions { Enabled = true, Host = "127.0.0.1", Port = mail.Port, Security = "None", From = "orders@example.org", To = ["admin@example.org"] },
        }), new Smtp(TimeProvider.System));
        var sender = intake.Sender(channel);

        await intake.StartAsync();
        var publishing = PublishAsync(broker, 5000);
        for (var minute = 1; minute <= 20; minute++)
        {
            // 250 letters a minute.
            await Eventually.TrueAsync(async () => await store.ScalarAsync<long>("SELECT count(*) FROM dead_letters") >= minute * 250, Long);
            clock.Advance(TimeSpan.FromMinutes(1));
            if (minute == 10)
            {
                mail.ComeBack();
            }
            await Tick();
        }
        await publishing;
        await Eventually.TrueAsync(async () => await store.ScalarAsync<long>("SELECT count(*) FROM dead_letters") == 5000, Long);
        await Eventually.TrueAsync(async () => await broker.ReadyAsync("orders.dlq") == 0, Long);
        for (var more = 0; more < 3; more++)
        {
            clock.Advance(TimeSpan.FromMinutes(20));
            await Tick();
        }

        Assert.Equal(3, await store.ScalarAsync<long>("SELECT count(*) FROM incidents"));
        Assert.Equal(0, await store.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE alert_id IS NULL"));
        Assert.Equal(5000, await store.ScalarAsync<long>("SELECT sum(letters) FROM alerts"));
        Assert.Equal(await store.ScalarAsync<long>("SELECT count(*) FROM alerts"), await store.ScalarAsync<long>("SELECT count(*) FROM alert_deliveries WHERE status = 'sent'"));
        Assert.Equal(await store.ScalarAsync<long>("SELECT count(*) FROM alerts"), mail.Mails.Count);
        Assert.InRange(mail.Mails.Count, 3, 20);
        Assert.Equal(5000, (await store.BodiesAsync("SELECT body FROM dead_letters")).Select(Encoding.UTF8.GetString).Distinct().Count());

        async Task Tick()
        {
            await intake.Notifier.DigestAsync(Stopping);
            await sender.DispatchAsync(Stopping);
            await sender.SendDueAsync(channel, Stopping);
        }
    }

    [Fact]
    public async Task Letters_wait_while_the_store_is_out_of_reach_and_are_parked_when_it_is_back()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await RejectEverythingAsync(broker);
        await using var store = await TestStore.OpenAsync();
        var database = new UnreliableDatabase(store.Database) { IsDown = true };
        await using var intake = new RunningIntake(broker, database, TimeProvider.System);

        await intake.StartAsync();
        await PublishAsync(broker, 20);
        await Eventually.TrueAsync(() => database.Failures >= 3);
        await Eventually.TrueAsync(() => intake.Subscription.State.Phase == SubscriptionPhase.Held, Long);
        database.IsDown = false;

        await Eventually.TrueAsync(async () => await store.ScalarAsync<long>("SELECT count(*) FROM dead_letters") == 20, Long);
        await PublishAsync(broker, 5, first: 100);
        await Eventually.TrueAsync(async () => await store.ScalarAsync<long>("SELECT count(*) FROM dead_letters") == 25, Long);
        Assert.Equal(25, await store.ScalarAsync<long>("SELECT sum(copies) FROM dead_letters"));
    }

    [Fact]
    public async Task A_letter_that_fails_by_itself_is_kept_as_bytes_and_stops_no_other()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await RejectEverythingAsync(broker);
        await using var store = await TestStore.OpenAsync();
        // Stands for a mistake of ours that one letter brings to light.
        await store.ExecuteAsync("CREATE TRIGGER poison BEFORE INSERT ON dead_letters WHEN NEW.message_id = 'key-7' BEGIN SELECT RAISE(ABORT, 'poison'); END");
        await using var intake = new RunningIntake(broker, store.Database, TimeProvider.System);
        await PublishAsync(broker, 20);

        await intake.StartAsync();

        await Eventually.TrueAsync(async () => await store.ScalarAsync<long>("SELECT count(*) FROM dead_letters") == 20, Long);
        await Eventually.TrueAsync(async () => await broker.ReadyAsync("orders.dlq") == 0);
        Assert.Equal(Body(7), Assert.Single(await store.BodiesAsync("SELECT body FROM dead_letters WHERE reason = 'internal_error'")));
    }

    /// <summary>Broken messages of three kinds.</summary>
    private static async Task PublishAsync(TestBroker broker, int count, int first = 1)
    {
        await using var channel = await (await broker.ConnectionAsync()).CreateChannelAsync(new CreateChannelOptions(true, true), Stopping);
        var confirms = new List<Task>(count);
        for (var number = first; number < first + count; number++)
        {
            confirms.Add(channel.BasicPublishAsync("", "orders", mandatory: true, new BasicProperties { Persistent = true, MessageId = $"key-{number}" }, Body(number), Stopping).AsTask());
        }
        await Task.WhenAll(confirms);
    }

    /// <summary>Rejects whatever comes into <c>orders</c>, until the connection closes: to close the channel at once would return what the broker has not processed yet.</summary>
    private static async Task RejectEverythingAsync(TestBroker broker)
    {
        var channel = await broker.ChannelAsync();
        await channel.BasicQosAsync(0, 500, global: false, Stopping);
        var consumer = new AsyncEventingBasicConsumer(channel);
        consumer.ReceivedAsync += async (_, delivery) => await channel.BasicRejectAsync(delivery.DeliveryTag, requeue: false, Stopping);
        await channel.BasicConsumeAsync("orders", autoAck: false, consumer, Stopping);
    }

    private static byte[] Body(int number) => (number % 3) switch
    {
        0 => Encoding.UTF8.GetBytes($"{{\"orderId\":\"A-{number}\""),
        1 => LetterWorld.Order($"A-{number}", price: "1.001"),
        _ => LetterWorld.Order($"A-{number}", currency: "XXX"),
    };

    private sealed class RunningIntake : IAsyncDisposable
    {
        private readonly ServiceProvider services = new ServiceCollection().AddMetrics().BuildServiceProvider();
        private readonly OrderMetrics metrics;
        private readonly DeadLetterIntake intake;
        private readonly IDatabase database;
        private readonly TimeProvider clock;

        public RunningIntake(TestBroker broker, IDatabase database, TimeProvider clock)
        {
            this.database = database;
            this.clock = clock;
            metrics = new OrderMetrics(services.GetRequiredService<System.Diagnostics.Metrics.IMeterFactory>());
            Subscription = broker.Subscribe(TopologyNames.DeadLetters, 500);
            var alerts = Options.Create(new AlertsOptions());
            // The pauses between attempts are real ones: the broker's time goes on.
            intake = new DeadLetterIntake(
                Subscription, database, new DeadLetterParking(alerts, clock), Options.Create(new DeadLettersOptions { HoldAfter = TimeSpan.FromMilliseconds(100) }),
                metrics, Troubles, TimeProvider.System, NullLogger<DeadLetterIntake>.Instance);
            Notifier = new DeadLetterNotifier(database, alerts, new Troubles(clock), new StoreTime(clock), clock, NullLogger<DeadLetterNotifier>.Instance);
        }

        public QueueSubscription Subscription { get; }
        public Troubles Troubles { get; } = new(TimeProvider.System);
        public DeadLetterNotifier Notifier { get; }

        public NotificationSender Sender(params INotificationChannel[] channels) =>
            new(database, channels, Options.Create(new AlertsOptions()), metrics, new Troubles(clock), new StoreTime(clock), clock, NullLogger<NotificationSender>.Instance);

        public Task StartAsync() => intake.StartAsync(Stopping);

        public async ValueTask DisposeAsync()
        {
            await intake.StopAsync(CancellationToken.None);
            await Subscription.DisposeAsync();
            intake.Dispose();
            metrics.Dispose();
            await services.DisposeAsync();
        }
    }

    /// <summary>The store as a network or a disk lets it be seen.</summary>
    private sealed class UnreliableDatabase(IDatabase inner) : IDatabase
    {
        private int failures;

        public bool IsDown { get; set; }
        public int Failures => failures;
        public string Provider => inner.Provider;
        public PersonalKeys Keys => inner.Keys;

        public long Epoch => inner.Epoch;

        public Task<EpochRow> BeginEpochAsync(long atLeast, string cause, CancellationToken cancellationToken) => inner.BeginEpochAsync(atLeast, cause, cancellationToken);


        public Task MigrateAsync(CancellationToken cancellationToken) => inner.MigrateAsync(cancellationToken);

        public Task RequireSchemaAsync(CancellationToken cancellationToken) => inner.RequireSchemaAsync(cancellationToken);

        public Task<T> ReadAsync<T>(Func<StoreConnection, Task<T>> read, CancellationToken cancellationToken = default) =>
            IsDown ? Fail<T>() : inner.ReadAsync(read, cancellationToken);

        public Task<T> WriteAsync<T>(Func<StoreTransaction, Task<T>> write, CancellationToken cancellationToken = default) =>
            IsDown ? Fail<T>() : inner.WriteAsync(write, cancellationToken);

        public ValueTask DisposeAsync() => ValueTask.CompletedTask;

        private Task<T> Fail<T>()
        {
            Interlocked.Increment(ref failures);
            return Task.FromException<T>(new StoreUnavailableException("down"));
        }
    }
}

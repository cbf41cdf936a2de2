using System.Buffers;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using Microsoft.Extensions.Time.Testing;
using OrderService.Domain;
using OrderService.Events;
using OrderService.Notifications;
using OrderService.Observability;
using OrderService.Store;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Notifications;

public abstract class OrderConfirmationTests
{
    private static CancellationToken Stopping => TestContext.Current.CancellationToken;

    protected abstract Task<TestStore> OpenStoreAsync();

    [Fact]
    public async Task A_mailbox_that_takes_nothing_for_now_holds_up_no_other_customers_mail_and_gets_its_own_in_the_end()
    {
        await using var server = new FakeSmtpServer { Script = line => line.StartsWith("RCPT TO:<full", StringComparison.Ordinal) ? "452 4.2.2 full" : null };
        await using var world = await World.OpenAsync(await OpenStoreAsync(), server);
        await world.PlaceAsync("full@example.org", "ada@example.org", "gone@example.org", "bob@example.org");
        server.Mood = SmtpMood.RefuseGone;

        await world.TickAsync();

        Assert.Equal(["ada@example.org", "bob@example.org"], server.Delivered.Order());
        Assert.Equal(["A-1"], await world.WaitingAsync());
        // The mailbox that does not exist is not asked again.
        Assert.Equal(1, server.Recipients.Count(recipient => recipient.StartsWith("gone", StringComparison.Ordinal)));
        for (var hour = 0; hour < 4; hour++)
        {
            world.Clock.Advance(TimeSpan.FromMinutes(15));
            await world.TickAsync();
        }
        server.Script = _ => null;
        world.Clock.Advance(TimeSpan.FromMinutes(15));
        await world.TickAsync();

        Assert.Equal(["ada@example.org", "bob@example.org", "full@example.org"], server.Delivered.Order());
        Assert.Empty(await world.WaitingAsync());
    }

    [Theory]
    [InlineData("GREETING")]
    [InlineData("MAIL")]
    [InlineData("RCPT")]
    [InlineData("BODY")]
    public async Task A_server_that_refuses_everybody_for_an_hour_drops_no_mail_and_is_not_hammered(string at)
    {
        await using var server = new FakeSmtpServer { Script = line => line.StartsWith(at, StringComparison.Ordinal) ? "550 no such user" : null };
        await using var world = await World.OpenAsync(await OpenStoreAsync(), server);
        var customers = Enumerable.Range(1, 20).Select(number => $"c{number}@example.org").ToArray();
        await world.PlaceAsync(customers);
        for (var minute = 0; minute < 60; minute++)
        {
            await world.TickAsync();
            world.Clock.Advance(TimeSpan.FromMinutes(1));
        }

        Assert.Empty(server.Delivered);
        Assert.InRange(server.Connections, 3, 40);
        Assert.True(world.Troubles.Stands("mail:customers"));
        server.Script = _ => null;
        for (var round = 0; round < 3; round++)
        {
            world.Clock.Advance(TimeSpan.FromMinutes(15));
            await world.TickAsync();
        }
        Assert.Equal(customers.Order(), server.Delivered.Order());
        Assert.Empty(await world.WaitingAsync());
        Assert.False(world.Troubles.Stands("mail:customers"));
    }

    [Fact]
    public async Task A_mail_that_nobody_takes_is_given_up_after_its_time()
    {
        await using var server = new FakeSmtpServer { Mood = SmtpMood.TryLater };
        await using var world = await World.OpenAsync(await OpenStoreAsync(), server);
        await world.PlaceAsync("ada@example.org");
        for (var hour = 0; hour < 73; hour++)
        {
            await world.TickAsync();
            world.Clock.Advance(TimeSpan.FromHours(1));
        }
        await world.TickAsync();

        Assert.Empty(await world.WaitingAsync());
        Assert.InRange(server.Connections, 60, 75);
    }

    [Fact]
    public async Task A_mail_that_left_and_that_the_store_does_not_take_out_is_not_sent_again_and_holds_up_no_other()
    {
        await using var server = new FakeSmtpServer();
        await using var world = await World.OpenAsync(await OpenStoreAsync(), server);
        await world.PlaceAsync("ada@example.org", "bob@example.org", "eve@example.org");
        await world.TakeInAsync();
        await world.Store.ExecuteAsync("CREATE TABLE holds (position BIGINT REFERENCES order_mails (position)); INSERT INTO holds VALUES (1)");

        for (var minute = 0; minute < 5; minute++)
        {
            await world.TickAsync();
            world.Clock.Advance(TimeSpan.FromMinutes(1));
        }

        Assert.Equal(["ada@example.org", "bob@example.org", "eve@example.org"], server.Delivered.Order());
        Assert.Equal(["A-1"], await world.WaitingAsync());
        var trouble = Assert.Single(world.Troubles.Standing).Trouble;
        Assert.Equal("store:confirmations", trouble.Key);
        Assert.Contains(world.Store.Database.Provider == "Sqlite" ? "787 FOREIGN KEY" : "23503, constraint holds_position_fkey", trouble.Detail, StringComparison.Ordinal);
        Assert.DoesNotContain("example.org", trouble.ToString(), StringComparison.Ordinal);
        await world.Store.ExecuteAsync("DROP TABLE holds");
        world.Clock.Advance(TimeSpan.FromMinutes(1));
        await world.TickAsync();

        Assert.Equal(3, server.Delivered.Count);
        Assert.Empty(await world.WaitingAsync());
    }

    [Fact]
    public async Task A_mail_that_the_store_does_not_write_down_holds_up_no_other_and_when_it_takes_none_all_wait()
    {
        await using var server = new FakeSmtpServer();
        await using var world = await World.OpenAsync(await OpenStoreAsync(), server);
        await Refusal.AddAsync(world.Store.Database, "order_mails", "NEW.position > 0");
        await world.PlaceAsync("ada@example.org", "bob@example.org", "eve@example.org");
        await world.TickAsync();
        Assert.Empty(server.Delivered);
        Assert.Equal("store:confirmations", Assert.Single(world.Troubles.Standing).Trouble.Key);
        await Refusal.RemoveAsync(world.Store.Database, "order_mails");
        await Refusal.AddAsync(world.Store.Database, "order_mails", "NEW.order_id = 'A-2'");
        world.Clock.Advance(TimeSpan.FromMinutes(1));

        await world.TickAsync();

        Assert.Equal(["ada@example.org", "eve@example.org"], server.Delivered.Order());
        // It waits in the store: the next process tries it too, and then finds it where the others stand.
        world.Restart();
        await world.TickAsync();
        Assert.True(world.Troubles.Stands("store:confirmations"));
        Assert.Equal(2, server.Delivered.Count);
        await Refusal.RemoveAsync(world.Store.Database, "order_mails");
        world.Restart();
        await world.TickAsync();
        Assert.Equal(["ada@example.org", "bob@example.org", "eve@example.org"], server.Delivered.Order());
        Assert.Empty(await world.WaitingAsync());
        world.Restart();
        await world.TickAsync();
        Assert.Equal(3, server.Delivered.Count);
        Assert.Equal(["order-confirmation"], await world.Store.QueryAsync<string>("SELECT reader FROM checkpoints"));
    }

    private sealed class World : IAsyncDisposable
    {
        private readonly TestStore store;

        public TestStore Store => store;

        private readonly EventBus bus = new(NullLogger<EventBus>.Instance);
        private readonly FakeSmtpServer server;
        private OrderConfirmation confirmation;

        private World(TestStore store, FakeSmtpServer server)
        {
            (this.store, this.server) = (store, server);
            Troubles = new Troubles(Clock);
            confirmation = Start();
        }

        /// <summary>A new process, which knows what the store knows.</summary>
        public void Restart()
        {
            confirmation.Dispose();
            Troubles = new Troubles(Clock);
            confirmation = Start();
        }

        private OrderConfirmation Start() => new(
            store.Database, new EventQueries(store.Database), bus, () => true,
            Options.Create(new OrderConfirmationOptions { Enabled = true }),
            Options.Create(new AlertsOptions { Email = new EmailOptions { Host = "127.0.0.1", Port = server.Port, Security = "None", From = "shop@example.org" } }),
            new Smtp(Clock), Troubles, new StoreTime(Clock), Clock, NullLogger<OrderConfirmation>.Instance);

        public FakeTimeProvider Clock { get; } = new(new DateTimeOffset(2026, 3, 1, 3, 0, 0, TimeSpan.Zero));
        public Troubles Troubles { get; private set; }

        public static async Task<World> OpenAsync(TestStore store, FakeSmtpServer server)
        {
            var world = new World(store, server);
            // The first look begins at the end of the log.
            Assert.False(await world.confirmation.TakeInAsync(Stopping));
            return world;
        }

        public async Task PlaceAsync(params string[] customers)
        {
            for (var number = 1; number <= customers.Length; number++)
            {
                Assert.True(Currency.TryGet("EUR", out var euro));
                var personal = new PersonalData { Email = customers[number - 1] };
                var data = EventSerializer.Serialize(
                    new OrderEvent.Placed("C-1", euro, [new OrderLine("KB-01", 1, 4990)], 4990, personal, null), store.Database.Keys.OfCustomer);
                await store.ExecuteAsync(
                    """
                    INSERT INTO events (position, stream, order_id, version, type, data, correlation_id, causation_id, recorded_at, hash)
                    VALUES (@number, @number, @orderId, 1, @type, @data, 'c', 'c', 0, @hash)
                    """,
                    new { number, orderId = $"A-{number}", type = EventType.Placed, data, hash = new byte[32] });
            }
        }

        public async Task TakeInAsync()
        {
            while (await confirmation.TakeInAsync(Stopping))
            {
            }
        }

        public async Task TickAsync()
        {
            await TakeInAsync();
            await confirmation.SendDueAsync(Stopping);
        }

        public Task<List<string>> WaitingAsync() => store.QueryAsync<string>("SELECT order_id FROM order_mails ORDER BY position");

        public async ValueTask DisposeAsync()
        {
            confirmation.Dispose();
            await bus.DisposeAsync();
            await store.DisposeAsync();
        }
    }
}

public sealed class OrderConfirmationOnSqliteTests : OrderConfirmationTests
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync();
}

public sealed class OrderConfirmationOnPostgresTests(PostgresContainerFixture postgres) : OrderConfirmationTests
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync(postgres);
}

using System.Net;
using Microsoft.Extensions.DependencyInjection;
using OrderService.Observability;
using OrderService.RabbitMq;
using OrderService.Tests.Infrastructure;
using OrderService.Tests.Kafka;
using RabbitMQ.Client;

namespace OrderService.Tests.Health;

/// <summary>How health and the overview show what stands.</summary>
public sealed class ReadinessTests(RabbitMqContainerFixture broker)
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Only_what_keeps_orders_from_being_decided_is_a_503_and_everything_else_is_said()
    {
        await using var service = await HostedService.StartAsync(await broker.AddVirtualHostAsync());
        using var http = service.Client();
        var troubles = service.Services.GetRequiredService<Troubles>();
        await ShowsAsync(HttpStatusCode.OK, "ready", degraded: false, paused: false);

        Raise("a note", TroubleLevel.Notice);
        Raise("replays", TroubleLevel.Paused);
        await ShowsAsync(HttpStatusCode.OK, "paused", degraded: false, paused: true, ("replays", "paused"));

        Raise("relay:order.cancelled", TroubleLevel.Degraded);
        await ShowsAsync(HttpStatusCode.OK, "degraded", degraded: true, paused: true, ("relay:order.cancelled", "degraded"), ("replays", "paused"));

        Raise("letters", TroubleLevel.NotReady);
        await ShowsAsync(HttpStatusCode.ServiceUnavailable, "not ready", degraded: true, paused: true, ("letters", "down"), ("relay:order.cancelled", "degraded"), ("replays", "paused"));

        foreach (var key in new[] { "letters", "relay:order.cancelled", "replays" })
        {
            troubles.Clear(key);
        }
        await ShowsAsync(HttpStatusCode.OK, "ready", degraded: false, paused: false);

        void Raise(string key, TroubleLevel level) => troubles.Raise(new Trouble(key, level, "Something stands still", $"{key} stands still."));

        // The worst first; and on the overview the same.
        async Task ShowsAsync(HttpStatusCode code, string status, bool degraded, bool paused, params (string Key, string State)[] causes) => await Eventually.HoldsAsync(async () =>
        {
            using var response = await http.GetAsync(new Uri("/health/ready", UriKind.Relative), Now);
            var health = await HostedService.ReadAsync(response);
            Assert.Equal(
                (code, status, degraded, paused),
                (response.StatusCode, health.GetProperty("status").GetString(), health.GetProperty("degraded").GetBoolean(), health.GetProperty("paused").GetBoolean()));
            Assert.Equal(causes.Select(cause => cause.Key), health.GetProperty("causes").EnumerateArray().Select(cause => cause.GetString()!.Split(": ")[0]));
            using var stats = await http.GetAsync(new Uri("/api/stats", UriKind.Relative), Now);
            var overview = await HostedService.ReadAsync(stats);
            Assert.Equal((status != "not ready", degraded, paused), (overview.GetProperty("ready").GetBoolean(), overview.GetProperty("degraded").GetBoolean(), overview.GetProperty("paused").GetBoolean()));
            foreach (var (key, state) in causes)
            {
                Assert.Equal(state, overview.GetProperty("components").EnumerateArray().Single(component => component.GetProperty("name").GetString() == key).GetProperty("state").GetString());
            }
        });
    }

    [Theory]
    [InlineData(TopologyNames.Orders, "orders")]
    [InlineData(TopologyNames.DeadLetters, "dead-letters")]
    public async Task Messages_that_are_ready_while_the_broker_counts_no_consumer_are_a_503(string queue, string check)
    {
        await using var service = await HostedService.StartAsync(await broker.AddVirtualHostAsync(), new()
        {
            // It consumes again by itself after this; that it does is another test.
            ["RabbitMq:StallAfter"] = "00:10:00",
            ["RabbitMq:QueuePollInterval"] = "00:00:00.200",
        });
        using var http = service.Client();
        var subscription = queue == TopologyNames.Orders
            ? service.Services.GetRequiredService<OrderSubscriptions>().To(queue)!
            : service.Services.GetRequiredKeyedService<QueueSubscription>(queue);
        await Eventually.TrueAsync(() => subscription.State.Phase == SubscriptionPhase.Consuming && subscription.Current?.Consumer is not null);

        // Behind the subscription's back, as after a consume that the broker lost: it believes that it consumes.
        var channel = subscription.Current!.Channel!;
        await channel.BasicCancelAsync(subscription.Current.Consumer!.Tag, cancellationToken: Now);
        await channel.BasicPublishAsync("", queue, new byte[] { (byte)'x' }, Now);

        await Eventually.HoldsAsync(async () =>
        {
            using var response = await http.GetAsync(new Uri("/health/ready", UriKind.Relative), Now);
            Assert.Equal(HttpStatusCode.ServiceUnavailable, response.StatusCode);
            Assert.Equal(
                $"1 messages are ready in {queue}, and the broker counts no consumer.",
                (await HostedService.ReadAsync(response)).GetProperty("checks").GetProperty(check).GetProperty("detail").GetString());
        });
        Assert.Equal(SubscriptionPhase.Consuming, subscription.State.Phase);
    }

    [Fact]
    public async Task Messages_that_wait_for_longer_than_they_should_make_it_degraded()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await HostedService.StartAsync(address, new()
        {
            ["RabbitMq:StallAfter"] = "00:10:00",
            ["RabbitMq:QueuePollInterval"] = "00:00:00.200",
            ["RabbitMq:MaxWait"] = "00:00:01",
        });
        using var http = service.Client(null);
        var subscription = service.Services.GetRequiredService<OrderSubscriptions>().To(TopologyNames.Orders)!;
        await Eventually.TrueAsync(() => subscription.State.Phase == SubscriptionPhase.Consuming && subscription.Current?.Consumer is not null);

        // Another consumer in its place, which takes one message and keeps it: the broker counts one, and the messages behind it wait.
        await using var connection = await new ConnectionFactory { Uri = new Uri(address) }.CreateConnectionAsync(Now);
        await using var other = await connection.CreateChannelAsync(new CreateChannelOptions(true, true), Now);
        await subscription.Current!.Channel!.BasicCancelAsync(subscription.Current.Consumer!.Tag, cancellationToken: Now);
        await other.BasicQosAsync(0, 1, false, Now);
        await other.BasicConsumeAsync(TopologyNames.Orders, autoAck: false, new RabbitMQ.Client.Events.AsyncEventingBasicConsumer(other), Now);
        for (var number = 0; number < 3; number++)
        {
            await other.BasicPublishAsync("", TopologyNames.Orders, new byte[] { (byte)'x' }, Now);
        }

        await Eventually.HoldsAsync(async () =>
        {
            using var response = await http.GetAsync(new Uri("/health/ready", UriKind.Relative), Now);
            var health = await HostedService.ReadAsync(response);
            Assert.Equal((HttpStatusCode.OK, "degraded"), (response.StatusCode, health.GetProperty("status").GetString()));
            Assert.Matches(@"^The oldest of 2 messages in orders waits for \d+ s at least\.$", health.GetProperty("checks").GetProperty("orders").GetProperty("detail").GetString());
        });
    }

    [Fact]
    public async Task A_broker_that_is_at_work_for_long_on_the_channel_that_delivers_is_a_503()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await HostedService.StartAsync(address, new() { ["RabbitMq:StallAfter"] = "00:00:03" });
        using var http = service.Client(null);
        var subscription = service.Services.GetRequiredService<OrderSubscriptions>().To(TopologyNames.Orders)!;
        await Eventually.TrueAsync(() => subscription.Current?.Consumer is not null);
        await ShowsAsync(HttpStatusCode.OK, "consuming since ");

        // As nested headers do: connection and queue live, and what the queue has handed to the channel is in no count.
        await broker.TellChannelsAsync("suspend", new Uri(address).AbsolutePath[1..]);
        await ShowsAsync(HttpStatusCode.ServiceUnavailable, "The broker does not answer on the channel that delivers orders since ");

        await broker.TellChannelsAsync("resume", new Uri(address).AbsolutePath[1..]);
        await ShowsAsync(HttpStatusCode.OK, "consuming since ");

        async Task ShowsAsync(HttpStatusCode code, string detail) => await Eventually.HoldsAsync(async () =>
        {
            using var response = await http.GetAsync(new Uri("/health/ready", UriKind.Relative), Now);
            Assert.StartsWith(detail, (await HostedService.ReadAsync(response)).GetProperty("checks").GetProperty("orders").GetProperty("detail").GetString(), StringComparison.Ordinal);
            Assert.Equal(code, response.StatusCode);
        });
    }

    [Fact]
    public async Task Orders_that_do_not_come_from_Kafka_make_it_degraded_and_turn_no_traffic_away()
    {
        using var cluster = new MockKafka().WithTopic("orders");
        await using var service = await HostedService.StartAsync(await broker.AddVirtualHostAsync(), new()
        {
            ["Kafka:BootstrapServers"] = cluster.BootstrapServers,
            ["Kafka:Intake:Enabled"] = "true",
            ["Kafka:MaxRetryDelay"] = "00:00:00.500",
        });
        using var http = service.Client();
        await ShowsAsync("ready", "3 partitions");

        cluster.TakeDown();
        await ShowsAsync("degraded", "No orders come from Kafka: ");

        cluster.BringUp();
        await ShowsAsync("ready", "3 partitions");

        async Task ShowsAsync(string status, string detail) => await Eventually.HoldsAsync(async () =>
        {
            using var response = await http.GetAsync(new Uri("/health/ready", UriKind.Relative), Now);
            var health = await HostedService.ReadAsync(response);
            Assert.Equal((HttpStatusCode.OK, status), (response.StatusCode, health.GetProperty("status").GetString()));
            Assert.StartsWith(detail, health.GetProperty("checks").GetProperty("kafka-intake").GetProperty("detail").GetString(), StringComparison.Ordinal);
        });
    }
}

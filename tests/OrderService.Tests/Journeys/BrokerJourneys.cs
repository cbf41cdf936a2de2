using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text.Json;
using OrderService.Tests.Infrastructure;
using Testcontainers.RabbitMq;

namespace OrderService.Tests.Journeys;

/// <summary>The broker fails while orders flow. It has a container of its own, because these tests disturb all of it.</summary>
public sealed class BrokerJourneys : IAsyncLifetime
{
    private readonly int port = FreePort();
    private RabbitMqContainer broker = null!;

    private string Address => $"amqp://tests:tests-password@127.0.0.1:{port}/";

    public async ValueTask InitializeAsync()
    {
        broker = (await RabbitMqContainerFixture.BuilderAsync())
            // A port of the test's choice, since the broker comes back on the same one.
            .WithPortBinding(port, 5672)
            .Build();
        await broker.StartAsync(TestContext.Current.CancellationToken);
    }

    public ValueTask DisposeAsync() => broker?.DisposeAsync() ?? ValueTask.CompletedTask;

    [Fact]
    public async Task A_broker_killed_in_mid_flow_and_started_again_loses_no_confirmed_order()
    {
        const int Orders = 3000;
        await using var service = await RunningService.StartAsync(Address);
        await EventSink.BindAsync(Address);
        await WriteRegistriesAsync();
        var publishing = TestProducer.PublishUntilConfirmedAsync([Address], Enumerable.Range(0, Orders).Select(number => TestMessage.Place($"A-{number}")));
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM events") > 200);

        await ContainerEngine.KillAsync(broker.Id);
        await ContainerEngine.StartAgainAsync(broker.Id);

        await publishing;
        await service.HoldsRelayedAsync(Orders);
        Assert.Equal(0, await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters"));
        await EventSink.HoldsAsync(Address, Orders);
        await service.WaitUntilReadyAsync();
    }

    [Fact]
    public async Task A_queue_deleted_under_the_consumer_is_declared_again_and_orders_go_on()
    {
        await using var service = await RunningService.StartAsync(Address);
        await using var shop = await TestProducer.ConnectAsync(Address);
        await shop.PublishAsync(TestMessage.Place("A-1"));
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM events") == 1);

        await ExecAsync("rabbitmqctl", "delete_queue", "orders");

        await Eventually.HoldsAsync(() => shop.PublishAsync(TestMessage.Place("A-2")));
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM events") == 2);
        await service.WaitUntilReadyAsync();
    }

    [Fact]
    public async Task A_memory_alarm_stops_the_relay_and_not_the_intake_and_both_go_on_afterwards()
    {
        const int Orders = 200;
        await using var service = await RunningService.StartAsync(Address);
        await service.KillAsync();
        await using (var shop = await TestProducer.ConnectAsync(Address))
        {
            await shop.PublishAsync(Enumerable.Range(0, Orders).Select(number => TestMessage.Place($"A-{number}")));
        }

        await ExecAsync("rabbitmqctl", "set_vm_memory_high_watermark", "0.0000001");
        await service.StartAgainAsync(waitUntilReady: false);
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM events") == Orders);
        // Acknowledged as well: the alarm blocks the publishing connection, not this one.
        await Eventually.TrueAsync(async () => (await ExecAsync("rabbitmqctl", "-q", "list_queues", "name", "messages")).Split('\n').Any(line => line.Split('\t') is ["orders", "0"]));
        Assert.Equal(Orders, await service.ScalarAsync<long>("SELECT count(*) FROM outbox"));
        // Orders are decided, and their events stand still.
        await Eventually.HoldsAsync(async () =>
        {
            var health = await service.Http.GetFromJsonAsync<JsonElement>("/health/ready", TestContext.Current.CancellationToken);
            Assert.Equal(("degraded", true), (health.GetProperty("status").GetString(), health.GetProperty("degraded").GetBoolean()));
            Assert.Contains("takes no publishes", health.GetProperty("causes")[0].GetString(), StringComparison.Ordinal);
        });
        var stats = await service.Http.GetFromJsonAsync<JsonElement>("/api/stats", TestContext.Current.CancellationToken);
        Assert.Equal((true, true), (stats.GetProperty("ready").GetBoolean(), stats.GetProperty("degraded").GetBoolean()));
        Assert.Equal("degraded", stats.GetProperty("components").EnumerateArray().Single(component => component.GetProperty("name").GetString() == "event-publisher").GetProperty("state").GetString());

        await ExecAsync("rabbitmqctl", "set_vm_memory_high_watermark", "0.6");
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM outbox") == 0);
        await service.WaitUntilReadyAsync();
    }

    /// <summary>
    /// Puts on disk what the broker knows of its queues and bindings. It does so by itself a second or so after a declaration, and one killed before forgets what lies in a queue that was
    /// declared just now, confirmed or not (RabbitMQ 4.0.5: "configured member of queue was not found on this node. Starting member as a new one").
    /// </summary>
    private async Task WriteRegistriesAsync() =>
        Assert.Matches(@"^\[ok(,\s*ok)+\]$", (await ExecAsync("rabbitmqctl", "-q", "eval", "[mnesia:sync_log() | [dets:sync(Table) || Table <- dets:all()]].")).Trim());

    private async Task<string> ExecAsync(params string[] command)
    {
        var result = await broker.ExecAsync(command);
        return result.ExitCode == 0 ? result.Stdout : throw new InvalidOperationException($"{string.Join(' ', command)}: {result.Stderr}");
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}

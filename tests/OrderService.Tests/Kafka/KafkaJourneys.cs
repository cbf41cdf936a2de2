using System.Text;
using Confluent.Kafka;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Kafka;

/// <summary>The built service between RabbitMQ and Kafka, as a process that a test may kill.</summary>
public sealed class KafkaJourneys(RabbitMqContainerFixture broker) : IDisposable
{
    private readonly MockKafka cluster = new MockKafka().WithTopic("order-events").WithTopic("orders");

    public void Dispose() => cluster.Dispose();

    [Fact]
    public async Task While_Kafka_is_away_everything_else_goes_on_and_its_events_follow_later()
    {
        const int Orders = 200;
        cluster.TakeDown();
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address, Settings(("Kafka__Enabled", "true")));
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();

        await shop.PublishAsync(Enumerable.Range(0, Orders).Select(number => TestMessage.Place($"A-{number}")));
        await Eventually.TrueAsync(() => shop.Heard.Count == Orders);
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM outbox") == 0);
        // Ready, and honest about it.
        await Eventually.HoldsAsync(async () =>
        {
            Assert.Contains("200 events wait for Kafka", await service.Http.GetStringAsync(new Uri("/health/ready", UriKind.Relative)), StringComparison.Ordinal);
            var metrics = await service.Http.GetStringAsync(new Uri("/metrics", UriKind.Relative));
            Assert.Contains("orders_kafka_lag", metrics, StringComparison.Ordinal);
            Assert.Contains("orders_kafka_oldest_age_seconds", metrics, StringComparison.Ordinal);
        });

        cluster.BringUp();
        await CheckpointReachesAsync(service, Orders);
        Assert.Equal(shop.Heard.Select(heard => heard.Body).Order(), KafkaWorld.ReadAll(cluster, "order-events").Select(record => Encoding.UTF8.GetString(record.Message.Value)).Order());
    }

    [Theory]
    [InlineData("kafka-after-produce")]
    [InlineData("kafka-before-checkpoint")]
    public async Task A_kill_while_events_go_to_Kafka_loses_none(string point)
    {
        const int Orders = 40;
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address, Settings(("Kafka__Enabled", "true")));
        await using var shop = await TestProducer.ConnectAsync(address);
        await service.KillAsync();
        await shop.PublishAsync(Enumerable.Range(0, Orders).SelectMany(number => new[] { TestMessage.Place($"A-{number}"), TestMessage.Ship($"A-{number}") }));

        await service.StartAgainAsync($"{point}=kill", waitUntilReady: false);
        await service.WaitForExitAsync();
        await service.StartAgainAsync("");
        await CheckpointReachesAsync(service, 2 * Orders);

        var streams = KafkaWorld.ReadAll(cluster, "order-events").GroupBy(record => record.Message.Key).ToList();
        Assert.Equal(Orders, streams.Count);
        Assert.All(streams, stream => Assert.Equal(["ORDER_PLACED", "ORDER_SHIPPED"], stream.OrderBy(record => record.Offset.Value).Select(Type).Distinct()));
    }

    [Theory]
    [InlineData("inbox-after-commit")]
    [InlineData("kafka-before-parking")]
    [InlineData("kafka-before-offset")]
    public async Task A_kill_while_orders_come_from_Kafka_loses_nothing_and_doubles_nothing(string point)
    {
        const int Orders = 40;
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address, Settings(("Kafka__Intake__Enabled", "true")));
        await service.KillAsync();
        await KafkaWorld.SendAsync(cluster, Enumerable.Range(0, Orders).SelectMany(number => new[]
        {
            TestMessage.Place($"A-{number}"), TestMessage.Ship($"A-{number}"), TestMessage.Of("order.place", $"poison-{number}", $$"""{"orderId":"A-{{number}}","nonsense":true}"""),
        }));

        await service.StartAgainAsync($"{point}=kill", waitUntilReady: false);
        await service.WaitForExitAsync();
        await service.StartAgainAsync("");

        await Eventually.HoldsAsync(async () =>
        {
            Assert.Equal(2 * Orders, await service.ScalarAsync<long>("SELECT count(*) FROM events"));
            Assert.Equal(Orders, await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE status = 'parked'"));
            Assert.Equal(0, await service.ScalarAsync<long>("SELECT count(*) FROM rejections WHERE parked = 0"));
            Assert.Equal(0, await service.ScalarAsync<long>("SELECT count(*) FROM outbox"));
        });
        Assert.Equal(Orders, await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters"));
        // What came again because of the crash is no second copy.
        Assert.Equal(1, await service.ScalarAsync<long>("SELECT max(copies) FROM dead_letters"));
    }

    [Fact]
    public async Task A_record_that_kills_the_process_is_found_and_its_neighbours_go_through()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address, Settings(("Kafka__Intake__Enabled", "true")));
        await service.KillAsync();
        await KafkaWorld.SendAsync(cluster, Enumerable.Range(0, 30).Select(number => TestMessage.Place(number == 15 ? "KILLER" : $"A-{number}")));

        for (var starts = 0; starts < 10 && await service.ScalarAsync<long>("SELECT count(*) FROM rejections") == 0; starts++)
        {
            await service.StartAgainAsync("inbox-decoded=kill@KILLER", waitUntilReady: false);
            await Eventually.TrueAsync(async () => service.HasExited || await service.ScalarAsync<long>("SELECT count(*) FROM rejections") > 0);
        }

        await Eventually.HoldsAsync(async () =>
        {
            Assert.Equal(["crash_suspect"], await service.ColumnAsync<string>("SELECT reason FROM dead_letters WHERE status = 'parked'"));
            Assert.Equal(29, await service.ScalarAsync<long>("SELECT count(*) FROM events"));
        });
        Assert.False(service.HasExited);
    }

    [Fact]
    public async Task The_same_orders_by_queue_and_by_topic_have_one_effect_and_one_announcement()
    {
        const int Orders = 300;
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address, Settings(("Kafka__Enabled", "true"), ("Kafka__Intake__Enabled", "true")));
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        var messages = Enumerable.Range(0, Orders).SelectMany(number => new[] { TestMessage.Place($"A-{number}"), TestMessage.Ship($"A-{number}") }).ToList();

        await Task.WhenAll(shop.PublishAsync(messages), KafkaWorld.SendAsync(cluster, messages));

        await CheckpointReachesAsync(service, 2 * Orders);
        await Eventually.TrueAsync(() => shop.Heard.Select(heard => heard.Id).Distinct().Count() == 2 * Orders);
        // Every message was decided, whichever way it came: half of them were copies.
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT coalesce(sum(copies), 0) FROM inbox") >= 2 * Orders);
        Assert.Equal(2 * Orders, await service.ScalarAsync<long>("SELECT count(*) FROM events"));
        Assert.All(shop.Heard.GroupBy(heard => heard.Id[..heard.Id.LastIndexOf('.')]), stream => Assert.Equal(["ORDER_PLACED", "ORDER_SHIPPED"], stream.DistinctBy(heard => heard.Id).Select(heard => heard.Type)));
        Assert.Equal(0, await service.StopAsync());
    }

    private Dictionary<string, string> Settings(params (string Name, string Value)[] more) => new(more.Select(pair => KeyValuePair.Create(pair.Name, pair.Value)))
    {
        ["Kafka__BootstrapServers"] = cluster.BootstrapServers,
        ["Kafka__MaxRetryDelay"] = "00:00:00.500",
        ["Kafka__Intake__SessionTimeout"] = "00:00:02",
    };

    private static Task CheckpointReachesAsync(RunningService service, long position) =>
        Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT position FROM checkpoints WHERE reader = 'kafka'") == position);

    private static string Type(ConsumeResult<string, byte[]> record) => Encoding.UTF8.GetString(record.Message.Headers.GetLastBytes("ce_type"));
}

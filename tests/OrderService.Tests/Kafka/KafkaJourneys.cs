using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using Confluent.Kafka;
using OrderService.Inbox;
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

    /// <summary>Records wait at each start, and each start but the last is killed at the next point.</summary>
    [Fact]
    public async Task A_kill_while_orders_come_from_Kafka_loses_nothing_and_doubles_nothing()
    {
        const int Orders = 40;
        string[] points = ["inbox-after-commit", "kafka-before-parking", "kafka-before-offset"];
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address, Settings(("Kafka__Intake__Enabled", "true")));
        await service.KillAsync();

        foreach (var point in points)
        {
            await KafkaWorld.SendAsync(cluster, Enumerable.Range(0, Orders).SelectMany(number => new[]
            {
                TestMessage.Place($"{point}-{number}"), TestMessage.Ship($"{point}-{number}"), TestMessage.Of("order.place", $"poison-{point}-{number}", $$"""{"orderId":"A-{{number}}","nonsense":true}"""),
            }));
            await service.StartAgainAsync($"{point}=kill", waitUntilReady: false);
            await service.WaitForExitAsync();
        }
        await service.StartAgainAsync("");

        await Eventually.HoldsAsync(async () =>
        {
            Assert.Equal(2 * Orders * points.Length, await service.ScalarAsync<long>("SELECT count(*) FROM events"));
            Assert.Equal(Orders * points.Length, await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE status = 'parked'"));
            Assert.Equal(0, await service.ScalarAsync<long>("SELECT count(*) FROM rejections WHERE parked = 0"));
            Assert.Equal(0, await service.ScalarAsync<long>("SELECT count(*) FROM outbox"));
        });
        Assert.Equal(Orders * points.Length, await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters"));
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

        // Each end that the record's own notes do not explain asks for one more of them, up to a limit: where records come in pieces there are several.
        var starts = 0;
        for (; await service.ScalarAsync<long>("SELECT count(*) FROM rejections") == 0; starts++)
        {
            Assert.True(starts < CrashRule.MostStrangers + 12, $"The record ended {starts} processes and is not found:\n{service.Output}");
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

    [Fact]
    public async Task A_letter_from_Kafka_that_cant_be_sent_again_as_it_is_says_so_at_once_and_a_job_counts_it_as_failed()
    {
        await using var service = await RunningService.StartAsync(await broker.AddVirtualHostAsync(), Settings(("Kafka__Intake__Enabled", "true")));
        await KafkaWorld.SendAsync(cluster, [new TestMessage(new string('t', 300), "long-type", TestMessage.Place("A-1").Body)]);
        await KafkaWorld.SendAsync(
            cluster, [TestMessage.Of("order.place", "large-headers", """{"orderId":"A-2","nonsense":true}""")], Enumerable.Range(1, 7).Select(number => ($"h{number}", new string('\u6F22', 1000))));
        var (unsendable, large) = (await LetterAsync("unknown_command"), await LetterAsync("unknown_field"));
        const string Why = "It can't be sent as it is: the type is longer than 255 bytes. Edit it or discard it.";

        // One by one, before anything is written.
        var (status, answer) = await PostAsync($"/api/dead-letters/{unsendable}/replay", new { reason = "a try" });
        Assert.Equal((HttpStatusCode.UnprocessableEntity, Why), (status, answer.GetProperty("detail").GetString()));
        Assert.Equal("parked", (await GetAsync($"/api/dead-letters/{unsendable}")).GetProperty("status").GetString());

        // In a job: failed with the reason beside what was sent without its large headers and failed again.
        (status, answer) = await PostAsync("/api/dead-letters/replays", new { ids = new[] { unsendable, large }, mode = "all", reason = "a try" });
        Assert.Equal(HttpStatusCode.Accepted, status);
        var job = $"/api/replays/{answer.GetProperty("id").GetInt64()}";
        await Eventually.TrueAsync(async () => (await GetAsync(job)).GetProperty("state").GetString() == "done");
        var ended = await GetAsync(job);
        Assert.Equal((0, 2, 0), (ended.GetProperty("succeeded").GetInt32(), ended.GetProperty("failed").GetInt32(), ended.GetProperty("skipped").GetInt32()));
        var failures = ended.GetProperty("failures").EnumerateArray().ToDictionary(
            failure => failure.GetProperty("letterId").GetInt64(), failure => (failure.GetProperty("reason").GetString(), failure.GetProperty("detail").GetString()));
        Assert.Equal(("property_invalid", Why), failures[unsendable]);
        Assert.Equal("unknown_field", failures[large].Item1);
        var history = (await GetAsync($"/api/dead-letters/{large}")).GetProperty("history").EnumerateArray().Select(line => line.GetProperty("detail").GetString());
        Assert.Contains(history, line => line!.Contains("headers are too large to be sent again", StringComparison.Ordinal));

        // Both are an operator's, one to be discarded and one to be mended.
        (status, _) = await PostAsync($"/api/dead-letters/{unsendable}/discard", new { reason = "of no use" });
        Assert.Equal(HttpStatusCode.Accepted, status);
        (status, _) = await PostAsync($"/api/dead-letters/{large}/replay", new { body = Encoding.UTF8.GetString(TestMessage.Place("A-2").Body) });
        Assert.Equal(HttpStatusCode.Accepted, status);
        await Eventually.TrueAsync(async () => (await GetAsync($"/api/dead-letters/{large}")).GetProperty("status").GetString() == "resolved");
        Assert.Equal(["ORDER_PLACED"], (await service.StreamAsync("A-2")).Select(recorded => recorded.Type));
        Assert.True(await service.IsReadyAsync());

        async Task<long> LetterAsync(string reason)
        {
            await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE reason = @reason", new { reason }) == 1);
            return await service.ScalarAsync<long>("SELECT id FROM dead_letters WHERE reason = @reason", new { reason });
        }

        async Task<JsonElement> GetAsync(string path) => await service.Http.GetFromJsonAsync<JsonElement>(path, TestContext.Current.CancellationToken);

        async Task<(HttpStatusCode Status, JsonElement Answer)> PostAsync(string path, object body)
        {
            using var response = await service.Http.PostAsJsonAsync(path, body, TestContext.Current.CancellationToken);
            return (response.StatusCode, await response.Content.ReadFromJsonAsync<JsonElement>(TestContext.Current.CancellationToken));
        }
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

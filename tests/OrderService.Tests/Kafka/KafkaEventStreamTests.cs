using System.Text;
using System.Text.Json;
using Confluent.Kafka;
using OrderService.Inbox;
using OrderService.Store;
using OrderService.Tests.Infrastructure;
using OrderService.Tests.Store;

namespace OrderService.Tests.Kafka;

/// <summary>The log on its way to Kafka, over the real protocol.</summary>
public sealed class KafkaEventStreamTests
{
    private const int Orders = 100;

    [Fact]
    public async Task Three_hundred_events_arrive_keyed_by_their_orders_and_in_the_order_of_their_streams()
    {
        await using var world = await KafkaWorld.OpenAsync();
        await CommitOrdersAsync(world, 0, Orders);

        await using (await world.StreamAsync())
        {
            await CheckpointReachesAsync(world, 300);
        }

        var records = world.ReadAll();
        Assert.Equal(300, records.Count);
        Assert.Equal(3, records.Select(record => record.Partition.Value).Distinct().Count());
        Assert.All(records.GroupBy(record => record.Message.Key), order => Assert.Single(order.Select(record => record.Partition.Value).Distinct()));
        AssertFirstOccurrencesInOrder(records, Orders);
        // An idempotent producer introduces itself, once; any other never does.
        Assert.Equal(1, world.Cluster.Requests(MockKafka.InitProducerId));
    }

    [Fact]
    public async Task A_record_is_the_event_as_the_exchange_gets_it_without_personal_data()
    {
        await using var world = await KafkaWorld.OpenAsync();
        await world.CommitAsync(Messages.Of(
            "k-1", "order.place",
            """{"orderId":"A-1","customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}],"email":"somebody@example.com"}""",
            new Dictionary<string, object?> { ["traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" }));

        await using (await world.StreamAsync())
        {
            await CheckpointReachesAsync(world, 1);
        }

        var record = Assert.Single(world.ReadAll());
        Assert.Equal("A-1", record.Message.Key);
        Assert.Equal("application/cloudevents+json", Header(record, "content-type"));
        Assert.Equal("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Header(record, "traceparent"));
        Assert.Equal("ORDER_PLACED", Header(record, "ce_type"));
        var text = Encoding.UTF8.GetString(record.Message.Value);
        Assert.DoesNotContain("example.com", text, StringComparison.Ordinal);
        using var json = JsonDocument.Parse(text);
        Assert.Equal(Header(record, "ce_id"), json.RootElement.GetProperty("id").GetString());
        Assert.Equal("k-1", json.RootElement.GetProperty("causationid").GetString());
        Assert.Equal(1, json.RootElement.GetProperty("sequence").GetInt64());
        Assert.Equal("C-7", json.RootElement.GetProperty("data").GetProperty("customerId").GetString());
    }

    [Fact]
    public async Task What_is_committed_while_no_broker_answers_arrives_when_they_are_back()
    {
        await using var world = await KafkaWorld.OpenAsync();
        await CommitOrdersAsync(world, 0, 20);
        await using var running = await world.StreamAsync();
        await CheckpointReachesAsync(world, 60);

        world.Cluster.TakeDown();
        await CommitOrdersAsync(world, 20, Orders);
        await Eventually.TrueAsync(() => running.Stream.State is { Behind: 240, LastError: not null });
        Assert.Equal(60, await CheckpointAsync(world));

        world.Cluster.BringUp();
        await CheckpointReachesAsync(world, 300);
        await Eventually.TrueAsync(() => running.Stream.State is { Behind: 0, LastError: null });
        AssertFirstOccurrencesInOrder(world.ReadAll(), Orders);
    }

    [Theory]
    [InlineData(1, 6, 6, -195, 7)] // not the leader any more, a connection that drops, an answer that comes too late
    [InlineData(2, 29)] // not allowed: the producer is ended and the next one goes on from the checkpoint
    [InlineData(2, 87)] // refused for what is in it
    [InlineData(2, 10)] // too large for the topic
    public async Task Errors_of_the_brokers_lose_nothing_and_keep_the_order(int producers, params int[] errors)
    {
        await using var world = await KafkaWorld.OpenAsync();
        await CommitOrdersAsync(world, 0, Orders);
        world.Cluster.FailNext(MockKafka.Produce, errors);

        await using (await world.StreamAsync(settings: world.Settings(batchSize: 50)))
        {
            await CheckpointReachesAsync(world, 300);
        }

        Assert.True(world.Cluster.Requests(MockKafka.Produce) > errors.Length);
        // One error that ends the producer a case: a second one would hit the same producer through another partition, or the next producer, as the machine's load has it.
        Assert.Equal(producers, world.Cluster.Requests(MockKafka.InitProducerId));
        AssertFirstOccurrencesInOrder(world.ReadAll(), Orders);
    }

    [Fact]
    public async Task After_a_restart_the_stream_goes_on_behind_its_checkpoint()
    {
        await using var world = await KafkaWorld.OpenAsync();
        await CommitOrdersAsync(world, 0, 40);
        await using (await world.StreamAsync())
        {
            await CheckpointReachesAsync(world, 120);
        }

        await CommitOrdersAsync(world, 40, Orders);
        await using (await world.StreamAsync())
        {
            await CheckpointReachesAsync(world, 300);
        }

        var records = world.ReadAll();
        Assert.Equal(300, records.Count);
        AssertFirstOccurrencesInOrder(records, Orders);
    }

    [Fact]
    public async Task After_a_restore_the_stream_goes_on_from_the_backups_checkpoint_into_the_next_epoch()
    {
        await using var world = await KafkaWorld.OpenAsync();
        await CommitOrdersAsync(world, 0, 40);
        await using (await world.StreamAsync())
        {
            await CheckpointReachesAsync(world, 120);
        }
        await world.Store.Database.BeginEpochAsync(0, "restore", KafkaWorld.Stopping);
        await CommitOrdersAsync(world, 40, 50);

        await using var running = await world.StreamAsync();
        await CheckpointReachesAsync(world, StoreEpoch.FirstPosition(2) + 29);
        await Eventually.TrueAsync(() => running.Stream.State is { Behind: 0, LastError: null });

        var ids = world.ReadAll().ConvertAll(record => Header(record, "ce_id"));
        Assert.Equal(150, ids.Distinct().Count());
        Assert.Equal(30, ids.Count(id => id!.EndsWith(".e2", StringComparison.Ordinal)));
    }

    [Fact]
    public async Task A_crash_before_the_checkpoint_sends_the_same_events_again_under_the_same_ids()
    {
        await using var world = await KafkaWorld.OpenAsync();
        await CommitOrdersAsync(world, 0, Orders);
        await using (await world.StreamAsync())
        {
            await CheckpointReachesAsync(world, 300);
        }

        // What a crash between acknowledgement and checkpoint leaves behind.
        await world.Store.ExecuteAsync("UPDATE checkpoints SET position = 200 WHERE reader = 'kafka'");
        await using (await world.StreamAsync())
        {
            await CheckpointReachesAsync(world, 300);
        }

        var records = world.ReadAll();
        Assert.Equal(400, records.Count);
        Assert.Equal(300, records.Select(record => Header(record, "ce_id")).Distinct().Count());
        AssertFirstOccurrencesInOrder(records, Orders);
    }

    [Fact]
    public async Task An_instance_that_does_not_relay_publishes_nothing_until_it_does()
    {
        await using var world = await KafkaWorld.OpenAsync();
        await CommitOrdersAsync(world, 0, 10);
        var mine = false;
        await using var running = await world.StreamAsync(() => Volatile.Read(ref mine));
        await Eventually.TrueAsync(() => running.Stream.State.Behind == 30);
        Assert.Equal(0, world.Cluster.Requests(MockKafka.Produce));

        Volatile.Write(ref mine, true);
        await CheckpointReachesAsync(world, 30);
    }

    [Fact]
    public async Task The_checkpoint_never_goes_backwards()
    {
        await using var world = await KafkaWorld.OpenAsync();
        await CommitOrdersAsync(world, 0, Orders);

        // Two at once, as in the moment of a hand-over.
        await using (await world.StreamAsync(settings: world.Settings(batchSize: 10)))
        await using (await world.StreamAsync(settings: world.Settings(batchSize: 35)))
        {
            await CheckpointReachesAsync(world, 300);
        }

        Assert.Equal(300, await CheckpointAsync(world));
        AssertFirstOccurrencesInOrder(world.ReadAll(), Orders);
    }

    private static Task CommitOrdersAsync(KafkaWorld world, int from, int to) => world.CommitAsync([.. Enumerable.Range(from, to - from).SelectMany(number => new Incoming[]
    {
        Messages.Place($"place-{number}", $"A-{number}"),
        Messages.Ship($"ship-{number}", $"A-{number}"),
        Messages.Of($"deliver-{number}", "order.deliver", $$"""{"orderId":"A-{{number}}"}"""),
    })]);

    private static Task<long> CheckpointAsync(KafkaWorld world) => world.Store.ScalarAsync<long>("SELECT position FROM checkpoints WHERE reader = 'kafka'");

    private static Task CheckpointReachesAsync(KafkaWorld world, long position) => Eventually.TrueAsync(async () => await CheckpointAsync(world) == position);

    private static void AssertFirstOccurrencesInOrder(List<ConsumeResult<string, byte[]>> records, int orders)
    {
        var streams = records.GroupBy(record => record.Message.Key).ToList();
        Assert.Equal(orders, streams.Count);
        Assert.All(streams, stream => Assert.Equal([1L, 2L, 3L], stream.OrderBy(record => record.Offset.Value).Select(Sequence).Distinct()));
    }

    private static long Sequence(ConsumeResult<string, byte[]> record)
    {
        using var json = JsonDocument.Parse(record.Message.Value);
        return json.RootElement.GetProperty("sequence").GetInt64();
    }

    private static string Header(ConsumeResult<string, byte[]> record, string name) => Encoding.UTF8.GetString(record.Message.Headers.GetLastBytes(name));
}

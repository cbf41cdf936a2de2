using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Confluent.Kafka;
using OrderService.Inbox;
using OrderService.Tests.Infrastructure;
using OrderService.Tests.Store;

namespace OrderService.Tests.Kafka;

/// <summary>Orders from a consumer group, over the real protocol.</summary>
public sealed class KafkaIntakeTests(PostgresContainerFixture postgres)
{
    [Fact]
    public async Task A_record_is_decided_as_a_delivery_is_and_its_offset_committed_after_that()
    {
        await using var world = await KafkaWorld.OpenAsync();
        await using (var running = await world.IntakeAsync())
        {
            await world.SendAsync(
                TestMessage.Place("A-1"),
                TestMessage.Of("order.pay", "pay-1", """{"orderId":"A-1","paymentReference":"P-1"}"""),
                TestMessage.Ship("A-1"),
                TestMessage.Of("order.cancel", "cancel-1", """{"orderId":"A-1","reason":"too late"}"""),
                TestMessage.Place("A-1"));
            await Eventually.TrueAsync(() => running.Count(Fate.Accepted) == 3 && running.Count(Fate.Refused) == 1 && running.Count(Fate.Duplicate) == 1);
            await Eventually.TrueAsync(() => world.CommittedOffsets() == 5);
            Assert.Equal(3, running.Intake.State.Partitions);
        }

        // Placed, a payment received, paid, shipped.
        Assert.Equal(4, (await world.EffectsAsync())["A-1"]);
        // Nothing is left of the notes about what was begun.
        Assert.Equal(0, await world.Store.ScalarAsync<long>("SELECT count(*) FROM started"));
    }

    [Fact]
    public async Task While_intake_is_paused_the_group_is_left_and_nothing_is_taken()
    {
        await using var world = await KafkaWorld.OpenAsync();
        await using var running = await world.IntakeAsync();
        await world.SendAsync(TestMessage.Place("A-1"));
        await Eventually.TrueAsync(() => running.Count(Fate.Accepted) == 1);

        running.Intake.Pause("the disk is changed");
        await Eventually.TrueAsync(() => running.Intake.State is { IsPaused: true, Left: "the disk is changed", Partitions: 0 } && running.Intake.InHand == 0);
        await Eventually.TrueAsync(() => world.CommittedOffsets() == 1);
        await world.SendAsync(TestMessage.Place("A-2"));
        // Another member has the partitions now: this one could not have taken it.
        await using (var other = await world.IntakeAsync())
        {
            await Eventually.TrueAsync(() => other.Count(Fate.Accepted) == 1);
        }
        Assert.Equal(1, running.Count(Fate.Accepted));

        running.Intake.Resume();
        await world.SendAsync(TestMessage.Place("A-3"));
        await Eventually.TrueAsync(() => running.Count(Fate.Accepted) == 2);
        Assert.False(running.Intake.State.IsPaused);
    }

    [Fact]
    public async Task A_topic_counts_as_empty_while_a_member_looks_and_finds_nothing()
    {
        var lately = TimeSpan.FromSeconds(5);
        await using var world = await KafkaWorld.OpenAsync();
        await using var running = await world.IntakeAsync();
        // Not before records that wait have had time to come.
        await Eventually.TrueAsync(() => running.Intake.State.Partitions == 3);
        Assert.False(running.Intake.WasEmptyWithin(lately));
        await Eventually.TrueAsync(() => running.Intake.WasEmptyWithin(lately));

        world.Log.Away = true;
        await world.SendAsync(TestMessage.Place("A-1"));
        await Eventually.TrueAsync(() => !running.Intake.WasEmptyWithin(lately));
        world.Log.Away = false;
        await Eventually.TrueAsync(() => running.Count(Fate.Accepted) == 1 && running.Intake.WasEmptyWithin(lately));

        running.Intake.Pause("the disk is changed");
        await Eventually.TrueAsync(() => !running.Intake.WasEmptyWithin(lately));
    }

    [Fact]
    public async Task Members_share_the_partitions_and_every_record_has_one_effect_while_they_come_and_go()
    {
        await using var world = await KafkaWorld.OpenAsync();
        await using var first = await world.IntakeAsync();
        await world.SendAsync(Enumerable.Range(0, 100).Select(number => TestMessage.Place($"A-{number}")));
        await Eventually.TrueAsync(() => first.Count(Fate.Accepted) == 100);

        await using (var second = await world.IntakeAsync())
        {
            await world.SendAsync(Enumerable.Range(100, 100).Select(number => TestMessage.Place($"A-{number}")));
            await Eventually.TrueAsync(() => second.Intake.State.Partitions > 0 && first.Intake.State.Partitions + second.Intake.State.Partitions == 3);
            await world.SendAsync(Enumerable.Range(200, 100).Select(number => TestMessage.Place($"A-{number}")));
            await Eventually.TrueAsync(() => first.Count(Fate.Accepted) + second.Count(Fate.Accepted) == 300);
            Assert.True(second.Count(Fate.Accepted) > 0);
        }

        await Eventually.TrueAsync(() => first.Intake.State.Partitions == 3);
        await world.SendAsync(Enumerable.Range(300, 100).Select(number => TestMessage.Place($"A-{number}")));
        await Eventually.TrueAsync(async () => (await world.EffectsAsync()).Count == 400);
        Assert.All(await world.EffectsAsync(), order => Assert.Equal(1, order.Value));
        await Eventually.TrueAsync(() => world.CommittedOffsets() == 400);
    }

    [Fact]
    public async Task Two_instances_on_one_database_take_turns_with_the_partitions_and_double_nothing()
    {
        await using var world = await KafkaWorld.OpenAsync(postgres);
        using var other = world.NewCommit();
        await using var first = await world.IntakeAsync();
        var second = await world.IntakeAsync(commit: other);
        await Eventually.TrueAsync(() => second.Intake.State.Partitions > 0 && first.Intake.State.Partitions + second.Intake.State.Partitions == 3);

        // Every order twice, and poison, while one of the two leaves.
        var sending = world.SendAsync(Enumerable.Range(0, 600).SelectMany(number => new[] { TestMessage.Place($"A-{number % 300}"), TestMessage.Of("order.place", $"poison-{number % 50}", "{}") }));
        await Eventually.TrueAsync(() => second.Count(Fate.Accepted) > 0);
        await second.DisposeAsync();
        await sending;

        await Eventually.TrueAsync(() => world.CommittedOffsets() == 1200);
        var effects = await world.EffectsAsync();
        Assert.Equal(300, effects.Count);
        Assert.All(effects, order => Assert.Equal(1, order.Value));
        Assert.Equal(50, await world.Store.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE status = 'parked'"));
        Assert.Equal(0, await world.Store.ScalarAsync<long>("SELECT count(*) FROM rejections WHERE parked = 0"));
    }

    [Fact]
    public async Task What_a_member_decided_and_could_not_commit_comes_again_and_is_recognised()
    {
        await using var world = await KafkaWorld.OpenAsync();
        await world.SendAsync(Enumerable.Range(0, 100).Select(number => TestMessage.Place($"A-{number}")));

        // 25: this member is not known any more, whatever it asks.
        world.Cluster.FailNext(MockKafka.OffsetCommit, [.. Enumerable.Repeat(25, 200)]);
        var first = await world.IntakeAsync();
        // Not all: it begins anew after every commit that failed, with what came first.
        await Eventually.TrueAsync(() => first.Count(Fate.Accepted) > 0);
        await first.DisposeAsync();
        var decided = first.Count(Fate.Accepted);
        Assert.Equal(0, world.CommittedOffsets());
        ExhaustFailures(world);

        await using var second = await world.IntakeAsync();
        await Eventually.TrueAsync(() => second.Count(Fate.Duplicate) == decided && second.Count(Fate.Accepted) == 100 - decided);
        var effects = await world.EffectsAsync();
        Assert.Equal(100, effects.Count);
        Assert.All(effects, order => Assert.Equal(1, order.Value));
        await Eventually.TrueAsync(() => world.CommittedOffsets() == 100);
    }

    [Fact]
    public async Task Records_that_a_dead_member_had_in_hand_go_to_another()
    {
        await using var world = await KafkaWorld.OpenAsync();
        await world.SendAsync(Enumerable.Range(0, 60).Select(number => TestMessage.Place($"A-{number}")));
        var dead = new ConsumerBuilder<string, byte[]>(new ConsumerConfig
        {
            BootstrapServers = world.Cluster.BootstrapServers, GroupId = "order-service", EnableAutoCommit = false, AutoOffsetReset = AutoOffsetReset.Earliest,
            SessionTimeoutMs = 2000, HeartbeatIntervalMs = 300, PartitionAssignmentStrategy = PartitionAssignmentStrategy.CooperativeSticky,
        }).SetLogHandler((_, _) => { }).Build();
        dead.Subscribe("orders");
        for (var taken = 0; taken < 60;)
        {
            taken += dead.Consume(KafkaWorld.Stopping) is null ? 0 : 1;
        }
        // Without a goodbye: the group notices by the silence.
        dead.Dispose();

        await using var running = await world.IntakeAsync();
        await Eventually.TrueAsync(() => running.Count(Fate.Accepted) == 60);
        Assert.Equal(60, (await world.EffectsAsync()).Count);
    }

    [Fact]
    public async Task A_rebalance_that_overtakes_a_commit_of_offsets_stops_nobody()
    {
        await using var world = await KafkaWorld.OpenAsync();
        // 27: a rebalance is in progress.
        world.Cluster.FailNext(MockKafka.OffsetCommit, 27, 27, 27);
        await using var running = await world.IntakeAsync();
        await world.SendAsync(Enumerable.Range(0, 50).Select(number => TestMessage.Place($"A-{number}")));

        await Eventually.TrueAsync(() => running.Count(Fate.Accepted) == 50);
        await Eventually.TrueAsync(() => world.CommittedOffsets() == 50);
        Assert.Null(running.Intake.State.LastError);
    }

    [Fact]
    public async Task The_same_key_by_queue_and_by_topic_has_one_effect()
    {
        await using var world = await KafkaWorld.OpenAsync();
        await using var running = await world.IntakeAsync();
        await world.SendAsync(Enumerable.Range(0, 30).Select(number => TestMessage.Place($"A-{number}")));
        // What the queue's intake commits; keys and bodies are those of the records.
        await world.CommitAsync([.. Enumerable.Range(0, 60).Select(number => TestMessage.Place($"A-{number}")).Select(message => Messages.Of(message.Key!, "order.place", Encoding.UTF8.GetString(message.Body)))]);
        await world.SendAsync(Enumerable.Range(30, 30).Select(number => TestMessage.Place($"A-{number}")));

        await Eventually.TrueAsync(() => world.CommittedOffsets() == 60);
        var effects = await world.EffectsAsync();
        Assert.Equal(60, effects.Count);
        Assert.All(effects, order => Assert.Equal(1, order.Value));
    }

    [Fact]
    public async Task Poison_is_parked_once_with_its_bytes_and_blocks_nothing()
    {
        await using var world = await KafkaWorld.OpenAsync();
        byte[][] poison = [[0xff, 0xfe, 0x00], "{\"orderId\":"u8.ToArray(), "{\"orderId\":\"A-1\",\"customerId\":\"C\",\"currency\":\"EUR\",\"lines\":[]}"u8.ToArray(), []];
        await using (var running = await world.IntakeAsync())
        {
            await world.SendAsync(Enumerable.Range(0, 20).SelectMany(number => new[] { new TestMessage(null, $"poison-{number}", poison[number % poison.Length]), TestMessage.Place($"A-{number}") }));
            await Eventually.TrueAsync(() => running.Count(Fate.Accepted) == 20 && running.Count(Fate.Rejected) == 20);
            await Eventually.TrueAsync(() => world.CommittedOffsets() == 40);
        }

        var letters = await world.Store.BodiesAsync("SELECT body FROM dead_letters WHERE status = 'parked' ORDER BY key");
        Assert.Equal(
            Enumerable.Range(0, 20).OrderBy(number => $"poison-{number}", StringComparer.Ordinal).Select(number => Convert.ToHexString(poison[number % poison.Length])),
            letters.Select(Convert.ToHexString));
        // The rejection has handed its bytes over, so nobody parks it a second time.
        Assert.Equal(0, await world.Store.ScalarAsync<long>("SELECT count(*) FROM rejections WHERE parked = 0"));
        Assert.Equal(20, (await world.EffectsAsync()).Count);
    }

    [Fact]
    public async Task A_record_that_ended_the_process_again_and_again_is_found_and_its_neighbours_are_not_blamed()
    {
        await using var world = await KafkaWorld.OpenAsync();
        await world.SendAsync(Enumerable.Range(0, 30).Select(number => TestMessage.Place($"A-{number}")));
        // What two crashes over the first batches, and three more over one record alone, leave behind.
        var culprit = TestMessage.Place("A-17");
        for (var partition = 0; partition < 3; partition++)
        {
            await NoteAsync(world, SHA256.HashData(Encoding.UTF8.GetBytes(string.Create(CultureInfo.InvariantCulture, $"kafka order-service orders {partition} 0"))));
        }
        await NoteAsync(world, SHA256.HashData(culprit.Body));

        await using var running = await world.IntakeAsync();
        await Eventually.TrueAsync(() => world.CommittedOffsets() == 30);

        Assert.Equal(29, running.Count(Fate.Accepted));
        Assert.Equal("key-A-17 crash_suspect", Assert.Single(await world.Store.QueryAsync<string>("SELECT key || ' ' || reason FROM dead_letters")));
        Assert.DoesNotContain("A-17", (await world.EffectsAsync()).Keys);
        Assert.Equal(0, await world.Store.ScalarAsync<long>("SELECT count(*) FROM started"));
    }

    [Fact]
    public async Task While_the_store_is_away_the_group_is_left_and_nothing_is_lost()
    {
        await using var world = await KafkaWorld.OpenAsync();
        await using var running = await world.IntakeAsync(inbox: new InboxOptions { HoldAfter = TimeSpan.FromMilliseconds(200) });
        await world.SendAsync(Enumerable.Range(0, 30).Select(number => TestMessage.Place($"A-{number}")));
        await Eventually.TrueAsync(() => running.Count(Fate.Accepted) == 30);

        world.Log.Away = true;
        await world.SendAsync(Enumerable.Range(30, 30).Select(number => TestMessage.Place($"A-{number}")));
        await Eventually.TrueAsync(() => running.Intake.State is { Partitions: 0, Left: not null });
        Assert.Equal(30, (await world.EffectsAsync()).Count);

        world.Log.Away = false;
        await Eventually.TrueAsync(() => world.CommittedOffsets() == 60);
        Assert.Equal(60, (await world.EffectsAsync()).Count);
        Assert.Equal(0, running.Count(Fate.Rejected));
        Assert.Null(running.Intake.State.Left);
    }

    [Fact]
    public async Task When_the_cluster_is_back_records_are_taken_again()
    {
        await using var world = await KafkaWorld.OpenAsync();
        await using var running = await world.IntakeAsync();
        await world.SendAsync(Enumerable.Range(0, 20).Select(number => TestMessage.Place($"A-{number}")));
        await Eventually.TrueAsync(() => running.Count(Fate.Accepted) == 20);

        world.Cluster.TakeDown();
        await Eventually.TrueAsync(() => running.Intake.State.LastError is not null);
        world.Cluster.BringUp();
        await Eventually.TrueAsync(() => running.Intake.State.LastError is null);

        await world.SendAsync(Enumerable.Range(20, 20).Select(number => TestMessage.Place($"A-{number}")));
        await Eventually.TrueAsync(async () => (await world.EffectsAsync()).Count == 40);
    }

    [Fact]
    public async Task What_is_in_hand_is_bounded_in_bytes_and_a_large_record_is_the_last_of_its_batch()
    {
        const int Bound = 128 << 10;
        const int Few = 3;
        // This cluster keeps 5 MiB of a partition.
        const int Records = 30;
        await using var world = await KafkaWorld.OpenAsync();
        // Before anybody reads, so that nothing but the bound makes small batches; one partition, so that the order is known.
        await world.SendAsync(Enumerable.Range(0, Records).Select(number => number % 10 == 9 ? Sized("large", number, 1 << 20) : Sized("small", number, Bound / Few)));

        await using var running = await world.IntakeAsync(inbox: new InboxOptions { MaxBatchBytes = Bound });
        await Eventually.TrueAsync(() => running.Count(Fate.Rejected) == Records);

        Assert.InRange(world.Log.Batches.Max(), 1, Few);
        Assert.Equal(Records, world.Log.Batches.Sum());
        Assert.True(world.Log.Batches.Count < Records, "Each record had a batch of its own, which shows nothing of the bound.");
        await Eventually.TrueAsync(() => world.CommittedOffsets() == Records);

        static TestMessage Sized(string kind, int number, int bytes) =>
            TestMessage.Of("order.place", $"{kind}-{number}", $$"""{"orderId":"A-1","note":"{{new string('x', bytes)}}"}""");
    }

    [Fact]
    public async Task A_graceful_stop_leaves_nothing_uncommitted()
    {
        await using var world = await KafkaWorld.OpenAsync();
        await world.SendAsync(Enumerable.Range(0, 500).Select(number => TestMessage.Place($"A-{number}")));
        long decided;
        await using (var running = await world.IntakeAsync())
        {
            await Eventually.TrueAsync(() => running.Count(Fate.Accepted) > 0);
            await running.Intake.StopAsync(KafkaWorld.Stopping);
            decided = running.Count(Fate.Accepted);
        }

        Assert.Equal(decided, world.CommittedOffsets());
        Assert.Equal(decided, (await world.EffectsAsync()).Count);
    }

    private static Task NoteAsync(KafkaWorld world, byte[] hash) => world.Store.ExecuteAsync("INSERT INTO started (fingerprint, life, company, ends, ends_alone, last_at) VALUES (@hash, 'gone', 0, 2, 3, @now)", new { hash, now = TimeProvider.System.GetUtcNow().ToUnixTimeMilliseconds() });

    /// <summary>Uses up the answers that the cluster still has in store for commits.</summary>
    private static void ExhaustFailures(KafkaWorld world)
    {
        using var somebody = new ConsumerBuilder<string, byte[]>(new ConsumerConfig { BootstrapServers = world.Cluster.BootstrapServers, GroupId = "somebody-else" }).SetLogHandler((_, _) => { }).Build();
        while (true)
        {
            try
            {
                somebody.Commit([new TopicPartitionOffset("orders", 0, 0)]);
                return;
            }
            catch (KafkaException)
            {
                KafkaWorld.Stopping.ThrowIfCancellationRequested();
            }
        }
    }
}

using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using OrderService.Tests.CommandLine;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Journeys;

/// <summary>Orders spread over several queues, and the front door beside them.</summary>
public sealed class PartitionJourneys(RabbitMqContainerFixture broker)
{
    private const int Partitions = 3;

    private static readonly string[] Queues = [.. Enumerable.Range(1, Partitions).Select(number => $"orders.{number}")];

    private static Dictionary<string, string> Settings => new(StringComparer.Ordinal) { ["RabbitMq__Partitions"] = $"{Partitions}" };

    [Fact]
    public async Task Orders_live_their_lives_through_the_partitions()
    {
        const int Orders = 30;
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address, Settings);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        await service.KillAsync();
        await shop.PublishByOrderAsync(Enumerable.Range(0, Orders).SelectMany(number => Life($"A-{number}")));
        // They are where they should be, so that what follows shows something.
        Assert.Equal(0u, await shop.DepthAsync("orders"));
        var depths = await Task.WhenAll(Queues.Select(shop.DepthAsync));
        Assert.All(depths, depth => Assert.True(depth > 0 && depth % 4 == 0, $"{depth} messages are in a partition"));
        Assert.Equal(4 * Orders, depths.Sum(depth => depth));

        await service.StartAgainAsync();

        await Eventually.HoldsAsync(async () =>
        {
            // A payment has two events.
            Assert.Equal(5 * Orders, await service.ScalarAsync<long>("SELECT count(*) FROM events"));
            Assert.Equal(5 * Orders, shop.Heard.Count);
        });
        // The order of messages is kept within a queue, and all of an order's are in one: nothing had to wait for its order.
        Assert.Equal(0, await service.ScalarAsync<long>("SELECT count(*) FROM deferred"));
        Assert.All(shop.Heard.GroupBy(heard => heard.Id[..heard.Id.LastIndexOf('.')]), stream =>
            Assert.Equal(["ORDER_PLACED", "ORDER_PAYMENT_RECEIVED", "ORDER_PAID", "ORDER_SHIPPED", "ORDER_DELIVERED"], stream.Select(heard => heard.Type)));
        await AssertEmptyAsync(shop);
        // What an operator looks at knows all of them.
        await Eventually.HoldsAsync(async () =>
        {
            var queues = (await service.Http.GetFromJsonAsync<JsonElement>("/api/queues", TestContext.Current.CancellationToken)).GetProperty("items").EnumerateArray().ToList();
            Assert.All(["orders", .. Queues], name => Assert.Equal(1, queues.Single(queue => queue.GetProperty("name").GetString() == name).GetProperty("consumers").GetInt32()));
            Assert.Contains("queue=\"orders.1\"", await service.Http.GetStringAsync(new Uri("/metrics", UriKind.Relative), TestContext.Current.CancellationToken), StringComparison.Ordinal);
        });
        var checks = (await service.Http.GetFromJsonAsync<JsonElement>("/health/ready", TestContext.Current.CancellationToken)).GetProperty("checks");
        Assert.All(["orders", .. Queues], name => Assert.StartsWith("consuming since", checks.GetProperty(name).GetProperty("detail").GetString(), StringComparison.Ordinal));
    }

    [Fact]
    public async Task Copies_of_a_message_through_the_front_door_and_through_a_partition_have_one_effect()
    {
        const int Orders = 100;
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address, Settings);
        await using var shop = await TestProducer.ConnectAsync(address);
        await using var partner = await TestProducer.ConnectAsync(address);
        var messages = Enumerable.Range(0, Orders).Select(number => ($"A-{number}", TestMessage.Place($"A-{number}"))).ToList();

        // Once while the service takes them in, and once when it finds all of them at its start, in one batch.
        await Task.WhenAll(shop.PublishAsync(messages.Select(pair => pair.Item2)), partner.PublishByOrderAsync(messages));
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM events") == Orders);
        await service.KillAsync();
        var more = Enumerable.Range(0, Orders).Select(number => ($"B-{number}", TestMessage.Place($"B-{number}"))).ToList();
        await Task.WhenAll(shop.PublishAsync(more.Select(pair => pair.Item2)), partner.PublishByOrderAsync(more));
        await service.StartAgainAsync();

        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM events") == 2 * Orders);
        await AssertEmptyAsync(shop);
        Assert.Equal(2 * Orders, await service.ScalarAsync<long>("SELECT count(*) FROM events"));
        Assert.Equal(2 * Orders, await service.ScalarAsync<long>("SELECT count(*) FROM inbox"));
        Assert.Equal(0, await service.ScalarAsync<long>("SELECT count(*) FROM rejections"));
    }

    [Fact]
    public async Task Poison_in_a_partition_becomes_a_dead_letter_with_its_bytes_and_its_replay_goes_to_its_order_s_partition()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address, Settings);
        await using var shop = await TestProducer.ConnectAsync(address);
        var bytes = Encoding.UTF8.GetBytes("""{"orderId":"A-1","customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":1.001}]}""");
        await shop.PublishByOrderAsync(Poison.Messages.Select((poison, number) => ($"P-{number}", poison.Message)));
        await shop.PublishByOrderAsync(("A-1", new TestMessage(null, "key-1", bytes)));

        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE status = 'parked'") == Poison.Messages.Count + 1);
        Assert.Equal(Poison.Messages.Select(poison => poison.Reason).Append("amount_precision").Order(), (await service.ColumnAsync<string>("SELECT reason FROM dead_letters")).Order());
        Assert.Equal(bytes, Assert.Single(await service.BodiesAsync("SELECT body FROM dead_letters WHERE key = 'key-1'")));
        Assert.Contains("\"orders.", await service.ScalarAsync<string>("SELECT properties FROM dead_letters WHERE key = 'key-1'"), StringComparison.Ordinal);

        // Nobody consumes now, so that it can be seen where commands go.
        await service.StopAsync();
        service.Set("Roles", "relay,api,dead-letters");
        await service.StartAgainAsync();
        var letter = await service.ScalarAsync<long>("SELECT id FROM dead_letters WHERE key = 'key-1'");
        using (var replay = await service.Http.PostAsJsonAsync($"/api/dead-letters/{letter}/replay", new { body = Encoding.UTF8.GetString(bytes).Replace("1.001", "1.00", StringComparison.Ordinal) }, TestContext.Current.CancellationToken))
        {
            Assert.Equal(HttpStatusCode.Accepted, replay.StatusCode);
        }
        using (var pay = await service.Http.PostAsJsonAsync("/api/orders/A-1/pay", new { paymentReference = "P-1" }, TestContext.Current.CancellationToken))
        {
            Assert.Equal(HttpStatusCode.Accepted, pay.StatusCode);
        }
        var publish = await Binary.RunAsync(["publish", "-"], new(Settings) { ["RabbitMq__Uri"] = address }, """{"type":"order.ship","body":{"orderId":"A-1"}}""");
        Assert.True(publish.ExitCode == 0, publish.Error);
        await Eventually.HoldsAsync(async () =>
        {
            // All three of one order, so all in one queue.
            Assert.Equal([0u, 0u, 3u], (await Task.WhenAll(Queues.Select(shop.DepthAsync))).Order());
            Assert.Equal(0u, await shop.DepthAsync("orders"));
        });

        await service.StopAsync();
        service.Set("Roles", "orders,relay,api,dead-letters");
        await service.StartAgainAsync();
        await Eventually.HoldsAsync(async () => Assert.Equal(["ORDER_PAID", "ORDER_PAYMENT_RECEIVED", "ORDER_PLACED", "ORDER_SHIPPED"], (await service.StreamAsync("A-1")).Select(recorded => recorded.Type).Order()));
        Assert.Equal("resolved", await service.ScalarAsync<string>("SELECT status FROM dead_letters WHERE key = 'key-1'"));
        Assert.Equal(0, await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE reason = 'foreign_dead_letter'"));
    }

    /// <summary>A queue of orders waits at each start, and each start but the last is killed at the next point.</summary>
    [Fact]
    public async Task A_kill_loses_nothing_and_doubles_nothing()
    {
        const int Orders = 60;
        string[] points = ["store-written", "inbox-after-commit", "inbox-after-ack"];
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address, Settings);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        await service.KillAsync();

        foreach (var point in points)
        {
            // Half of the shipments take another way than their orders.
            await shop.PublishByOrderAsync(Enumerable.Range(0, Orders).Select(number => ($"{point}-{number}", TestMessage.Place($"{point}-{number}"))));
            await shop.PublishByOrderAsync(Enumerable.Range(0, Orders / 2).Select(number => ($"{point}-{number}", TestMessage.Ship($"{point}-{number}"))));
            await shop.PublishAsync(Enumerable.Range(Orders / 2, Orders / 2).Select(number => TestMessage.Ship($"{point}-{number}")));
            await service.StartAgainAsync($"{point}=kill", waitUntilReady: false);
            await service.WaitForExitAsync();
        }
        await service.StartAgainAsync("");

        await Eventually.HoldsAsync(async () =>
        {
            Assert.Equal(2 * Orders * points.Length, await service.ScalarAsync<long>("SELECT count(*) FROM events"));
            Assert.Equal(0, await service.ScalarAsync<long>("SELECT count(*) FROM outbox"));
            Assert.Equal(2 * Orders * points.Length, shop.Heard.Select(heard => heard.Id).Distinct().Count());
        });
        Assert.Equal(0, await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters"));
        await AssertEmptyAsync(shop);
    }

    [Fact]
    public async Task Lowering_the_number_loses_nothing_and_says_what_is_left_until_it_is_taken()
    {
        const int Orders = 60;
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address, Settings);
        await using var shop = await TestProducer.ConnectAsync(address);
        await service.KillAsync();
        await shop.PublishByOrderAsync(Enumerable.Range(0, Orders).Select(number => ($"A-{number}", TestMessage.Place($"A-{number}"))));
        var left = await shop.DepthAsync("orders.3");
        Assert.NotEqual(0u, left);

        service.Set("RabbitMq__Partitions", "2");
        service.Set("RabbitMq__QueuePollInterval", "00:00:00.200");
        await service.StartAgainAsync();
        var sentence = $"The queue 'orders.3' holds {left} messages that nobody consumes, because RabbitMq:Partitions was lowered; set RabbitMq__PartitionsBefore=3 and";
        await Eventually.HoldsAsync(async () =>
        {
            var partitions = (await service.Http.GetFromJsonAsync<JsonElement>("/health/ready", TestContext.Current.CancellationToken)).GetProperty("checks").GetProperty("partitions");
            Assert.True(partitions.GetProperty("ready").GetBoolean());
            Assert.True(partitions.GetProperty("degraded").GetBoolean());
            Assert.Contains(sentence, partitions.GetProperty("detail").GetString(), StringComparison.Ordinal);
            Assert.Equal(Orders - left, await service.ScalarAsync<long>("SELECT count(*) FROM events"));
        });
        Assert.Contains(sentence, service.Output, StringComparison.Ordinal);
        var doctor = await Binary.RunAsync(["doctor"], new() { ["RabbitMq__Uri"] = address, ["RabbitMq__Partitions"] = "2" });
        Assert.Equal(1, doctor.ExitCode);
        Assert.Contains(sentence, doctor.Output, StringComparison.Ordinal);
        // What comes now, comes to those that are consumed.
        await shop.PublishByOrderAsync(Enumerable.Range(0, Orders).Select(number => ($"B-{number}", TestMessage.Place($"B-{number}"))));
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM events") == (2 * Orders) - left);

        await service.StopAsync();
        service.Set("RabbitMq__PartitionsBefore", "3");
        await service.StartAgainAsync();

        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM events") == 2 * Orders);
        await AssertEmptyAsync(shop);
        var checks = (await service.Http.GetFromJsonAsync<JsonElement>("/health/ready", TestContext.Current.CancellationToken)).GetProperty("checks");
        Assert.False(checks.TryGetProperty("partitions", out _));
    }

    private static (string OrderId, TestMessage Message)[] Life(string orderId) =>
    [
        (orderId, TestMessage.Place(orderId)),
        (orderId, TestMessage.Of("order.pay", $"pay-{orderId}", $$"""{"orderId":"{{orderId}}","paymentReference":"P-1"}""")),
        (orderId, TestMessage.Ship(orderId)),
        (orderId, TestMessage.Of("order.deliver", $"deliver-{orderId}", $$"""{"orderId":"{{orderId}}"}""")),
    ];

    /// <summary>Every message is settled, those in hand too: none comes back when the service is gone.</summary>
    private static Task AssertEmptyAsync(TestProducer shop) => Eventually.HoldsAsync(async () =>
        Assert.All(await Task.WhenAll(Queues.Append("orders").Append("orders.dlq").Select(shop.DepthAsync)), depth => Assert.Equal(0u, depth)));
}

using System.Text;
using Microsoft.Extensions.Logging.Abstractions;
using OrderService.Inbox;
using OrderService.Outbox;
using OrderService.RabbitMq;
using OrderService.Tests.Infrastructure;
using RabbitMQ.Client;

namespace OrderService.Tests.RabbitMq;

/// <summary>Commands spread over several queues by a consistent-hash exchange.</summary>
public sealed class PartitionTests(RabbitMqContainerFixture fixture)
{
    [Fact]
    public async Task Partitions_are_declared_with_the_arguments_of_orders_and_the_check_finds_nothing()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => options.Partitions = 3);

        await broker.DeclareAsync();
        await broker.DeclareAsync();

        Assert.Empty(await broker.Topology.CheckAsync(await broker.ConnectionAsync(), TestBroker.Stopping));
        string[] described = [.. broker.Topology.Describe()];
        var orders = described.Single(line => line.StartsWith("queue orders,", StringComparison.Ordinal));
        Assert.Contains("x-dead-letter-strategy=at-least-once", orders, StringComparison.Ordinal);
        foreach (var number in Enumerable.Range(1, 3))
        {
            Assert.Contains(orders.Replace("queue orders,", $"queue orders.{number},", StringComparison.Ordinal), described);
            Assert.Contains($"binding orders.partitioned -> orders.{number} by 1", described);
            Assert.Equal(0u, await broker.ReadyAsync($"orders.{number}"));
        }

        Assert.Contains("exchange orders.partitioned, x-consistent-hash, durable, alternate-exchange=orders.in", described);
    }

    [Fact]
    public async Task A_partition_with_other_arguments_is_one_sentence_with_both_values_and_the_remedy()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => (options.Partitions, options.DeliveryLimit) = (2, 7));
        await broker.DeclareAsync();
        await using var wanted = await BesideAsync(broker, options => (options.Partitions, options.DeliveryLimit) = (3, 7));
        await using (var channel = await broker.ChannelAsync())
        {
            await channel.QueueDeclareAsync("orders.3", true, false, false, new Dictionary<string, object?> { ["x-queue-type"] = "quorum", ["x-delivery-limit"] = 5 }, cancellationToken: TestBroker.Stopping);
        }

        var mismatch = await Assert.ThrowsAsync<TopologyMismatchException>(wanted.DeclareAsync);
        var differences = await wanted.Topology.CheckAsync(await wanted.ConnectionAsync(), TestBroker.Stopping);

        Assert.Contains("The queue 'orders.3' exists with", mismatch.Message, StringComparison.Ordinal);
        var limit = Assert.Single(differences, difference => difference.Argument == "x-delivery-limit");
        Assert.StartsWith("The queue 'orders.3' exists with x-delivery-limit 5, but 7 is wanted; once it is empty, run: ", limit.Sentence, StringComparison.Ordinal);
        Assert.All(differences, difference => Assert.Equal("orders.3", difference.Name));
    }

    [Fact]
    public async Task An_exchange_of_another_type_is_named()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => options.Partitions = 2);
        await using (var channel = await broker.ChannelAsync())
        {
            await channel.ExchangeDeclareAsync("orders.partitioned", ExchangeType.Direct, durable: true, arguments: new Dictionary<string, object?> { ["alternate-exchange"] = "orders.in" }, cancellationToken: TestBroker.Stopping);
        }

        var mismatch = await Assert.ThrowsAsync<TopologyMismatchException>(broker.DeclareAsync);

        Assert.StartsWith("The exchange 'orders.partitioned' exists with type direct, but x-consistent-hash is wanted; run: ", mismatch.Message, StringComparison.Ordinal);
        Assert.Contains(await broker.Topology.CheckAsync(await broker.ConnectionAsync(), TestBroker.Stopping), difference => difference.Sentence == mismatch.Message);
    }

    [Fact]
    public async Task All_messages_of_an_order_end_in_one_queue_and_the_orders_are_spread()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => options.Partitions = 3);
        await broker.DeclareAsync();
        string[] orders = [.. Enumerable.Range(1, 90).Select(number => $"A-{number}")];

        await PublishByOrderAsync(broker, [.. orders, .. orders, .. orders]);

        var places = new Dictionary<string, HashSet<string>>();
        await using var channel = await broker.ChannelAsync();
        foreach (var number in Enumerable.Range(1, 3))
        {
            var queue = $"orders.{number}";
            Assert.InRange(await broker.ReadyAsync(queue), 1u, 269u);
            while (await channel.BasicGetAsync(queue, autoAck: true, TestBroker.Stopping) is { } message)
            {
                var order = Encoding.UTF8.GetString(message.Body.Span);
                places[order] = [.. places.GetValueOrDefault(order, []), queue];
            }
        }

        Assert.Equal(90, places.Count);
        Assert.All(places.Values, queues => Assert.Single(queues));
        Assert.Equal(0u, await broker.ReadyAsync(TopologyNames.Orders));
    }

    [Fact]
    public async Task What_the_exchange_can_not_place_goes_through_the_front_door()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => options.Partitions = 2);
        await broker.DeclareAsync();
        await using (var channel = await broker.ChannelAsync())
        {
            await channel.QueueDeleteAsync("orders.1", cancellationToken: TestBroker.Stopping);
            await channel.QueueDeleteAsync("orders.2", cancellationToken: TestBroker.Stopping);
        }

        await PublishByOrderAsync(broker, "A-1", "A-2", "A-3");

        Assert.Equal(3u, await broker.ReadyAsync(TopologyNames.Orders));
    }

    [Fact]
    public async Task The_publisher_takes_the_exchange_for_a_command_whose_order_it_knows_and_for_nothing_else()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => options.Partitions = 2);
        await using var publisher = broker.Publisher(broker.Topology.DeclareAsync);
        OutgoingMessage Message(string id, string exchange, string routingKey, string? orderId) => new() { Exchange = exchange, RoutingKey = routingKey, MessageId = id, OrderId = orderId, Body = "{}"u8.ToArray() };

        foreach (var number in Enumerable.Range(1, 20))
        {
            Assert.IsType<PublishOutcome.Confirmed>(await publisher.PublishAsync(Message($"known-{number}", "", TopologyNames.Orders, $"A-{number}"), TestBroker.Stopping));
        }

        await publisher.PublishAsync(Message("unknown", "", TopologyNames.Orders, null), TestBroker.Stopping);
        await publisher.PublishAsync(Message("event", TopologyNames.OrderEvents, "order.placed", "A-1"), TestBroker.Stopping);

        uint[] partitions = [await broker.ReadyAsync("orders.1"), await broker.ReadyAsync("orders.2")];
        Assert.Equal(20u, partitions[0] + partitions[1]);
        Assert.All(partitions, ready => Assert.NotEqual(0u, ready));
        Assert.Equal(1u, await broker.ReadyAsync(TopologyNames.Orders));
        Assert.Equal(1u, await broker.ReadyAsync(TopologyNames.UnroutedEvents));
    }

    [Fact]
    public async Task Without_partitions_the_publisher_takes_the_queue()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await using var publisher = broker.Publisher(broker.Topology.DeclareAsync);

        await publisher.PublishAsync(new OutgoingMessage { Exchange = "", RoutingKey = TopologyNames.Orders, MessageId = "key-1", OrderId = "A-1", Body = "{}"u8.ToArray() }, TestBroker.Stopping);

        Assert.Equal(1u, await broker.ReadyAsync(TopologyNames.Orders));
    }

    [Fact]
    public async Task Several_queues_are_read_in_turn_and_each_delivery_is_settled_where_it_came_from()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => options.Partitions = 2);
        await broker.DeclareAsync();
        await broker.PublishAsync("orders", 60);
        await broker.PublishAsync("orders.1", 3);
        QueueSubscription[] each = [broker.Subscribe("orders"), broker.Subscribe("orders.1"), broker.Subscribe("orders.2")];
        var subscriptions = new OrderSubscriptions(each);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(TestBroker.Stopping);
        var running = subscriptions.RunAsync(stop.Token);
        await Eventually.TrueAsync(() => each[0].State.Delivered == 60 && each[1].State.Delivered == 3);

        // The long queue holds up no short one.
        Assert.True(await subscriptions.WaitToReadAsync(TestBroker.Stopping));
        var batch = new List<Delivery>();
        while (subscriptions.TryRead(out var delivery))
        {
            batch.Add(delivery);
        }

        Assert.Equal(63, batch.Count);
        Assert.Equal(3, batch.Take(6).Count(delivery => delivery.RoutingKey == "orders.1"));

        // One of each is rejected, the rest acknowledged; both went over the channels they came from, whose tags begin at 1 alike.
        await subscriptions.SettleAsync([.. batch.Select(delivery => new SettledDelivery(delivery, delivery.Tag == 2 ? new Settlement.Reject("malformed_json") : Settlement.Acknowledge))]);

        await Eventually.TrueAsync(async () => await broker.ReadyAsync(TopologyNames.DeadLetters) == 2);
        Assert.Equal([59L, 2L, 0L], each.Select(subscription => subscription.State.Acknowledged));
        Assert.Equal([1L, 1L, 0L], each.Select(subscription => subscription.State.Rejected));

        // A connection that is lost takes nothing with it: the others go on, and what it had comes again.
        await broker.PublishAsync("orders.1", 1);
        await broker.PublishAsync("orders.2", 1);
        await Eventually.TrueAsync(() => each[1].State.Delivered == 4 && each[2].State.Delivered == 1);
        each[1].Restart("the test says so");
        await Eventually.TrueAsync(() => each[1].State is { Generation: 2, Delivered: 5 });
        var seen = new List<string>();
        while (seen.Count < 2 && await subscriptions.WaitToReadAsync(TestBroker.Stopping))
        {
            while (subscriptions.TryRead(out var delivery))
            {
                if (delivery.Generation.IsAlive)
                {
                    seen.Add(delivery.RoutingKey);
                    await subscriptions.SettleAsync([new SettledDelivery(delivery, Settlement.Acknowledge)]);
                }
            }
        }

        Assert.Equal(["orders.1", "orders.2"], seen.Order());

        // Ends only when all have ended.
        await stop.CancelAsync();
        Assert.False(await subscriptions.WaitToReadAsync(TestBroker.Stopping));
        await running;
        await subscriptions.DisposeAsync();
        Assert.Equal((0u, 0u, 0u), (await broker.ReadyAsync("orders"), await broker.ReadyAsync("orders.1"), await broker.ReadyAsync("orders.2")));
    }

    [Fact]
    public async Task Holding_holds_all_queues()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => options.Partitions = 2);
        await using var subscriptions = new OrderSubscriptions([broker.Subscribe("orders"), broker.Subscribe("orders.1"), broker.Subscribe("orders.2")]);
        _ = subscriptions.RunAsync(TestBroker.Stopping);
        await Eventually.TrueAsync(() => subscriptions.States.All(state => state.Phase == SubscriptionPhase.Consuming));

        subscriptions.Hold("the store is out of reach");
        await Eventually.TrueAsync(() => subscriptions.States.All(state => state is { Phase: SubscriptionPhase.Held, HoldReason: "the store is out of reach" }));

        subscriptions.Release();
        await Eventually.TrueAsync(() => subscriptions.States.All(state => state.Phase == SubscriptionPhase.Consuming));
    }

    [Fact]
    public async Task After_the_number_was_lowered_nothing_new_goes_to_the_queues_above_and_what_is_in_them_is_reported_until_somebody_takes_it()
    {
        await using var before = await TestBroker.StartAsync(fixture, options => options.Partitions = 4);
        await before.DeclareAsync();
        string[] orders = [.. Enumerable.Range(1, 80).Select(number => $"A-{number}")];
        await PublishByOrderAsync(before, orders);
        var left = await before.ReadyAsync("orders.3") + await before.ReadyAsync("orders.4");
        Assert.NotEqual(0u, left);
        await using var lowered = await BesideAsync(before, options => (options.Partitions, options.QueuePollInterval) = (2, TimeSpan.FromSeconds(0.2)));
        await lowered.DeclareAsync();

        // Whoever still runs with the old number consumes them, so all is well.
        await using (QueueSubscription third = before.Subscribe("orders.3"), fourth = before.Subscribe("orders.4"))
        {
            _ = third.RunAsync(TestBroker.Stopping);
            _ = fourth.RunAsync(TestBroker.Stopping);
            await Eventually.TrueAsync(() => third.State.Delivered + fourth.State.Delivered == left);
            Assert.Empty(await lowered.Topology.CheckAsync(await lowered.ConnectionAsync(), TestBroker.Stopping));
        }

        using var monitor = new QueueMonitor(lowered.Connector, lowered.Topology, Microsoft.Extensions.Options.Options.Create(lowered.Options), _ => null, TimeProvider.System, NullLogger<QueueMonitor>.Instance);
        await monitor.StartAsync(TestBroker.Stopping);
        await Eventually.TrueAsync(() => monitor.Unconsumed.Count == 2);
        var sentence = $"The queue 'orders.3' holds {await before.ReadyAsync("orders.3")} messages that nobody consumes, because RabbitMq:Partitions was lowered; "
            + "set RabbitMq__PartitionsBefore=4 and restart an instance with the role orders, which consumes them then";
        Assert.Contains(sentence, monitor.Unconsumed);
        Assert.Contains(await lowered.Topology.CheckAsync(await lowered.ConnectionAsync(), TestBroker.Stopping), difference => difference.Sentence == sentence);
        Assert.Contains(monitor.Depths, depth => depth is { Queue: "orders.3", Ready: > 0 });

        await PublishByOrderAsync(before, orders);
        Assert.Equal(left, await before.ReadyAsync("orders.3") + await before.ReadyAsync("orders.4"));
        Assert.Equal(160u - left, await before.ReadyAsync("orders.1") + await before.ReadyAsync("orders.2"));
        await Eventually.TrueAsync(() => monitor.Orders?.Ready == 160 - left);

        await using var draining = await BesideAsync(before, options => (options.Partitions, options.PartitionsBefore) = (2, 4));
        await draining.DeclareAsync();
        Assert.Equal(["orders", "orders.1", "orders.2", "orders.3", "orders.4"], draining.Topology.OrderQueues);
        Assert.Empty(await draining.Topology.CheckAsync(await draining.ConnectionAsync(), TestBroker.Stopping));
        await using (var channel = await before.ChannelAsync())
        {
            await channel.QueuePurgeAsync("orders.3", TestBroker.Stopping);
            await channel.QueuePurgeAsync("orders.4", TestBroker.Stopping);
        }

        await Eventually.TrueAsync(() => monitor.Unconsumed.Count == 0);
        await monitor.StopAsync(TestBroker.Stopping);
    }

    [Fact]
    public async Task Switched_off_with_what_is_left_to_be_consumed_the_exchange_leads_to_the_front_door()
    {
        await using var before = await TestBroker.StartAsync(fixture, options => options.Partitions = 2);
        await before.DeclareAsync();
        await using var off = await BesideAsync(before, options => (options.Partitions, options.PartitionsBefore) = (0, 2));

        await off.DeclareAsync();
        await PublishByOrderAsync(before, "A-1", "A-2", "A-3", "A-4");

        Assert.Equal(4u, await before.ReadyAsync(TopologyNames.Orders));
        Assert.Contains("no binding orders.partitioned -> orders.1 by 1", off.Topology.Describe());
    }

    private Task<TestBroker> BesideAsync(TestBroker broker, Action<RabbitMqOptions> change) => TestBroker.StartAsync(fixture, options =>
    {
        options.Uri = broker.Options.Uri;
        change(options);
    });

    /// <summary>The body is the order's id.</summary>
    private static async Task PublishByOrderAsync(TestBroker broker, params string[] orders)
    {
        await using var channel = await (await broker.ConnectionAsync()).CreateChannelAsync(new CreateChannelOptions(true, true), TestBroker.Stopping);
        foreach (var order in orders)
        {
            await channel.BasicPublishAsync("orders.partitioned", order, mandatory: true, new BasicProperties { Persistent = true }, Encoding.UTF8.GetBytes(order), TestBroker.Stopping);
        }
    }
}

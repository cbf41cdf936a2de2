using System.Text;
using OrderService.Inbox;
using OrderService.RabbitMq;
using OrderService.Tests.Infrastructure;
using RabbitMQ.Client;

namespace OrderService.Tests.RabbitMq;

public sealed class QueueSubscriptionTests(RabbitMqContainerFixture fixture)
{
    [Fact]
    public async Task What_is_published_is_delivered_in_order_and_gone_once_acknowledged()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await broker.PublishAsync(TopologyNames.Orders, 250);
        await using var subscription = broker.Subscribe(TopologyNames.Orders);
        var running = subscription.RunAsync(TestBroker.Stopping);

        for (var number = 1; number <= 250; number++)
        {
            var delivery = await subscription.Deliveries.ReadAsync(TestBroker.Stopping);
            Assert.Equal($"{number}", Encoding.UTF8.GetString(delivery.Body.Span));
            Assert.False(delivery.Redelivered);
            Assert.Equal(TopologyNames.Orders, delivery.RoutingKey);
            await subscription.SettleAsync(delivery, Settlement.Acknowledge);
        }

        await subscription.StopConsumingAsync(TestBroker.Stopping);
        await running;
        await subscription.DisposeAsync();
        Assert.Equal(0u, await broker.ReadyAsync(TopologyNames.Orders));
        Assert.Equal(250, subscription.State.Acknowledged);
        Assert.Equal(SubscriptionPhase.Stopped, subscription.State.Phase);
    }

    [Fact]
    public async Task A_rejected_delivery_arrives_in_the_dead_letter_queue_untouched()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await broker.PublishAsync(TopologyNames.Orders, 2);
        await using var orders = broker.Subscribe(TopologyNames.Orders);
        await using var deadLetters = broker.Subscribe(TopologyNames.DeadLetters);
        _ = orders.RunAsync(TestBroker.Stopping);
        _ = deadLetters.RunAsync(TestBroker.Stopping);
        var both = await ReadAsync(orders, 2);

        await orders.SettleAsync([new(both[1], new Settlement.Reject("malformed_json")), new(both[0], Settlement.Acknowledge)]);

        var letter = await deadLetters.Deliveries.ReadAsync(TestBroker.Stopping);
        Assert.Equal("2", Encoding.UTF8.GetString(letter.Body.Span));
        var death = Assert.IsAssignableFrom<IReadOnlyDictionary<string, object?>>(Assert.IsAssignableFrom<IReadOnlyList<object?>>(letter.Properties.Headers!["x-death"])[0]);
        Assert.Equal("rejected", death["reason"]);
        Assert.Equal(TopologyNames.Orders, death["queue"]);
        Assert.Equal(0, orders.State.InHand);
    }

    [Fact]
    public async Task What_was_not_settled_goes_back_when_the_subscription_closes()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await broker.PublishAsync(TopologyNames.Orders, 10);
        var first = broker.Subscribe(TopologyNames.Orders);
        _ = first.RunAsync(TestBroker.Stopping);
        var deliveries = await ReadAsync(first, 10);
        await first.StopConsumingAsync(TestBroker.Stopping);
        Assert.False(await first.Deliveries.WaitToReadAsync(TestBroker.Stopping));

        // In hand when intake stopped, and settled all the same.
        await first.SettleAsync([new(deliveries[0], Settlement.Acknowledge), new(deliveries[2], Settlement.Acknowledge)]);
        await first.DisposeAsync();

        await using var second = broker.Subscribe(TopologyNames.Orders);
        _ = second.RunAsync(TestBroker.Stopping);
        var again = await ReadAsync(second, 8);
        Assert.All(again, delivery => Assert.True(delivery.Redelivered));
        Assert.All(again, delivery => Assert.Equal(1, delivery.DeliveryCount));
        Assert.Equal(["2", "4", "5", "6", "7", "8", "9", "10"], again.Select(delivery => Encoding.UTF8.GetString(delivery.Body.Span)).OrderBy(int.Parse));
    }

    [Fact]
    public async Task A_held_subscription_takes_nothing_more_but_settles_what_is_in_hand()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await broker.PublishAsync(TopologyNames.Orders, 3);
        await using var subscription = broker.Subscribe(TopologyNames.Orders);
        _ = subscription.RunAsync(TestBroker.Stopping);
        var inHand = await ReadAsync(subscription, 3);

        subscription.Hold("the store is away");
        await Eventually.TrueAsync(() => subscription.State.Phase == SubscriptionPhase.Held);
        await broker.PublishAsync(TopologyNames.Orders, 2, first: 4);
        await subscription.SettleAsync([.. inHand.Select(delivery => new SettledDelivery(delivery, Settlement.Acknowledge))]);
        await Eventually.TrueAsync(() => subscription.State.InHand == 0);
        Assert.Equal(2u, await broker.ReadyAsync(TopologyNames.Orders));
        Assert.Equal("the store is away", subscription.State.HoldReason);

        subscription.Release();
        var later = await ReadAsync(subscription, 2);
        Assert.All(later, delivery => Assert.False(delivery.Redelivered));
        Assert.Same(inHand[0].Generation, later[0].Generation);
    }

    [Fact]
    public async Task A_deleted_queue_is_declared_again_and_consumed()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await using var subscription = broker.Subscribe(TopologyNames.Orders);
        _ = subscription.RunAsync(TestBroker.Stopping);
        await Eventually.TrueAsync(() => subscription.State.Phase == SubscriptionPhase.Consuming);
        var before = subscription.State.Generation;

        await using (var channel = await broker.ChannelAsync())
        {
            await channel.QueueDeleteAsync(TopologyNames.Orders, cancellationToken: TestBroker.Stopping);
        }

        await Eventually.TrueAsync(() => subscription.State.Generation > before && subscription.State.Phase == SubscriptionPhase.Consuming);
        await broker.PublishAsync(TopologyNames.Orders, 1);
        Assert.Single(await ReadAsync(subscription, 1));
        Assert.Contains("the queue was deleted", subscription.State.LastError, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_connection_that_is_closed_by_force_costs_one_generation_and_no_message()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await broker.PublishAsync(TopologyNames.Orders, 5);
        await using var subscription = broker.Subscribe(TopologyNames.Orders);
        _ = subscription.RunAsync(TestBroker.Stopping);
        var lost = await ReadAsync(subscription, 5);

        await broker.ControlAsync("close_all_connections", "-p", broker.VirtualHost, "test");

        var again = await ReadAsync(subscription, 5);
        Assert.False(lost[0].Generation.IsAlive);
        await subscription.SettleAsync([.. lost.Select(delivery => new SettledDelivery(delivery, Settlement.Acknowledge))]);
        Assert.Equal(5, subscription.State.InHand);
        await subscription.SettleAsync([.. again.Select(delivery => new SettledDelivery(delivery, Settlement.Acknowledge))]);
        Assert.Equal(0, subscription.State.InHand);
        Assert.Contains("320", subscription.State.LastError, StringComparison.Ordinal);
        Assert.Equal(2, subscription.State.Generation);
    }

    [Fact]
    public async Task A_channel_the_broker_closed_is_followed_by_a_new_generation()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await broker.PublishAsync(TopologyNames.Orders, 1);
        await using var subscription = broker.Subscribe(TopologyNames.Orders);
        _ = subscription.RunAsync(TestBroker.Stopping);
        var delivery = await subscription.Deliveries.ReadAsync(TestBroker.Stopping);

        // What a faulty client would do: the broker answers with 406 and closes the channel, and the connection stays open.
        await delivery.Generation.Channel!.BasicAckAsync(4711, multiple: false, TestBroker.Stopping);

        var again = await subscription.Deliveries.ReadAsync(TestBroker.Stopping);
        Assert.True(again.Redelivered);
        Assert.False(delivery.Generation.IsAlive);
        Assert.Contains("406", subscription.State.LastError, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Messages_that_are_ready_without_progress_end_the_generation()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await using var subscription = broker.Subscribe(TopologyNames.Orders);
        _ = subscription.RunAsync(TestBroker.Stopping);
        await Eventually.TrueAsync(() => subscription.State.Phase == SubscriptionPhase.Consuming);

        // The consumer is lost behind the subscription's back, as after a consume that the broker knows and the client does not.
        await subscription.Current!.Channel!.BasicCancelAsync(subscription.Current.Consumer!.Tag, cancellationToken: TestBroker.Stopping);
        await broker.PublishAsync(TopologyNames.Orders, 1);

        Assert.Single(await ReadAsync(subscription, 1));
        Assert.Equal("1 messages were ready and none was delivered for 3 s", subscription.State.LastError);
    }

    [Fact]
    public async Task Full_hands_without_progress_are_reported_and_cost_no_delivery_count()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => options.StallAfter = TimeSpan.FromSeconds(1));
        await broker.DeclareAsync();
        await broker.PublishAsync(TopologyNames.Orders, 6);
        await using var subscription = broker.Subscribe(TopologyNames.Orders, prefetch: 3);
        _ = subscription.RunAsync(TestBroker.Stopping);
        var stuck = await ReadAsync(subscription, 3);

        await Eventually.TrueAsync(() => subscription.State.Stalled);

        Assert.Equal(1, subscription.State.Generation);
        await subscription.SettleAsync(stuck.ConvertAll(delivery => new SettledDelivery(delivery, Settlement.Acknowledge)));
        Assert.False(subscription.State.Stalled);
        var next = await ReadAsync(subscription, 2);
        Assert.True(next.All(delivery => !delivery.Redelivered), $"{subscription.State}\n{string.Join('\n', next)}");
    }

    [Fact]
    public async Task What_there_was_no_room_for_is_given_back_before_anything_later_is_acknowledged()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await broker.PublishAsync(TopologyNames.Orders, 20);
        await using var subscription = broker.Subscribe(TopologyNames.Orders, room: new BytesInHand(64 << 10));
        _ = subscription.RunAsync(TestBroker.Stopping);
        var settled = (await ReadAsync(subscription, 20)).ConvertAll(delivery => new SettledDelivery(delivery, Settlement.Acknowledge));
        var generation = subscription.Current!;

        // Both are there when the consumer comes: the second is on its way before the first can be found to have no room.
        subscription.Hold("two come together");
        await Eventually.TrueAsync(() => subscription.State.Phase == SubscriptionPhase.Held);
        await broker.PublishAsync(TopologyNames.Orders, new byte[100 << 10], "22"u8.ToArray());

        // The acknowledgement is the first to wait for its turn, and knows what came behind the one without room when it has it.
        await generation.Settling.WaitAsync(TestBroker.Stopping);
        var settling = subscription.SettleAsync(settled);
        try
        {
            subscription.Release();
            settled.Add(new SettledDelivery((await ReadAsync(subscription, 1))[0], Settlement.Acknowledge));
            await Eventually.TrueAsync(() => generation.HasTooMuch && !generation.MayDeliver);
        }
        finally
        {
            generation.Settling.Release();
        }
        await settling;

        var again = (await ReadAsync(subscription, 1))[0];
        Assert.Equal(100 << 10, again.Body.Length);
        Assert.Equal(1, again.DeliveryCount);
        Assert.Same(generation, again.Generation);
        Assert.True(generation.IsAlive);
        await subscription.SettleAsync(again, Settlement.Acknowledge);
        await Eventually.TrueAsync(() => subscription.State.Acknowledged == 22);
    }

    [Fact]
    public async Task A_broker_that_refuses_the_password_is_tried_on_and_the_state_says_so_without_it()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => options.Uri = options.Uri.Replace("tests-password", "guesswork", StringComparison.Ordinal));
        await using var subscription = broker.Subscribe(TopologyNames.Orders);
        _ = subscription.RunAsync(TestBroker.Stopping);

        await Eventually.TrueAsync(() => subscription.State.Generation >= 3);

        Assert.Equal(SubscriptionPhase.Connecting, subscription.State.Phase);
        Assert.Contains("access refused", subscription.State.LastError, StringComparison.Ordinal);
        Assert.DoesNotContain("guesswork", subscription.State.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_broker_that_stays_away_opens_the_circuit_and_the_reason_stays_visible()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => options.Uri = "amqp://guest:guest@localhost:1/");
        await using var subscription = broker.Subscribe(TopologyNames.Orders);
        _ = subscription.RunAsync(TestBroker.Stopping);

        await Eventually.TrueAsync(() => subscription.State.CircuitOpen);

        Assert.Equal("not reachable: ConnectionRefused", subscription.State.LastError);
    }

    private static async Task<List<Delivery>> ReadAsync(QueueSubscription subscription, int count)
    {
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(TestBroker.Stopping);
        deadline.CancelAfter(TimeSpan.FromSeconds(90));
        var deliveries = new List<Delivery>();
        while (deliveries.Count < count)
        {
            deliveries.Add(await subscription.Deliveries.ReadAsync(deadline.Token));
        }

        return deliveries;
    }
}

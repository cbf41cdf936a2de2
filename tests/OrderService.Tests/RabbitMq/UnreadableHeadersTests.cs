using System.Collections.Concurrent;
using System.Text;
using OrderService.Inbox;
using OrderService.RabbitMq;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.RabbitMq;

public sealed class UnreadableHeadersTests(RabbitMqContainerFixture fixture)
{
    [Fact]
    public async Task A_message_the_client_cannot_read_ends_up_aside_and_costs_its_neighbours_one_return()
    {
        var headers = RawProducer.Field("a decimal with 200 places", 'D', 200, 0, 0, 0, 1);
        await using var broker = await TestBroker.StartAsync(fixture, options => options.DeliveryLimit = 5);
        await broker.DeclareAsync();
        await using var producer = await RawProducer.ConnectAsync(broker.Options.Uri);
        for (var number = 1; number <= 30; number++)
        {
            await producer.PublishAsync(TopologyNames.Orders, number == 10 ? headers : [], $"{number}");
        }

        await using var orders = broker.Subscribe(TopologyNames.Orders);
        await using var deadLetters = broker.Subscribe(TopologyNames.DeadLetters);
        _ = orders.RunAsync(TestBroker.Stopping);

        // What was in hand beside the unreadable message is settled only the second time.
        var taken = Take(orders, fromGeneration: 2);
        await Eventually.TrueAsync(() => taken.Count == 29);
        Assert.DoesNotContain("10", taken.Keys);
        Assert.InRange(taken.Values.Max(), 0, 2);
        await Eventually.TrueAsync(async () => await broker.ReadyAsync(TopologyNames.DeadLetters) == 1);
        await Eventually.TrueAsync(() => orders.State.Prefetch == 100);

        // The dead-letter consumer meets it as well, until the broker has moved it on; a letter behind it is taken all the same.
        await broker.PublishAsync(TopologyNames.DeadLetters, 1);
        _ = deadLetters.RunAsync(TestBroker.Stopping);
        var letters = Take(deadLetters, fromGeneration: 2);
        await Eventually.TrueAsync(() => letters.ContainsKey("1"), TimeSpan.FromSeconds(60));
        await Eventually.TrueAsync(async () => await broker.ReadyAsync(TopologyNames.Unreadable) == 1, TimeSpan.FromSeconds(120));
    }

    /// <summary>Takes and settles from that generation on; the bodies and how often each was returned.</summary>
    private static ConcurrentDictionary<string, int> Take(QueueSubscription subscription, int fromGeneration)
    {
        var taken = new ConcurrentDictionary<string, int>();
        _ = Task.Run(async () =>
        {
            await foreach (var delivery in subscription.Deliveries.ReadAllAsync(TestBroker.Stopping))
            {
                if (delivery.Generation.Number >= fromGeneration)
                {
                    taken[Encoding.UTF8.GetString(delivery.Body.Span)] = delivery.DeliveryCount;
                    await subscription.SettleAsync(delivery, Settlement.Acknowledge);
                }
            }
        }, TestBroker.Stopping);
        return taken;
    }

    [Fact]
    public async Task Headers_nested_as_deep_as_a_frame_allows_arrive_and_the_process_lives()
    {
        // The client needs seconds for each of them, and the second one is ready meanwhile.
        await using var broker = await TestBroker.StartAsync(fixture, options => options.StallAfter = TimeSpan.FromSeconds(60));
        await broker.DeclareAsync();
        await using var producer = await RawProducer.ConnectAsync(broker.Options.Uri);
        await producer.PublishAsync(TopologyNames.Orders, Nested(18_000, inner => RawProducer.Field("", 'F', RawProducer.Long(inner))), "tables");
        await producer.PublishAsync(TopologyNames.Orders, RawProducer.Field("a", 'A', RawProducer.Long(Nested(25_000, inner => [(byte)'A', .. RawProducer.Long(inner)]))), "arrays");
        await using var orders = broker.Subscribe(TopologyNames.Orders);
        _ = orders.RunAsync(TestBroker.Stopping);

        Assert.Equal("tables", Encoding.UTF8.GetString((await orders.Deliveries.ReadAsync(TestBroker.Stopping)).Body.Span));
        Assert.Equal("arrays", Encoding.UTF8.GetString((await orders.Deliveries.ReadAsync(TestBroker.Stopping)).Body.Span));
        Assert.True(orders.State.Generation == 1, orders.State.LastError);
    }

    [Fact]
    public async Task While_the_broker_is_at_work_on_nested_headers_the_subscription_knows_since_when()
    {
        // As long as the messages go on, no count of them is above zero.
        await using var broker = await TestBroker.StartAsync(fixture, options => options.StallAfter = TimeSpan.FromSeconds(1));
        await broker.DeclareAsync();
        await using var producer = await RawProducer.ConnectAsync(broker.Options.Uri);
        await using var orders = broker.Subscribe(TopologyNames.Orders);
        _ = orders.RunAsync(TestBroker.Stopping);
        await Eventually.TrueAsync(() => orders.State is { Phase: SubscriptionPhase.Consuming, SilentSince: null });

        var nested = RawProducer.Field("a", 'A', RawProducer.Long(Nested(25_000, inner => [(byte)'A', .. RawProducer.Long(inner)])));
        await producer.PublishAsync(TopologyNames.Orders, nested, "0");

        await Eventually.TrueAsync(() => orders.State.SilentSince is not null);
        await Eventually.TrueAsync(() => orders.State is { SilentSince: null, Delivered: >= 1 });
    }

    private static byte[] Nested(int depth, Func<byte[], byte[]> wrap)
    {
        byte[] bytes = [];
        for (var level = 0; level < depth; level++)
        {
            bytes = wrap(bytes);
        }

        return bytes;
    }
}

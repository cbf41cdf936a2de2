using System.Collections.Concurrent;
using System.Text;
using Microsoft.Extensions.Logging.Abstractions;
using OrderService.Inbox;
using OrderService.Observability;
using OrderService.RabbitMq;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.RabbitMq;

/// <summary>Messages that the broker itself can't hand out: it closes the connection each time.</summary>
public sealed class UndeliverableMessageTests(RabbitMqContainerFixture fixture)
{
    [Fact]
    public async Task Such_messages_move_on_alone_cost_their_neighbours_three_returns_at_most_and_are_told_of()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => options.DeliveryLimit = 6);
        await broker.DeclareAsync();
        await broker.PublishAsync(TopologyNames.Orders, 300);
        await using (var sender = await Amqp10Sender.ConnectAsync(broker.Options.Uri, TopologyNames.Orders))
        {
            await sender.SendAsync("poison"u8.ToArray(), ("tenant", Amqp10Sender.Uuid(Guid.NewGuid())));
            await broker.PublishAsync(TopologyNames.Orders, 20, first: 301);
            await sender.SendAsync("poison"u8.ToArray(), ("grade", Amqp10Sender.Character('a')));
        }

        await broker.PublishAsync(TopologyNames.Orders, 280, first: 321);
        var troubles = new Troubles(TimeProvider.System);
        await using var orders = new QueueSubscription(
            broker.Connector, TopologyNames.Orders, 2000, TimeProvider.System, NullLogger<QueueSubscription>.Instance, broker.Topology.DeclareAsync, troubles: troubles);
        var returns = new ConcurrentDictionary<string, int>();
        var told = new ConcurrentDictionary<string, Trouble>();
        _ = Task.Run(
            async () =>
            {
                // Nothing is settled before much is in hand, as it is with a slow store: what the first end costs is seen.
                var held = new List<SettledDelivery>();
                await foreach (var delivery in orders.Deliveries.ReadAllAsync(TestBroker.Stopping))
                {
                    returns.AddOrUpdate(Encoding.UTF8.GetString(delivery.Body.Span), delivery.DeliveryCount, (_, before) => Math.Max(before, delivery.DeliveryCount));
                    held.Add(new SettledDelivery(delivery, Settlement.Acknowledge));
                    if (delivery.Generation.Number > 1)
                    {
                        await orders.SettleAsync(held);
                        held.Clear();
                    }
                }
            },
            TestBroker.Stopping);
        _ = orders.RunAsync(TestBroker.Stopping);

        await Eventually.TrueAsync(
            async () =>
            {
                foreach (var trouble in troubles.Standing)
                {
                    told[trouble.Trouble.Detail] = trouble.Trouble;
                }

                return returns.Count == 600 && await broker.ReadyAsync(TopologyNames.DeadLetters) == 2;
            });

        Assert.True(orders.State.Generation > 6, "The poison did not end a connection.");
        Assert.InRange(returns.Values.Max(), 1, 3);
        Assert.Equal("A message at the head of orders can't be handed out", told.Values.First().Subject);
        Assert.Contains("541", told.Values.First().Detail, StringComparison.Ordinal);
        Assert.Contains(TopologyNames.DeadLetters, told.Values.First().Detail, StringComparison.Ordinal);
        await Eventually.TrueAsync(() => troubles.Standing.Count == 0 && orders.State is { Prefetch: 2000, InHand: 0 });
    }

    /// <summary>The broker hands it out when one before it is settled, long after the last delivery where the store is slow.</summary>
    [Fact]
    public async Task One_that_comes_only_with_the_room_that_a_settlement_makes_is_suspected_as_well()
    {
        await using var broker = await TestBroker.StartAsync(fixture, options => options.DeliveryLimit = 6);
        await broker.DeclareAsync();
        await broker.PublishAsync(TopologyNames.Orders, 4);
        await using (var sender = await Amqp10Sender.ConnectAsync(broker.Options.Uri, TopologyNames.Orders))
        {
            await sender.SendAsync("poison"u8.ToArray(), ("tenant", Amqp10Sender.Uuid(Guid.NewGuid())));
        }
        var clock = new LeapingTime();
        await using var orders = new QueueSubscription(broker.Connector, TopologyNames.Orders, 4, clock, NullLogger<QueueSubscription>.Instance, broker.Topology.DeclareAsync);
        var returns = new ConcurrentDictionary<string, int>();
        _ = Task.Run(
            async () =>
            {
                var first = new List<Delivery>();
                await foreach (var delivery in orders.Deliveries.ReadAllAsync(TestBroker.Stopping))
                {
                    returns.AddOrUpdate(Encoding.UTF8.GetString(delivery.Body.Span), delivery.DeliveryCount, (_, before) => Math.Max(before, delivery.DeliveryCount));
                    if (delivery.Generation.Number > 2)
                    {
                        await orders.SettleAsync(delivery, Settlement.Acknowledge);
                    }
                    else if (delivery.Generation.Number == 1)
                    {
                        first.Add(delivery);
                    }
                    if (first.Count == 4)
                    {
                        clock.Leap(TimeSpan.FromSeconds(6));
                        await orders.SettleAsync(first[0], Settlement.Acknowledge);
                        first.Clear();
                    }
                }
            },
            TestBroker.Stopping);
        _ = orders.RunAsync(TestBroker.Stopping);

        await Eventually.TrueAsync(async () => await broker.ReadyAsync(TopologyNames.DeadLetters) == 1 && await broker.ReadyAsync(TopologyNames.Orders) == 0 && orders.State.InHand == 0);

        Assert.Equal(4, returns.Count);
        Assert.Equal(2, returns.Values.Max());
    }

    [Fact]
    public async Task Connections_that_others_end_blame_no_message()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await broker.PublishAsync(TopologyNames.Orders, 400);
        var troubles = new Troubles(TimeProvider.System);
        await using var orders = new QueueSubscription(
            broker.Connector, TopologyNames.Orders, 100, TimeProvider.System, NullLogger<QueueSubscription>.Instance, broker.Topology.DeclareAsync, troubles: troubles);
        _ = orders.RunAsync(TestBroker.Stopping);
        var taken = 0;
        for (var end = 0; end < 6; end++)
        {
            var delivery = await orders.Deliveries.ReadAsync(TestBroker.Stopping);
            await orders.SettleAsync(delivery, Settlement.Acknowledge);
            taken += delivery.Generation.IsAlive ? 1 : 0;
            var generation = orders.State.Generation;
            await broker.ControlAsync("close_all_connections", "-p", broker.VirtualHost, "test");
            await Eventually.TrueAsync(() => orders.State.Generation > generation && orders.State.Phase == SubscriptionPhase.Consuming);
            Assert.Empty(troubles.Standing);
        }

        Assert.Equal(0u, await broker.ReadyAsync(TopologyNames.DeadLetters));
        Assert.InRange(taken, 1, 6);
    }

    /// <summary>The system's clock, except that time passes at once when it is told to.</summary>
    private sealed class LeapingTime : TimeProvider
    {
        private long leapt;

        public void Leap(TimeSpan time) => Interlocked.Add(ref leapt, (long)(time.TotalSeconds * TimestampFrequency));

        public override long GetTimestamp() => base.GetTimestamp() + Interlocked.Read(ref leapt);
    }
}

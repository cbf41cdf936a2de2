using System.Threading.Channels;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using OrderService.Inbox;
using OrderService.Outbox;
using OrderService.RabbitMq;

namespace OrderService.Bench.Contestants;

/// <summary>The floor again, out of the service's own subscription and publisher: what the service's handling of the broker costs by itself.</summary>
internal static class FloorFromParts
{
    public static async Task RunAsync(ContestantSettings settings, CommitTimes commits, CancellationToken stopping)
    {
        var options = Options.Create(new RabbitMqOptions { Uri = settings.Broker, Prefetch = ContestantSettings.Prefetch, Partitions = settings.Partitions, ConnectionName = "bench floor-parts" });
        var connector = new BrokerConnector(options, TimeProvider.System);
        await using var subscriptions = new OrderSubscriptions([.. new Topology(options, NullLogger<Topology>.Instance).OrderQueues
            .Select(queue => new QueueSubscription(connector, queue, options.Value.PrefetchOf(queue), TimeProvider.System, NullLogger<QueueSubscription>.Instance))]);
        await using var publisher = new ConfirmedPublisher(connector, options, TimeProvider.System, NullLogger<ConfirmedPublisher>.Instance);
        var confirmed = Channel.CreateUnbounded<Delivery>(new UnboundedChannelOptions { SingleReader = true });
        var intake = subscriptions.RunAsync(stopping);
        var settling = SettleAsync(confirmed.Reader, subscriptions);
        while (await subscriptions.WaitToReadAsync(CancellationToken.None))
        {
            while (subscriptions.TryRead(out var delivery))
            {
                await Relay(delivery);
            }
        }
        await intake;
        confirmed.Writer.Complete();
        await settling;

        ValueTask Relay(Delivery delivery) =>
            publisher.PublishAsync(
                new OutgoingMessage
                {
                    Exchange = TopologyNames.OrderEvents,
                    RoutingKey = "order.placed",
                    MessageId = delivery.Properties.MessageId!,
                    Body = delivery.Body,
                    Type = "ORDER_PLACED",
                    State = delivery,
                },
                (message, outcome) =>
                {
                    if (outcome is PublishOutcome.Confirmed)
                    {
                        confirmed.Writer.TryWrite((Delivery)message.State!);
                    }
                },
                stopping);
    }

    private static async Task SettleAsync(ChannelReader<Delivery> confirmed, OrderSubscriptions subscriptions)
    {
        var batch = new List<SettledDelivery>();
        while (await confirmed.WaitToReadAsync())
        {
            while (confirmed.TryRead(out var delivery))
            {
                batch.Add(new SettledDelivery(delivery, Settlement.Acknowledge));
            }
            await subscriptions.SettleAsync(batch);
            batch.Clear();
        }
    }
}

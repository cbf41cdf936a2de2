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
        var options = Options.Create(new RabbitMqOptions { Uri = settings.Broker, Prefetch = ContestantSettings.Prefetch, ConnectionName = "bench floor-parts" });
        var connector = new BrokerConnector(options, TimeProvider.System);
        await using var subscription = new QueueSubscription(connector, TopologyNames.Orders, ContestantSettings.Prefetch, TimeProvider.System, NullLogger<QueueSubscription>.Instance);
        await using var publisher = new ConfirmedPublisher(connector, options, TimeProvider.System, NullLogger<ConfirmedPublisher>.Instance);
        var confirmed = Channel.CreateUnbounded<Delivery>(new UnboundedChannelOptions { SingleReader = true });
        var intake = subscription.RunAsync(stopping);
        var settling = SettleAsync(confirmed.Reader, subscription);
        await foreach (var delivery in subscription.Deliveries.ReadAllAsync(CancellationToken.None))
        {
            await publisher.PublishAsync(
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
        await intake;
        confirmed.Writer.Complete();
        await settling;
    }

    private static async Task SettleAsync(ChannelReader<Delivery> confirmed, QueueSubscription subscription)
    {
        var batch = new List<SettledDelivery>();
        while (await confirmed.WaitToReadAsync())
        {
            while (confirmed.TryRead(out var delivery))
            {
                batch.Add(new SettledDelivery(delivery, Settlement.Acknowledge));
            }
            await subscription.SettleAsync(batch);
            batch.Clear();
        }
    }
}

using OrderService.RabbitMq;
using RabbitMQ.Client;

namespace OrderService.Bench.Contestants;

/// <summary>
/// The least anybody can do who takes each order and publishes its event without losing one: no storage, no decision, no copy of the body.
/// One connection consumes and one publishes; confirms are counted, not awaited; one acknowledgement settles all deliveries up to the last confirmed one.
/// </summary>
internal static class Floor
{
    public static async Task RunAsync(ContestantSettings settings, CommitTimes commits, CancellationToken stopping)
    {
        var factory = new ConnectionFactory { Uri = new Uri(settings.Broker), AutomaticRecoveryEnabled = false, TopologyRecoveryEnabled = false };
        await using var publishing = await factory.CreateConnectionAsync("bench floor publishes", stopping);
        await using var consuming = await factory.CreateConnectionAsync("bench floor consumes", stopping);
        await using var events = await publishing.CreateChannelAsync(new CreateChannelOptions(true, false, null, null), stopping);
        await using var orders = await consuming.CreateChannelAsync(new CreateChannelOptions(false, false, null, 1), stopping);
        await orders.BasicQosAsync(0, ContestantSettings.Prefetch, false, stopping);
        var consumer = new Consumer(orders, events);
        events.BasicAcksAsync += (_, confirm) => consumer.ConfirmedAsync(confirm.DeliveryTag, confirm.Multiple);
        var tag = await orders.BasicConsumeAsync(TopologyNames.Orders, autoAck: false, consumer, stopping);
        await Stop.WhenAskedAsync(stopping);
        await orders.BasicCancelAsync(tag, noWait: false, CancellationToken.None);
        await consumer.SettledAsync();
    }

    private sealed class Consumer(IChannel orders, IChannel events) : AsyncDefaultBasicConsumer(orders)
    {
        private const ulong AckEvery = 256;

        // Each delivery is published once and in order, so a publish's sequence number is its delivery's tag.
        private readonly bool[] confirmed = new bool[1 << 16];
        private ulong published;
        private ulong prefix;
        private ulong acknowledged;

        public override async Task HandleBasicDeliverAsync(
            string consumerTag, ulong deliveryTag, bool redelivered, string exchange, string routingKey, IReadOnlyBasicProperties properties, ReadOnlyMemory<byte> body, CancellationToken cancellationToken = default)
        {
            Volatile.Write(ref published, deliveryTag);
            await events.BasicPublishAsync(
                TopologyNames.OrderEvents, "order.placed", true,
                new BasicProperties { MessageId = properties.MessageId, ContentType = "application/json", Type = "ORDER_PLACED", DeliveryMode = DeliveryModes.Persistent }, body, cancellationToken);
        }

        /// <summary>Waits until all that was taken is confirmed and acknowledged.</summary>
        public async Task SettledAsync()
        {
            using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(5));
            while (Volatile.Read(ref acknowledged) != Volatile.Read(ref published))
            {
                await tick.WaitForNextTickAsync();
            }
        }

        /// <summary>Runs on the publishing connection's reading loop, one at a time.</summary>
        public async Task ConfirmedAsync(ulong sequence, bool multiple)
        {
            if (multiple)
            {
                prefix = Math.Max(prefix, sequence);
            }
            else
            {
                confirmed[sequence % (ulong)confirmed.Length] = true;
            }
            while (confirmed[(prefix + 1) % (ulong)confirmed.Length])
            {
                confirmed[++prefix % (ulong)confirmed.Length] = false;
            }
            if (prefix - acknowledged >= AckEvery || (prefix > acknowledged && prefix == Volatile.Read(ref published)))
            {
                await Channel.BasicAckAsync(prefix, multiple: true);
                Volatile.Write(ref acknowledged, prefix);
            }
        }
    }
}

internal static class Stop
{
    public static async Task WhenAskedAsync(CancellationToken stopping)
    {
        var asked = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using (stopping.Register(() => asked.TrySetResult()))
        {
            await asked.Task;
        }
    }
}

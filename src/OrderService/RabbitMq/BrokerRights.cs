using RabbitMQ.Client;
using RabbitMQ.Client.Exceptions;

namespace OrderService.RabbitMq;

/// <summary>
/// Finds out what a user may do without doing it. AMQP has no such question, but the broker looks at the rights first and at the rest afterwards: to consume with a priority that is no
/// number, or to publish with an expiry that is none, is refused in any case, for want of the right (403) or for the nonsense (406).
/// </summary>
internal static class BrokerRights
{
    private const string Nonsense = "none";

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    /// <returns>A sentence for each right that is missing.</returns>
    public static async Task<IReadOnlyList<string>> MissingAsync(IConnection connection, IEnumerable<string> queues, IEnumerable<string> exchanges, CancellationToken cancellationToken)
    {
        var missing = new List<string>();
        foreach (var queue in queues)
        {
            if (await ConsumingIsRefusedAsync(connection, queue, cancellationToken))
            {
                missing.Add($"the user may not consume from the queue {queue}; its permission to read must match that name (rabbitmqctl set_permissions, docs/operations.md)");
            }
        }

        foreach (var exchange in exchanges)
        {
            if (await PublishingIsRefusedAsync(connection, exchange, cancellationToken) is not { } refused)
            {
                missing.Add("whether the user may publish could not be found out: the broker takes no publishes now, as under a memory or disk alarm");
                break;
            }

            if (refused)
            {
                missing.Add($"the user may not publish to the exchange {exchange}; its permission to write must match that name (rabbitmqctl set_permissions, docs/operations.md)");
            }
        }

        return missing;
    }

    private static async Task<bool> ConsumingIsRefusedAsync(IConnection connection, string queue, CancellationToken cancellationToken)
    {
        await using var channel = await connection.CreateChannelAsync(null, cancellationToken);
        try
        {
            await channel.BasicConsumeAsync(queue, autoAck: false, consumerTag: "", noLocal: false, exclusive: false, new Dictionary<string, object?> { ["x-priority"] = Nonsense }, new AsyncDefaultBasicConsumer(channel), cancellationToken);
            // A version that reads nonsense as no priority: nothing stays behind, for the consumer ends with its channel.
            return false;
        }
        catch (OperationInterruptedException exception) when (exception.ShutdownReason is { } reason)
        {
            return reason.ReplyCode == Constants.AccessRefused;
        }
    }

    /// <returns>Null when there was no answer.</returns>
    private static async Task<bool?> PublishingIsRefusedAsync(IConnection connection, string exchange, CancellationToken cancellationToken)
    {
        // Closed with its connection: it closes by itself with the answer, and without one nobody reads a goodbye.
        var channel = await connection.CreateChannelAsync(null, cancellationToken);
        var answer = new TaskCompletionSource<ushort>(TaskCreationOptions.RunContinuationsAsynchronously);
        channel.ChannelShutdownAsync += (_, shutdown) =>
        {
            answer.TrySetResult(shutdown.ReplyCode);
            return Task.CompletedTask;
        };
        await channel.BasicPublishAsync(exchange, "orderservice.doctor", mandatory: false, new BasicProperties { Expiration = Nonsense }, ReadOnlyMemory<byte>.Empty, cancellationToken);
        try
        {
            return await answer.Task.WaitAsync(Patience, cancellationToken) == Constants.AccessRefused;
        }
        catch (TimeoutException)
        {
            return null;
        }
    }
}

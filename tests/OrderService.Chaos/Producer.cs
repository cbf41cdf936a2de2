using System.Globalization;
using System.Text;
using RabbitMQ.Client;
using RabbitMQ.Client.Exceptions;

namespace OrderService.Chaos;

/// <summary>
/// Publishes with confirms, and writes down, synced to the disk, what it is about to send and what was confirmed. Nothing is sent again because its outcome is unknown, so that unknown
/// outcomes survive to the judgement. A connection that failed is thrown away; the next message opens another.
/// </summary>
/// <param name="name">Tells the producers of a trial apart; its history is <c>history-NAME.log</c>.</param>
internal sealed class Producer(World world, string name = "1") : IAsyncDisposable
{
    /// <summary>After this long without a confirm, a message's outcome is unknown.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    private readonly FileStream history = new(Path.Combine(world.Folder, $"history-{name}.log"), FileMode.Create);
    private IConnection? connection;
    private IChannel? channel;

    public List<SentMessage> Sent { get; } = [];

    /// <summary>Publishes into <c>orders</c> and waits for the confirms; what gets none is unknown.</summary>
    public async Task PublishAsync(IEnumerable<SentMessage> messages, int window = 500)
    {
        foreach (var chunk in messages.Chunk(window))
        {
            await OpenAsync();
            lock (Sent)
            {
                Sent.AddRange(chunk);
            }
            await NoteAsync("sent", chunk);
            await Task.WhenAll(chunk.Select(SendAsync));
            await NoteAsync("confirmed", chunk.Where(message => message.Outcome == Sending.Confirmed));
            if (chunk.Any(message => message.Outcome == Sending.Unknown))
            {
                // After an outcome that is not known, nothing is known of the channel either.
                await CloseAsync();
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        await CloseAsync();
        await history.DisposeAsync();
    }

    /// <summary>Waits for a broker that is away: an outage makes a producer wait, not fail.</summary>
    private async Task OpenAsync()
    {
        if (channel is { IsOpen: true })
        {
            return;
        }
        await CloseAsync();
        connection = await world.ConnectPatientlyAsync($"produces {name}");
        channel = await connection.CreateChannelAsync(new CreateChannelOptions(true, true));
    }

    private async Task CloseAsync()
    {
        if (connection is not null)
        {
            await connection.AbandonAsync();
            (connection, channel) = (null, null);
        }
    }

    private async Task SendAsync(SentMessage message)
    {
        try
        {
            using var patience = new CancellationTokenSource(Patience);
            var properties = new BasicProperties { Type = message.Type, DeliveryMode = DeliveryModes.Persistent };
            if (!message.IsKeyDerived)
            {
                properties.MessageId = message.Key;
            }
            if (message.ContentType is not null)
            {
                properties.ContentType = message.ContentType;
            }
            await channel!.BasicPublishAsync("", "orders", true, properties, message.Body, patience.Token);
            message.Outcome = Sending.Confirmed;
        }
        catch (Exception exception) when (exception is OperationInterruptedException or PublishException or IOException or OperationCanceledException or ObjectDisposedException)
        {
            message.Outcome = Sending.Unknown;
        }
    }

    private async Task NoteAsync(string what, IEnumerable<SentMessage> messages)
    {
        var text = new StringBuilder();
        foreach (var message in messages)
        {
            text.Append(CultureInfo.InvariantCulture, $"{what} {message.Key}\n");
        }
        await history.WriteAsync(Encoding.UTF8.GetBytes(text.ToString()));
        history.Flush(flushToDisk: true);
    }
}

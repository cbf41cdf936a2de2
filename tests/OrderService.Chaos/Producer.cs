using System.Globalization;
using System.Text;
using RabbitMQ.Client;
using RabbitMQ.Client.Exceptions;

namespace OrderService.Chaos;

/// <summary>What the producer knows of a message: the judge goes by this, never by what the service says it received.</summary>
internal enum Sending
{
    /// <summary>Neither confirmed nor refused: it may or may not have arrived.</summary>
    Unknown,

    Confirmed,
}

/// <summary>A message as its producer sees it.</summary>
/// <param name="IsGood">Whether it must take effect; else it must become a dead letter.</param>
internal sealed record SentMessage(string Key, string OrderId, string? Type, byte[] Body, bool IsGood)
{
    public Sending Outcome { get; set; }

    public static SentMessage Place(string orderId) => new(
        $"place-{orderId}", orderId, "order.place",
        Encoding.UTF8.GetBytes($$"""{"orderId":"{{orderId}}","customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}]}"""), true);

    public static SentMessage Cancel(string orderId) =>
        new($"cancel-{orderId}", orderId, "order.cancel", Encoding.UTF8.GetBytes($$"""{"orderId":"{{orderId}}","reason":"trial"}"""), true);
}

/// <summary>Publishes with confirms, and writes down, synced to the disk, what was sent and what was confirmed. Nothing is sent twice, so that unknown outcomes survive to the judgement.</summary>
internal sealed class Producer(World world) : IAsyncDisposable
{
    private readonly FileStream history = new(Path.Combine(world.Folder, "history.log"), FileMode.Create);
    private IConnection? connection;
    private IChannel? channel;

    public List<SentMessage> Sent { get; } = [];

    /// <summary>Publishes into <c>orders</c> and waits for the confirms; what gets none is unknown.</summary>
    public async Task PublishAsync(IEnumerable<SentMessage> messages, int window = 500)
    {
        if (connection is not { IsOpen: true })
        {
            connection = await world.ConnectAsync("produces");
            channel = await connection.CreateChannelAsync(new CreateChannelOptions(true, true));
        }
        foreach (var chunk in messages.Chunk(window))
        {
            Sent.AddRange(chunk);
            await NoteAsync("sent", chunk);
            await Task.WhenAll(chunk.Select(SendAsync));
            await NoteAsync("confirmed", chunk.Where(message => message.Outcome == Sending.Confirmed));
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (channel is not null)
        {
            await channel.DisposeAsync();
        }
        if (connection is not null)
        {
            await connection.DisposeAsync();
        }
        await history.DisposeAsync();
    }

    private async Task SendAsync(SentMessage message)
    {
        try
        {
            await channel!.BasicPublishAsync("", "orders", true,
                new BasicProperties { MessageId = message.Key, Type = message.Type, DeliveryMode = DeliveryModes.Persistent }, message.Body);
            message.Outcome = Sending.Confirmed;
        }
        catch (Exception exception) when (exception is OperationInterruptedException or PublishException or IOException)
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

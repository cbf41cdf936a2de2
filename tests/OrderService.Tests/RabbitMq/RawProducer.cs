using System.Buffers.Binary;
using System.Net.Sockets;
using System.Text;

namespace OrderService.Tests.RabbitMq;

/// <summary>A producer without a client library: it writes header tables byte by byte, also such as no library would.</summary>
internal sealed class RawProducer : IAsyncDisposable
{
    private readonly TcpClient socket = new();
    private NetworkStream stream = null!;

    public static async Task<RawProducer> ConnectAsync(string uri)
    {
        var address = new Uri(uri);
        var credentials = address.UserInfo.Split(':');
        var producer = new RawProducer();
        await producer.socket.ConnectAsync(address.Host, address.Port, TestBroker.Stopping);
        producer.stream = producer.socket.GetStream();
        await producer.stream.WriteAsync(new byte[] { (byte)'A', (byte)'M', (byte)'Q', (byte)'P', 0, 0, 9, 1 }, TestBroker.Stopping);
        await producer.ReadAsync();
        await producer.MethodAsync(0, 10, 11, [.. Long([]), .. Short("PLAIN"), .. Long(Encoding.UTF8.GetBytes($"\0{credentials[0]}\0{credentials[1]}")), .. Short("en_US")]);
        var tune = await producer.ReadAsync();
        await producer.MethodAsync(0, 10, 31, [.. tune.AsSpan(4, 6), 0, 0]);
        await producer.MethodAsync(0, 10, 40, [.. Short(address.AbsolutePath.TrimStart('/')), 0, 0]);
        await producer.ReadAsync();
        await producer.MethodAsync(1, 20, 10, [0]);
        await producer.ReadAsync();
        await producer.MethodAsync(1, 85, 10, [0]);
        await producer.ReadAsync();
        return producer;
    }

    /// <summary>Publishes with these bytes as header table, and waits for the confirm.</summary>
    public async Task PublishAsync(string queue, byte[] table, string body)
    {
        var content = Encoding.UTF8.GetBytes(body);
        await MethodAsync(1, 60, 40, [0, 0, 0, .. Short(queue), 0]);
        var size = new byte[8];
        BinaryPrimitives.WriteInt64BigEndian(size, content.Length);
        await FrameAsync(2, 1, [0, 60, 0, 0, .. size, 0x30, 0, .. Long(table), 2]);
        await FrameAsync(3, 1, content);
        var answer = await ReadAsync();
        Assert.Equal([0, 60, 0, 80], answer[..4]);
    }

    public static byte[] Field(string name, char type, params byte[] value) => [.. Short(name), (byte)type, .. value];

    public static byte[] Long(byte[] bytes)
    {
        var all = new byte[4 + bytes.Length];
        BinaryPrimitives.WriteInt32BigEndian(all, bytes.Length);
        bytes.CopyTo(all, 4);
        return all;
    }

    public ValueTask DisposeAsync()
    {
        socket.Dispose();
        return ValueTask.CompletedTask;
    }

    private static byte[] Short(string text) => [(byte)Encoding.UTF8.GetByteCount(text), .. Encoding.UTF8.GetBytes(text)];

    private Task MethodAsync(ushort channel, ushort type, ushort method, byte[] arguments) => FrameAsync(1, channel, [0, (byte)type, 0, (byte)method, .. arguments]);

    private async Task FrameAsync(byte type, ushort channel, byte[] payload) =>
        await stream.WriteAsync((byte[])[type, 0, (byte)channel, .. Long(payload), 0xce], TestBroker.Stopping);

    private async Task<byte[]> ReadAsync()
    {
        while (true)
        {
            var head = new byte[7];
            await stream.ReadExactlyAsync(head, TestBroker.Stopping);
            var payload = new byte[BinaryPrimitives.ReadInt32BigEndian(head.AsSpan(3)) + 1];
            await stream.ReadExactlyAsync(payload, TestBroker.Stopping);
            if (head[0] != 8)
            {
                return payload[..^1];
            }
        }
    }
}

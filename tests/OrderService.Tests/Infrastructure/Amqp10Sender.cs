using System.Buffers.Binary;
using System.Net.Sockets;
using System.Text;

namespace OrderService.Tests.Infrastructure;

/// <summary>
/// A producer that speaks AMQP 1.0, written out by hand: its messages can carry what AMQP 0.9.1 has no form for. It sends one message after the other and waits until the
/// broker has accepted each.
/// </summary>
public sealed class Amqp10Sender : IAsyncDisposable
{
    private readonly TcpClient client = new();
    private uint next;

    private Amqp10Sender()
    {
    }

    /// <param name="broker">The address of a virtual host, as for AMQP 0.9.1.</param>
    public static async Task<Amqp10Sender> ConnectAsync(string broker, string queue)
    {
        var address = new Uri(broker);
        var sender = new Amqp10Sender();
        await sender.client.ConnectAsync(address.Host, address.Port);
        await sender.GreetAsync(3);
        await sender.FrameAsync(1, 0x41, Symbol("PLAIN"), Binary(Encoding.UTF8.GetBytes("\0" + Uri.UnescapeDataString(address.UserInfo).Replace(':', '\0'))));
        await sender.AwaitAsync(0x44);
        await sender.GreetAsync(0);
        await sender.FrameAsync(0, 0x10, Text("test"), Text("vhost:" + Uri.UnescapeDataString(address.AbsolutePath[1..])));
        await sender.FrameAsync(0, 0x11, Null, Number(0), Number(1000), Number(1000));
        await sender.FrameAsync(
            0, 0x12, Text("sender"), Number(0), False, Null, Null, Described(0x28, List()), Described(0x29, List(Text("/queues/" + queue))), Null, Null, Number(0));
        await sender.AwaitAsync(0x13);
        return sender;
    }

    /// <param name="properties">Pairs of a name and a value in AMQP 1.0's own encoding.</param>
    public async Task SendAsync(byte[] body, params (string Name, byte[] Value)[] properties)
    {
        byte[][] pairs = [.. properties.SelectMany(property => new[] { Text(property.Name), property.Value })];
        await FrameAsync(
            0, 0x14, [Number(0), Number(next), Binary(BitConverter.GetBytes(next)), Number(0), False, False],
            [.. Described(0x70, List(True)), .. Described(0x74, Compound(0xd1, pairs)), .. Described(0x75, Binary(body))]);
        next++;
        await AwaitAsync(0x15);
    }

    /// <summary>A UUID; AMQP 0.9.1 knows none.</summary>
    public static byte[] Uuid(Guid value) => [0x98, .. value.ToByteArray(bigEndian: true)];

    /// <summary>A character; AMQP 0.9.1 knows none.</summary>
    public static byte[] Character(char value) => [0x73, .. BigEndian(value)];

    public ValueTask DisposeAsync()
    {
        client.Dispose();
        return ValueTask.CompletedTask;
    }

    private static byte[] Null => [0x40];

    private static byte[] True => [0x41];

    private static byte[] False => [0x42];

    private static byte[] Number(uint value) => [0x70, .. BigEndian(value)];

    private static byte[] Text(string value) => Sized(0xb1, Encoding.UTF8.GetBytes(value));

    private static byte[] Symbol(string value) => Sized(0xb3, Encoding.ASCII.GetBytes(value));

    private static byte[] Binary(byte[] value) => Sized(0xb0, value);

    private static byte[] List(params byte[][] items) => Compound(0xd0, items);

    private static byte[] Compound(byte code, byte[][] items) => Sized(code, [.. BigEndian((uint)items.Length), .. items.SelectMany(item => item)]);

    private static byte[] Sized(byte code, byte[] content) => [code, .. BigEndian((uint)content.Length), .. content];

    private static byte[] Described(byte descriptor, byte[] value) => [0, 0x53, descriptor, .. value];

    private static byte[] BigEndian(uint value)
    {
        var bytes = new byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, value);
        return bytes;
    }

    private async Task GreetAsync(byte protocol)
    {
        byte[] greeting = [.. "AMQP"u8, protocol, 1, 0, 0];
        await client.GetStream().WriteAsync(greeting);
        var answer = new byte[8];
        await client.GetStream().ReadExactlyAsync(answer);
        Assert.Equal(greeting, answer);
    }

    private Task FrameAsync(byte type, byte descriptor, params byte[][] fields) => FrameAsync(type, descriptor, fields, []);

    private async Task FrameAsync(byte type, byte descriptor, byte[][] fields, byte[] payload)
    {
        byte[] content = [.. Described(descriptor, List(fields)), .. payload];
        await client.GetStream().WriteAsync((byte[])[.. BigEndian((uint)content.Length + 8), 2, type, 0, 0, .. content]);
    }

    /// <summary>Reads frames up to one of that kind.</summary>
    private async Task AwaitAsync(byte descriptor)
    {
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(30));
        while (true)
        {
            var size = new byte[4];
            await client.GetStream().ReadExactlyAsync(size, deadline.Token);
            var frame = new byte[BinaryPrimitives.ReadUInt32BigEndian(size) - 4];
            await client.GetStream().ReadExactlyAsync(frame, deadline.Token);
            // Behind the offset, the type and the channel: 0x00 0x53 and what it is; an empty frame is a heartbeat.
            if (frame.Length <= 6)
            {
                continue;
            }

            Assert.True(frame[6] is not (0x16 or 0x17 or 0x18), $"The broker refuses: {Encoding.ASCII.GetString(frame)}");
            if (frame[6] == descriptor)
            {
                return;
            }
        }
    }
}

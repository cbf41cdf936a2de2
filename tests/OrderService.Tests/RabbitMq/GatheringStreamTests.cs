using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using OrderService.RabbitMq;

namespace OrderService.Tests.RabbitMq;

/// <summary>The stream under every broker connection, between two sockets on loopback.</summary>
public sealed class GatheringStreamTests
{
    /// <summary>No system buffers as much of one connection as this.</summary>
    private static readonly byte[] MoreThanTheSystemHolds = new byte[32 * 1024 * 1024];

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Writes_of_all_sizes_arrive_whole_and_in_order_and_closing_loses_none()
    {
        var (stream, peer) = await ConnectAsync();
        using (peer)
        {
            var random = new Random(20261124);
            using var written = SHA256.Create();
            var total = 0L;
            var reading = ReadToEndAsync(peer);
            for (var index = 0; index < 3_000; index++)
            {
                var bytes = new byte[index % 500 == 0 ? (3 * GatheringStream.MostUnsent) + 7 : random.Next(1, 2_000)];
                random.NextBytes(bytes);
                written.TransformBlock(bytes, 0, bytes.Length, null, 0);
                total += bytes.Length;
                await stream.WriteAsync(bytes, Now);
                // The caller's buffer is its own again at once.
                Array.Clear(bytes);
            }
            written.TransformFinalBlock([], 0, 0);
            await stream.DisposeAsync();

            var arrived = await reading;
            Assert.Equal(total, arrived.LongLength);
            Assert.Equal(written.Hash, SHA256.HashData(arrived));
        }
    }

    [Fact]
    public async Task A_peer_that_does_not_read_holds_the_writer_up_until_it_reads()
    {
        var (stream, peer) = await ConnectAsync();
        using (peer)
        {
            await stream.WriteAsync(MoreThanTheSystemHolds, Now);
            var held = stream.WriteAsync(MoreThanTheSystemHolds, Now);
            Assert.False(held.IsCompleted);

            var reading = ReadToEndAsync(peer);
            await held;
            await stream.DisposeAsync();
            Assert.Equal(2 * MoreThanTheSystemHolds.Length, (await reading).Length);
        }
    }

    [Fact]
    public async Task A_writer_that_waits_for_room_can_be_cancelled()
    {
        var (stream, peer) = await ConnectAsync();
        using (peer)
        {
            using var cancel = CancellationTokenSource.CreateLinkedTokenSource(Now);
            await stream.WriteAsync(MoreThanTheSystemHolds, Now);
            var held = stream.WriteAsync(MoreThanTheSystemHolds, cancel.Token);
            Assert.False(held.IsCompleted);

            await cancel.CancelAsync();

            await Assert.ThrowsAnyAsync<OperationCanceledException>(async () => await held);
            peer.Close(0);
            await stream.DisposeAsync();
        }
    }

    [Fact]
    public async Task A_connection_that_broke_fails_the_writes_after_it()
    {
        var (stream, peer) = await ConnectAsync();
        await using (stream)
        {
            // A reset, not an orderly end.
            peer.LingerState = new LingerOption(true, 0);
            peer.Close();

            var failure = await Assert.ThrowsAsync<IOException>(async () =>
            {
                while (true)
                {
                    Now.ThrowIfCancellationRequested();
                    await stream.WriteAsync(new byte[1024], Now);
                }
            });

            Assert.IsType<IOException>(failure.InnerException);
        }
    }

    private static async Task<(GatheringStream Stream, Socket Peer)> ConnectAsync()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        var accepting = listener.AcceptSocketAsync(Now);
        await socket.ConnectAsync(listener.LocalEndpoint, Now);
        return (new GatheringStream(socket), await accepting);
    }

    private static async Task<byte[]> ReadToEndAsync(Socket peer)
    {
        using var arrived = new MemoryStream();
        await using var stream = new NetworkStream(peer);
        await stream.CopyToAsync(arrived, Now);
        return arrived.ToArray();
    }
}

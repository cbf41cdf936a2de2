using System.Net.Sockets;
using RabbitMQ.Client;

namespace OrderService.RabbitMq;

/// <summary>
/// A connection whose small writes leave together. The client writes each frame by itself, and a system call costs more than the frame: a burst of events is one send
/// instead of a hundred (docs/decisions/0013).
/// </summary>
internal sealed class GatheringTcpClient : TcpClientAdapter
{
    private readonly Socket socket;

    private GatheringTcpClient(Socket socket)
        : base(socket) => this.socket = socket;

    /// <summary>For <see cref="ConnectionFactory.SocketFactory"/>; the socket is set up as the client's own factory does it.</summary>
    public static ITcpClient Create(AddressFamily family) => new GatheringTcpClient(new Socket(family, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true });

    public override NetworkStream GetStream() => new GatheringStream(socket);
}

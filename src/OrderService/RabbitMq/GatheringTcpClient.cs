using System.Net;
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
    private readonly IPAddress to;

    private GatheringTcpClient(Socket socket, IPAddress to)
        : base(socket)
    {
        this.socket = socket;
        this.to = to;
    }

    /// <summary>For <see cref="ConnectionFactory.SocketFactory"/>; the socket is set up as the client's own factory does it.</summary>
    /// <param name="to">The address that is connected to, whichever the client found for the name.</param>
    public static ITcpClient Create(AddressFamily family, IPAddress to) => new GatheringTcpClient(new Socket(to.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true }, to);

    public override Task ConnectAsync(IPAddress host, int port, CancellationToken cancellationToken = default) => base.ConnectAsync(to, port, cancellationToken);

    public override NetworkStream GetStream() => new GatheringStream(socket);
}

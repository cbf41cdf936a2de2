using System.Net;
using System.Net.Sockets;

namespace OrderService.Tests.Infrastructure;

/// <summary>
/// A name with four addresses: the first answers nothing at all, at the second somebody takes connections and says nothing, at the third nobody listens, and the fourth leads to a server.
/// </summary>
public sealed class SeveralAddresses : IAsyncDisposable
{
    private static readonly IPAddress Deaf = IPAddress.Parse("127.0.0.4");
    private static readonly IPAddress Silent = IPAddress.Parse("127.0.0.2");
    private static readonly IPAddress Dead = IPAddress.Parse("127.0.0.3");

    private readonly CancellationTokenSource stop = new();
    private readonly TcpListener? forwarding;
    private readonly TcpListener silence;
    private readonly Socket deafness = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
    private readonly List<Socket> fillers = [];
    private readonly IPAddress[] addresses = [Deaf, Silent, Dead, IPAddress.Loopback];
    private readonly List<Task> connections = [];
    private readonly Task accepting = Task.CompletedTask;

    /// <param name="server">The port of a server on loopback.</param>
    /// <param name="forward">False when it listens at 127.0.0.1 alone, so that its port is free at the other addresses.</param>
    public SeveralAddresses(int server, bool forward = true)
    {
        Port = server;
        if (forward)
        {
            forwarding = new TcpListener(IPAddress.Loopback, 0);
            forwarding.Start();
            Port = ((IPEndPoint)forwarding.LocalEndpoint).Port;
            accepting = AcceptAsync(forwarding, server);
        }
        // The operating system answers for it; nobody ever reads.
        silence = new TcpListener(Silent, Port);
        silence.Start();
        deafness.Bind(new IPEndPoint(Deaf, Port));
        deafness.Listen(0);
        FillQueue();
    }

    public int Port { get; }

    /// <summary>How often the silent address was tried.</summary>
    public bool SilentWasTried => silence.Pending();

    public Task<IPAddress[]> ResolveAsync(string name, CancellationToken cancellationToken) => Task.FromResult(addresses);

    /// <summary>Where a connection that is open is enough: without the address at which somebody opens it and says nothing.</summary>
    public Task<IPAddress[]> ResolveWithoutSilentAsync(string name, CancellationToken cancellationToken) => Task.FromResult(addresses.Where(address => !address.Equals(Silent)).ToArray());

    public async ValueTask DisposeAsync()
    {
        await stop.CancelAsync();
        silence.Stop();
        deafness.Dispose();
        fillers.ForEach(filler => filler.Dispose());
        forwarding?.Stop();
        await accepting;
        await Task.WhenAll(connections);
        stop.Dispose();
    }

    /// <summary>Once the queue of those that wait to be accepted is full, the operating system drops whatever asks for a connection.</summary>
    private void FillQueue()
    {
        for (var count = 0; count < 16; count++)
        {
            var filler = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { Blocking = false };
            fillers.Add(filler);
            try
            {
                filler.Connect(new IPEndPoint(Deaf, Port));
            }
            catch (SocketException exception) when (exception.SocketErrorCode is SocketError.WouldBlock or SocketError.InProgress)
            {
                // Loopback answers before this returns, or the moment after.
            }
            if (!filler.Poll(TimeSpan.FromMilliseconds(200), SelectMode.SelectWrite))
            {
                return;
            }
        }
        throw new InvalidOperationException($"{Deaf} still takes connections.");
    }

    private async Task AcceptAsync(TcpListener from, int server)
    {
        try
        {
            while (true)
            {
                connections.Add(ForwardAsync(await from.AcceptTcpClientAsync(stop.Token), server));
            }
        }
        catch (Exception exception) when (exception is OperationCanceledException or SocketException or ObjectDisposedException)
        {
            // The test is over.
        }
    }

    private async Task ForwardAsync(TcpClient client, int server)
    {
        using (client)
        using (var other = new TcpClient())
        {
            try
            {
                await other.ConnectAsync(IPAddress.Loopback, server, stop.Token);
                await Task.WhenAny(client.GetStream().CopyToAsync(other.GetStream(), stop.Token), other.GetStream().CopyToAsync(client.GetStream(), stop.Token));
            }
            catch (Exception exception) when (exception is OperationCanceledException or IOException or SocketException)
            {
                // One of the two left.
            }
        }
    }
}

using System.Net;
using System.Net.Sockets;

namespace OrderService.Tests.Infrastructure;

/// <summary>
/// A name with four addresses: the first answers nothing at all, at the second somebody takes connections and says nothing, at the third nobody listens, and the fourth leads to a server.
/// The operating system sorts addresses; on loopback this is its order, unless the server itself listens at 127.0.0.1.
/// </summary>
public sealed class SeveralAddresses : IAsyncDisposable
{
    private static readonly IPAddress Silent = IPAddress.Parse("127.0.0.2");
    private static readonly IPAddress Dead = IPAddress.Parse("127.0.0.3");

    private readonly CancellationTokenSource stop = new();
    private readonly int server;
    private readonly TcpListener silence;
    private readonly Socket deafness = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
    private readonly List<Socket> fillers = [];
    private readonly IPAddress deaf;
    private readonly IPAddress[] addresses;
    private readonly List<Task> connections = [];
    private TcpListener? forwarding;
    private CancellationTokenSource cut = new();
    private Task accepting = Task.CompletedTask;

    /// <param name="server">The port of a server on loopback.</param>
    /// <param name="forward">False when it listens at 127.0.0.1 alone, so that its port is free at the other addresses.</param>
    public SeveralAddresses(int server, bool forward = true)
    {
        this.server = server;
        var live = forward ? IPAddress.Parse("127.0.0.4") : IPAddress.Loopback;
        deaf = forward ? IPAddress.Loopback : IPAddress.Parse("127.0.0.4");
        addresses = [deaf, Silent, Dead, live];
        deafness.Bind(new IPEndPoint(deaf, forward ? 0 : server));
        Port = ((IPEndPoint)deafness.LocalEndPoint!).Port;
        if (forward)
        {
            ForwardFrom(live);
        }
        // The operating system answers for it; nobody ever reads.
        silence = new TcpListener(Silent, Port);
        silence.Start();
        deafness.Listen(0);
        FillQueue();
    }

    /// <summary>Lines of <c>/etc/hosts</c> for a name with these addresses.</summary>
    /// <param name="silent">False where a connection that is open is enough: without the address at which somebody opens it and says nothing.</param>
    public static string Hosts(string name, bool silent = true) =>
        string.Concat(new[] { "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4" }.Where(address => silent || address != "127.0.0.2").Select(address => $"{address} {name}\n"));

    public int Port { get; }

    /// <summary>How often the silent address was tried.</summary>
    public bool SilentWasTried => silence.Pending();

    public Task<IPAddress[]> ResolveAsync(string name, CancellationToken cancellationToken) => Task.FromResult(addresses);

    /// <summary>Where a connection that is open is enough: without the address at which somebody opens it and says nothing.</summary>
    public Task<IPAddress[]> ResolveWithoutSilentAsync(string name, CancellationToken cancellationToken) => Task.FromResult(addresses.Where(address => !address.Equals(Silent)).ToArray());

    /// <summary>The server is at the third address from now on and no longer at the fourth; connections that are there end.</summary>
    public async Task MoveAsync()
    {
        forwarding!.Stop();
        await cut.CancelAsync();
        await accepting;
        await Task.WhenAll(connections);
        cut.Dispose();
        cut = CancellationTokenSource.CreateLinkedTokenSource(stop.Token);
        ForwardFrom(Dead);
    }

    public async ValueTask DisposeAsync()
    {
        await stop.CancelAsync();
        await cut.CancelAsync();
        silence.Stop();
        deafness.Dispose();
        fillers.ForEach(filler => filler.Dispose());
        forwarding?.Stop();
        await accepting;
        await Task.WhenAll(connections);
        cut.Dispose();
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
                filler.Connect(new IPEndPoint(deaf, Port));
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
        throw new InvalidOperationException($"{deaf} still takes connections.");
    }

    private void ForwardFrom(IPAddress address)
    {
        forwarding = new TcpListener(address, Port);
        forwarding.Start();
        accepting = AcceptAsync(forwarding, cut.Token);
    }

    private async Task AcceptAsync(TcpListener from, CancellationToken end)
    {
        try
        {
            while (true)
            {
                connections.Add(ForwardAsync(await from.AcceptTcpClientAsync(end), end));
            }
        }
        catch (Exception exception) when (exception is OperationCanceledException or SocketException or ObjectDisposedException)
        {
            // The server moves, or the test is over.
        }
    }

    private async Task ForwardAsync(TcpClient client, CancellationToken end)
    {
        using (client)
        using (var other = new TcpClient())
        {
            try
            {
                await other.ConnectAsync(IPAddress.Loopback, server, end);
                await Task.WhenAny(client.GetStream().CopyToAsync(other.GetStream(), end), other.GetStream().CopyToAsync(client.GetStream(), end));
            }
            catch (Exception exception) when (exception is OperationCanceledException or IOException or SocketException)
            {
                // One of the two left.
            }
        }
    }
}

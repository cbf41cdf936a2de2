using System.Net;
using System.Net.Sockets;

namespace OrderService.Tests.Infrastructure;

/// <summary>A name with three addresses: at the first somebody takes connections and says nothing, at the second nobody listens, and the third leads to a server.</summary>
public sealed class SeveralAddresses : IAsyncDisposable
{
    private static readonly IPAddress Silent = IPAddress.Parse("127.0.0.2");
    private static readonly IPAddress Dead = IPAddress.Parse("127.0.0.3");

    private readonly CancellationTokenSource stop = new();
    private readonly TcpListener? forwarding;
    private readonly TcpListener silence;
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
    }

    public int Port { get; }

    /// <summary>How often the silent address was tried.</summary>
    public bool SilentWasTried => silence.Pending();

    public Task<IPAddress[]> ResolveAsync(string name, CancellationToken cancellationToken) => Task.FromResult<IPAddress[]>([Silent, Dead, IPAddress.Loopback]);

    public async ValueTask DisposeAsync()
    {
        await stop.CancelAsync();
        silence.Stop();
        forwarding?.Stop();
        await accepting;
        await Task.WhenAll(connections);
        stop.Dispose();
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

using System.Net;
using System.Net.Sockets;

namespace OrderService.Chaos;

/// <summary>A network link that a trial can break: it forwards from a port of its own to a server on loopback.</summary>
internal sealed class Link : IAsyncDisposable
{
    private readonly TcpListener listener = new(IPAddress.Loopback, 0);
    private readonly int server;
    private readonly CancellationTokenSource stop = new();
    private readonly List<Task> connections = [];
    private readonly Task accepting;
    private CancellationTokenSource cut = new();
    private volatile TaskCompletionSource? silence;
    private long bytesHeld;

    public Link(int server)
    {
        this.server = server;
        listener.Start();
        accepting = AcceptAsync();
    }

    public int Port => ((IPEndPoint)listener.LocalEndpoint).Port;

    /// <summary>How long each read waits before it goes on, in each direction.</summary>
    public TimeSpan Delay { get; set; }

    /// <summary>How often a connection was waiting in silence: shows that a silence met something.</summary>
    public long Held => Interlocked.Read(ref bytesHeld);

    /// <summary>Connections stay open and nothing passes in either direction, as on a half-open link, until <see cref="Speak"/>.</summary>
    public void Silence() => silence = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);

    public void Speak() => Interlocked.Exchange(ref silence, null)?.SetResult();

    /// <summary>Ends every connection with a TCP reset; new ones are taken.</summary>
    /// <returns>How many there were.</returns>
    public int Reset()
    {
        int count;
        lock (connections)
        {
            count = connections.Count(connection => !connection.IsCompleted);
        }
        Interlocked.Exchange(ref cut, new CancellationTokenSource()).Cancel();
        return count;
    }

    public async ValueTask DisposeAsync()
    {
        await stop.CancelAsync();
        Speak();
        Reset();
        listener.Stop();
        await accepting;
        await Task.WhenAll(connections);
    }

    private async Task AcceptAsync()
    {
        while (!stop.IsCancellationRequested)
        {
            Socket client;
            try
            {
                client = await listener.AcceptSocketAsync(stop.Token);
            }
            catch (Exception exception) when (exception is OperationCanceledException or SocketException or ObjectDisposedException)
            {
                return;
            }
            lock (connections)
            {
                connections.RemoveAll(connection => connection.IsCompleted);
                connections.Add(ServeAsync(client));
            }
        }
    }

    private async Task ServeAsync(Socket client)
    {
        // Closing with a linger of zero sends a reset.
        client.LingerState = new LingerOption(true, 0);
        client.NoDelay = true;
        using var toServer = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        using (client)
        using (var ending = CancellationTokenSource.CreateLinkedTokenSource(cut.Token, stop.Token))
        {
            try
            {
                await toServer.ConnectAsync(IPAddress.Loopback, server, ending.Token);
                await Task.WhenAny(ForwardAsync(client, toServer, ending.Token), ForwardAsync(toServer, client, ending.Token));
            }
            catch (Exception exception) when (exception is SocketException or OperationCanceledException)
            {
                // The server is away: the client sees a reset.
            }
            await ending.CancelAsync();
        }
    }

    private async Task ForwardAsync(Socket from, Socket to, CancellationToken cancellationToken)
    {
        var buffer = new byte[64 * 1024];
        try
        {
            for (var count = await from.ReceiveAsync(buffer, cancellationToken); count > 0; count = await from.ReceiveAsync(buffer, cancellationToken))
            {
                if (silence is { } quiet)
                {
                    Interlocked.Increment(ref bytesHeld);
                    await quiet.Task.WaitAsync(cancellationToken);
                }
                if (Delay > TimeSpan.Zero)
                {
                    await Task.Delay(Delay, cancellationToken);
                }
                for (var sent = 0; sent < count; sent += await to.SendAsync(buffer.AsMemory(sent, count - sent), cancellationToken))
                {
                }
            }
        }
        catch (Exception exception) when (exception is SocketException or OperationCanceledException or ObjectDisposedException)
        {
            // One side ended: so does the other.
        }
    }
}

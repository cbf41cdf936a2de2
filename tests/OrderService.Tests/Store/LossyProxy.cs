using System.Net;
using System.Net.Sockets;
using Npgsql;

namespace OrderService.Tests.Store;

/// <summary>Stands between the service and PostgreSQL and loses, on demand, what one of them sends.</summary>
internal sealed class LossyProxy : IAsyncDisposable
{
    private readonly TcpListener listener = new(IPAddress.Loopback, 0);
    private readonly int serverPort;
    private readonly Task accepting;
    private readonly List<Task> connections = [];
    private int loseAnswers;
    private int loseCommit;
    private long budget = long.MaxValue;
    private int lost;

    public LossyProxy(int serverPort)
    {
        this.serverPort = serverPort;
        listener.Start();
        accepting = AcceptAsync();
    }

    /// <summary>How many connections were cut.</summary>
    public int Lost => Volatile.Read(ref lost);

    public string Through(string connectionString) =>
        new NpgsqlConnectionStringBuilder(connectionString) { Host = "127.0.0.1", Port = ((IPEndPoint)listener.LocalEndpoint).Port }.ToString();

    /// <summary>The server gets the next request whole; its answer is lost with the connection, once the server is through with it.</summary>
    public void LoseTheNextAnswers() => Volatile.Write(ref loseAnswers, 1);

    /// <summary>The next COMMIT takes effect and its answer is lost with the connection; what is answered before it arrives.</summary>
    public void LoseTheAnswerToTheNextCommit() => Volatile.Write(ref loseCommit, 1);

    /// <summary>The connection ends after this many more bytes to the server.</summary>
    public void CutAfter(long bytes) => Interlocked.Exchange(ref budget, bytes);

    public async ValueTask DisposeAsync()
    {
        listener.Stop();
        await accepting;
        await Task.WhenAll(connections);
    }

    private async Task AcceptAsync()
    {
        try
        {
            while (true)
            {
                connections.Add(ServeAsync(await listener.AcceptTcpClientAsync()));
            }
        }
        catch (Exception exception) when (exception is SocketException or ObjectDisposedException)
        {
            // The test is over.
        }
    }

    private async Task ServeAsync(TcpClient client)
    {
        using (client)
        using (var server = new TcpClient())
        {
            await server.ConnectAsync(IPAddress.Loopback, serverPort);
            await Task.WhenAny(ToServerAsync(client.GetStream(), server.GetStream()), ToClientAsync(server.GetStream(), client.GetStream()));
        }
    }

    private async Task ToServerAsync(NetworkStream client, NetworkStream server)
    {
        var buffer = new byte[64 * 1024];
        try
        {
            for (var count = await client.ReadAsync(buffer); count > 0; count = await client.ReadAsync(buffer))
            {
                if (Interlocked.Read(ref budget) is < long.MaxValue and var left)
                {
                    await server.WriteAsync(buffer.AsMemory(0, (int)Math.Min(left, count)));
                    if (Interlocked.Add(ref budget, -count) <= 0)
                    {
                        Interlocked.Exchange(ref budget, long.MaxValue);
                        Interlocked.Increment(ref lost);
                        return;
                    }
                    continue;
                }
                await server.WriteAsync(buffer.AsMemory(0, count));
            }
        }
        catch (Exception exception) when (exception is IOException or SocketException or ObjectDisposedException)
        {
            // One side is gone.
        }
    }

    private async Task ToClientAsync(NetworkStream server, NetworkStream client)
    {
        var buffer = new byte[64 * 1024];
        try
        {
            for (var count = await server.ReadAsync(buffer); count > 0; count = await server.ReadAsync(buffer))
            {
                if (Volatile.Read(ref loseAnswers) == 1)
                {
                    // An answer ends with ReadyForQuery: the type Z, the length 5, and I for "no transaction is open".
                    if (!buffer.AsSpan(0, count).EndsWith("Z\0\0\0\u0005I"u8))
                    {
                        continue;
                    }
                    Volatile.Write(ref loseAnswers, 0);
                    Interlocked.Increment(ref lost);
                    return;
                }
                // As above, after the command's name.
                if (buffer.AsSpan(0, count).EndsWith("COMMIT\0Z\0\0\0\u0005I"u8) && Interlocked.Exchange(ref loseCommit, 0) == 1)
                {
                    Interlocked.Increment(ref lost);
                    return;
                }
                await client.WriteAsync(buffer.AsMemory(0, count));
            }
        }
        catch (Exception exception) when (exception is IOException or SocketException or ObjectDisposedException)
        {
            // One side is gone.
        }
    }
}

using System.Net;
using System.Net.Sockets;

namespace OrderService;

/// <summary>
/// Connects to a name that has several addresses. They share the time there is: the first one gets a head start, and when it has not answered by then the next is tried beside it,
/// so that one that is dead or silent holds nobody up. Whoever answers first is taken.
/// </summary>
internal static class EveryAddress
{
    private static readonly TimeSpan LongestHeadStart = TimeSpan.FromSeconds(1);

    /// <summary>Looks a name up and connects to one of its addresses.</summary>
    /// <param name="host">A name, or an address.</param>
    /// <param name="resolve">The operating system's when null; names are looked up anew each time.</param>
    /// <param name="connect">Connects to one address as far as hearing from the other side: a port that is open may be silent all the same.</param>
    /// <param name="discard">Closes a connection that came too late.</param>
    /// <param name="timeout">How much time there is for all of them; keeping to it is up to the caller.</param>
    public static async Task<T> ConnectAsync<T>(
        string host,
        Func<string, CancellationToken, Task<IPAddress[]>>? resolve,
        Func<IPAddress, CancellationToken, Task<T>> connect,
        Action<T> discard,
        TimeSpan timeout,
        TimeProvider clock,
        CancellationToken cancellationToken) =>
        await FirstAsync(await AddressesAsync(host, resolve, cancellationToken), connect, discard, timeout, clock, cancellationToken);

    /// <summary>The same for addresses that are known, or for anything else that one of several can be reached by.</summary>
    public static async Task<T> FirstAsync<TWay, T>(
        IReadOnlyList<TWay> ways, Func<TWay, CancellationToken, Task<T>> connect, Action<T> discard, TimeSpan timeout, TimeProvider clock, CancellationToken cancellationToken)
    {
        if (ways.Count == 1)
        {
            return await connect(ways[0], cancellationToken);
        }
        var headStart = timeout / (ways.Count + 1) < LongestHeadStart ? timeout / (ways.Count + 1) : LongestHeadStart;
        using var enough = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var running = new List<Task<T>>(ways.Count);
        Exception? last = null;
        var next = 0;
        try
        {
            while (running.Count > 0 || next < ways.Count)
            {
                if (next < ways.Count)
                {
                    running.Add(connect(ways[next++], enough.Token));
                }
                var first = Task.WhenAny(running);
                if (next < ways.Count && await Task.WhenAny(first, Task.Delay(headStart, clock, enough.Token)) != first)
                {
                    cancellationToken.ThrowIfCancellationRequested();
                    continue;
                }
                var ended = await first.WaitAsync(cancellationToken);
                running.Remove(ended);
                if (ended.IsCompletedSuccessfully)
                {
                    return await ended;
                }
                cancellationToken.ThrowIfCancellationRequested();
                last = ended.Exception?.InnerException ?? new OperationCanceledException();
            }
            throw last ?? new SocketException((int)SocketError.HostNotFound);
        }
        finally
        {
            await enough.CancelAsync();
            foreach (var late in running)
            {
                _ = late.ContinueWith(
                    task =>
                    {
                        if (task.IsCompletedSuccessfully)
                        {
                            discard(task.Result);
                        }
                        else
                        {
                            _ = task.Exception;
                        }
                    },
                    CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
            }
        }
    }

    /// <summary>For <see cref="SocketsHttpHandler.ConnectCallback"/>.</summary>
    public static Func<SocketsHttpConnectionContext, CancellationToken, ValueTask<Stream>> ForHttp(Func<string, CancellationToken, Task<IPAddress[]>>? resolve, TimeSpan timeout) =>
        async (context, cancellationToken) => new NetworkStream(
            await ConnectAsync(
                context.DnsEndPoint.Host, resolve, (address, token) => ConnectAsync(address, context.DnsEndPoint.Port, token), late => late.Dispose(), timeout, TimeProvider.System, cancellationToken),
            ownsSocket: true);

    /// <summary>Connects a socket to a port of one address.</summary>
    public static async Task<Socket> ConnectAsync(IPAddress address, int port, CancellationToken cancellationToken)
    {
        var socket = new Socket(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            await socket.ConnectAsync(address, port, cancellationToken);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private static async Task<IReadOnlyList<IPAddress>> AddressesAsync(string host, Func<string, CancellationToken, Task<IPAddress[]>>? resolve, CancellationToken cancellationToken)
    {
        if (IPAddress.TryParse(host, out var literal))
        {
            return [literal];
        }
        var addresses = await (resolve ?? Dns.GetHostAddressesAsync)(host, cancellationToken);
        return addresses.Length > 0 ? [.. addresses.Distinct()] : throw new SocketException((int)SocketError.HostNotFound);
    }
}

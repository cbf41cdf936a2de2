using System.Net;
using Microsoft.AspNetCore.Connections;

namespace OrderService.Admin;

/// <summary>
/// How many connections there may be, in all and of one address. Who brings a right key is let in whatever others do: a connection beyond the limit takes the place of the oldest one
/// that has not brought a key, so holding connections open gains nothing, and one that has brought a key is never closed for another.
/// </summary>
/// <param name="most">In all.</param>
/// <param name="mostOfAddress">Of one address (of IPv6, one /64), not counting those that have brought a key.</param>
/// <param name="isProxy">Whether an address is a trusted proxy's: many callers come from there, so only the whole is bounded.</param>
/// <param name="closed">Told the address of each connection that was closed for another, or not taken.</param>
internal sealed class ConnectionLimit(int most, int mostOfAddress, Func<IPAddress, bool> isProxy, Action<string> closed)
{
    private readonly Lock gate = new();

    /// <summary>Those without a key, oldest first; also by address.</summary>
    private readonly LinkedList<Place> strangers = new();
    private readonly Dictionary<string, LinkedList<Place>> byNetwork = new(StringComparer.Ordinal);
    private int count;

    /// <summary>The request's caller is known: its connection stays.</summary>
    public static void Know(HttpContext context) => context.Features.Get<Place>()?.Know();

    public ConnectionDelegate Limit(ConnectionDelegate next) => async connection =>
    {
        var place = new Place(this, connection, Network(connection.RemoteEndPoint));
        var isIn = TryEnter(place, out var evicted);
        if (evicted is not null)
        {
            closed(evicted.Network!);
            evicted.Connection.Abort(new ConnectionAbortedException("Another connection takes its place."));
        }
        if (!isIn)
        {
            closed(place.Network ?? "proxies");
            connection.Abort(new ConnectionAbortedException("There are too many connections."));
            return;
        }
        connection.Features.Set(place);
        try
        {
            await next(connection);
        }
        finally
        {
            Leave(place);
        }
    };

    /// <summary>Null for a trusted proxy, and for who comes by another way than an IP address.</summary>
    private string? Network(EndPoint? remote) => remote is IPEndPoint { Address: var address } && !isProxy(CallerRight.Plain(address)!) ? RateLimits.NetworkOf(address) : null;

    private bool TryEnter(Place place, out Place? evicted)
    {
        lock (gate)
        {
            evicted = place.Network is { } network && byNetwork.TryGetValue(network, out var same) && same.Count >= mostOfAddress ? same.First!.Value
                : count >= most ? strangers.First?.Value
                : null;
            if (evicted is not null)
            {
                Forget(evicted);
                evicted.IsOut = true;
            }
            else if (count >= most)
            {
                return false;
            }
            else
            {
                count++;
            }
            if (place.Network is not null)
            {
                place.InAll = strangers.AddLast(place);
                if (!byNetwork.TryGetValue(place.Network, out var ofNetwork))
                {
                    byNetwork[place.Network] = ofNetwork = new();
                }
                place.InNetwork = ofNetwork.AddLast(place);
            }
            return true;
        }
    }

    private void Leave(Place place)
    {
        lock (gate)
        {
            Forget(place);
            // The place of one that was closed for another is taken.
            count -= place.IsOut ? 0 : 1;
        }
    }

    /// <summary>Takes it out of the strangers.</summary>
    private void Forget(Place place)
    {
        if (place.InAll is not { } inAll)
        {
            return;
        }
        strangers.Remove(inAll);
        var ofNetwork = byNetwork[place.Network!];
        ofNetwork.Remove(place.InNetwork!);
        if (ofNetwork.Count == 0)
        {
            byNetwork.Remove(place.Network!);
        }
        place.InAll = place.InNetwork = null;
    }

    private sealed class Place(ConnectionLimit limit, ConnectionContext connection, string? network)
    {
        public ConnectionContext Connection => connection;

        public string? Network => network;

        public LinkedListNode<Place>? InAll { get; set; }

        public LinkedListNode<Place>? InNetwork { get; set; }

        public bool IsOut { get; set; }

        public void Know()
        {
            lock (limit.gate)
            {
                limit.Forget(this);
            }
        }
    }
}

using System.Net;
using System.Net.Sockets;

namespace OrderService.Notifications;

/// <summary>
/// Where a webhook may go. A URL is judged when it is configured and its addresses again at each connection, because a name can resolve to
/// something else by then; what is connected to is the very address that was judged.
/// </summary>
public static class WebhookTarget
{
    private static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(10);

    /// <summary>What is wrong with a URL, as the end of a sentence that begins with its key; null when nothing is.</summary>
    public static string? Problem(string url, IEnumerable<string> allowedHosts)
    {
        if (!Uri.TryCreate(url, UriKind.Absolute, out var uri) || uri.Scheme is not ("https" or "http") || uri.Host.Length == 0)
        {
            return "is missing or not an https URL.";
        }
        if (uri.UserInfo.Length > 0)
        {
            return "holds a user name or password; put secrets into the path or use Alerts:Webhook:Secret.";
        }
        if (IsAllowed(uri.IdnHost, allowedHosts))
        {
            return null;
        }
        if (uri.Scheme != "https")
        {
            return "is not https; http needs its host in AllowedHosts.";
        }
        if (uri.Port is not (443 or >= 1024))
        {
            return $"uses port {uri.Port}, which belongs to another service; use 443 or a port from 1024.";
        }
        var host = Normalize(uri.IdnHost);
        if (host is "localhost" || host.EndsWith(".localhost", StringComparison.Ordinal))
        {
            return "points to this machine; that needs its host in AllowedHosts.";
        }
        return IPAddress.TryParse(host, out var address) && IsPrivate(address)
            ? "points to a private, loopback or otherwise special address; that needs its host in AllowedHosts."
            : null;
    }

    /// <summary>A handler that connects to public addresses (any address for the allowed hosts), follows no redirect and uses no proxy.</summary>
    public static SocketsHttpHandler Handler(IReadOnlyCollection<string> allowedHosts, Func<string, CancellationToken, Task<IPAddress[]>>? resolve = null)
    {
        resolve ??= Dns.GetHostAddressesAsync;
        return new SocketsHttpHandler
        {
            AllowAutoRedirect = false,
            UseProxy = false,
            UseCookies = false,
            ConnectTimeout = ConnectTimeout,
            MaxResponseHeadersLength = 64,
            MaxResponseDrainSize = 64 * 1024,
            ResponseDrainTimeout = TimeSpan.FromSeconds(1),
            PooledConnectionLifetime = TimeSpan.FromMinutes(2),
            ConnectCallback = async (context, cancellationToken) =>
            {
                var host = Normalize(context.DnsEndPoint.Host);
                var addresses = IPAddress.TryParse(host, out var literal) ? [literal] : await resolve(host, cancellationToken);
                if (addresses.Length == 0)
                {
                    throw new SocketException((int)SocketError.HostNotFound);
                }
                if (!IsAllowed(host, allowedHosts) && addresses.Any(IsPrivate))
                {
                    throw new ForbiddenTargetException("its name resolves to a private, loopback or otherwise special address");
                }
                // Not by name: a second look-up could answer differently.
                return new NetworkStream(
                    await EveryAddress.FirstAsync(
                        addresses, (address, token) => EveryAddress.ConnectAsync(address, context.DnsEndPoint.Port, token), late => late.Dispose(), ConnectTimeout, TimeProvider.System, cancellationToken),
                    ownsSocket: true);
            },
        };
    }

    /// <summary>Everything that is not plainly a public unicast address, however it is wrapped into IPv6.</summary>
    public static bool IsPrivate(IPAddress address)
    {
        Span<byte> bytes = stackalloc byte[16];
        address.TryWriteBytes(bytes, out var length);
        return length == 4 ? IsPrivateV4(bytes[..4]) : IsPrivateV6(bytes);
    }

    private static bool IsPrivateV4(ReadOnlySpan<byte> a) => (a[0], a[1], a[2]) switch
    {
        (0 or 10 or 127, _, _) => true,
        (100, >= 64 and <= 127, _) => true,
        (169, 254, _) => true,
        (172, >= 16 and <= 31, _) => true,
        (192, 0, 0 or 2) => true,
        (192, 88, 99) => true,
        (192, 168, _) => true,
        (198, 18 or 19, _) => true,
        (198, 51, 100) => true,
        (203, 0, 113) => true,
        ( >= 224, _, _) => true,
        _ => false,
    };

    private static bool IsPrivateV6(ReadOnlySpan<byte> a)
    {
        // ::ffff:a.b.c.d and 64:ff9b::a.b.c.d carry an IPv4 address in their last four bytes.
        if (a[..10].IndexOfAnyExcept((byte)0) < 0 && a[10] == 0xff && a[11] == 0xff)
        {
            return IsPrivateV4(a[12..]);
        }
        if (a[..12].SequenceEqual((ReadOnlySpan<byte>)[0x00, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0]))
        {
            return IsPrivateV4(a[12..]);
        }
        return (a[0], a[1], a[2], a[3]) switch
        {
            (0x20, 0x01, <= 0x01, _) => true,               // Teredo, benchmarking, ORCHID
            (0x20, 0x01, 0x0d, 0xb8) => true,               // documentation
            (0x20, 0x02, _, _) => true,                     // 6to4 carries any IPv4 address
            (0x3f, 0xff, <= 0x0f, _) => true,               // documentation
            ( >= 0x20 and <= 0x3f, _, _, _) => false,       // global unicast
            _ => true,
        };
    }

    private static bool IsAllowed(string host, IEnumerable<string> allowedHosts) =>
        allowedHosts.Any(allowed => string.Equals(Normalize(allowed), Normalize(host), StringComparison.OrdinalIgnoreCase));

    private static string Normalize(string host) => host.Trim().TrimEnd('.').Trim('[', ']').ToLowerInvariant();
}

/// <summary>A webhook's name led to an address it must not reach.</summary>
public sealed class ForbiddenTargetException(string message) : Exception(message);

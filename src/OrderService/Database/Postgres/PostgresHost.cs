using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Npgsql;

namespace OrderService.Database;

/// <summary>Where the primary may be: a host of the connection string, or one of its addresses.</summary>
/// <param name="Name">As the connection string has it; its certificate is for this name.</param>
/// <param name="Host">The same, or an address of it.</param>
internal sealed record PostgresHost(string Name, string Host, int Port)
{
    public bool IsSocket => Host.StartsWith('/') || Host.StartsWith('@');

    public bool IsAddress => IPAddress.TryParse(Host, out _);

    /// <summary>The hosts that the connection string lists, each with a port of its own or the one of all.</summary>
    public static IReadOnlyList<PostgresHost> List(NpgsqlConnectionStringBuilder given) =>
        [.. (given.Host ?? "").Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries).Select(host => Read(host, given.Port))];

    /// <summary>Their addresses, in the order of the list. A name that is not known at the moment is left out unless none is.</summary>
    public static async Task<IReadOnlyList<PostgresHost>> AddressesAsync(
        IReadOnlyList<PostgresHost> hosts, Func<string, CancellationToken, Task<IPAddress[]>> resolve, CancellationToken cancellationToken)
    {
        SocketException? unknown = null;
        async Task<IEnumerable<PostgresHost>> LookUpAsync(PostgresHost host)
        {
            try
            {
                return host.IsAddress ? [host] : (await resolve(host.Name, cancellationToken)).Select(address => host with { Host = address.ToString() });
            }
            catch (SocketException exception)
            {
                unknown = exception;
                return [];
            }
        }
        PostgresHost[] found = [.. (await Task.WhenAll(hosts.Select(LookUpAsync))).SelectMany(addresses => addresses).Distinct()];
        return found.Length > 0 || unknown is null ? found : throw unknown;
    }

    /// <summary>As Npgsql reads it: <c>name</c>, <c>name:port</c>, <c>[address]:port</c>; an IPv6 address without brackets has no port.</summary>
    private static PostgresHost Read(string text, int port)
    {
        var colon = text.LastIndexOf(':');
        var own = port;
        var isPort = colon > 0 && (text.IndexOf(':', StringComparison.Ordinal) == colon || text[colon - 1] == ']') && !text.StartsWith('/') && !text.StartsWith('@')
            && int.TryParse(text[(colon + 1)..], NumberStyles.None, CultureInfo.InvariantCulture, out own);
        var host = (isPort ? text[..colon] : text).TrimStart('[').TrimEnd(']');
        return new PostgresHost(host, host, isPort ? own : port);
    }
}

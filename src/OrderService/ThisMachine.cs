using System.Net;

namespace OrderService;

/// <summary>Which addresses never leave this machine, so that what goes there needs no encryption.</summary>
internal static class ThisMachine
{
    /// <param name="host">A name or an address, an IPv6 address with or without brackets.</param>
    public static bool Is(string host) =>
        host.Equals("localhost", StringComparison.OrdinalIgnoreCase) || (IPAddress.TryParse(host.Trim('[', ']'), out var address) && IPAddress.IsLoopback(address));
}

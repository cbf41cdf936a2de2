using System.Diagnostics.CodeAnalysis;
using System.Globalization;

namespace OrderService.RabbitMq;

/// <summary>One node of the broker.</summary>
internal readonly record struct BrokerHost(string Name, int Port)
{
    public override string ToString() => Name.Contains(':', StringComparison.Ordinal) ? $"[{Name}]:{Port}" : $"{Name}:{Port}";
}

/// <summary>What the options say about where the broker is and who we are there.</summary>
internal sealed class BrokerAddress
{
    private BrokerAddress() { }

    public required bool Tls { get; init; }
    public required string User { get; init; }
    public required string Password { get; init; }
    public required string VirtualHost { get; init; }
    public required IReadOnlyList<BrokerHost> Hosts { get; init; }

    public string Redacted => $"{(Tls ? "amqps" : "amqp")}://{string.Join(',', Hosts)}/{(VirtualHost == "/" ? "" : System.Uri.EscapeDataString(VirtualHost))}";

    // The client's own reading of an amqps:// address accepts a certificate for any host name, so we read it ourselves.
    public static bool TryParse(RabbitMqOptions options, [NotNullWhen(true)] out BrokerAddress? address, out IReadOnlyList<string> mistakes)
    {
        address = null;
        var found = new List<string>();
        mistakes = found;
        if (!System.Uri.TryCreate(options.Uri, UriKind.Absolute, out var uri) || uri.Scheme is not ("amqp" or "amqps") || string.IsNullOrEmpty(uri.Host))
        {
            found.Add("RabbitMq:Uri is not an address of the form amqp://user:password@host:port/virtual-host or amqps://...");
            return false;
        }

        var path = uri.AbsolutePath.Split('/', StringSplitOptions.RemoveEmptyEntries);
        if (path.Length > 1 || uri.Query.Length > 0)
        {
            found.Add("RabbitMq:Uri has more after the virtual host than is understood; write a slash inside the virtual host's name as %2F.");
        }

        var tls = uri.Scheme == "amqps";
        var defaultPort = tls ? 5671 : 5672;
        var hosts = new List<BrokerHost>();
        foreach (var endpoint in options.Endpoints)
        {
            if (System.Uri.TryCreate($"amqp://{endpoint}", UriKind.Absolute, out var node) && node.UserInfo.Length == 0 && node.AbsolutePath is "" or "/" && node!.Host.Length > 0)
            {
                hosts.Add(new BrokerHost(node.DnsSafeHost, node.Port == -1 ? defaultPort : node.Port));
            }
            else
            {
                found.Add(string.Create(CultureInfo.InvariantCulture, $"RabbitMq:Endpoints:{options.Endpoints.IndexOf(endpoint)} is not of the form host or host:port."));
            }
        }

        var apart = options.Username is not null || options.Password is not null;
        if (apart && uri.UserInfo is not ("" or "guest:guest"))
        {
            found.Add("RabbitMq:Uri names a user, and so does RabbitMq:Username or RabbitMq:Password; keep one of the two.");
        }
        else if (apart && (string.IsNullOrEmpty(options.Username) || string.IsNullOrEmpty(options.Password)))
        {
            found.Add("RabbitMq:Username and RabbitMq:Password go together; one of them is missing.");
        }

        if (found.Count > 0)
        {
            return false;
        }

        if (hosts.Count == 0)
        {
            hosts.Add(new BrokerHost(uri.DnsSafeHost, uri.Port == -1 ? defaultPort : uri.Port));
        }

        var credentials = uri.UserInfo.Split(':', 2);
        address = new BrokerAddress
        {
            Tls = tls,
            User = options.Username ?? (uri.UserInfo.Length == 0 ? "guest" : System.Uri.UnescapeDataString(credentials[0])),
            Password = options.Password ?? (uri.UserInfo.Length == 0 ? "guest" : credentials.Length == 2 ? System.Uri.UnescapeDataString(credentials[1]) : ""),
            VirtualHost = path.Length == 0 ? "/" : System.Uri.UnescapeDataString(path[0]),
            Hosts = hosts,
        };
        return true;
    }
}

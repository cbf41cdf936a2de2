using System.Net;
using System.Net.Security;
using System.Security.Cryptography.X509Certificates;
using Microsoft.Extensions.Options;
using RabbitMQ.Client;

namespace OrderService.RabbitMq;

/// <summary>Opens connections. The client's automatic recovery is off: whoever holds a connection builds a new one, with everything on it, when it is lost.</summary>
public sealed class BrokerConnector
{
    private readonly RabbitMqOptions options;
    private readonly BrokerAddress address;
    private readonly TimeProvider clock;
    private volatile IPAddress? answered;

    public BrokerConnector(IOptions<RabbitMqOptions> options, TimeProvider clock)
    {
        this.options = options.Value;
        this.clock = clock;
        if (!BrokerAddress.TryParse(this.options, out var address, out var mistakes))
        {
            throw new OptionsValidationException(RabbitMqOptions.Section, typeof(RabbitMqOptions), mistakes);
        }

        this.address = address;
    }

    /// <summary>Host, port and virtual host, without credentials.</summary>
    public string Redacted => address.Redacted;

    /// <summary>The virtual host everything lives in.</summary>
    public string VirtualHost => address.VirtualHost;

    internal RabbitMqOptions Options => options;

    internal BrokerAddress Address => address;

    /// <summary>Looks a name up; the operating system's way unless a test has another.</summary>
    internal Func<string, CancellationToken, Task<IPAddress[]>>? Resolve { get; init; }

    /// <summary>Opens a connection to the first endpoint, in random order, that answers, by whichever of its addresses; host names are looked up anew.</summary>
    /// <param name="purpose">Ends up in the broker's list of connections behind the name of the service and the machine.</param>
    /// <param name="left">Where the connection before this one went; tried last. A node that is cut off from the others answers, and serves nothing.</param>
    /// <exception cref="TimeoutException">Nothing answered within <see cref="RabbitMqOptions.ConnectTimeout"/>.</exception>
    public async Task<IConnection> OpenAsync(string purpose, CancellationToken stopping, AmqpTcpEndpoint? left = null)
    {
        using var cancel = CancellationTokenSource.CreateLinkedTokenSource(stopping);
        var name = $"{options.ConnectionName} {purpose} @{Environment.MachineName}";
        var opening = EveryAddress.FirstAsync(Hosts(left), (host, token) => OpenAsync(host, name, left, token), Discard, options.ConnectTimeout, clock, cancel.Token);
        try
        {
            // The client's own cancellation can hang, so the wait has an end of its own.
            return await opening.WaitAsync(options.ConnectTimeout, clock, stopping);
        }
        catch
        {
            await cancel.CancelAsync();
            _ = opening.ContinueWith(static late => Discard(late), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
            throw;
        }
    }

    private async Task<IConnection> OpenAsync(BrokerHost host, string name, AmqpTcpEndpoint? left, CancellationToken cancellationToken)
    {
        // Where the connection before this one went comes last among the addresses as well; the one that answered others first, so that silent ones cost the first connection only.
        var last = (left as AddressedEndpoint)?.Address;
        async Task<IPAddress[]> LookUp(string hostName, CancellationToken token) =>
            [.. (await (Resolve ?? Dns.GetHostAddressesAsync)(hostName, token)).OrderBy(address => address.Equals(last) ? 2 : address.Equals(answered) ? 0 : 1)];

        var connection = await EveryAddress.ConnectAsync(
            host.Name, LookUp,
            (address, token) => CreateFactory(address).CreateConnectionAsync([new AddressedEndpoint(host, address, Ssl(host))], name, token),
            Discard, options.ConnectTimeout / address.Hosts.Count, clock, cancellationToken);
        answered = (connection.Endpoint as AddressedEndpoint)?.Address;
        return connection;
    }

    private static void Discard(IConnection late) => _ = DisposeQuietlyAsync(late);

    private static void Discard(Task<IConnection> late)
    {
        if (late.IsCompletedSuccessfully)
        {
            _ = DisposeQuietlyAsync(late.Result);
        }
        else
        {
            _ = late.Exception;
        }
    }

    /// <summary>Closes without waiting for a peer that may be gone: at most 3 s for the polite part, at most 5 s in all.</summary>
    internal static async Task DisposeQuietlyAsync(IConnection? connection)
    {
        if (connection is null)
        {
            return;
        }

        Task closing = Task.Run(async () =>
        {
            try
            {
                await connection.CloseAsync(200, "Goodbye", TimeSpan.FromSeconds(3), abort: true, CancellationToken.None);
                await connection.DisposeAsync();
            }
            catch (Exception)
            {
                // Nothing is left to be done with it: the broker, or the operating system, ends its side.
            }
        });

        try
        {
            await closing.WaitAsync(TimeSpan.FromSeconds(5));
        }
        catch (TimeoutException)
        {
            // A writer that is stuck on a stalled peer ends with its socket's own timeout.
        }
    }

    private ConnectionFactory CreateFactory(IPAddress to) => new()
    {
        UserName = address.User,
        Password = address.Password,
        VirtualHost = address.VirtualHost,
        AutomaticRecoveryEnabled = false,
        TopologyRecoveryEnabled = false,
        ConsumerDispatchConcurrency = 1,
        RequestedHeartbeat = options.Heartbeat,
        RequestedConnectionTimeout = Shorter(options.ConnectTimeout, TimeSpan.FromSeconds(5)),
        HandshakeContinuationTimeout = options.ConnectTimeout,
        ContinuationTimeout = TimeSpan.FromSeconds(15),
        RequestedChannelMax = 64,
        SocketFactory = family => GatheringTcpClient.Create(family, to),
        EndpointResolverFactory = static endpoints => new InGivenOrder([.. endpoints]),
        // The broker's own ceiling: a smaller one here would turn a large message into a connection that dies again and again.
        MaxInboundMessageBodySize = 512 * 1024 * 1024,
    };

    private List<BrokerHost> Hosts(AmqpTcpEndpoint? left) =>
        [.. address.Hosts.OrderBy(host => left is not null && host == new BrokerHost(left.HostName, left.Port)).ThenBy(_ => Random.Shared.Next())];

    private SslOption Ssl(BrokerHost host)
    {
        var ssl = new SslOption { Enabled = address.Tls, ServerName = host.Name, AcceptablePolicyErrors = SslPolicyErrors.None };
        if (!address.Tls)
        {
            return ssl;
        }

        if (options.CaFile is { } caFile)
        {
            var authorities = new X509Certificate2Collection();
            authorities.ImportFromPemFile(caFile);
            ssl.CertificateValidationCallback = (_, certificate, chain, errors) => IsTrusted(certificate, chain, errors, authorities);
        }

        if (options.ClientCertificateFile is { } certificateFile)
        {
            ssl.Certs = [X509Certificate2.CreateFromPemFile(certificateFile, options.ClientKeyFile)];
        }

        return ssl;
    }

    // Everything the system would check, except that the roots come from the file alone.
    private static bool IsTrusted(X509Certificate? certificate, X509Chain? offered, SslPolicyErrors errors, X509Certificate2Collection authorities)
    {
        if (certificate is not X509Certificate2 shown || (errors & ~SslPolicyErrors.RemoteCertificateChainErrors) != SslPolicyErrors.None)
        {
            return false;
        }

        using var chain = new X509Chain();
        chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        chain.ChainPolicy.CustomTrustStore.AddRange(authorities);
        chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
        chain.ChainPolicy.ApplicationPolicy.Add(new System.Security.Cryptography.Oid("1.3.6.1.5.5.7.3.1"));
        foreach (var element in offered?.ChainElements ?? Enumerable.Empty<X509ChainElement>())
        {
            chain.ChainPolicy.ExtraStore.Add(element.Certificate);
        }

        return chain.Build(shown);
    }

    /// <summary>A node by one of its addresses. The client would try one address of each family, for the whole time each.</summary>
    private sealed class AddressedEndpoint : AmqpTcpEndpoint
    {
        public AddressedEndpoint(BrokerHost host, IPAddress address, SslOption ssl)
            : base(host.Name, host.Port, ssl, 512 * 1024 * 1024)
        {
            Address = address;
            AddressFamily = address.AddressFamily;
        }

        public IPAddress Address { get; }
    }

    /// <summary>The client's own resolver shuffles.</summary>
    private sealed class InGivenOrder(IReadOnlyList<AmqpTcpEndpoint> endpoints) : IEndpointResolver
    {
        public IEnumerable<AmqpTcpEndpoint> All() => endpoints;
    }

    private static TimeSpan Shorter(TimeSpan one, TimeSpan other) => one < other ? one : other;
}

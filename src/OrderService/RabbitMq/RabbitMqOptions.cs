using System.Globalization;
using System.Net;
using Microsoft.Extensions.Options;

namespace OrderService.RabbitMq;

/// <summary>How the broker is reached and used. Section <c>RabbitMq</c>.</summary>
public sealed class RabbitMqOptions
{
    public const string Section = "RabbitMq";

    /// <summary>Scheme (<c>amqp</c> or <c>amqps</c>), credentials, host, port and virtual host. A secret: log <see cref="Redacted"/> instead.</summary>
    public string Uri { get; set; } = "amqp://guest:guest@localhost:5672/";

    /// <summary>The user, apart from <see cref="Uri"/>, which then names none. Together with <see cref="Password"/>.</summary>
    public string? Username { get; set; }

    /// <summary>The password of <see cref="Username"/>; as it is, nothing is written with %. A secret.</summary>
    public string? Password { get; set; }

    /// <summary>The nodes of a cluster as <c>host</c> or <c>host:port</c>. When given, they replace the host and port of <see cref="Uri"/>; the rest of it stays.</summary>
    public IList<string> Endpoints { get; set; } = [];

    /// <summary>
    /// How many unsettled deliveries of a queue are in hand; partitions share as many, and large messages are fewer (<see cref="MaxBytesInHand"/>). It bounds how many messages gain a delivery
    /// count when the process dies, and the largest batch one transaction can take, which is half of it: while one half commits, the other half arrives. 2,000 is what a quorum queue itself takes as "unlimited".
    /// </summary>
    public int Prefetch { get; set; } = 2000;

    /// <summary>
    /// How many bytes of messages are in hand of all queues of orders together, and as many of the dead letters. A larger message is taken alone.
    /// The default leaves room for everything else in 256 MiB.
    /// </summary>
    public int MaxBytesInHand { get; set; } = 16 << 20;

    /// <summary>After so many returns the broker dead-letters a message by itself: a backstop, well above what crashes of the service use up. Argument of the queue <c>orders</c>.</summary>
    public int DeliveryLimit { get; set; } = 20;

    /// <summary>
    /// 0, or how many queues <c>orders.1</c>, <c>orders.2</c> and so on share the commands that come through the exchange <c>orders.partitioned</c>, by order id.
    /// The queue <c>orders</c> stays and is consumed as before.
    /// </summary>
    public int Partitions { get; set; }

    /// <summary>
    /// While <see cref="Partitions"/> is lowered: what it was. The queues above the new number are consumed until they are empty, and get nothing new. 0 when nothing is left of them.
    /// </summary>
    public int PartitionsBefore { get; set; }

    /// <summary>The management API, <c>http(s)://[user:password@]host:port/</c>: unacknowledged counts and policies. Credentials default to those of <see cref="Uri"/>.</summary>
    public string? ManagementUri { get; set; }

    /// <summary>Allows <c>amqp</c> (no TLS) and the user <c>guest</c> to a host that is not this machine: for private networks such as compose's.</summary>
    public bool AllowPlaintext { get; set; }

    /// <summary>A PEM file with the authorities to trust in place of the system's. Only with <c>amqps</c>.</summary>
    public string? CaFile { get; set; }

    /// <summary>PEM certificate and key this client shows. Only with <c>amqps</c>.</summary>
    public string? ClientCertificateFile { get; set; }

    public string? ClientKeyFile { get; set; }

    /// <summary>A silent peer is noticed after about three of these. Below 5 s a starved machine loses live connections.</summary>
    public TimeSpan Heartbeat { get; set; } = TimeSpan.FromSeconds(6);

    /// <summary>For one attempt over all endpoints: name look-up, TCP, TLS and AMQP handshake together.</summary>
    public TimeSpan ConnectTimeout { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>A publish without a confirm for this long counts as unknown.</summary>
    public TimeSpan ConfirmTimeout { get; set; } = TimeSpan.FromSeconds(15);

    /// <summary>How many publishes may be without a confirm at once, over all users of one publisher.</summary>
    public int MaxUnconfirmed { get; set; } = 2000;

    /// <summary>Longest pause between two attempts to connect.</summary>
    public TimeSpan MaxReconnectDelay { get; set; } = TimeSpan.FromSeconds(5);

    /// <summary>How long messages may be ready without one delivered or settled, or the broker may count no consumer, before the consumer is rebuilt.</summary>
    public TimeSpan StallAfter { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>How long the oldest message of a queue may wait while the intake runs, before readiness is degraded and says so.</summary>
    public TimeSpan MaxWait { get; set; } = TimeSpan.FromMinutes(1);

    /// <summary>How often queue depths are read.</summary>
    public TimeSpan QueuePollInterval { get; set; } = TimeSpan.FromSeconds(5);

    /// <summary>Says when events reach no subscriber: a binding may have been removed. Off where nobody subscribes, or not to everything.</summary>
    public bool ExpectSubscribers { get; set; } = true;

    /// <summary>What the broker's lists show before the purpose of a connection.</summary>
    public string ConnectionName { get; set; } = "order-service";

    /// <summary>The highest number of a partition that is consumed.</summary>
    internal int ConsumedPartitions => Math.Max(Partitions, PartitionsBefore);

    /// <summary>The <see cref="Prefetch"/> of one queue's consumer: a partition has its share, at least 1.</summary>
    public ushort PrefetchOf(string queue) => (ushort)(TopologyNames.IsPartition(queue) ? Math.Max(1, Prefetch / ConsumedPartitions) : Prefetch);

    /// <summary>Host, port and virtual host without credentials, for logs and health.</summary>
    public string Redacted => BrokerAddress.TryParse(this, out var address, out _) ? address.Redacted : "an unreadable address";
}

/// <summary>All mistakes at once, each naming its key, none showing a credential.</summary>
internal sealed class RabbitMqOptionsValidator : IValidateOptions<RabbitMqOptions>
{
    // Each is a quorum queue of its own on the broker and a connection of its own in every instance.
    private const int MostPartitions = 32;

    public ValidateOptionsResult Validate(string? name, RabbitMqOptions options)
    {
        var mistakes = new List<string>();
        void Check(bool fine, string key, string rule)
        {
            if (!fine)
            {
                mistakes.Add($"{RabbitMqOptions.Section}:{key} {rule}");
            }
        }

        void CheckTime(TimeSpan value, double from, double to, string key) =>
            Check(value.TotalSeconds >= from && value.TotalSeconds <= to, key, string.Create(CultureInfo.InvariantCulture, $"is {value}; it must lie between {TimeSpan.FromSeconds(from)} and {TimeSpan.FromSeconds(to)}."));

        void CheckFile(string? path, string key) => Check(path is null || File.Exists(path), key, $"names the file '{path}', which does not exist.");

        if (!BrokerAddress.TryParse(options, out var address, out var unreadable))
        {
            mistakes.AddRange(unreadable);
        }
        else
        {
            var local = address.Hosts.All(host => ThisMachine.Is(host.Name));
            Check(address.Tls || local || options.AllowPlaintext, nameof(options.Uri), "is amqp:// (no TLS) to another machine; use amqps://, or set RabbitMq:AllowPlaintext on a private network.");
            Check(address.User != "guest" || local || options.AllowPlaintext, nameof(options.Uri), "uses the user guest on another machine; give the service a user of its own, or set RabbitMq:AllowPlaintext on a private network.");
            Check(address.Tls || options.CaFile is null, nameof(options.CaFile), "is set, but RabbitMq:Uri is not amqps://.");
            Check(address.Tls || options.ClientCertificateFile is null, nameof(options.ClientCertificateFile), "is set, but RabbitMq:Uri is not amqps://.");
        }

        Check(options.Prefetch is >= 1 and <= 2000, nameof(options.Prefetch), $"is {options.Prefetch}; it must lie between 1 and 2000.");
        Check(options.MaxBytesInHand is >= 1 << 20 and <= 1 << 30, nameof(options.MaxBytesInHand), $"is {options.MaxBytesInHand}; it must lie between {1 << 20} and {1 << 30}.");
        Check(options.DeliveryLimit is >= 3 and <= 10_000, nameof(options.DeliveryLimit), $"is {options.DeliveryLimit}; it must lie between 3 and 10000.");
        Check(options.Partitions is 0 or (>= 2 and <= MostPartitions), nameof(options.Partitions), $"is {options.Partitions}; it must be 0 (off), or lie between 2 and {MostPartitions}.");
        Check(
            options.PartitionsBefore == 0 || (options.PartitionsBefore > options.Partitions && options.PartitionsBefore <= MostPartitions),
            nameof(options.PartitionsBefore),
            $"is {options.PartitionsBefore}; it must be 0 (nothing is left of more partitions), or above RabbitMq:Partitions and at most {MostPartitions}.");
        Check(options.MaxUnconfirmed is >= 1 and <= 20_000, nameof(options.MaxUnconfirmed), $"is {options.MaxUnconfirmed}; it must lie between 1 and 20000.");
        CheckTime(options.Heartbeat, 5, 60, nameof(options.Heartbeat));
        CheckTime(options.ConnectTimeout, 1, 60, nameof(options.ConnectTimeout));
        CheckTime(options.ConfirmTimeout, 1, 120, nameof(options.ConfirmTimeout));
        CheckTime(options.MaxReconnectDelay, 0.1, 60, nameof(options.MaxReconnectDelay));
        CheckTime(options.StallAfter, 1, 600, nameof(options.StallAfter));
        CheckTime(options.MaxWait, 1, 86_400, nameof(options.MaxWait));
        CheckTime(options.QueuePollInterval, 0.2, 300, nameof(options.QueuePollInterval));
        Check(options.ConnectionName.Length is >= 1 and <= 100, nameof(options.ConnectionName), "must have 1 to 100 characters.");
        Check(
            options.ManagementUri is null || (System.Uri.TryCreate(options.ManagementUri, UriKind.Absolute, out var management) && management.Scheme is "http" or "https"),
            nameof(options.ManagementUri),
            "is not an http or https address.");
        Check(
            options.AllowPlaintext || !System.Uri.TryCreate(options.ManagementUri, UriKind.Absolute, out var asked) || asked.Scheme != "http" || ThisMachine.Is(asked.Host),
            nameof(options.ManagementUri),
            "is http:// (no TLS) to another machine, and the broker's password goes along; use https://, or set RabbitMq:AllowPlaintext on a private network.");
        CheckFile(options.CaFile, nameof(options.CaFile));
        CheckFile(options.ClientCertificateFile, nameof(options.ClientCertificateFile));
        CheckFile(options.ClientKeyFile, nameof(options.ClientKeyFile));
        Check(options.ClientKeyFile is null || options.ClientCertificateFile is not null, nameof(options.ClientKeyFile), "is set without RabbitMq:ClientCertificateFile.");

        return mistakes.Count == 0 ? ValidateOptionsResult.Success : ValidateOptionsResult.Fail(mistakes);
    }

}

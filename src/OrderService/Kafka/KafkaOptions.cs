using System.Globalization;
using System.Net;
using System.Text.RegularExpressions;
using Microsoft.Extensions.Options;

namespace OrderService.Kafka;

/// <summary>The optional event stream to Kafka, and the optional intake from it. Section <c>Kafka</c>; off by default.</summary>
public sealed class KafkaOptions
{
    public const string Section = "Kafka";

    /// <summary>Publishes every committed event to <see cref="Topic"/>, in the processes with the role <c>relay</c>.</summary>
    public bool Enabled { get; init; }

    /// <summary><c>host:port</c>, several with commas; any of the cluster's brokers will do to begin with.</summary>
    public string BootstrapServers { get; init; } = "";

    /// <summary>Where the events go. The topic should exist; where the cluster creates topics by itself, it has that cluster's number of partitions.</summary>
    public string Topic { get; init; } = "order-events";

    /// <summary>How many events are on their way to Kafka at once. The checkpoint moves when all of them were acknowledged, so this is also what a crash sends twice at most.</summary>
    public int BatchSize { get; init; } = 1000;

    /// <summary>How often the log is looked at for events that other processes committed; those of this one are seen at once.</summary>
    public TimeSpan PollInterval { get; init; } = TimeSpan.FromMilliseconds(500);

    /// <summary>Longest pause after a failure.</summary>
    public TimeSpan MaxRetryDelay { get; init; } = TimeSpan.FromSeconds(10);

    public KafkaSecurity SecurityProtocol { get; init; } = KafkaSecurity.Plaintext;

    /// <summary>Allows connections without TLS to another machine: for private networks such as compose's.</summary>
    public bool AllowPlaintext { get; init; }

    /// <summary>A PEM file with the authorities to trust in place of the system's. Only with TLS.</summary>
    public string? CaFile { get; init; }

    public KafkaSasl SaslMechanism { get; init; } = KafkaSasl.ScramSha512;

    public string? SaslUsername { get; init; }

    /// <summary>A secret; <c>Kafka:SaslPasswordFile</c> names a file that holds it.</summary>
    public string? SaslPassword { get; init; }

    /// <summary>What the brokers' logs and quotas show.</summary>
    public string ClientId { get; init; } = "order-service";

    public KafkaIntakeOptions Intake { get; init; } = new();

    internal bool UsesTls => SecurityProtocol is KafkaSecurity.Ssl or KafkaSecurity.SaslSsl;

    internal bool UsesSasl => SecurityProtocol is KafkaSecurity.SaslPlaintext or KafkaSecurity.SaslSsl;
}

/// <summary>Orders from Kafka, beside those from RabbitMQ. Section <c>Kafka:Intake</c>.</summary>
public sealed class KafkaIntakeOptions
{
    /// <summary>Takes orders from <see cref="Topic"/> in the processes with the role <c>orders</c>.</summary>
    public bool Enabled { get; init; }

    public string Topic { get; init; } = "orders";

    /// <summary>The consumer group; its members share the topic's partitions.</summary>
    public string GroupId { get; init; } = "order-service";

    /// <summary>How many records one transaction may hold. A crash may bring as many again, and all of them are recognised.</summary>
    public int MaxBatch { get; init; } = 500;

    /// <summary>A member that is silent for this long is given up and its partitions go to others. Brokers take 6 s to 30 min unless told otherwise.</summary>
    public TimeSpan SessionTimeout { get; init; } = TimeSpan.FromSeconds(45);
}

/// <summary>How a connection is protected; names as in Kafka's documentation without the underscore.</summary>
public enum KafkaSecurity
{
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

/// <summary>How a client says who it is.</summary>
public enum KafkaSasl
{
    Plain,
    ScramSha256,
    ScramSha512,
}

/// <summary>All mistakes at once, each naming its key, none showing a secret.</summary>
internal sealed partial class KafkaOptionsValidator : IValidateOptions<KafkaOptions>
{
    public ValidateOptionsResult Validate(string? name, KafkaOptions options)
    {
        var mistakes = new List<string>();
        void Check(bool fine, string key, string rule)
        {
            if (!fine)
            {
                mistakes.Add($"{KafkaOptions.Section}:{key}: {rule}");
            }
        }

        void CheckTime(TimeSpan value, double from, double to, string key) =>
            Check(value.TotalSeconds >= from && value.TotalSeconds <= to, key, string.Create(CultureInfo.InvariantCulture, $"must lie between {TimeSpan.FromSeconds(from)} and {TimeSpan.FromSeconds(to)}, it is {value}."));

        Check(options.BatchSize is >= 1 and <= 10_000, nameof(options.BatchSize), $"must lie between 1 and 10000, it is {options.BatchSize}.");
        Check(options.Intake.MaxBatch is >= 1 and <= 10_000, "Intake:MaxBatch", $"must lie between 1 and 10000, it is {options.Intake.MaxBatch}.");
        CheckTime(options.PollInterval, 0.01, 60, nameof(options.PollInterval));
        CheckTime(options.MaxRetryDelay, 0.1, 300, nameof(options.MaxRetryDelay));
        CheckTime(options.Intake.SessionTimeout, 2, 1800, "Intake:SessionTimeout");
        Check(TopicName().IsMatch(options.Topic) && options.Topic is not ("." or ".."), nameof(options.Topic), "must be 1 to 249 of letters, digits, dot, hyphen and underscore.");
        Check(TopicName().IsMatch(options.Intake.Topic) && options.Intake.Topic is not ("." or ".."), "Intake:Topic", "must be 1 to 249 of letters, digits, dot, hyphen and underscore.");
        Check(options.Intake.GroupId.Length is >= 1 and <= 249, "Intake:GroupId", "must have 1 to 249 characters.");
        Check(options.ClientId.Length is >= 1 and <= 100, nameof(options.ClientId), "must have 1 to 100 characters.");
        Check(options.CaFile is null || File.Exists(options.CaFile), nameof(options.CaFile), $"there is no file '{options.CaFile}'.");
        Check(options.CaFile is null || options.UsesTls, nameof(options.CaFile), "is set, but Kafka:SecurityProtocol is one without TLS.");
        Check(options.UsesSasl || (string.IsNullOrEmpty(options.SaslUsername) && string.IsNullOrEmpty(options.SaslPassword)), nameof(options.SaslUsername), "is set (or Kafka:SaslPassword is), but Kafka:SecurityProtocol is one without SASL.");
        Check(!options.UsesSasl || !string.IsNullOrEmpty(options.SaslUsername), nameof(options.SaslUsername), $"missing, and Kafka:SecurityProtocol is {options.SecurityProtocol}.");
        Check(!options.UsesSasl || !string.IsNullOrEmpty(options.SaslPassword), nameof(options.SaslPassword), $"missing, and Kafka:SecurityProtocol is {options.SecurityProtocol}; put it into a file and name that in Kafka:SaslPasswordFile.");
        if (options.Enabled || options.Intake.Enabled)
        {
            CheckServers(options, Check);
            Check(!options.Intake.Enabled || !options.Enabled || options.Topic != options.Intake.Topic, "Intake:Topic", "is the topic that events go to; orders need another one.");
        }
        return mistakes.Count == 0 ? ValidateOptionsResult.Success : ValidateOptionsResult.Fail(mistakes);
    }

    private static void CheckServers(KafkaOptions options, Action<bool, string, string> check)
    {
        var servers = options.BootstrapServers.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
        check(servers.Length > 0, nameof(options.BootstrapServers), "missing; name one or more brokers as host:port, with commas between them.");
        foreach (var server in servers)
        {
            // The prefix "kafka://" and a path are what people try first.
            var readable = Uri.TryCreate($"kafka://{server}", UriKind.Absolute, out var address) && address.Host.Length > 0 && address.PathAndQuery is "/" or "" && address.UserInfo.Length == 0;
            check(readable, nameof(options.BootstrapServers), $"'{server}' is not host:port.");
            if (readable && !options.UsesTls && !options.AllowPlaintext && !ThisMachine.Is(address!.Host))
            {
                check(false, nameof(options.SecurityProtocol), $"is {options.SecurityProtocol} (no TLS) to another machine; use Ssl or SaslSsl, or set Kafka:AllowPlaintext on a private network.");
                return;
            }
        }
    }

    [GeneratedRegex("^[A-Za-z0-9._-]{1,249}$")]
    private static partial Regex TopicName();
}

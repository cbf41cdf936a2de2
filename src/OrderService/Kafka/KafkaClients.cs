using Confluent.Kafka;

namespace OrderService.Kafka;

/// <summary>The settings of the client library, from ours.</summary>
internal static class KafkaClients
{
    public static ProducerConfig Producer(KafkaOptions options) => new(Common(options))
    {
        // Acknowledged by all replicas in sync, written once however often the client had to repeat itself, in the order of the calls.
        EnableIdempotence = true,
        Acks = Acks.All,
        // A record that is given up while later ones of its order are taken would break the order of the stream: nothing is given up for time,
        // and a refusal for any other reason ends the producer with everything behind it. The caller bounds how much waits.
        MessageTimeoutMs = 0,
        EnableGaplessGuarantee = true,
        // Java's partitioner: keys land where every other client expects them.
        Partitioner = Partitioner.Murmur2Random,
        CompressionType = CompressionType.Lz4,
        LingerMs = 5,
        QueueBufferingMaxKbytes = 64 * 1024,
        DeliveryReportFields = "status",
    };

    public static ConsumerConfig Consumer(KafkaOptions options) => new(Common(options))
    {
        GroupId = options.Intake.GroupId,
        // The offset is committed after the store's commit, by hand.
        EnableAutoCommit = false,
        EnableAutoOffsetStore = false,
        AutoOffsetReset = AutoOffsetReset.Earliest,
        PartitionAssignmentStrategy = PartitionAssignmentStrategy.CooperativeSticky,
        SessionTimeoutMs = (int)options.Intake.SessionTimeout.TotalMilliseconds,
        HeartbeatIntervalMs = (int)Math.Clamp(options.Intake.SessionTimeout.TotalMilliseconds / 10, 300, 3000),
        // What is prefetched lies outside our own limits on memory, and one answer may come on top of it.
        QueuedMaxMessagesKbytes = 8 * 1024,
        // A broker's answer may always hold one record, however large; this bounds the rest.
        FetchMaxBytes = 8 * 1024 * 1024,
    };

    /// <summary>For a command whose user waits.</summary>
    public static AdminClientConfig Admin(KafkaOptions options) => new(Common(options))
    {
        SocketConnectionSetupTimeoutMs = 1000,
        ApiVersionRequestTimeoutMs = 2000,
        ReconnectBackoffMaxMs = 500,
    };

    /// <summary>Where the library's own lines go: not to standard error, and not above what our own line about it says.</summary>
    public static void Log(ILogger logger, LogMessage message)
    {
        if (logger.IsEnabled(LogLevel.Debug))
        {
            ClientLog.Line(logger, message.Facility, message.Message);
        }
    }

    private static Dictionary<string, string> Common(KafkaOptions options)
    {
        var config = new ClientConfig
        {
            BootstrapServers = options.BootstrapServers,
            ClientId = options.ClientId,
            SecurityProtocol = options.SecurityProtocol switch
            {
                KafkaSecurity.Ssl => SecurityProtocol.Ssl,
                KafkaSecurity.SaslPlaintext => SecurityProtocol.SaslPlaintext,
                KafkaSecurity.SaslSsl => SecurityProtocol.SaslSsl,
                _ => SecurityProtocol.Plaintext,
            },
            ReconnectBackoffMs = 100,
            ReconnectBackoffMaxMs = (int)options.MaxRetryDelay.TotalMilliseconds,
            SocketKeepaliveEnable = true,
            // The client tries the addresses of a name one after the other, in random order: each for this long, where the library's own 30 and 10 s leave a dead one too much,
            // and from a list that it keeps until it is through, where it would look the name up and begin anew after a second.
            SocketConnectionSetupTimeoutMs = 5000,
            ApiVersionRequestTimeoutMs = 5000,
            BrokerAddressTtl = 60_000,
        };
        if (options.UsesSasl)
        {
            config.SaslMechanism = options.SaslMechanism switch
            {
                KafkaSasl.Plain => SaslMechanism.Plain,
                KafkaSasl.ScramSha256 => SaslMechanism.ScramSha256,
                _ => SaslMechanism.ScramSha512,
            };
            config.SaslUsername = options.SaslUsername;
            config.SaslPassword = options.SaslPassword;
        }
        if (options.CaFile is not null)
        {
            config.SslCaLocation = options.CaFile;
        }
        return config.ToDictionary(pair => pair.Key, pair => pair.Value, StringComparer.Ordinal);
    }
}

internal static partial class ClientLog
{
    [LoggerMessage(LogLevel.Debug, "Kafka client ({Facility}): {Text}")]
    public static partial void Line(ILogger logger, string facility, string text);
}

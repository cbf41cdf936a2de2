using OrderService.Kafka;

namespace OrderService.Tests.Kafka;

/// <summary>Wrong settings stop the start with a sentence that names the key; no secret is among the words.</summary>
public sealed class KafkaOptionsTests
{
    [Fact]
    public void Kafka_is_off_and_needs_nothing_by_default() => Assert.Empty(Mistakes());

    [Theory]
    [InlineData("Kafka:BootstrapServers: missing", "Kafka:Enabled=true")]
    [InlineData("Kafka:BootstrapServers: missing", "Kafka:Intake:Enabled=true")]
    [InlineData("Kafka:BootstrapServers: 'kafka://localhost' is not host:port", "Kafka:Enabled=true", "Kafka:BootstrapServers=kafka://localhost")]
    [InlineData("Kafka:SecurityProtocol: is Plaintext (no TLS) to another machine", "Kafka:Enabled=true", "Kafka:BootstrapServers=kafka.example.com:9092")]
    [InlineData("Kafka:Topic: must be", "Kafka:Topic=order events")]
    [InlineData("Kafka:Intake:Topic: is the topic that events go to", "Kafka:Enabled=true", "Kafka:Intake:Enabled=true", "Kafka:BootstrapServers=localhost:9092", "Kafka:Intake:Topic=order-events")]
    [InlineData("Kafka:SaslUsername: is set", "Kafka:SaslUsername=orders")]
    [InlineData("Kafka:SaslPassword: missing", "Kafka:SecurityProtocol=SaslSsl", "Kafka:SaslUsername=orders")]
    [InlineData("Kafka:CaFile: there is no file", "Kafka:SecurityProtocol=Ssl", "Kafka:CaFile=/no/such/file.pem")]
    [InlineData("Kafka:Intake:SessionTimeout: must lie between", "Kafka:Intake:SessionTimeout=00:00:01")]
    [InlineData("Kafka:Intake:MaxBatch: must lie between", "Kafka:Intake:MaxBatch=0")]
    [InlineData("Kafka:BatchSize: 'many' is not a whole number", "Kafka:BatchSize=many")]
    [InlineData("Kafka:SecurityProtocol: 'TLS' is not one of Plaintext, Ssl, SaslPlaintext, SaslSsl", "Kafka:SecurityProtocol=TLS")]
    [InlineData("Kafka:Intake:Topics: unknown setting", "Kafka:Intake:Topics=orders")]
    public void A_mistake_names_its_key(string expected, params string[] settings) =>
        Assert.Contains(Mistakes(settings), mistake => mistake.StartsWith(expected, StringComparison.Ordinal));

    [Theory]
    [InlineData("Kafka:Enabled=true", "Kafka:BootstrapServers=localhost:9092, 127.0.0.1:9093,[::1]:9094")]
    [InlineData("Kafka:Enabled=true", "Kafka:BootstrapServers=kafka:9092", "Kafka:AllowPlaintext=true")]
    [InlineData("Kafka:Intake:Enabled=true", "Kafka:BootstrapServers=kafka.example.com:9093", "Kafka:SecurityProtocol=SaslSsl", "Kafka:SaslUsername=orders", "Kafka:SaslPassword=secret-word")]
    public void What_is_complete_is_taken(params string[] settings) => Assert.Empty(Mistakes(settings));

    [Fact]
    public void No_password_is_repeated() => Assert.DoesNotContain(
        Mistakes("Kafka:SaslUsername=orders", "Kafka:SaslPassword=secret-word", "Kafka:Topic=secret topic"), mistake => mistake.Contains("secret-word", StringComparison.Ordinal));

    [Fact]
    public void The_clients_get_what_was_set()
    {
        var options = new KafkaOptions { BootstrapServers = "a:1,b:2", SecurityProtocol = KafkaSecurity.SaslSsl, SaslUsername = "orders", SaslPassword = "word", SaslMechanism = KafkaSasl.ScramSha256 };
        var producer = KafkaClients.Producer(options).ToDictionary(pair => pair.Key, pair => pair.Value);
        var consumer = KafkaClients.Consumer(options).ToDictionary(pair => pair.Key, pair => pair.Value);

        Assert.Equal(("sasl_ssl", "SCRAM-SHA-256", "orders", "word"), (producer["security.protocol"], producer["sasl.mechanism"], producer["sasl.username"], producer["sasl.password"]));
        Assert.Equal(("true", "-1", "murmur2_random", "lz4", "0"), (producer["enable.idempotence"].ToLowerInvariant(), producer["acks"], producer["partitioner"], producer["compression.type"], producer["message.timeout.ms"]));
        Assert.Equal(("false", "false", "cooperative-sticky", "earliest"), (consumer["enable.auto.commit"].ToLowerInvariant(), consumer["enable.auto.offset.store"].ToLowerInvariant(), consumer["partition.assignment.strategy"], consumer["auto.offset.reset"]));
    }

    private static IReadOnlyList<string> Mistakes(params string[] settings) => OrderServiceHost.LoadSettings(
        settings.Select(setting => KeyValuePair.Create(setting[..setting.IndexOf('=', StringComparison.Ordinal)], (string?)setting[(setting.IndexOf('=', StringComparison.Ordinal) + 1)..])),
        environmentVariables: false).Mistakes;
}

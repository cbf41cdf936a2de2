using Microsoft.Extensions.Options;
using OrderService.Kafka;

namespace OrderService.Tests.Kafka;

/// <summary>What <c>doctor</c> says of the cluster.</summary>
public sealed class KafkaProbeTests
{
    [Fact]
    public void A_cluster_with_its_topics_is_well()
    {
        using var cluster = new MockKafka().WithTopic("order-events", 6).WithTopic("orders");

        var findings = Probe(cluster.BootstrapServers).Look();

        Assert.Equal("3 brokers answer; order-events with 6 partitions, orders with 3 partitions", findings.Answer);
        Assert.Empty(findings.Wrong);
    }

    [Fact]
    public void A_missing_topic_is_named_and_not_created()
    {
        using var cluster = new MockKafka().WithTopic("order-events");
        var probe = Probe(cluster.BootstrapServers);

        for (var looks = 0; looks < 2; looks++)
        {
            Assert.Contains("the topic orders is not there", Assert.Single(probe.Look().Wrong), StringComparison.Ordinal);
        }
    }

    [Fact]
    public void A_cluster_that_does_not_answer_is_told_of_in_seconds()
    {
        var findings = Probe("127.0.0.1:1").Look();

        Assert.Null(findings.Answer);
        Assert.Contains("127.0.0.1:1 does not answer", Assert.Single(findings.Wrong), StringComparison.Ordinal);
    }

    private static KafkaProbe Probe(string servers) =>
        new(Options.Create(new KafkaOptions { Enabled = true, BootstrapServers = servers, Intake = new KafkaIntakeOptions { Enabled = true } }));
}

using System.Globalization;
using Confluent.Kafka;
using Microsoft.Extensions.Options;

namespace OrderService.Kafka;

/// <summary>Asks the cluster who it is, for <c>doctor</c>.</summary>
public sealed class KafkaProbe(IOptions<KafkaOptions> options)
{
    // The client takes the addresses of a name in any order, and may come past a silent one more than once.
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(15);

    /// <summary>What the cluster says, or why there is no answer. Blocks for some seconds at most; creates nothing.</summary>
    public KafkaFindings Look()
    {
        var settings = options.Value;
        string? said = null;
        using var client = new AdminClientBuilder(KafkaClients.Admin(settings))
            .SetErrorHandler((_, error) => said = error.Reason)
            .SetLogHandler(static (_, _) => { })
            .Build();
        Metadata metadata;
        try
        {
            // All topics: a question for one by name makes some clusters create it.
            metadata = client.GetMetadata(Patience);
        }
        catch (KafkaException exception)
        {
            return new KafkaFindings(null, [$"{settings.BootstrapServers} does not answer ({said ?? exception.Error.Reason}). Check Kafka:BootstrapServers, Kafka:SecurityProtocol and that the brokers run; orders and RabbitMQ do not depend on it."]);
        }
        var wrong = new List<string>();
        var topics = new List<string>();
        foreach (var (name, wanted) in new[] { (settings.Topic, settings.Enabled), (settings.Intake.Topic, settings.Intake.Enabled) })
        {
            if (!wanted)
            {
                continue;
            }
            if (metadata.Topics.Find(topic => topic.Topic == name) is { Partitions.Count: > 0 } found)
            {
                topics.Add(string.Create(CultureInfo.InvariantCulture, $"{name} with {found.Partitions.Count} partitions"));
            }
            else
            {
                wrong.Add($"the topic {name} is not there (or this user may not see it); create it with: kafka-topics.sh --bootstrap-server {settings.BootstrapServers} --create --topic {name} --partitions 12");
            }
        }
        return new KafkaFindings(string.Create(CultureInfo.InvariantCulture, $"{metadata.Brokers.Count} brokers answer{(topics.Count == 0 ? "" : $"; {string.Join(", ", topics)}")}"), wrong);
    }
}

/// <param name="Answer">One line about the cluster; null when it does not answer.</param>
/// <param name="Wrong">What has to be mended, one sentence each.</param>
public sealed record KafkaFindings(string? Answer, IReadOnlyList<string> Wrong);

using System.Text;
using OrderService.RabbitMq;

namespace OrderService.CommandLine;

/// <summary>Finds out whether the broker answers before a command relies on it.</summary>
internal static class Broker
{
    /// <summary>Declares what is missing, so that the first message ever finds its queue.</summary>
    /// <exception cref="BrokerOutOfReachException">It does not answer, or not to these credentials.</exception>
    public static async Task RequireAsync(IServiceProvider stations, CancellationToken cancellationToken)
    {
        var connector = stations.GetRequiredService<BrokerConnector>();
        try
        {
            await using var connection = await connector.OpenAsync("command line", cancellationToken);
            await stations.GetRequiredService<Topology>().DeclareAsync(connection, cancellationToken);
        }
        catch (Exception exception) when (exception is not TopologyMismatchException && !cancellationToken.IsCancellationRequested)
        {
            throw OutOfReach(connector, exception);
        }
    }

    /// <summary>Compares and changes nothing.</summary>
    /// <returns>The broker's version, everything that is not as it should be, and a sentence for each right that the user lacks.</returns>
    /// <exception cref="BrokerOutOfReachException">It does not answer, or not to these credentials.</exception>
    public static async Task<(string Version, IReadOnlyList<TopologyDifference> Differences, IReadOnlyList<string> Rights)> CheckAsync(IServiceProvider stations, CancellationToken cancellationToken)
    {
        var connector = stations.GetRequiredService<BrokerConnector>();
        try
        {
            await using var connection = await connector.OpenAsync("command line", cancellationToken);
            var version = connection.ServerProperties?.TryGetValue("version", out var bytes) == true && bytes is byte[] text ? Encoding.UTF8.GetString(text) : "of an unknown version";
            var topology = stations.GetRequiredService<Topology>();
            var differences = await topology.CheckAsync(connection, cancellationToken);
            return (version, differences, await BrokerRights.MissingAsync(connection, [.. topology.OrderQueues, TopologyNames.DeadLetters], ["", .. topology.PublishedTo], cancellationToken));
        }
        catch (Exception exception) when (!cancellationToken.IsCancellationRequested)
        {
            throw OutOfReach(connector, exception);
        }
    }

    private static BrokerOutOfReachException OutOfReach(BrokerConnector connector, Exception exception) =>
        new($"The broker {connector.Redacted} is out of reach: {exception.GetBaseException().Message}");
}

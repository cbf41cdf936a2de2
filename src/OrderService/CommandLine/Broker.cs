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
    /// <returns>The broker's version, and everything that is not as it should be.</returns>
    /// <exception cref="BrokerOutOfReachException">It does not answer, or not to these credentials.</exception>
    public static async Task<(string Version, IReadOnlyList<TopologyDifference> Differences)> CheckAsync(IServiceProvider stations, CancellationToken cancellationToken)
    {
        var connector = stations.GetRequiredService<BrokerConnector>();
        try
        {
            await using var connection = await connector.OpenAsync("command line", cancellationToken);
            var version = connection.ServerProperties?.TryGetValue("version", out var bytes) == true && bytes is byte[] text ? Encoding.UTF8.GetString(text) : "of an unknown version";
            return (version, await stations.GetRequiredService<Topology>().CheckAsync(connection, cancellationToken));
        }
        catch (Exception exception) when (!cancellationToken.IsCancellationRequested)
        {
            throw OutOfReach(connector, exception);
        }
    }

    /// <summary>Asks for the rights that the service's user needs to consume and to publish.</summary>
    /// <returns>A sentence for each that is missing or could not be found out.</returns>
    /// <exception cref="BrokerOutOfReachException">It does not answer, or not to these credentials.</exception>
    public static async Task<IReadOnlyList<string>> MissingRightsAsync(IServiceProvider stations, CancellationToken cancellationToken)
    {
        var connector = stations.GetRequiredService<BrokerConnector>();
        var topology = stations.GetRequiredService<Topology>();
        try
        {
            var connection = await connector.OpenAsync("command line", cancellationToken);
            try
            {
                return await BrokerRights.MissingAsync(connection, [.. topology.OrderQueues, TopologyNames.DeadLetters], [.. topology.PublishedTo], cancellationToken);
            }
            finally
            {
                // A broker under an alarm reads no goodbye after a publish.
                await BrokerConnector.DisposeQuietlyAsync(connection);
            }
        }
        catch (Exception exception) when (!cancellationToken.IsCancellationRequested)
        {
            throw OutOfReach(connector, exception);
        }
    }

    /// <summary>Asks the management API which policies are in force, where the settings name one.</summary>
    /// <returns>A sentence for each setting that could lose messages; why that can't be known, null when it is.</returns>
    public static async Task<(IReadOnlyList<string> Unsafe, string? Unknown)> UnsafePoliciesAsync(IServiceProvider stations, CancellationToken cancellationToken)
    {
        using var management = ManagementApi.Open(stations.GetRequiredService<BrokerConnector>());
        if (management is null)
        {
            return ([], "policies can't be looked at: RabbitMq:ManagementUri is not set");
        }
        var found = new List<string>();
        string? unknown = null;
        foreach (var queue in stations.GetRequiredService<Topology>().Queues.Select(queue => queue.Name).Where(name => name != TopologyNames.UnroutedEvents))
        {
            try
            {
                var read = await management.ReadAsync(queue, cancellationToken);
                found.AddRange(read.UnsafePolicies ?? []);
                unknown ??= read.UnsafePolicies is null ? $"policies can't be known: {ManagementApi.NoPolicies}" : null;
            }
            catch (ManagementException exception)
            {
                return (found, $"policies can't be known: {exception.Message}");
            }
        }
        return (found, unknown);
    }

    private static BrokerOutOfReachException OutOfReach(BrokerConnector connector, Exception exception) =>
        new($"The broker {connector.Redacted} is out of reach: {exception.GetBaseException().Message}");
}

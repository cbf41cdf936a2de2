using OrderService.RabbitMq;

namespace OrderService.CommandLine;

/// <summary>Finds out whether the broker answers before a command relies on it.</summary>
internal static class Broker
{
    /// <summary>Declares what is missing, so that the first message ever finds its queue.</summary>
    /// <exception cref="BrokerOutOfReachException">It does not answer, or not to these credentials.</exception>
    public static Task RequireAsync(IServiceProvider stations, CancellationToken cancellationToken) =>
        WithConnectionAsync(stations, async connection =>
        {
            await stations.GetRequiredService<Topology>().DeclareAsync(connection, cancellationToken);
            return true;
        }, cancellationToken);

    public static async Task<T> WithConnectionAsync<T>(IServiceProvider stations, Func<RabbitMQ.Client.IConnection, Task<T>> work, CancellationToken cancellationToken)
    {
        var connector = stations.GetRequiredService<BrokerConnector>();
        try
        {
            await using var connection = await connector.OpenAsync("command line", cancellationToken);
            return await work(connection);
        }
        catch (Exception exception) when (exception is not TopologyMismatchException && !cancellationToken.IsCancellationRequested)
        {
            throw new BrokerOutOfReachException($"The broker {connector.Redacted} is out of reach: {exception.GetBaseException().Message}");
        }
    }
}

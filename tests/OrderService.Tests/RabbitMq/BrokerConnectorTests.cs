using OrderService.RabbitMq;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.RabbitMq;

public sealed class BrokerConnectorTests(RabbitMqContainerFixture fixture)
{
    [Fact]
    public async Task The_next_connection_is_sought_at_another_endpoint_than_the_one_left()
    {
        await using var broker = await TestBroker.StartWithTwoNamesAsync(fixture);

        var hosts = new List<string>();
        RabbitMQ.Client.AmqpTcpEndpoint? left = null;
        for (var round = 0; round < 12; round++)
        {
            var connection = await broker.Connector.OpenAsync("test", TestBroker.Stopping, left);
            left = connection.Endpoint;
            hosts.Add(connection.Endpoint.HostName);
            await BrokerConnector.DisposeQuietlyAsync(connection);
        }

        Assert.All(hosts.Zip(hosts.Skip(1)), pair => Assert.NotEqual(pair.First, pair.Second));
    }
}

using OrderService.RabbitMq;

namespace OrderService.Tests.RabbitMq;

public sealed class RabbitMqOptionsTests
{
    private readonly RabbitMqOptionsValidator validator = new();

    [Fact]
    public void The_defaults_are_fine() => Assert.True(validator.Validate(null, new RabbitMqOptions()).Succeeded);

    [Theory]
    [InlineData("amqp://shop:secret@broker.example:5672/", "no TLS")]
    [InlineData("amqps://guest:guest@broker.example/", "uses the user guest")]
    [InlineData("http://broker/", "is not an address")]
    [InlineData("secret", "is not an address")]
    [InlineData("amqp://shop:secret@localhost/one/two", "virtual host")]
    public void An_unsafe_or_unreadable_address_is_refused_without_being_shown(string uri, string rule)
    {
        var result = validator.Validate(null, new RabbitMqOptions { Uri = uri });

        Assert.True(result.Failed);
        Assert.Contains(rule, result.FailureMessage, StringComparison.Ordinal);
        Assert.Contains("RabbitMq:Uri", result.FailureMessage, StringComparison.Ordinal);
        Assert.DoesNotContain("secret", result.FailureMessage, StringComparison.Ordinal);
    }

    [Fact]
    public void A_private_network_can_be_declared_one() =>
        Assert.True(validator.Validate(null, new RabbitMqOptions { Uri = "amqp://guest:guest@rabbitmq:5672/", AllowPlaintext = true }).Succeeded);

    [Fact]
    public void An_endpoint_on_another_machine_counts_as_one() =>
        Assert.True(validator.Validate(null, new RabbitMqOptions { Endpoints = ["localhost", "10.0.0.7:5673"] }).Failed);

    [Theory]
    [InlineData(0, 0, null)]
    [InlineData(2, 0, null)]
    [InlineData(32, 0, null)]
    [InlineData(2, 4, null)]
    [InlineData(0, 32, null)]
    [InlineData(1, 0, "RabbitMq:Partitions is 1; it must be 0 (off), or lie between 2 and 32.")]
    [InlineData(33, 0, "RabbitMq:Partitions is 33; it must be 0 (off), or lie between 2 and 32.")]
    [InlineData(-1, 0, "RabbitMq:Partitions is -1; it must be 0 (off), or lie between 2 and 32.")]
    [InlineData(4, 4, "RabbitMq:PartitionsBefore is 4; it must be 0 (nothing is left of more partitions), or above RabbitMq:Partitions and at most 32.")]
    [InlineData(0, 33, "RabbitMq:PartitionsBefore is 33; it must be 0 (nothing is left of more partitions), or above RabbitMq:Partitions and at most 32.")]
    public void Partitions_are_off_or_a_number_that_means_something(int partitions, int before, string? mistake)
    {
        var result = validator.Validate(null, new RabbitMqOptions { Partitions = partitions, PartitionsBefore = before });

        Assert.Equal(mistake is null ? [] : [mistake], result.Failures ?? []);
    }

    [Fact]
    public void All_mistakes_come_at_once()
    {
        var result = validator.Validate(null, new RabbitMqOptions
        {
            Prefetch = 0,
            DeliveryLimit = -1,
            Heartbeat = TimeSpan.FromSeconds(1),
            ManagementUri = "amqp://x",
            CaFile = "/nowhere/ca.pem",
            Endpoints = ["user:secret@host"],
        });

        Assert.Equal(6, result.Failures!.Count());
        Assert.DoesNotContain("secret", result.FailureMessage, StringComparison.Ordinal);
    }

    [Fact]
    public void What_is_shown_holds_no_credentials()
    {
        var options = new RabbitMqOptions { Uri = "amqps://shop:s%2Fcret@a.example/orders%2Flive", Endpoints = ["one:5671", "[::1]:5673"] };

        Assert.Equal("amqps://one:5671,[::1]:5673/orders%2Flive", options.Redacted);
        Assert.True(BrokerAddress.TryParse(options, out var address, out _));
        Assert.Equal(("shop", "s/cret", "orders/live"), (address.User, address.Password, address.VirtualHost));
    }
}

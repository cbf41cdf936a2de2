using OrderService.RabbitMq;
using OrderService.Tests.Infrastructure;
using RabbitMQ.Client;

namespace OrderService.Tests.RabbitMq;

public sealed class TopologyTests(RabbitMqContainerFixture fixture)
{
    [Fact]
    public async Task Declaring_twice_is_fine_and_the_check_finds_nothing()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        Assert.Contains(await broker.Topology.CheckAsync(await broker.ConnectionAsync(), TestBroker.Stopping), difference => difference.Name == TopologyNames.Orders && difference.Argument == "existence");

        await broker.DeclareAsync();
        await broker.DeclareAsync();

        Assert.Empty(await broker.Topology.CheckAsync(await broker.ConnectionAsync(), TestBroker.Stopping));
    }

    [Fact]
    public async Task Another_delivery_limit_is_one_sentence_with_both_values_and_the_remedy()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        broker.Options.DeliveryLimit = 7;
        var wanted = new Topology(Microsoft.Extensions.Options.Options.Create(broker.Options), Microsoft.Extensions.Logging.Abstractions.NullLogger<Topology>.Instance);

        var mismatch = await Assert.ThrowsAsync<TopologyMismatchException>(async () => await wanted.DeclareAsync(await broker.ConnectionAsync(), TestBroker.Stopping));

        Assert.Equal(
            $"The queue 'orders' exists with x-delivery-limit 20, but 7 is wanted; once it is empty, run: rabbitmqctl -p '{broker.VirtualHost}' delete_queue 'orders' && orderservice topology --declare (or set RabbitMq__DeliveryLimit=20 to keep the queue as it is)",
            mismatch.Message);
    }

    [Fact]
    public async Task The_check_names_every_difference_and_declares_nothing()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await using (var channel = await broker.ChannelAsync())
        {
            await channel.QueueDeclareAsync(TopologyNames.Orders, true, false, false, new Dictionary<string, object?> { ["x-queue-type"] = "quorum", ["x-delivery-limit"] = 3, ["x-max-length"] = 10 }, cancellationToken: TestBroker.Stopping);
            await channel.ExchangeDeclareAsync(TopologyNames.OrdersIn, ExchangeType.Direct, durable: true, cancellationToken: TestBroker.Stopping);
        }

        var differences = await broker.Topology.CheckAsync(await broker.ConnectionAsync(), TestBroker.Stopping);

        TopologyDifference Find(string name, string argument) => Assert.Single(differences, difference => difference.Name == name && difference.Argument == argument);
        Assert.Equal("3", Find("orders", "x-delivery-limit").Actual);
        Assert.Equal("none", Find("orders", "x-dead-letter-exchange").Actual);
        Assert.Equal("reject-publish", Find("orders", "x-overflow").Wanted);
        Assert.Equal("direct", Find("orders.in", "type").Actual);
        Find("orders.dlq", "existence");
        await using var look = await broker.ChannelAsync();
        await Assert.ThrowsAsync<global::RabbitMQ.Client.Exceptions.OperationInterruptedException>(() => look.QueueDeclarePassiveAsync(TopologyNames.DeadLetters, TestBroker.Stopping));
    }

    [Fact]
    public async Task A_user_who_may_not_declare_is_enough_once_everything_exists()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        var user = $"runtime-{Guid.NewGuid():N}";
        await broker.ControlAsync("add_user", user, "runtime-password");
        await broker.ControlAsync("set_permissions", "-p", broker.VirtualHost, user, "^$", "^order-events$", "^(orders|orders\\.dlq)$");
        await using var runtime = await TestBroker.StartAsync(fixture, options => options.Uri = broker.Options.Uri.Replace("tests:tests-password", $"{user}:runtime-password", StringComparison.Ordinal));

        await runtime.DeclareAsync();
        await using var subscription = runtime.Subscribe(TopologyNames.Orders);
        _ = subscription.RunAsync(TestBroker.Stopping);
        await broker.PublishAsync(TopologyNames.Orders, 1);

        await subscription.Deliveries.ReadAsync(TestBroker.Stopping);
    }

    [Fact]
    public async Task A_dead_letter_survives_more_returns_than_any_default_limit()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await broker.PublishAsync(TopologyNames.DeadLetters, 1);
        await using var channel = await broker.ChannelAsync();

        for (var round = 0; round < 60; round++)
        {
            BasicGetResult? letter = null;
            await Eventually.TrueAsync(async () => (letter = await channel.BasicGetAsync(TopologyNames.DeadLetters, autoAck: false, TestBroker.Stopping)) is not null);
            await channel.BasicRejectAsync(letter!.DeliveryTag, requeue: true, TestBroker.Stopping);
        }
    }

    [Fact]
    public async Task A_producer_may_use_the_exchange_with_any_routing_key()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        await using var channel = await (await broker.ConnectionAsync()).CreateChannelAsync(new CreateChannelOptions(true, true), TestBroker.Stopping);

        await channel.BasicPublishAsync(TopologyNames.OrdersIn, "whatever", mandatory: true, new BasicProperties(), "{}"u8.ToArray(), TestBroker.Stopping);

        Assert.Equal(1u, await broker.ReadyAsync(TopologyNames.Orders));
    }

    [Fact]
    public async Task A_producer_with_the_rights_that_the_documentation_gives_it_reaches_no_dead_letters()
    {
        await using var broker = await TestBroker.StartAsync(fixture);
        await broker.DeclareAsync();
        // As docs/operations.md says it.
        var write = Repository.Read("docs/operations.md").Split('\n').Single(line => line.StartsWith("| a producer |", StringComparison.Ordinal)).Split('|', StringSplitOptions.TrimEntries)[3].Trim('`');
        var user = $"producer-{Guid.NewGuid():N}";
        await broker.ControlAsync("add_user", user, "producer-password");
        await broker.ControlAsync("set_permissions", "-p", broker.VirtualHost, user, "^$", write, "^$");
        await using var connection = await new ConnectionFactory
        {
            Uri = new Uri(broker.Options.Uri.Replace("tests:tests-password", $"{user}:producer-password", StringComparison.Ordinal)),
        }.CreateConnectionAsync(TestBroker.Stopping);

        await using (var orders = await connection.CreateChannelAsync(new CreateChannelOptions(true, true), TestBroker.Stopping))
        {
            await orders.BasicPublishAsync(TopologyNames.OrdersIn, "", mandatory: true, new BasicProperties(), "{}"u8.ToArray(), TestBroker.Stopping);
        }
        Assert.Equal(1u, await broker.ReadyAsync(TopologyNames.Orders));
        await using var letters = await connection.CreateChannelAsync(new CreateChannelOptions(true, true), TestBroker.Stopping);
        await Assert.ThrowsAnyAsync<Exception>(() => letters.BasicPublishAsync("", TopologyNames.DeadLetters, mandatory: true, new BasicProperties(), "{}"u8.ToArray(), TestBroker.Stopping).AsTask());
        Assert.Equal((ushort)Constants.AccessRefused, letters.CloseReason?.ReplyCode);
        Assert.Equal(0u, await broker.ReadyAsync(TopologyNames.DeadLetters));
    }

    [Theory]
    [InlineData("PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'orders' in vhost '/': received the value '20' of type 'signedint' but current is none", "x-delivery-limit", "none", "20")]
    [InlineData("PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'orders' in vhost '/': received 'quorum' but current is 'classic'", "x-queue-type", "classic", "quorum")]
    [InlineData("PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'orders.partitioned' in vhost '/': received ''x-consistent-hash'' but current is 'direct'", "type", "direct", "x-consistent-hash")]
    [InlineData("PRECONDITION_FAILED - inequivalent arg 'x-dead-letter-exchange' for queue 'orders' in vhost '/': received the value '' of type 'longstr' but current is none", "x-dead-letter-exchange", "none", "")]
    [InlineData("PRECONDITION_FAILED - invalid exchange type 'x-consistent-hash'", "plugin", "none", "rabbitmq_consistent_hash_exchange")]
    [InlineData("COMMAND_INVALID - unknown exchange type 'x-consistent-hash'", "plugin", "none", "rabbitmq_consistent_hash_exchange")]
    [InlineData("PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'orders' in vhost '/': received none but current is the value '10' of type 'long'", "x-max-length", "10", "none")]
    public void The_brokers_texts_are_understood(string text, string argument, string actual, string wanted)
    {
        var difference = Topology.ReadDifference(text);

        Assert.NotNull(difference);
        Assert.Equal((argument, actual, wanted), (difference.Argument, difference.Actual, difference.Wanted));
    }
}

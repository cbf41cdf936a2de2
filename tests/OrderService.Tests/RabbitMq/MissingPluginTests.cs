using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using OrderService.RabbitMq;
using OrderService.Tests.CommandLine;
using OrderService.Tests.Infrastructure;
using Testcontainers.RabbitMq;

namespace OrderService.Tests.RabbitMq;

/// <summary>A broker without the plugin for partitions. It has a container of its own, because plugins are the whole broker's.</summary>
public sealed class MissingPluginTests : IAsyncLifetime
{
    private const string Sentence =
        "The exchange 'orders.partitioned' needs the broker's plugin rabbitmq_consistent_hash_exchange, which is not enabled; run on every node: rabbitmq-plugins enable rabbitmq_consistent_hash_exchange (or set RabbitMq__Partitions=0)";

    private RabbitMqContainer broker = null!;

    public async ValueTask InitializeAsync()
    {
        broker = (await RabbitMqContainerFixture.BuilderAsync())
            .WithResourceMapping("[rabbitmq_management]."u8.ToArray(), "/etc/rabbitmq/enabled_plugins")
            .Build();
        await broker.StartAsync(TestContext.Current.CancellationToken);
    }

    public ValueTask DisposeAsync() => broker?.DisposeAsync() ?? ValueTask.CompletedTask;

    [Fact]
    public async Task The_start_ends_with_one_sentence_that_names_the_remedy_which_helps()
    {
        var environment = new Dictionary<string, string> { ["RabbitMq__Uri"] = Uri(), ["RabbitMq__Partitions"] = "2" };

        var serve = await Binary.RunAsync(["serve"], environment);
        Assert.Equal((78, Sentence), (serve.ExitCode, serve.Error.Trim()));
        Assert.Equal(1, (await Binary.RunAsync(["topology", "--check"], environment)).ExitCode);

        await ExecAsync("rabbitmq-plugins", "enable", "rabbitmq_consistent_hash_exchange");
        var declare = await Binary.RunAsync(["topology", "--declare"], environment);
        Assert.True(declare.ExitCode == 0, declare.Error);
        var check = await Binary.RunAsync(["topology", "--check"], environment);
        Assert.True(check.ExitCode == 0, check.Output + check.Error);

        // Taken away under an exchange that is there.
        await ExecAsync("rabbitmq-plugins", "disable", "rabbitmq_consistent_hash_exchange");
        Assert.Equal(Sentence, (await Assert.ThrowsAsync<TopologyMismatchException>(DeclareAsync)).Message);
        var doctor = await Binary.RunAsync(["doctor"], environment);
        Assert.Equal(1, doctor.ExitCode);
        Assert.Contains(Sentence, doctor.Output, StringComparison.Ordinal);

        // Without partitions nothing asks for it.
        environment["RabbitMq__Partitions"] = "0";
        var off = await Binary.RunAsync(["topology", "--check"], environment);
        Assert.True(off.ExitCode == 0, off.Output + off.Error);
    }

    private async Task DeclareAsync()
    {
        var options = Options.Create(new RabbitMqOptions { Uri = Uri(), Partitions = 2 });
        await using var connection = await new BrokerConnector(options, TimeProvider.System).OpenAsync("test", TestBroker.Stopping);
        await new Topology(options, NullLogger<Topology>.Instance).DeclareAsync(connection, TestBroker.Stopping);
    }

    private string Uri() => $"amqp://tests:tests-password@{broker.Hostname}:{broker.GetMappedPublicPort(5672)}/";

    private async Task ExecAsync(params string[] command)
    {
        var result = await broker.ExecAsync(command);
        Assert.True(result.ExitCode == 0, $"{string.Join(' ', command)}: {result.Stderr}{result.Stdout}");
    }
}

using System.Net;
using System.Net.Sockets;
using System.Text;
using DotNet.Testcontainers.Builders;
using DotNet.Testcontainers.Networks;
using OrderService.Tests.Infrastructure;
using Testcontainers.RabbitMq;

namespace OrderService.Tests.Journeys;

/// <summary>Three brokers in a cluster of their own; one of them dies under load.</summary>
public sealed class ClusterJourneys : IAsyncLifetime
{
    private static readonly string[] Names = ["rmq1", "rmq2", "rmq3"];

    private readonly Dictionary<string, (RabbitMqContainer Container, int Port)> nodes = [];
    private INetwork network = null!;

    private List<string> Addresses => [.. nodes.Values.Select(node => Address(node.Port))];

    public async ValueTask InitializeAsync()
    {
        var one = await RabbitMqContainerFixture.BuilderAsync();
        network = new NetworkBuilder().WithLabel(ContainerEngine.RunLabel, ContainerEngine.Run).Build();
        await network.CreateAsync();
        var peers = Encoding.UTF8.GetBytes(
            "cluster_formation.peer_discovery_backend = classic_config\n" + string.Concat(Names.Select((name, index) => $"cluster_formation.classic_config.nodes.{index + 1} = rabbit@{name}\n")));
        foreach (var name in Names)
        {
            var port = FreePort();
            nodes[name] = (one
                .WithNetwork(network)
                .WithHostname(name)
                .WithNetworkAliases(name)
                .WithEnvironment("RABBITMQ_ERLANG_COOKIE", "a-cookie-of-these-tests")
                .WithResourceMapping(peers, "/etc/rabbitmq/conf.d/90-cluster.conf")
                .WithPortBinding(port, 5672)
                .Build(), port);
        }
        await Task.WhenAll(nodes.Values.Select(node => node.Container.StartAsync(TestContext.Current.CancellationToken)));
        foreach (var name in Names)
        {
            await ExecAsync(name, "rabbitmqctl", "await_online_nodes", "3", "--timeout", "60");
        }
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var (container, _) in nodes.Values)
        {
            await container.DisposeAsync();
        }
        if (network is not null)
        {
            await network.DisposeAsync();
        }
    }

    [Theory]
    [InlineData(0, "orders")]
    [InlineData(2, "orders.1")]
    public async Task The_queues_leader_dies_under_load_and_no_order_is_lost_or_doubled(int partitions, string queue)
    {
        const int Orders = 4000;
        string[] queues = ["orders", .. Enumerable.Range(1, partitions).Select(number => $"orders.{number}")];
        var settings = Settings();
        settings["RabbitMq__Partitions"] = $"{partitions}";
        await using var service = await RunningService.StartAsync(Addresses[0], settings);
        await EventSink.BindAsync(Addresses[0]);

        var messages = Enumerable.Range(0, Orders).Select(number => (OrderId: $"A-{number}", Message: TestMessage.Place($"A-{number}"))).ToList();
        var publishing = partitions == 0
            ? TestProducer.PublishUntilConfirmedAsync(Addresses, messages.Select(pair => pair.Message))
            : TestProducer.PublishByOrderUntilConfirmedAsync(Addresses, messages);
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM events") > 300);
        // The test is about queues with three members; with fewer the death of one would rightly stop them.
        await Eventually.HoldsAsync(async () =>
        {
            var members = await ListQueuesAsync("members");
            Assert.All(queues, name => Assert.All(Names, node => Assert.Contains(node, members[name], StringComparison.Ordinal)));
        });
        var leader = (await ListQueuesAsync("leader"))[queue]["rabbit@".Length..];
        await ContainerEngine.KillAsync(nodes[leader].Container.Id);

        await publishing;
        await service.HoldsRelayedAsync(Orders, TimeSpan.FromSeconds(60));
        Assert.Equal(Orders, await service.ScalarAsync<long>("SELECT count(DISTINCT order_id) FROM events"));
        Assert.Equal(0, await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters"));
        var alive = nodes.First(node => node.Key != leader).Value.Port;
        await EventSink.HoldsAsync(Address(alive), Orders);
        await service.WaitUntilReadyAsync();
    }

    [Fact]
    public async Task A_leader_that_is_cut_off_with_its_consumer_is_left_for_the_other_nodes()
    {
        const int Orders = 200;
        var settings = Settings();
        settings["RabbitMq__StallAfter"] = "00:00:05";
        settings["RabbitMq__QueuePollInterval"] = "00:00:00.500";
        await using var service = await RunningService.StartAsync(Addresses[0], settings);
        var consumers = await ExecAsync("rmq1", "rabbitmqctl", "-q", "--no-table-headers", "list_consumers", "queue_name", "channel_pid");
        var home = Names.Single(name => consumers.Split('\n').Single(line => line.StartsWith("orders\t", StringComparison.Ordinal)).Contains($"@{name}.", StringComparison.Ordinal));
        string[] others = [.. Names.Where(name => name != home)];
        await Eventually.HoldsAsync(async () =>
        {
            var leader = (await ListQueuesAsync("leader"))["orders"];
            if (leader != $"rabbit@{home}")
            {
                await EvalAsync(home, $"ra:transfer_leadership({{'%2F_orders', '{leader}'}}, {{'%2F_orders', node()}})");
            }
            Assert.Equal($"rabbit@{home}", leader);
        });

        // The two refuse the one: what it says to them has the wrong password. It goes on as a leader that nobody follows, and clients of it notice nothing.
        foreach (var name in others)
        {
            await EvalAsync(name, $"erlang:set_cookie('rabbit@{home}', another), erlang:disconnect_node('rabbit@{home}')");
        }
        await TestProducer.PublishUntilConfirmedAsync([.. others.Select(name => Address(nodes[name].Port))], Enumerable.Range(0, Orders).Select(number => TestMessage.Place($"A-{number}")));

        await service.HoldsRelayedAsync(Orders, TimeSpan.FromMinutes(3));
        // Which of them it is depends on where the queues are watched from, and on what that node has heard of the new leader.
        Assert.Matches("by the count of another connection|counts no consumer", service.Output);
        Assert.Equal(Orders, await service.ScalarAsync<long>("SELECT count(DISTINCT order_id) FROM events"));
    }

    private Dictionary<string, string> Settings() =>
        nodes.Values.Select((node, index) => ($"RabbitMq__Endpoints__{index}", $"127.0.0.1:{node.Port}")).ToDictionary(pair => pair.Item1, pair => pair.Item2);

    private static string Address(int port) => $"amqp://tests:tests-password@127.0.0.1:{port}/";

    private Task<string> EvalAsync(string node, string expression) => ExecAsync(node, "rabbitmqctl", "-q", "eval", expression + ".");

    /// <summary>A column of the broker's list of queues, by queue.</summary>
    private async Task<Dictionary<string, string>> ListQueuesAsync(string column) =>
        (await ExecAsync("rmq1", "rabbitmqctl", "-q", "--no-table-headers", "list_queues", "name", column))
            .Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Select(line => line.Split('\t', 2))
            .ToDictionary(cells => cells[0], cells => cells[1].Trim(), StringComparer.Ordinal);

    private async Task<string> ExecAsync(string node, params string[] command)
    {
        var result = await nodes[node].Container.ExecAsync(command);
        return result.ExitCode == 0 ? result.Stdout : throw new InvalidOperationException($"{string.Join(' ', command)}: {result.Stderr}");
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}

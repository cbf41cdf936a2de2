using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using OrderService.RabbitMq;
using OrderService.Tests.Infrastructure;
using RabbitMQ.Client;

namespace OrderService.Tests.RabbitMq;

/// <summary>One virtual host and what is needed to work with it as the service does, and as a stranger does.</summary>
internal sealed class TestBroker : IAsyncDisposable
{
    private readonly RabbitMqContainerFixture fixture;
    private IConnection? connection;

    private TestBroker(RabbitMqContainerFixture fixture, RabbitMqOptions options)
    {
        this.fixture = fixture;
        Options = options;
        Connector = new BrokerConnector(Microsoft.Extensions.Options.Options.Create(options), TimeProvider.System);
        Topology = new Topology(Microsoft.Extensions.Options.Options.Create(options), NullLogger<Topology>.Instance);
    }

    public RabbitMqOptions Options { get; }

    public BrokerConnector Connector { get; }

    public Topology Topology { get; }

    public string VirtualHost => Connector.VirtualHost;

    public static CancellationToken Stopping => TestContext.Current.CancellationToken;

    public static async Task<TestBroker> StartAsync(RabbitMqContainerFixture fixture, Action<RabbitMqOptions>? change = null)
    {
        var options = new RabbitMqOptions
        {
            Uri = await fixture.AddVirtualHostAsync(),
            MaxReconnectDelay = TimeSpan.FromSeconds(0.5),
            StallAfter = TimeSpan.FromSeconds(3),
        };
        change?.Invoke(options);
        return new TestBroker(fixture, options);
    }

    /// <summary>A broker that goes by two names, as if it were two nodes.</summary>
    public static Task<TestBroker> StartWithTwoNamesAsync(RabbitMqContainerFixture fixture) => StartAsync(fixture, options =>
    {
        var port = new Uri(options.Uri).Port;
        options.Endpoints = [$"localhost:{port}", $"127.0.0.1:{port}"];
    });

    /// <summary>A connection that is none of the service's.</summary>
    public async Task<IConnection> ConnectionAsync() => connection is { IsOpen: true } ? connection : connection = await Connector.OpenAsync("test", Stopping);

    public async Task<IChannel> ChannelAsync() => await (await ConnectionAsync()).CreateChannelAsync(null, Stopping);

    public async Task<IChannel> ProducerAsync() => await (await ConnectionAsync()).CreateChannelAsync(new CreateChannelOptions(true, true), Stopping);

    public async Task DeclareAsync() => await Topology.DeclareAsync(await ConnectionAsync(), Stopping);

    /// <summary>Publishes bodies "1", "2", ... with confirms.</summary>
    public async Task PublishAsync(string queue, int count, int first = 1)
    {
        await using var channel = await ProducerAsync();
        await PublishAsync(channel, queue, count, first);
    }

    public static async Task PublishAsync(IChannel channel, string queue, int count, int first = 1)
    {
        for (var number = first; number < first + count; number++)
        {
            await channel.BasicPublishAsync("", queue, mandatory: true, new BasicProperties { Persistent = true }, System.Text.Encoding.UTF8.GetBytes($"{number}"), Stopping);
        }
    }

    /// <summary>Publishes bodies in one go, and returns when the last one is confirmed.</summary>
    public async Task PublishAsync(string queue, params byte[][] bodies)
    {
        await using var channel = await ProducerAsync();
        await Task.WhenAll(bodies.Select(body => channel.BasicPublishAsync("", queue, mandatory: true, new BasicProperties { Persistent = true }, body, Stopping).AsTask()));
    }

    public async Task<uint> ReadyAsync(string queue)
    {
        await using var channel = await ChannelAsync();
        return await channel.MessageCountAsync(queue, Stopping);
    }

    public QueueSubscription Subscribe(string queue, ushort prefetch = 100, ILogger<QueueSubscription>? logger = null, BytesInHand? room = null) =>
        new(Connector, queue, prefetch, TimeProvider.System, logger ?? NullLogger<QueueSubscription>.Instance, Topology.DeclareAsync, room);

    public ConfirmedPublisher Publisher(Func<IConnection, CancellationToken, Task>? declare = null) =>
        new(Connector, Microsoft.Extensions.Options.Options.Create(Options), TimeProvider.System, NullLogger<ConfirmedPublisher>.Instance, declare);

    /// <summary>The process of a classic queue stands still, as if its node did not answer; the broker itself works.</summary>
    public Task HangAsync(string queue) => fixture.HangAsync(VirtualHost, queue);

    public Task ResumeAsync(string queue) => fixture.ResumeAsync(VirtualHost, queue);

    public Task<string> ControlAsync(params string[] arguments) => fixture.ExecAsync(["rabbitmqctl", .. arguments]);

    public async ValueTask DisposeAsync() => await BrokerConnector.DisposeQuietlyAsync(connection);
}

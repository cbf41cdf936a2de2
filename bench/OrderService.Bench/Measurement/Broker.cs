using System.Diagnostics;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using OrderService.RabbitMq;
using RabbitMQ.Client;

namespace OrderService.Bench.Measurement;

/// <summary>The broker under test. Every run gets a virtual host of its own, with the service's own topology and one queue that collects the events.</summary>
internal sealed class Broker : IAsyncDisposable
{
    public const string Sink = "bench.sink";

    private readonly Uri amqp;
    private readonly HttpClient management;
    private readonly string sinkType;

    public Broker(BenchAddresses addresses, string sinkType)
    {
        amqp = new Uri(addresses.Amqp);
        this.sinkType = sinkType;
        management = new HttpClient { BaseAddress = new Uri(addresses.Management.TrimEnd('/') + "/") };
        management.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Basic", Convert.ToBase64String(Encoding.UTF8.GetBytes(Uri.UnescapeDataString(amqp.UserInfo))));
    }

    /// <summary>The address of a virtual host, as <c>RabbitMq:Uri</c> has it.</summary>
    public string AddressOf(string virtualHost) => new UriBuilder(amqp) { Path = "/" + virtualHost }.Uri.AbsoluteUri;

    /// <summary>The broker's version, for the report.</summary>
    public async Task<string> VersionAsync()
    {
        using var overview = JsonDocument.Parse(await management.GetStringAsync("api/overview"));
        return overview.RootElement.GetProperty("rabbitmq_version").GetString() ?? "unknown";
    }

    /// <summary>Makes the virtual host anew, with the service's topology and the queue of events, and opens a connection to it.</summary>
    public async Task<BrokerRun> PrepareAsync(string virtualHost, CancellationToken cancellationToken, int partitions = 0)
    {
        await RemoveAsync(virtualHost);
        (await management.PutAsJsonAsync($"api/vhosts/{virtualHost}", new { default_queue_type = "classic" }, cancellationToken)).EnsureSuccessStatusCode();
        var user = Uri.UnescapeDataString(amqp.UserInfo.Split(':')[0]);
        (await management.PutAsJsonAsync($"api/permissions/{virtualHost}/{user}", new { configure = ".*", write = ".*", read = ".*" }, cancellationToken)).EnsureSuccessStatusCode();

        var options = Options.Create(new RabbitMqOptions { Uri = AddressOf(virtualHost), ConnectionName = "bench", Partitions = partitions });
        var connection = await new BrokerConnector(options, TimeProvider.System).OpenAsync("measures", cancellationToken);
        var topology = new Topology(options, NullLogger<Topology>.Instance);
        await topology.DeclareAsync(connection, cancellationToken);
        var channel = await connection.CreateChannelAsync(cancellationToken: cancellationToken);
        await channel.QueueDeclareAsync(Sink, true, false, false, new Dictionary<string, object?> { ["x-queue-type"] = sinkType }, cancellationToken: cancellationToken);
        await channel.QueueBindAsync(Sink, TopologyNames.OrderEvents, "#", cancellationToken: cancellationToken);
        return new BrokerRun(this, virtualHost, connection, channel, topology.OrderQueues);
    }

    public async Task RemoveAsync(string virtualHost)
    {
        using var answer = await management.DeleteAsync(new Uri($"api/vhosts/{virtualHost}", UriKind.Relative));
    }

    public ValueTask DisposeAsync()
    {
        management.Dispose();
        return ValueTask.CompletedTask;
    }
}

/// <summary>One run's virtual host, seen from outside the contestant.</summary>
internal sealed class BrokerRun(Broker broker, string virtualHost, IConnection connection, IChannel channel, IReadOnlyList<string> orderQueues) : IAsyncDisposable
{
    public string Address => broker.AddressOf(virtualHost);

    /// <summary>Messages that are ready in the queue. Deliveries that are not settled don't count.</summary>
    public async Task<uint> ReadyAsync(string queue) => (await channel.QueueDeclarePassiveAsync(queue)).MessageCount;

    /// <summary>Messages that are ready in <c>orders</c> and its partitions.</summary>
    public async Task<uint> OrdersReadyAsync()
    {
        uint ready = 0;
        foreach (var queue in orderQueues)
        {
            ready += await ReadyAsync(queue);
        }
        return ready;
    }

    /// <summary>Queues everything before the contestant starts.</summary>
    public async Task PreloadAsync(Workload workload, CancellationToken cancellationToken)
    {
        await using var publish = await connection.CreateChannelAsync(cancellationToken: cancellationToken);
        foreach (var number in workload.Slots)
        {
            await PublishAsync(publish, number, cancellationToken, partitioned: orderQueues.Count > 1);
        }
        await Wait.UntilAsync(async () => await OrdersReadyAsync() == workload.Messages, TimeSpan.FromMinutes(2), "the queues hold what was published", cancellationToken);
    }

    public ValueTask<IChannel> OpenChannelAsync() => new(connection.CreateChannelAsync());

    /// <summary>One order, as a producer publishes it.</summary>
    public static ValueTask PublishAsync(IChannel channel, int number, CancellationToken cancellationToken, bool partitioned = false) => channel.BasicPublishAsync(
        partitioned ? TopologyNames.OrdersPartitioned : "", partitioned ? Workload.OrderId(number) : TopologyNames.Orders, false,
        new BasicProperties { MessageId = Workload.MessageId(number), ContentType = "application/json", Type = "order.place", DeliveryMode = DeliveryModes.Persistent },
        Workload.Body(number), cancellationToken);

    /// <summary>Takes every event out of the sink and counts them per order.</summary>
    public async Task<SinkContents> ReadSinkAsync(CancellationToken cancellationToken)
    {
        var expected = await ReadyAsync(Broker.Sink);
        var counts = new Dictionary<int, int>((int)expected);
        var read = 0;
        var strangers = 0;
        var done = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        if (expected == 0)
        {
            return new SinkContents(counts, 0, 0);
        }
        await using var reading = await connection.CreateChannelAsync(cancellationToken: cancellationToken);
        var consumer = new RabbitMQ.Client.Events.AsyncEventingBasicConsumer(reading);
        consumer.ReceivedAsync += (_, delivery) =>
        {
            var number = Workload.NumberOf(delivery.BasicProperties.MessageId, delivery.Body.Span);
            if (number < 0)
            {
                strangers++;
            }
            else
            {
                counts[number] = counts.GetValueOrDefault(number) + 1;
            }
            if (++read == expected)
            {
                done.TrySetResult();
            }
            return Task.CompletedTask;
        };
        await reading.BasicConsumeAsync(Broker.Sink, autoAck: true, consumer, cancellationToken);
        await done.Task.WaitAsync(TimeSpan.FromMinutes(2), cancellationToken);
        return new SinkContents(counts, read, strangers);
    }

    public async ValueTask DisposeAsync()
    {
        await channel.DisposeAsync();
        await BrokerConnector.DisposeQuietlyAsync(connection);
        await broker.RemoveAsync(virtualHost);
    }
}

/// <param name="Counts">Events per order's number.</param>
/// <param name="Strangers">Events that name no order of the run.</param>
internal sealed record SinkContents(IReadOnlyDictionary<int, int> Counts, int Events, int Strangers);

internal static class Wait
{
    /// <summary>Asks again every few milliseconds.</summary>
    public static async Task UntilAsync(Func<Task<bool>> condition, TimeSpan limit, string what, CancellationToken cancellationToken)
    {
        var began = Stopwatch.GetTimestamp();
        using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
        while (!await condition())
        {
            if (Stopwatch.GetElapsedTime(began) > limit)
            {
                throw new BenchException($"After {limit.TotalSeconds:F0} s it was still not so that {what}.");
            }
            await tick.WaitForNextTickAsync(cancellationToken);
        }
    }
}

using System.Net;
using System.Net.Http.Json;
using OrderService.Tests.Infrastructure;
using RabbitMQ.Client;
using RabbitMQ.Client.Exceptions;

namespace OrderService.Tests.Outside;

/// <summary>An administrator declares; the service's own user publishes to two exchanges, consumes two queues and may do nothing else to the broker.</summary>
public sealed class LeastRightsJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task A_user_without_any_right_to_configure_or_to_write_to_a_queue_is_enough(StoreKind store)
    {
        var administrator = await broker.AddVirtualHostAsync();
        var user = await AddUserAsync(administrator);
        await using var service = await ReleaseService.StartAsync(user, store, postgres, waitUntilReady: false);
        Assert.Equal(78, await service.WaitForExitAsync());
        Assert.Contains("orderservice topology --declare", service.Output, StringComparison.Ordinal);

        var file = Path.Combine(service.Folder, "administrator");
        await File.WriteAllTextAsync(file, administrator + "\n", Token);
        var (asAdministrator, printed, error) = await service.RunAsync("topology", "--declare", "--administrator-file", file);
        Assert.True(asAdministrator == 0, error);
        Assert.DoesNotContain("tests-password", printed + error, StringComparison.Ordinal);
        await service.StartAgainAsync();

        // An order over HTTP, and a letter that is mended and sent again.
        using var placed = await service.Http.PostAsJsonAsync("/api/orders", Order("W-1"), Token);
        Assert.Equal(HttpStatusCode.Accepted, placed.StatusCode);
        await Eventually.HoldsAsync(async () => Assert.Equal("placed", await service.OrderStatusAsync("W-1")));
        await using var shop = await TestProducer.ConnectAsync(administrator);
        await shop.PublishAsync(new TestMessage("order.plaze", "key-2", TestMessage.Place("W-2").Body));
        await Eventually.HoldsAsync(async () => Assert.Single(await service.AllAsync("/api/dead-letters?status=parked")));
        var letter = (await service.AllAsync("/api/dead-letters?status=parked"))[0].GetProperty("id").GetInt64();
        using var replayed = await service.Http.PostAsJsonAsync(
            "/api/dead-letters/replays", new { ids = new[] { letter }, patch = new { type = "order.place" }, reason = "a typing error" }, Token);
        Assert.Equal(HttpStatusCode.Accepted, replayed.StatusCode);
        await Eventually.HoldsAsync(async () => Assert.Equal("placed", await service.OrderStatusAsync("W-2")));

        Assert.Equal(0, (await service.RunAsync("doctor")).ExitCode);
        Assert.Equal(0, await service.StopAsync());
    }

    [Fact]
    public async Task Thirty_other_things_are_refused_to_that_user()
    {
        var administrator = await broker.AddVirtualHostAsync();
        await using (var declared = await ReleaseService.StartAsync(administrator, StoreKind.Sqlite, postgres))
        {
            Assert.Equal(0, await declared.StopAsync());
        }
        await using var connection = await new ConnectionFactory { Uri = new Uri(await AddUserAsync(administrator)) }.CreateConnectionAsync(Token);

        var allowed = new List<string>();
        foreach (var (what, attempt) in Forbidden)
        {
            try
            {
                // With confirms, so that a publish has an answer.
                await using var channel = await connection.CreateChannelAsync(new CreateChannelOptions(true, true), Token);
                await attempt(channel).WaitAsync(TimeSpan.FromSeconds(30), Token);
                allowed.Add(what);
            }
            catch (Exception refused) when (ReplyCode(refused) == Constants.AccessRefused)
            {
                // As it should be.
            }
        }

        Assert.Empty(allowed);
        Assert.Equal(30, Forbidden.Count);
    }

    private static readonly string[] Queues = ["orders", "orders.dlq", "orders.unreadable", "order-events.unrouted"];

    private static List<(string What, Func<IChannel, Task> Attempt)> Forbidden { get; } =
    [
        .. Queues.Select(queue => ($"publish straight to {queue}", Publish("", queue))),
        .. Queues.Select(queue => ($"delete {queue}", On(channel => channel.QueueDeleteAsync(queue)))),
        .. Queues.Select(queue => ($"bind {queue}", On(channel => channel.QueueBindAsync(queue, "order-events", "#")))),
        .. Queues[2..].Select(queue => ($"purge {queue}", On(channel => channel.QueuePurgeAsync(queue)))),
        .. Queues[2..].Select(queue => ($"get from {queue}", On(channel => channel.BasicGetAsync(queue, autoAck: false)))),
        .. Queues[2..].Select(queue => ($"consume {queue}", On(channel => channel.BasicConsumeAsync(queue, autoAck: false, new AsyncDefaultBasicConsumer(channel))))),
        .. new[] { "amq.direct", "amq.fanout", "amq.topic", "amq.headers", "order-events.unrouted" }.Select(exchange => ($"publish to {exchange}", Publish(exchange, "orders"))),
        .. new[] { "order-events", "orders.in", "order-events.unrouted" }.Select(exchange => ($"delete {exchange}", On(channel => channel.ExchangeDeleteAsync(exchange)))),
        ("declare a queue", On(channel => channel.QueueDeclareAsync("mine", durable: true, exclusive: false, autoDelete: false))),
        ("declare an exchange", On(channel => channel.ExchangeDeclareAsync("mine", ExchangeType.Fanout))),
        ("bind an exchange to the events", On(channel => channel.ExchangeBindAsync("orders.in", "order-events", "#"))),
        ("unbind the queue of orders", On(channel => channel.QueueUnbindAsync("orders", "orders.in", ""))),
    ];

    private static Func<IChannel, Task> On(Func<IChannel, Task> attempt) => attempt;

    private static Func<IChannel, Task> Publish(string exchange, string routingKey) =>
        channel => channel.BasicPublishAsync(exchange, routingKey, mandatory: true, new BasicProperties(), "{}"u8.ToArray()).AsTask();

    private static ushort? ReplyCode(Exception exception) => exception switch
    {
        OperationInterruptedException interrupted => interrupted.ShutdownReason?.ReplyCode,
        PublishException or null => null,
        _ => exception.InnerException is { } inner ? ReplyCode(inner) : null,
    };

    private async Task<string> AddUserAsync(string administrator)
    {
        var (host, user) = (new Uri(administrator).AbsolutePath.TrimStart('/'), $"service-{Guid.NewGuid():N}");
        await broker.ExecAsync("rabbitmqctl", "add_user", user, "service-password");
        await broker.ExecAsync("rabbitmqctl", "set_permissions", "-p", host, user, "^$", @"^(order-events|orders\.in)$", @"^(orders(\.[0-9]+)?|orders\.dlq)$");
        return administrator.Replace("tests:tests-password", $"{user}:service-password", StringComparison.Ordinal);
    }

    private static object Order(string orderId) => new
    {
        orderId,
        customerId = "C-7",
        currency = "EUR",
        lines = new[] { new { sku = "KB-01", quantity = 1, unitPrice = 9.90m } },
    };

    private static CancellationToken Token => TestContext.Current.CancellationToken;
}

using OrderService.Tests.Infrastructure;
using RabbitMQ.Client;

namespace OrderService.Tests.Journeys;

/// <summary>Events that the broker does not take at once.</summary>
public sealed class RelayJourneys(RabbitMqContainerFixture broker)
{
    [Fact]
    public async Task Events_that_a_full_queue_refuses_are_tried_again_and_again_and_arrive_when_there_is_room()
    {
        const int Orders = 5;
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address, new() { ["Outbox__ProbeInterval"] = "00:00:00.100" });
        await using var shop = await TestProducer.ConnectAsync(address);
        await using var connection = await new ConnectionFactory { Uri = new Uri(address) }.CreateConnectionAsync(TestContext.Current.CancellationToken);
        await using var channel = await connection.CreateChannelAsync(cancellationToken: TestContext.Current.CancellationToken);
        await channel.QueueDeclareAsync(
            "full", durable: true, exclusive: false, autoDelete: false, new Dictionary<string, object?> { ["x-max-length"] = 1, ["x-overflow"] = "reject-publish" },
            cancellationToken: TestContext.Current.CancellationToken);
        await channel.QueueBindAsync("full", "order-events", "#", cancellationToken: TestContext.Current.CancellationToken);

        await shop.PublishAsync(Enumerable.Range(0, Orders).Select(number => TestMessage.Place($"A-{number}")));

        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM outbox") == Orders - 1);
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM outbox WHERE stuck_key = 'order.placed' AND stuck_reason = 'a queue refuses it'") >= Orders - 2);
        Assert.Equal(Orders, await service.ScalarAsync<long>("SELECT count(*) FROM events"));
        await shop.ListenAsync();
        await channel.QueueDeleteAsync("full", cancellationToken: TestContext.Current.CancellationToken);
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM outbox") == 0);
        // The broker confirms before it hands out.
        await Eventually.HoldsAsync(() =>
        {
            Assert.Equal(Orders - 1, shop.Heard.Select(heard => heard.Id).Distinct().Count());
            return Task.CompletedTask;
        });
        Assert.Equal(0, await service.StopAsync());
    }

    [Fact]
    public async Task A_relay_that_breaks_down_ends_the_process_and_the_next_one_finds_everything()
    {
        const int Orders = 20;
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        await service.StopAsync();
        await service.StartAgainAsync("relay-after-mark=throw");

        await shop.PublishAsync(Enumerable.Range(0, Orders).Select(number => TestMessage.Place($"A-{number}")));
        await service.WaitForExitAsync();

        Assert.Equal(70, service.ExitCode);
        Assert.Contains("OutboxRelay", service.Output, StringComparison.Ordinal);
        await service.StartAgainAsync();
        await Eventually.HoldsAsync(async () =>
        {
            Assert.Equal((Orders, 0), (await service.ScalarAsync<long>("SELECT count(*) FROM events"), await service.ScalarAsync<long>("SELECT count(*) FROM outbox")));
            Assert.Equal(Orders, shop.Heard.Select(heard => heard.Id).Distinct().Count());
        });
    }
}

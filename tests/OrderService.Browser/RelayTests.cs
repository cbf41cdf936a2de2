using Microsoft.Playwright;
using OrderService.Browser.Infrastructure;
using OrderService.Tests.Infrastructure;
using RabbitMQ.Client;
using static Microsoft.Playwright.Assertions;

namespace OrderService.Browser;

public sealed class RelayTests(Shop shop)
{
    [Fact]
    public async Task A_routing_key_that_a_full_queue_refuses_is_shown_and_released_by_hand()
    {
        // By itself it would be tried again long after this test.
        var (service, producer) = await shop.StartAnotherAsync(new() { ["Outbox__ProbeInterval"] = "00:05:00" });
        await using var one = service;
        await using var other = producer;
        var stopping = TestContext.Current.CancellationToken;
        await using var connection = await new ConnectionFactory { Uri = new Uri(service.Broker) }.CreateConnectionAsync(stopping);
        await using var channel = await connection.CreateChannelAsync(cancellationToken: stopping);
        await channel.QueueDeclareAsync("full", true, false, false, new Dictionary<string, object?> { ["x-max-length"] = 1, ["x-overflow"] = "reject-publish" }, cancellationToken: stopping);
        await channel.QueueBindAsync("full", "order-events", "order.placed", cancellationToken: stopping);
        await producer.PublishAsync(Enumerable.Range(1, 5).Select(number => TestMessage.Place($"A-{number}")));

        await shop.VisitAsync(async visitor =>
        {
            await Expect(visitor.Page.Locator("tr", new() { HasTextString = "order.placed" })).ToContainTextAsync("a queue refuses it", new() { Timeout = 20_000 });
            await Expect(visitor.Button("Release order.placed")).ToHaveCountAsync(0);
        }, key: Shop.ReaderKey, at: "#/queues", of: service);
        await shop.VisitAsync(async visitor =>
        {
            var row = visitor.Page.Locator("tr", new() { HasTextString = "order.placed" });
            await Expect(row).ToContainTextAsync("a queue refuses it", new() { Timeout = 20_000 });
            await visitor.AssertAccessibleAsync("queues with a routing key that waits");
            await visitor.AssertNoSidewaysScrollAsync("queues with a routing key that waits");
            await visitor.ScreenshotAsync("queues-relay-light");
            await channel.QueueUnbindAsync("full", "order-events", "order.placed", cancellationToken: stopping);

            await visitor.Button("Release order.placed").ClickAsync();
            var release = visitor.Dialog.GetByRole(AriaRole.Button, new() { Name = "Release", Exact = true });
            await Expect(release).ToBeDisabledAsync();
            await Expect(visitor.Dialog).ToContainTextAsync("events wait");
            await visitor.AssertAccessibleAsync("release dialog");
            await visitor.Dialog.GetByLabel("Reason (required)").FillAsync("the queue is unbound");
            await release.ClickAsync();

            await Expect(row).ToHaveCountAsync(0, new() { Timeout = 20_000 });
            await visitor.GoAsync("#/audit");
            var entry = visitor.Page.Locator("tr", new() { HasTextString = "relay.release" });
            await Expect(entry).ToContainTextAsync("routing key order.placed");
            await Expect(entry).ToContainTextAsync("the queue is unbound");
        }, at: "#/queues", of: service);
    }
}

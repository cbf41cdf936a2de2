using System.Text;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Journeys;

/// <summary>What a shop does with the service: the real binary, a real broker, a file as the store.</summary>
public sealed class OrderJourneys(RabbitMqContainerFixture broker)
{
    [Fact]
    public async Task An_order_is_placed_paid_shipped_and_delivered_and_everybody_hears_of_it_in_order()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();

        await shop.PublishAsync(TestMessage.Place("A-1") with { More = properties => properties.CorrelationId = "conversation-1" });
        await shop.PublishAsync(TestMessage.Of("order.pay", "pay-1", """{"orderId":"A-1","paymentReference":"P-9","amount":99.80}"""));
        await shop.PublishAsync(TestMessage.Of("order.ship", "ship-1", """{"orderId":"A-1","carrier":"DHL","trackingNumber":"T-5"}"""));
        await shop.PublishAsync(TestMessage.Of("order.deliver", "deliver-1", """{"orderId":"A-1"}"""));

        await Eventually.TrueAsync(() => shop.Heard.Count == 5);
        Assert.Equal(["ORDER_PLACED", "ORDER_PAYMENT_RECEIVED", "ORDER_PAID", "ORDER_SHIPPED", "ORDER_DELIVERED"], shop.Heard.Select(heard => heard.Type));
        Assert.Equal(["key-A-1", "pay-1", "pay-1", "ship-1", "deliver-1"], shop.Heard.Select(heard => heard.Cause));
        Assert.Contains("\"correlationid\":\"conversation-1\"", shop.Heard[0].Body, StringComparison.Ordinal);
        var stream = await service.StreamAsync("A-1");
        Assert.Equal([1L, 2, 3, 4, 5], stream.Select(recorded => recorded.Version));
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM outbox") == 0);
        Assert.Equal(0, await service.StopAsync());
    }

    [Fact]
    public async Task A_thousand_copies_from_two_producers_at_once_have_one_effect()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address);
        await using var one = await TestProducer.ConnectAsync(address);
        await using var two = await TestProducer.ConnectAsync(address);
        await one.ListenAsync();
        var copies = Enumerable.Repeat(TestMessage.Place("A-1"), 500).ToList();

        await Task.WhenAll(one.PublishAsync(copies), two.PublishAsync(copies));
        await one.PublishAsync(TestMessage.Place("A-2"));

        await Eventually.TrueAsync(() => one.Heard.Any(heard => heard.Cause == "key-A-2"));
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT coalesce(sum(copies), 0) FROM inbox") == 999);
        Assert.Single(await service.StreamAsync("A-1"));
        Assert.Single(one.Heard, heard => heard.Cause == "key-A-1");
    }

    [Fact]
    public async Task The_plainest_producer_there_is_gets_its_duplicates_removed_too()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);
        const string Json = """{"orderId":"A-1","customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}]}""";

        await shop.PublishBareAsync(Json);
        await shop.PublishBareAsync(Json);

        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT coalesce(sum(copies), 0) FROM inbox") == 1);
        Assert.Single(await service.StreamAsync("A-1"));
    }

    [Fact]
    public async Task The_same_key_with_another_body_is_a_dead_letter_and_the_first_order_stands()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);

        await shop.PublishAsync(TestMessage.Place("A-1", "key-1"));
        await shop.PublishAsync(TestMessage.Place("A-1", "key-1", customerId: "C-8"));

        await Eventually.HoldsAsync(async () => Assert.Equal(["key_conflict"], await service.ColumnAsync<string>("SELECT reason FROM dead_letters WHERE status = 'parked'")));
        Assert.Contains("C-7", Encoding.UTF8.GetString(Assert.Single(await service.StreamAsync("A-1")).Data.Span), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_shipment_that_comes_before_its_order_waits_for_it()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();

        await shop.PublishAsync(TestMessage.Ship("A-1"));
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM deferred") == 1);
        await shop.PublishAsync(TestMessage.Place("A-1"));

        await Eventually.TrueAsync(() => shop.Heard.Count == 2);
        Assert.Equal(["ORDER_PLACED", "ORDER_SHIPPED"], shop.Heard.Select(heard => heard.Type));
        Assert.Equal(0, await service.ScalarAsync<long>("SELECT count(*) FROM deferred"));
    }

    [Fact]
    public async Task A_shipment_whose_order_never_comes_is_a_dead_letter_in_the_end()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address, new() { ["Orders__DeferFor"] = "00:00:01" });
        await using var shop = await TestProducer.ConnectAsync(address);

        await shop.PublishAsync(TestMessage.Ship("A-1"));

        await Eventually.HoldsAsync(async () => Assert.Equal(["order_unknown"], await service.ColumnAsync<string>("SELECT reason FROM dead_letters WHERE status = 'parked'")));
        Assert.Equal(0, await service.ScalarAsync<long>("SELECT count(*) FROM deferred"));
        Assert.Equal(4, await service.ScalarAsync<long>("SELECT outcome FROM inbox WHERE key = 'ship-A-1'"));
    }

    [Fact]
    public async Task Shipping_a_cancelled_order_is_refused_and_announced_and_no_dead_letter()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();

        await shop.PublishAsync(TestMessage.Place("A-1"), TestMessage.Of("order.cancel", "cancel-1", """{"orderId":"A-1","reason":"changed my mind"}"""), TestMessage.Ship("A-1"));

        await Eventually.TrueAsync(() => shop.Heard.Count == 3);
        Assert.Equal(["ORDER_PLACED", "ORDER_CANCELLED", "ORDER_COMMAND_REFUSED"], shop.Heard.Select(heard => heard.Type));
        Assert.Equal(0, await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters"));
    }

    [Fact]
    public async Task Every_kind_of_poison_is_parked_with_its_reason_and_its_exact_bytes_and_the_good_orders_go_through()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);
        var poison = Poison.Messages;
        var good = Enumerable.Range(0, 50).Select(number => TestMessage.Place($"G-{number}")).ToList();

        await shop.PublishAsync(poison.Select(kind => kind.Message).Concat(good));

        await Eventually.HoldsAsync(async () =>
        {
            Assert.Equal(50, await service.ScalarAsync<long>("SELECT count(*) FROM events"));
            Assert.Equal(
                poison.Select(kind => kind.Reason).Order(StringComparer.Ordinal),
                (await service.ColumnAsync<string>("SELECT reason FROM dead_letters WHERE status = 'parked'")).Order(StringComparer.Ordinal));
        });
        var kept = await service.BodiesAsync("SELECT body FROM dead_letters");
        Assert.All(poison, kind => Assert.Contains(kept, body => body.AsSpan().SequenceEqual(kind.Message.Body)));
        Assert.Equal(0u, await shop.DepthAsync("orders"));
        Assert.Equal(0u, await shop.DepthAsync("orders.dlq"));
        Assert.True(await service.IsReadyAsync());
    }

    [Fact]
    public async Task A_process_that_only_serves_http_is_ready_when_it_can_publish()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await RunningService.StartAsync("amqp://tests:tests-password@127.0.0.1:1/", new() { ["Roles"] = "api" }, waitUntilReady: false);
        await Eventually.HoldsAsync(async () =>
        {
            using var response = await service.Http.GetAsync(new Uri("/health/ready", UriKind.Relative));
            Assert.Equal(System.Net.HttpStatusCode.ServiceUnavailable, response.StatusCode);
            Assert.Contains("Not connected for publishing", await response.Content.ReadAsStringAsync(), StringComparison.Ordinal);
        });

        await service.StopAsync();
        service.Set("RabbitMq__Uri", address);
        await service.StartAgainAsync();
    }
}

using Microsoft.Playwright;
using OrderService.Browser.Infrastructure;
using OrderService.Tests.Infrastructure;
using static Microsoft.Playwright.Assertions;

namespace OrderService.Browser;

public sealed class OrderTests(Shop shop)
{
    [Fact]
    public Task An_order_is_found_by_its_id_and_by_its_customer() => shop.VisitAsync(async visitor =>
    {
        var id = shop.NewId("find");
        var customer = shop.NewId("buyer");
        await shop.PublishAsync(TestMessage.Place(id, customerId: customer));
        await shop.WaitForOrderAsync(id);

        var search = visitor.Page.GetByRole(AriaRole.Searchbox, new() { Name = "Order id or customer id" });
        await search.FillAsync(id);
        await search.PressAsync("Enter");
        await Expect(visitor.Page.Locator("tbody tr")).ToHaveCountAsync(1);
        await Expect(visitor.Page.Locator("tbody tr")).ToContainTextAsync("99.80 EUR");

        await search.FillAsync(customer);
        await search.PressAsync("Enter");
        await Expect(visitor.Page.Locator("tbody tr")).ToHaveCountAsync(1);
        await visitor.Link(id).ClickAsync();
        await Expect(visitor.Heading($"Order {id}")).ToBeVisibleAsync();
        await Expect(visitor.Page.Locator("main")).ToContainTextAsync("KB-01");
    }, at: "#/orders");

    [Fact]
    public Task Money_and_goods_of_an_order_are_seen_at_a_glance() => shop.VisitAsync(async visitor =>
    {
        var id = shop.NewId("parts");
        await shop.PublishAsync(TestMessage.Place(id));
        await shop.WaitForOrderAsync(id);
        await shop.PublishAsync(
            TestMessage.Of("order.pay", $"pay-{id}", $$"""{"orderId":"{{id}}","paymentReference":"P-1","amount":99.80}"""),
            TestMessage.Of("order.ship", $"ship-{id}", $$"""{"orderId":"{{id}}","shipmentId":"S-1","lines":[{"lineId":"1","quantity":1}]}"""));
        await shop.PublishAsync(TestMessage.Of("order.refund", $"refund-{id}", $$"""{"orderId":"{{id}}","refundReference":"REF-1","amount":49.90}"""));

        await visitor.LoadAsync($"/#/orders/{id}");

        var main = visitor.Page.Locator("main");
        await Expect(main.Locator(".chip", new() { HasTextString = "partly refunded" }).First).ToBeVisibleAsync();
        await Expect(main.Locator(".chip", new() { HasTextString = "partly fulfilled" }).First).ToBeVisibleAsync();
        await Expect(main.Locator("table", new() { HasTextString = "REF-1" })).ToContainTextAsync("S-1");
        await Expect(main.Locator("table", new() { HasTextString = "KB-01" })).ToContainTextAsync("Shipped");
    }, at: "#/orders");

    [Fact]
    public Task A_filter_is_kept_in_the_address() => shop.VisitAsync(async visitor =>
    {
        await visitor.Link("Delivered", exact: true).ClickAsync();
        await Expect(visitor.Page.Locator("tbody tr").First).ToContainTextAsync("delivered");
        Assert.EndsWith("#/orders?status=delivered", visitor.Page.Url, StringComparison.Ordinal);
        await visitor.LoadAsync("/#/orders?status=delivered");
        await Expect(visitor.Link("Delivered", exact: true)).ToHaveAttributeAsync("aria-current", "page");
        await Expect(visitor.Page.Locator("tbody .chip", new() { HasTextString = "placed" })).ToHaveCountAsync(0);
    }, at: "#/orders");

    [Fact]
    public Task New_orders_wait_until_they_are_asked_for() => shop.VisitAsync(async visitor =>
    {
        await Expect(visitor.Page.Locator("tbody tr").First).ToBeVisibleAsync();
        var id = shop.NewId("late");
        await shop.PublishAsync(TestMessage.Place(id));
        var waiting = visitor.Page.Locator(".waiting button");
        await Expect(waiting).ToContainTextAsync("show", new() { Timeout = 15_000 });
        await Expect(visitor.Link(id)).ToHaveCountAsync(0);

        await waiting.ClickAsync();
        await Expect(visitor.Link(id)).ToBeVisibleAsync();
    }, at: "#/orders");

    [Fact]
    public async Task An_open_order_changes_while_it_is_looked_at()
    {
        await shop.OpenAsync();
        var id = shop.NewId("live");
        await shop.PublishAsync(TestMessage.Place(id));
        await shop.WaitForOrderAsync(id);
        await shop.VisitAsync(async visitor =>
        {
            await Expect(visitor.Page.Locator(".page-sub .chip")).ToHaveTextAsync("placed");
            await shop.PublishAsync(TestMessage.Ship(id));
            await Expect(visitor.Page.Locator(".page-sub .chip")).ToHaveTextAsync("shipped", new() { Timeout = 10_000 });
        }, at: $"#/orders/{id}");
    }

    [Fact]
    public async Task Updates_stop_while_they_are_paused()
    {
        await shop.OpenAsync();
        var id = shop.NewId("still");
        await shop.PublishAsync(TestMessage.Place(id));
        await shop.WaitForOrderAsync(id);
        await shop.VisitAsync(async visitor =>
        {
            await visitor.Page.Clock.InstallAsync();
            await visitor.LoadAsync($"/#/orders/{id}");
            await Expect(visitor.Page.Locator(".page-sub .chip")).ToHaveTextAsync("placed");
            await visitor.Button("Updates come by themselves").ClickAsync();
            await Expect(visitor.Button("Updates are paused")).ToBeVisibleAsync();
            var asked = 0;
            visitor.Page.Request += (_, request) => asked += request.Url.Contains("/api/", StringComparison.Ordinal) ? 1 : 0;
            await shop.PublishAsync(TestMessage.Ship(id));
            await shop.WaitForOrderAsync(id, 2);
            // Whatever the page had planned for the next minute would happen now.
            await visitor.Page.Clock.FastForwardAsync(60_000);
            Assert.Equal(0, asked);
            await Expect(visitor.Page.Locator(".page-sub .chip")).ToHaveTextAsync("placed");

            await visitor.Button("Updates are paused").ClickAsync();
            await Expect(visitor.Page.Locator(".page-sub .chip")).ToHaveTextAsync("shipped", new() { Timeout = 15_000 });
        }, at: $"#/orders/{id}");
    }
}

using OrderService.Browser.Infrastructure;
using static Microsoft.Playwright.Assertions;

namespace OrderService.Browser;

public sealed class AlertTests(Shop shop)
{
    [Fact]
    public Task A_channel_is_tried_and_what_was_sent_is_listed() => shop.VisitAsync(async visitor =>
    {
        await visitor.Button("Send test through log").ClickAsync();
        await Expect(visitor.Page.Locator(".channel").First).ToContainTextAsync("Delivered");
        await Expect(visitor.Page.Locator(".alert").First).ToBeVisibleAsync();
        var first = visitor.Page.Locator(".alert", new() { HasTextString = "first of its kind" }).First;
        await first.Locator("summary").ClickAsync();
        await Expect(first.Locator(".alert-text")).ToContainTextAsync("orderservice dlq list");
        await first.GetByText("Open the incident").ClickAsync();
        await Expect(visitor.Page.Locator("main")).ToContainTextAsync("fingerprint");
    }, at: "#/alerts");
}

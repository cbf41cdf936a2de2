using Microsoft.Playwright;
using OrderService.Browser.Infrastructure;
using static Microsoft.Playwright.Assertions;

namespace OrderService.Browser;

public sealed class KeyboardTests(Shop shop)
{
    [Fact]
    public Task Help_lists_the_keys_pauses_and_places() => shop.VisitAsync(async visitor =>
    {
        var keys = visitor.Page.Keyboard;
        await keys.PressAsync("?");
        await Expect(visitor.Dialog).ToContainTextAsync("Audit log");
        await visitor.ScreenshotAsync("help-light");
        await visitor.AssertAccessibleAsync("help");
        await keys.PressAsync("Escape");
        await Expect(visitor.Dialog).ToHaveCountAsync(0);

        await keys.PressAsync(".");
        await Expect(visitor.Button("Updates are paused")).ToBeVisibleAsync();
        await keys.PressAsync(".");
        foreach (var (key, heading) in new[] { ("r", "Orders"), ("q", "Queues"), ("a", "Audit log"), ("n", "Alerts"), ("j", "Replays"), ("i", "Incidents"), ("o", "Overview") })
        {
            await keys.PressAsync("g");
            await keys.PressAsync(key);
            await Expect(visitor.Page.Locator("h1")).ToHaveTextAsync(heading);
        }
    });

    [Fact]
    public Task Single_keys_can_be_switched_off() => shop.VisitAsync(async visitor =>
    {
        await visitor.Button("Keyboard help").ClickAsync();
        await visitor.Dialog.GetByLabel("Single keys do something").UncheckAsync();
        await visitor.Page.Keyboard.PressAsync("Escape");
        await visitor.Page.Keyboard.PressAsync("g");
        await visitor.Page.Keyboard.PressAsync("d");
        await visitor.Page.Keyboard.PressAsync("?");
        await Expect(visitor.Dialog).ToHaveCountAsync(0);
        await Expect(visitor.Page.Locator("h1")).ToHaveTextAsync("Overview");
    });

    [Fact]
    public Task The_first_tab_skips_to_the_content() => shop.VisitAsync(async visitor =>
    {
        await visitor.LoadAsync("/#/queues");
        await visitor.Page.Keyboard.PressAsync("Tab");
        await Expect(visitor.Link("Skip to the content")).ToBeFocusedAsync();
        await visitor.Page.Keyboard.PressAsync("Enter");
        await Expect(visitor.Page.Locator("main")).ToBeFocusedAsync();
        Assert.EndsWith("#/queues", visitor.Page.Url, StringComparison.Ordinal);
    });
}

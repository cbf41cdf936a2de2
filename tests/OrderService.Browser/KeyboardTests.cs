using System.Globalization;
using Microsoft.Playwright;
using OrderService.Browser.Infrastructure;
using OrderService.Tests.Infrastructure;
using static Microsoft.Playwright.Assertions;

namespace OrderService.Browser;

public sealed class KeyboardTests(Shop shop)
{
    [Fact]
    public async Task A_letter_is_found_replayed_and_its_outcome_seen_without_a_mouse()
    {
        await shop.OpenAsync();
        var id = shop.NewId("keys");
        var letter = await shop.PublishBrokenAsync(TestMessage.Ship(id));
        await shop.PublishAsync(TestMessage.Place(id));
        await shop.WaitForOrderAsync(id);
        await shop.VisitAsync(async visitor =>
        {
            var keys = visitor.Page.Keyboard;
            await keys.PressAsync("g");
            await keys.PressAsync("d");
            await Expect(visitor.Heading("Dead letters")).ToBeFocusedAsync();
            await keys.PressAsync("/");
            await Expect(visitor.Page.GetByRole(AriaRole.Searchbox)).ToBeFocusedAsync();
            await keys.TypeAsync(id);
            await keys.PressAsync("Enter");
            await Expect(visitor.Page.Locator("tbody tr")).ToHaveCountAsync(1);
            await keys.PressAsync("Escape");
            await keys.PressAsync("j");
            await Expect(visitor.Link(letter.ToString(CultureInfo.InvariantCulture), exact: true)).ToBeFocusedAsync();
            await keys.PressAsync("x");
            await Expect(visitor.Page.Locator("tbody input")).ToBeCheckedAsync();
            await keys.PressAsync("x");
            await keys.PressAsync("Enter");
            await Expect(visitor.Heading($"Letter {letter}")).ToBeFocusedAsync();
            await Expect(visitor.Button("Replay", exact: true)).ToBeVisibleAsync();
            await keys.PressAsync("r");
            await Expect(visitor.Dialog).ToContainTextAsync("would succeed");
            await visitor.Dialog.GetByLabel("Reason (required)").PressAsync("Tab");
            await visitor.Dialog.GetByLabel("Reason (required)").FocusAsync();
            await keys.TypeAsync("by keyboard");
            await keys.PressAsync("Enter");
            await Expect(visitor.Page.Locator(".page-sub .chip")).ToHaveTextAsync("resolved", new() { Timeout = 20_000 });
        });
    }

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

using Microsoft.Playwright;
using OrderService.Browser.Infrastructure;
using OrderService.Tests.Infrastructure;
using static Microsoft.Playwright.Assertions;

namespace OrderService.Browser;

/// <summary>Every page in light, dark and on a phone: a screenshot to be looked at, no accessibility violation, no sideways scroll.</summary>
public sealed class LookTests(Shop shop)
{
    [Theory]
    [InlineData("light", false, false)]
    [InlineData("dark", true, false)]
    [InlineData("phone", false, true)]
    [InlineData("phone-dark", true, true)]
    public async Task Every_page_looks_right(string look, bool dark, bool phone)
    {
        await shop.OpenAsync();
        var letter = await shop.LetterOfAsync("key-W-103");
        var incident = await shop.Service.ScalarAsync<string>("SELECT incident FROM dead_letters WHERE id = @letter", new { letter });
        (string Name, string Address)[] pages =
        [
            ("overview", "#/"), ("incidents", "#/incidents"), ("incident", $"#/incidents/{incident}"), ("letters", "#/dead-letters"), ("letter", $"#/dead-letters/{letter}"),
            ("letter-error", $"#/dead-letters/{letter}?tab=error"), ("letter-headers", $"#/dead-letters/{letter}?tab=headers"), ("letter-history", $"#/dead-letters/{letter}?tab=history"),
            ("edit", $"#/dead-letters/{letter}/edit"), ("replays", "#/replays"), ("orders", "#/orders"), ("order", "#/orders/A-1003"), ("queues", "#/queues"), ("alerts", "#/alerts"), ("audit", "#/audit"), ("nothing", "#/nothing"),
        ];
        await shop.VisitAsync(async visitor =>
        {
            foreach (var (name, address) in pages)
            {
                await visitor.GoAsync(address);
                await Expect(visitor.Page.Locator("[aria-busy=true]")).ToHaveCountAsync(0);
                await visitor.ScreenshotAsync($"{name}-{look}");
                await visitor.AssertNoSidewaysScrollAsync($"{name} ({look})");
                await visitor.AssertAccessibleAsync($"{name} ({look})");
            }
        }, dark: dark, phone: phone);
    }

    [Fact]
    public Task The_switch_of_colours_outlasts_a_reload() => shop.VisitAsync(async visitor =>
    {
        var toggle = visitor.Page.GetByRole(AriaRole.Button, new() { NameRegex = new("^Colours") });
        await toggle.ClickAsync();
        await toggle.ClickAsync();
        Assert.Equal("dark", await visitor.Page.EvaluateAsync<string>("getComputedStyle(document.documentElement).colorScheme"));
        await visitor.LoadAsync("/#/");
        Assert.Equal("dark", await visitor.Page.EvaluateAsync<string>("getComputedStyle(document.documentElement).colorScheme"));
    });

    [Fact]
    public async Task The_overview_says_in_words_how_it_stands()
    {
        await shop.OpenAsync();
        await shop.VisitAsync(async visitor =>
        {
            await Expect(visitor.Page.Locator(".status-words")).ToContainTextAsync("need");
            await Expect(visitor.Page.Locator(".status-more")).ToContainTextAsync("EUR");
            await Expect(visitor.Page.Locator(".tile", new() { HasTextString = "Consumers" })).ToContainTextAsync("1");
            await Expect(visitor.Page.Locator(".chart canvas")).ToHaveCountAsync(2);
            var id = shop.NewId("seen");
            await shop.PublishAsync(TestMessage.Place(id));
            await Expect(visitor.Link(id)).ToBeVisibleAsync(new() { Timeout = 15_000 });
            await visitor.Page.GetByText("Show as table").First.ClickAsync();
            await Expect(visitor.Page.GetByRole(AriaRole.Table).First).ToContainTextAsync("received");
        });
    }
}

using Microsoft.Playwright;
using OrderService.Browser.Infrastructure;
using OrderService.Tests.Infrastructure;
using static Microsoft.Playwright.Assertions;

namespace OrderService.Browser;

/// <summary>Every page in light, dark and on a phone: a screenshot to be looked at, no accessibility violation, no sideways scroll.</summary>
public sealed class LookTests(Shop shop)
{
    [Theory]
    [InlineData("light", false, false, "key-W-109")]
    [InlineData("dark", true, false, "key-W-110")]
    [InlineData("phone", false, true, "key-W-111")]
    [InlineData("phone-dark", true, true, "key-W-112")]
    public async Task Every_page_looks_right(string look, bool dark, bool phone, string key)
    {
        await shop.OpenAsync();
        var letter = await shop.LetterOfAsync(key);
        var incident = await shop.Service.ScalarAsync<string>("SELECT incident FROM dead_letters WHERE id = @letter", new { letter });
        var job = await shop.StartReplayAsync(letter);
        (string Name, string Address)[] pages =
        [
            ("overview", "#/"), ("incidents", "#/incidents"), ("incident", $"#/incidents/{incident}"), ("letters", "#/dead-letters"), ("letter", $"#/dead-letters/{letter}"), ("letter-raw", $"#/dead-letters/{letter}?view=raw"),
            ("letter-bytes", $"#/dead-letters/{letter}?view=hex"), ("letter-error", $"#/dead-letters/{letter}?tab=error"), ("letter-headers", $"#/dead-letters/{letter}?tab=headers"),
            ("letter-history", $"#/dead-letters/{letter}?tab=history"), ("letter-order", $"#/dead-letters/{letter}?tab=order"), ("edit", $"#/dead-letters/{letter}/edit"), ("replays", "#/replays"), ("replay", $"#/replays/{job}"),
            ("orders", "#/orders"), ("order", "#/orders/A-1003"), ("order-compact", "#/orders/A-1003?view=compact"), ("order-json", "#/orders/A-1003?view=json"), ("queues", "#/queues"), ("alerts", "#/alerts"), ("audit", "#/audit"), ("sessions", "#/sessions"),
            ("no-letters", "#/dead-letters?q=no-such-letter"), ("no-letter", "#/dead-letters/999999"), ("no-order", "#/orders/no-such-order"), ("nothing", "#/nothing"),
        ];
        await shop.VisitAsync(async visitor =>
        {
            async Task LookAsync(string name)
            {
                await Expect(visitor.Page.Locator("[aria-busy=true]")).ToHaveCountAsync(0);
                await visitor.ScreenshotAsync($"{name}-{look}");
                await visitor.AssertNoSidewaysScrollAsync($"{name} ({look})");
                // What is dark differs from what is light in its colours alone.
                await visitor.AssertAccessibleAsync($"{name} ({look})", coloursOnly: dark);
            }
            foreach (var (name, address) in pages)
            {
                await visitor.GoAsync(address);
                await LookAsync(name);
            }

            await visitor.GoAsync("#/dead-letters");
            await (phone ? visitor.Button("Select all", exact: true).ClickAsync() : visitor.Page.GetByLabel("Select all that are shown").CheckAsync());
            await LookAsync("letters-selected");
            foreach (var (name, button) in new[] { ("replay-dialog", "Replay selected"), ("discard-dialog", "Discard selected") })
            {
                await visitor.Button(button).ClickAsync();
                await LookAsync(name);
                await visitor.Button("Cancel", exact: true).ClickAsync();
            }
            await visitor.GoAsync($"#/incidents/{incident}");
            await visitor.Button("Mute").ClickAsync();
            await LookAsync("mute-dialog");
            await visitor.Button("Cancel", exact: true).ClickAsync();

            await visitor.Page.Context.ClearCookiesAsync();
            await visitor.LoadAsync("/");
            await Expect(visitor.Heading("Sign in")).ToBeVisibleAsync();
            await LookAsync("sign-in");
        }, dark: dark, phone: phone);
    }

    /// <summary>That the check above can fail.</summary>
    [Fact]
    public Task A_page_with_mistakes_is_found_out() => shop.VisitAsync(async visitor =>
    {
        await visitor.Page.EvaluateAsync("""
            const faint = document.createElement('p');
            faint.textContent = 'hard to read';
            Object.assign(faint.style, { color: '#eee', backgroundColor: '#fff' });
            document.querySelector('main').append(faint, document.createElement('button'));
            """);

        var all = await Assert.ThrowsAnyAsync<Exception>(() => visitor.AssertAccessibleAsync("with mistakes"));
        Assert.Contains("button-name", all.Message, StringComparison.Ordinal);
        Assert.Contains("color-contrast", all.Message, StringComparison.Ordinal);
        var colours = await Assert.ThrowsAnyAsync<Exception>(() => visitor.AssertAccessibleAsync("with mistakes", coloursOnly: true));
        Assert.Contains("color-contrast", colours.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("button-name", colours.Message, StringComparison.Ordinal);
    });

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
            await Expect(visitor.Page.Locator(".tile", new() { HasTextString = "Decided to published" })).ToContainTextAsync("p99");
            await Expect(visitor.Page.Locator(".chart canvas")).ToHaveCountAsync(2);
            var id = shop.NewId("seen");
            await shop.PublishAsync(TestMessage.Place(id));
            await Expect(visitor.Link(id)).ToBeVisibleAsync(new() { Timeout = 15_000 });
            await visitor.Page.GetByText("Show as table").First.ClickAsync();
            await Expect(visitor.Page.GetByRole(AriaRole.Table).First).ToContainTextAsync("received");
        });
    }
}

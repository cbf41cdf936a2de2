using System.Collections.Concurrent;
using System.Globalization;
using Microsoft.Playwright;
using OrderService.Browser.Infrastructure;
using OrderService.Tests.Infrastructure;
using static Microsoft.Playwright.Assertions;

namespace OrderService.Browser;

/// <summary>A browser has six connections to a host, however many tabs are open, so all of them share one stream of events.</summary>
public sealed class TabTests(Shop shop)
{
    private static readonly string[] Places = ["#/", "#/dead-letters", "#/incidents", "#/orders", "#/alerts", "#/replays", "#/queues", "#/audit"];

    [Fact]
    public async Task Eight_tabs_are_all_live_with_one_stream_and_when_its_tab_goes_another_has_it()
    {
        var order = shop.NewId("tab");
        await shop.OpenAsync();
        await shop.PublishAsync(TestMessage.Place(order));
        await shop.WaitForOrderAsync(order);
        await shop.VisitAsync(async visitor =>
        {
            var streams = new Streams(visitor.Page.Context);
            var tabs = new List<Visitor>();
            foreach (var place in Places)
            {
                var tab = await Visitor.OpenAsync(visitor.Page.Context, shop.Service.Url);
                tabs.Add(tab);
                await tab.LoadAsync($"/{place}");
            }
            foreach (var tab in tabs)
            {
                await Expect(tab.Page.Locator(".live")).ToHaveTextAsync("Live", new() { Timeout = 15_000 });
            }
            // The tab that signed in has had it since then.
            Assert.Equal(0, streams.Begun);

            await tabs[^1].GoAsync($"#/orders/{order}");
            await Expect(tabs[^1].Page.Locator(".page-sub .chip")).ToHaveTextAsync("placed");
            await visitor.Page.GotoAsync("about:blank");
            await Eventually.TrueAsync(() => streams.Begun == 1, what: "another tab has the stream");
            await Expect(tabs[^1].Page.Locator(".live")).ToHaveTextAsync("Live", new() { Timeout = 15_000 });
            await shop.PublishAsync(TestMessage.Ship(order));
            await Expect(tabs[^1].Page.Locator(".page-sub .chip")).ToHaveTextAsync("shipped", new() { Timeout = 10_000 });

            // Nobody looks: no stream. Somebody looks again: one.
            foreach (var tab in tabs)
            {
                await SetHiddenAsync(tab, true);
            }
            await Eventually.TrueAsync(() => streams.Open == 0, what: "hidden tabs have no stream");
            await SetHiddenAsync(tabs[2], false);
            await SetHiddenAsync(tabs[3], false);
            await Expect(tabs[2].Page.Locator(".live")).ToHaveTextAsync("Live", new() { Timeout = 15_000 });
            await Expect(tabs[3].Page.Locator(".live")).ToHaveTextAsync("Live", new() { Timeout = 15_000 });
            Assert.Equal(1, streams.Open);
            tabs.ForEach(tab => tab.AssertQuiet());
        });
    }

    /// <summary>Signed out in one, signed out in all: the server knows, and the stream ends.</summary>
    [Fact]
    public Task A_sign_out_in_one_tab_reaches_the_others() => shop.VisitAsync(async visitor =>
    {
        var other = await Visitor.OpenAsync(visitor.Page.Context, shop.Service.Url);
        await other.LoadAsync("/#/queues");
        await Expect(other.Page.Locator(".live")).ToHaveTextAsync("Live", new() { Timeout = 15_000 });
        var cookie = Assert.Single(await visitor.Page.Context.CookiesAsync());

        // The service cuts the stream off, and the browser says so.
        visitor.ServiceMayBeAway = true;
        await visitor.Button("Signed in as tests").ClickAsync();
        await visitor.Button("Sign out").ClickAsync();
        await Expect(other.Heading("Sign in")).ToBeVisibleAsync(new() { Timeout = 30_000 });

        // A copy of the cookie lets nobody in.
        await visitor.Page.Context.AddCookiesAsync([new() { Name = cookie.Name, Value = cookie.Value, Url = shop.Service.Url }]);
        await other.LoadAsync("/#/queues");
        await Expect(other.Heading("Sign in")).ToBeVisibleAsync();
    });

    /// <summary>A script like a browser's translator: it puts each text into elements of its own, again whenever something changes, and asks nobody.</summary>
    [Fact]
    public async Task Numbers_move_on_although_something_translates_the_page()
    {
        var (service, producer) = await shop.StartAnotherAsync();
        await using var serviceEnd = service;
        await using var producerEnd = producer;
        await shop.VisitAsync(async visitor =>
        {
            await visitor.Page.AddInitScriptAsync("""
                addEventListener('DOMContentLoaded', () => {
                  const done = new WeakSet();
                  const translate = () => {
                    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
                    const found = [];
                    while (walk.nextNode()) {
                      if (!done.has(walk.currentNode) && walk.currentNode.data.trim() && !walk.currentNode.parentElement.closest('textarea, script')) {
                        found.push(walk.currentNode);
                      }
                    }
                    for (const text of found) {
                      const outer = document.createElement('font');
                      const inner = document.createElement('font');
                      const words = document.createTextNode(`~${text.data}`);
                      done.add(words);
                      inner.append(words);
                      outer.append(inner);
                      text.replaceWith(outer);
                    }
                    window.translated = (window.translated ?? 0) + found.length;
                  };
                  new MutationObserver(translate).observe(document.body, { childList: true, characterData: true, subtree: true });
                  translate();
                });
                """);
            await visitor.LoadAsync("/#/");
            var letters = Tile(visitor, "Dead letters");
            await Expect(letters).ToHaveTextAsync("~0");
            Assert.True(await visitor.Page.EvaluateAsync<int>("translated") > 50);

            for (var count = 1; count <= 3; count++)
            {
                await producer.PublishAsync(Shop.UnknownCurrency(string.Create(CultureInfo.InvariantCulture, $"T-{count}")));
                await Expect(letters).ToHaveTextAsync(string.Create(CultureInfo.InvariantCulture, $"~{count}"), new() { Timeout = 20_000 });
                // A text with elements around it, and one that is put together of several.
                await Expect(visitor.Page.Locator(".status-more")).ToContainTextAsync(count == 1 ? "1 dead letter holds 1 order" : $"{count} dead letters hold {count} orders", new() { Timeout = 20_000 });
            }
            await Expect(visitor.Page.Locator(".live")).ToHaveTextAsync("~Live");
            // Whole pages come and go.
            foreach (var place in Places)
            {
                await visitor.GoAsync(place);
                await Expect(visitor.Page.Locator("main h1")).ToContainTextAsync("~");
            }
            await visitor.GoAsync("#/dead-letters/1");
            await Expect(visitor.Page.Locator("main h1")).ToHaveTextAsync("~Letter 1");
        }, of: service);
    }

    [Fact]
    public Task A_translator_that_asks_is_told_to_leave_the_page_alone() => shop.VisitAsync(async visitor =>
    {
        Assert.Equal("no", await visitor.Page.Locator("html").GetAttributeAsync("translate"));
        Assert.False(await visitor.Page.Locator(".tile-value").First.EvaluateAsync<bool>("value => value.translate"));
    });

    [Fact]
    public Task Live_is_not_said_of_numbers_that_are_held_back() => shop.VisitAsync(async visitor =>
    {
        var live = visitor.Page.Locator(".live");
        await Expect(live).ToHaveTextAsync("Live");
        await visitor.Page.EvaluateAsync("getSelection().selectAllChildren(document.querySelector('h1'))");
        await Expect(live).ToContainTextAsync("As of", new() { Timeout = 30_000 });
        await visitor.Page.EvaluateAsync("getSelection().removeAllRanges()");
        await Expect(live).ToHaveTextAsync("Live", new() { Timeout = 30_000 });
    });

    private static ILocator Tile(Visitor visitor, string name) => visitor.Page.Locator(".tile", new() { HasTextString = name }).Locator(".tile-value");

    private static Task SetHiddenAsync(Visitor tab, bool hidden) => tab.Page.EvaluateAsync(
        "hidden => { Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden }); document.dispatchEvent(new Event('visibilitychange')); }", hidden);

    /// <summary>The streams of events that the tabs of a browser ask for, from now on.</summary>
    private sealed class Streams
    {
        private readonly ConcurrentDictionary<IRequest, bool> all = new();

        public Streams(IBrowserContext context)
        {
            context.Request += (_, request) =>
            {
                if (request.Url.EndsWith("/api/events/stream", StringComparison.Ordinal))
                {
                    all[request] = true;
                }
            };
            context.RequestFailed += (_, request) => all.TryUpdate(request, false, true);
            context.RequestFinished += (_, request) => all.TryUpdate(request, false, true);
        }

        public int Begun => all.Count;

        public int Open => all.Count(one => one.Value);
    }
}

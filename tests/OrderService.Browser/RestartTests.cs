using OrderService.Browser.Infrastructure;
using OrderService.Tests.Infrastructure;
using static Microsoft.Playwright.Assertions;

namespace OrderService.Browser;

public sealed class RestartTests(Shop shop)
{
    [Fact]
    public async Task While_the_service_is_away_the_page_says_so_and_goes_on_when_it_is_back()
    {
        var (service, producer) = await shop.StartAnotherAsync();
        await using var serviceEnd = service;
        await using var producerEnd = producer;
        await producer.PublishAsync([Shop.UnknownCurrency("R-1")]);
        await shop.VisitAsync(async visitor =>
        {
            await Expect(visitor.Page.Locator("tbody tr")).ToHaveCountAsync(1, new() { Timeout = 30_000 });
            var top = (await visitor.Page.Locator("tbody tr").BoundingBoxAsync())!.Y;
            visitor.ServiceMayBeAway = true;
            await service.KillAsync();
            await Expect(visitor.Page.Locator(".out-of-reach")).ToContainTextAsync("can’t be reached since", new() { Timeout = 30_000 });
            await Expect(visitor.Page.Locator(".live")).ToHaveTextAsync("Connecting");
            await visitor.ScreenshotAsync("away-light");
            await visitor.AssertAccessibleAsync("away");
            Assert.Equal(top, (await visitor.Page.Locator("tbody tr").BoundingBoxAsync())!.Y);

            await service.StartAgainAsync();
            await Expect(visitor.Page.Locator(".out-of-reach")).ToHaveTextAsync("", new() { Timeout = 30_000 });
            // The session is signed, not stored: nobody signs in anew.
            await Expect(visitor.Page.Locator(".live")).ToHaveTextAsync("Live", new() { Timeout = 30_000 });
            await producer.PublishAsync([Shop.UnknownCurrency("R-2"), TestMessage.Place("R-3")]);
            await Expect(visitor.Page.Locator(".waiting button")).ToHaveTextAsync("1 new letter – show", new() { Timeout = 30_000 });
            await visitor.GoAsync("#/");
            await Expect(visitor.Link("R-3")).ToBeVisibleAsync(new() { Timeout = 30_000 });
            // The stream of events, not the next reading, brings what comes from now on.
            await producer.PublishAsync([TestMessage.Place("R-4")]);
            await Expect(visitor.Link("R-4")).ToBeVisibleAsync(new() { Timeout = 8_000 });
        }, at: "#/dead-letters", of: service);
    }
}

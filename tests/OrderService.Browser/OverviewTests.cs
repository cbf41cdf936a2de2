using System.Text.RegularExpressions;
using Microsoft.Extensions.DependencyInjection;
using OrderService.Browser.Infrastructure;
using OrderService.Observability;
using OrderService.Store;
using OrderService.Tests.Infrastructure;
using static Microsoft.Playwright.Assertions;

namespace OrderService.Browser;

public sealed class OverviewTests(Shop shop)
{
    [Fact]
    public async Task What_stands_still_or_is_paused_is_said_with_its_reason_and_never_shown_as_well()
    {
        await using var service = await shop.HostAnotherAsync();
        var troubles = service.Services.GetRequiredService<Troubles>();
        await shop.VisitAsync(async visitor =>
        {
            var state = visitor.Page.Locator(".status-line");
            var cards = visitor.Page.Locator(".trouble");
            await ShowsAsync("Everything is processed.", "good", 0);

            Raise("replays", TroubleLevel.Paused);
            await ShowsAsync("Somebody paused a part of the service.", "warn", 1);
            await SaysAsync("replays", "paused", "paused");

            Raise("relay:order.cancelled", TroubleLevel.Degraded);
            await ShowsAsync("Orders are processed, and something else stands still.", "warn", 2);
            await SaysAsync("relay:order.cancelled", "stands still", "degraded");

            Raise("parking", TroubleLevel.NotReady);
            await ShowsAsync("The service can’t do its work.", "bad", 3);
            await SaysAsync("parking", "not ready", "down");
            await visitor.AssertAccessibleAsync("the overview with troubles");

            void Raise(string key, TroubleLevel level) => troubles.Raise(new Trouble(key, level, $"{key}: stands", $"Because of {key}.", $"Mend {key}."));

            async Task ShowsAsync(string words, string tone, int count)
            {
                await Expect(visitor.Page.Locator(".status-words")).ToHaveTextAsync(words);
                await Expect(state).ToHaveClassAsync(new Regex($@"\btone-{tone}\b"));
                await Expect(cards).ToHaveCountAsync(count);
            }

            async Task SaysAsync(string key, string chip, string component)
            {
                var card = visitor.Page.Locator(".trouble", new() { HasTextString = $"{key}: stands" });
                await Expect(card.Locator(".chip")).ToHaveTextAsync(chip);
                await Expect(card).ToContainTextAsync($"Because of {key}.");
                await Expect(card).ToContainTextAsync($"Mend {key}.");
                var row = visitor.Page.Locator(".components tr", new() { HasTextString = key });
                await Expect(row.Locator(".chip")).ToHaveTextAsync(component);
                await Expect(row).ToContainTextAsync($"Because of {key}.");
            }
        }, HostedService.AdminKey, url: service.Address.ToString().TrimEnd('/'));
    }

    [Fact]
    public async Task Two_incidents_of_one_title_are_told_apart_and_no_title_is_cut_off()
    {
        const string Title = "Processing failed with A.Very.Long.Name.Of.An.Exception.That.No.Card.Of.The.Overview.Has.Room.For.In.One.Line.OfferException";
        await using var service = await shop.HostAnotherAsync();
        var now = TimeProvider.System.GetUtcNow().ToUnixTimeMilliseconds();
        await service.Services.GetRequiredService<IDatabase>().WriteAsync(transaction => transaction.ExecuteAsync(
            """
            INSERT INTO incidents (fingerprint, reason, title, field, exception, state, letters, first_seen, last_seen, first_build, last_build, state_at)
            VALUES (@Fingerprint, 'internal_error', @Title, NULL, @Exception, 'new', 1, @now, @now, '1', '1', @now)
            """,
            new[] { ("aaaaaaaa00000001", "Shop.OfferException"), ("bbbbbbbb00000002", "Store.OfferException") }.Select(one => new { Fingerprint = one.Item1, Exception = one.Item2, Title, now })), TestContext.Current.CancellationToken);

        await shop.VisitAsync(async visitor =>
        {
            foreach (var (at, row, title) in new[] { ("#/", ".stack-row", "strong"), ("#/incidents", ".incident", ".incident-title") })
            {
                await visitor.GoAsync(at);
                var rows = visitor.Page.Locator(row, new() { HasTextString = Title });
                await Expect(rows).ToHaveCountAsync(2);
                await Expect(rows.Filter(new() { HasTextString = "Shop.OfferException" })).ToContainTextAsync("aaaaaaaa");
                await Expect(rows.Filter(new() { HasTextString = "Store.OfferException" })).ToContainTextAsync("bbbbbbbb");
                Assert.True(await rows.Locator(title).First.EvaluateAsync<bool>("title => title.scrollWidth <= title.clientWidth"), $"cut off at {at}");
            }
        }, HostedService.AdminKey, url: service.Address.ToString().TrimEnd('/'));
    }
}

using System.Globalization;
using Microsoft.Playwright;
using OrderService.Browser.Infrastructure;
using OrderService.Tests.Infrastructure;
using static Microsoft.Playwright.Assertions;

namespace OrderService.Browser;

public sealed class ManyLettersTests(Shop shop)
{
    private const int All = 100_000;

    /// <summary>How long it takes is measured elsewhere; other tests run beside this one.</summary>
    private static readonly LocatorAssertionsToContainTextOptions Patient = new() { Timeout = 60_000 };

    [Fact]
    public async Task A_hundred_thousand_letters_are_listed_counted_filtered_and_chosen()
    {
        var (service, producer) = await shop.StartAnotherAsync();
        await using var serviceEnd = service;
        await using var producerEnd = producer;
        await producer.PublishAsync(
        [
            .. Enumerable.Range(0, 6).Select(number => Shop.UnknownCurrency($"M-{number}")), .. Enumerable.Range(0, 3).Select(number => Shop.NothingOrdered($"N-{number}")),
            new TestMessage(null, "key-half", "{\"orderId\":"u8.ToArray()),
        ]);
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters") == 10, what: "10 letters are parked");
        await MultiplyAsync(service, All - 1);
        await producer.PublishAsync([Shop.UnknownCurrency("NEEDLE-1", "C-needle")]);
        await Eventually.TrueAsync(async () => await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE status = 'parked'") == All, what: "all are parked");
        var halves = await service.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE reason = 'malformed_json'");

        await shop.VisitAsync(async visitor =>
        {
            await Expect(visitor.Page.Locator(".tile", new() { HasTextString = "Dead letters" })).ToContainTextAsync("100,000", Patient);
            await Expect(visitor.Page.Locator(".status-more")).ToContainTextAsync("100,000 dead letters hold", Patient);
            await visitor.ScreenshotAsync("many-overview-light");

            await visitor.GoAsync("#/dead-letters");
            var rows = visitor.Page.Locator("tbody tr");
            var count = visitor.Page.Locator(".toolbar-count");
            await Expect(rows).ToHaveCountAsync(50, new() { Timeout = 60_000 });
            await Expect(count).ToHaveTextAsync("100,000 letters");

            await visitor.Page.GetByLabel("Select all that are shown").CheckAsync();
            await Expect(count).ToHaveTextAsync("50 selected");
            await visitor.Button("Select all 100,000 that match").ClickAsync();
            await Expect(count).ToHaveTextAsync("All 100,000 that match are selected");
            await visitor.Button("Replay selected").ClickAsync();
            await Expect(visitor.Dialog).ToContainTextAsync("of 100,000 tried", Patient);
            await Expect(visitor.Dialog.GetByLabel("Type 100000 to confirm")).ToBeVisibleAsync();
            await visitor.ScreenshotAsync("many-replay-light");
            await visitor.Button("Cancel", exact: true).ClickAsync();
            await visitor.Button("Discard selected").ClickAsync();
            await Expect(visitor.Dialog).ToContainTextAsync("100,000 waiting letters would be discarded", Patient);
            await Expect(visitor.Dialog.GetByRole(AriaRole.Button, new() { Name = "Discard 100,000 letters" })).ToBeDisabledAsync();
            await visitor.Button("Cancel", exact: true).ClickAsync();
            // Without one of those that are shown it is no longer all.
            await rows.First.Locator("input").UncheckAsync();
            await Expect(count).ToHaveTextAsync("49 selected");

            await visitor.Page.GetByLabel("Reason", new() { Exact = true }).SelectOptionAsync("malformed_json");
            await Expect(count).ToHaveTextAsync($"{halves.ToString("N0", CultureInfo.InvariantCulture)} letters", new() { Timeout = 60_000 });
            await Expect(rows).ToHaveCountAsync(50, new() { Timeout = 60_000 });
            await visitor.Page.GetByLabel("Reason", new() { Exact = true }).SelectOptionAsync("");
            foreach (var needle in new[] { "NEEDLE-1", "C-needle", "key-NEEDLE-1" })
            {
                await visitor.Page.GetByRole(AriaRole.Searchbox).FillAsync(needle);
                await visitor.Page.Keyboard.PressAsync("Enter");
                await Expect(rows).ToHaveCountAsync(1, new() { Timeout = 60_000 });
                await Expect(rows).ToContainTextAsync("NEEDLE-1");
            }
            await visitor.Button("Clear the search").ClickAsync();
            await Expect(rows).ToHaveCountAsync(50, new() { Timeout = 60_000 });

            // However often somebody asks for more, the browser keeps to what it can show.
            for (var shown = 50; shown < 1000; shown += 50)
            {
                await visitor.Button("Show more").ClickAsync();
                await Expect(rows).ToHaveCountAsync(shown + 50, new() { Timeout = 60_000 });
            }
            await Expect(visitor.Page.Locator(".more-rows")).ToHaveTextAsync("The first 1,000 are shown. Filter for fewer.");
            Assert.Equal(1000, await visitor.Page.EvaluateAsync<int>("new Set([...document.querySelectorAll('tbody th')].map(one => one.textContent)).size"));

            await visitor.GoAsync("#/incidents");
            await Expect(visitor.Page.Locator(".incident")).ToHaveCountAsync(3, new() { Timeout = 60_000 });
            var waiting = 0L;
            foreach (var number in await visitor.Page.Locator(".incident-numbers b").AllInnerTextsAsync())
            {
                waiting += long.Parse(number, NumberStyles.AllowThousands, CultureInfo.InvariantCulture);
            }
            Assert.Equal(All, waiting);
        }, of: service);
    }

    /// <summary>Makes the letters of a store more, each with a message and an order of its own, until there are so many.</summary>
    private static async Task MultiplyAsync(RunningService service, int wanted)
    {
        for (var have = 10; have < wanted; have = Math.Min(have * 2, wanted))
        {
            await service.ExecuteAsync(
                """
                INSERT INTO dead_letters (key, fingerprint, incident, status, reason, detail, field, exception, body, content_type, type, message_id, correlation_id, properties, deaths,
                    order_id, customer_id, currency, value_minor, parked_at, opened_at, copies, replays, alert_id)
                SELECT key || '.' || @round, fingerprint, incident, status, reason, detail, field, exception, body, content_type, type, message_id || '.' || @round, correlation_id, properties, deaths,
                    order_id || '.' || @round, customer_id, currency, value_minor, parked_at, opened_at, copies, replays, 1
                FROM dead_letters ORDER BY id LIMIT @more
                """,
                new { round = have.ToString(CultureInfo.InvariantCulture), more = Math.Min(have, wanted - have) });
        }
        await service.ExecuteAsync("UPDATE incidents SET letters = (SELECT count(*) FROM dead_letters l WHERE l.incident = incidents.fingerprint)");
    }
}

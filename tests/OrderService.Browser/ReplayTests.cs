using System.Globalization;
using Microsoft.Playwright;
using OrderService.Browser.Infrastructure;
using OrderService.Tests.Infrastructure;
using static Microsoft.Playwright.Assertions;

namespace OrderService.Browser;

public sealed class ReplayTests(Shop shop)
{
    [Fact]
    public async Task One_letter_is_replayed_once_its_order_exists_and_its_outcome_is_told()
    {
        await shop.OpenAsync();
        var id = shop.NewId("early");
        var letter = await shop.PublishBrokenAsync(TestMessage.Ship(id));
        await shop.PublishAsync(TestMessage.Place(id));
        await shop.WaitForOrderAsync(id);
        await shop.VisitAsync(async visitor =>
        {
            await visitor.Button("Replay", exact: true).ClickAsync();
            await Expect(visitor.Dialog).ToContainTextAsync("1 would succeed");
            await Expect(visitor.Dialog.GetByRole(AriaRole.Button, new() { Name = "Replay 1 letter" })).ToBeDisabledAsync();
            await visitor.Dialog.GetByLabel("Reason (required)").FillAsync("the order is there now");
            await visitor.Dialog.GetByRole(AriaRole.Button, new() { Name = "Replay 1 letter" }).ClickAsync();
            await Expect(visitor.Page.Locator(".page-sub .chip")).ToHaveTextAsync("resolved", new() { Timeout = 20_000 });
            await Expect(visitor.Page.Locator(".note").First).ToContainTextAsync("Resolved.");
            await visitor.Link("History").ClickAsync();
            await Expect(visitor.Page.Locator(".attempt")).ToContainTextAsync("the order is there now");
        }, at: $"#/dead-letters/{letter}");
        await shop.WaitForOrderAsync(id, 2);
    }

    [Fact]
    public async Task Selected_letters_are_replayed_as_a_job_with_progress()
    {
        await shop.OpenAsync();
        var prefix = shop.NewId("many");
        var letters = new List<long>();
        for (var number = 0; number < 6; number++)
        {
            letters.Add(await shop.PublishBrokenAsync(TestMessage.Ship(string.Create(CultureInfo.InvariantCulture, $"{prefix}-{number}"))));
        }
        for (var number = 0; number < 6; number++)
        {
            var id = string.Create(CultureInfo.InvariantCulture, $"{prefix}-{number}");
            await shop.PublishAsync(TestMessage.Place(id));
            await shop.WaitForOrderAsync(id);
        }
        await shop.VisitAsync(async visitor =>
        {
            var rows = visitor.Page.Locator("tbody tr", new() { HasTextString = prefix });
            for (var number = 0; number < 6; number++)
            {
                await rows.Nth(number).Locator("input").CheckAsync();
            }
            await visitor.Button("Replay selected").ClickAsync();
            await Expect(visitor.Dialog).ToContainTextAsync("6 would succeed");
            await Expect(visitor.Dialog.GetByRole(AriaRole.Radio, new() { Name = "Canary" })).ToBeCheckedAsync();
            await visitor.ScreenshotAsync("replay-dialog-light");
            await visitor.AssertAccessibleAsync("replay dialog");
            await visitor.Dialog.GetByLabel("Reason (required)").FillAsync("orders were late");
            await visitor.Dialog.GetByRole(AriaRole.Button, new() { Name = "Replay 6 letters" }).ClickAsync();

            await Expect(visitor.Page.Locator("h1")).ToContainTextAsync("Replay ");
            await Expect(visitor.Page.Locator(".page-sub .chip")).ToHaveTextAsync("done", new() { Timeout = 30_000 });
            await Expect(visitor.Page.Locator(".note").First).ToContainTextAsync("6 letters succeeded");
            await visitor.ScreenshotAsync("replay-done-light");
            await visitor.AssertAccessibleAsync("replay job");
        }, at: "#/dead-letters?reason=order_unknown");
        foreach (var letter in letters)
        {
            Assert.Equal("resolved", await shop.Service.ScalarAsync<string>("SELECT status FROM dead_letters WHERE id = @letter", new { letter }));
        }
    }

    [Fact]
    public async Task A_canary_whose_cause_is_still_there_stops_and_leaves_the_rest_alone()
    {
        await shop.OpenAsync();
        var id = shop.NewId("still");
        for (var number = 0; number < 8; number++)
        {
            await shop.PublishBrokenAsync(new TestMessage("order.explode", string.Create(CultureInfo.InvariantCulture, $"{id}-{number}"), "{}"u8.ToArray()));
        }
        await shop.VisitAsync(async visitor =>
        {
            await visitor.Page.Locator(".incident-title").First.ClickAsync();
            await visitor.Page.GetByRole(AriaRole.Button, new() { NameRegex = new(@"^Replay \d+ letters$") }).First.ClickAsync();
            await Expect(visitor.Dialog).ToContainTextAsync("would fail again");
            await visitor.Dialog.GetByLabel("Reason (required)").FillAsync("trying");
            await visitor.Dialog.GetByRole(AriaRole.Button, new() { NameRegex = new(@"^Replay \d+ letters$") }).ClickAsync();
            await Expect(visitor.Page.Locator(".page-sub .chip")).ToHaveTextAsync("stopped", new() { Timeout = 30_000 });
            await Expect(visitor.Page.Locator(".note").First).ToContainTextAsync("stopped by itself");
            await visitor.ScreenshotAsync("replay-stopped-light");
        }, at: "#/incidents?q=unknown_command");
        Assert.True(await shop.Service.ScalarAsync<long>("SELECT sum(replays) FROM dead_letters WHERE key LIKE @id", new { id = id + "%" }) <= 2, "most letters were not touched");
    }

    [Fact]
    public async Task More_than_a_hundred_letters_need_their_number_typed()
    {
        await shop.OpenAsync();
        var id = shop.NewId("empty");
        await shop.PublishAsync(Enumerable.Range(0, 101).Select(number => new TestMessage(null, string.Create(CultureInfo.InvariantCulture, $"{id}-{number}"), [])));
        await Eventually.TrueAsync(
            async () => await shop.Service.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE key LIKE @id", new { id = id + "-%" }) == 101, what: "all are parked");
        await shop.VisitAsync(async visitor =>
        {
            await visitor.Button("Replay all that match").ClickAsync();
            await visitor.Dialog.GetByLabel("Reason (required)").FillAsync("all of them");
            var go = visitor.Dialog.GetByRole(AriaRole.Button, new() { NameRegex = new(@"^Replay \d+ letters$") });
            await Expect(go).ToBeDisabledAsync();
            var number = new string([.. (await go.InnerTextAsync()).Where(char.IsAsciiDigit)]);
            await visitor.Dialog.GetByLabel($"Type {number} to confirm").FillAsync("100");
            await Expect(go).ToBeDisabledAsync();
            await visitor.Dialog.GetByLabel($"Type {number} to confirm").FillAsync(number);
            await Expect(go).ToBeEnabledAsync();
            await visitor.Dialog.GetByLabel("How many").FillAsync("3");
            await Expect(visitor.Dialog.GetByRole(AriaRole.Button, new() { Name = "Replay 3 letters" })).ToBeEnabledAsync();
            await visitor.Button("Cancel").ClickAsync();
        }, at: "#/dead-letters?reason=body_empty");
    }

    [Fact]
    public async Task A_replay_is_paused_resumed_and_cancelled()
    {
        await shop.OpenAsync();
        var prefix = shop.NewId("slow");
        for (var number = 0; number < 12; number++)
        {
            await shop.PublishAsync(TestMessage.Ship(string.Create(CultureInfo.InvariantCulture, $"{prefix}-{number}")));
        }
        await shop.LetterOfAsync($"ship-{prefix}-11");
        await Eventually.TrueAsync(
            async () => await shop.Service.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE order_id LIKE @prefix", new { prefix = prefix + "-%" }) == 12, what: "all are parked");
        for (var number = 0; number < 12; number++)
        {
            await shop.PublishAsync(TestMessage.Place(string.Create(CultureInfo.InvariantCulture, $"{prefix}-{number}")));
        }
        await shop.WaitForOrderAsync($"{prefix}-11");
        await shop.VisitAsync(async visitor =>
        {
            await Expect(visitor.Page.Locator("tbody tr", new() { HasTextString = prefix })).ToHaveCountAsync(12);
            foreach (var row in await visitor.Page.Locator("tbody tr", new() { HasTextString = prefix }).AllAsync())
            {
                await row.Locator("input").CheckAsync();
            }
            await visitor.Button("Replay selected").ClickAsync();
            await visitor.Dialog.GetByRole(AriaRole.Radio, new() { Name = "All" }).CheckAsync();
            await visitor.Dialog.GetByLabel("At most per second").FillAsync("1");
            await visitor.Dialog.GetByLabel("Reason (required)").FillAsync("slowly");
            await visitor.Dialog.GetByRole(AriaRole.Button, new() { Name = "Replay 12 letters" }).ClickAsync();
            await visitor.Button("Pause", exact: true).ClickAsync();
            await Expect(visitor.Page.Locator(".page-sub .chip")).ToHaveTextAsync("paused");
            await visitor.ScreenshotAsync("replay-paused-light");
            await visitor.Button("Resume", exact: true).ClickAsync();
            await Expect(visitor.Page.Locator(".page-sub .chip")).ToHaveTextAsync("running");
            await visitor.Button("Cancel", exact: true).ClickAsync();
            await Expect(visitor.Page.Locator(".page-sub .chip")).ToHaveTextAsync("cancelled", new() { Timeout = 15_000 });
        }, at: "#/dead-letters?reason=order_unknown");
        Assert.True(await shop.Service.ScalarAsync<long>("SELECT count(*) FROM dead_letters WHERE order_id LIKE @prefix AND status = 'parked'", new { prefix = prefix + "-%" }) > 0, "some wait as before");
    }

    [Fact]
    public async Task An_edited_letter_is_checked_while_it_is_typed_compared_and_replayed()
    {
        await shop.OpenAsync();
        var id = shop.NewId("mend");
        var letter = await shop.PublishBrokenAsync(Shop.UnknownCurrency(id));
        await shop.VisitAsync(async visitor =>
        {
            await visitor.Link("Edit and replay").ClickAsync();
            var editor = visitor.Page.GetByLabel("Edited body");
            await Expect(visitor.Page.Locator("#check")).ToContainTextAsync("It would be refused");
            await editor.FillAsync((await editor.InputValueAsync()).Replace("EUX", "EUR", StringComparison.Ordinal));
            await Expect(visitor.Page.Locator("#check")).ToContainTextAsync("It passes");
            await Expect(visitor.Page.Locator(".diff .removed")).ToContainTextAsync("EUX");
            await Expect(visitor.Page.Locator(".diff .added")).ToContainTextAsync("EUR");
            await visitor.Page.GetByLabel("Reason (required)").FillAsync("typing mistake in the shop");
            await visitor.ScreenshotAsync("edit-light");
            await visitor.AssertAccessibleAsync("edit");
            await visitor.Button("Replay the edited letter").ClickAsync();
            await Expect(visitor.Page.Locator(".page-sub .chip")).ToHaveTextAsync("resolved", new() { Timeout = 20_000 });

            await visitor.Link("History").ClickAsync();
            await visitor.Page.GetByText("What the edit changed").ClickAsync();
            await Expect(visitor.Page.Locator(".attempt .diff .removed")).ToContainTextAsync("EUX");
            await Expect(visitor.Page.Locator(".attempt .diff .added")).ToContainTextAsync("EUR");
            await visitor.ScreenshotAsync("letter-edited-light");
            await visitor.AssertAccessibleAsync("an edit in the history");
        }, at: $"#/dead-letters/{letter}");
        await shop.WaitForOrderAsync(id);
        var body = await shop.Service.Http.GetStringAsync(new Uri($"/api/dead-letters/{letter}/body", UriKind.Relative), TestContext.Current.CancellationToken);
        Assert.Contains("EUX", body, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_was_edited_in_one_letter_is_applied_to_its_whole_incident()
    {
        // With a store of its own: unknown commands of whatever name are one incident, and other tests leave some.
        var (service, producer) = await shop.StartAnotherAsync();
        await using var stopped = service;
        await using var closed = producer;
        string[] orders = ["net-1", "net-2", "net-3"];
        await producer.PublishAsync(orders.Select(order => TestMessage.Place(order) with { Type = "Shop.OrderPlaced" }));
        await Eventually.TrueAsync(async () => await service.ScalarAsync<int>("SELECT count(*) FROM dead_letters") == orders.Length, what: "all three are dead letters");
        var first = await service.ScalarAsync<long>("SELECT min(id) FROM dead_letters");
        var last = await service.ScalarAsync<long>("SELECT max(id) FROM dead_letters");
        await shop.VisitAsync(async visitor =>
        {
            await visitor.Link("Edit and replay").ClickAsync();
            await Expect(visitor.Page.Locator("#check")).ToContainTextAsync("It would be refused");
            await visitor.Page.GetByLabel("Command").SelectOptionAsync("order.place");
            await Expect(visitor.Page.Locator("#check")).ToContainTextAsync("It passes");
            await visitor.AssertAccessibleAsync("edit of a command");
            await visitor.Button("Apply it to the whole incident").ClickAsync();
            await Expect(visitor.Dialog).ToContainTextAsync("3 would succeed");
            await Expect(visitor.Dialog.Locator(".patch")).ToContainTextAsync("Each letter is changed first");
            await visitor.ScreenshotAsync("replay-patched-light");
            await visitor.Dialog.GetByLabel("Reason (required)").FillAsync("the shop names .NET types");
            await visitor.Dialog.GetByRole(AriaRole.Button, new() { Name = "Replay 3 letters" }).ClickAsync();
            await Expect(visitor.Page.Locator(".page-sub .chip")).ToHaveTextAsync("done", new() { Timeout = 20_000 });
            await Expect(visitor.Page.Locator(".patch")).ToContainTextAsync("Each letter is changed before it goes out");
        }, at: $"#/dead-letters/{first}", of: service);
        await shop.VisitAsync(async visitor =>
        {
            await visitor.Link("History").ClickAsync();
            await Expect(visitor.Page.Locator(".attempt")).ToContainTextAsync("Shop.OrderPlaced → order.place");
        }, at: $"#/dead-letters/{last}", of: service);
        foreach (var order in orders)
        {
            Assert.NotEmpty(await service.StreamAsync(order));
        }
    }

    [Fact]
    public async Task The_text_within_an_AMQP_value_is_shown_and_replayed()
    {
        await shop.OpenAsync();
        var id = shop.NewId("amqp");
        var text = TestMessage.Place(id).Body;
        var letter = await shop.PublishBrokenAsync(new TestMessage("amqp-1.0", $"key-{id}", [0, 0x53, 0x77, 0xA1, (byte)text.Length, .. text]));
        await shop.VisitAsync(async visitor =>
        {
            await visitor.Link("Edit and replay").ClickAsync();
            await Expect(visitor.Page.GetByLabel("Edited body")).ToHaveValueAsync(new System.Text.RegularExpressions.Regex(id));
            await Expect(visitor.Page.Locator("#check")).ToContainTextAsync("It passes");
            await visitor.Page.GetByLabel("Reason (required)").FillAsync("the text alone");
            await visitor.Button("Replay the edited letter").ClickAsync();
            await Expect(visitor.Page.Locator(".page-sub .chip")).ToHaveTextAsync("resolved", new() { Timeout = 20_000 });
        }, at: $"#/dead-letters/{letter}");
        await shop.WaitForOrderAsync(id);
    }
}

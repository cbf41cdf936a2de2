using System.Globalization;
using System.Text;
using Microsoft.Playwright;
using OrderService.Browser.Infrastructure;
using OrderService.Tests.Infrastructure;
using static Microsoft.Playwright.Assertions;

namespace OrderService.Browser;

public sealed class LetterTests(Shop shop)
{
    [Fact]
    public async Task A_letter_shows_what_is_wrong_where_and_with_what_it_came()
    {
        await shop.OpenAsync();
        var id = shop.NewId("letter");
        var letter = await shop.PublishBrokenAsync(Shop.UnknownCurrency(id) with
        {
            More = properties =>
            {
                properties.CorrelationId = "basket-17";
                properties.Headers = new Dictionary<string, object?> { ["shop"] = "web-3", ["traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" };
            },
        });
        await shop.VisitAsync(async visitor =>
        {
            await Expect(visitor.Page.Locator(".code .marked")).ToContainTextAsync("\"currency\": \"EUX\"");
            await Expect(visitor.Page.Locator(".split-side").First).ToContainTextAsync(id);

            await visitor.Link("As it came").ClickAsync();
            await Expect(visitor.Page.Locator("pre.raw")).ToContainTextAsync($$"""{"orderId":"{{id}}",""");
            await visitor.Link("Bytes", exact: true).ClickAsync();
            await Expect(visitor.Page.Locator("pre.hex")).ToContainTextAsync("000000  7b 22 6f 72 64 65 72 49");

            await visitor.Link("Headers").ClickAsync();
            await Expect(visitor.Page.Locator("main")).ToContainTextAsync("basket-17");
            await visitor.Page.GetByPlaceholder("Filter properties and headers").FillAsync("web-3");
            await Expect(visitor.Page.Locator("table.pairs tr")).ToHaveCountAsync(1);

            await visitor.Link("Error", exact: true).ClickAsync();
            await Expect(visitor.Page.Locator("main")).ToContainTextAsync("refused by a rule");
            await visitor.Link("History").ClickAsync();
            await Expect(visitor.Page.Locator("main")).ToContainTextAsync("rejected");
            Assert.EndsWith("?tab=history", visitor.Page.Url, StringComparison.Ordinal);
        }, at: $"#/dead-letters/{letter}");
    }

    [Fact]
    public async Task A_body_that_is_no_text_is_shown_as_bytes_and_downloaded_as_it_came()
    {
        await shop.OpenAsync();
        byte[] body = [0x7b, 0xff, 0xfe, 0x00, 0x80, 0x7d];
        var letter = await shop.PublishBrokenAsync(new TestMessage(null, shop.NewId("bytes"), body));
        await shop.VisitAsync(async visitor =>
        {
            await Expect(visitor.Page.Locator("pre.hex")).ToContainTextAsync("7b ff fe 00 80 7d");
            var download = await visitor.Page.RunAndWaitForDownloadAsync(() => visitor.Link("Download").ClickAsync());
            var bytes = await File.ReadAllBytesAsync((await download.PathAsync())!, TestContext.Current.CancellationToken);
            Assert.Equal(body, bytes);
        }, at: $"#/dead-letters/{letter}");
    }

    [Fact]
    public Task Letters_are_filtered_by_reason_and_found_by_order() => shop.VisitAsync(async visitor =>
    {
        await visitor.Page.GetByLabel("Reason", new() { Exact = true }).SelectOptionAsync("quantity_out_of_range");
        await Expect(visitor.Page.Locator("tbody .reason", new() { HasTextString = "currency_unknown" })).ToHaveCountAsync(0);
        await Expect(visitor.Page.Locator("tbody .reason", new() { HasTextString = "quantity_out_of_range" }).First).ToBeVisibleAsync();
        Assert.Contains("reason=quantity_out_of_range", visitor.Page.Url, StringComparison.Ordinal);

        await visitor.GoAsync("#/dead-letters?status=all");
        var search = visitor.Page.GetByRole(AriaRole.Searchbox);
        await search.FillAsync("W-103");
        await search.PressAsync("Enter");
        await Expect(visitor.Page.Locator("tbody tr")).ToHaveCountAsync(1);
        await Expect(visitor.Page.Locator("tbody tr")).ToContainTextAsync("W-103");

        await search.FillAsync("there is no such thing");
        await search.PressAsync("Enter");
        await Expect(visitor.Page.Locator(".empty")).ToContainTextAsync("No letter matches");
    }, at: "#/dead-letters");

    [Fact]
    public Task New_letters_wait_until_they_are_asked_for_and_the_selection_stays() => shop.VisitAsync(async visitor =>
    {
        var first = visitor.Page.Locator("tbody tr").First;
        await first.Locator("input[type=checkbox]").CheckAsync();
        var before = await first.Locator("th").InnerTextAsync();
        var letter = await shop.PublishBrokenAsync(Shop.NothingOrdered(shop.NewId("fresh")));
        await Expect(visitor.Page.Locator(".waiting button")).ToContainTextAsync("new letter", new() { Timeout = 15_000 });
        Assert.Equal(before, await first.Locator("th").InnerTextAsync());

        await visitor.Page.Locator(".waiting button").ClickAsync();
        await Expect(visitor.Link(letter.ToString(CultureInfo.InvariantCulture), exact: true)).ToBeVisibleAsync();
        await Expect(visitor.Page.Locator("tbody tr.selected th")).ToHaveTextAsync(before);
    }, at: "#/dead-letters");

    [Fact]
    public async Task Selected_letters_are_discarded_with_a_reason_and_one_is_restored()
    {
        await shop.OpenAsync();
        var order = shop.NewId("away");
        var customer = shop.NewId("C-away");
        long[] letters = [await shop.PublishBrokenAsync(Shop.UnknownCurrency(order + "a", customer)), await shop.PublishBrokenAsync(Shop.UnknownCurrency(order + "b", customer))];
        await shop.VisitAsync(async visitor =>
        {
            await visitor.Page.Locator("tbody tr", new() { HasTextString = order + "a" }).Locator("input").CheckAsync();
            await visitor.Page.Locator("tbody tr", new() { HasTextString = order + "b" }).Locator("input").CheckAsync();
            await visitor.Button("Discard selected").ClickAsync();
            await Expect(visitor.Dialog.GetByRole(AriaRole.Button, new() { Name = "Discard 2 letters" })).ToBeDisabledAsync();
            await visitor.Dialog.GetByRole(AriaRole.Button, new() { Name = "Test message" }).ClickAsync();
            await visitor.ScreenshotAsync("discard-light");
            await visitor.AssertAccessibleAsync("discard");
            await visitor.Dialog.GetByRole(AriaRole.Button, new() { Name = "Discard 2 letters" }).ClickAsync();
            await Expect(visitor.Page.Locator(".toast")).ToContainTextAsync("2 letters discarded");
            await shop.WaitForStatusAsync(letters[0], "discarded");
            await shop.WaitForStatusAsync(letters[1], "discarded");

            await visitor.GoAsync($"#/dead-letters/{letters[1]}");
            await Expect(visitor.Page.Locator("main")).ToContainTextAsync("Discarded by tests");
            await Expect(visitor.Page.Locator("main")).ToContainTextAsync("Test message");
            await visitor.Button("Restore").ClickAsync();
            await Expect(visitor.Page.Locator(".page-sub .chip")).ToHaveTextAsync("waiting");
            await shop.WaitForStatusAsync(letters[1], "parked");
        }, at: $"#/dead-letters?q={customer}");
        var audit = await shop.GetAsync("/api/audit?limit=200");
        Assert.Contains("Test message", audit.GetRawText(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task All_letters_of_a_filter_are_discarded_but_none_that_came_later()
    {
        await shop.OpenAsync();
        var customer = shop.NewId("C-heap");
        var letters = new List<long>();
        for (var number = 0; number < 3; number++)
        {
            letters.Add(await shop.PublishBrokenAsync(Shop.UnknownCurrency(shop.NewId("heap"), customer)));
        }
        await shop.VisitAsync(async visitor =>
        {
            await visitor.Button("Discard all that match").ClickAsync();
            await Expect(visitor.Dialog).ToContainTextAsync("3 waiting letters would be discarded");
            var later = await shop.PublishBrokenAsync(Shop.UnknownCurrency(shop.NewId("heap"), customer));
            await visitor.Dialog.GetByLabel("Reason (required)").FillAsync("sent by mistake");
            await visitor.Dialog.GetByRole(AriaRole.Button, new() { Name = "Discard 3 letters" }).ClickAsync();
            await Expect(visitor.Page.Locator(".toast")).ToContainTextAsync("3 letters discarded");
            await Expect(visitor.Page.Locator("tbody tr")).ToHaveCountAsync(1);
            await Expect(visitor.Link(later.ToString(CultureInfo.InvariantCulture), exact: true)).ToBeVisibleAsync();
            await shop.WaitForStatusAsync(later, "parked");
        }, at: $"#/dead-letters?q={customer}");
        foreach (var letter in letters)
        {
            await shop.WaitForStatusAsync(letter, "discarded");
        }
    }

    [Fact]
    public async Task Somebody_who_was_slower_is_told_who_was_faster()
    {
        await shop.OpenAsync();
        var letter = await shop.PublishBrokenAsync(Shop.UnknownCurrency(shop.NewId("race")));
        await shop.VisitAsync(async visitor =>
        {
            await visitor.Button("Discard").ClickAsync();
            await visitor.Dialog.GetByLabel("Reason (required)").FillAsync("mine");
            using var other = await shop.Service.Http.PostAsync(
                new Uri($"/api/dead-letters/{letter}/discard", UriKind.Relative), new StringContent("{\"reason\":\"theirs\"}", Encoding.UTF8, "application/json"), TestContext.Current.CancellationToken);
            Assert.True(other.IsSuccessStatusCode);
            await visitor.Dialog.GetByRole(AriaRole.Button, new() { Name = "Discard 1 letter" }).ClickAsync();
            await Expect(visitor.Dialog.GetByRole(AriaRole.Alert)).ToContainTextAsync("discarded by tests");
        }, at: $"#/dead-letters/{letter}");
        Assert.Equal("theirs", await shop.Service.ScalarAsync<string>("SELECT settle_reason FROM dead_letters WHERE id = @letter", new { letter }));
    }

    [Fact]
    public Task Letters_are_exported_with_the_filter_that_is_seen() => shop.VisitAsync(async visitor =>
    {
        var download = await visitor.Page.RunAndWaitForDownloadAsync(() => visitor.Link("Export CSV").ClickAsync());
        var text = await File.ReadAllTextAsync((await download.PathAsync())!, TestContext.Current.CancellationToken);
        Assert.Contains("quantity_out_of_range", text, StringComparison.Ordinal);
        Assert.DoesNotContain("currency_unknown", text, StringComparison.Ordinal);
    }, at: "#/dead-letters?reason=quantity_out_of_range&status=all");
}

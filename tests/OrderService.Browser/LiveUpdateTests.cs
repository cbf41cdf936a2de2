using System.Globalization;
using Microsoft.Playwright;
using OrderService.Browser.Infrastructure;
using static Microsoft.Playwright.Assertions;

namespace OrderService.Browser;

/// <summary>What arrives while somebody works never takes the focus, the selection, the scroll position, what is typed, or the meaning of a key.</summary>
public sealed class LiveUpdateTests(Shop shop)
{
    [Fact]
    public async Task Updates_leave_the_focused_row_the_selection_and_the_scroll_position_alone()
    {
        var (customer, letters) = await ParkAsync(30);
        await shop.VisitAsync(async visitor =>
        {
            var keys = visitor.Page.Keyboard;
            await Expect(visitor.Page.Locator("tbody tr")).ToHaveCountAsync(30);
            for (var row = 0; row < 20; row++)
            {
                await keys.PressAsync("j");
            }
            // Newest first.
            var focused = Row(visitor, letters[^20]);
            await Expect(focused).ToBeFocusedAsync();
            await keys.PressAsync("x");
            var before = await focused.BoundingBoxAsync();

            await shop.DiscardAsync(letters[^19]);
            await shop.DiscardAsync(letters[^21]);
            await ParkAsync(3, customer);
            await Expect(visitor.Page.Locator(".waiting button")).ToHaveTextAsync("3 new letters – show", new() { Timeout = 30_000 });
            await Expect(visitor.Page.Locator("tbody tr.left")).ToHaveCountAsync(2);

            await Expect(focused).ToBeFocusedAsync();
            await Expect(visitor.Page.Locator("tbody tr.selected th")).ToHaveTextAsync([letters[^20].ToString(CultureInfo.InvariantCulture)]);
            var after = await focused.BoundingBoxAsync();
            Assert.True(before!.Y == after!.Y, $"the row moved from {before.Y} to {after.Y}");
            await keys.PressAsync("j");
            await Expect(Row(visitor, letters[^21])).ToBeFocusedAsync();
            await keys.PressAsync("k");
            await keys.PressAsync("r");
            await Expect(visitor.Dialog.GetByRole(AriaRole.Heading, new() { Name = "Replay letter " + letters[^20].ToString(CultureInfo.InvariantCulture) })).ToBeVisibleAsync();
            await keys.PressAsync("Escape");
            await Expect(focused).ToBeFocusedAsync();

            await visitor.Page.Locator(".waiting button").FocusAsync();
            await keys.PressAsync("Enter");
            await Expect(visitor.Page.Locator("tbody tr")).ToHaveCountAsync(33);
            await Expect(visitor.Page.Locator("tbody tr a").First).ToBeFocusedAsync();
        }, at: $"#/dead-letters?q={customer}");
    }

    [Fact]
    public async Task Updates_leave_what_is_typed_alone()
    {
        var (customer, letters) = await ParkAsync(2);
        await shop.VisitAsync(async visitor =>
        {
            var search = visitor.Page.GetByRole(AriaRole.Searchbox);
            await Expect(visitor.Page.Locator("tbody tr")).ToHaveCountAsync(2);
            await visitor.Page.Keyboard.PressAsync("/");
            await visitor.Page.Keyboard.TypeAsync("half a wo");
            await shop.DiscardAsync(letters[0]);
            await Expect(visitor.Page.Locator("tbody tr.left")).ToHaveCountAsync(1, new() { Timeout = 30_000 });
            await visitor.Page.Keyboard.TypeAsync("rd");
            await Expect(search).ToBeFocusedAsync();
            await Expect(search).ToHaveValueAsync("half a word");

            await visitor.GoAsync($"#/dead-letters/{letters[1]}/edit");
            var editor = visitor.Page.GetByLabel("Edited body");
            await editor.FillAsync("{\"orderId\":\"A-1\"}");
            await editor.EvaluateAsync("editor => editor.setSelectionRange(12, 12)");
            await shop.DiscardAsync(letters[1]);
            await Expect(visitor.Page.Locator(".note").First).ToContainTextAsync("discarded since you opened it");
            await visitor.Page.Keyboard.TypeAsync("B-");
            await Expect(editor).ToHaveValueAsync("{\"orderId\":\"B-A-1\"}");
        }, at: $"#/dead-letters?q={customer}");
    }

    [Fact]
    public async Task An_answer_that_comes_while_a_dialog_is_open_changes_nothing_behind_or_in_it()
    {
        var (customer, letters) = await ParkAsync(2);
        await shop.VisitAsync(async visitor =>
        {
            await Expect(visitor.Page.Locator("tbody tr")).ToHaveCountAsync(2);
            var asked = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            var answer = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            await visitor.Page.RouteAsync("**/api/dead-letters?**", async route =>
            {
                asked.TrySetResult();
                await answer.Task;
                await route.ContinueAsync();
            });
            await asked.Task.WaitAsync(TestContext.Current.CancellationToken);
            await visitor.Page.Keyboard.PressAsync("j");
            await visitor.Page.Keyboard.PressAsync("x");
            await visitor.Page.Keyboard.PressAsync("#");
            var reason = visitor.Dialog.GetByLabel("Reason (required)");
            await reason.FocusAsync();
            await visitor.Page.Keyboard.TypeAsync("not my x");
            await shop.DiscardAsync(letters[0]);
            await ParkAsync(1, customer);
            await visitor.Page.RunAndWaitForResponseAsync(
                () =>
                {
                    answer.SetResult();
                    return Task.CompletedTask;
                },
                response => response.Url.Contains("/api/dead-letters?", StringComparison.Ordinal));
            await visitor.Page.Keyboard.TypeAsync("j");
            await Expect(reason).ToHaveValueAsync("not my xj");
            await Expect(reason).ToBeFocusedAsync();
            Assert.Equal(0, await visitor.Page.Locator(".waiting button, tbody tr.left").CountAsync());
            Assert.Equal(1, await visitor.Page.Locator("tbody tr.selected").CountAsync());

            await visitor.Button("Cancel", exact: true).ClickAsync();
            await Expect(Row(visitor, letters[1])).ToBeFocusedAsync();
            await Expect(visitor.Page.Locator(".waiting button")).ToHaveTextAsync("1 new letter – show", new() { Timeout = 30_000 });
            await Expect(Row(visitor, letters[1])).ToBeFocusedAsync();
        }, at: $"#/dead-letters?q={customer}");
    }

    [Fact]
    public async Task When_the_focused_row_goes_the_next_one_has_the_focus()
    {
        var (customer, letters) = await ParkAsync(3);
        await shop.VisitAsync(async visitor =>
        {
            var keys = visitor.Page.Keyboard;
            await Expect(visitor.Page.Locator("tbody tr")).ToHaveCountAsync(3);
            await keys.PressAsync("j");
            await keys.PressAsync("j");
            await keys.PressAsync("x");
            await keys.PressAsync("#");
            await visitor.Dialog.GetByLabel("Reason (required)").FocusAsync();
            await keys.TypeAsync("a test");
            await keys.PressAsync("Enter");
            await Expect(visitor.Page.Locator("tbody tr")).ToHaveCountAsync(2);
            await Expect(Row(visitor, letters[0])).ToBeFocusedAsync();
            await keys.PressAsync("k");
            await Expect(Row(visitor, letters[2])).ToBeFocusedAsync();
        }, at: $"#/dead-letters?q={customer}");
    }

    [Fact]
    public async Task Going_back_finds_the_row_that_was_opened_where_it_was()
    {
        var (customer, letters) = await ParkAsync(40);
        await shop.VisitAsync(async visitor =>
        {
            await Expect(visitor.Page.Locator("tbody tr")).ToHaveCountAsync(40);
            for (var row = 0; row < 30; row++)
            {
                await visitor.Page.Keyboard.PressAsync("j");
            }
            var before = await Row(visitor, letters[^30]).BoundingBoxAsync();
            await visitor.Page.Keyboard.PressAsync("Enter");
            await Expect(visitor.Heading($"Letter {letters[^30]}")).ToBeFocusedAsync();
            Assert.Equal(0, await visitor.Page.EvaluateAsync<int>("scrollY"));

            await visitor.Page.EvaluateAsync("history.back()");
            await Expect(Row(visitor, letters[^30])).ToBeFocusedAsync();
            var after = await Row(visitor, letters[^30]).BoundingBoxAsync();
            Assert.True(before!.Y == after!.Y, $"the row was at {before.Y} and is at {after.Y}");
        }, at: $"#/dead-letters?q={customer}");
    }

    /// <summary>The browser reports a closed dialog a moment after it gave the focus back; what took the focus within that moment keeps it.</summary>
    [Fact]
    public async Task A_dialog_that_closed_takes_the_focus_from_nobody()
    {
        var (customer, _) = await ParkAsync(2);
        await shop.VisitAsync(async visitor =>
        {
            await Expect(visitor.Page.Locator("tbody tr")).ToHaveCountAsync(2);
            await visitor.Page.Keyboard.PressAsync("j");
            await visitor.Page.Keyboard.PressAsync("x");
            await visitor.Page.Keyboard.PressAsync("r");
            await Expect(visitor.Dialog).ToBeVisibleAsync();
            await visitor.Page.EvaluateAsync("() => { document.querySelector('dialog').close(); document.querySelector('input[type=search]').focus(); }");
            await Expect(visitor.Page.Locator("dialog")).ToHaveCountAsync(0);
            await Expect(visitor.Page.GetByRole(AriaRole.Searchbox)).ToBeFocusedAsync();
        }, at: $"#/dead-letters?q={customer}");
    }

    /// <summary>A 'g' that was never pressed: the page is so young that everything happened within the last second.</summary>
    [Fact]
    public async Task A_key_right_after_the_page_was_loaded_means_itself()
    {
        var (customer, letters) = await ParkAsync(1);
        await shop.VisitAsync(async visitor =>
        {
            await visitor.Page.AddInitScriptAsync("Object.defineProperty(Event.prototype, 'timeStamp', { get: () => 100 });");
            await visitor.LoadAsync($"/#/dead-letters?q={customer}");
            await Expect(visitor.Page.Locator("tbody tr")).ToHaveCountAsync(1);
            await visitor.Page.Keyboard.PressAsync("j");
            await Expect(Row(visitor, letters[0])).ToBeFocusedAsync();
            await Expect(visitor.Page.Locator("h1")).ToHaveTextAsync("Dead letters");
        });
    }

    /// <summary>The search of another page is gone to and typed into at once, as fast as keys can come.</summary>
    [Fact]
    public Task Keys_that_follow_a_step_to_another_page_mean_the_new_page() => shop.VisitAsync(async visitor =>
    {
        await visitor.Page.EvaluateAsync("""
            () => {
              const press = key => (document.activeElement ?? document.body).dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
              return ['g', 'd', '/'].reduce((before, key) => before.then(() => press(key)), Promise.resolve());
            }
            """);
        await Expect(visitor.Page.GetByRole(AriaRole.Searchbox)).ToBeFocusedAsync();
        await visitor.Page.Keyboard.TypeAsync("jxr");
        await Expect(visitor.Page.GetByRole(AriaRole.Searchbox)).ToHaveValueAsync("jxr");
        await Expect(visitor.Page.Locator("h1")).ToHaveTextAsync("Dead letters");

        await visitor.GoAsync("#/queues");
        await visitor.Page.Keyboard.PressAsync("/");
        await Expect(visitor.Page.GetByRole(AriaRole.Searchbox)).ToBeFocusedAsync();
        await Expect(visitor.Page.Locator("h1")).ToHaveTextAsync("Orders");
    });

    /// <summary>Letters of a customer whom no other test has, so that its list is this test's alone.</summary>
    private async Task<(string Customer, List<long> Letters)> ParkAsync(int count, string? customer = null)
    {
        await shop.OpenAsync();
        customer ??= shop.NewId("C-live");
        var messages = Enumerable.Range(0, count).Select(_ => Shop.UnknownCurrency(shop.NewId("live"), customer)).ToList();
        await shop.PublishAsync(messages);
        var letters = new List<long>();
        foreach (var message in messages)
        {
            letters.Add(await shop.LetterOfAsync(message.Key!));
        }
        letters.Sort();
        return (customer, letters);
    }

    private static ILocator Row(Visitor visitor, long letter) => visitor.Link(letter.ToString(CultureInfo.InvariantCulture), exact: true);
}

using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Microsoft.Playwright;
using OrderService.Browser.Infrastructure;
using OrderService.Tests.Infrastructure;
using static Microsoft.Playwright.Assertions;

namespace OrderService.Browser;

/// <summary>What a message contains is shown and never executed. The visitor hears every dialog, script error, violated policy and request to elsewhere.</summary>
public sealed partial class MarkupTests(Shop shop)
{
    /// <summary>Through the real queue: 200 messages whose body, headers, ids and type are hostile become letters that somebody looks at.</summary>
    [Fact]
    public async Task Two_hundred_hostile_messages_are_shown_as_text()
    {
        await shop.OpenAsync();
        Assert.Equal(200, Payloads.All.Distinct().Count());
        for (var number = 0; number < Payloads.All.Count; number++)
        {
            var payload = Payloads.All[number];
            var text = JsonEncodedText.Encode(payload, System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping);
            // Every third is no JSON at all, so that its raw form is shown.
            var body = number % 3 == 0 ? payload : $$"""{"orderId":"{{text}}","customerId":"{{text}}","{{text}}":"{{text}}","currency":"{{text}}","lines":[]}""";
            await shop.PublishAsync(new TestMessage(number % 5 == 0 ? Short(payload, 200) : null, $"hostile-{number}", Encoding.UTF8.GetBytes(body))
            {
                More = properties =>
                {
                    properties.CorrelationId = Short(payload, 250);
                    properties.AppId = Short(payload, 250);
                    properties.ReplyTo = Short(payload, 250);
                    properties.ContentType = number % 7 == 0 ? Short(payload, 250) : null;
                    properties.Headers = new Dictionary<string, object?> { ["note"] = payload, [Short(payload, 250)] = payload };
                },
            });
        }
        var letters = new List<long>();
        for (var number = 0; number < Payloads.All.Count; number++)
        {
            letters.Add(await shop.LetterOfAsync($"hostile-{number}"));
        }
        await shop.VisitAsync(async visitor =>
        {
            foreach (var (letter, index) in letters.Select((letter, index) => (letter, index)))
            {
                await visitor.GoAsync($"#/dead-letters/{letter}?tab=headers");
                await Expect(visitor.Page.Locator("table.pairs", new() { HasTextString = Payloads.All[index] }).First).ToBeVisibleAsync();
                await visitor.GoAsync($"#/dead-letters/{letter}?view=raw");
                await Expect(visitor.Page.Locator("pre.raw")).ToBeVisibleAsync();
                if (index % 10 == 0)
                {
                    foreach (var view in new[] { "?view=pretty", "?view=hex", "?tab=error", "?tab=history", "/edit" })
                    {
                        await visitor.GoAsync($"#/dead-letters/{letter}{view}");
                        await Expect(visitor.Page.Locator("[aria-busy=true]")).ToHaveCountAsync(0);
                    }
                }
                visitor.AssertQuiet();
            }
            foreach (var address in new[] { "#/dead-letters?status=all", "#/incidents?state=all", "#/alerts", "#/" })
            {
                await visitor.GoAsync(address);
                await Expect(visitor.Page.Locator("[aria-busy=true]")).ToHaveCountAsync(0);
            }
            await AssertNothingWasBuiltFromTextAsync(visitor);
        });
    }

    /// <summary>Whatever the API might ever answer: each text in the real answers of every page becomes hostile, 200 in turn.</summary>
    [Fact]
    public async Task Every_text_of_every_answer_may_be_hostile()
    {
        await shop.OpenAsync();
        var letter = await shop.LetterOfAsync("key-W-104");
        var incident = await shop.Service.ScalarAsync<string>("SELECT incident FROM dead_letters WHERE id = @letter", new { letter });
        string[] addresses =
        [
            "#/", "#/incidents", $"#/incidents/{incident}", "#/dead-letters", $"#/dead-letters/{letter}", $"#/dead-letters/{letter}?tab=error", $"#/dead-letters/{letter}?tab=headers",
            $"#/dead-letters/{letter}?tab=history", $"#/dead-letters/{letter}?tab=order", $"#/dead-letters/{letter}/edit", "#/replays", "#/orders", "#/orders/A-1002", "#/orders/A-1002?view=json", "#/queues", "#/alerts", "#/audit",
        ];
        await shop.VisitAsync(async visitor =>
        {
            var next = 0;
            var shown = new HashSet<string>(StringComparer.Ordinal);
            await visitor.Page.RouteAsync(new Regex("/api/(?!session|events/stream)"), async route =>
            {
                try
                {
                    var answer = await route.FetchAsync();
                    if (answer.Headers.GetValueOrDefault("content-type")?.Contains("json", StringComparison.Ordinal) != true)
                    {
                        await route.FulfillAsync(new() { Response = answer });
                        return;
                    }
                    var json = JsonNode.Parse(await answer.TextAsync());
                    await route.FulfillAsync(new() { Response = answer, Body = Poison(json, () => Payloads.All[next++ % Payloads.All.Count])?.ToJsonString() });
                }
                catch (PlaywrightException)
                {
                    // The page went elsewhere while the answer was under way.
                }
            });
            for (var round = 0; round < 3; round++)
            {
                foreach (var address in addresses)
                {
                    await visitor.GoAsync(address);
                    await Expect(visitor.Page.Locator("[aria-busy=true]")).ToHaveCountAsync(0);
                    foreach (var summary in await visitor.Page.Locator("main summary").AllAsync())
                    {
                        await summary.EvaluateAsync("summary => { summary.parentElement.open = true; }");
                    }
                    var text = await visitor.Page.Locator("main").TextContentAsync() ?? "";
                    shown.UnionWith(Payloads.All.Where(payload => text.Contains(payload, StringComparison.Ordinal)));
                    await AssertNothingWasBuiltFromTextAsync(visitor);
                    visitor.AssertQuiet();
                }
            }
            Assert.True(shown.Count == Payloads.All.Count, $"Only {shown.Count} of the payloads were seen as text, so the others were not tried.");
            await visitor.ScreenshotAsync("hostile-light");
        });
    }

    private static async Task AssertNothingWasBuiltFromTextAsync(Visitor visitor)
    {
        var built = await visitor.Page.EvaluateAsync<string[]>("""
            [...document.querySelectorAll('#app script, #app iframe, #app object, #app style, #app math, #app template, #app [onerror], #app [onload], #app [onfocus], #app [ontoggle], #app [onmouseover]')]
              .concat([...document.querySelectorAll('#app a[href]')].filter(one => !/^(#|\/api\/|\/openapi\/)/.test(one.getAttribute('href'))))
              .map(one => one.outerHTML.slice(0, 200))
            """);
        Assert.Empty(built);
    }

    /// <summary>Texts become payloads. Times, numbers in texts and the states that pick a view stay, or most of the page would not be shown.</summary>
    private static JsonNode? Poison(JsonNode? node, Func<string> next)
    {
        switch (node)
        {
            case JsonObject entry:
                foreach (var (name, value) in entry.ToList())
                {
                    entry[name] = value is JsonValue && name is "status" or "state" ? value?.DeepClone() : Poison(value, next)?.DeepClone();
                }
                return entry;
            case JsonArray list:
                for (var index = 0; index < list.Count; index++)
                {
                    list[index] = Poison(list[index], next)?.DeepClone();
                }
                return list;
            case JsonValue value when value.GetValueKind() == JsonValueKind.String && !Kept().IsMatch(value.GetValue<string>()):
                return JsonValue.Create(next());
            default:
                return node?.DeepClone();
        }
    }

    private static string Short(string text, int length) => text.Length <= length ? text : text[..length];

    [GeneratedRegex(@"^\d{4}-\d\d-\d\dT|^-?\d+(\.\d+)?$")]
    private static partial Regex Kept();
}

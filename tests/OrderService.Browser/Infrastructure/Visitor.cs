using System.Collections.Concurrent;
using Deque.AxeCore.Commons;
using Microsoft.Playwright;
using static Microsoft.Playwright.Assertions;

namespace OrderService.Browser.Infrastructure;

/// <summary>Somebody with the page open. Everything that a page must never do is noted: dialogs, script errors, violated policies, requests to elsewhere.</summary>
public sealed class Visitor
{
    private static readonly string Axe = new BundledAxeScriptProvider().GetScript();

    private readonly ConcurrentQueue<string> troubles = new();
    private readonly string url;
    private volatile bool networkChanged;

    private Visitor(IPage page, string url) => (Page, this.url) = (page, url);

    public IPage Page { get; }

    public IReadOnlyCollection<string> Troubles => troubles;

    /// <summary>Set by a test that takes the service away: what the browser then says of lost connections is no trouble.</summary>
    public bool ServiceMayBeAway { get; set; }

    /// <summary>Where screenshots are kept.</summary>
    public static string Screenshots { get; } = Path.Combine(RepositoryRoot(), "artifacts", "screenshots");

    public static string RepositoryRoot()
    {
        var folder = new DirectoryInfo(AppContext.BaseDirectory);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "OrderService.sln")))
        {
            folder = folder.Parent;
        }
        return folder?.FullName ?? AppContext.BaseDirectory;
    }

    public static async Task<Visitor> OpenAsync(IBrowserContext context, string url)
    {
        var page = await context.NewPageAsync();
        var visitor = new Visitor(page, url);
        await visitor.WatchAsync();
        return visitor;
    }

    /// <summary>The signed link, as orderservice key show prints it.</summary>
    public async Task SignInAsync(string key)
    {
        await LoadAsync($"/#key={key}");
        await Expect(Page.GetByRole(AriaRole.Heading, new() { Name = "Overview", Level = 1 })).ToBeVisibleAsync();
    }

    /// <summary>Loads the page anew.</summary>
    public async Task LoadAsync(string address)
    {
        while (true)
        {
            networkChanged = false;
            // Never 'networkidle': the event stream stays open.
            await Page.GotoAsync("about:blank");
            await Page.GotoAsync(url + address);
            try
            {
                await Expect(Page.Locator("h1")).ToBeVisibleAsync(new() { Timeout = 15_000 });
                return;
            }
            catch (PlaywrightException) when (networkChanged)
            {
                // Containers of other tests came or went, and with them network interfaces: Chromium drops what it was loading.
            }
        }
    }

    public async Task GoAsync(string address)
    {
        // 'load' never ends while the event stream is open; a change of the address after '#' does not load anything.
        await Page.EvaluateAsync("address => { location.hash = address; }", address[(address.IndexOf('#', StringComparison.Ordinal) + 1)..]);
        await Expect(Page.Locator("main h1")).ToBeVisibleAsync();
    }

    public ILocator Button(string name, bool exact = false) => Page.GetByRole(AriaRole.Button, new() { Name = name, Exact = exact });

    public ILocator Link(string name, bool exact = false) => Page.GetByRole(AriaRole.Link, new() { Name = name, Exact = exact });

    public ILocator Heading(string name) => Page.GetByRole(AriaRole.Heading, new() { Name = name });

    public ILocator Dialog => Page.Locator("dialog[open]");

    public async Task ScreenshotAsync(string name, bool whole = false)
    {
        Directory.CreateDirectory(Screenshots);
        await Page.ScreenshotAsync(new() { Path = Path.Combine(Screenshots, $"{name}.png"), FullPage = whole, Animations = ScreenshotAnimations.Disabled });
    }

    /// <summary>No violation of WCAG 2.2 A and AA that axe can see, serious or not.</summary>
    /// <param name="coloursOnly">Whether text stands out enough, and nothing else: for the same page in other colours.</param>
    public async Task AssertAccessibleAsync(string where, bool coloursOnly = false)
    {
        // Read once a document: the library's own way to run it brings the script twice, and a page more, each time.
        if (!await Page.EvaluateAsync<bool>("() => 'axe' in window"))
        {
            await Page.EvaluateAsync(Axe);
        }
        object rules = coloursOnly
            ? new { type = "rule", values = new[] { "color-contrast" } }
            : new { type = "tag", values = new[] { "wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice" } };
        var violations = await Page.EvaluateAsync<string[]>(
            """
            async rules => {
              const { violations, passes } = await axe.run(document, { runOnly: rules, resultTypes: ['violations'], preload: false });
              if (violations.length + passes.length === 0) return ['axe found nothing to look at'];
              return violations.map(one => `${one.impact} ${one.id}: ${one.help}: ${one.nodes.slice(0, 4).map(node => node.html).join(' | ')}`);
            }
            """,
            rules);
        Assert.True(violations.Length == 0, $"{where}: {string.Join("\n", violations)}");
    }

    public async Task AssertNoSidewaysScrollAsync(string where) =>
        Assert.True(await Page.EvaluateAsync<int>("document.documentElement.scrollWidth - innerWidth") <= 0, $"{where} scrolls sideways");

    public void AssertQuiet() => Assert.True(troubles.IsEmpty, $"The page did what it must not: {string.Join("; ", troubles)}");

    private async Task WatchAsync()
    {
        Page.Dialog += async (_, dialog) =>
        {
            troubles.Enqueue($"dialog: {dialog.Message}");
            await dialog.DismissAsync();
        };
        Page.PageError += (_, error) => troubles.Enqueue($"script error: {error}");
        Page.Console += (_, message) =>
        {
            if (message.Text.Contains("net::ERR_NETWORK_CHANGED", StringComparison.Ordinal))
            {
                networkChanged = true;
                return;
            }
            if (message.Text.Contains("Cross-Origin-Opener-Policy header has been ignored", StringComparison.Ordinal))
            {
                // Over plain http by name; behind a proxy the service can't tell.
                return;
            }
            if (ServiceMayBeAway && message.Text.Contains("net::ERR_", StringComparison.Ordinal))
            {
                return;
            }
            // The browser itself reports each answer of 4xx and 5xx; the page shows them, and tests provoke them.
            if (message.Type is "error" or "warning" && !message.Text.StartsWith("Failed to load resource: the server responded", StringComparison.Ordinal))
            {
                troubles.Enqueue($"console: {message.Text}");
            }
        };
        Page.Request += (_, request) =>
        {
            if (!request.Url.StartsWith(url, StringComparison.Ordinal) && !request.Url.StartsWith("data:", StringComparison.Ordinal) && !request.Url.StartsWith("blob:", StringComparison.Ordinal))
            {
                troubles.Enqueue($"request to {request.Url}");
            }
        };
        await Page.ExposeFunctionAsync("noteTrouble", (string what) => troubles.Enqueue(what));
        await Page.AddInitScriptAsync("""
            document.addEventListener('securitypolicyviolation', event => noteTrouble(`policy ${event.violatedDirective}: ${event.blockedURI}`));
            for (const name of ['alert', 'confirm', 'prompt', 'print', 'open']) {
              window[name] = text => { noteTrouble(`${name}(${text})`); };
            }
            """);
    }
}

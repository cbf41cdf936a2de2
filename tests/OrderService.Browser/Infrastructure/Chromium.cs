using Microsoft.Playwright;

namespace OrderService.Browser.Infrastructure;

/// <summary>The installed Chromium, started by the first test that asks for it. Each visit is a browser context of its own.</summary>
public sealed class Chromium : IAsyncLifetime
{
    private static readonly string[] Candidates = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

    private readonly SemaphoreSlim starting = new(1);
    private IPlaywright? playwright;
    private IBrowser? browser;

    /// <summary>Skips the test when there is no browser; fails it where ORDERSERVICE_TESTS_REQUIRE_ENGINE is 1.</summary>
    public async Task<IBrowser> StartAsync()
    {
        var executable = Environment.GetEnvironmentVariable("ORDERSERVICE_TEST_CHROMIUM") is { Length: > 0 } named ? named : Array.Find(Candidates, File.Exists);
        if (executable is null)
        {
            const string problem = "There is no Chromium: apt-get install chromium, or name one with ORDERSERVICE_TEST_CHROMIUM.";
            if (Environment.GetEnvironmentVariable("ORDERSERVICE_TESTS_REQUIRE_ENGINE") == "1")
            {
                Assert.Fail(problem);
            }
            Assert.Skip(problem);
        }
        await starting.WaitAsync(TestContext.Current.CancellationToken);
        try
        {
            playwright ??= await Playwright.CreateAsync();
            return browser ??= await playwright.Chromium.LaunchAsync(new()
            {
                ExecutablePath = executable,
                // Root has no sandbox; nothing but the service under test is opened.
                Args = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-dev-shm-usage",
                    // A name that is no loopback name, as behind a proxy: over plain http it is no secure context.
                    "--host-resolver-rules=MAP orders.test 127.0.0.1"],
            });
        }
        finally
        {
            starting.Release();
        }
    }

    public ValueTask InitializeAsync() => ValueTask.CompletedTask;

    public async ValueTask DisposeAsync()
    {
        if (browser is not null)
        {
            await browser.DisposeAsync();
        }
        playwright?.Dispose();
        starting.Dispose();
    }
}

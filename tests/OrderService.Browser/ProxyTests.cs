using System.Globalization;
using Microsoft.Playwright;
using OrderService.Browser.Infrastructure;
using OrderService.Tests.Infrastructure;
using static Microsoft.Playwright.Assertions;

namespace OrderService.Browser;

/// <summary>The page behind nginx: under a path, beside another application at the root of the host.</summary>
public sealed class ProxyTests(Shop shop)
{
    /// <summary>The visitor notes every request that leaves the path; nginx notes what reaches the neighbour.</summary>
    [Theory]
    [InlineData("/orders", "http")]
    [InlineData("/kept", "https")]
    public async Task Under_a_path_the_page_works_and_nothing_goes_to_the_neighbour(string path, string scheme)
    {
        await shop.OpenAsync();
        await using var nginx = await StartAsync(shop.Service.Url);
        var url = string.Create(CultureInfo.InvariantCulture, $"{scheme}://orders.test:{(scheme == "http" ? nginx.Port : nginx.TlsPort)}{path}");
        await shop.VisitAsync(async visitor =>
        {
            await visitor.LoadAsync($"/#key={RunningService.ApiKey}");
            await Expect(visitor.Heading("Overview")).ToBeVisibleAsync();
            Assert.Equal($"{url}/#/", visitor.Page.Url);
            await Expect(visitor.Page.Locator(".live")).ToHaveTextAsync("Live", new() { Timeout = 15_000 });
            var cookie = Assert.Single(await visitor.Page.Context.CookiesAsync([$"{url}/api/session"]));
            Assert.Equal($"{path}/", cookie.Path);
            Assert.Equal(scheme == "https", cookie.Secure);
            Assert.Empty(await visitor.Page.Context.CookiesAsync([new Uri(new Uri(url), "/").ToString()]));

            await visitor.Button("Colours").ClickAsync();
            Assert.Equal($"orderservice{path}/theme", await visitor.Page.EvaluateAsync<string>("Object.keys(localStorage).join()"));
            await visitor.LoadAsync("/#/dead-letters");
            await Expect(visitor.Page.Locator("tbody tr").First).ToBeVisibleAsync();
            var download = await visitor.Page.RunAndWaitForDownloadAsync(() => visitor.Link("Export CSV").ClickAsync());
            Assert.StartsWith($"{url}/api/export/", download.Url, StringComparison.Ordinal);
            await visitor.Button("Signed in as tests").ClickAsync();
            await visitor.Button("Sign out").ClickAsync();
            await Expect(visitor.Heading("Sign in")).ToBeVisibleAsync();
        }, url: url, signedIn: false);
        Assert.Equal("", (await nginx.NeighbourAsync()).Replace("GET /favicon.ico HTTP/1.1\n", "", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Where_the_proxy_changes_the_host_the_page_says_what_to_set()
    {
        await shop.OpenAsync();
        await using var nginx = await StartAsync(shop.Service.Url);
        await shop.VisitAsync(async visitor =>
        {
            await visitor.LoadAsync($"/#key={RunningService.ApiKey}");
            await Expect(visitor.Page.GetByRole(AriaRole.Alert)).ToContainTextAsync("proxy_set_header Host $http_host");
        }, url: string.Create(CultureInfo.InvariantCulture, $"http://orders.test:{nginx.Port}/plain"), signedIn: false);
    }

    private static Task<Nginx> StartAsync(string service)
    {
        const string Forwarded = """
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            """;
        return Nginx.StartAsync($$"""
            location / { access_log neighbour.log plain; return 404; }
            location /plain/ { proxy_pass {{service}}/; }
            location /orders/ { {{Forwarded}} proxy_set_header X-Forwarded-Prefix /orders; proxy_pass {{service}}/; }
            location /kept { {{Forwarded}} proxy_set_header X-Forwarded-Prefix /kept; proxy_pass {{service}}; }
            """);
    }
}

using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text;
using OrderService.Browser.Infrastructure;
using OrderService.Tests.Infrastructure;

namespace OrderService.Browser;

public sealed class CrossSiteTests(Shop shop)
{
    /// <summary>
    /// Another site (another port of the same host: the same "site" for SameSite cookies, another origin) makes the operator's browser send a discard: as a form, as text/plain, with fetch.
    /// </summary>
    [Fact]
    public async Task Another_site_can_not_act_with_the_session()
    {
        await shop.OpenAsync();
        var letter = await shop.PublishBrokenAsync(Shop.UnknownCurrency(shop.NewId("csrf")));
        var target = $"{shop.Service.Url}/api/dead-letters/{letter}/discard";
        using var attacker = new AttackingSite($$"""
            <!doctype html><title>Free prizes</title>
            <iframe name="a"></iframe><iframe name="b"></iframe>
            <form id="form" target="a" method="post" action="{{target}}"><input name="reason" value="csrf"></form>
            <form id="text" target="b" method="post" enctype="text/plain" action="{{target}}"><input name='{"reason":"csrf","x":"' value='"}'></form>
            <script>
              document.getElementById('form').submit();
              document.getElementById('text').submit();
              fetch('{{target}}', { method: 'POST', credentials: 'include', body: '{"reason":"csrf"}', headers: { 'Content-Type': 'text/plain' }, mode: 'no-cors' })
                .then(() => fetch('{{target}}', { method: 'POST', credentials: 'include', body: '{"reason":"csrf"}', headers: { 'Content-Type': 'application/json', 'X-CSRF-Token': 'guess' } }))
                .catch(() => {}).then(() => { document.title = 'sent'; });
            </script>
            """);
        await shop.VisitAsync(async visitor =>
        {
            var victim = await visitor.Page.Context.NewPageAsync();
            var sent = 0;
            var answers = new List<int>();
            // What the browser blocks after it was answered (the page may not be framed) is reported as sent only.
            victim.Request += (_, request) => sent += request.Url == target && request.Method == "POST" ? 1 : 0;
            victim.Response += (_, response) =>
            {
                if (response.Url == target)
                {
                    answers.Add(response.Status);
                }
            };
            await victim.GotoAsync(attacker.Url);
            await victim.WaitForFunctionAsync("document.title === 'sent'");
            await Eventually.TrueAsync(() => sent >= 3 && answers.Count >= 1, what: "the browser sent what the other site wanted");
            Assert.All(answers, status => Assert.True(status is 403 or 401, $"answered {status}"));
        });
        Assert.Equal("parked", await shop.Service.ScalarAsync<string>("SELECT status FROM dead_letters WHERE id = @letter", new { letter }));
    }

    [Fact]
    public Task The_page_of_this_site_needs_its_token_too() => shop.VisitAsync(async visitor =>
    {
        var letter = await shop.PublishBrokenAsync(Shop.UnknownCurrency(shop.NewId("csrf")));
        var status = await visitor.Page.EvaluateAsync<int>(
            "async path => (await fetch(path, { method: 'POST', body: '{\"reason\":\"x\"}', headers: { 'Content-Type': 'application/json' } })).status", $"/api/dead-letters/{letter}/discard");
        Assert.Equal(403, status);
        Assert.Equal("parked", await shop.Service.ScalarAsync<string>("SELECT status FROM dead_letters WHERE id = @letter", new { letter }));
    });

    [Fact]
    public async Task A_key_that_may_only_read_gets_no_actions_and_is_refused_by_the_server()
    {
        await shop.OpenAsync();
        var letter = await shop.PublishBrokenAsync(Shop.UnknownCurrency(shop.NewId("read")));
        await shop.VisitAsync(async visitor =>
        {
            await Microsoft.Playwright.Assertions.Expect(visitor.Heading($"Letter {letter}")).ToBeVisibleAsync();
            await Microsoft.Playwright.Assertions.Expect(visitor.Page.Locator(".page-actions button")).ToHaveCountAsync(0);
            await visitor.GoAsync("#/dead-letters");
            await Microsoft.Playwright.Assertions.Expect(visitor.Page.Locator("tbody tr").First).ToBeVisibleAsync();
            await Microsoft.Playwright.Assertions.Expect(visitor.Page.Locator("tbody input[type=checkbox]")).ToHaveCountAsync(0);
        }, key: Shop.ReaderKey, at: $"#/dead-letters/{letter}");

        using var reader = new HttpClient { BaseAddress = new Uri(shop.Service.Url) };
        reader.DefaultRequestHeaders.Add("X-Api-Key", Shop.ReaderKey);
        using var answer = await reader.PostAsJsonAsync(new Uri($"/api/dead-letters/{letter}/discard", UriKind.Relative), new { reason = "x" }, TestContext.Current.CancellationToken);
        Assert.Equal(HttpStatusCode.Forbidden, answer.StatusCode);
    }

    [Fact]
    public async Task The_page_comes_with_a_policy_that_allows_nothing_but_its_own_files()
    {
        await shop.OpenAsync();
        using var client = new HttpClient { BaseAddress = new Uri(shop.Service.Url) };
        using var answer = await client.GetAsync(new Uri("/", UriKind.Relative), TestContext.Current.CancellationToken);
        var policy = Assert.Single(answer.Headers.GetValues("Content-Security-Policy"));
        Assert.Contains("default-src 'none'", policy, StringComparison.Ordinal);
        Assert.DoesNotContain("unsafe", policy, StringComparison.Ordinal);
        Assert.Equal("nosniff", Assert.Single(answer.Headers.GetValues("X-Content-Type-Options")));
        var html = await answer.Content.ReadAsStringAsync(TestContext.Current.CancellationToken);
        Assert.DoesNotContain("://", html, StringComparison.Ordinal);
    }

    /// <summary>A site that is not the service's, on a port of its own.</summary>
    private sealed class AttackingSite : IDisposable
    {
        private readonly HttpListener listener = new();

        public AttackingSite(string html)
        {
            using (var port = new TcpListener(IPAddress.Loopback, 0))
            {
                port.Start();
                Url = $"http://127.0.0.1:{((IPEndPoint)port.LocalEndpoint).Port}/";
            }
            listener.Prefixes.Add(Url);
            listener.Start();
            _ = ServeAsync(Encoding.UTF8.GetBytes(html));
        }

        public string Url { get; }

        public void Dispose() => listener.Close();

        private async Task ServeAsync(byte[] html)
        {
            try
            {
                while (true)
                {
                    var context = await listener.GetContextAsync();
                    context.Response.ContentType = "text/html";
                    await context.Response.OutputStream.WriteAsync(html);
                    context.Response.Close();
                }
            }
            catch (Exception exception) when (exception is HttpListenerException or ObjectDisposedException)
            {
                // The test is over.
            }
        }
    }
}

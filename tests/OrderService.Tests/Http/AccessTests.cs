using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;
using OrderService.Observability;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Http;

/// <summary>Who gets in, and what nobody gets past.</summary>
public sealed class AccessTests(SharedService shared) : IClassFixture<SharedService>
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Nothing_in_the_document_of_the_api_answers_without_a_key()
    {
        using var admin = shared.Service.Client();
        using var nobody = shared.Service.Client(null);
        var document = await admin.GetFromJsonAsync<JsonElement>("/openapi/v1.json", Now);
        var checkedOnes = 0;
        foreach (var path in document.GetProperty("paths").EnumerateObject())
        {
            foreach (var operation in path.Value.EnumerateObject())
            {
                if ((path.Name == "/api/session" && operation.Name == "post") || path.Name.StartsWith("/health/", StringComparison.Ordinal))
                {
                    // It says so itself: a requirement of nothing.
                    Assert.Empty(Assert.Single(operation.Value.GetProperty("security").EnumerateArray()).EnumerateObject());
                    continue;
                }
                using var request = new HttpRequestMessage(new HttpMethod(operation.Name.ToUpperInvariant()), path.Name.Replace("{id}", "1", StringComparison.Ordinal));
                using var response = await nobody.SendAsync(request, Now);
                Assert.True(response.StatusCode == HttpStatusCode.Unauthorized, $"{operation.Name} {path.Name} answered {response.StatusCode}");
                Assert.Contains(response.Headers.WwwAuthenticate, challenge => challenge.Scheme == "Bearer");
                checkedOnes++;
            }
        }
        Assert.True(checkedOnes >= 20, $"only {checkedOnes} operations");
    }

    [Fact]
    public async Task The_document_of_the_api_describes_every_operation_its_errors_and_its_keys()
    {
        using var admin = shared.Service.Client();
        var document = await admin.GetFromJsonAsync<JsonElement>("/openapi/v1.json", Now);

        Assert.StartsWith("3.1", document.GetProperty("openapi").GetString(), StringComparison.Ordinal);
        Assert.True(document.GetProperty("components").GetProperty("securitySchemes").TryGetProperty("bearer", out _));
        foreach (var (path, operation) in document.GetProperty("paths").EnumerateObject().SelectMany(path => path.Value.EnumerateObject().Select(operation => (path.Name, operation.Value))))
        {
            Assert.False(string.IsNullOrEmpty(operation.GetProperty("summary").GetString()), path);
            Assert.NotEmpty(operation.GetProperty("responses").EnumerateObject());
        }
        foreach (var command in new[] { "/api/orders", "/api/orders/{id}/pay", "/api/orders/{id}/ship", "/api/orders/{id}/deliver", "/api/orders/{id}/cancel" })
        {
            var responses = document.GetProperty("paths").GetProperty(command).GetProperty("post").GetProperty("responses").EnumerateObject().Select(response => response.Name).ToList();
            Assert.All(["202", "400", "409", "413", "415", "422", "429", "503"], status => Assert.Contains(status, responses));
        }
    }

    [Fact]
    public async Task Health_and_metrics_answer_without_a_key()
    {
        using var nobody = shared.Service.Client(null);

        Assert.Equal(HttpStatusCode.OK, (await nobody.GetAsync(new Uri("/health/live", UriKind.Relative), Now)).StatusCode);
        var metrics = await nobody.GetStringAsync(new Uri("/metrics", UriKind.Relative), Now);
        // What is in it, MetricsPageTests looks at, in a process that ends no other service.
        Assert.Contains("# TYPE", metrics, StringComparison.Ordinal);
        await Eventually.TrueAsync(async () => (await nobody.GetAsync(new Uri("/health/ready", UriKind.Relative), Now)).StatusCode == HttpStatusCode.OK);
        foreach (var path in new[] { "/health/live", "/health/ready", "/metrics" })
        {
            using var head = new HttpRequestMessage(HttpMethod.Head, path);
            Assert.Equal(HttpStatusCode.OK, (await nobody.SendAsync(head, Now)).StatusCode);
        }
    }

    [Fact]
    public async Task What_the_store_says_is_told_to_those_who_watch_and_to_nobody_else()
    {
        await using var service = await shared.AnotherAsync([]);
        service.Services.GetRequiredService<Troubles>().Raise(new Trouble("store:orders", TroubleLevel.Degraded, "The store refuses an order", "The store said: relation \"orders\" is owned by anna."));
        using var nobody = service.Client(null);
        using var reader = service.Client(HostedService.ReadKey);
        using var publisher = service.Client(HostedService.PublishKey);
        async Task<JsonElement> AskAsync(HttpClient client, string? host = null, string? forwarded = null)
        {
            using var request = new HttpRequestMessage(HttpMethod.Get, "/health/ready");
            request.Headers.Host = host;
            if (forwarded is not null)
            {
                request.Headers.Add("X-Forwarded-For", forwarded);
            }
            using var response = await client.SendAsync(request, Now);
            return await HostedService.ReadAsync(response);
        }

        await Eventually.HoldsAsync(async () =>
        {
            var health = await AskAsync(reader);
            Assert.Contains("owned by anna", health.GetRawText(), StringComparison.Ordinal);
            Assert.Equal("degraded", health.GetProperty("status").GetString());
        });
        // On this machine, by a name that can only be this machine's.
        Assert.Contains("owned by anna", (await AskAsync(nobody)).GetRawText(), StringComparison.Ordinal);
        Assert.Contains("owned by anna", (await AskAsync(reader, "orders.example.com")).GetRawText(), StringComparison.Ordinal);

        // Through a proxy, or a page whose name leads here.
        foreach (var stranger in new[] { await AskAsync(nobody, "orders.example.com"), await AskAsync(nobody, null, "203.0.113.7"), await AskAsync(publisher, "orders.example.com") })
        {
            Assert.DoesNotContain("anna", stranger.GetRawText(), StringComparison.Ordinal);
            // Queues that are not there yet may be among the causes.
            var cause = Assert.Single(stranger.GetProperty("causes").EnumerateArray(), cause => cause.GetString()!.StartsWith("store:", StringComparison.Ordinal));
            Assert.StartsWith("store:orders: The store refuses an order (since ", cause.GetString(), StringComparison.Ordinal);
            Assert.Equal((true, "degraded"), (stranger.GetProperty("degraded").GetBoolean(), stranger.GetProperty("status").GetString()));
        }
    }

    [Fact]
    public async Task A_page_whose_name_leads_here_reads_no_metrics()
    {
        using var nobody = shared.Service.Client(null);
        using var reader = shared.Service.Client(HostedService.ReadKey);
        async Task<HttpStatusCode> AskAsync(HttpClient client, string? host)
        {
            using var request = new HttpRequestMessage(HttpMethod.Get, "/metrics");
            request.Headers.Host = host;
            using var response = await client.SendAsync(request, Now);
            return response.StatusCode;
        }

        Assert.Equal(HttpStatusCode.Unauthorized, await AskAsync(nobody, "rebound.example.com"));
        Assert.Equal(HttpStatusCode.OK, await AskAsync(reader, "rebound.example.com"));
        foreach (var host in new[] { null, "localhost:8080", "10.1.2.3:8080", "[::1]:8080", "orders:8080", "orders.shop.svc.cluster.local" })
        {
            Assert.Equal(HttpStatusCode.OK, await AskAsync(nobody, host));
        }
    }

    [Theory]
    [InlineData("/", "text/html")]
    [InlineData("/css/theme.css", "text/css")]
    [InlineData("/js/main.js", "text/javascript")]
    [InlineData("/icon.svg", "image/svg+xml")]
    public async Task Every_text_of_the_page_says_in_which_characters_it_is(string path, string type)
    {
        using var nobody = shared.Service.Client(null);

        using var response = await nobody.GetAsync(new Uri(path, UriKind.Relative), Now);

        Assert.Equal((type, "utf-8"), (response.Content.Headers.ContentType!.MediaType, response.Content.Headers.ContentType.CharSet));
    }

    [Theory]
    [InlineData("Bearer wrong-key-0123456789-0123456789-0123")]
    [InlineData("Bearer")]
    [InlineData("Basic YTpi")]
    [InlineData("Bearer READ-KEY-0123456789-0123456789-0123456")]
    public async Task A_key_that_is_wrong_in_any_way_is_401(string authorization)
    {
        using var nobody = shared.Service.Client(null);
        nobody.DefaultRequestHeaders.TryAddWithoutValidation("Authorization", authorization);

        using var response = await nobody.GetAsync(new Uri("/api/orders", UriKind.Relative), Now);

        Assert.Equal(HttpStatusCode.Unauthorized, response.StatusCode);
    }

    [Theory]
    [InlineData("key")]
    [InlineData("api_key")]
    [InlineData("access_token")]
    public async Task A_key_in_the_address_is_never_accepted(string parameter)
    {
        using var nobody = shared.Service.Client(null);

        using var response = await nobody.GetAsync(new Uri($"/api/orders?{parameter}={HostedService.ReadKey}", UriKind.Relative), Now);

        Assert.Equal(HttpStatusCode.Unauthorized, response.StatusCode);
    }

    [Theory]
    [InlineData(HostedService.ReadKey, "POST", "/api/orders", "publish")]
    [InlineData(HostedService.PublishKey, "GET", "/api/orders", "read")]
    [InlineData(HostedService.PublishKey, "GET", "/api/dead-letters", "read")]
    [InlineData(HostedService.ReadKey, "POST", "/api/dead-letters/1/replay", "operate")]
    [InlineData(HostedService.ReadKey, "POST", "/api/dead-letters/1/discard", "operate")]
    [InlineData(HostedService.OperateKey, "POST", "/api/orders/A-1/cancel", "publish")]
    public async Task A_key_without_the_scope_is_403_and_says_which_is_missing(string key, string method, string address, string missing)
    {
        using var client = shared.Service.Client(key);
        using var request = new HttpRequestMessage(new HttpMethod(method), address) { Content = method == "POST" ? HostedService.Json("{}") : null };
        using var response = await client.SendAsync(request, Now);

        Assert.Equal(HttpStatusCode.Forbidden, response.StatusCode);
        var problem = await HostedService.ReadAsync(response);
        Assert.Equal("forbidden", problem.GetProperty("code").GetString());
        Assert.Equal($"The key lacks the scope '{missing}'.", problem.GetProperty("detail").GetString());
    }

    [Fact]
    public async Task A_browser_signs_in_and_acts_only_with_its_token_and_from_this_site()
    {
        using var browser = shared.Service.Client(null);
        using var signIn = await browser.PostAsJsonAsync("/api/session", new { key = HostedService.AdminKey }, Now);
        Assert.Equal(HttpStatusCode.OK, signIn.StatusCode);
        var cookie = signIn.Headers.GetValues("Set-Cookie").Single();
        Assert.Contains("httponly", cookie, StringComparison.OrdinalIgnoreCase);
        Assert.Contains("samesite=strict", cookie, StringComparison.OrdinalIgnoreCase);
        Assert.DoesNotContain(HostedService.AdminKey, cookie, StringComparison.Ordinal);
        var session = await HostedService.ReadAsync(signIn);
        var token = session.GetProperty("csrfToken").GetString()!;
        var crumb = cookie.Split(';')[0];

        async Task<HttpStatusCode> SendAsync(HttpMethod method, string address, string? site, string? csrf)
        {
            using var request = new HttpRequestMessage(method, address);
            request.Headers.Add("Cookie", crumb);
            if (site is not null)
            {
                request.Headers.Add("Sec-Fetch-Site", site);
            }
            if (csrf is not null)
            {
                request.Headers.Add("X-CSRF-Token", csrf);
            }
            using var response = await browser.SendAsync(request, Now);
            return response.StatusCode;
        }

        Assert.Equal(HttpStatusCode.OK, await SendAsync(HttpMethod.Get, "/api/session", "same-origin", null));
        // 404 is the endpoint's own answer: the request got through.
        Assert.Equal(HttpStatusCode.NotFound, await SendAsync(HttpMethod.Post, "/api/dead-letters/999999/replay", "same-origin", token));
        Assert.Equal(HttpStatusCode.Forbidden, await SendAsync(HttpMethod.Post, "/api/dead-letters/999999/replay", "same-origin", null));
        Assert.Equal(HttpStatusCode.Forbidden, await SendAsync(HttpMethod.Post, "/api/dead-letters/999999/replay", "same-origin", "forged"));
        Assert.Equal(HttpStatusCode.Forbidden, await SendAsync(HttpMethod.Post, "/api/dead-letters/999999/replay", "cross-site", token));
        Assert.Equal(HttpStatusCode.Forbidden, await SendAsync(HttpMethod.Post, "/api/dead-letters/999999/replay", "same-site", token));
        crumb = crumb[..^2] + "xx";
        Assert.Equal(HttpStatusCode.Unauthorized, await SendAsync(HttpMethod.Get, "/api/session", "same-origin", null));
    }

    [Theory]
    [InlineData("cross-site")]
    [InlineData("same-site")]
    public async Task Another_site_can_not_sign_a_browser_in(string site)
    {
        using var browser = shared.Service.Client(null);
        browser.DefaultRequestHeaders.Add("Sec-Fetch-Site", site);

        using var response = await browser.PostAsJsonAsync("/api/session", new { key = HostedService.AdminKey }, Now);

        Assert.Equal(HttpStatusCode.Forbidden, response.StatusCode);
    }

    [Theory]
    [InlineData("text/plain")]
    [InlineData("application/x-www-form-urlencoded")]
    [InlineData("application/xml")]
    public async Task Bodies_that_are_not_json_are_415(string mediaType)
    {
        using var admin = shared.Service.Client();
        using var content = new StringContent(HostedService.Order("A-1"), Encoding.UTF8, mediaType);

        using var order = await admin.PostAsync(new Uri("/api/orders", UriKind.Relative), content, Now);

        Assert.Equal(HttpStatusCode.UnsupportedMediaType, order.StatusCode);
    }

    [Fact]
    public async Task An_accept_header_that_allows_no_json_is_406()
    {
        using var admin = shared.Service.Client();
        admin.DefaultRequestHeaders.Add("Accept", "text/xml");

        using var response = await admin.GetAsync(new Uri("/api/orders", UriKind.Relative), Now);

        Assert.Equal(HttpStatusCode.NotAcceptable, response.StatusCode);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_body_over_1_MiB_is_413_whether_its_length_is_told_or_not(bool chunked)
    {
        using var admin = shared.Service.Client();
        using var request = new HttpRequestMessage(HttpMethod.Post, "/api/orders") { Content = HostedService.Json(new string(' ', (1024 * 1024) + 1)) };
        request.Headers.TransferEncodingChunked = chunked;
        request.Headers.ExpectContinue = true;

        using var response = await admin.SendAsync(request, Now);

        Assert.Equal(HttpStatusCode.RequestEntityTooLarge, response.StatusCode);
        Assert.Equal("body_too_large", (await HostedService.ReadAsync(response)).GetProperty("code").GetString());
    }

    [Theory]
    [InlineData("PUT", "/api/orders", HttpStatusCode.MethodNotAllowed)]
    [InlineData("TRACE", "/api/orders", HttpStatusCode.MethodNotAllowed)]
    [InlineData("DELETE", "/api/dead-letters/1", HttpStatusCode.MethodNotAllowed)]
    [InlineData("GET", "/api/nothing/here", HttpStatusCode.NotFound)]
    public async Task What_is_not_there_is_a_problem_document(string method, string address, HttpStatusCode status)
    {
        using var admin = shared.Service.Client();
        using var request = new HttpRequestMessage(new HttpMethod(method), address);
        request.Headers.Add("X-HTTP-Method-Override", "GET");
        using var response = await admin.SendAsync(request, Now);

        Assert.Equal(status, response.StatusCode);
        Assert.Equal("application/problem+json", response.Content.Headers.ContentType?.MediaType);
    }

    [Theory]
    [InlineData("/", null)]
    [InlineData("/health/live", null)]
    [InlineData("/api/orders", null)]
    [InlineData("/api/orders", HostedService.ReadKey)]
    [InlineData("/nothing", HostedService.ReadKey)]
    public async Task Every_answer_protects_browsers(string address, string? key)
    {
        using var client = shared.Service.Client(key);

        using var response = await client.GetAsync(new Uri(address, UriKind.Relative), Now);

        Assert.Equal("nosniff", response.Headers.GetValues("X-Content-Type-Options").Single());
        var policy = response.Headers.GetValues("Content-Security-Policy").Single();
        Assert.Contains("default-src 'none'", policy, StringComparison.Ordinal);
        Assert.DoesNotContain("unsafe", policy, StringComparison.Ordinal);
        Assert.Contains("frame-ancestors 'none'", policy, StringComparison.Ordinal);
        Assert.False(response.Headers.Contains("Server"));
    }

    [Fact]
    public async Task A_header_and_a_request_line_that_are_too_long_are_refused()
    {
        using var admin = shared.Service.Client();
        using var line = await admin.GetAsync(new Uri("/api/orders?customerId=" + new string('a', 9 * 1024), UriKind.Relative), Now);
        using var request = new HttpRequestMessage(HttpMethod.Get, "/api/orders");
        request.Headers.Add("X-Padding", new string('a', 33 * 1024));
        using var header = await admin.SendAsync(request, Now);

        Assert.Equal(HttpStatusCode.RequestUriTooLong, line.StatusCode);
        Assert.Equal(HttpStatusCode.RequestHeaderFieldsTooLarge, header.StatusCode);
    }
}

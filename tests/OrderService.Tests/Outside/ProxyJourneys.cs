using System.Globalization;
using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>Behind nginx: by name, over TLS, under a path; and who is who when everybody comes through it.</summary>
public sealed class ProxyJourneys(RabbitMqContainerFixture broker)
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    /// <summary>As docs/operations.md has it.</summary>
    private const string Forwarded = """
        proxy_http_version 1.1;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        """;

    [Fact]
    public async Task A_trusted_proxy_tells_scheme_host_path_and_caller_and_nobody_else_does()
    {
        await using var service = await ReleaseService.StartAsync(await broker.AddVirtualHostAsync(), settings: new()
        {
            ["Api__TrustedProxies__0"] = "127.0.0.1",
            ["Api__RateLimit__Anonymous"] = "2",
            ["Api__RateLimit__SignIn"] = "1",
        });
        await using var nginx = await Nginx.StartAsync($$"""
            location / { {{Forwarded}} proxy_pass {{service.Url}}; }
            location /plain/ { proxy_pass {{service.Url}}/; }
            location /orders/ { {{Forwarded}} proxy_set_header X-Forwarded-Prefix /orders; proxy_pass {{service.Url}}/; }
            location /kept { {{Forwarded}} proxy_set_header X-Forwarded-Prefix /kept; proxy_pass {{service.Url}}; }
            """);
        var name = string.Create(CultureInfo.InvariantCulture, $"orders.test:{nginx.Port}");
        var tlsName = string.Create(CultureInfo.InvariantCulture, $"orders.test:{nginx.TlsPort}");
        using var anna = Nginx.ClientFrom("127.0.0.2", $"http://{name}");
        using var annaTls = Nginx.ClientFrom("127.0.0.2", $"https://{tlsName}");
        using var stranger = Nginx.ClientFrom("127.0.0.3", $"http://{name}");
        using var straight = Nginx.ClientFrom("127.0.0.4", service.Url);

        // nginx's own Host: refused with a sentence that says what to set.
        using (var refused = await SignInAsync(anna, "/plain/api/session", origin: $"http://{name}"))
        {
            Assert.Equal(HttpStatusCode.Forbidden, refused.StatusCode);
            var detail = (await refused.Content.ReadFromJsonAsync<JsonElement>(Now)).GetProperty("detail").GetString()!;
            Assert.Contains("proxy_set_header Host", detail, StringComparison.Ordinal);
            Assert.Contains("Api:PublicUrl", detail, StringComparison.Ordinal);
        }
        // The same with the header: in.
        using (var signedIn = await SignInAsync(anna, "/api/session", origin: $"http://{name}"))
        {
            Assert.True(signedIn.StatusCode == HttpStatusCode.OK, await signedIn.Content.ReadAsStringAsync(Now));
            Assert.StartsWith("orders-session=", Cookie(signedIn), StringComparison.Ordinal);
        }

        // Over TLS.
        using (var signedIn = await SignInAsync(annaTls, "/api/session", origin: $"https://{tlsName}"))
        {
            Assert.True(signedIn.StatusCode == HttpStatusCode.OK, await signedIn.Content.ReadAsStringAsync(Now));
            Assert.StartsWith("__Host-orders-session=", Cookie(signedIn), StringComparison.Ordinal);
            Assert.Contains("; secure", Cookie(signedIn), StringComparison.OrdinalIgnoreCase);
            Assert.Equal("max-age=31536000; includeSubDomains", signedIn.Headers.GetValues("Strict-Transport-Security").Single());
            using var signOut = new HttpRequestMessage(HttpMethod.Delete, "/api/session");
            signOut.Headers.Add("Cookie", Cookie(signedIn).Split(';')[0]);
            signOut.Headers.Add("Origin", $"https://{tlsName}");
            signOut.Headers.Add("X-CSRF-Token", (await signedIn.Content.ReadFromJsonAsync<JsonElement>(Now)).GetProperty("csrfToken").GetString());
            using var signedOut = await annaTls.SendAsync(signOut, Now);
            Assert.Equal((HttpStatusCode.NoContent, "\"cache\""), (signedOut.StatusCode, Assert.Single(signedOut.Headers.GetValues("Clear-Site-Data"))));
        }
        // Who is not a trusted proxy may claim what it likes.
        using (var forged = await SignInAsync(straight, "/api/session", origin: null, ("X-Forwarded-Proto", "https"), ("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Prefix", "/evil")))
        {
            Assert.StartsWith("orders-session=", Cookie(forged), StringComparison.Ordinal);
            Assert.Contains("path=/;", Cookie(forged), StringComparison.OrdinalIgnoreCase);
        }
        var signIns = (await service.AllAsync("/api/audit?action=sign-in")).Select(entry => entry.GetProperty("address").GetString()).ToList();
        Assert.Equal(["127.0.0.4", "127.0.0.2", "127.0.0.2"], signIns);

        // Under a path, cut off by the proxy or not.
        foreach (var path in new[] { "/orders", "/kept" })
        {
            using var signedIn = await SignInAsync(annaTls, $"{path}/api/session", origin: $"https://{tlsName}");
            Assert.True(signedIn.StatusCode == HttpStatusCode.OK, await signedIn.Content.ReadAsStringAsync(Now));
            Assert.StartsWith("__Secure-orders-session=", Cookie(signedIn), StringComparison.Ordinal);
            Assert.Contains($"path={path}/;", Cookie(signedIn), StringComparison.OrdinalIgnoreCase);
            using var page = await anna.GetAsync(new Uri($"{path}/", UriKind.Relative), Now);
            Assert.Equal("text/html", page.Content.Headers.ContentType?.MediaType);
            using var ordered = await PlaceAsync(anna, path);
            Assert.Equal($"{path}/api/orders/P-{path[1..]}", ordered.Headers.Location?.OriginalString);
            using var document = await WithKeyAsync(anna, HttpMethod.Get, $"{path}/openapi/v1.json");
            var servers = (await document.Content.ReadFromJsonAsync<JsonElement>(Now)).GetProperty("servers");
            Assert.Equal(path, servers[0].GetProperty("url").GetString());
        }
        using (var folder = await anna.GetAsync(new Uri("/kept", UriKind.Relative), Now))
        {
            Assert.Equal("/kept/", folder.Headers.Location?.OriginalString);
        }

        // A stranger uses up its own allowance only, and never that of a right key.
        await UntilAsync(HttpStatusCode.TooManyRequests, () => stranger.GetAsync(new Uri("/api/orders", UriKind.Relative), Now));
        await UntilAsync(HttpStatusCode.TooManyRequests, () => SignInAsync(stranger, "/api/session", $"http://{name}", key: "guess"));
        using (var allowed = await SignInAsync(stranger, "/api/session", $"http://{name}"))
        {
            Assert.Equal(HttpStatusCode.OK, allowed.StatusCode);
        }
        using (var wrong = await SignInAsync(anna, "/api/session", $"http://{name}", key: "guess"))
        {
            Assert.Equal(HttpStatusCode.Unauthorized, wrong.StatusCode);
        }
        using (var nobody = await anna.GetAsync(new Uri("/api/orders", UriKind.Relative), Now))
        {
            Assert.Equal(HttpStatusCode.Unauthorized, nobody.StatusCode);
        }

        // The settings alone, with a proxy that says nothing.
        Assert.Equal(0, await service.StopAsync());
        service.Settings["Api__PublicUrl"] = $"https://{tlsName}/plain/";
        await service.StartAgainAsync();
        using (var signedIn = await SignInAsync(annaTls, "/plain/api/session", origin: $"https://{tlsName}"))
        {
            Assert.True(signedIn.StatusCode == HttpStatusCode.OK, await signedIn.Content.ReadAsStringAsync(Now));
            Assert.StartsWith("__Secure-orders-session=", Cookie(signedIn), StringComparison.Ordinal);
            Assert.Contains("path=/plain/;", Cookie(signedIn), StringComparison.OrdinalIgnoreCase);
        }
        using (var kept = await WithKeyAsync(straight, HttpMethod.Get, "/plain/api/orders"))
        {
            Assert.Equal(HttpStatusCode.OK, kept.StatusCode);
        }
    }

    [Fact]
    public async Task A_setting_about_proxies_that_cannot_be_meant_is_named()
    {
        await using var service = await ReleaseService.StartAsync("amqp://127.0.0.1:1/", waitUntilReady: false, settings: new()
        {
            ["Api__TrustedProxies__0"] = "10.0.0.7",
            ["Api__TrustedProxies__1"] = "proxy.example.com",
            ["Api__PathBase"] = "orders/",
            ["Api__PublicUrl"] = "shop.example.com",
        });
        Assert.Equal(78, await service.WaitForExitAsync());
        await Eventually.TrueAsync(() => service.Output.Contains("Api:TrustedProxies:1:", StringComparison.Ordinal));
        Assert.Contains("Api:PathBase:", service.Output, StringComparison.Ordinal);
        Assert.Contains("Api:PublicUrl:", service.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("Api:TrustedProxies:0:", service.Output, StringComparison.Ordinal);
    }

    private static string Cookie(HttpResponseMessage response) => response.Headers.TryGetValues("Set-Cookie", out var cookies) ? string.Join('\n', cookies) + ";" : "no cookie";

    private static Task<HttpResponseMessage> SignInAsync(HttpClient client, string path, string? origin, params (string Name, string Value)[] headers) =>
        SignInAsync(client, path, origin, ReleaseService.ApiKey, headers);

    private static async Task<HttpResponseMessage> SignInAsync(HttpClient client, string path, string? origin, string key, params (string Name, string Value)[] headers)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, path) { Content = JsonContent.Create(new { key }) };
        if (origin is not null)
        {
            request.Headers.Add("Origin", origin);
        }
        foreach (var (name, value) in headers)
        {
            request.Headers.Add(name, value);
        }
        return await client.SendAsync(request, Now);
    }

    private static async Task<HttpResponseMessage> WithKeyAsync(HttpClient client, HttpMethod method, string path, object? body = null)
    {
        using var request = new HttpRequestMessage(method, path) { Content = body is null ? null : JsonContent.Create(body) };
        request.Headers.Add("X-Api-Key", ReleaseService.ApiKey);
        return await client.SendAsync(request, Now);
    }

    private static Task<HttpResponseMessage> PlaceAsync(HttpClient client, string path) => WithKeyAsync(
        client, HttpMethod.Post, $"{path}/api/orders",
        new { orderId = $"P-{path[1..]}", customerId = "C-7", currency = "EUR", lines = new[] { new { sku = "KB-01", quantity = 1, unitPrice = 49.90m } } });

    private static async Task UntilAsync(HttpStatusCode status, Func<Task<HttpResponseMessage>> send)
    {
        for (var count = 0; count < 200; count++)
        {
            using var response = await send();
            if (response.StatusCode == status)
            {
                return;
            }
        }
        Assert.Fail($"{status} was never answered.");
    }
}

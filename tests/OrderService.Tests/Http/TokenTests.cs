using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using OrderService.Admin;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Http;

/// <summary>Tokens of an OpenID Connect provider, here one on loopback.</summary>
public sealed class TokenTests(RabbitMqContainerFixture broker)
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Only_a_token_that_the_provider_signed_for_this_service_gets_in()
    {
        await using var provider = await TokenProvider.StartAsync();
        await using var service = await HostedService.StartAsync(await broker.AddVirtualHostAsync(), new()
        {
            ["Api:Jwt:Authority"] = provider.Issuer,
            ["Api:Jwt:Audience"] = "orders",
            ["Api:RateLimit:Anonymous"] = "1000",
        });
        var now = TimeProvider.System.GetUtcNow().ToUnixTimeSeconds();
        Dictionary<string, object> Claims() => new() { ["iss"] = provider.Issuer, ["aud"] = "orders", ["sub"] = "u-1", ["preferred_username"] = "ben", ["scope"] = "openid read", ["exp"] = now + 300 };
        async Task<HttpStatusCode> TryAsync(string token, string address = "/api/orders")
        {
            using var client = service.Client(token);
            using var response = await client.GetAsync(new Uri(address, UriKind.Relative), Now);
            return response.StatusCode;
        }
        Dictionary<string, object> With(string claim, object value)
        {
            var claims = Claims();
            claims[claim] = value;
            return claims;
        }

        Assert.Equal(HttpStatusCode.OK, await TryAsync(provider.Sign(Claims())));
        Assert.Equal(HttpStatusCode.Forbidden, await TryAsync(provider.Sign(With("scope", "openid"))));
        Assert.Equal(HttpStatusCode.Unauthorized, await TryAsync(provider.Sign(With("aud", "another-service"))));
        Assert.Equal(HttpStatusCode.Unauthorized, await TryAsync(provider.Sign(With("iss", "https://evil.example"))));
        Assert.Equal(HttpStatusCode.Unauthorized, await TryAsync(provider.Sign(With("exp", now - 31))));
        Assert.Equal(HttpStatusCode.Unauthorized, await TryAsync(TokenProvider.Unsigned(Claims())));
        Assert.Equal(HttpStatusCode.Unauthorized, await TryAsync(provider.SignWithPublicKey(Claims())));
        Assert.Equal(HttpStatusCode.Unauthorized, await TryAsync(TokenProvider.SignWithForeignKey(Claims())));
        Assert.Equal(HttpStatusCode.OK, await TryAsync(HostedService.ReadKey));
    }

    [Fact]
    public async Task Only_a_token_for_access_gets_in()
    {
        await using var provider = await TokenProvider.StartAsync();
        await using var service = await StartAsync(provider);
        Dictionary<string, object> With(string claim, object value) => new(Claims(provider)) { [claim] = value };
        async Task<HttpStatusCode> TryAsync(string token)
        {
            using var client = service.Client(token);
            using var response = await client.GetAsync(new Uri("/api/orders", UriKind.Relative), Now);
            return response.StatusCode;
        }
        var withoutSubject = Claims(provider);
        withoutSubject.Remove("sub");

        Assert.Equal(HttpStatusCode.OK, await TryAsync(provider.SignAs("at+jwt", Claims(provider))));
        Assert.Equal(HttpStatusCode.OK, await TryAsync(provider.SignAs("application/at+jwt", Claims(provider))));
        Assert.Equal(HttpStatusCode.OK, await TryAsync(provider.SignAs("JWT", Claims(provider))));
        Assert.Equal(HttpStatusCode.OK, await TryAsync(provider.SignAs(null, Claims(provider))));
        Assert.Equal(HttpStatusCode.Unauthorized, await TryAsync(provider.SignAs("logout+jwt", Claims(provider))));
        Assert.Equal(HttpStatusCode.Unauthorized, await TryAsync(provider.SignAs("dpop+jwt", Claims(provider))));
        Assert.Equal(HttpStatusCode.Unauthorized, await TryAsync(provider.SignAs("JWT", Claims(provider), ["zzz"])));
        Assert.Equal(HttpStatusCode.Unauthorized, await TryAsync(provider.SignAs("JWT", With("nonce", "n-1"))));
        Assert.Equal(HttpStatusCode.Unauthorized, await TryAsync(provider.SignAs("JWT", With("at_hash", "h-1"))));
        Assert.Equal(HttpStatusCode.Unauthorized, await TryAsync(provider.SignAs("JWT", withoutSubject)));
    }

    [Fact]
    public async Task The_types_of_tokens_and_what_stands_before_a_scope_are_settings()
    {
        await using var provider = await TokenProvider.StartAsync();
        await using var service = await StartAsync(provider, new() { ["Api:Jwt:TokenTypes:0"] = "at+jwt", ["Api:Jwt:ScopePrefix"] = "orders:" });
        async Task<HttpStatusCode> TryAsync(string type, string scope)
        {
            using var client = service.Client(provider.SignAs(type, new(Claims(provider)) { ["scope"] = scope }));
            using var response = await client.GetAsync(new Uri("/api/orders", UriKind.Relative), Now);
            return response.StatusCode;
        }

        Assert.Equal(HttpStatusCode.OK, await TryAsync("at+jwt", "openid orders:read"));
        Assert.Equal(HttpStatusCode.Forbidden, await TryAsync("at+jwt", "openid read"));
        Assert.Equal(HttpStatusCode.Unauthorized, await TryAsync("JWT", "orders:read"));
    }

    [Fact]
    public async Task A_short_key_of_the_provider_and_an_algorithm_that_the_settings_do_not_name_let_nobody_in()
    {
        // The library itself is content with 1,024 bits.
        await using var weak = await TokenProvider.StartAsync(bits: 1024);
        await using var provider = await TokenProvider.StartAsync();
        await using var open = await StartAsync(weak);
        await using var strict = await StartAsync(provider, new() { ["Api:Jwt:Algorithms:0"] = "PS256", ["Api:Jwt:Algorithms:1"] = "ES256" });
        await using var strong = await StartAsync(provider, new() { ["Api:Jwt:MinRsaBits"] = "3072" });

        Assert.Equal(HttpStatusCode.Unauthorized, await TryAsync(open, weak.Sign(Claims(weak))));
        Assert.Equal(HttpStatusCode.Unauthorized, await TryAsync(strict, provider.Sign(Claims(provider))));
        Assert.Equal(HttpStatusCode.OK, await TryAsync(strict, provider.SignPss(Claims(provider))));
        Assert.Equal(HttpStatusCode.Unauthorized, await TryAsync(strong, provider.SignPss(Claims(provider))));
    }

    [Fact]
    public async Task The_keys_of_a_provider_are_not_fetched_from_where_a_redirect_leads()
    {
        await using var provider = await TokenProvider.StartAsync(redirects: true);
        await using var service = await StartAsync(provider);

        Assert.Equal(HttpStatusCode.Unauthorized, await TryAsync(service, provider.Sign(Claims(provider))));
    }

    private static async Task<HttpStatusCode> TryAsync(HostedService service, string token)
    {
        using var client = service.Client(token);
        using var response = await client.GetAsync(new Uri("/api/orders", UriKind.Relative), Now);
        return response.StatusCode;
    }

    [Fact]
    public async Task Nobodys_token_passes_for_somebodys_key()
    {
        await using var provider = await TokenProvider.StartAsync();
        await using var service = await StartAsync(provider);
        using var key = service.Client(HostedService.AdminKey);
        var name = (await ReadAsync(key, "/api/session")).GetProperty("name").GetString()!;
        var claims = new Dictionary<string, object>(Claims(provider)) { ["preferred_username"] = $"{name}\r\n\u202e", ["scope"] = "publish operate read" };
        using var token = service.Client(provider.Sign(claims));

        using var first = await PlaceAsync(key);
        using var second = await PlaceAsync(token);
        using var test = await token.PostAsJsonAsync("/api/alerts/test", new { channel = "log" }, Now);

        Assert.Equal((HttpStatusCode.Accepted, HttpStatusCode.Accepted, HttpStatusCode.OK), (first.StatusCode, second.StatusCode, test.StatusCode));
        // Each has answers of its own.
        Assert.False(second.Headers.Contains("Idempotency-Replayed"));
        var entry = Assert.Single((await ReadAsync(key, "/api/audit?action=alert.test")).GetProperty("items").EnumerateArray());
        Assert.Equal($"token:{provider.Issuer}#u-1", entry.GetProperty("who").GetString());
        Assert.StartsWith($"token ({name}) until ", entry.GetProperty("right").GetString(), StringComparison.Ordinal);

        static Task<HttpResponseMessage> PlaceAsync(HttpClient client)
        {
            var message = TestMessage.Place("A-1");
            var request = new HttpRequestMessage(HttpMethod.Post, "/api/orders") { Content = new ByteArrayContent(message.Body) { Headers = { ContentType = new("application/json") } } };
            request.Headers.Add("Idempotency-Key", "idem-1");
            return client.SendAsync(request, Now);
        }
    }

    [Fact]
    public void Names_of_tokens_are_told_apart_however_long_they_are()
    {
        var (one, other) = (CallerName.OfToken("https://login.example.com", new string('a', 300) + "1"), CallerName.OfToken("https://login.example.com", new string('a', 300) + "2"));

        Assert.NotEqual(one, other);
        Assert.All([one, other], name => Assert.InRange(name.Length, 1, 128));
        Assert.DoesNotContain('\n', CallerName.OfToken("https://login.example.com", "a\nb"));
        Assert.NotEqual(CallerName.OfToken("https://login.example.com", "ab"), CallerName.OfToken("https://login.example.com", "a\nb"));
    }

    private async Task<HostedService> StartAsync(TokenProvider provider, Dictionary<string, string?>? more = null)
    {
        var settings = new Dictionary<string, string?>(more ?? [])
        {
            ["Api:Jwt:Authority"] = provider.Issuer,
            ["Api:Jwt:Audience"] = "orders",
            ["Api:RateLimit:Anonymous"] = "1000",
        };
        return await HostedService.StartAsync(await broker.AddVirtualHostAsync(), settings);
    }

    private static Dictionary<string, object> Claims(TokenProvider provider) => new()
    {
        ["iss"] = provider.Issuer,
        ["aud"] = "orders",
        ["sub"] = "u-1",
        ["scope"] = "openid read",
        ["exp"] = TimeProvider.System.GetUtcNow().ToUnixTimeSeconds() + 300,
    };

    private static async Task<JsonElement> ReadAsync(HttpClient client, string address) => await client.GetFromJsonAsync<JsonElement>(address, Now);
}

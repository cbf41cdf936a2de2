using System.Net;
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
}

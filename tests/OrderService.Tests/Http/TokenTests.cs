using System.Buffers.Text;
using System.Net;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Http;

/// <summary>Tokens of an OpenID Connect provider, here one on loopback.</summary>
public sealed class TokenTests(RabbitMqContainerFixture broker)
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Only_a_token_that_the_provider_signed_for_this_service_gets_in()
    {
        await using var provider = await Provider.StartAsync();
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
        Assert.Equal(HttpStatusCode.Unauthorized, await TryAsync(Provider.Unsigned(Claims())));
        Assert.Equal(HttpStatusCode.Unauthorized, await TryAsync(provider.SignWithPublicKey(Claims())));
        Assert.Equal(HttpStatusCode.Unauthorized, await TryAsync(Provider.SignWithForeignKey(Claims())));
        Assert.Equal(HttpStatusCode.OK, await TryAsync(HostedService.ReadKey));
    }

    private sealed class Provider : IAsyncDisposable
    {
        private readonly RSA key = RSA.Create(2048);
        private WebApplication app = null!;

        public string Issuer { get; private set; } = "";

        public static async Task<Provider> StartAsync()
        {
            var provider = new Provider();
            var builder = WebApplication.CreateSlimBuilder();
            builder.WebHost.UseUrls("http://127.0.0.1:0");
            builder.Logging.ClearProviders();
            var app = builder.Build();
            app.MapGet("/.well-known/openid-configuration", () => Results.Json(new { issuer = provider.Issuer, jwks_uri = provider.Issuer + "/keys", id_token_signing_alg_values_supported = new[] { "RS256" } }));
            app.MapGet("/keys", () =>
            {
                var parameters = provider.key.ExportParameters(false);
                return Results.Json(new { keys = new[] { new { kty = "RSA", use = "sig", kid = "k1", alg = "RS256", n = Base64Url.EncodeToString(parameters.Modulus), e = Base64Url.EncodeToString(parameters.Exponent) } } });
            });
            await app.StartAsync(Now);
            provider.app = app;
            provider.Issuer = app.Urls.Single();
            return provider;
        }

        public string Sign(Dictionary<string, object> claims) => Sign(claims, "RS256", text => key.SignData(text, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1));

        /// <summary>The old trick: the public key, known to everybody, as the secret of an HMAC.</summary>
        public string SignWithPublicKey(Dictionary<string, object> claims) => Sign(claims, "HS256", text => HMACSHA256.HashData(Encoding.ASCII.GetBytes(key.ExportSubjectPublicKeyInfoPem()), text));

        public static string SignWithForeignKey(Dictionary<string, object> claims)
        {
            using var foreign = RSA.Create(2048);
            return Sign(claims, "RS256", text => foreign.SignData(text, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1));
        }

        public static string Unsigned(Dictionary<string, object> claims) => Sign(claims, "none", _ => []);

        public async ValueTask DisposeAsync()
        {
            await app.DisposeAsync();
            key.Dispose();
        }

        private static string Sign(Dictionary<string, object> claims, string algorithm, Func<byte[], byte[]> sign)
        {
            var text = $"{Base64Url.EncodeToString(JsonSerializer.SerializeToUtf8Bytes(new { alg = algorithm, typ = "JWT", kid = "k1" }))}.{Base64Url.EncodeToString(JsonSerializer.SerializeToUtf8Bytes(claims))}";
            return $"{text}.{Base64Url.EncodeToString(sign(Encoding.ASCII.GetBytes(text)))}";
        }
    }
}

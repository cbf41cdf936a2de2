using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;

namespace OrderService.Tests.Infrastructure;

/// <summary>An OpenID Connect provider on loopback: its document, its key, and tokens that it signed or did not sign.</summary>
public sealed class TokenProvider : IAsyncDisposable
{
    private readonly RSA key;
    private WebApplication app = null!;

    private TokenProvider(int bits) => key = RSA.Create(bits);

    /// <summary>Its address, and by which it calls itself.</summary>
    public string Issuer { get; set; } = "";

    /// <param name="bits">The length of its key.</param>
    /// <param name="redirects">Its keys lie behind a redirect.</param>
    public static async Task<TokenProvider> StartAsync(int bits = 2048, bool redirects = false)
    {
        var provider = new TokenProvider(bits);
        var builder = WebApplication.CreateSlimBuilder();
        builder.WebHost.UseUrls("http://127.0.0.1:0");
        builder.Logging.ClearProviders();
        var app = builder.Build();
        app.MapGet("/.well-known/openid-configuration", () => Results.Json(new { issuer = provider.Issuer, jwks_uri = provider.Issuer + (redirects ? "/moved" : "/keys"), id_token_signing_alg_values_supported = new[] { "RS256" } }));
        app.MapGet("/moved", () => Results.Redirect("/keys"));
        app.MapGet("/keys", () =>
        {
            var parameters = provider.key.ExportParameters(false);
            return Results.Json(new { keys = new[] { new { kty = "RSA", use = "sig", kid = "k1", alg = "RS256", n = Base64Url.EncodeToString(parameters.Modulus), e = Base64Url.EncodeToString(parameters.Exponent) } } });
        });
        await app.StartAsync(TestContext.Current.CancellationToken);
        provider.app = app;
        provider.Issuer = app.Urls.Single();
        return provider;
    }

    public string Sign(Dictionary<string, object> claims) => SignAs("JWT", claims);

    /// <param name="type">The header <c>typ</c>; null for none.</param>
    /// <param name="critical">The header <c>crit</c>; null for none.</param>
    public string SignAs(string? type, Dictionary<string, object> claims, string[]? critical = null) =>
        Sign(claims, "RS256", text => key.SignData(text, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1), type, critical);

    /// <summary>With the newer padding.</summary>
    public string SignPss(Dictionary<string, object> claims) => Sign(claims, "PS256", text => key.SignData(text, HashAlgorithmName.SHA256, RSASignaturePadding.Pss));

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

    private static string Sign(Dictionary<string, object> claims, string algorithm, Func<byte[], byte[]> sign, string? type = "JWT", string[]? critical = null)
    {
        var header = new Dictionary<string, object?> { ["alg"] = algorithm, ["typ"] = type, ["kid"] = "k1", ["crit"] = critical };
        var text = $"{Base64Url.EncodeToString(JsonSerializer.SerializeToUtf8Bytes(header.Where(pair => pair.Value is not null).ToDictionary()))}.{Base64Url.EncodeToString(JsonSerializer.SerializeToUtf8Bytes(claims))}";
        return $"{text}.{Base64Url.EncodeToString(sign(Encoding.ASCII.GetBytes(text)))}";
    }
}

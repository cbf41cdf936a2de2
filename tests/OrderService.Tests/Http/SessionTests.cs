using System.Buffers.Text;
using System.Net;
using System.Net.Http.Json;
using System.Text;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Options;
using Microsoft.Extensions.Time.Testing;
using OrderService.Admin;
using OrderService.Store;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Http;

/// <summary>The cookie that signs a browser in: name of the key, end, nonce and signature, separated by dots.</summary>
public sealed class SessionTests(SharedService shared) : IClassFixture<SharedService>
{
    private const string CookieName = "orders-session";

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_forged_session_is_401_and_a_session_has_no_more_scopes_than_its_key()
    {
        var reporting = await SignInAsync(HostedService.ReadKey);
        var anna = await SignInAsync(HostedService.AdminKey);
        Assert.Equal(HttpStatusCode.OK, await ReadAsync(string.Join('.', reporting)));
        Assert.Equal(HttpStatusCode.OK, await ReadAsync(string.Join('.', anna)));

        string Forge(string? name = null, string? end = null, string? nonce = null, string? signature = null) =>
            string.Join('.', name ?? reporting[0], end ?? reporting[1], nonce ?? reporting[2], signature ?? reporting[3]);
        Dictionary<string, string> forgeries = new()
        {
            ["another key's name"] = Forge(name: anna[0]),
            ["another key's name and signature"] = Forge(name: anna[0], signature: anna[3]),
            ["a key that is not there"] = Forge(name: Encode("nobody")),
            ["a later end"] = Forge(end: "99999999999"),
            ["an end beyond every number"] = Forge(end: new string('9', 40)),
            ["another nonce"] = Forge(nonce: anna[2]),
            ["no signature"] = Forge(signature: ""),
            ["a shorter signature"] = Forge(signature: reporting[3][..^1]),
            ["a longer signature"] = Forge(signature: reporting[3] + "A"),
            ["the session's own text as its signature"] = Forge(signature: Encode(Forge())),
            ["a name that is no base64"] = Forge(name: "***"),
            ["a name that is no UTF-8"] = Forge(name: Base64Url.EncodeToString([0xff, 0xfe])),
            ["the key itself"] = HostedService.AdminKey,
            ["a part too few"] = string.Join('.', reporting[..3]),
            ["a part too many"] = Forge() + ".",
            ["nothing but dots"] = "...",
            ["a very long one"] = Forge(nonce: new string('A', 4000)),
        };
        foreach (var (what, forgery) in forgeries)
        {
            Assert.True(await ReadAsync(forgery) == HttpStatusCode.Unauthorized, what);
        }
        Assert.Equal(HttpStatusCode.OK, await ReadAsync(Forge()));

        using var nobody = shared.Service.Client(null);
        using var discard = new HttpRequestMessage(HttpMethod.Post, "/api/dead-letters/999999/replay");
        discard.Headers.Add("Cookie", $"{CookieName}={Forge()}");
        discard.Headers.Add("Sec-Fetch-Site", "same-origin");
        using var session = await GetAsync(Forge(), "/api/session");
        discard.Headers.Add(BrowserSessions.CsrfHeader, (await HostedService.ReadAsync(session)).GetProperty("csrfToken").GetString());
        using var refused = await nobody.SendAsync(discard, Now);
        Assert.Equal(HttpStatusCode.Forbidden, refused.StatusCode);
        Assert.Equal("The key lacks the scope 'operate'.", (await HostedService.ReadAsync(refused)).GetProperty("detail").GetString());
    }

    [Fact]
    public void A_session_ends_with_its_time_and_with_its_key()
    {
        var clock = new FakeTimeProvider(new DateTimeOffset(2026, 11, 1, 8, 0, 0, TimeSpan.Zero));
        BrowserSessions Sessions(string key, out ApiKeyRing ring)
        {
            var options = Options.Create(new ApiOptions { Keys = [new() { Name = "anna", Key = key, Scopes = ["read"] }], SessionLifetime = TimeSpan.FromHours(1) });
            ring = new ApiKeyRing(options, Options.Create(new StoreOptions()), clock);
            return new BrowserSessions(ring, options, clock);
        }
        var sessions = Sessions(HostedService.AdminKey, out var keys);
        var response = new DefaultHttpContext();
        sessions.SignIn(response, keys.FindByName("anna")!);
        var request = new DefaultHttpContext();
        request.Request.Headers.Cookie = response.Response.Headers.SetCookie.ToString().Split(';')[0];

        clock.Advance(TimeSpan.FromHours(1) - TimeSpan.FromSeconds(1));
        Assert.Equal("anna", sessions.Read(request)?.Key.Name);
        Assert.Null(Sessions(HostedService.ReadKey, out _).Read(request));
        clock.Advance(TimeSpan.FromSeconds(1));
        Assert.Null(sessions.Read(request));
    }

    private static string Encode(string text) => Base64Url.EncodeToString(Encoding.UTF8.GetBytes(text));

    private async Task<string[]> SignInAsync(string key)
    {
        using var browser = shared.Service.Client(null);
        using var signIn = await browser.PostAsJsonAsync("/api/session", new { key }, Now);
        var parts = signIn.Headers.GetValues("Set-Cookie").Single().Split(';')[0].Split('=')[1].Split('.');
        Assert.Equal(4, parts.Length);
        return parts;
    }

    private async Task<HttpStatusCode> ReadAsync(string cookie)
    {
        using var response = await GetAsync(cookie, "/api/orders");
        return response.StatusCode;
    }

    private async Task<HttpResponseMessage> GetAsync(string cookie, string address)
    {
        using var browser = shared.Service.Client(null);
        using var request = new HttpRequestMessage(HttpMethod.Get, address);
        request.Headers.Add("Cookie", $"{CookieName}={cookie}");
        return await browser.SendAsync(request, Now);
    }
}

using System.Buffers.Text;
using System.Net;
using System.Net.Http.Json;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using Microsoft.Extensions.Time.Testing;
using OrderService.Admin;
using OrderService.Store;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Http;

/// <summary>The cookie that signs a browser in: random bytes, of which the store has the hash.</summary>
public sealed class SessionTests(SharedService shared, RabbitMqContainerFixture broker, PostgresContainerFixture postgres) : IClassFixture<SharedService>
{
    private const string CookieName = "orders-session";

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_forged_session_is_401_and_a_session_has_no_more_scopes_than_its_key()
    {
        var reporting = await SignInAsync(HostedService.ReadKey);
        Assert.Equal(HttpStatusCode.OK, await ReadAsync(reporting));

        Dictionary<string, string> forgeries = new()
        {
            ["random bytes"] = Base64Url.EncodeToString(RandomNumberGenerator.GetBytes(32)),
            ["one bit off"] = (reporting[0] == 'A' ? 'B' : 'A') + reporting[1..],
            ["its hash"] = Convert.ToHexStringLower(SHA256.HashData(Encoding.ASCII.GetBytes(reporting))),
            ["its end in other letters"] = reporting[..^1] + "=",
            ["the key itself"] = HostedService.ReadKey,
            ["nothing"] = "",
            ["a very long one"] = new string('A', 4000),
            ["no base64"] = new string('*', 43),
        };
        foreach (var (what, forgery) in forgeries)
        {
            Assert.True(await ReadAsync(forgery) == HttpStatusCode.Unauthorized, what);
        }
        Assert.Equal(HttpStatusCode.OK, await ReadAsync(reporting));

        using var refused = await SendAsync(HttpMethod.Post, "/api/dead-letters/999999/replay", reporting, await CsrfAsync(reporting));
        Assert.Equal(HttpStatusCode.Forbidden, refused.StatusCode);
        Assert.Equal("The key lacks the scope 'operate'.", (await HostedService.ReadAsync(refused)).GetProperty("detail").GetString());
    }

    [Fact]
    public async Task Sessions_are_listed_and_ended_one_by_one_or_by_key()
    {
        var (anna, other, reporting) = (await SignInAsync(HostedService.AdminKey), await SignInAsync(HostedService.AdminKey), await SignInAsync(HostedService.ReadKey));

        // Who may only read sees the sessions of that key, who may operate sees all.
        Assert.Equal(["reporting"], (await ListAsync(reporting)).Select(Key).Distinct());
        var listed = await ListAsync(anna);
        Assert.Superset(new HashSet<string> { "anna", "reporting" }, listed.Select(Key).ToHashSet());
        Assert.Equal("127.0.0.1", Assert.Single(listed, item => item.GetProperty("current").GetBoolean()).GetProperty("address").GetString());
        var own = Assert.Single(await ListAsync(other), item => item.GetProperty("current").GetBoolean()).GetProperty("id").GetString();

        using (var foreign = await SendAsync(HttpMethod.Delete, $"/api/sessions/{own}", reporting, await CsrfAsync(reporting)))
        {
            Assert.Equal(HttpStatusCode.NotFound, foreign.StatusCode);
        }
        using (var withoutToken = await SendAsync(HttpMethod.Delete, $"/api/sessions/{own}", anna))
        {
            Assert.Equal(HttpStatusCode.Forbidden, withoutToken.StatusCode);
        }
        using (var ended = await SendAsync(HttpMethod.Delete, $"/api/sessions/{own}", anna, await CsrfAsync(anna)))
        {
            Assert.Equal(HttpStatusCode.NoContent, ended.StatusCode);
        }
        Assert.Equal((HttpStatusCode.Unauthorized, HttpStatusCode.OK), (await ReadAsync(other), await ReadAsync(anna)));
        using var audit = await SendAsync(HttpMethod.Get, "/api/audit?action=session.end", anna);
        var entry = (await HostedService.ReadAsync(audit)).GetProperty("items")[0];
        Assert.Equal(("key:anna", $"session {own}"), (entry.GetProperty("who").GetString(), entry.GetProperty("subject").GetString()));

        using (var all = await SendAsync(HttpMethod.Delete, "/api/sessions?key=reporting", anna, await CsrfAsync(anna)))
        {
            Assert.InRange((await HostedService.ReadAsync(all)).GetProperty("ended").GetInt32(), 1, 10);
        }
        Assert.Equal((HttpStatusCode.Unauthorized, HttpStatusCode.OK), (await ReadAsync(reporting), await ReadAsync(anna)));

        static string Key(JsonElement item) => item.GetProperty("key").GetString()!;
    }

    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task A_session_ends_with_its_time_with_its_key_and_when_nobody_uses_it(StoreKind kind)
    {
        var clock = new FakeTimeProvider(new DateTimeOffset(2026, 11, 1, 8, 0, 0, TimeSpan.Zero));
        await using var store = await (kind == StoreKind.Sqlite ? TestStore.OpenAsync() : TestStore.OpenAsync(postgres));
        LivingSessions Living(string key, out ApiKeyRing ring)
        {
            var options = Options.Create(new ApiOptions
            {
                Keys = [new() { Name = "anna", Key = key, Scopes = ["read"] }], SessionLifetime = TimeSpan.FromHours(1), SessionIdleTimeout = TimeSpan.FromMinutes(20),
            });
            ring = new ApiKeyRing(options, Options.Create(new StoreOptions()), clock);
            return new LivingSessions(store.Database, ring, options, clock, NullLogger<LivingSessions>.Instance);
        }
        using var living = Living(HostedService.AdminKey, out var keys);
        SessionRow Row(string hash) => new()
        {
            Hash = new string(hash[0], 64), KeyId = keys.FindByName("anna")!.Id, Address = "127.0.0.1",
            StartedAt = Milliseconds(), UsedAt = Milliseconds(), EndsAt = Milliseconds() + (long)TimeSpan.FromHours(1).TotalMilliseconds,
        };
        long Milliseconds() => clock.GetUtcNow().ToUnixTimeMilliseconds();
        var (used, idle) = (Row("a"), Row("b"));
        await living.AddAsync(used);
        await living.AddAsync(idle);

        // Another process, another key, and this one after a restart.
        using var elsewhere = Living(HostedService.AdminKey, out _);
        Assert.NotNull(await elsewhere.FindAsync(used.Hash, Now));
        using var withoutKey = Living(HostedService.ReadKey, out _);
        Assert.Null(await withoutKey.FindAsync(used.Hash, Now));

        for (var minutes = 0; minutes < 45; minutes += 15)
        {
            clock.Advance(TimeSpan.FromMinutes(15));
            living.Use((await living.FindAsync(used.Hash, Now))!);
        }
        await living.ExchangeAsync(Now);
        await elsewhere.ExchangeAsync(Now);
        Assert.All([living, elsewhere], one => Assert.Equal([used.Id], one.List().Select(row => row.Id)));
        Assert.Equal("whose session was idle for too long", elsewhere.WhyEnded(idle.Id));

        clock.Advance(TimeSpan.FromMinutes(15));
        Assert.Null(await living.FindAsync(used.Hash, Now));
        Assert.Equal("whose session expired", living.WhyEnded(used.Id));

        // Rows do not stay for ever.
        clock.Advance(TimeSpan.FromDays(2));
        await living.ExchangeAsync(Now);
        Assert.Empty(await store.QueryAsync<string>("SELECT hash FROM sessions"));
    }

    [Fact]
    public async Task Who_signed_in_a_while_ago_signs_in_again_before_they_end_the_sessions_of_others()
    {
        var clock = new FakeTimeProvider(TimeProvider.System.GetUtcNow());
        await using var service = await HostedService.StartAsync(await broker.AddVirtualHostAsync(), [], services => services
            .AddSingleton(stations => ActivatorUtilities.CreateInstance<LivingSessions>(stations, clock))
            .AddSingleton(stations => ActivatorUtilities.CreateInstance<BrowserSessions>(stations, clock)));
        using var browser = service.Client(null);
        var (anna, csrf) = await SignInAsync(HostedService.AdminKey);
        await SignInAsync(HostedService.ReadKey);
        var list = JsonDocument.Parse(await (await SendAsync(HttpMethod.Get, "/api/sessions")).Content.ReadAsStringAsync(Now)).RootElement.GetProperty("items").EnumerateArray().ToList();
        var other = list.Single(item => item.GetProperty("key").GetString() == "reporting").GetProperty("id").GetString();
        string? own;

        clock.Advance(TimeSpan.FromMinutes(6));
        foreach (var address in new[] { $"/api/sessions/{other}", "/api/sessions?key=reporting", "/api/sessions" })
        {
            using var refused = await SendAsync(HttpMethod.Delete, address);
            Assert.Equal((HttpStatusCode.Forbidden, "sign_in_again"), (refused.StatusCode, (await HostedService.ReadAsync(refused)).GetProperty("code").GetString()));
        }
        using (var key = service.Client(HostedService.OperateKey))
        {
            Assert.Equal(2, (await HostedService.ReadAsync(await key.GetAsync(new Uri("/api/sessions", UriKind.Relative), Now))).GetProperty("items").GetArrayLength());
        }
        (anna, csrf) = await SignInAsync(HostedService.AdminKey);
        using (var ended = await SendAsync(HttpMethod.Delete, $"/api/sessions/{other}"))
        {
            Assert.Equal(HttpStatusCode.NoContent, ended.StatusCode);
        }
        clock.Advance(TimeSpan.FromMinutes(6));
        own = JsonDocument.Parse(await (await SendAsync(HttpMethod.Get, "/api/sessions")).Content.ReadAsStringAsync(Now)).RootElement.GetProperty("items").EnumerateArray()
            .Single(item => item.GetProperty("current").GetBoolean()).GetProperty("id").GetString();
        using var signedOut = await SendAsync(HttpMethod.Delete, $"/api/sessions/{own}");
        Assert.Equal(HttpStatusCode.NoContent, signedOut.StatusCode);

        async Task<(string Cookie, string Csrf)> SignInAsync(string key)
        {
            using var signIn = await browser.PostAsJsonAsync("/api/session", new { key }, Now);
            return (signIn.Headers.GetValues("Set-Cookie").Single().Split(';')[0], (await HostedService.ReadAsync(signIn)).GetProperty("csrfToken").GetString()!);
        }

        async Task<HttpResponseMessage> SendAsync(HttpMethod method, string address)
        {
            using var request = new HttpRequestMessage(method, address);
            request.Headers.Add("Cookie", anna);
            request.Headers.Add(BrowserSessions.CsrfHeader, csrf);
            return await browser.SendAsync(request, Now);
        }
    }

    [Fact]
    public async Task What_a_page_reads_by_itself_is_no_use_of_its_session()
    {
        var clock = new FakeTimeProvider(TimeProvider.System.GetUtcNow());
        await using var service = await HostedService.StartAsync(
            await broker.AddVirtualHostAsync(), new() { ["Api:SessionIdleTimeout"] = "00:20:00" },
            services => services.AddSingleton(stations => ActivatorUtilities.CreateInstance<LivingSessions>(stations, clock)));
        using var browser = service.Client(null);
        using var signIn = await browser.PostAsJsonAsync("/api/session", new { key = HostedService.AdminKey }, Now);
        var cookie = signIn.Headers.GetValues("Set-Cookie").Single().Split(';')[0];
        async Task<HttpStatusCode> ReadAsync(bool background)
        {
            using var request = new HttpRequestMessage(HttpMethod.Get, "/api/orders");
            request.Headers.Add("Cookie", cookie);
            if (background)
            {
                request.Headers.Add(BrowserSessions.BackgroundHeader, "1");
            }
            using var response = await browser.SendAsync(request, Now);
            return response.StatusCode;
        }

        clock.Advance(TimeSpan.FromMinutes(15));
        Assert.Equal(HttpStatusCode.OK, await ReadAsync(background: false));
        clock.Advance(TimeSpan.FromMinutes(15));
        Assert.Equal(HttpStatusCode.OK, await ReadAsync(background: true));
        clock.Advance(TimeSpan.FromMinutes(15));
        Assert.Equal(HttpStatusCode.Unauthorized, await ReadAsync(background: false));
    }

    private async Task<string> SignInAsync(string key)
    {
        using var browser = shared.Service.Client(null);
        using var signIn = await browser.PostAsJsonAsync("/api/session", new { key }, Now);
        return signIn.Headers.GetValues("Set-Cookie").Single().Split(';')[0].Split('=')[1];
    }

    private async Task<string> CsrfAsync(string cookie)
    {
        using var session = await SendAsync(HttpMethod.Get, "/api/session", cookie);
        return (await HostedService.ReadAsync(session)).GetProperty("csrfToken").GetString()!;
    }

    private async Task<List<JsonElement>> ListAsync(string cookie)
    {
        using var answer = await SendAsync(HttpMethod.Get, "/api/sessions", cookie);
        return [.. (await HostedService.ReadAsync(answer)).GetProperty("items").EnumerateArray()];
    }

    private async Task<HttpStatusCode> ReadAsync(string cookie)
    {
        using var response = await SendAsync(HttpMethod.Get, "/api/orders", cookie);
        return response.StatusCode;
    }

    private async Task<HttpResponseMessage> SendAsync(HttpMethod method, string address, string cookie, string? csrf = null)
    {
        using var browser = shared.Service.Client(null);
        using var request = new HttpRequestMessage(method, address);
        request.Headers.Add("Cookie", $"{CookieName}={cookie}");
        if (csrf is not null)
        {
            request.Headers.Add("Sec-Fetch-Site", "same-origin");
            request.Headers.Add(BrowserSessions.CsrfHeader, csrf);
        }
        return await browser.SendAsync(request, Now);
    }
}

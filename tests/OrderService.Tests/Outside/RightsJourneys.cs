using System.Globalization;
using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>What a session or a key let in ends with it.</summary>
public sealed class RightsJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    private const string SecondKey = "second-key-0123456789-0123456789-0123456789";
    private static readonly TimeSpan ThreeTimesTheDeadline = TimeSpan.FromSeconds(90);

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task A_sign_out_ends_the_cookie_its_stream_its_export_and_its_job_and_a_withdrawn_key_its_job(StoreKind store)
    {
        var address = await broker.AddVirtualHostAsync();
        // On PostgreSQL whoever answers is not whoever works, and two answer.
        await using var service = await ReleaseService.StartAsync(address, store, postgres, new()
        {
            ["Roles"] = store == StoreKind.Postgres ? "api" : "api,orders,dead-letters,relay",
            ["Api__Keys__1__Name"] = "second",
            ["Api__Keys__1__Key"] = SecondKey,
            ["Api__Keys__1__Scopes__0"] = "read",
            ["Api__Keys__1__Scopes__1"] = "operate",
        });
        await using var work = store == StoreKind.Postgres ? await BesideAsync("orders,dead-letters,relay") : null;
        await using var another = store == StoreKind.Postgres ? await BesideAsync("api") : null;
        await using var shop = await TestProducer.ConnectAsync(address);
        // Large enough that an export which nobody reads has to wait.
        for (var number = 1; number <= 14; number++)
        {
            await shop.PublishAsync(new TestMessage("order.place", $"large-{number}", Encoding.UTF8.GetBytes(new string('x', 1_000_000))));
        }
        await Eventually.TrueAsync(async () => (await service.AllAsync("/api/dead-letters?status=parked")).Count == 14);

        using var browser = new HttpClient(new SocketsHttpHandler { UseCookies = false }) { BaseAddress = new Uri(service.Url) };
        var (cookie, csrf) = await SignInAsync(browser);
        using var elsewhere = new HttpClient(new SocketsHttpHandler { UseCookies = false }) { BaseAddress = new Uri((another ?? service).Url) };
        using var stream = await SendAsync(elsewhere, HttpMethod.Get, "/api/events/stream", cookie);
        await using var events = await stream.Content.ReadAsStreamAsync(Now);
        Assert.NotEqual(0, await events.ReadAsync(new byte[64], Now));
        using var export = await SendAsync(elsewhere, HttpMethod.Get, "/api/export/dead-letters?format=ndjson", cookie);
        Assert.Equal(HttpStatusCode.OK, export.StatusCode);
        var job = await StartJobAsync(browser, cookie, csrf);

        using (var signedOut = await SendAsync(browser, HttpMethod.Delete, "/api/session", cookie, csrf))
        {
            Assert.Equal(HttpStatusCode.NoContent, signedOut.StatusCode);
        }

        // A copy of the cookie that somebody kept.
        using (var kept = await SendAsync(browser, HttpMethod.Get, "/api/orders", cookie))
        {
            Assert.Equal(HttpStatusCode.Unauthorized, kept.StatusCode);
        }
        await EndsAsync(events);
        await Eventually.TrueAsync(
            () => (another ?? service).Output.Split('\n').Any(line => line.Contains("was cut off", StringComparison.Ordinal) && line.Contains("/api/export/dead-letters", StringComparison.Ordinal)),
            ThreeTimesTheDeadline, "the export was cut off");
        await Assert.ThrowsAnyAsync<Exception>(() => export.Content.ReadAsByteArrayAsync(Now));
        await IsPausedAsync(service, job, "who signed out");
        using (var kept = await SendAsync(elsewhere, HttpMethod.Get, "/api/orders", cookie))
        {
            Assert.Equal(HttpStatusCode.Unauthorized, kept.StatusCode);
        }

        // Whoever may operate goes on with it; then that one's key is taken away.
        using (var second = new HttpRequestMessage(HttpMethod.Post, $"/api/replays/{job}/resume"))
        {
            second.Headers.Add("X-Api-Key", SecondKey);
            using var resumed = await browser.SendAsync(second, Now);
            Assert.Equal(HttpStatusCode.OK, resumed.StatusCode);
        }
        Assert.Equal(0, await service.StopAsync());
        foreach (var setting in service.Settings.Keys.Where(name => name.StartsWith("Api__Keys__1__", StringComparison.Ordinal)).ToList())
        {
            service.Settings.Remove(setting);
        }
        await service.StartAgainAsync();
        using (var kept = await SendAsync(browser, HttpMethod.Get, "/api/orders", cookie))
        {
            Assert.Equal(HttpStatusCode.Unauthorized, kept.StatusCode);
        }
        await IsPausedAsync(service, job, "whose key was taken out of the settings");

        // A job of a key that is in force goes on.
        using (var first = await service.Http.PostAsync(new Uri($"/api/replays/{job}/resume", UriKind.Relative), null, Now))
        {
            Assert.Equal(HttpStatusCode.OK, first.StatusCode);
        }
        var before = (await service.GetAsync($"/api/replays/{job}")).GetProperty("sent").GetInt64();
        await Eventually.TrueAsync(async () => (await service.GetAsync($"/api/replays/{job}")).GetProperty("sent").GetInt64() > before, ThreeTimesTheDeadline);
        var trail = await service.AllAsync("/api/audit");
        Assert.Contains(trail, entry => entry.GetProperty("action").GetString() == "sign-out" && entry.GetProperty("address").GetString() == "127.0.0.1");

        if (work is not null)
        {
            // Nobody who answers is left when the session ends: whoever works pauses the job.
            (cookie, csrf) = await SignInAsync(elsewhere);
            using (var paused = await SendAsync(elsewhere, HttpMethod.Post, $"/api/replays/{job}/pause", cookie, csrf))
            using (var resumed = await SendAsync(elsewhere, HttpMethod.Post, $"/api/replays/{job}/resume", cookie, csrf))
            {
                Assert.Equal((HttpStatusCode.OK, HttpStatusCode.OK), (paused.StatusCode, resumed.StatusCode));
            }
            await service.KillAsync();
            using (var signedOut = await SendAsync(elsewhere, HttpMethod.Delete, "/api/session", cookie, csrf))
            {
                Assert.Equal(HttpStatusCode.NoContent, signedOut.StatusCode);
            }
            await another!.KillAsync();
            await Eventually.TrueAsync(
                () => work.Output.Split('\n').Any(line => line.Contains("was paused", StringComparison.Ordinal) && line.Contains("who signed out", StringComparison.Ordinal)),
                ThreeTimesTheDeadline, "the job was paused");
        }

        Task<ReleaseService> BesideAsync(string roles) => ReleaseService.StartAsync(address, store, settings: new(service.Settings.Where(setting =>
            setting.Key == "Store__ConnectionString" || (roles == "api" && setting.Key.StartsWith("Api__", StringComparison.Ordinal)))) { ["Roles"] = roles });
    }

    private static async Task<(string Cookie, string Csrf)> SignInAsync(HttpClient browser)
    {
        using var signIn = await browser.PostAsJsonAsync("/api/session", new { key = ReleaseService.ApiKey }, Now);
        signIn.EnsureSuccessStatusCode();
        return (signIn.Headers.GetValues("Set-Cookie").Single().Split(';')[0], (await signIn.Content.ReadFromJsonAsync<JsonElement>(Now)).GetProperty("csrfToken").GetString()!);
    }

    private static async Task<HttpResponseMessage> SendAsync(HttpClient browser, HttpMethod method, string path, string cookie, string? csrf = null, object? body = null)
    {
        using var request = new HttpRequestMessage(method, path) { Content = body is null ? null : JsonContent.Create(body) };
        request.Headers.Add("Cookie", cookie);
        if (csrf is not null)
        {
            request.Headers.Add("X-CSRF-Token", csrf);
        }
        return await browser.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Now);
    }

    /// <summary>A job so slow that it outlasts the test.</summary>
    private static async Task<string> StartJobAsync(HttpClient browser, string cookie, string csrf)
    {
        using var started = await SendAsync(
            browser, HttpMethod.Post, "/api/dead-letters/replays", cookie, csrf, new { filter = new { status = "parked" }, mode = "all", ratePerSecond = 0.2, reason = "a test" });
        Assert.Equal(HttpStatusCode.Accepted, started.StatusCode);
        return (await started.Content.ReadFromJsonAsync<JsonElement>(Now)).GetProperty("id").GetInt64().ToString(CultureInfo.InvariantCulture);
    }

    private static Task IsPausedAsync(ReleaseService service, string job, string why) => Eventually.HoldsAsync(
        async () =>
        {
            var now = await service.GetAsync($"/api/replays/{job}");
            Assert.Equal("paused", now.GetProperty("state").GetString());
            Assert.Contains(why, now.GetProperty("stopReason").GetString(), StringComparison.Ordinal);
        },
        ThreeTimesTheDeadline);

    private static async Task EndsAsync(Stream events)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(Now);
        patience.CancelAfter(ThreeTimesTheDeadline);
        try
        {
            var buffer = new byte[1024];
            while (await events.ReadAsync(buffer, patience.Token) > 0)
            {
                // A heartbeat.
            }
        }
        catch (Exception exception) when (exception is IOException or HttpRequestException)
        {
            // Cut off.
        }
    }
}

using System.Net;
using System.Net.Http.Json;
using System.Security.Claims;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;
using OrderService.Admin;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Http;

/// <summary>One key takes from the others neither streams nor time.</summary>
public sealed class CallerLimitTests(SharedService shared) : IClassFixture<SharedService>
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_caller_has_ten_live_streams_and_others_have_theirs()
    {
        using var reader = shared.Service.Client(HostedService.ReadKey);
        using var other = shared.Service.Client(HostedService.OperateKey);
        var streams = new List<HttpResponseMessage>();
        for (var number = 0; number < 10; number++)
        {
            streams.Add(await OpenAsync(reader));
        }

        using var eleventh = await OpenAsync(reader);
        using var ofOther = await OpenAsync(other);

        Assert.All(streams, stream => Assert.Equal(HttpStatusCode.OK, stream.StatusCode));
        Assert.Equal(HttpStatusCode.TooManyRequests, eleventh.StatusCode);
        Assert.NotNull(eleventh.Headers.RetryAfter);
        Assert.Equal(HttpStatusCode.OK, ofOther.StatusCode);
        streams.ForEach(stream => stream.Dispose());
        await Eventually.TrueAsync(async () =>
        {
            using var again = await OpenAsync(reader);
            return again.StatusCode == HttpStatusCode.OK;
        });
    }

    [Fact]
    public async Task Test_alerts_are_few_whoever_asks()
    {
        using var operating = shared.Service.Client(HostedService.OperateKey);
        var statuses = new List<HttpStatusCode>();
        for (var number = 0; number < 12; number++)
        {
            using var answer = await operating.PostAsJsonAsync("/api/alerts/test", new { channel = "log" }, Now);
            statuses.Add(answer.StatusCode);
        }

        Assert.Equal(HttpStatusCode.OK, statuses[0]);
        Assert.Equal(HttpStatusCode.TooManyRequests, statuses[^1]);
    }

    [Fact]
    public async Task Exports_are_two_for_each_caller_and_searches_wait_for_one_another()
    {
        using var limits = new CallerLimits(Options.Create(new ApiOptions()));
        var (anna, ben) = (Of("key:anna"), Of("key:ben"));
        using var first = await limits.Downloads.AcquireAsync(anna, 1, Now);
        using var second = await limits.Downloads.AcquireAsync(anna, 1, Now);
        using var third = await limits.Downloads.AcquireAsync(anna, 1, Now);
        using var ofBen = await limits.Downloads.AcquireAsync(ben, 1, Now);
        Assert.Equal([true, true, false, true], new[] { first, second, third, ofBen }.Select(lease => lease.IsAcquired));

        using var search = await limits.Searches.AcquireAsync(anna, 1, Now);
        var beside = await limits.Searches.AcquireAsync(anna, 1, Now);
        var waiting = limits.Searches.AcquireAsync(anna, 1, Now).AsTask();
        using var searchOfBen = await limits.Searches.AcquireAsync(ben, 1, Now);
        Assert.True(searchOfBen.IsAcquired);
        Assert.False(waiting.IsCompleted);
        beside.Dispose();
        using var then = await waiting;
        Assert.True(then.IsAcquired);
    }

    [Fact]
    public async Task A_sign_out_and_every_answer_have_the_headers_that_protect_a_browser()
    {
        using var browser = shared.Service.Client(null);
        using var signIn = await browser.PostAsJsonAsync("/api/session", new { key = HostedService.AdminKey }, Now);
        Assert.Contains("object-src 'none'", signIn.Headers.GetValues("Content-Security-Policy").Single(), StringComparison.Ordinal);
        using var signOut = new HttpRequestMessage(HttpMethod.Delete, "/api/session");
        signOut.Headers.Add("Cookie", signIn.Headers.GetValues("Set-Cookie").Single().Split(';')[0]);
        signOut.Headers.Add(BrowserSessions.CsrfHeader, (await HostedService.ReadAsync(signIn)).GetProperty("csrfToken").GetString());

        using var signedOut = await browser.SendAsync(signOut, Now);

        Assert.Equal(HttpStatusCode.NoContent, signedOut.StatusCode);
        // A browser complains of it over plain http.
        Assert.False(signedOut.Headers.Contains("Clear-Site-Data"));
    }

    [Fact]
    public async Task A_caller_reads_eight_things_at_once_and_the_next_one_waits_while_others_read_on()
    {
        var limits = shared.Service.Services.GetRequiredService<CallerLimits>();
        var held = new List<System.Threading.RateLimiting.RateLimitLease>();
        for (var number = 0; number < 8; number++)
        {
            held.Add(await limits.Reads.AcquireAsync(Of("key:shop"), 1, Now));
        }
        Assert.All(held, lease => Assert.True(lease.IsAcquired));
        using var other = shared.Service.Client(HostedService.ReadKey);
        using var shop = shared.Service.Client(HostedService.PublishKey);

        // Who it is asks for a read as well.
        var waiting = shop.GetAsync(new Uri("/api/session", UriKind.Relative), Now);
        foreach (var path in new[] { "/api/orders", "/api/events", "/api/audit", "/api/alerts" })
        {
            using var answer = await other.GetAsync(new Uri(path, UriKind.Relative), Now);
            Assert.Equal(HttpStatusCode.OK, answer.StatusCode);
        }
        Assert.False(waiting.IsCompleted);

        held.ForEach(lease => lease.Dispose());
        using var then = await waiting;
        Assert.Equal(HttpStatusCode.OK, then.StatusCode);
    }

    private static DefaultHttpContext Of(string name) => new() { User = new ClaimsPrincipal(new ClaimsIdentity([new Claim(ClaimTypes.Name, name)], "key")) };

    private static Task<HttpResponseMessage> OpenAsync(HttpClient client) =>
        client.GetAsync(new Uri("/api/events/stream", UriKind.Relative), HttpCompletionOption.ResponseHeadersRead, Now);
}

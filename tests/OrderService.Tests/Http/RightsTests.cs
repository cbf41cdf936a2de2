using System.Net;
using System.Net.Http.Json;
using System.Text;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Time.Testing;
using OrderService.Admin;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Http;

/// <summary>What a token or a session let in and its time: streams, exports and replay jobs. The clock of whoever looks at rights is the test's.</summary>
public sealed class RightsTests(RabbitMqContainerFixture broker)
{
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(30);

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_stream_an_export_and_a_job_end_within_30_s_of_their_tokens_and_of_their_sessions_end_and_not_before()
    {
        var start = DateTimeOffset.FromUnixTimeSeconds(TimeProvider.System.GetUtcNow().ToUnixTimeSeconds());
        var clock = new FakeTimeProvider(start);
        var (tokenEnds, sessionEnds) = (TimeSpan.FromMinutes(5), TimeSpan.FromHours(1));
        await using var provider = await TokenProvider.StartAsync();
        var address = await broker.AddVirtualHostAsync();
        await using var service = await HostedService.StartAsync(
            address,
            new() { ["Api:Jwt:Authority"] = provider.Issuer, ["Api:Jwt:Audience"] = "orders", ["Api:SessionLifetime"] = "01:00:00" },
            services => services.AddSingleton(stations => ActivatorUtilities.CreateInstance<RightsWatch>(stations, clock)));
        using var admin = service.Client();
        await using var shop = await TestProducer.ConnectAsync(address);
        // Large enough that an export which nobody reads has to wait.
        await shop.PublishAsync([.. Enumerable.Range(1, 14).Select(number => new TestMessage("order.place", $"large-{number}", Encoding.UTF8.GetBytes(new string('x', 1_000_000))))]);
        await Eventually.TrueAsync(async () => (await LettersAsync()).Length == 14);
        var letters = await LettersAsync();

        using var withToken = service.Client(provider.Sign(new()
        {
            ["iss"] = provider.Issuer, ["aud"] = "orders", ["sub"] = "ben", ["scope"] = "read operate", ["exp"] = (start + tokenEnds).ToUnixTimeSeconds(),
        }));
        using var withSession = service.Client(null);
        using (var signIn = await withSession.PostAsJsonAsync("/api/session", new { key = HostedService.AdminKey }, Now))
        {
            withSession.DefaultRequestHeaders.Add("Cookie", signIn.Headers.GetValues("Set-Cookie").Single().Split(';')[0]);
            withSession.DefaultRequestHeaders.Add(BrowserSessions.CsrfHeader, (await HostedService.ReadAsync(signIn)).GetProperty("csrfToken").GetString());
        }
        await using var ofToken = await UnderWay.BeginAsync(withToken, letters[..7]);
        await using var ofSession = await UnderWay.BeginAsync(withSession, letters[7..]);

        clock.Advance(tokenEnds - TimeSpan.FromSeconds(1));
        await shop.PublishAsync(TestMessage.Place("A-1"));
        await ofToken.HearsAsync("A-1");
        await ofSession.HearsAsync("A-1");
        Assert.Equal("running", await StateAsync(ofToken.Job));

        clock.Advance(TimeSpan.FromSeconds(1) + Deadline);
        await ofToken.EndsAsync();
        await Eventually.TrueAsync(async () => await StateAsync(ofToken.Job) == $"paused: It ran with the right of token:{provider.Issuer}#ben, whose token expired. Whoever may operate can resume it.");
        Assert.Equal("running", await StateAsync(ofSession.Job));

        clock.Advance(sessionEnds - tokenEnds - Deadline - TimeSpan.FromSeconds(1));
        await shop.PublishAsync(TestMessage.Place("A-2"));
        await ofSession.HearsAsync("A-2");
        Assert.Equal("running", await StateAsync(ofSession.Job));

        // The session began a moment after the clock.
        clock.Advance(TimeSpan.FromSeconds(1) + Deadline);
        await ofSession.EndsAsync();
        await Eventually.TrueAsync(async () => await StateAsync(ofSession.Job) == "paused: It ran with the right of anna, whose session expired. Whoever may operate can resume it.");

        async Task<long[]> LettersAsync()
        {
            using var answer = await admin.GetAsync(new Uri("/api/dead-letters?status=parked&limit=100", UriKind.Relative), Now);
            return [.. (await HostedService.ReadAsync(answer)).GetProperty("items").EnumerateArray().Select(letter => letter.GetProperty("id").GetInt64())];
        }

        async Task<string> StateAsync(string job)
        {
            using var answer = await admin.GetAsync(new Uri(job, UriKind.Relative), Now);
            var found = await HostedService.ReadAsync(answer);
            return string.Join(": ", new[] { found.GetProperty("state").GetString(), found.GetProperty("stopReason").GetString() }.OfType<string>());
        }
    }

    /// <summary>What one caller has going: a live stream, an export that is not read, and a replay job so slow that it outlasts the test.</summary>
    private sealed class UnderWay(HttpResponseMessage stream, StreamReader events, HttpResponseMessage export, string job) : IAsyncDisposable
    {
        public string Job => job;

        public static async Task<UnderWay> BeginAsync(HttpClient caller, long[] letters)
        {
            var stream = await OpenAsync(caller, "/api/events/stream");
            var events = new StreamReader(await stream.Content.ReadAsStreamAsync(Now));
            Assert.StartsWith("retry:", await events.ReadLineAsync(Now), StringComparison.Ordinal);
            var export = await OpenAsync(caller, "/api/export/dead-letters?format=ndjson");
            using var started = await caller.PostAsJsonAsync("/api/dead-letters/replays", new { ids = letters, mode = "all", ratePerSecond = 0.2, reason = "a test" }, Now);
            Assert.Equal(HttpStatusCode.Accepted, started.StatusCode);
            return new UnderWay(stream, events, export, started.Headers.Location!.OriginalString);
        }

        public async Task HearsAsync(string orderId)
        {
            while (await events.ReadLineAsync(Now) is { } line)
            {
                if (line.Contains($"\"{orderId}\"", StringComparison.Ordinal))
                {
                    return;
                }
            }
            Assert.Fail($"The stream ended before {orderId}.");
        }

        /// <summary>Both are cut off in the middle, which is no end that looks whole.</summary>
        public async Task EndsAsync()
        {
            using var patience = CancellationTokenSource.CreateLinkedTokenSource(Now);
            patience.CancelAfter(Eventually.Deadline);
            await Assert.ThrowsAnyAsync<IOException>(async () =>
            {
                while (await events.ReadLineAsync(patience.Token) is not null)
                {
                    // A heartbeat.
                }
            });
            await Assert.ThrowsAnyAsync<HttpRequestException>(() => export.Content.LoadIntoBufferAsync(patience.Token));
        }

        public ValueTask DisposeAsync()
        {
            events.Dispose();
            stream.Dispose();
            export.Dispose();
            return ValueTask.CompletedTask;
        }

        private static async Task<HttpResponseMessage> OpenAsync(HttpClient caller, string path)
        {
            var response = await caller.GetAsync(new Uri(path, UriKind.Relative), HttpCompletionOption.ResponseHeadersRead, Now);
            Assert.Equal(HttpStatusCode.OK, response.StatusCode);
            return response;
        }
    }
}

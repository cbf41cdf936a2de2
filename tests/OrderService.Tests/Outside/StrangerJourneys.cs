using System.Diagnostics;
using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text.Json;
using System.Text.RegularExpressions;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>What callers without a key, or with too small a one, can cost.</summary>
public sealed partial class StrangerJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    private const string SmallKey = "publish-only-key-0123456789-0123456789";
    private const string Stranger = "127.0.0.9";

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task Refused_requests_cost_a_line_of_the_log_a_second_and_an_audit_row_for_each_caller_and_minute(StoreKind store)
    {
        await using var service = await ReleaseService.StartAsync(await broker.AddVirtualHostAsync(), store, postgres, new()
        {
            ["Api__Keys__1__Name"] = "small",
            ["Api__Keys__1__Key"] = SmallKey,
            ["Api__Keys__1__Scopes__0"] = "publish",
        });
        var before = service.Output.Split('\n').Length;
        var began = Stopwatch.StartNew();
        using var stranger = Nginx.ClientFrom(Stranger, service.Url);
        using var small = Nginx.ClientFrom("127.0.0.10", service.Url);

        var strangers = await SendAsync(600, number => stranger.SendAsync(WithKey(new(HttpMethod.Get, $"/api/orders?guess={number}"), $"guess-{number}"), Now));
        strangers.AddRange(await SendAsync(100, _ => stranger.PostAsJsonAsync("/api/session", new { key = "guess" }, Now)));
        strangers.AddRange(await SendAsync(1, _ => stranger.SendAsync(WithKey(new(HttpMethod.Get, "/api/orders"), "a.forged.token"), Now)));
        using (var invalid = await small.SendAsync(WithKey(new(HttpMethod.Post, "/api/orders") { Content = JsonContent.Create(new { orderId = "?" }) }, SmallKey), Now))
        {
            Assert.Equal(HttpStatusCode.BadRequest, invalid.StatusCode);
        }
        var known = await SendAsync(300, number => small.SendAsync(WithKey(new(HttpMethod.Get, $"/api/dead-letters/{number % 2}"), SmallKey), Now));

        Assert.All(strangers, status => Assert.True(status is HttpStatusCode.Unauthorized or HttpStatusCode.TooManyRequests, $"{status}"));
        Assert.Contains(HttpStatusCode.TooManyRequests, strangers);
        Assert.All(known, status => Assert.Equal(HttpStatusCode.Forbidden, status));
        var seconds = began.Elapsed.TotalSeconds + 2;
        // The stop writes the minute that has begun.
        Assert.Equal(0, await service.StopAsync());
        var lines = service.Output.Split('\n')[before..];
        // A few lines are about the stop.
        Assert.InRange(lines.Length, 1, seconds + 10);
        var told = lines.Select(line => Told().Match(line)).Where(match => match.Success).ToList();
        Assert.Equal(1001, told.Sum(match => int.Parse(match.Groups["requests"].Value, System.Globalization.CultureInfo.InvariantCulture)));
        Assert.InRange(told.Count, 1, seconds);
        Assert.Contains(told, match => match.Groups["address"].Value == Stranger);
        Assert.DoesNotContain("guess-", service.Output, StringComparison.Ordinal);

        await service.StartAgainAsync();
        var rows = await service.AllAsync("/api/audit?action=refused");
        var ofStranger = rows.Where(row => Text(row, "address") == Stranger).ToList();
        var ofSmall = rows.Where(row => Text(row, "who") == "key:small").ToList();
        Assert.Equal(rows.Count, ofStranger.Count + ofSmall.Count);
        // A minute may have ended meanwhile.
        Assert.InRange(ofStranger.Count, 1, 1 + (seconds / 60) + 1);
        Assert.InRange(ofSmall.Count, 1, 1 + (seconds / 60) + 1);
        Assert.Equal(701, ofStranger.Sum(Counted));
        Assert.Equal(300, ofSmall.Sum(Counted));
        Assert.Contains(ofStranger, row => Text(row, "detail").Contains("429 x ", StringComparison.Ordinal));
        Assert.Contains(ofSmall, row => Text(row, "subject") == "GET /api/dead-letters/0" || Text(row, "detail").Contains("GET /api/dead-letters/0", StringComparison.Ordinal));
        Assert.Contains(ofSmall, row => Text(row, "detail").Contains("The key lacks the scope 'read'.", StringComparison.Ordinal));
        // What was brought, and which request it was.
        foreach (var (brought, kind) in new[] { (ofStranger, "key"), (ofStranger, "key at the sign-in"), (ofStranger, "token"), (ofSmall, "key") })
        {
            Assert.Contains(brought, row => Brought().Match(Text(row, "detail")).Groups[1].Value.Split(", ").Contains(kind));
        }
        Assert.All(rows, row => Assert.Matches("^[0-9a-f]{32}$", Text(row, "request")));

        var attempts = Assert.Single(await service.AllAsync("/api/audit?action=invalid&who=small"));
        Assert.Equal(("POST /api/orders", 1), (Text(attempts, "subject"), Counted(attempts)));
        Assert.Contains("400 x 1", Text(attempts, "detail"), StringComparison.Ordinal);
        // Each key once an hour from each address, however many requests it brings.
        var uses = await service.AllAsync("/api/audit?action=key.use&who=small");
        Assert.InRange(uses.Count, 1, 2);
        Assert.All(uses, row => Assert.Equal("127.0.0.10", Text(row, "address")));
    }

    [Fact]
    public async Task Whoever_holds_connections_keeps_neither_health_nor_a_right_key_out()
    {
        await using var service = await ReleaseService.StartAsync(await broker.AddVirtualHostAsync());
        using var owner = Nginx.ClientFrom(Stranger, service.Url);
        using var live = await owner.SendAsync(WithKey(new(HttpMethod.Get, "/api/events/stream"), ReleaseService.ApiKey), HttpCompletionOption.ResponseHeadersRead, Now);
        Assert.Equal(HttpStatusCode.OK, live.StatusCode);
        await using var stream = await live.Content.ReadAsStreamAsync(Now);
        Assert.NotEqual(0, await stream.ReadAsync(new byte[64], Now));
        using var kept = new Caller(service.Url);
        Assert.StartsWith("HTTP/1.1 200", await kept.AskAsync("/api/orders", ReleaseService.ApiKey), StringComparison.Ordinal);

        // More than there may be in all, from one address, each after one request; and some that never finish their first.
        var held = new List<Caller>();
        for (var number = 0; number < 2_100; number++)
        {
            var caller = new Caller(service.Url);
            held.Add(caller);
            await caller.SendAsync(number % 2 == 0 ? $"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n" : "GET / HTTP/1.1\r\nHo");
        }

        foreach (var address in new[] { Stranger, "127.0.0.10" })
        {
            for (var number = 0; number < 20; number++)
            {
                // Each over a connection of its own.
                using var client = Nginx.ClientFrom(address, service.Url);
                using var answer = await client.SendAsync(WithKey(new(HttpMethod.Get, "/api/orders"), ReleaseService.ApiKey), Now);
                Assert.Equal(HttpStatusCode.OK, answer.StatusCode);
            }
        }
        using var watcher = new HttpClient { BaseAddress = new Uri(service.ManagementUrl) };
        foreach (var path in new[] { "/health/live", "/health/ready", "/metrics" })
        {
            using var answer = await watcher.GetAsync(new Uri(path, UriKind.Relative), Now);
            Assert.Equal(HttpStatusCode.OK, answer.StatusCode);
            using var there = await service.Http.GetAsync(new Uri(path, UriKind.Relative), Now);
            Assert.Equal(HttpStatusCode.OK, there.StatusCode);
        }
        foreach (var path in new[] { "/", "/api/orders", "/index.html", "/openapi/v1.json", "/healthy" })
        {
            using var answer = await watcher.SendAsync(WithKey(new(HttpMethod.Get, path), ReleaseService.ApiKey), Now);
            Assert.Equal(HttpStatusCode.NotFound, answer.StatusCode);
        }
        var (exitCode, said, _) = await service.RunAsync("health");
        Assert.True(exitCode == 0, said);
        // What had brought its key was not closed for the others.
        Assert.StartsWith("HTTP/1.1 200", await kept.AskAsync("/api/orders", ReleaseService.ApiKey), StringComparison.Ordinal);
        using (var placed = await service.Http.PostAsJsonAsync("/api/orders", new { orderId = "H-1", customerId = "C-7", currency = "EUR", lines = new[] { new { sku = "KB-01", quantity = 1, unitPrice = 49.90m } } }, Now))
        {
            Assert.Equal(HttpStatusCode.Accepted, placed.StatusCode);
        }
        var told = "";
        await Eventually.TrueAsync(async () =>
        {
            var buffer = new byte[4096];
            told += System.Text.Encoding.UTF8.GetString(buffer, 0, await stream.ReadAsync(buffer, Now));
            return told.Contains("H-1", StringComparison.Ordinal);
        });

        // The newest of those that asked once and then kept still.
        var idle = held[^2];
        await Eventually.TrueAsync(idle.IsClosedAsync, TimeSpan.FromSeconds(60), "an idle connection is closed");
        await Eventually.TrueAsync(() => Closed().Matches(service.Output).Sum(match => int.Parse(match.Groups[1].Value, System.Globalization.CultureInfo.InvariantCulture)) >= 1_500);
        held.ForEach(caller => caller.Dispose());
    }

    [Fact]
    public async Task A_right_key_gets_in_while_its_own_address_floods_the_sign_in_and_the_API()
    {
        await using var service = await ReleaseService.StartAsync(await broker.AddVirtualHostAsync());
        using var end = CancellationTokenSource.CreateLinkedTokenSource(Now);
        using var flooder = Nginx.ClientFrom(Stranger, service.Url);
        var refused = 0;
        var flood = Task.WhenAll(Enumerable.Range(0, 8).Select(async lane =>
        {
            while (!end.IsCancellationRequested)
            {
                using var response = lane % 2 == 0
                    ? await flooder.PostAsJsonAsync("/api/session", new { key = "guess" }, Now)
                    : await flooder.SendAsync(WithKey(new(HttpMethod.Get, "/api/orders"), $"guess-{lane}"), Now);
                refused += response.StatusCode == HttpStatusCode.TooManyRequests ? 1 : 0;
            }
        }));
        await Eventually.TrueAsync(() => refused > 50);

        for (var number = 0; number < 20; number++)
        {
            using var client = Nginx.ClientFrom(Stranger, service.Url);
            using var signedIn = await client.PostAsJsonAsync("/api/session", new { key = ReleaseService.ApiKey }, Now);
            Assert.Equal(HttpStatusCode.OK, signedIn.StatusCode);
            using var withCookie = new HttpRequestMessage(HttpMethod.Get, "/api/stats");
            withCookie.Headers.Add("Cookie", signedIn.Headers.GetValues("Set-Cookie").Single().Split(';')[0]);
            using var stats = await client.SendAsync(withCookie, Now);
            Assert.Equal(HttpStatusCode.OK, stats.StatusCode);
            using var orders = await client.SendAsync(WithKey(new(HttpMethod.Get, "/api/orders"), ReleaseService.ApiKey), Now);
            Assert.Equal(HttpStatusCode.OK, orders.StatusCode);
        }
        await end.CancelAsync();
        await flood;
    }

    [Fact]
    public async Task A_port_that_is_taken_is_named_with_its_setting()
    {
        using var taken = new TcpListener(IPAddress.Loopback, 0);
        taken.Start();
        var port = ((IPEndPoint)taken.LocalEndpoint).Port;
        var virtualHost = await broker.AddVirtualHostAsync();
        foreach (var setting in new[] { "ManagementUrls", "Urls" })
        {
            await using var service = await ReleaseService.StartAsync(virtualHost, waitUntilReady: false, settings: new() { [setting] = $"http://localhost:{port}" });
            Assert.Equal(78, await service.WaitForExitAsync());
            await Eventually.TrueAsync(() => service.Output.Split('\n').Any(line => line.StartsWith($"{setting}: ", StringComparison.Ordinal) && line.Contains($":{port}", StringComparison.Ordinal)));
        }
    }

    private static string Text(JsonElement row, string member) => row.GetProperty(member).GetString() ?? "";

    [GeneratedRegex(@"Brought: ([^.]+)\.")]
    private static partial Regex Brought();

    private static int Counted(JsonElement row) =>
        Count().Matches(Text(row, "detail")).Sum(match => int.Parse(match.Groups[1].Value, System.Globalization.CultureInfo.InvariantCulture));

    private static HttpRequestMessage WithKey(HttpRequestMessage request, string key)
    {
        request.Headers.Add("X-Api-Key", key);
        return request;
    }

    /// <summary>Sends from four connections.</summary>
    private static async Task<List<HttpStatusCode>> SendAsync(int count, Func<int, Task<HttpResponseMessage>> send)
    {
        var statuses = await Task.WhenAll(Enumerable.Range(0, 4).Select(async lane =>
        {
            var answered = new List<HttpStatusCode>();
            for (var number = lane; number < count; number += 4)
            {
                using var response = await send(number);
                answered.Add(response.StatusCode);
            }
            return answered;
        }));
        return [.. statuses.SelectMany(answered => answered)];
    }

    [GeneratedRegex(@"""Requests"":(?<requests>\d+).*""Address"":""(?<address>[^""]+)""")]
    private static partial Regex Told();

    [GeneratedRegex(@"""Connections"":(\d+)")]
    private static partial Regex Closed();

    [GeneratedRegex(@"\d{3} x (\d+)")]
    private static partial Regex Count();

    /// <summary>One connection from the stranger's address.</summary>
    private sealed class Caller : IDisposable
    {
        private readonly Socket socket = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);

        public Caller(string url)
        {
            socket.Bind(new IPEndPoint(IPAddress.Parse(Stranger), 0));
            socket.Connect(IPAddress.Loopback, new Uri(url).Port);
        }

        public async Task SendAsync(string text)
        {
            try
            {
                await socket.SendAsync(System.Text.Encoding.ASCII.GetBytes(text), Now);
            }
            catch (SocketException)
            {
                // Its place may be taken already.
            }
        }

        /// <returns>The answer, up to the last chunk of its body.</returns>
        public async Task<string> AskAsync(string path, string key)
        {
            await SendAsync($"GET {path} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n\r\n");
            var (buffer, answer) = (new byte[64 * 1024], "");
            while (!answer.EndsWith("\r\n0\r\n\r\n", StringComparison.Ordinal) && await socket.ReceiveAsync(buffer, Now) is var length and > 0)
            {
                answer += System.Text.Encoding.UTF8.GetString(buffer, 0, length);
            }
            return answer;
        }

        public async Task<bool> IsClosedAsync()
        {
            try
            {
                return await socket.ReceiveAsync(new byte[4096], Now) == 0;
            }
            catch (SocketException)
            {
                return true;
            }
        }

        public void Dispose() => socket.Dispose();
    }
}

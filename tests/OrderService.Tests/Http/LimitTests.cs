using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Http;

/// <summary>Services with settings of their own.</summary>
public sealed class LimitTests(RabbitMqContainerFixture broker)
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Too_many_requests_of_one_key_are_429_and_other_keys_are_not()
    {
        await using var service = await HostedService.StartAsync(await broker.AddVirtualHostAsync(), new()
        {
            ["Api:RateLimit:PerKey"] = "1",
            ["Api:RateLimit:PerKeyBurst"] = "5",
        });
        using var busy = service.Client(HostedService.ReadKey);
        using var other = service.Client(HostedService.OperateKey);

        var answers = new List<HttpResponseMessage>();
        for (var count = 0; count < 20; count++)
        {
            answers.Add(await busy.GetAsync(new Uri("/api/queues", UriKind.Relative), Now));
        }

        var refused = answers.Where(answer => answer.StatusCode == HttpStatusCode.TooManyRequests).ToList();
        Assert.InRange(refused.Count, 5, 15);
        Assert.All(refused, answer => Assert.NotNull(answer.Headers.RetryAfter));
        Assert.Equal(HttpStatusCode.OK, (await other.GetAsync(new Uri("/api/queues", UriKind.Relative), Now)).StatusCode);
        Assert.Equal(HttpStatusCode.OK, (await busy.GetAsync(new Uri("/health/live", UriKind.Relative), Now)).StatusCode);
        answers.ForEach(answer => answer.Dispose());
    }

    [Fact]
    public async Task Guessing_keys_is_slow_whichever_keys_are_guessed()
    {
        await using var service = await HostedService.StartAsync(await broker.AddVirtualHostAsync(), new() { ["Api:RateLimit:Anonymous"] = "1" });
        using var guesser = service.Client(null);
        var statuses = new List<HttpStatusCode>();
        for (var count = 0; count < 30; count++)
        {
            using var request = new HttpRequestMessage(HttpMethod.Get, "/api/orders");
            request.Headers.Add("X-Api-Key", $"guess-{Guid.NewGuid():N}");
            using var response = await guesser.SendAsync(request, Now);
            statuses.Add(response.StatusCode);
        }

        Assert.Contains(HttpStatusCode.TooManyRequests, statuses);
        using var owner = service.Client();
        Assert.Equal(HttpStatusCode.OK, (await owner.GetAsync(new Uri("/api/orders", UriKind.Relative), Now)).StatusCode);
    }

    [Theory]
    [InlineData("/api/orders", "Anonymous")]
    [InlineData("/api/session", "SignIn")]
    public async Task A_caller_is_an_IPv4_address_or_an_IPv6_network_of_64_bits_and_only_a_trusted_proxy_says_which(string path, string limit)
    {
        Dictionary<string, string?> limits = new() { ["Api:RateLimit:Anonymous"] = "1000", [$"Api:RateLimit:{limit}"] = "1" };
        await using (var behindProxy = await HostedService.StartAsync(await broker.AddVirtualHostAsync(), new(limits) { ["Api:TrustedProxies:0"] = "127.0.0.1" }))
        {
            // One network, whatever address of it is used; and whatever the caller claims that a proxy before it had said.
            Assert.True(await IsLimitedAsync(behindProxy, path, number => $"2001:db8:1:2:{number:x}::{number:x}"));
            Assert.True(await IsLimitedAsync(behindProxy, path, number => $"198.51.100.{number}, 2001:db8:1:3::7"));
            Assert.True(await IsLimitedAsync(behindProxy, path, number => number % 2 == 0 ? "203.0.113.7" : "::ffff:203.0.113.7"));
            // The same many callers from networks of their own.
            Assert.False(await IsLimitedAsync(behindProxy, path, number => $"2001:db8:1:1{number:x3}::1"));
            Assert.False(await IsLimitedAsync(behindProxy, path, number => $"203.0.113.{100 + number}"));
        }
        await using var straight = await HostedService.StartAsync(await broker.AddVirtualHostAsync(), limits);
        Assert.True(await IsLimitedAsync(straight, path, number => $"203.0.113.{100 + number}"));

        static async Task<bool> IsLimitedAsync(HostedService service, string path, Func<int, string> from)
        {
            using var client = service.Client(null);
            for (var number = 1; number <= 40; number++)
            {
                using var request = path == "/api/session"
                    ? new HttpRequestMessage(HttpMethod.Post, path) { Content = JsonContent.Create(new { key = "guess" }) }
                    : new HttpRequestMessage(HttpMethod.Get, path);
                request.Headers.Add("X-Forwarded-For", from(number));
                using var response = await client.SendAsync(request, Now);
                if (response.StatusCode == HttpStatusCode.TooManyRequests)
                {
                    return true;
                }
                Assert.Equal(HttpStatusCode.Unauthorized, response.StatusCode);
            }
            return false;
        }
    }

    [Fact]
    public async Task A_required_key_that_is_missing_is_400()
    {
        await using var service = await HostedService.StartAsync(await broker.AddVirtualHostAsync(), new() { ["Api:RequireIdempotencyKey"] = "true" });
        using var http = service.Client();

        using var response = await http.PostAsync(new Uri("/api/orders", UriKind.Relative), HostedService.Json(HostedService.Order("A-1")), Now);

        Assert.Equal(HttpStatusCode.BadRequest, response.StatusCode);
        Assert.Equal("key_missing", (await HostedService.ReadAsync(response)).GetProperty("code").GetString());
    }

    [Fact]
    public async Task Without_a_broker_nothing_is_accepted_and_readiness_names_the_cause()
    {
        await using var service = await HostedService.StartAsync("amqp://guest:guest@127.0.0.1:1/", new() { ["RabbitMq:ConfirmTimeout"] = "00:00:01" });
        using var http = service.Client();

        using var response = await http.PostAsync(new Uri("/api/orders", UriKind.Relative), HostedService.Json(HostedService.Order("A-1")), Now);
        Assert.Equal(HttpStatusCode.ServiceUnavailable, response.StatusCode);
        Assert.NotNull(response.Headers.RetryAfter);

        using var ready = await http.GetAsync(new Uri("/health/ready", UriKind.Relative), Now);
        Assert.Equal(HttpStatusCode.ServiceUnavailable, ready.StatusCode);
        var report = await HostedService.ReadAsync(ready);
        var causes = report.GetProperty("causes").EnumerateArray().Select(cause => cause.GetString()!).ToList();
        Assert.Contains(causes, cause => cause.StartsWith("orders: ", StringComparison.Ordinal));
        Assert.Contains(causes, cause => cause.StartsWith("dead-letters: ", StringComparison.Ordinal));
        Assert.DoesNotContain(causes, cause => cause.Contains("guest", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Without_a_key_in_the_settings_one_is_made_that_only_its_owner_can_read()
    {
        var folder = Directory.CreateTempSubdirectory("orderservice-key-").FullName;
        var settings = new Dictionary<string, string?> { ["Store:Path"] = Path.Combine(folder, "orders.db") };
        foreach (var key in HostedService.Settings("", "").Keys.Where(key => key.StartsWith("Api:", StringComparison.Ordinal)))
        {
            settings[key] = null;
        }
        string made;
        await using (var service = await HostedService.StartAsync(await broker.AddVirtualHostAsync(), settings))
        {
            var file = Path.Combine(folder, "api-key");
            using var nobody = service.Client(null);
            Assert.Equal(HttpStatusCode.Unauthorized, (await nobody.GetAsync(new Uri("/api/session", UriKind.Relative), Now)).StatusCode);
            made = (await File.ReadAllTextAsync(file, Now)).Trim();
            if (!OperatingSystem.IsWindows())
            {
                Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(file));
            }
            using var http = service.Client(made);
            var session = await http.GetFromJsonAsync<JsonElement>("/api/session", Now);
            Assert.Equal(["publish", "read", "operate", "personal"], session.GetProperty("scopes").EnumerateArray().Select(scope => scope.GetString()!));
        }
        await using (var again = await HostedService.StartAsync(await broker.AddVirtualHostAsync(), settings))
        {
            using var http = again.Client(made);
            Assert.Equal(HttpStatusCode.OK, (await http.GetAsync(new Uri("/api/session", UriKind.Relative), Now)).StatusCode);
        }
        Directory.Delete(folder, recursive: true);
    }
}

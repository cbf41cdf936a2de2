using System.Diagnostics;
using System.Net;
using System.Net.Http.Json;
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
        Assert.Equal(1000, told.Sum(match => int.Parse(match.Groups["requests"].Value, System.Globalization.CultureInfo.InvariantCulture)));
        Assert.InRange(told.Count, 1, seconds);
        Assert.Contains(told, match => match.Groups["address"].Value == Stranger);
        Assert.DoesNotContain("guess-", service.Output, StringComparison.Ordinal);

        await service.StartAgainAsync();
        var rows = await service.AllAsync("/api/audit?action=refused");
        var ofStranger = rows.Where(row => Text(row, "address") == Stranger).ToList();
        var ofSmall = rows.Where(row => Text(row, "who") == "small").ToList();
        Assert.Equal(rows.Count, ofStranger.Count + ofSmall.Count);
        // A minute may have ended meanwhile.
        Assert.InRange(ofStranger.Count, 1, 1 + (seconds / 60) + 1);
        Assert.InRange(ofSmall.Count, 1, 1 + (seconds / 60) + 1);
        Assert.Equal(700, ofStranger.Sum(Counted));
        Assert.Equal(300, ofSmall.Sum(Counted));
        Assert.Contains(ofStranger, row => Text(row, "detail").Contains("429 x ", StringComparison.Ordinal));
        Assert.Contains(ofSmall, row => Text(row, "subject") == "GET /api/dead-letters/0" || Text(row, "detail").Contains("GET /api/dead-letters/0", StringComparison.Ordinal));
        Assert.Contains(ofSmall, row => Text(row, "detail").Contains("The key lacks the scope 'read'.", StringComparison.Ordinal));
    }

    private static string Text(JsonElement row, string member) => row.GetProperty(member).GetString() ?? "";

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

    [GeneratedRegex(@"\d{3} x (\d+)")]
    private static partial Regex Count();
}

using System.Diagnostics;
using System.Globalization;
using System.Text.RegularExpressions;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>What becomes of the work when the log goes nowhere.</summary>
public sealed partial class LogJourneys(RabbitMqContainerFixture broker)
{
    [Fact]
    public async Task A_log_that_nobody_reads_holds_nothing_up_and_what_is_missing_is_counted_and_said()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, readOutput: false);
        await using var shop = await TestProducer.ConnectAsync(address);

        await shop.PublishAsync(Enumerable.Range(0, 600).Select(number => TestMessage.Of("order.place", $"broken-{number}", $"{{ {number}")));
        await shop.PublishAsync(Enumerable.Range(0, 50).Select(number => TestMessage.Place($"A-{number}")));

        await Eventually.HoldsAsync(async () => Assert.Equal(50, (await service.AllAsync("/api/orders")).Count));
        await Eventually.HoldsAsync(async () => Assert.Equal(600, (await service.GetAsync("/api/dead-letters/groups")).GetProperty("items").EnumerateArray().Sum(group => group.GetProperty("letters").GetInt32())));
        Assert.Equal(0, await DroppedAsync(service));
        var stop = Stopwatch.StartNew();
        Assert.Equal(0, await service.StopAsync());
        // The flush has 2 s, and the rest of a stop that has nothing in hand is short.
        Assert.True(stop.Elapsed < TimeSpan.FromSeconds(15), $"The stop took {stop.Elapsed}.");

        // A few dozen lines for each request: more than there is room for.
        service.Settings["Serilog__MinimumLevel__Default"] = "Verbose";
        service.Settings["Serilog__MinimumLevel__Override__Microsoft"] = "Verbose";
        await service.StartAgainAsync(readOutput: false);
        await Eventually.TrueAsync(async () =>
        {
            await Task.WhenAll(Enumerable.Range(0, 100).Select(_ => service.HealthAsync()));
            return await DroppedAsync(service) > 0;
        });
        service.ReadOutput();
        await Eventually.HoldsAsync(() =>
        {
            Assert.Contains("lines are missing here", service.Output, StringComparison.Ordinal);
            return Task.CompletedTask;
        });
        Assert.Equal(0, await service.StopAsync());
    }

    private static async Task<long> DroppedAsync(ReleaseService service)
    {
        var metrics = await service.Http.GetStringAsync(new Uri("/metrics", UriKind.Relative), TestContext.Current.CancellationToken);
        var found = Dropped().Match(metrics);
        Assert.True(found.Success, metrics);
        return long.Parse(found.Groups[1].Value, CultureInfo.InvariantCulture);
    }

    [GeneratedRegex(@"^orders_log_dropped_total\S* (\d+)", RegexOptions.Multiline)]
    private static partial Regex Dropped();
}

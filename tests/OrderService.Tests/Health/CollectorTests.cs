using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Health;

/// <summary>Where traces and metrics go, and where they don't.</summary>
public sealed class CollectorTests(RabbitMqContainerFixture broker)
{
    [Fact]
    public async Task Nothing_goes_where_a_collectors_redirect_leads()
    {
        await using var elsewhere = await FakeCollector.StartAsync();
        var asked = 0;
        var builder = WebApplication.CreateSlimBuilder();
        builder.WebHost.UseUrls("http://127.0.0.1:0");
        builder.Logging.ClearProviders();
        await using var collector = builder.Build();
        collector.MapPost("/v1/{signal}", (string signal) =>
        {
            Interlocked.Increment(ref asked);
            return Results.Redirect($"{elsewhere.Url}/v1/{signal}", preserveMethod: true);
        });
        await collector.StartAsync(TestContext.Current.CancellationToken);

        await using (var service = await HostedService.StartAsync(await broker.AddVirtualHostAsync(), new()
        {
            ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.Urls.Single(),
            ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf",
            ["OTEL_BSP_SCHEDULE_DELAY"] = "100",
        }))
        {
            using var http = service.Client();
            using var answer = await http.GetAsync(new Uri("/api/orders", UriKind.Relative), TestContext.Current.CancellationToken);
            await Eventually.TrueAsync(() => Volatile.Read(ref asked) > 0);
        }

        Assert.Empty(elsewhere.Spans);
    }
}

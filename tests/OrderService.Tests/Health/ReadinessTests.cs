using System.Net;
using Microsoft.Extensions.DependencyInjection;
using OrderService.Observability;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Health;

/// <summary>How health and the overview show what stands.</summary>
public sealed class ReadinessTests(RabbitMqContainerFixture broker)
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Only_what_keeps_orders_from_being_decided_is_a_503_and_everything_else_is_said()
    {
        await using var service = await HostedService.StartAsync(await broker.AddVirtualHostAsync());
        using var http = service.Client();
        var troubles = service.Services.GetRequiredService<Troubles>();
        await ShowsAsync(HttpStatusCode.OK, "ready", degraded: false, paused: false);

        Raise("a note", TroubleLevel.Notice);
        Raise("replays", TroubleLevel.Paused);
        await ShowsAsync(HttpStatusCode.OK, "paused", degraded: false, paused: true, ("replays", "paused"));

        Raise("relay:order.cancelled", TroubleLevel.Degraded);
        await ShowsAsync(HttpStatusCode.OK, "degraded", degraded: true, paused: true, ("relay:order.cancelled", "degraded"), ("replays", "paused"));

        Raise("letters", TroubleLevel.NotReady);
        await ShowsAsync(HttpStatusCode.ServiceUnavailable, "not ready", degraded: true, paused: true, ("letters", "down"), ("relay:order.cancelled", "degraded"), ("replays", "paused"));

        foreach (var key in new[] { "letters", "relay:order.cancelled", "replays" })
        {
            troubles.Clear(key);
        }
        await ShowsAsync(HttpStatusCode.OK, "ready", degraded: false, paused: false);

        void Raise(string key, TroubleLevel level) => troubles.Raise(new Trouble(key, level, "Something stands still", $"{key} stands still."));

        // The worst first; and on the overview the same.
        async Task ShowsAsync(HttpStatusCode code, string status, bool degraded, bool paused, params (string Key, string State)[] causes) => await Eventually.HoldsAsync(async () =>
        {
            using var response = await http.GetAsync(new Uri("/health/ready", UriKind.Relative), Now);
            var health = await HostedService.ReadAsync(response);
            Assert.Equal(
                (code, status, degraded, paused),
                (response.StatusCode, health.GetProperty("status").GetString(), health.GetProperty("degraded").GetBoolean(), health.GetProperty("paused").GetBoolean()));
            Assert.Equal(causes.Select(cause => cause.Key), health.GetProperty("causes").EnumerateArray().Select(cause => cause.GetString()!.Split(": ")[0]));
            using var stats = await http.GetAsync(new Uri("/api/stats", UriKind.Relative), Now);
            var overview = await HostedService.ReadAsync(stats);
            Assert.Equal((status != "not ready", degraded, paused), (overview.GetProperty("ready").GetBoolean(), overview.GetProperty("degraded").GetBoolean(), overview.GetProperty("paused").GetBoolean()));
            foreach (var (key, state) in causes)
            {
                Assert.Equal(state, overview.GetProperty("components").EnumerateArray().Single(component => component.GetProperty("name").GetString() == key).GetProperty("state").GetString());
            }
        });
    }
}

using System.Net;
using System.Text.Json;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>An operator drains the broker's node, as before an upgrade. On a broker of its own, for it is out of use meanwhile.</summary>
public sealed class DrainedNodeJourneys : IAsyncLifetime
{
    private readonly RabbitMqContainerFixture broker = new();

    public ValueTask InitializeAsync() => broker.InitializeAsync();

    public ValueTask DisposeAsync() => broker.DisposeAsync();

    [Fact]
    public async Task Log_and_health_keep_the_cause_while_attempts_fail_otherwise_and_no_line_is_written_for_each()
    {
        await using var service = await ReleaseService.StartAsync(await broker.AddVirtualHostAsync());

        await broker.ExecAsync("rabbitmq-upgrade", "drain");

        // So many attempts failed that their circuit opened, and what they met is told behind the cause.
        await Eventually.HoldsAsync(async () =>
        {
            var (status, health) = await service.HealthAsync();
            Assert.Equal(HttpStatusCode.ServiceUnavailable, status);
            var checks = JsonDocument.Parse(health).RootElement.GetProperty("checks");
            foreach (var name in new[] { "orders", "dead-letters" })
            {
                var detail = checks.GetProperty(name).GetProperty("detail").GetString();
                Assert.Contains("closed by the broker: 320 CONNECTION_FORCED", detail, StringComparison.Ordinal);
                Assert.Contains("; at the last attempt: ", detail, StringComparison.Ordinal);
                Assert.Contains("attempts are spaced out", detail, StringComparison.Ordinal);
            }
            Assert.Contains("CONNECTION_FORCED", checks.GetProperty("publisher").GetProperty("detail").GetString(), StringComparison.Ordinal);
            Assert.DoesNotContain("ObjectDisposed", health, StringComparison.Ordinal);
        });
        var lines = service.Output.Split('\n').Where(line => line.Contains("\"@l\":\"Warning\"", StringComparison.Ordinal)).ToList();
        Assert.Contains(lines, line => line.Contains("CONNECTION_FORCED", StringComparison.Ordinal));
        // Four stations failed five times each, and each has told of it once or twice.
        Assert.True(lines.Count <= 8, string.Join('\n', lines));

        await broker.ExecAsync("rabbitmq-upgrade", "revive");
        await service.WaitUntilReadyAsync();
    }
}

using System.Net;
using System.Text;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>Bodies that are large together, in a process that has little memory: good orders never pay for them.</summary>
public sealed class MemoryJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    // What .NET believes to be all the memory there is, as in a container of 256 MiB.
    private const string ContainerOf256MiB = "0x10000000";

    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task Large_bodies_between_good_orders_become_letters_with_their_bytes_and_the_good_ones_are_placed(StoreKind store)
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, store, postgres, new() { ["DOTNET_GCTotalPhysicalMemory"] = ContainerOf256MiB });
        await service.StopAsync();
        await using var shop = await TestProducer.ConnectAsync(address);
        var large = Body(4 << 20);
        var largest = Body(16 << 20);
        for (var number = 0; number < 32; number++)
        {
            await shop.PublishAsync(TestMessage.Place($"G-{number}"));
            if (number % 2 == 0)
            {
                await shop.PublishAsync(new TestMessage(null, $"large-{number}", number % 8 == 0 ? largest : large));
            }
        }

        await service.StartAgainAsync();
        var first = service.ProcessId;
        var peak = 0L;
        await Eventually.HoldsAsync(
            async () =>
            {
                peak = Math.Max(peak, service.AnonymousBytes);
                var parked = (await service.GetAsync("/api/stats?samples=1")).GetProperty("deadLetters").GetProperty("parked").GetInt64();
                Assert.True(parked == 16, $"{parked} letters\n{service.Output}");
            },
            TimeSpan.FromSeconds(90));

        Assert.Equal(32, (await service.AllAsync("/api/orders")).Count);
        var letters = await service.AllAsync("/api/dead-letters");
        Assert.Equal(16, letters.Count);
        Assert.All(letters, letter => Assert.Equal("body_too_large", letter.GetProperty("reason").GetString()));
        Assert.False(service.HasExited, service.Output);
        Assert.Equal(first, service.ProcessId);
        Assert.Equal(0u, await shop.DepthAsync("orders.unreadable"));
        foreach (var (key, sent) in new[] { ("large-0", largest), ("large-2", large) })
        {
            var id = letters.Single(letter => letter.GetProperty("key").GetString() == key).GetProperty("id").GetInt64();
            Assert.Equal(sent, await service.Http.GetByteArrayAsync(new Uri($"/api/dead-letters/{id}/body", UriKind.Relative), TestContext.Current.CancellationToken));
        }

        var (status, body) = await service.HealthAsync();
        Assert.True(status == HttpStatusCode.OK, body);
        TestContext.Current.TestOutputHelper!.WriteLine($"{peak >> 20} MiB at most");
        Assert.InRange(peak, 1, 256L << 20);
        Assert.DoesNotContain("OutOfMemory", service.Output, StringComparison.Ordinal);
    }

    private static byte[] Body(int length)
    {
        var body = new byte[length];
        Array.Fill(body, (byte)'x');
        Encoding.ASCII.GetBytes("{\"orderId\":\"L-1\",\"note\":\"").CopyTo(body, 0);
        return body;
    }
}

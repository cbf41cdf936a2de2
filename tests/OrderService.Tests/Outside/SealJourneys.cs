using System.Text.Json;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>Somebody with rights on the database, and none on the key, changes what was: the operator's command says so.</summary>
public sealed class SealJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task What_is_changed_beside_the_service_is_found_while_it_runs_and_after_it_stopped(StoreKind store)
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, store, postgres, new() { ["Seals__Interval"] = "00:00:01" });
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.PublishAsync([.. Enumerable.Range(1, 40).Select(number => TestMessage.Place($"A-{number}")), new TestMessage(null, "poison", "{"u8.ToArray())]);
        await Eventually.HoldsAsync(async () => Assert.Single((await service.GetAsync("/api/dead-letters")).GetProperty("items").EnumerateArray()));
        await Eventually.TrueAsync(async () => (await service.GetAsync("/api/orders?limit=100")).GetProperty("items").GetArrayLength() == 40);
        (await service.Http.PostAsync("/api/dead-letters/1/discard", new StringContent("""{"reason":"tests"}""", null, "application/json"), TestContext.Current.CancellationToken)).EnsureSuccessStatusCode();
        await Eventually.HoldsAsync(async () =>
        {
            var seals = await VerifyAsync(service, 0);
            Assert.Equal(0, seals.GetProperty("unsealed").GetInt64());
            Assert.True(seals.GetProperty("rows").GetInt64() >= 42);
        });
        var head = (await VerifyAsync(service, 0)).GetProperty("head").GetString()!;
        Assert.True(await service.CounterAsync("orders_seals_age_seconds") < 60);

        // While it runs, and goes on sealing.
        var administrator = new StoreAdministrator(service, store);
        foreach (var sql in (string[])["UPDATE audit SET who = 'key:nobody' WHERE action = 'dead-letter.discard'", "UPDATE dead_letters SET settle_reason = 'another'", "DELETE FROM events WHERE order_id = 'A-20'", "DELETE FROM orders WHERE order_id = 'A-20'"])
        {
            await administrator.ExecuteAsync(sql, sql);
        }
        await shop.PublishAsync(TestMessage.Place("B-1"));
        await Eventually.TrueAsync(async () => await service.OrderStatusAsync("B-1") == "placed");
        await Eventually.HoldsAsync(async () => Assert.Equal(0, (await VerifyAsync(service, 1)).GetProperty("unsealed").GetInt64()));
        var found = await VerifyAsync(service, 1);
        Assert.Equal(3, found.GetProperty("tampered").GetInt64());
        Assert.Equal(
            [("audit", "is not what was sealed"), ("dead_letters", "is not what was sealed"), ("events", "was deleted")],
            found.GetProperty("findings").EnumerateArray().Select(finding => finding.GetString()!.Split(' ')).Select(words => (words[3], string.Join(' ', words[4..]).Split(':')[0].TrimEnd('.'))).Order());

        Assert.Equal(0, await service.StopAsync());
        var (exit, said, _) = await service.RunAsync("verify");
        Assert.Equal(1, exit);
        Assert.Contains("tampered, 3 things are wrong", said, StringComparison.Ordinal);
        Assert.DoesNotContain("not one", said, StringComparison.Ordinal);
        // All seals are as they were made: the head that was kept is one of them, and another is none.
        Assert.Equal(3, (await VerifyAsync(service, 1, "--head", head)).GetProperty("tampered").GetInt64());
        var other = head[..^1] + (head[^1] == '0' ? '1' : '0');
        Assert.Equal(4, (await VerifyAsync(service, 1, "--head", other)).GetProperty("tampered").GetInt64());
        Assert.Equal(2, (await service.RunAsync("verify", "--head", "12:ab")).ExitCode);
    }

    [Fact]
    public async Task Without_the_key_nothing_is_proved_and_nobody_is_accused()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.PublishAsync(TestMessage.Place("A-1"));
        await Eventually.TrueAsync(async () => await service.OrderStatusAsync("A-1") == "placed");
        // The stop seals what the interval did not come to.
        Assert.Equal(0, await service.StopAsync());
        var stopped = (await service.RunAsync("verify")).Output;
        Assert.False(stopped.Contains("younger", StringComparison.Ordinal), stopped + service.Output);
        var rotated = await service.RunAsync("keys", "rotate-seals");
        Assert.True(rotated.ExitCode == 0, rotated.Error);
        Assert.Equal(2, (await File.ReadAllLinesAsync(Path.Combine(service.Folder, "seal.keys"), TestContext.Current.CancellationToken)).Length);
        Assert.Equal(0, (await VerifyAsync(service, 0)).GetProperty("notVerifiable").GetInt64());

        File.Delete(Path.Combine(service.Folder, "seal.keys"));

        var (exit, said, _) = await service.RunAsync("verify");
        Assert.Equal(1, exit);
        Assert.Contains("not verifiable", said, StringComparison.Ordinal);
        Assert.DoesNotContain("tampered", said, StringComparison.Ordinal);
        Assert.Equal(0, (await VerifyAsync(service, 1)).GetProperty("tampered").GetInt64());
        // The data is not lost, and what comes from now on is under a new key, which vouches for what was before.
        await service.StartAgainAsync();
        await shop.PublishAsync(TestMessage.Place("A-2"));
        await Eventually.TrueAsync(async () => await service.OrderStatusAsync("A-2") == "placed");
        Assert.Equal(0, await service.StopAsync());
        Assert.Contains("vouch", (await VerifyAsync(service, 0)).GetProperty("notes").ToString(), StringComparison.Ordinal);
    }

    private static async Task<JsonElement> VerifyAsync(ReleaseService service, int exitCode, params string[] more)
    {
        var (exit, said, error) = await service.RunAsync(["verify", "--json", .. more]);
        Assert.True(exit == exitCode, said + error);
        return JsonDocument.Parse(said).RootElement.GetProperty("seals");
    }
}

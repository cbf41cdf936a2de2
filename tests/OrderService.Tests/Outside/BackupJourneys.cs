using System.Globalization;
using System.Net;
using System.Text.Json;
using Npgsql;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>A store is lost and comes back: what its subscribers, its readers and its producers see of that.</summary>
public sealed class BackupJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_backup_under_traffic_a_kill_and_a_restore_leave_no_event_id_and_no_position_with_two_meanings()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        var backup = Path.Combine(service.Folder, "kept.db");
        using var enough = new CancellationTokenSource();
        var traffic = SellAsync(shop, "A", enough.Token);
        await Eventually.TrueAsync(() => shop.Heard.Count > 500);

        var made = await service.RunAsync("store", "backup", backup);
        var before = shop.Heard.Count;
        await Eventually.TrueAsync(() => shop.Heard.Count > before + 500);
        await enough.CancelAsync();
        var sold = await traffic;

        Assert.True(made.ExitCode == 0, made.Error);
        Assert.Contains("kept.db is a backup of", made.Output, StringComparison.Ordinal);
        Assert.Equal(1, (await service.RunAsync("store", "backup", backup)).ExitCode);
        var verified = await service.RunAsync("store", "backup", "--verify", backup);
        Assert.Equal(0, verified.ExitCode);
        Assert.Contains("all is as it was written", verified.Output, StringComparison.Ordinal);
        var refused = await service.RunAsync("store", "restore", backup);
        Assert.Equal(78, refused.ExitCode);
        Assert.Contains("Another process serves the store", refused.Error, StringComparison.Ordinal);

        await Eventually.TrueAsync(async () => (await service.AllAsync("/api/events")).Count == sold);
        var known = await service.AllAsync("/api/events");
        await service.KillAsync();
        // Confirmed, and taken by nobody yet.
        await shop.PublishAsync(TestMessage.Place("W-1"));
        var restored = await service.RunAsync("store", "restore", backup);
        Assert.True(restored.ExitCode == 0, restored.Error);
        Assert.Contains("Epoch 2 began", restored.Output, StringComparison.Ordinal);
        Assert.Contains("orders.db.before-restore-", restored.Output, StringComparison.Ordinal);
        Assert.Contains("What was recorded after it is not in it", restored.Output, StringComparison.Ordinal);

        await service.StartAgainAsync();
        await Eventually.TrueAsync(async () => await service.OrderStatusAsync("W-1") == "placed");
        var kept = (await service.AllAsync("/api/events")).Where(one => Position(one) < 1_000_000_000_000).ToList();
        Assert.InRange(kept.Count, 500, sold - 1);
        var lost = known.Skip(kept.Count).Select(one => one.GetProperty("orderId").GetString()!).First();
        Assert.Null(await service.OrderStatusAsync(lost));
        // The producer sends it again, with another content.
        await shop.PublishAsync(TestMessage.Place(lost, customerId: "C-8"));
        await Eventually.TrueAsync(async () => await service.OrderStatusAsync(lost) == "placed");
        await Eventually.TrueAsync(() => shop.Heard.Any(heard => heard.Id == $"{lost}.1.e2"));

        // A subscriber that deduplicates by the id has every event, and each id has one content.
        foreach (var same in shop.Heard.GroupBy(heard => heard.Id))
        {
            Assert.Single(same.Select(heard => heard.Body).Distinct());
        }
        Assert.Contains(shop.Heard, heard => heard.Id == $"{lost}.1");
        using (var second = JsonDocument.Parse(shop.Heard.First(heard => heard.Id == $"{lost}.1.e2").Body))
        {
            Assert.Equal((2, 1), (second.RootElement.GetProperty("epoch").GetInt64(), second.RootElement.GetProperty("sequence").GetInt64()));
        }

        // A reader that had come to the end before the kill is told, and goes on from where it is told to.
        var gone = await GoneAsync(service, $"/api/events?after={Position(known[^1])}");
        Assert.Equal(Position(kept[^1]), gone.GetProperty("goOnAfter").GetInt64());
        Assert.Equal(Position(kept[^1]), (await GoneAsync(service, "/api/events/stream", $"{Position(known[^1])}")).GetProperty("goOnAfter").GetInt64());
        var page = await service.GetAsync($"/api/events?after={gone.GetProperty("goOnAfter").GetInt64()}");
        Assert.Equal(["W-1.1.e2", $"{lost}.1.e2"], page.GetProperty("items").EnumerateArray().Select(one => one.GetProperty("id").GetString()!));
        Assert.Equal(1_000_000_000_001, Position(page.GetProperty("items")[0]));
        var fromBefore = await service.GetAsync($"/api/events?after={Position(kept[^1]) - 1}&limit=1");
        Assert.Equal(Position(kept[^1]), Position(fromBefore.GetProperty("items")[0]));
        Assert.Equal(0, (await service.RunAsync("verify")).ExitCode);
    }

    [Fact]
    public async Task The_service_backs_itself_up_and_says_so_when_it_can_not()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var hook = await FakeWebhook.StartAsync();
        var folder = Directory.CreateTempSubdirectory("orderservice-backups-").FullName;
        var backups = Path.Combine(folder, "here");
        await using var service = await ReleaseService.StartAsync(address, settings: new()
        {
            ["Store__Backup__Folder"] = backups,
            ["Store__Backup__Interval"] = "00:01:00",
            ["Alerts__Webhook__Enabled"] = "true",
            ["Alerts__Webhook__Url"] = hook.Url.ToString(),
            ["Alerts__Webhook__Secret"] = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
            ["Alerts__Webhook__AllowedHosts__0"] = "127.0.0.1",
        });
        await Eventually.TrueAsync(() => Directory.Exists(backups) && Directory.GetFiles(backups, "orders-*.backup.db").Length == 1);
        var verified = await service.RunAsync("store", "backup", "--verify", Directory.GetFiles(backups)[0]);
        Assert.True(verified.ExitCode == 0, verified.Output + verified.Error);

        Directory.Delete(backups, recursive: true);
        await File.WriteAllTextAsync(backups, "in the way", Now);
        await Eventually.TrueAsync(() => hook.Received.Any(alert => System.Text.Encoding.UTF8.GetString(alert.Body).Contains("The store is not backed up", StringComparison.Ordinal)), TimeSpan.FromMinutes(3));
        Assert.Equal(HttpStatusCode.OK, (await service.HealthAsync()).Status);
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public async Task A_PostgreSQL_store_that_was_put_back_by_its_own_means_begins_its_next_epoch()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address, StoreKind.Postgres, postgres);
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.ListenAsync();
        await shop.PublishAsync(Enumerable.Range(1, 20).Select(number => TestMessage.Place(string.Create(CultureInfo.InvariantCulture, $"A-{number}"))));
        await Eventually.TrueAsync(async () => (await service.AllAsync("/api/orders")).Count == 20);
        foreach (var command in new[] { "backup", "restore" })
        {
            var refused = await service.RunAsync("store", command, "somewhere");
            Assert.Equal(78, refused.ExitCode);
            Assert.Contains("pg_dump", refused.Error, StringComparison.Ordinal);
        }
        var running = await service.RunAsync("store", "restore", "--in-place");
        Assert.Equal(78, running.ExitCode);
        Assert.Contains("Stop every instance", running.Error, StringComparison.Ordinal);
        Assert.Equal(0, await service.StopAsync());

        var snapshot = await SnapshotAsync(service.Settings["Store__ConnectionString"]);
        await service.StartAgainAsync();
        await shop.PublishAsync(TestMessage.Place("B-1"));
        await Eventually.TrueAsync(() => shop.Heard.Any(heard => heard.Id == "B-1.1"));
        Assert.Equal(0, await service.StopAsync());
        service.Settings["Store__ConnectionString"] = snapshot;
        var begun = await service.RunAsync("store", "restore", "--in-place", "--epoch", "4");
        Assert.True(begun.ExitCode == 0, begun.Error);
        Assert.Contains("Epoch 4 began", begun.Output, StringComparison.Ordinal);

        await service.StartAgainAsync();
        await shop.PublishAsync(TestMessage.Place("B-1", key: "another", customerId: "C-8"));
        await Eventually.TrueAsync(() => shop.Heard.Any(heard => heard.Id == "B-1.1.e4"));
        Assert.Equal(20, (await GoneAsync(service, "/api/events?after=21")).GetProperty("goOnAfter").GetInt64());
        Assert.Equal(3_000_000_000_001, Position((await service.GetAsync("/api/events?after=20")).GetProperty("items")[0]));
    }

    /// <summary>Orders, batch after batch, until it is enough.</summary>
    /// <returns>How many.</returns>
    private static async Task<int> SellAsync(TestProducer shop, string prefix, CancellationToken enough)
    {
        var sold = 0;
        while (!enough.IsCancellationRequested)
        {
            await shop.PublishAsync(Enumerable.Range(sold + 1, 50).Select(number => TestMessage.Place(string.Create(CultureInfo.InvariantCulture, $"{prefix}-{number}"))));
            sold += 50;
        }
        return sold;
    }

    private static long Position(JsonElement published) => published.GetProperty("position").GetInt64();

    private static async Task<JsonElement> GoneAsync(ReleaseService service, string path, string? lastEventId = null)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, new Uri(path, UriKind.Relative));
        if (lastEventId is not null)
        {
            request.Headers.Add("Last-Event-ID", lastEventId);
        }
        using var response = await service.Http.SendAsync(request, Now);
        Assert.Equal(HttpStatusCode.Gone, response.StatusCode);
        var problem = JsonDocument.Parse(await response.Content.ReadAsStringAsync(Now)).RootElement.Clone();
        Assert.Equal("position_gone", problem.GetProperty("code").GetString());
        return problem;
    }

    /// <summary>The database as it is now, under another name: what a snapshot or a dump gives back later.</summary>
    private static async Task<string> SnapshotAsync(string connectionString)
    {
        var given = new NpgsqlConnectionStringBuilder(connectionString);
        var name = $"{given.Database}_snapshot";
        await using var connection = new NpgsqlConnection(new NpgsqlConnectionStringBuilder(connectionString) { Database = "postgres", Pooling = false }.ToString());
        await connection.OpenAsync(Now);
        await using var command = new NpgsqlCommand($"CREATE DATABASE {name} TEMPLATE {given.Database}", connection);
        await command.ExecuteNonQueryAsync(Now);
        return new NpgsqlConnectionStringBuilder(connectionString) { Database = name }.ToString();
    }
}

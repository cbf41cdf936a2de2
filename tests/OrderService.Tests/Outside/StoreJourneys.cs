using System.Diagnostics;
using System.Globalization;
using System.Net;
using Microsoft.Data.Sqlite;
using Npgsql;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Outside;

/// <summary>What the service does when its store stands still, is shared by mistake, is taken away, or is not the one it left.</summary>
public sealed class StoreJourneys(RabbitMqContainerFixture broker, PostgresContainerFixture postgres)
{
    private const int Orders = 20;

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(StoreKind.Sqlite)]
    [InlineData(StoreKind.Postgres)]
    public async Task A_store_that_takes_no_write_is_seen_in_readiness_with_the_cause_though_only_a_few_orders_are_in_hand(StoreKind store)
    {
        var address = await broker.AddVirtualHostAsync();
        await using var hook = await FakeWebhook.StartAsync();
        await using var service = await ReleaseService.StartAsync(address, store, postgres, AlertsTo(hook));
        await using var shop = await TestProducer.ConnectAsync(address);

        await using (await HoldAsync(service, store))
        {
            await shop.PublishAsync(Placed("A"));
            await Eventually.HoldsAsync(
                async () =>
                {
                    var (status, body) = await service.HealthAsync();
                    Assert.Equal(HttpStatusCode.ServiceUnavailable, status);
                    Assert.Contains(store == StoreKind.Sqlite ? "locked by another process" : "55P03", body, StringComparison.Ordinal);
                },
                TimeSpan.FromSeconds(60));
            // By a way that needs no store, and once for one cause.
            await Eventually.TrueAsync(() => !hook.Received.IsEmpty, TimeSpan.FromSeconds(60));
            Assert.Contains(store == StoreKind.Sqlite ? "locked by another process" : "55P03", Text(Assert.Single(hook.Received)), StringComparison.Ordinal);
        }

        await Eventually.TrueAsync(async () => (await service.AllAsync("/api/orders")).Count == Orders);
        await service.WaitUntilReadyAsync();
        Assert.Empty(await service.AllAsync("/api/dead-letters"));
    }

    [Fact]
    public async Task Dead_letters_that_cant_be_parked_make_it_not_ready_while_orders_are_decided()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var hook = await FakeWebhook.StartAsync();
        await using var service = await ReleaseService.StartAsync(address, StoreKind.Postgres, postgres, AlertsTo(hook));
        await using var shop = await TestProducer.ConnectAsync(address);

        await using (await HoldAsync(service, StoreKind.Postgres, "dead_letters"))
        {
            await shop.PublishAsync([.. Placed("A"), TestMessage.Of("order.place", "broken", "{")]);
            await Eventually.HoldsAsync(
                async () =>
                {
                    var (status, body) = await service.HealthAsync();
                    Assert.Equal(HttpStatusCode.ServiceUnavailable, status);
                    Assert.Contains("dead-letters", body, StringComparison.Ordinal);
                },
                TimeSpan.FromSeconds(60));
            Assert.Equal(Orders, (await service.AllAsync("/api/orders")).Count);
            await Eventually.TrueAsync(() => hook.Received.Any(alert => Text(alert).Contains("ead letters", StringComparison.Ordinal)), TimeSpan.FromSeconds(60));
        }

        await Eventually.TrueAsync(async () => (await service.AllAsync("/api/dead-letters")).Count == 1);
        await service.WaitUntilReadyAsync();
    }

    [Fact]
    public async Task One_process_at_a_time_serves_a_SQLite_store_and_the_next_one_says_who_does_or_waits()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);

        await service.SignalAsync("HUP");
        var second = await service.RunAsync("serve");
        var look = await service.RunAsync("dlq", "list");

        Assert.Equal(78, second.ExitCode);
        Assert.Contains($"process {service.ProcessId} on host {Environment.MachineName}, since ", second.Error, StringComparison.Ordinal);
        Assert.Contains("--wait-for-store", second.Error, StringComparison.Ordinal);
        Assert.True(look.ExitCode == 0, look.Error);
        await shop.PublishAsync(TestMessage.Place("A-1"));
        await Eventually.TrueAsync(async () => await service.OrderStatusAsync("A-1") == "placed");
        Assert.Contains("SIGHUP", service.Output, StringComparison.Ordinal);

        using var waiting = Start(service, "serve", "--wait-for-store", "60s");
        try
        {
            var waits = await waiting.StandardOutput.ReadLineAsync(Now);
            Assert.Contains($"process {service.ProcessId}", waits, StringComparison.Ordinal);
            // A process that is dead holds nothing.
            await service.KillAsync();
            await Eventually.TrueAsync(async () => await service.OrderStatusAsync("A-1").ContinueWith(read => read.IsCompletedSuccessfully && read.Result == "placed", TaskScheduler.Default));
            Assert.False(waiting.HasExited);
        }
        finally
        {
            waiting.Kill();
            await waiting.WaitForExitAsync(CancellationToken.None);
        }
    }

    [Fact]
    public async Task A_store_that_is_deleted_takes_no_acknowledgement_with_it_and_the_process_ends_and_the_next_one_says_what_it_found()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var hook = await FakeWebhook.StartAsync();
        await using var service = await ReleaseService.StartAsync(address, settings: AlertsTo(hook));
        await using var shop = await TestProducer.ConnectAsync(address);
        await shop.PublishAsync(Placed("A"));
        await Eventually.TrueAsync(async () => (await service.AllAsync("/api/orders")).Count == Orders);

        foreach (var file in Directory.GetFiles(service.Folder, "orders.db*"))
        {
            File.Delete(file);
        }
        await shop.PublishAsync(Placed("B"));
        await Eventually.HoldsAsync(async () =>
        {
            var (status, body) = await service.HealthAsync();
            Assert.Equal(HttpStatusCode.ServiceUnavailable, status);
            Assert.Contains("was deleted, moved or replaced", body, StringComparison.Ordinal);
        });

        Assert.Equal(70, await service.WaitForExitAsync());
        // All of them came back.
        await Eventually.TrueAsync(async () => await shop.DepthAsync("orders") == Orders);
        Assert.Contains("no order is decided", Text(Assert.Single(hook.Received)), StringComparison.Ordinal);

        await service.StartAgainAsync();
        await Eventually.TrueAsync(async () => (await service.AllAsync("/api/orders")).Count == Orders);
        Assert.Contains("There is no store at", service.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_backup_that_was_put_back_beside_the_log_of_another_file_is_not_served()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var service = await ReleaseService.StartAsync(address);
        await using var shop = await TestProducer.ConnectAsync(address);
        var (file, log) = (Path.Combine(service.Folder, "orders.db"), Path.Combine(service.Folder, "orders.db-wal"));
        await shop.PublishAsync(Placed("A"));
        await Eventually.TrueAsync(async () => (await service.AllAsync("/api/orders")).Count == Orders);
        Assert.Equal(0, await service.StopAsync());
        Assert.False(File.Exists(log), "a clean stop was to leave one file");
        File.Copy(file, file + ".backup");

        await service.StartAgainAsync();
        await shop.PublishAsync(Placed("B"));
        await Eventually.TrueAsync(async () => (await service.AllAsync("/api/orders")).Count == 2 * Orders);
        await NotedAsync(service, 2 * Orders);
        await service.KillAsync();
        Assert.True(new FileInfo(log).Length > 0, "the kill was to leave a log");
        File.Copy(file + ".backup", file, overwrite: true);
        foreach (var command in new[] { "serve", "verify" })
        {
            var refused = await service.RunAsync(command);
            Assert.Equal(78, refused.ExitCode);
            Assert.Contains("do not belong together", refused.Error, StringComparison.Ordinal);
        }
        Assert.Equal(File.ReadAllBytes(file + ".backup"), File.ReadAllBytes(file));

        // As the sentence says.
        File.Delete(log);
        File.Delete(file + "-shm");
        await AcceptAsync(service);
        await service.StartAgainAsync();
        // What was not acknowledged before the kill may have come again.
        Assert.Subset(
            (await service.AllAsync("/api/orders")).Select(order => order.GetProperty("orderId").GetString()!).ToHashSet(), Placed("A").Select(message => message.Key!["key-".Length..]).ToHashSet());
    }

    [Fact]
    public async Task A_backup_laid_over_the_file_in_use_takes_no_acknowledgement_with_it_and_is_left_as_it_is()
    {
        var address = await broker.AddVirtualHostAsync();
        await using var hook = await FakeWebhook.StartAsync();
        await using var service = await ReleaseService.StartAsync(address, settings: AlertsTo(hook));
        await using var shop = await TestProducer.ConnectAsync(address);
        var (file, log) = (Path.Combine(service.Folder, "orders.db"), Path.Combine(service.Folder, "orders.db-wal"));
        await shop.PublishAsync(Placed("A"));
        await Eventually.TrueAsync(async () => (await service.AllAsync("/api/orders")).Count == Orders);
        Assert.Equal(0, await service.StopAsync());
        File.Copy(file, file + ".backup");
        await service.StartAgainAsync();
        await shop.PublishAsync(Placed("B"));
        await Eventually.TrueAsync(async () => (await service.AllAsync("/api/orders")).Count == 2 * Orders);

        await NotedAsync(service, 2 * Orders);
        // cp orders.db.backup orders.db: the same file, with another content.
        using (var copy = Process.Start("cp", [file + ".backup", file]))
        {
            await copy.WaitForExitAsync(Now);
        }
        await shop.PublishAsync(Placed("C"));
        await Eventually.HoldsAsync(async () =>
        {
            var (status, body) = await service.HealthAsync();
            Assert.Equal(HttpStatusCode.ServiceUnavailable, status);
            Assert.Contains("was written over by another program", body, StringComparison.Ordinal);
        });
        Assert.Equal(70, await service.WaitForExitAsync());
        await Eventually.TrueAsync(async () => await shop.DepthAsync("orders") == Orders);
        Assert.Contains("no order is decided", Text(Assert.Single(hook.Received)), StringComparison.Ordinal);
        Assert.Equal(File.ReadAllBytes(file + ".backup"), File.ReadAllBytes(file));

        var refused = await service.RunAsync("serve");
        Assert.Equal(78, refused.ExitCode);
        Assert.Contains("do not belong together", refused.Error, StringComparison.Ordinal);
        File.Delete(log);
        File.Delete(file + "-shm");
        await AcceptAsync(service);
        await service.StartAgainAsync();
        await Eventually.TrueAsync(async () => (await service.AllAsync("/api/orders")).Count == 2 * Orders);
    }

    /// <summary>How far it came is noted a moment after the commit.</summary>
    private static Task NotedAsync(ReleaseService service, int events) => Eventually.TrueAsync(
        async () => (await File.ReadAllTextAsync(Path.Combine(service.Folder, ".orders.db.note"), Now)).Contains($"\"position\":{events}}}", StringComparison.Ordinal));

    /// <summary>Says that the older file is meant, without which it is not served.</summary>
    private static async Task AcceptAsync(ReleaseService service)
    {
        var refused = await service.RunAsync("serve");
        Assert.Equal(78, refused.ExitCode);
        Assert.Contains("is an older state of the store that was served here last", refused.Error, StringComparison.Ordinal);
        var accepted = await service.RunAsync("store", "restore", "--in-place");
        Assert.True(accepted.ExitCode == 0, accepted.Error);
        Assert.Contains("Epoch 2 began", accepted.Output, StringComparison.Ordinal);
    }

    private static Dictionary<string, string> AlertsTo(FakeWebhook hook) => new()
    {
        ["Alerts__Webhook__Enabled"] = "true",
        ["Alerts__Webhook__Url"] = hook.Url.ToString(),
        ["Alerts__Webhook__Secret"] = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        ["Alerts__Webhook__AllowedHosts__0"] = "127.0.0.1",
    };

    private static string Text(ReceivedWebhook alert) => System.Text.Encoding.UTF8.GetString(alert.Body);

    private static IEnumerable<TestMessage> Placed(string prefix) =>
        Enumerable.Range(1, Orders).Select(number => TestMessage.Place(string.Create(CultureInfo.InvariantCulture, $"{prefix}-{number}")));

    /// <summary>Another program that lets nobody write until it is disposed.</summary>
    /// <param name="table">Which table of PostgreSQL; SQLite has one lock for all.</param>
    private static async Task<IAsyncDisposable> HoldAsync(ReleaseService service, StoreKind store, string table = "inbox")
    {
        if (store == StoreKind.Sqlite)
        {
            var blocker = new SqliteConnection($"Data Source={Path.Combine(service.Folder, "orders.db")};Pooling=False");
            await blocker.OpenAsync(Now);
            _ = blocker.BeginTransaction(deferred: false);
            return blocker;
        }
        var connection = new NpgsqlConnection(new NpgsqlConnectionStringBuilder(service.Settings["Store__ConnectionString"]) { Pooling = false }.ToString());
        await connection.OpenAsync(Now);
        await using var command = new NpgsqlCommand($"BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE", connection);
        await command.ExecuteNonQueryAsync(Now);
        return connection;
    }

    private static Process Start(ReleaseService service, params string[] arguments)
    {
        var start = new ProcessStartInfo("dotnet", [ReleaseService.Binary, .. arguments]) { WorkingDirectory = service.Folder, RedirectStandardOutput = true };
        foreach (var (name, value) in service.Settings)
        {
            start.Environment[name] = value;
        }
        return Process.Start(start)!;
    }
}

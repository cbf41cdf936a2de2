using System.Diagnostics.Metrics;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using OrderService.Inbox;
using OrderService.Observability;
using OrderService.Projections;
using OrderService.Retention;
using OrderService.Store;
using OrderService.Tests.Infrastructure;
using OrderService.Tests.Store;
using static OrderService.Tests.Store.Messages;

namespace OrderService.Tests.Retention;

/// <summary>What is over goes when it is old, and nothing else does.</summary>
public abstract class RetentionContract
{
    private const long Day = 86_400_000;
    private const long Now = StoreInstance.Now;

    protected static CancellationToken Stopping => TestContext.Current.CancellationToken;

    protected abstract Task<TestStore> OpenStoreAsync();

    [Fact]
    public async Task A_closed_order_is_archived_and_taken_out_and_a_late_copy_is_known_for_one()
    {
        await using var world = await OpenAsync();
        await world.CloseAsync("A-1");
        var (accepted, refused, done) = (Place("place-A-1", "A-1"), Ship("late-A-1", "A-1"), Cancel("again-A-1", "A-1"));
        await world.AppendAsync(refused, done, accepted);
        await world.PublishAllAsync();
        var before = await world.Instance.Events.StreamAsync("A-1", Stopping);
        await world.Store.Database.WriteAsync(
            transaction => transaction.ExecuteAsync("INSERT INTO order_attributes (name, value, seq) SELECT 'channel', 'web', seq FROM orders"), Stopping);

        var removed = await world.RunAsync(closedOrders: 30, days: 31);

        Assert.Equal(1, removed!["closed_orders"]);
        foreach (var table in (string[])["orders", "events", "inbox", "history"])
        {
            Assert.Equal(0, await world.CountAsync($"{table} WHERE order_id = 'A-1'"));
            Assert.True(table == "history" || await world.CountAsync($"{table} WHERE order_id = 'newest-1'") > 0);
        }
        Assert.Equal(await world.CountAsync("orders"), await world.CountAsync("order_attributes"));
        // The order and its four messages.
        Assert.Equal(5, await world.CountAsync("tombstones"));

        var (copy, changed, anew, ship) = (Place("place-A-1", "A-1"), Place("place-A-1", "A-1", quantity: 3), Place("another", "A-1"), Ship("late-A-1", "A-1"));
        await world.AppendAsync(copy, changed, anew, ship);
        Assert.Equal((Fate.Duplicate, Fate.Rejected, Fate.Refused, Fate.Duplicate), (copy.Fate, changed.Fate, anew.Fate, ship.Fate));
        Assert.Equal((RejectionReason.KeyConflict, "order-archived"), (changed.Reason, anew.Reason));
        Assert.Equal(0, await world.CountAsync("orders WHERE order_id = 'A-1'"));
        Assert.Equal(0, (await new StoreVerification(world.Store.Database, world.Instance.Events).RunAsync(repair: false, null, Stopping)).Wrong);

        var archived = await ArchiveReader.FindAsync(world.Folder, "A-1", Stopping);
        Assert.Equal(before.Select(Told), archived!.Stream().Select(Told));
        Assert.Equal(["again-A-1", "cancel-A-1", "late-A-1", "place-A-1"], archived.Keys.Order());
        Assert.Contains(archived.History, line => line.Kind == "refused" && line.Key == "late-A-1");
        Assert.Null(await ArchiveReader.FindAsync(world.Folder, "newest-1", Stopping));
        Assert.Equal((1L, 2L, 0L), await world.VerifyArchiveAsync());
        var story = new OrderStory(world.Store.Database, world.Instance.Events);
        Assert.StartsWith("The order was closed long ago and left the store at 2027-", (await story.WhyAsync("A-1", Stopping))!.State, StringComparison.Ordinal);
        Assert.StartsWith("The message was decided, and its order was closed", (await story.WhyAsync("cancel-A-1", Stopping))!.State, StringComparison.Ordinal);
        // Readers by position go on over the gap.
        Assert.Equal(["first", "newest-1"], (await world.Instance.Events.AfterAsync(0, 100, Stopping)).Events.Select(recorded => recorded.OrderId));
        Assert.Equal((99_80L, "EUR", 1L), await world.Store.Database.ReadAsync(connection => connection.QuerySingleAsync<(long, string, long)>("SELECT total_minor, currency, orders FROM sales_kept"), Stopping));

        static (long, string, string, string, string) Told(RecordedEvent recorded) =>
            (recorded.Version, recorded.Type, Convert.ToHexString(recorded.Data.Span), recorded.CausationId, Convert.ToHexString(recorded.Hash));
    }

    [Theory]
    [InlineData("something is to be published", null)]
    [InlineData("a letter is open", "INSERT INTO dead_letters (key, fingerprint, incident, status, reason, detail, order_id, parked_at, opened_at, body, properties) VALUES ('l', @some, 'i', 'parked', 'r', 'd', 'A-1', 1, 1, @some, '{}')")]
    [InlineData("a command waits", "INSERT INTO deferred (key, order_id, type, body, properties, fingerprint, correlation_id, received_at, expires_at) VALUES ('w', 'A-1', 'order.ship', @some, '{}', @some, 'c', 1, 1)")]
    [InlineData("a rejected message has no letter yet", "INSERT INTO rejections (key, fingerprint, reason, detail, order_id, rejected_at) VALUES ('r', @some, 'r', 'd', 'A-1', 1)")]
    [InlineData("its customer waits for a mail", "INSERT INTO order_mails (position, order_id, next_attempt_at, begun_at) VALUES (1, 'A-1', 1, 1)")]
    [InlineData("a refused payment was not told of", "INSERT INTO refused_payments (order_id, key, payment_reference, code, reason, refused_at) VALUES ('A-1', 'p', 'P', 'c', 'r', 1)")]
    [InlineData("a reader has not come so far", "INSERT INTO checkpoints (reader, position) VALUES ('kafka', 1)")]
    [InlineData("it is not over", "UPDATE orders SET status = 3 WHERE order_id = 'A-1'")]
    [InlineData("it changed lately", "UPDATE orders SET updated_at = updated_at + 172800000 WHERE order_id = 'A-1'")]
    [InlineData("an event is not what was written", "UPDATE events SET causation_id = 'forged' WHERE order_id = 'A-1' AND version = 1")]
    public async Task An_order_stays_while(string what, string? sql)
    {
        await using var world = await OpenAsync();
        await world.CloseAsync("A-1");
        await world.CloseAsync("A-2");
        await world.PublishAllAsync(except: sql is null ? "A-1" : "none");
        if (sql is not null)
        {
            await world.Store.ExecuteAsync(sql, new { some = new byte[] { 1 } });
        }

        var removed = await world.RunAsync(closedOrders: 30, days: 31);

        Assert.True(await world.CountAsync("orders WHERE order_id = 'A-1'") == 1, what);
        Assert.Equal(2, await world.CountAsync("events WHERE order_id = 'A-1'"));
        // Its neighbour goes, unless the reader has not come that far either.
        Assert.Equal(sql?.Contains("checkpoints", StringComparison.Ordinal) == true ? 0 : 1, removed!.GetValueOrDefault("closed_orders"));
    }

    [Fact]
    public async Task The_newest_event_stays_so_that_its_position_is_not_handed_out_again()
    {
        await using var world = await OpenAsync(newest: false);
        await world.CloseAsync("A-1");
        await world.CloseAsync("A-2");
        await world.PublishAllAsync();

        await world.RunAsync(closedOrders: 30, days: 31);
        var last = await world.Store.ScalarAsync<long>("SELECT max(position) FROM events");
        var append = await world.AppendAsync(Place("place-A-3", "A-3"));

        Assert.Equal((0L, 1L), (await world.CountAsync("orders WHERE order_id = 'A-1'"), await world.CountAsync("orders WHERE order_id = 'A-2'")));
        Assert.Equal(4, last);
        Assert.True(append.Events[0].Position > last);
    }

    [Fact]
    public async Task Without_tombstones_a_late_copy_is_placed_anew()
    {
        await using var world = await OpenAsync();
        await world.CloseAsync("A-1");
        await world.PublishAllAsync();

        await world.RunAsync(new RetentionOptions { ClosedOrders = 30, WithoutArchive = true, Tombstones = false }, days: 31);
        var copy = Place("place-A-1", "A-1");
        await world.AppendAsync(copy);

        Assert.Equal((0L, Fate.Accepted), (await world.CountAsync("tombstones"), copy.Fate));
        Assert.False(Directory.Exists(world.Folder));
    }

    [Fact]
    public async Task Each_kind_goes_after_its_time_and_what_is_open_stays()
    {
        await using var world = await OpenAsync();
        foreach (var (id, status, age, alert) in new[]
        {
            (1, "resolved", 91, "1"), (2, "resolved", 89, "1"), (3, "discarded", 91, "NULL"), (4, "superseded", 91, "NULL"), (5, "parked", 91, "2"), (6, "replayed", 91, "NULL"), (7, "discarded", 400, "1"),
        })
        {
            var settled = status is "parked" or "replayed" ? "NULL" : $"{Now - (age * Day)}";
            await world.Store.ExecuteAsync(
                $"INSERT INTO dead_letters (id, key, fingerprint, incident, status, reason, detail, parked_at, opened_at, settled_at, alert_id, body, properties, keyless) VALUES ({id}, 'k{id}', @some, 'i{id}', '{status}', 'r', 'd', 1, 1, {settled}, {alert}, @some, '{{}}', 1)",
                new { some = new byte[] { 1 } });
            await world.Store.ExecuteAsync($"INSERT INTO keyless_letters (fingerprint, letter_id) VALUES (@some, {id})", new { some = new byte[] { (byte)id } });
            await world.Store.ExecuteAsync($"INSERT INTO replays (letter_id, requested_by, requested_at) VALUES ({id}, 'anna', 1)");
            await world.Store.ExecuteAsync($"INSERT INTO rejections (key, fingerprint, reason, detail, rejected_at, parked) VALUES ('k{id}', @some, 'r', 'd', 1, 1)", new { some = new byte[] { 1 } });
            await world.Store.ExecuteAsync($"INSERT INTO history (at, kind, detail, letter_id) VALUES ({Now - (91 * Day)}, 'parked', 'd', {id})");
            await world.Store.ExecuteAsync(
                $"INSERT INTO incidents (fingerprint, reason, title, state, letters, first_seen, last_seen, first_build, last_build, state_at) VALUES ('i{id}', 'r', 't', '{(id == 2 ? "new" : "resolved")}', 1, 1, 1, 'b', 'b', {Now - (age * Day)})");
        }
        foreach (var (id, age, dispatched, delivery) in new[] { (1, 91, 1, "sent"), (2, 91, 1, "sent"), (3, 91, 1, "pending"), (4, 89, 1, "sent"), (5, 91, 0, "sent"), (6, 91, 1, "failed") })
        {
            await world.Store.ExecuteAsync($"INSERT INTO alerts (id, kind, subject, text, data, letters, created_at, dispatched) VALUES ({id}, 'first', 's', 't', '{{}}', 1, {Now - (age * Day)}, {dispatched})");
            await world.Store.ExecuteAsync($"INSERT INTO alert_deliveries (alert_id, channel, status, next_attempt_at) VALUES ({id}, 'log', '{delivery}', 1)");
        }
        foreach (var (id, state, age, sent, succeeded) in new[] { (1, "done", 91, 3, 3), (2, "done", 89, 3, 3), (3, "running", 91, 3, 3), (4, "cancelled", 91, 3, 2), (5, "stopped", 91, 3, 3) })
        {
            await world.Store.ExecuteAsync(
                $"INSERT INTO replay_jobs (id, state, mode, rate, reason, requested_by, requested_at, finished_at, state_by, state_at, total, sent, succeeded) VALUES ({id}, '{state}', 'all', 1, 'r', 'anna', 1, {Now - (age * Day)}, 'anna', 1, 3, {sent}, {succeeded})");
            await world.Store.ExecuteAsync($"INSERT INTO replay_job_letters (job_id, letter_id) VALUES ({id}, 1), ({id}, 2)");
        }
        await world.Store.ExecuteAsync($"INSERT INTO audit (at, who, action, subject, detail) VALUES ({Now - (401 * Day)}, 'anna', 'old', 's', 'd'), ({Now - (399 * Day)}, 'anna', 'young', 's', 'd')");
        await world.Store.ExecuteAsync(
            $"INSERT INTO refused_payments (order_id, key, payment_reference, code, reason, refused_at, alert_id) VALUES ('A-1', 'p', 'P', 'c', 'r', {Now - (91 * Day)}, 1), ('A-2', 'q', 'Q', 'c', 'r', {Now - (91 * Day)}, NULL)");
        await world.Store.ExecuteAsync($"INSERT INTO history (at, kind, detail) VALUES ({Now - (89 * Day)}, 'refused', 'd')");

        // What would go is what goes.
        var counted = (await world.Round(new RetentionOptions()).CountAsync(Stopping)).ToDictionary(count => count.Kind, count => count.Rows);
        var removed = await world.RunAsync(new RetentionOptions());

        var expected = new Dictionary<string, long>
        {
            // Of the seven letters two are open, one is young, and one was told to nobody yet.
            ["settled_dead_letters"] = 3, ["resolved_incidents"] = 3, ["alerts"] = 2, ["history"] = 6, ["replay_jobs"] = 2, ["audit"] = 1,
        };
        Assert.Equal(expected.OrderBy(pair => pair.Key), removed!.Where(pair => pair.Value > 0).OrderBy(pair => pair.Key));
        // The incidents and the alert of these letters were kept by them.
        Assert.Equal(expected.Select(pair => pair.Key is "resolved_incidents" ? pair.Value - 3 : pair.Value), expected.Select(pair => counted[pair.Key]));
        Assert.Equal([2, 3, 5, 6], await world.Store.QueryAsync<long>("SELECT id FROM dead_letters ORDER BY id"));
        Assert.Equal([2, 3, 5, 6], await world.Store.QueryAsync<long>("SELECT letter_id FROM keyless_letters ORDER BY letter_id"));
        Assert.Equal([2, 3, 5, 6], await world.Store.QueryAsync<long>("SELECT letter_id FROM replays ORDER BY letter_id"));
        Assert.Equal(["k2", "k3", "k5", "k6"], await world.Store.QueryAsync<string>("SELECT key FROM rejections ORDER BY key"));
        Assert.Equal(["i2", "i3", "i5", "i6"], await world.Store.QueryAsync<string>("SELECT fingerprint FROM incidents ORDER BY fingerprint"));
        Assert.Equal([2, 3, 4, 5], await world.Store.QueryAsync<long>("SELECT id FROM alerts ORDER BY id"));
        Assert.Equal([2, 3, 4, 5], await world.Store.QueryAsync<long>("SELECT alert_id FROM alert_deliveries ORDER BY alert_id"));
        Assert.Equal([2, 3, 4], await world.Store.QueryAsync<long>("SELECT id FROM replay_jobs ORDER BY id"));
        Assert.Equal(6, await world.CountAsync("replay_job_letters"));
        Assert.Equal([5, 6], await world.Store.QueryAsync<long>("SELECT letter_id FROM history WHERE letter_id IS NOT NULL ORDER BY letter_id"));
        Assert.Equal(["A-2"], await world.Store.QueryAsync<string>("SELECT order_id FROM refused_payments"));
        // One row says what went.
        Assert.Equal(["young", "retention"], await world.Store.QueryAsync<string>("SELECT action FROM audit ORDER BY id"));
        Assert.Contains("3 settled_dead_letters", await world.Store.ScalarAsync<string>("SELECT detail FROM audit WHERE action = 'retention'"), StringComparison.Ordinal);
        // And the second time nothing does.
        Assert.DoesNotContain((await world.RunAsync(new RetentionOptions()))!, pair => pair.Value > 0);
        Assert.Equal(1, await world.CountAsync("audit WHERE action = 'retention'"));
    }

    [Fact]
    public async Task A_process_that_ends_between_the_archive_and_the_store_leaves_an_order_there_twice_and_no_harm()
    {
        await using var world = await OpenAsync();
        await world.CloseAsync("A-1");
        await world.PublishAllAsync();
        var (found, _) = await world.Store.Database.ReadAsync(
            connection => ClosedOrders.ReadAsync(connection, OrderService.Domain.OrderStatus.Cancelled, long.MaxValue, OldRow.First, 10), Stopping);
        var archive = new OrderArchive(world.Folder, TimeProvider.System);
        archive.Append([.. found.Select(ArchivedOrder.Of)]);
        // And another one was cut off while it wrote.
        var file = Assert.Single(Directory.GetFiles(world.Folder, "*.gz"));
        await File.AppendAllTextAsync(file, "half a member", Stopping);
        await File.AppendAllTextAsync(Assert.Single(Directory.GetFiles(world.Folder, "*.manifest.ndjson")), "{\"file\":", Stopping);

        Assert.Equal(1, (await world.RunAsync(closedOrders: 30, days: 31))!["closed_orders"]);

        Assert.Equal((2L, 4L, 0L), await world.VerifyArchiveAsync());
        Assert.Equal(2, (await ArchiveReader.FindAsync(world.Folder, "A-1", Stopping))!.Version);
    }

    [Fact]
    public async Task The_check_of_an_archive_finds_what_was_changed_cut_off_or_taken_out()
    {
        await using var world = await OpenAsync();
        foreach (var order in (string[])["A-1", "A-2", "A-3"])
        {
            await world.CloseAsync(order);
            await world.PublishAllAsync();
            await world.RunAsync(closedOrders: 30, days: 31);
        }
        var (file, manifest) = (Assert.Single(Directory.GetFiles(world.Folder, "*.gz")), Assert.Single(Directory.GetFiles(world.Folder, "*.manifest.ndjson")));
        var (bytes, lines) = (await File.ReadAllBytesAsync(file, Stopping), await File.ReadAllLinesAsync(manifest, Stopping));
        Assert.Equal((3L, 6L, 0L), await world.VerifyArchiveAsync());
        Assert.Equal(3, lines.Length);

        byte[] changed = [.. bytes];
        changed[^30] ^= 1;
        await FindsAsync("are not what was written", () => File.WriteAllBytesAsync(file, changed, Stopping));
        await FindsAsync("it ends before", () => File.WriteAllBytesAsync(file, bytes[..^10], Stopping));
        await FindsAsync("that its manifest does not name", () => File.WriteAllBytesAsync(file, [.. bytes, 1, 2], Stopping));
        await FindsAsync("was changed or taken out", () => File.WriteAllLinesAsync(manifest, [lines[0], lines[2]], Stopping));
        await FindsAsync("a line can't be read", () => File.WriteAllLinesAsync(manifest, [lines[0], "{", lines[2]], Stopping));
        await FindsAsync("is missing", () => Task.Run(() => File.Delete(file), Stopping));
        await File.WriteAllBytesAsync(file, bytes, Stopping);
        await FindsAsync("has no manifest", () => Task.Run(() => File.Delete(manifest), Stopping));

        async Task FindsAsync(string what, Func<Task> damage)
        {
            await damage();
            var report = await ArchiveReader.VerifyAsync(world.Folder, Stopping);
            Assert.Contains(report.Findings, finding => finding.Contains(what, StringComparison.Ordinal));
            if (File.Exists(manifest))
            {
                await File.WriteAllBytesAsync(file, bytes, Stopping);
                await File.WriteAllLinesAsync(manifest, lines, Stopping);
            }
        }
    }

    [Fact]
    public async Task One_instance_works_at_a_time_and_what_another_left_unfinished_goes_on()
    {
        await using var world = await OpenAsync();
        await world.Store.ExecuteAsync($"INSERT INTO audit (at, who, action, subject, detail) VALUES ({Now - (401 * Day)}, 'anna', 'old', 's', 'd')");
        await world.Store.ExecuteAsync($"UPDATE retention SET holder = 'other', held_until = {Now + 20_000}, began_at = 1, done = '{{\"audit\":4}}'");
        Assert.Null(await world.RunAsync(new RetentionOptions()));
        Assert.Equal(1, await world.CountAsync("audit"));

        // It was not heard of for long.
        await world.Store.ExecuteAsync($"UPDATE retention SET held_until = {Now - 1}");
        Assert.Equal(5, (await world.RunAsync(new RetentionOptions()))!["audit"]);
        Assert.Contains("5 audit", await world.Store.ScalarAsync<string>("SELECT detail FROM audit"), StringComparison.Ordinal);

        // Somebody takes it over in the middle of a step: nothing of that step goes.
        await world.Store.ExecuteAsync($"INSERT INTO audit (at, who, action, subject, detail) VALUES ({Now - (401 * Day)}, 'anna', 'old', 's', 'd')");
        var step = new RetentionStep(world.Store.Database, TimeProvider.System, (transaction, _) => RetentionTable.NoteAsync(transaction, "me", "{}", Now));
        await Assert.ThrowsAsync<RetentionLostException>(() => step.RunAsync([1L], (transaction, _) => AuditTrail.RemoveAsync(transaction, 2, Now), Stopping));
        Assert.Equal(2, await world.CountAsync("audit"));
    }

    [Fact]
    public async Task A_step_ends_when_its_time_is_over_and_the_next_one_goes_on()
    {
        await using var world = await OpenAsync();
        for (var row = 0; row < 10; row++)
        {
            await world.Store.ExecuteAsync($"INSERT INTO audit (at, who, action, subject, detail) VALUES ({row}, 'anna', 'old', 's', 'd')");
        }
        var rows = await world.Store.Database.ReadAsync(connection => AuditTrail.OldAsync(connection, Now, OldRow.First, 100), Stopping);
        var clock = new SteppingTime(DateTimeOffset.UnixEpoch);
        var step = new RetentionStep(world.Store.Database, clock, (_, _) => Task.FromResult(true));

        var result = await step.RunAsync(
            rows,
            (transaction, row) =>
            {
                clock.Advance(TimeSpan.FromMilliseconds(6));
                return AuditTrail.RemoveAsync(transaction, row.Id, Now);
            },
            Stopping);

        Assert.Equal((4, 4L, TimeSpan.FromMilliseconds(24)), (result.Looked, result.Removed, result.Took));
        Assert.Equal(6, await world.CountAsync("audit"));
    }

    private async Task<World> OpenAsync(bool newest = true)
    {
        var world = new World(await OpenStoreAsync());
        if (newest)
        {
            await world.AppendAsync(Place("first", "first"));
        }
        return world;
    }

    private sealed class World(TestStore store) : IAsyncDisposable
    {
        private readonly ServiceProvider services = new ServiceCollection().AddMetrics().BuildServiceProvider();
        private readonly string parent = Directory.CreateTempSubdirectory("orderservice-archive-").FullName;
        private int younger;

        public TestStore Store { get; } = store;

        public StoreInstance Instance { get; } = new(store.Database, store.Log);

        public string Folder => Path.Combine(parent, "archive");

        public Task<Append> AppendAsync(params Incoming[] batch) => Instance.AppendAsync(batch);

        public async Task CloseAsync(string orderId) => await AppendAsync(Place($"place-{orderId}", orderId), Cancel($"cancel-{orderId}", orderId));

        /// <summary>Everything is published, and one more order comes: the newest one never goes.</summary>
        public async Task PublishAllAsync(string except = "none")
        {
            if (await CountAsync("orders WHERE order_id = 'first'") > 0)
            {
                var newest = $"newest-{++younger}";
                await AppendAsync(Place(newest, newest));
            }
            await Store.ExecuteAsync("DELETE FROM outbox WHERE order_id <> @except", new { except });
        }

        public async Task<long> CountAsync(string what) => await Store.ScalarAsync<long>($"SELECT count(*) FROM {what}");

        public RetentionRound Round(RetentionOptions options, int days = 0)
        {
            var time = new StoreTime(TimeProvider.System) { ServerClock = () => DateTimeOffset.FromUnixTimeMilliseconds(Now + (days * Day)) };
            return new RetentionRound(
                Store.Database, new RetentionKinds(NullLogger<RetentionKinds>.Instance), Options.Create(options), new OrderMetrics(services.GetRequiredService<IMeterFactory>()), time, TimeProvider.System);
        }

        public Task<IReadOnlyDictionary<string, long>?> RunAsync(RetentionOptions options, int days = 0) => Round(options, days).RunAsync(null, Stopping);

        public Task<IReadOnlyDictionary<string, long>?> RunAsync(int closedOrders, int days) =>
            RunAsync(new RetentionOptions { ClosedOrders = closedOrders, ArchiveFolder = Folder, Audit = 0 }, days);

        public async Task<(long Orders, long Events, long Wrong)> VerifyArchiveAsync()
        {
            var report = await ArchiveReader.VerifyAsync(Folder, Stopping);
            Assert.Equal(report.Wrong == 0, report.Findings.Count == 0);
            return (report.Orders, report.Events, report.Wrong);
        }

        public async ValueTask DisposeAsync()
        {
            await services.DisposeAsync();
            await Store.DisposeAsync();
            Directory.Delete(parent, recursive: true);
        }
    }
}

public sealed class SqliteRetentionTests : RetentionContract
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync();
}

public sealed class PostgresRetentionTests(PostgresContainerFixture postgres) : RetentionContract
{
    protected override Task<TestStore> OpenStoreAsync() => TestStore.OpenAsync(postgres);
}

using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using Microsoft.Extensions.Time.Testing;
using OrderService.Database;
using OrderService.Observability;
using OrderService.Store;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Database;

/// <summary>Backups that the service makes by itself.</summary>
public sealed class BackupScheduleTests : IAsyncLifetime
{
    private readonly FakeTimeProvider clock = new(new DateTimeOffset(2026, 11, 27, 18, 0, 0, TimeSpan.Zero));
    private readonly string folder = Directory.CreateTempSubdirectory("orderservice-schedule-").FullName;
    private readonly Troubles troubles;
    private TestStore store = null!;

    public BackupScheduleTests() => troubles = new Troubles(clock);

    private string Backups => Path.Combine(folder, "backups");

    private IEnumerable<string> Names => Directory.GetFiles(Backups).Select(file => Path.GetFileName(file)).Order(StringComparer.Ordinal);

    public async ValueTask InitializeAsync() => store = await TestStore.OpenAsync();

    public async ValueTask DisposeAsync()
    {
        await store.DisposeAsync();
        Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public async Task One_is_made_at_once_and_then_in_each_interval_and_the_newest_are_kept_and_no_other_file_is_touched()
    {
        Directory.CreateDirectory(Backups);
        await File.WriteAllTextAsync(Path.Combine(Backups, "orders-notes.backup.db"), "mine", TestContext.Current.CancellationToken);
        await File.WriteAllTextAsync(Path.Combine(Backups, "orders-20261127T170000Z.backup.db.0a1b2c3d.unfinished"), "left", TestContext.Current.CancellationToken);
        await using (await RunAsync())
        {
            await HasAsync("orders-20261127T180000Z.backup.db", "orders-notes.backup.db");
            for (var hour = 1; hour <= 3; hour++)
            {
                await AdvanceAsync(TimeSpan.FromHours(1), $"orders-20261127T{18 + hour}0000Z.backup.db");
            }
            await HasAsync("orders-20261127T200000Z.backup.db", "orders-20261127T210000Z.backup.db", "orders-notes.backup.db");
        }
        Assert.Equal(0, (await SqliteBackup.CheckAsync(Path.Combine(Backups, "orders-20261127T210000Z.backup.db"), TestContext.Current.CancellationToken)).Events);

        // A restart makes none before its time.
        clock.Advance(TimeSpan.FromMinutes(30));
        await using (await RunAsync())
        {
            await AdvanceAsync(TimeSpan.FromMinutes(30), "orders-20261127T220000Z.backup.db");
            Assert.DoesNotContain("orders-20261127T213000Z.backup.db", Names);
        }
        Assert.Empty(troubles.Standing);
    }

    [Fact]
    public async Task One_that_fails_is_a_trouble_until_one_succeeds()
    {
        await File.WriteAllTextAsync(Backups, "a file where the folder was to be", TestContext.Current.CancellationToken);
        await using var running = await RunAsync();
        await Eventually.TrueAsync(() => troubles.Stands("store:backup"));
        var trouble = Assert.Single(troubles.Standing).Trouble;
        Assert.Contains("There is none yet.", trouble.Detail, StringComparison.Ordinal);
        Assert.Contains(Backups, trouble.Detail, StringComparison.Ordinal);

        File.Delete(Backups);
        await Eventually.TrueAsync(() =>
        {
            clock.Advance(TimeSpan.FromMinutes(1));
            return !troubles.Stands("store:backup");
        });
        Assert.Single(Names);
    }

    private Task HasAsync(params string[] names) => Eventually.HoldsAsync(() =>
    {
        Assert.Equal(names, Names);
        return Task.CompletedTask;
    });

    /// <summary>Minute by minute: the schedule looks as often.</summary>
    private async Task AdvanceAsync(TimeSpan time, string until)
    {
        var end = clock.GetUtcNow() + time;
        await Eventually.TrueAsync(() =>
        {
            if (clock.GetUtcNow() < end)
            {
                clock.Advance(TimeSpan.FromMinutes(1));
            }
            return clock.GetUtcNow() >= end && Names.Contains(until);
        });
    }

    private async Task<Running> RunAsync()
    {
        var schedule = new BackupSchedule(
            (SqliteDatabase)store.Database,
            Options.Create(new StoreOptions { Backup = new StoreBackupOptions { Folder = Backups, Interval = TimeSpan.FromHours(1), Keep = 2 } }),
            troubles, clock, NullLogger<BackupSchedule>.Instance);
        await schedule.StartAsync(TestContext.Current.CancellationToken);
        return new Running(schedule);
    }

    private sealed class Running(BackupSchedule schedule) : IAsyncDisposable
    {
        public async ValueTask DisposeAsync()
        {
            await schedule.StopAsync(CancellationToken.None);
            schedule.Dispose();
        }
    }
}

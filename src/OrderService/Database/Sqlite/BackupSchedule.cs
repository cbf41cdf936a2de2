using System.Globalization;
using Microsoft.Extensions.Options;
using OrderService.Observability;
using OrderService.Store;

namespace OrderService.Database;

/// <summary>Makes a backup of the SQLite store that this process serves every <c>Store:Backup:Interval</c>, and keeps the newest. One that fails is a trouble that an alert tells of.</summary>
internal sealed partial class BackupSchedule(SqliteDatabase database, IOptions<StoreOptions> options, Troubles troubles, TimeProvider clock, ILogger<BackupSchedule> logger) : BackgroundService
{
    private const string Trouble = "store:backup";
    private const string TimeInName = "yyyyMMdd'T'HHmmss'Z'";
    private const string Ending = ".backup.db";
    private static readonly TimeSpan LongestPause = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan RetryAfter = TimeSpan.FromMinutes(10);

    private readonly StoreBackupOptions settings = options.Value.Backup;
    private readonly string beginning = Path.GetFileNameWithoutExtension(options.Value.Path) + "-";

    private DateTimeOffset? failedAt;

    private string Folder => Path.GetFullPath(settings.Folder!);

    // An unfinished one is thrown away when the service stops; the next start makes another.
    protected override Task ExecuteAsync(CancellationToken stoppingToken) =>
        PeriodicLoop.AtOnceAsync(settings.Interval < LongestPause ? settings.Interval : LongestPause, clock, LookAsync, stoppingToken);

    private async Task LookAsync(CancellationToken stoppingToken)
    {
        // By the files and not by memory: a restart makes no backup before its time and misses none.
        var newest = Backups().Select(backup => (DateTimeOffset?)backup.At).LastOrDefault();
        if (newest + settings.Interval > clock.GetUtcNow() || failedAt + (settings.Interval < RetryAfter ? settings.Interval : RetryAfter) > clock.GetUtcNow())
        {
            return;
        }
        try
        {
            await MakeAsync(stoppingToken);
            failedAt = null;
            troubles.Clear(Trouble);
        }
        catch (Exception exception) when (exception is StoreFileException or StoreUnavailableException or IOException or UnauthorizedAccessException)
        {
            failedAt = clock.GetUtcNow();
            LogFailed(exception.Message);
            var there = newest is { } last
                ? string.Create(CultureInfo.InvariantCulture, $"The newest one is of {last:yyyy-MM-dd HH:mm:ss'Z'}.")
                : "There is none yet.";
            troubles.Raise(new Trouble(
                Trouble, TroubleLevel.Notice, "The store is not backed up",
                $"A backup to {Folder} failed: {exception.Message} {there}",
                "Make room, or name another folder (Store:Backup:Folder); it is tried again in some minutes."));
        }
    }

    private async Task MakeAsync(CancellationToken stoppingToken)
    {
        var began = clock.GetTimestamp();
        var file = Path.Combine(Folder, beginning + clock.GetUtcNow().UtcDateTime.ToString(TimeInName, CultureInfo.InvariantCulture) + Ending);
        RemoveUnfinished();
        var facts = await database.BackUpAsync(file, mayReplace: false, null, stoppingToken);
        LogMade(file, facts, clock.GetElapsedTime(began).TotalSeconds);
        foreach (var (old, _) in Backups().SkipLast(settings.Keep))
        {
            File.Delete(old);
            LogRemoved(old, settings.Keep);
        }
    }

    /// <summary>The backups of this store in the folder, the oldest first. Files with other names are not its own and stay.</summary>
    private List<(string File, DateTimeOffset At)> Backups()
    {
        var found = new List<(string File, DateTimeOffset At)>();
        foreach (var file in Directory.Exists(Folder) ? Directory.GetFiles(Folder, $"{beginning}*{Ending}") : [])
        {
            var name = Path.GetFileName(file);
            if (DateTimeOffset.TryParseExact(name[beginning.Length..^Ending.Length], TimeInName, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var at))
            {
                found.Add((file, at));
            }
        }
        found.Sort((one, other) => one.At.CompareTo(other.At));
        return found;
    }

    /// <summary>What a process left that ended in the middle of a backup; only this one makes any here.</summary>
    private void RemoveUnfinished()
    {
        foreach (var file in Directory.Exists(Folder) ? Directory.GetFiles(Folder, $"{beginning}*{Ending}.*{SqliteBackup.Unfinished}") : [])
        {
            SqliteBackup.Remove(file);
        }
    }

    [LoggerMessage(LogLevel.Information, "The store was backed up to {File} in {Seconds:0.0} s: {Facts}")]
    private partial void LogMade(string file, StoreFacts facts, double seconds);

    [LoggerMessage(LogLevel.Information, "The backup {File} was removed: {Keep} newer ones are kept (Store:Backup:Keep)")]
    private partial void LogRemoved(string file, int keep);

    [LoggerMessage(LogLevel.Error, "The store was not backed up: {Reason}")]
    private partial void LogFailed(string reason);
}

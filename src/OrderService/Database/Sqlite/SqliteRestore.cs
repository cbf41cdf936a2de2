using System.Globalization;
using Microsoft.Extensions.Logging.Abstractions;
using OrderService.Store;

namespace OrderService.Database;

/// <summary>What a restore did.</summary>
/// <param name="Kept">Where what was there before is now; null when there was nothing.</param>
public sealed record RestoreReport(StoreFacts Backup, EpochRow Epoch, string? Kept);

/// <summary>Puts a backup in the place of a SQLite store. What was there is kept under another name, its log with it, so that no log ever lies beside a file that is not its own.</summary>
public sealed class SqliteRestore(string path, TimeProvider clock)
{
    private readonly string path = Path.GetFullPath(path);

    /// <param name="file">The backup; it is only read.</param>
    /// <param name="atLeast">See <see cref="IDatabase.BeginEpochAsync"/>.</param>
    /// <exception cref="StoreFileException">The file is no backup, or there is no room. Nothing was changed.</exception>
    /// <exception cref="StoreInUseException">The service runs.</exception>
    public async Task<RestoreReport> RunAsync(string file, long atLeast, CancellationToken cancellationToken)
    {
        file = Path.GetFullPath(file);
        if (file == path)
        {
            throw new StoreFileException($"{file} is the store itself. Where it was put there by other means, orderservice store restore --in-place begins its next epoch.");
        }
        SqliteBackup.RequireStore(file);
        using var claim = SqliteClaim.TakeToReplace(path, clock);
        var restored = path + ".restored";
        try
        {
            SqliteBackup.Remove(restored);
            SqliteBackup.RequireRoom(path, new FileInfo(file).Length);
            await CopyAsync(file, restored, cancellationToken);
            var backup = await SqliteBackup.CheckAsync(restored, cancellationToken, called: file);
            var (epoch, seen) = await BeginEpochAsync(restored, Math.Max(atLeast, (claim.SeenBefore?.Epoch ?? 0) + 1), cancellationToken);
            // From here on it is done, or the next start says that it was not.
            claim.BeginReplace();
            var kept = KeepWhatIsThere();
            File.Move(restored, path);
            LinuxFile.SyncFolder(Path.GetDirectoryName(path)!);
            SqliteRelayLease.Jump(path, StoreEpoch.RowsBefore(epoch.Number));
            claim.EndReplace(seen);
            return new RestoreReport(backup, epoch, kept);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new StoreFileException($"The store can't be put back: {exception.Message}", exception);
        }
        finally
        {
            SqliteBackup.Remove(restored);
        }
    }

    private static async Task CopyAsync(string file, string copy, CancellationToken cancellationToken)
    {
        await using var from = new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 1 << 20, useAsync: true);
        await using (var to = OwnerOnly.New(copy))
        {
            await from.CopyToAsync(to, 1 << 20, cancellationToken);
        }
    }

    private async Task<(EpochRow Begun, SqliteSeen Seen)> BeginEpochAsync(string file, long atLeast, CancellationToken cancellationToken)
    {
        (EpochRow, SqliteSeen) begun;
        await using (var database = new SqliteDatabase(file, clock, NullLogger<SqliteDatabase>.Instance))
        {
            begun = (await database.BeginEpochAsync(atLeast, "restore", cancellationToken), await database.ReadAsync(SqliteEpochs.SeenAsync, cancellationToken));
        }
        if (File.Exists(file + "-wal"))
        {
            throw new StoreFileException($"{file} could not be made one file; nothing was changed.");
        }
        SqliteBackup.Durable(file);
        return begun;
    }

    private string? KeepWhatIsThere()
    {
        var kept = string.Create(CultureInfo.InvariantCulture, $"{path}.before-restore-{clock.GetUtcNow():yyyyMMdd'T'HHmmss'Z'}");
        // The log first: alone under the old name it could be taken for the new file's.
        foreach (var suffix in (string[])["-wal", ""])
        {
            if (File.Exists(path + suffix))
            {
                File.Move(path + suffix, kept + suffix);
            }
        }
        File.Delete(path + "-shm");
        return File.Exists(kept) ? kept : null;
    }
}

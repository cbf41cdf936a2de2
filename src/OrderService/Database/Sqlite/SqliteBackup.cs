using System.Globalization;
using Microsoft.Data.Sqlite;
using OrderService.Store;
using SQLitePCL;

namespace OrderService.Database;

/// <summary>What is in a store, for people to compare.</summary>
/// <param name="LastAt">When the newest event was recorded, in Unix milliseconds; null when there is none.</param>
public sealed record StoreFacts(int Schema, string StoreId, long Epoch, long Orders, long Events, long LastPosition, long? LastAt)
{
    public override string ToString() => string.Create(
        CultureInfo.InvariantCulture,
        $"schema {Schema}, epoch {Epoch}, {Orders} orders with {Events} events{(LastAt is { } at ? $", the last of {DateTimeOffset.FromUnixTimeMilliseconds(at):yyyy-MM-dd HH:mm:ss'Z'} at position {LastPosition}" : "")}");
}

/// <summary>A backup of a SQLite store: one file that holds one moment of it, made while the service runs and checked before it gets its name.</summary>
internal static class SqliteBackup
{
    /// <summary>In pages of 4 KB; between two steps the copying can be interrupted, and what was copied goes to the disk, so that no commit waits for all of it.</summary>
    private const int PagesAStep = 256;

    private const int StepsBetweenSyncs = 4;

    /// <summary>Beside the file until it is whole.</summary>
    public const string Unfinished = ".unfinished";

    /// <summary>Copies what the connection sees now.</summary>
    /// <param name="source">A connection for reading; other writers go on beside it.</param>
    /// <param name="mayReplace">A file of that name may be there; it is replaced when the new one is whole.</param>
    /// <exception cref="StoreFileException">There is no room, or a file of that name, or the copy is not what was copied.</exception>
    public static async Task<StoreFacts> MakeAsync(SqliteConnection source, string file, bool mayReplace, IProgress<(long Done, long Total)>? progress, CancellationToken cancellationToken)
    {
        file = Path.GetFullPath(file);
        if (!mayReplace && File.Exists(file))
        {
            throw new StoreFileException($"{file} is there already and stays as it is; name another file, or say --force.");
        }
        var unfinished = $"{file}.{Guid.NewGuid().ToString("N")[..8]}{Unfinished}";
        try
        {
            // Before the first look: a read transaction that has begun sees one moment of the store, however long it takes.
            using var moment = source.BeginTransaction(deferred: true);
            var expected = await FactsAsync(new StoreConnection(source, keys: null, isSqlite: true));
            RequireRoom(file, Scalar(source, "PRAGMA page_count") * Scalar(source, "PRAGMA page_size"));
            OwnerOnly.CreateFolder(Path.GetDirectoryName(file)!);
            OwnerOnly.New(unfinished).Dispose();
            Copy(source, unfinished, progress, cancellationToken);
            var copied = await CheckAsync(unfinished, cancellationToken);
            if (copied != expected)
            {
                throw new StoreFileException($"The copy is not what was copied ({copied} instead of {expected}); it was thrown away.");
            }
            Durable(unfinished);
            File.Move(unfinished, file, mayReplace);
            LinuxFile.SyncFolder(Path.GetDirectoryName(file)!);
            return copied;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new StoreFileException($"{file} can't be written: {exception.Message}", exception);
        }
        catch (SqliteException exception) when (exception.SqliteErrorCode is raw.SQLITE_FULL or raw.SQLITE_IOERR or raw.SQLITE_CANTOPEN)
        {
            throw new StoreFileException($"{file} can't be written: {exception.Message}", exception);
        }
        finally
        {
            Remove(unfinished);
        }
    }

    /// <summary>Looks whether a file is a whole store that this version can read.</summary>
    /// <param name="called">What the file is called in what is said of it, where it is a copy.</param>
    /// <exception cref="StoreFileException">It is not.</exception>
    public static async Task<StoreFacts> CheckAsync(string file, CancellationToken cancellationToken, string? called = null)
    {
        RequireStore(file);
        called ??= file;
        try
        {
            await using var connection = OpenAlone(file, SqliteOpenMode.ReadOnly);
            RequireTables(connection, called);
            using (var interrupt = cancellationToken.Register(() => raw.sqlite3_interrupt(connection.Handle!)))
            {
                var findings = Texts(connection, "PRAGMA integrity_check(5)");
                if (findings is not ["ok"])
                {
                    throw new StoreFileException($"{called} is damaged: {string.Join("; ", findings)}.");
                }
            }
            return await FactsAsync(new StoreConnection(connection, keys: null, isSqlite: true));
        }
        catch (SqliteException exception)
        {
            cancellationToken.ThrowIfCancellationRequested();
            throw new StoreFileException($"{called} can't be read: {exception.Message}", exception);
        }
    }

    /// <summary>What shows before SQLite opens it: that it is a database, of this version or an older one, and all in one file.</summary>
    public static void RequireStore(string file)
    {
        if (!File.Exists(file))
        {
            throw new StoreFileException($"There is no file {file}.");
        }
        if (SqliteClaim.SchemaOf(file) is not { } schema)
        {
            throw new StoreFileException($"{file} is no SQLite database.");
        }
        Migration.RequireNoNewer(schema, "Sqlite", file);
        if (schema == 0)
        {
            throw new StoreFileException($"{file} is a SQLite database and no store of this service.");
        }
        if (File.Exists(file + "-wal") && new FileInfo(file + "-wal").Length > 0)
        {
            throw new StoreFileException(
                $"{file} is not all of it: there is a log beside it, {file}-wal, that has something in it. Make one file of the two with sqlite3 {file} 'PRAGMA wal_checkpoint(TRUNCATE)', if they belong together.");
        }
    }

    public static void RequireRoom(string file, long bytes)
    {
        var folder = Path.GetDirectoryName(Path.GetFullPath(file))!;
        while (!Directory.Exists(folder) && Path.GetDirectoryName(folder) is { } above)
        {
            folder = above;
        }
        var free = new DriveInfo(folder).AvailableFreeSpace;
        if (free < bytes)
        {
            throw new StoreFileException(string.Create(CultureInfo.InvariantCulture, $"{folder} has {free / 1_000_000} MB free, and {bytes / 1_000_000 + 1} MB are needed; nothing was written."));
        }
    }

    public static void Durable(string file)
    {
        using var handle = File.OpenHandle(file, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
        RandomAccess.FlushToDisk(handle);
    }

    private static void Copy(SqliteConnection source, string file, IProgress<(long Done, long Total)>? progress, CancellationToken cancellationToken)
    {
        using var target = OpenAlone(file, SqliteOpenMode.ReadWrite);
        // Whatever happens to an unfinished file does no harm.
        Execute(target, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF");
        using (var handle = File.OpenHandle(file, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite))
        using (var backup = raw.sqlite3_backup_init(target.Handle!, "main", source.Handle!, "main"))
        {
            if (backup is null || backup.IsInvalid)
            {
                throw new SqliteException(raw.sqlite3_errmsg(target.Handle!).utf8_to_string(), raw.sqlite3_errcode(target.Handle!));
            }
            for (var steps = 1; ; steps++)
            {
                cancellationToken.ThrowIfCancellationRequested();
                // The source's read transaction was begun before, so that no step sees another moment than the first, and none begins anew.
                var code = raw.sqlite3_backup_step(backup, PagesAStep);
                if (code == raw.SQLITE_DONE)
                {
                    break;
                }
                if (code != raw.SQLITE_OK)
                {
                    throw new SqliteException($"The copying failed: {raw.sqlite3_errstr(code).utf8_to_string()}", code);
                }
                var (total, left) = (raw.sqlite3_backup_pagecount(backup), raw.sqlite3_backup_remaining(backup));
                progress?.Report((total - left, total));
                if (steps % StepsBetweenSyncs == 0)
                {
                    RandomAccess.FlushToDisk(handle);
                }
            }
        }
        // One file, and nothing beside it.
        Execute(target, "PRAGMA journal_mode = DELETE");
    }

    private static async Task<StoreFacts> FactsAsync(StoreConnection connection)
    {
        var schema = await connection.ExecuteScalarAsync<int>("PRAGMA user_version");
        var newest = await EventQueries.NewestAsync(connection);
        // An older version's has no epochs yet.
        var hasEpochs = await connection.ExecuteScalarAsync<long>("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'store_identity'") > 0;
        return new StoreFacts(
            schema,
            hasEpochs ? await EpochsTable.StoreIdAsync(connection) : "",
            hasEpochs ? await EpochsTable.CurrentAsync(connection) : StoreEpoch.First,
            await EventQueries.OrderCountAsync(connection),
            await EventQueries.CountAsync(connection),
            newest,
            await EventQueries.RecordedAtAsync(connection, newest));
    }

    private static void RequireTables(SqliteConnection connection, string file)
    {
        if (Scalar(connection, "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('events', 'orders', 'inbox')") < 3)
        {
            throw new StoreFileException($"{file} is a SQLite database and no store of this service.");
        }
    }

    /// <summary>Of files that nobody else has open.</summary>
    private static SqliteConnection OpenAlone(string file, SqliteOpenMode mode)
    {
        var connection = new SqliteConnection(new SqliteConnectionStringBuilder { DataSource = file, Mode = mode, Pooling = false }.ToString());
        try
        {
            connection.Open();
            return connection;
        }
        catch
        {
            connection.Dispose();
            throw;
        }
    }

    private static void Execute(SqliteConnection connection, string sql)
    {
        using var command = connection.CreateCommand();
        command.CommandText = sql;
        command.ExecuteNonQuery();
    }

    private static long Scalar(SqliteConnection connection, string sql)
    {
        using var command = connection.CreateCommand();
        command.CommandText = sql;
        return Convert.ToInt64(command.ExecuteScalar(), CultureInfo.InvariantCulture);
    }

    private static List<string> Texts(SqliteConnection connection, string sql)
    {
        using var command = connection.CreateCommand();
        command.CommandText = sql;
        using var reader = command.ExecuteReader();
        var texts = new List<string>();
        while (reader.Read())
        {
            texts.Add(reader.GetString(0));
        }
        return texts;
    }

    public static void Remove(string file)
    {
        foreach (var one in (string[])[file, file + "-wal", file + "-shm", file + "-journal"])
        {
            File.Delete(one);
        }
    }
}

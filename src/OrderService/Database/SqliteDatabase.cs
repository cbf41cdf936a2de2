using System.Data.Common;
using Microsoft.Data.Sqlite;

namespace OrderService.Database;

/// <summary>
/// The embedded store: one file, one writer thread. Transactions that wait while another one commits share the next COMMIT (group commit),
/// which is where the speed comes from: <c>synchronous=FULL</c> makes every commit wait for the disk.
/// </summary>
public sealed partial class SqliteDatabase : IDatabase
{
    // Older libraries can corrupt a WAL file (https://sqlite.org/wal.html#walresetbug).
    private static readonly Version OldestSafe = new(3, 51, 3);

    private const int WritesPerCommit = 64;

    // In pages of 4 KB. Pages that are written again and again, as those of an index are, are copied once a checkpoint: seldom is cheap.
    private const int FramesBetweenCheckpoints = 8 * 1024;
    private const int FramesBeforeStartingOver = 16 * 1024;
    private static readonly TimeSpan LongestBetweenCheckpoints = TimeSpan.FromSeconds(2);

    private readonly string connectionString;
    private readonly string path;
    private readonly ILogger<SqliteDatabase> logger;
    private readonly Queue<Write> writes = new();
    private readonly Thread writer;
    private readonly TaskCompletionSource writerEnded = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly CancellationTokenSource stop = new();
    private readonly Task checkpoints;
    private SqliteConnection? writerConnection;
    private bool isClosing;
    private volatile bool startLogOver;

    public SqliteDatabase(string path, TimeProvider clock, ILogger<SqliteDatabase> logger)
    {
        this.path = Path.GetFullPath(path);
        this.logger = logger;
        SqliteWalFile.RegisterFileSystem();
        connectionString = new SqliteConnectionStringBuilder
        {
            DataSource = this.path,
            Mode = SqliteOpenMode.ReadWriteCreate,
            Cache = SqliteCacheMode.Private,
            Pooling = true,
            Vfs = SqliteWalFile.FileSystem,
            DefaultTimeout = 30,
        }.ToString();
        writer = new Thread(WriteLoop) { IsBackground = true, Name = "store writer" };
        writer.Start();
        checkpoints = Task.Run(() => CheckpointLoopAsync(clock));
    }

    public string Provider => "Sqlite";

    /// <summary>The connection of the writer thread; only code that runs inside <see cref="WriteAsync"/> may use it.</summary>
    internal SqliteConnection WriterConnection => writerConnection ?? throw new InvalidOperationException("Only a write may use the writer's connection.");

    public async Task MigrateAsync(CancellationToken cancellationToken)
    {
        await WriteAsync(async transaction =>
        {
            var connection = (SqliteConnection)transaction.Connection!;
            using var command = connection.CreateCommand();
            command.Transaction = (SqliteTransaction)transaction;
            command.CommandText = "PRAGMA user_version";
            var current = Convert.ToInt32(await command.ExecuteScalarAsync(CancellationToken.None), System.Globalization.CultureInfo.InvariantCulture);
            foreach (var migration in Migration.All("Sqlite"))
            {
                if (migration.Number <= current)
                {
                    continue;
                }
                command.CommandText = migration.Sql + $"\n;PRAGMA user_version = {migration.Number};";
                await command.ExecuteNonQueryAsync(CancellationToken.None);
                LogMigrated(migration.Name);
            }
            if (current > Migration.All("Sqlite")[^1].Number)
            {
                throw new StoreSettingsException($"The store {path} was written by a newer version (schema {current}); run that version or restore a backup.");
            }
            return true;
        }, cancellationToken);
    }

    public async Task<T> ReadAsync<T>(Func<DbConnection, Task<T>> read, CancellationToken cancellationToken = default)
    {
        // SQLite's async methods block; a query must not hold the caller's thread.
        return await Task.Run(async () =>
        {
            try
            {
                await using var connection = new SqliteConnection(connectionString);
                connection.Open();
                Configure(connection);
                return await read(connection);
            }
            catch (SqliteException exception)
            {
                throw SqliteErrors.Translate(exception);
            }
        }, cancellationToken);
    }

    public Task<T> WriteAsync<T>(Func<DbTransaction, Task<T>> write, CancellationToken cancellationToken = default) =>
        EnqueueAsync(new Write<T>(write, isLarge: false, cancellationToken));

    /// <summary>Like <see cref="WriteAsync"/>, for a write of many pages: it comes first in its transaction, where it costs least.</summary>
    internal Task<T> WriteLargeAsync<T>(Func<DbTransaction, Task<T>> write, CancellationToken cancellationToken) =>
        EnqueueAsync(new Write<T>(write, isLarge: true, cancellationToken));

    private Task<T> EnqueueAsync<T>(Write<T> job)
    {
        lock (writes)
        {
            if (isClosing)
            {
                throw new StoreUnavailableException("The store is closing.");
            }
            writes.Enqueue(job);
            Monitor.Pulse(writes);
        }
        return job.Completion.Task;
    }

    public async ValueTask DisposeAsync()
    {
        lock (writes)
        {
            if (isClosing)
            {
                return;
            }
            isClosing = true;
            Monitor.Pulse(writes);
        }
        await writerEnded.Task;
        await stop.CancelAsync();
        await checkpoints;
        stop.Dispose();
    }

    private void WriteLoop()
    {
        var batch = new List<Write>(WritesPerCommit);
        try
        {
            while (Take(batch))
            {
                // Those that wait at the same moment have no order among them.
                if (batch.FindIndex(job => job.IsLarge) is > 0 and var large)
                {
                    (batch[0], batch[large]) = (batch[large], batch[0]);
                }
                CommitTogether(batch);
            }
        }
        finally
        {
            CloseWriter();
            writerEnded.SetResult();
        }
    }

    /// <summary>Waits for writes; false when the store closes and none is left. The thread sleeps: waiting for a task would first spin, at the cost of those it waits for.</summary>
    private bool Take(List<Write> batch)
    {
        batch.Clear();
        lock (writes)
        {
            while (writes.Count == 0)
            {
                if (isClosing)
                {
                    return false;
                }
                Monitor.Wait(writes);
            }
            while (batch.Count < WritesPerCommit && writes.TryDequeue(out var job))
            {
                batch.Add(job);
            }
            return true;
        }
    }

    private void CommitTogether(List<Write> batch)
    {
        try
        {
            var connection = OpenWriter();
            var transaction = connection.BeginTransaction(deferred: false);
            try
            {
                // Nothing stands before the first that must outlive its failure, so it does without a savepoint, for which SQLite copies every page before its first
                // change: for a batch of orders that was an eighth of the service's processor time.
                if (!TryRun(batch[0], transaction))
                {
                    transaction.Dispose();
                    transaction = connection.BeginTransaction(deferred: false);
                }
                foreach (var job in batch.Skip(1))
                {
                    RunInSavepoint(job, transaction);
                }
                transaction.Commit();
            }
            finally
            {
                transaction.Dispose();
            }
        }
        catch (Exception exception)
        {
            var translated = exception switch
            {
                SqliteException sqlite => SqliteErrors.Translate(sqlite),
                IOException or UnauthorizedAccessException => new StoreUnavailableException($"The folder of the store can't be used: {exception.Message}", exception),
                _ => exception,
            };
            LogCommitFailed(translated.Message);
            // The connection's state is not to be trusted after a failed COMMIT; the next batch opens a new one.
            CloseWriter();
            foreach (var job in batch)
            {
                job.Fail(translated);
            }
            return;
        }
        foreach (var job in batch)
        {
            job.Complete();
        }
        if (startLogOver)
        {
            StartLogOver();
        }
    }

    /// <summary>
    /// Copies the few pages that were written since the last checkpoint. When all are copied, SQLite's next write begins at the start of the log file again, whose blocks
    /// are there already; under a steady load a checkpoint beside the writer never catches up with it.
    /// </summary>
    private void StartLogOver()
    {
        startLogOver = false;
        try
        {
            Checkpoint(writerConnection!, "PASSIVE");
        }
        catch (SqliteException exception)
        {
            LogCheckpointFailed(exception.Message);
        }
    }

    /// <returns>How many pages the log holds, and how many of them are in the database file (https://sqlite.org/pragma.html#pragma_wal_checkpoint).</returns>
    private static (int Frames, int Copied) Checkpoint(SqliteConnection connection, string mode)
    {
        using var command = connection.CreateCommand();
        command.CommandText = $"PRAGMA wal_checkpoint({mode})";
        using var answer = command.ExecuteReader();
        answer.Read();
        return (answer.GetInt32(1), answer.GetInt32(2));
    }

    private static void RunInSavepoint(Write job, SqliteTransaction transaction)
    {
        transaction.Save("one");
        if (!TryRun(job, transaction))
        {
            // Only this write fails; its neighbours commit.
            transaction.Rollback("one");
        }
        transaction.Release("one");
    }

    /// <returns>False when the write failed and what it did has to be rolled back.</returns>
    private static bool TryRun(Write job, SqliteTransaction transaction)
    {
        if (job.IsCancelled)
        {
            return true;
        }
        try
        {
            job.Run(transaction);
            return true;
        }
        catch (Exception exception) when (exception is not SqliteException sqlite || !SqliteErrors.EndsTransaction(sqlite))
        {
            job.FailLater(exception is SqliteException inner ? SqliteErrors.Translate(inner) : exception);
            return false;
        }
    }

    private SqliteConnection OpenWriter()
    {
        if (writerConnection is not null)
        {
            return writerConnection;
        }
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        var connection = new SqliteConnection(connectionString);
        try
        {
            connection.Open();
            if (Version.Parse(connection.ServerVersion) < OldestSafe)
            {
                throw new StoreSettingsException($"SQLite {connection.ServerVersion} can corrupt its WAL file; {OldestSafe} or newer is needed.");
            }
            Configure(connection);
            Execute(connection, "PRAGMA journal_mode = WAL");
            // In KiB: the inner pages of every index, and the leaves that come again soon. Readers keep SQLite's 2 MB: there are several, and they come and go.
            Execute(connection, "PRAGMA cache_size = -16384");
            // Checkpoints run beside the commits, not inside them: the 99th percentile of a commit is some thirty times lower.
            Execute(connection, "PRAGMA wal_autocheckpoint = 0");
            if (Scalar(connection, "PRAGMA journal_mode") is not "wal" || Scalar(connection, "PRAGMA synchronous") is not "2")
            {
                throw new StoreSettingsException($"{path} does not take journal_mode=WAL with synchronous=FULL: it is not on a local disk that a commit can rely on.");
            }
        }
        catch
        {
            connection.Dispose();
            throw;
        }
        return writerConnection = connection;
    }

    private void CloseWriter()
    {
        writerConnection?.Dispose();
        writerConnection = null;
        WriterGeneration++;
    }

    /// <summary>Grows with every connection that the writer gave up; prepared statements belong to one generation.</summary>
    internal int WriterGeneration { get; private set; }

    private static void Configure(SqliteConnection connection)
    {
        Execute(connection, "PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0");
    }

    private static void Execute(SqliteConnection connection, string sql)
    {
        using var command = connection.CreateCommand();
        command.CommandText = sql;
        command.ExecuteNonQuery();
    }

    private static string? Scalar(SqliteConnection connection, string sql)
    {
        using var command = connection.CreateCommand();
        command.CommandText = sql;
        return Convert.ToString(command.ExecuteScalar(), System.Globalization.CultureInfo.InvariantCulture);
    }

    private async Task CheckpointLoopAsync(TimeProvider clock)
    {
        using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(100), clock);
        SqliteConnection? connection = null;
        var last = clock.GetTimestamp();
        try
        {
            while (await tick.WaitForNextTickAsync(stop.Token))
            {
                try
                {
                    if (connection is null)
                    {
                        if (!File.Exists(path + "-wal"))
                        {
                            continue;
                        }
                        connection = new SqliteConnection(connectionString);
                        connection.Open();
                        Configure(connection);
                    }
                    var (frames, copied) = Checkpoint(connection, "NOOP");
                    if (frames == copied || (frames - copied < FramesBetweenCheckpoints && clock.GetElapsedTime(last) < LongestBetweenCheckpoints))
                    {
                        continue;
                    }
                    // PASSIVE stands in nobody's way.
                    Checkpoint(connection, "PASSIVE");
                    last = clock.GetTimestamp();
                    startLogOver = frames >= FramesBeforeStartingOver;
                }
                catch (Exception exception) when (exception is SqliteException or IOException)
                {
                    // The log keeps what was not copied; the next tick tries again.
                    LogCheckpointFailed(exception.Message);
                }
            }
        }
        catch (OperationCanceledException)
        {
            // The store closes.
        }
        finally
        {
            connection?.Dispose();
        }
    }

    [LoggerMessage(LogLevel.Information, "The store's schema was brought to {Migration}")]
    private partial void LogMigrated(string migration);

    [LoggerMessage(LogLevel.Warning, "A commit to the store failed: {Reason}")]
    private partial void LogCommitFailed(string reason);

    [LoggerMessage(LogLevel.Warning, "A checkpoint of the store's log failed and is tried again: {Reason}")]
    private partial void LogCheckpointFailed(string reason);

    private abstract class Write
    {
        public abstract bool IsLarge { get; }
        public abstract bool IsCancelled { get; }
        public abstract void Run(SqliteTransaction transaction);
        public abstract void Complete();
        public abstract void Fail(Exception exception);
        public abstract void FailLater(Exception exception);
    }

    private sealed class Write<T>(Func<DbTransaction, Task<T>> work, bool isLarge, CancellationToken cancellationToken) : Write
    {
        private T? result;
        private bool ran;
        private Exception? failure;

        public TaskCompletionSource<T> Completion { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public override bool IsLarge => isLarge;

        public override bool IsCancelled => cancellationToken.IsCancellationRequested;

        public override void Run(SqliteTransaction transaction)
        {
            var task = work(transaction);
            if (!task.IsCompleted)
            {
                throw new InvalidOperationException("A write to SQLite may await nothing but the database.");
            }
            result = task.GetAwaiter().GetResult();
            ran = true;
        }

        public override void Complete()
        {
            if (failure is not null)
            {
                Completion.TrySetException(failure);
            }
            else if (ran)
            {
                Completion.TrySetResult(result!);
            }
            else
            {
                Completion.TrySetCanceled(cancellationToken);
            }
        }

        public override void Fail(Exception exception) => Completion.TrySetException(failure ?? exception);

        public override void FailLater(Exception exception) => failure = exception;
    }
}

using System.Collections.Concurrent;
using Microsoft.Data.Sqlite;
using OrderService.Store;

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

    /// <summary>How long the process that serves the store waits for another's write before it says so.</summary>
    private const int ServingTimeoutSeconds = 5;

    private const int TimeoutSeconds = 30;
    private const int ScrubAttempts = 20;
    private static readonly TimeSpan ScrubPause = TimeSpan.FromMilliseconds(100);

    /// <summary>How long queries that are under way may hold up the end.</summary>
    private static readonly TimeSpan LongestGoodbye = TimeSpan.FromSeconds(2);

    /// <summary>From this long on a commit is worth a word.</summary>
    private static readonly TimeSpan LongWait = TimeSpan.FromSeconds(5);

    /// <summary>How long the writer waits before it looks again who wrote the file.</summary>
    private static readonly TimeSpan SuspectPause = TimeSpan.FromMilliseconds(20);

    /// <summary>Never closed: see <see cref="Close"/>.</summary>
    private static readonly ConcurrentBag<SqliteConnection> Kept = [];

    private readonly string readers;
    private readonly string keyConnections;
    private readonly string path;
    private readonly TimeProvider clock;
    private readonly ILogger<SqliteDatabase> logger;
    private readonly TaskCompletionSource<string> lost = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Queue<Write> writes = new();
    private readonly Thread writer;
    private readonly TaskCompletionSource writerEnded = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly CancellationTokenSource stop = new();
    private readonly Task checkpoints;
    private readonly List<IDisposable> prepared = [];
    private SqliteConnection? writerConnection;
    private volatile bool wasOpen;
    private bool isClosing;
    private volatile bool startLogOver;
    private TaskCompletionSource<bool>? scrub;
    private volatile bool isClosed;
    private int reading;
    private volatile SqliteClaim? claim;
    private volatile Wait? waiting;
    private long epoch = StoreEpoch.First;
    private volatile bool isMigrated;

    /// <param name="keys">Where the keys of customers lie; beside the store when null.</param>
    /// <param name="seals">The keys of seals; they lie beside those of customers when null.</param>
    public SqliteDatabase(string path, TimeProvider clock, ILogger<SqliteDatabase> logger, KeysOptions? keys = null, SealsOptions? seals = null)
    {
        this.path = Path.GetFullPath(path);
        var keysPath = string.IsNullOrWhiteSpace(keys?.Path) ? Path.Combine(Path.GetDirectoryName(this.path)!, "keys.db") : Path.GetFullPath(keys.Path);
        keyConnections = SqliteKeys.Connections(keysPath);
        Keys = new PersonalKeys(SqliteKeys.Open(keysPath, keyConnections), keys ?? new KeysOptions(), seals ?? new SealsOptions(), clock, logger);
        this.clock = clock;
        this.logger = logger;
        SqliteWalFile.RegisterFileSystem();
        readers = Connections(SqliteOpenMode.ReadWrite, isPooled: true, TimeoutSeconds);
        writer = new Thread(WriteLoop) { IsBackground = true, Name = "store writer" };
        writer.Start();
        checkpoints = Task.Run(CheckpointLoopAsync);
    }

    public string Provider => "Sqlite";

    public long Epoch => Volatile.Read(ref epoch);

    public PersonalKeys Keys { get; }

    public Task<string> Lost => lost.Task;

    public string? Waiting => waiting is { } wait && clock.GetElapsedTime(wait.Since) >= LongWait ? wait.For : null;

    public Task<IReadOnlyList<string>> ClaimAsync(CancellationToken cancellationToken)
    {
        claim = SqliteClaim.Take(path, clock);
        return Task.FromResult(claim.Findings);
    }

    public bool NoteStop(string life) => claim?.NoteStop(life) ?? false;

    public string? LastToldToStop => claim?.LastToldToStop;

    /// <summary>The connection of the writer thread; only code that runs inside <see cref="WriteAsync"/> may use it.</summary>
    internal SqliteConnection WriterConnection => writerConnection ?? throw new InvalidOperationException("Only a write may use the writer's connection.");

    public Task MigrateAsync(CancellationToken cancellationToken) => MigrateAsync(mayBeOlder: false, cancellationToken);

    /// <param name="mayBeOlder">Whoever calls knows that it may be an older state of the store.</param>
    private async Task MigrateAsync(bool mayBeOlder, CancellationToken cancellationToken)
    {
        var seen = await WriteAsync(async transaction =>
        {
            await CopyProgress.RequireNoneAsync(transaction);
            var current = await transaction.ExecuteScalarAsync<int>("PRAGMA user_version");
            foreach (var migration in Migration.All("Sqlite"))
            {
                if (migration.Number <= current)
                {
                    continue;
                }
                await transaction.ExecuteAsync($"{migration.Sql}\n;PRAGMA user_version = {migration.Number};");
                LogMigrated(migration.Name);
            }
            Migration.RequireNoNewer(current, Provider, $"The store {path}");
            if (!mayBeOlder && claim?.SeenBefore is { } before)
            {
                await SqliteEpochs.CheckAsync(transaction, path, before, isNew: current == 0, clock.GetUtcNow().ToUnixTimeMilliseconds());
            }
            return await SqliteEpochs.SeenAsync(transaction);
        }, cancellationToken);
        Volatile.Write(ref epoch, seen.Epoch);
        if (!mayBeOlder)
        {
            // One that is only put back is not served yet.
            Keys.Prepare();
            claim?.See(seen);
            isMigrated = true;
        }
    }

    public async Task<EpochRow> BeginEpochAsync(long atLeast, string cause, CancellationToken cancellationToken)
    {
        await MigrateAsync(mayBeOlder: true, cancellationToken);
        var number = Math.Max(atLeast, Math.Max(Epoch, claim?.SeenBefore?.Epoch ?? 0) + 1);
        var begun = await WriteAsync(transaction => SqliteEpochs.BeginAsync(transaction, number, clock.GetUtcNow().ToUnixTimeMilliseconds(), cause), cancellationToken);
        Volatile.Write(ref epoch, begun.Number);
        Keys.Seals.ForgetHead(await ReadAsync(EpochsTable.StoreIdAsync, cancellationToken));
        if (claim is not null)
        {
            SqliteRelayLease.Jump(path, StoreEpoch.RowsBefore(begun.Number));
            await NoteSeenAsync(cancellationToken);
        }
        return begun;
    }

    public async Task RequireSchemaAsync(CancellationToken cancellationToken)
    {
        if (!File.Exists(path))
        {
            throw SqliteAccess.Problem(path) is { } problem
                ? (Exception)new StoreUnavailableException(problem)
                : new StoreMissingException($"There is no store at {path} yet (Store:Path); the first orderservice serve, or orderservice migrate, makes it.");
        }
        SqliteClaim.RequireUnmixed(path);
        var current = await ReadAsync(connection => connection.ExecuteScalarAsync<int>("PRAGMA user_version"), cancellationToken);
        Migration.RequireCurrent(current, Provider, $"The store {path}");
        Volatile.Write(ref epoch, await ReadAsync(
            async connection =>
            {
                await CopyProgress.RequireNoneAsync(connection);
                return await EpochsTable.CurrentAsync(connection);
            },
            cancellationToken));
    }

    public Task<T> ReadAsync<T>(Func<StoreConnection, Task<T>> read, CancellationToken cancellationToken = default) =>
        ReadDirectlyAsync(connection => read(new StoreConnection(connection, Keys, isSqlite: true)), cancellationToken);

    /// <summary>Like <see cref="ReadAsync"/>, for prepared statements.</summary>
    internal async Task<T> ReadDirectlyAsync<T>(Func<SqliteConnection, Task<T>> read, CancellationToken cancellationToken)
    {
        // SQLite's async methods block; a query must not hold the caller's thread.
        return await Task.Run(async () =>
        {
            Interlocked.Increment(ref reading);
            try
            {
                if (isClosed)
                {
                    throw new StoreUnavailableException("The store is closing.");
                }
                ThrowIfLost();
                await using var connection = new SqliteConnection(readers);
                connection.Open();
                // A connection of the pool may be one to a file that is not there any more.
                RequireInPlace(connection);
                Configure(connection);
                return await read(connection);
            }
            catch (SqliteException exception) when (exception.SqliteErrorCode is 8 or 14 && SqliteAccess.Problem(path) is { } problem)
            {
                throw new StoreUnavailableException(problem, exception);
            }
            catch (SqliteException exception)
            {
                throw SqliteErrors.Translate(exception);
            }
            finally
            {
                Interlocked.Decrement(ref reading);
            }
        }, cancellationToken);
    }

    /// <summary>Makes a backup beside whatever else is done, see <see cref="SqliteBackup.MakeAsync"/>.</summary>
    internal Task<StoreFacts> BackUpAsync(string file, bool mayReplace, IProgress<(long Done, long Total)>? progress, CancellationToken cancellationToken) =>
        ReadDirectlyAsync(connection => SqliteBackup.MakeAsync(connection, file, mayReplace, progress, cancellationToken), cancellationToken);

    public Task<T> WriteAsync<T>(Func<StoreTransaction, Task<T>> write, CancellationToken cancellationToken = default) =>
        EnqueueAsync(new Write<T>(write, Keys, isLarge: false, cancellationToken));

    /// <summary>Like <see cref="WriteAsync"/>, for a write of many pages: it comes first in its transaction, where it costs least.</summary>
    internal Task<T> WriteLargeAsync<T>(Func<StoreTransaction, Task<T>> write, CancellationToken cancellationToken) =>
        EnqueueAsync(new Write<T>(write, Keys, isLarge: true, cancellationToken));

    public async Task<bool> ScrubAsync(CancellationToken cancellationToken)
    {
        // With whatever is committed next, on the writer's thread: nobody else writes then.
        for (var attempt = 0; attempt < ScrubAttempts; attempt++)
        {
            var done = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
            await WriteAsync(
                async transaction =>
                {
                    await transaction.ExecuteAsync("PRAGMA secure_delete = OFF");
                    scrub = done;
                    return true;
                },
                cancellationToken);
            if (await done.Task)
            {
                return true;
            }
            await Task.Delay(ScrubPause, clock, cancellationToken);
        }
        return false;
    }

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
        isClosed = true;
        var began = clock.GetTimestamp();
        using (var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(10), clock))
        {
            while (Volatile.Read(ref reading) > 0 && clock.GetElapsedTime(began) < LongestGoodbye && await tick.WaitForNextTickAsync())
            {
            }
        }
        // The last one that closes copies what is left in the log and removes it.
        using (var pooled = new SqliteConnection(readers))
        {
            SqliteConnection.ClearPool(pooled);
        }
        SqliteKeys.Close(keyConnections);
        claim?.Dispose();
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
            ThrowIfLost();
            var connection = OpenWriter();
            var began = clock.GetTimestamp();
            waiting = new Wait("the store's write lock is held by another program", began);
            var transaction = connection.BeginTransaction(deferred: false);
            waiting = new Wait("a write to the store takes long", began);
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
                waiting = new Wait("the store's disk does not take a commit", began);
                transaction.Commit();
                // Nobody is told of what was written to a file that nobody finds again.
                RequireInPlace(connection);
                RequireUnwritten(connection, afterCommit: true);
            }
            finally
            {
                transaction.Dispose();
                waiting = null;
            }
        }
        catch (Exception exception)
        {
            waiting = null;
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
        if (scrub is { } wanted)
        {
            scrub = null;
            wanted.SetResult(Scrub());
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
            Copy(writerConnection!);
        }
        catch (SqliteException exception)
        {
            LogCheckpointFailed(exception.Message);
        }
    }

    /// <summary>Copies the whole log and cuts it off, unless somebody reads in it.</summary>
    private bool Scrub()
    {
        try
        {
            Execute(writerConnection!, "PRAGMA busy_timeout = 0");
            Copy(writerConnection!, "TRUNCATE");
            return new FileInfo(path + "-wal") is not { Exists: true, Length: > 0 };
        }
        catch (SqliteException exception)
        {
            LogCheckpointFailed(exception.Message);
            return false;
        }
        finally
        {
            Execute(writerConnection!, "PRAGMA busy_timeout = 5000");
        }
    }

    // PASSIVE stands in nobody's way.
    private void Copy(SqliteConnection connection, string mode = "PASSIVE")
    {
        claim?.BeginCopy();
        SqliteLogReading? done = null;
        try
        {
            Checkpoint(connection, mode);
            done = SqliteWalFile.Log(connection);
        }
        finally
        {
            claim?.EndCopy(done);
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
        OwnerOnly.CreateFolder(Path.GetDirectoryName(path)!);
        if (!wasOpen)
        {
            // SQLite gives its other files the rights of this one, and it the rights that the umask leaves: anybody's to read.
            OwnerOnly.CreateFile(path);
        }
        // Only the first time may make the file: later, one that is not there was taken away. No pool: after a failed COMMIT it would hand out the same connection again, and what that one
        // gathered of a transaction that was undone could reach the log later.
        var connection = new SqliteConnection(Connections(
            wasOpen ? SqliteOpenMode.ReadWrite : SqliteOpenMode.ReadWriteCreate, isPooled: false, claim is null ? TimeoutSeconds : ServingTimeoutSeconds));
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
            // A transaction that outgrows the cache would write to the log before its COMMIT, and its ROLLBACK would leave that there.
            Execute(connection, "PRAGMA cache_spill = OFF");
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
        if (!wasOpen)
        {
            claim?.Begin();
        }
        wasOpen = true;
        return writerConnection = connection;
    }

    private string Connections(SqliteOpenMode mode, bool isPooled, int timeoutSeconds) => new SqliteConnectionStringBuilder
    {
        DataSource = path,
        Mode = mode,
        Cache = SqliteCacheMode.Private,
        Pooling = isPooled,
        Vfs = SqliteWalFile.FileSystem,
        DefaultTimeout = timeoutSeconds,
    }.ToString();

    /// <summary>One look at the path of the file and one at that of its log.</summary>
    /// <exception cref="StoreUnavailableException">Another file lies there, or none.</exception>
    private void RequireInPlace(SqliteConnection connection)
    {
        var moves = lost.Task.IsCompleted ? SqliteWalFile.Moves.None : SqliteWalFile.Moved(connection);
        if (moves != SqliteWalFile.Moves.None)
        {
            Save(connection);
        }
        switch (moves)
        {
            case SqliteWalFile.Moves.File:
                Lose($"The store's file {path} was deleted, moved or replaced while it was in use: nothing is acknowledged any more.");
                break;
            case SqliteWalFile.Moves.Log:
                Lose($"The store's log {path}-wal was deleted, moved or replaced while it was in use: nothing is acknowledged any more.");
                break;
        }
        ThrowIfLost();
    }

    /// <summary>The same file, and nobody else wrote it: a copy that is laid over it in place leaves name and number as they are.</summary>
    /// <param name="afterCommit">Nothing is acknowledged before it is known who wrote it.</param>
    /// <exception cref="StoreUnavailableException">It was written over.</exception>
    /// <returns>False when that is not known yet.</returns>
    private bool RequireUnwritten(SqliteConnection connection, bool afterCommit)
    {
        while (claim is { } mine)
        {
            switch (mine.Look(() => SqliteWalFile.Log(connection)))
            {
                case SqliteFileLook.AsLeft:
                    return true;
                case SqliteFileLook.Overwritten:
                    mine.Freeze();
                    Kept.Add(connection);
                    Lose($"The store's file {path} was written over by another program while it was in use: nothing is acknowledged any more.");
                    break;
                case SqliteFileLook.Suspect when !afterCommit:
                    return false;
            }
            ThrowIfLost();
            stop.Token.WaitHandle.WaitOne(SuspectPause);
        }
        return true;
    }

    /// <summary>
    /// The last connection that closes would copy the log into what lies there now, and remove it. One stays open until the process ends, so that the next
    /// start finds both.
    /// </summary>
    private static void Close(SqliteConnection? connection)
    {
        if (connection is not null && !Kept.Contains(connection))
        {
            connection.Dispose();
        }
    }

    /// <summary>What was committed, and stands in the log alone, goes to the file through the descriptors that are still open, wherever the file is now.</summary>
    private void Save(SqliteConnection connection)
    {
        try
        {
            Checkpoint(connection, "FULL");
        }
        catch (SqliteException exception)
        {
            LogCheckpointFailed(exception.Message);
        }
    }

    private void Lose(string reason)
    {
        if (lost.TrySetResult(reason))
        {
            LogLost(reason);
        }
    }

    private void ThrowIfLost()
    {
        if (lost.Task.IsCompletedSuccessfully)
        {
            throw new StoreUnavailableException(lost.Task.Result);
        }
    }

    /// <summary>Statements that were prepared on the writer's connection; to be called by a write.</summary>
    internal void CloseWithWriter(IDisposable statements) => prepared.Add(statements);

    private void CloseWriter()
    {
        prepared.ForEach(statements => statements.Dispose());
        prepared.Clear();
        Close(writerConnection);
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

    private async Task CheckpointLoopAsync()
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
                        // Not before the writer is: what lies there may not belong together, and this connection would make one of it.
                        if (!wasOpen || lost.Task.IsCompleted || !File.Exists(path + "-wal"))
                        {
                            continue;
                        }
                        connection = new SqliteConnection(Connections(SqliteOpenMode.ReadWrite, isPooled: false, TimeoutSeconds));
                        connection.Open();
                        Configure(connection);
                    }
                    RequireInPlace(connection);
                    var (frames, copied) = Checkpoint(connection, "NOOP");
                    if (!RequireUnwritten(connection, afterCommit: false))
                    {
                        continue;
                    }
                    claim?.Mark(isAllCopied: frames == copied);
                    await NoteSeenAsync(connection);
                    if (!IsCheckpointDue(frames, copied, last))
                    {
                        continue;
                    }
                    Copy(connection);
                    last = clock.GetTimestamp();
                    startLogOver = frames >= FramesBeforeStartingOver;
                }
                catch (Exception exception) when (exception is SqliteException or IOException)
                {
                    // The log keeps what was not copied; the next tick tries again.
                    LogCheckpointFailed(exception.Message);
                }
                catch (StoreUnavailableException)
                {
                    // Taken away, and said so.
                    Close(connection);
                    connection = null;
                }
            }
        }
        catch (OperationCanceledException)
        {
            // The store closes.
        }
        finally
        {
            await NoteAtEndAsync(connection);
            Close(connection);
        }
    }

    /// <summary>Notes beside the store how far it has come, so that an older file that is put in its place is noticed.</summary>
    private async Task NoteSeenAsync(SqliteConnection connection)
    {
        if (isMigrated && claim is { } mine)
        {
            // What a reader sees is on the disk.
            mine.See(await SqliteEpochs.SeenAsync(new StoreConnection(connection, Keys, isSqlite: true)));
        }
    }

    /// <summary>What relays of this store have called themselves, at the highest.</summary>
    internal long HighestLease
    {
        get => SqliteRelayLease.Highest(path);
        set => SqliteRelayLease.Jump(path, value);
    }

    /// <summary>The same at once, for whoever wrote the whole store.</summary>
    internal async Task NoteSeenAsync(CancellationToken cancellationToken) => claim?.See(await ReadAsync(SqliteEpochs.SeenAsync, cancellationToken));

    private async Task NoteAtEndAsync(SqliteConnection? connection)
    {
        try
        {
            if (connection is not null && !lost.Task.IsCompleted)
            {
                await NoteSeenAsync(connection);
            }
        }
        catch (SqliteException exception)
        {
            LogCheckpointFailed(exception.Message);
        }
    }

    private bool IsCheckpointDue(int frames, int copied, long last)
    {
        if (frames == copied)
        {
            return false;
        }
        // Beside the process that serves the store others copy only so much that their own log stays bounded.
        return claim is null
            ? frames - copied >= FramesBeforeStartingOver
            : frames - copied >= FramesBetweenCheckpoints || clock.GetElapsedTime(last) >= LongestBetweenCheckpoints;
    }

    [LoggerMessage(LogLevel.Information, "The store's schema was brought to {Migration}")]
    private partial void LogMigrated(string migration);

    [LoggerMessage(LogLevel.Critical, "{Reason}")]
    private partial void LogLost(string reason);

    [LoggerMessage(LogLevel.Warning, "A commit to the store failed: {Reason}")]
    private partial void LogCommitFailed(string reason);

    [LoggerMessage(LogLevel.Warning, "A checkpoint of the store's log failed and is tried again: {Reason}")]
    private partial void LogCheckpointFailed(string reason);

    /// <param name="For">What the writer waits for, in plain words.</param>
    private sealed record Wait(string For, long Since);

    private abstract class Write
    {
        public abstract bool IsLarge { get; }
        public abstract bool IsCancelled { get; }
        public abstract void Run(SqliteTransaction transaction);
        public abstract void Complete();
        public abstract void Fail(Exception exception);
        public abstract void FailLater(Exception exception);
    }

    private sealed class Write<T>(Func<StoreTransaction, Task<T>> work, PersonalKeys keys, bool isLarge, CancellationToken cancellationToken) : Write
    {
        private T? result;
        private bool ran;
        private Exception? failure;

        public TaskCompletionSource<T> Completion { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public override bool IsLarge => isLarge;

        public override bool IsCancelled => cancellationToken.IsCancellationRequested;

        public override void Run(SqliteTransaction transaction)
        {
            var task = work(new StoreTransaction(transaction, keys, isSqlite: true));
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

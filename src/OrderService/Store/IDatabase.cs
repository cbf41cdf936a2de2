
namespace OrderService.Store;

/// <summary>
/// The store's connections and transactions, for SQLite and for PostgreSQL.
/// Statements written against it use the SQL that both speak: <c>@name</c> parameters, <c>ON CONFLICT</c>, <c>RETURNING</c>, <c>LIMIT</c>;
/// times are Unix milliseconds, amounts are minor units.
/// </summary>
public interface IDatabase : IAsyncDisposable
{
    /// <summary><c>Sqlite</c> or <c>Postgres</c>.</summary>
    string Provider { get; }

    /// <summary>The store's present epoch, known from when its schema was looked at. Nobody serves a store whose epoch changes.</summary>
    long Epoch { get; }

    /// <summary>
    /// Begins the next epoch of a store that was put back, older though it may be than what was served last: see <see cref="StoreEpoch"/>. Brings its schema up to date first.
    /// </summary>
    /// <param name="atLeast">The lowest number that the new epoch may have, where others are known to have been before.</param>
    /// <param name="cause">See <see cref="EpochRow"/>.</param>
    /// <exception cref="StoreInUseException">Somebody does.</exception>
    Task<EpochRow> BeginEpochAsync(long atLeast, string cause, CancellationToken cancellationToken);

    /// <summary>The keys under which what is personal is written; they lie apart.</summary>
    PersonalKeys Keys { get; }

    /// <summary>Brings the schema up to date. Instances that start together wait for one another.</summary>
    /// <exception cref="StoreUnavailableException">The store is out of reach for now.</exception>
    /// <exception cref="StoreSettingsException">The store is there but not as durable as the service has to promise.</exception>
    Task MigrateAsync(CancellationToken cancellationToken);

    /// <summary>Looks whether the store has this version's schema, and changes nothing.</summary>
    /// <exception cref="StoreMissingException">There is no store yet.</exception>
    /// <exception cref="StoreSettingsException">It has the schema of another version.</exception>
    Task RequireSchemaAsync(CancellationToken cancellationToken);

    /// <summary>Makes this process the one that serves the store, where only one may; until it is disposed or the process ends.</summary>
    /// <returns>What was found that a person should hear of, one sentence each.</returns>
    /// <exception cref="StoreInUseException">Another process has it.</exception>
    /// <exception cref="StoreSettingsException">The files are not usable as they are.</exception>
    Task<IReadOnlyList<string>> ClaimAsync(CancellationToken cancellationToken) => Task.FromResult<IReadOnlyList<string>>([]);

    /// <summary>Notes beside the store that this process was told to stop, where that needs no write in it: whoever holds the store up holds no farewell up.</summary>
    /// <param name="life">The process's name among <see cref="Lives"/>.</param>
    /// <returns>Whether it is noted; where there is no such place it is not.</returns>
    bool NoteStop(string life) => false;

    /// <summary>The process before this one that said so.</summary>
    string? LastToldToStop => null;

    /// <summary>Asks the store whether it is there and takes writes, on a connection that nobody else waits for.</summary>
    /// <exception cref="StoreUnavailableException">It is not, or does not.</exception>
    Task ProbeAsync(CancellationToken cancellationToken) =>
        ReadAsync(connection => connection.ExecuteScalarAsync<long>("SELECT 1", cancellationToken: cancellationToken), cancellationToken);

    /// <summary>Completes, with the reason, when the store was taken away under the process, which can't use it any more. A server that went away comes back.</summary>
    Task<string> Lost => Never;

    /// <summary>Takes what was overwritten out of the log that lies beside the store, where there is one.</summary>
    /// <returns>False when somebody reads it at the moment; then it goes when the log starts over.</returns>
    Task<bool> ScrubAsync(CancellationToken cancellationToken) => Task.FromResult(true);

    /// <summary>What a write has been waiting for so long that it is worth a word; null when none has.</summary>
    string? Waiting => null;

    private static readonly Task<string> Never = new TaskCompletionSource<string>().Task;

    /// <summary>Runs a query on a connection of its own; sees what was committed before the call.</summary>
    /// <exception cref="StoreUnavailableException">The store is out of reach for now; the same call may succeed later.</exception>
    Task<T> ReadAsync<T>(Func<StoreConnection, Task<T>> read, CancellationToken cancellationToken = default);

    /// <summary>
    /// Runs <paramref name="write"/> in a write transaction and commits it; an exception rolls it back and reaches the caller.
    /// On SQLite the delegate runs on the one writer thread and shares a commit with its neighbours, so it awaits nothing but the database.
    /// </summary>
    /// <param name="cancellationToken">Gives up waiting for a turn. It never interrupts a COMMIT.</param>
    /// <exception cref="StoreUnavailableException">The store is out of reach for now. Whether a COMMIT took effect may be unknown.</exception>
    /// <exception cref="StoreConflictException">A unique key was taken.</exception>
    /// <exception cref="StoreRefusedException">The store refuses a row.</exception>
    Task<T> WriteAsync<T>(Func<StoreTransaction, Task<T>> write, CancellationToken cancellationToken = default);
}

/// <summary>Calls without a result.</summary>
public static class DatabaseExtensions
{
    /// <summary>Runs <paramref name="write"/> as <see cref="IDatabase.WriteAsync"/> would and undoes it: tells whether the store would take it.</summary>
    public static async Task TryOutAsync(this IDatabase database, Func<StoreTransaction, Task> write, CancellationToken cancellationToken)
    {
        try
        {
            await database.WriteAsync<bool>(
                async transaction =>
                {
                    await write(transaction);
                    await transaction.CheckDeferredAsync();
                    throw new UndoneException();
                },
                cancellationToken);
        }
        catch (UndoneException)
        {
            // As it was meant to be.
        }
    }

    public static Task WriteAsync(this IDatabase database, Func<StoreTransaction, Task> write, CancellationToken cancellationToken = default) =>
        database.WriteAsync(async transaction => { await write(transaction); return true; }, cancellationToken);
}

/// <summary>The store can't be used for now: locked, full, out of reach. Trouble of the store is never a failure of a message.</summary>
public sealed class StoreUnavailableException(string message, Exception? inner = null) : Exception(message, inner);

/// <summary>The store refuses what was to be written. Whether that is about the row or about the store, such as a constraint that somebody added, only other rows tell.</summary>
/// <param name="code">SQLSTATE, or SQLite's extended code.</param>
/// <param name="constraint">What refused it, by name; never a value.</param>
public class StoreRefusedException(string message, string? code, string? constraint, Exception? inner = null) : Exception(message, inner)
{
    /// <summary>What to do about it.</summary>
    public const string Advice = "Look for what was changed in the store: a constraint, a column, a trigger, a table or a right (docs/operations.md, The store refuses).";

    public string? Code { get; } = code;

    public string? Constraint { get; } = constraint;
}

/// <summary>There is no store yet. That is as it should be before the first start.</summary>
public sealed class StoreMissingException(string message) : Exception(message);

/// <summary>Another process serves the store, and only one may.</summary>
public sealed class StoreInUseException(string message) : Exception(message);

/// <summary>A row with the same unique key is there already.</summary>
public sealed class StoreConflictException(string message, string? code = null, string? constraint = null, Exception? inner = null) : StoreRefusedException(message, code, constraint, inner);

/// <summary>A file can't be used as a backup, or not be made one; nothing else is wrong.</summary>
public sealed class StoreFileException(string message, Exception? inner = null) : Exception(message, inner);

/// <summary>The store's settings don't keep what was committed; the start fails and says which setting to change.</summary>
public sealed class StoreSettingsException(string message) : Exception(message);

/// <summary>Ends a transaction that was only tried out.</summary>
internal sealed class UndoneException() : Exception("It was only tried out.");

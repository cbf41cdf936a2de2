using System.Data.Common;
using System.Net;
using System.Net.Sockets;
using Npgsql;
using OrderService.Store;

namespace OrderService.Database;

/// <summary>
/// The store that any number of instances share. Connections are bounded, sessions have their timeouts and settings from the start,
/// and a COMMIT is never cancelled: what it did when its answer was lost is unknown, and is treated as that.
/// </summary>
public sealed partial class PostgresDatabase : IDatabase
{
    // Any number serves; it has to be the same in every version.
    private const long MigrationLock = 0x4f72_6465_7253_0001;

    private const int OldestServer = 140_000;
    private const int MaxReadConnections = 12;
    private const int MaxWriteConnections = 8;
    private const int MaxAppendConnections = 4;
    private const int MaxVitalConnections = 3;
    private const int MaxKeyConnections = 3;

    private static readonly TimeSpan Timeout = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan VitalTimeout = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan LongestFarewell = TimeSpan.FromSeconds(5);

    // A wait for a lock that takes this long is a reason to look who holds it.
    private const int LockTimeoutSeconds = 5;

    private readonly NpgsqlConnectionStringBuilder given;
    private readonly Func<string, CancellationToken, Task<IPAddress[]>> resolve;
    private readonly SemaphoreSlim lookingUp = new(1, 1);
    private volatile Sources sources;
    private readonly NpgsqlDataSource? keySource;
    private volatile bool isLookedUp;
    private volatile int searches;
    private long epoch = StoreEpoch.First;
    private readonly string applicationFamily;
    private readonly ILogger<PostgresDatabase> logger;

    /// <param name="connectionString">As Npgsql takes it. It is never logged and never part of a message.</param>
    /// <exception cref="StoreSettingsException">It can't be read.</exception>
    /// <param name="resolve">Looks a name up; the operating system's way when null.</param>
    /// <param name="keys">Where the keys of customers lie; in a schema of the same database when null.</param>
    /// <param name="seals">The keys of seals; they lie beside those of customers when null.</param>
    public PostgresDatabase(
        string connectionString, ILogger<PostgresDatabase> logger, Func<string, CancellationToken, Task<IPAddress[]>>? resolve = null, KeysOptions? keys = null, TimeProvider? clock = null,
        SealsOptions? seals = null)
    {
        this.logger = logger;
        this.resolve = resolve ?? Dns.GetHostAddressesAsync;
        given = Parse(connectionString);
        applicationFamily = given.ApplicationName ?? "orderservice";
        ApplicationName = $"{applicationFamily}-{Guid.NewGuid().ToString("N")[..8]}";
        sources = Build(address: null);
        keySource = string.IsNullOrWhiteSpace(keys?.ConnectionString)
            ? null
            : Primary(new NpgsqlDataSourceBuilder(Parse(keys.ConnectionString, "Keys:ConnectionString").ConnectionString));
        Keys = new PersonalKeys(
            PostgresKeys.Open(() => (keySource ?? sources.Keys).OpenConnection(), Translate), keys ?? new KeysOptions(), seals ?? new SealsOptions(), clock ?? TimeProvider.System, logger);
    }

    public string Provider => "Postgres";

    public long Epoch => Volatile.Read(ref epoch);

    public PersonalKeys Keys { get; }

    /// <summary>Unique for this process: tells its sessions from those of others in <c>pg_stat_activity</c>.</summary>
    internal string ApplicationName { get; }

    public async Task ProbeAsync(CancellationToken cancellationToken)
    {
        try
        {
            await using var connection = await OpenAsync(sources => sources.Vital, cancellationToken);
            await using var command = new NpgsqlCommand("SELECT pg_is_in_recovery(), current_setting('transaction_read_only')", connection);
            await using var reader = await command.ExecuteReaderAsync(cancellationToken);
            await reader.ReadAsync(cancellationToken);
            var (isReplica, readOnly) = (reader.GetBoolean(0), reader.GetString(1) == "on");
            if (isReplica || readOnly)
            {
                // The next connection looks for the primary.
                sources.Vital.Clear();
                isLookedUp = false;
                throw new StoreUnavailableException($"PostgreSQL is read-only ({PostgresErrorCodes.ReadOnlySqlTransaction}): {(isReplica
                    ? "the server is a replica, and no primary is found"
                    : "default_transaction_read_only is on for this server, database or user")}.");
            }
        }
        catch (Exception exception) when (Translate(exception) is { } translated)
        {
            throw translated;
        }
    }

    /// <summary>Says what is wrong with a connection string, without a word of it; null when it can be used.</summary>
    /// <param name="allowPlaintext">Another machine may be reached without TLS that is verified.</param>
    public static string? Problem(string? connectionString, bool allowPlaintext)
    {
        if (string.IsNullOrWhiteSpace(connectionString))
        {
            return "Store:ConnectionString: missing, and Store:Provider is Postgres; for example Host=db;Database=orders;Username=orders and the password, best from a file with Store__ConnectionStringFile.";
        }
        try
        {
            var given = Parse(connectionString);
            if (string.IsNullOrEmpty(given.Host))
            {
                return "Store:ConnectionString names no Host.";
            }
            if (given.TargetSessionAttributes is { Length: > 0 } wanted
                && wanted.Replace("-", "", StringComparison.Ordinal).ToUpperInvariant() is not ("PRIMARY" or "READWRITE" or "ANY" or "PREFERPRIMARY"))
            {
                return $"Store:ConnectionString has Target Session Attributes={wanted}, but only the primary can take orders; leave it out, the primary is found.";
            }
            return allowPlaintext || given.SslMode is SslMode.VerifyFull or SslMode.VerifyCA || given.Host.Split(',').All(IsLocal)
                ? null
                : $"Store:ConnectionString has SSL Mode={given.SslMode} to another machine: password and orders would cross the network readable, or to whoever answers. "
                    + "Use SSL Mode=VerifyFull (with Root Certificate=FILE for an own authority), or set Store:AllowPlaintext on a private network.";
        }
        catch (StoreSettingsException exception)
        {
            return exception.Message;
        }
    }

    /// <summary>This machine, or a socket in its file system.</summary>
    private static bool IsLocal(string host)
    {
        host = host.Trim();
        var port = host.LastIndexOf(':');
        return host.StartsWith('/') || host.StartsWith('@') || ThisMachine.Is(host) || (port > 0 && ThisMachine.Is(host[..port]));
    }

    public async Task MigrateAsync(CancellationToken cancellationToken)
    {
        try
        {
            await using var connection = await OpenAsync(sources => sources.Writes, cancellationToken);
            await CheckSettingsAsync(connection, cancellationToken);
            await CopyProgress.RequireNoneAsync(new StoreConnection(connection, Keys, isSqlite: false));
            var migrations = Migration.All(Provider);
            foreach (var migration in migrations)
            {
                if (await ApplyAsync(connection, migration, cancellationToken))
                {
                    LogMigrated(migration.Name);
                }
            }
            var current = await CurrentVersionAsync(connection, cancellationToken);
            Migration.RequireNoNewer(current, Provider, "The store");
            await ReadEpochAsync(connection);
            Keys.Prepare();
        }
        catch (Exception exception) when (Refused(exception) is { } refused)
        {
            throw refused;
        }
        catch (Exception exception) when (Translate(exception) is { } translated)
        {
            throw translated;
        }
    }

    public async Task RequireSchemaAsync(CancellationToken cancellationToken)
    {
        try
        {
            await using var connection = await OpenAsync(sources => sources.Reads, cancellationToken);
            Migration.RequireCurrent(await CurrentVersionAsync(connection, cancellationToken), Provider, "The store in PostgreSQL");
            await CopyProgress.RequireNoneAsync(new StoreConnection(connection, Keys, isSqlite: false));
            await ReadEpochAsync(connection);
        }
        catch (Exception exception) when (Refused(exception) is { } refused)
        {
            throw refused;
        }
        catch (Exception exception) when (Translate(exception) is { } translated)
        {
            throw translated;
        }
    }

    /// <summary>Looks whether other processes use the store; one that has just ended is in the server's list for a moment.</summary>
    /// <exception cref="StoreInUseException">They do.</exception>
    internal async Task RequireAloneAsync(CancellationToken cancellationToken)
    {
        var began = TimeProvider.System.GetTimestamp();
        while (true)
        {
            try
            {
                await ReadAsync(async connection => { await PostgresEpochs.RequireAloneAsync(connection, applicationFamily, ApplicationName); return true; }, cancellationToken);
                return;
            }
            catch (StoreInUseException) when (TimeProvider.System.GetElapsedTime(began) < LongestFarewell)
            {
                await Task.Delay(TimeSpan.FromMilliseconds(100), TimeProvider.System, cancellationToken);
            }
        }
    }

    private async Task ReadEpochAsync(NpgsqlConnection connection) =>
        Volatile.Write(ref epoch, await EpochsTable.CurrentAsync(new StoreConnection(connection, Keys, isSqlite: false)));

    public async Task<EpochRow> BeginEpochAsync(long atLeast, string cause, CancellationToken cancellationToken)
    {
        await RequireAloneAsync(cancellationToken);
        await MigrateAsync(cancellationToken);
        var begun = await WriteAsync(transaction => PostgresEpochs.BeginAsync(transaction, applicationFamily, ApplicationName, atLeast, cause), cancellationToken);
        Volatile.Write(ref epoch, begun.Number);
        Keys.Seals.ForgetHead(await ReadAsync(EpochsTable.StoreIdAsync, cancellationToken));
        return begun;
    }

    /// <summary>What waiting does not mend; null for everything else.</summary>
    private static StoreSettingsException? Refused(Exception exception) => exception switch
    {
        PostgresException { SqlState: var state } refused when state[..2] is "28" or "3D" || state is PostgresErrorCodes.InsufficientPrivilege =>
            new StoreSettingsException($"PostgreSQL does not let the service in: {refused.MessageText}. Check Store:ConnectionString and the rights of its user."),
        PostgresException { MessageText: var text } when text.Contains("startup parameter", StringComparison.Ordinal) =>
            new StoreSettingsException(
                "What Store:ConnectionString names is a pooler that does not pass the session's settings on; name PostgreSQL itself (the service bounds its own connections)."),
        _ => null,
    };

    public async Task<T> ReadAsync<T>(Func<StoreConnection, Task<T>> read, CancellationToken cancellationToken = default)
    {
        try
        {
            await using var connection = await OpenAsync(sources => sources.Reads, cancellationToken);
            return await read(new StoreConnection(connection, Keys, isSqlite: false));
        }
        catch (Exception exception) when (Translate(exception) is { } translated)
        {
            throw translated;
        }
    }

    public Task<T> WriteAsync<T>(Func<StoreTransaction, Task<T>> write, CancellationToken cancellationToken = default) => WriteAsync(sources => sources.Writes, write, cancellationToken);

    /// <summary>Like <see cref="WriteAsync{T}(Func{StoreTransaction, Task{T}}, CancellationToken)"/>, on a connection that no other write waits for.</summary>
    internal Task<T> WriteVitalAsync<T>(Func<StoreTransaction, Task<T>> write, CancellationToken cancellationToken) => WriteAsync(sources => sources.Vital, write, cancellationToken);

    private async Task<T> WriteAsync<T>(Func<Sources, NpgsqlDataSource> source, Func<StoreTransaction, Task<T>> write, CancellationToken cancellationToken)
    {
        var committing = false;
        try
        {
            await using var connection = await OpenAsync(source, cancellationToken);
            await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
            var result = await write(new StoreTransaction(transaction, Keys, isSqlite: false));
            committing = true;
            // A COMMIT that is cancelled may stand on this server alone, and a caller that is told of a failure would do it twice.
            await transaction.CommitAsync(CancellationToken.None);
            return result;
        }
        catch (PostgresException exception) when (exception.SqlState == PostgresErrorCodes.LockNotAvailable)
        {
            await EndFrozenSessionsAsync(cancellationToken);
            throw Translate(exception)!;
        }
        catch (Exception exception) when (Translate(exception) is { } translated)
        {
            throw committing && !PostgresErrors.WasRolledBack(exception)
                ? new StoreUnavailableException("The connection to PostgreSQL was lost during a COMMIT; whether it took effect is unknown.", exception)
                : translated;
        }
    }

    public async ValueTask DisposeAsync()
    {
        await sources.DisposeAsync();
        if (keySource is not null)
        {
            await keySource.DisposeAsync();
        }
        lookingUp.Dispose();
    }

    /// <summary>
    /// Ends sessions of this service that hold a transaction open and send nothing: their process is frozen, or gone without a word.
    /// The server has limits of its own for a session that is idle in a transaction, but none for one that stops in the middle of a batch.
    /// </summary>
    internal async Task EndFrozenSessionsAsync(CancellationToken cancellationToken)
    {
        try
        {
            await using var connection = await OpenAsync(sources => sources.Vital, cancellationToken);
            await using var command = new NpgsqlCommand(
                $"""
                SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE datname = current_database() AND usename = current_user AND starts_with(application_name, $1) AND pid <> pg_backend_pid()
                  AND state <> 'idle' AND wait_event_type = 'Client' AND xact_start < clock_timestamp() - interval '{LockTimeoutSeconds} seconds'
                """,
                connection)
            {
                Parameters = { new NpgsqlParameter<string> { TypedValue = applicationFamily } },
            };
            if (await command.ExecuteScalarAsync(cancellationToken) is > 0L and var ended)
            {
                LogFrozenSessionsEnded((long)ended);
            }
        }
        catch (Exception exception) when (Translate(exception) is not null)
        {
            // Whoever waits next tries again.
        }
    }

    /// <inheritdoc cref="PostgresErrors.Translate"/>
    internal Exception? Translate(Exception exception)
    {
        if (exception is PostgresException { SqlState: PostgresErrorCodes.ReadOnlySqlTransaction })
        {
            // This server became a replica: the next attempt has to look for the primary instead of using these connections again.
            sources.Clear();
            isLookedUp = false;
        }
        return PostgresErrors.Translate(exception);
    }

    private static NpgsqlConnectionStringBuilder Parse(string connectionString, string setting = "Store:ConnectionString")
    {
        try
        {
            return new NpgsqlConnectionStringBuilder(connectionString);
        }
        catch (Exception exception) when (exception is ArgumentException or FormatException or OverflowException)
        {
            // The parser's message may quote a part of the text.
            throw new StoreSettingsException($"{setting} can't be read; it is a list like Host=db;Port=5432;Database=orders;Username=orders;Password=... as Npgsql takes it.");
        }
    }

    /// <summary>A connection for the log's appends.</summary>
    internal Task<NpgsqlConnection> OpenForAppendAsync(CancellationToken cancellationToken) => OpenAsync(sources => sources.Appends, cancellationToken);

    /// <summary>
    /// Opens a connection. The name is looked up before the first one; when one fails it is looked up again, and where another of its addresses answers it is tried once more there.
    /// </summary>
    private async Task<NpgsqlConnection> OpenAsync(Func<Sources, NpgsqlDataSource> source, CancellationToken cancellationToken)
    {
        if (!isLookedUp)
        {
            await FindOtherAddressAsync(sources, cancellationToken);
        }
        var tried = sources;
        try
        {
            return await source(tried).OpenConnectionAsync(cancellationToken);
        }
        catch (Exception exception) when ((exception is NpgsqlException and not PostgresException or ObjectDisposedException) && !cancellationToken.IsCancellationRequested)
        {
            if (!await FindOtherAddressAsync(tried, cancellationToken))
            {
                throw;
            }
            return await source(sources).OpenConnectionAsync(cancellationToken);
        }
    }

    /// <summary>
    /// Npgsql takes the first address of a name that accepts a connection, and one that accepts it and says nothing for the server; given as a list of hosts, a silent one would cost every
    /// connection its time, pooled ones too. So one is chosen here, of which the primary answers, and kept until a connection to it fails or it turns out
    /// to be a replica.
    /// </summary>
    /// <returns>Whether there are other connections to be had than those that were tried.</returns>
    private async Task<bool> FindOtherAddressAsync(Sources tried, CancellationToken cancellationToken)
    {
        var hosts = PostgresHost.List(given);
        // A password file and Kerberos go by the name.
        if (string.IsNullOrEmpty(given.Password) || hosts.Any(host => host.IsSocket) || hosts is [] or [{ IsAddress: true }])
        {
            isLookedUp = true;
            return false;
        }
        var before = searches;
        var isMine = false;
        await lookingUp.WaitAsync(cancellationToken);
        try
        {
            if (sources != tried || searches != before)
            {
                // Somebody else looked meanwhile: many that wait must not look one after the other.
                return sources != tried;
            }
            isMine = true;
            var addresses = await PostgresHost.AddressesAsync(hosts, resolve, cancellationToken);
            if (hosts.Count == 1 && addresses.Count <= 1 && tried.Address is null)
            {
                isLookedUp = true;
                return false;
            }
            var found = hosts.Count > 1 || addresses.Count > 1
                ? await EveryAddress.FirstAsync(addresses, TryAsync, late => _ = late.DisposeAsync().AsTask(), ConnectTimeout, TimeProvider.System, cancellationToken)
                : Build(address: null);
            isLookedUp = true;
            if (found.Address == tried.Address)
            {
                await found.DisposeAsync();
                return false;
            }
            sources = found;
            await tried.DisposeAsync();
            return true;
        }
        catch (Exception exception) when (exception is SocketException or NpgsqlException or TimeoutException || (exception is OperationCanceledException && !cancellationToken.IsCancellationRequested))
        {
            // The name is not known at the moment, or none of its addresses answers, which is what the caller will say.
            isLookedUp = true;
            return false;
        }
        finally
        {
            if (isMine)
            {
                searches++;
            }
            lookingUp.Release();
        }
    }

    /// <summary>Connections to one address, if the primary answers there.</summary>
    private async Task<Sources> TryAsync(PostgresHost address, CancellationToken cancellationToken)
    {
        var there = Build(address);
        try
        {
            await using var connection = await there.Vital.OpenConnectionAsync(cancellationToken);
            await using var command = new NpgsqlCommand("SELECT pg_is_in_recovery()", connection);
            return await command.ExecuteScalarAsync(cancellationToken) is false ? there : throw new NpgsqlException("The server is a replica.");
        }
        catch
        {
            await there.DisposeAsync();
            throw;
        }
    }

    private TimeSpan ConnectTimeout => TimeSpan.FromSeconds(given.Timeout == 15 ? 5 : given.Timeout);

    /// <param name="address">One of several where the primary may be; null leaves the name to Npgsql.</param>
    private Sources Build(PostgresHost? address) => new(
        address,
        // However many pages and exports are open, whoever writes needs not wait for them, and neither need those on whom the others depend.
        Build(address, MaxReadConnections, Timeout, ""),
        Build(address, MaxWriteConnections, Timeout, ""),
        Build(address, MaxVitalConnections, VitalTimeout, ""),
        // A key is asked for in the middle of a write: whoever holds a connection for writing must not wait for another one.
        Build(address, MaxKeyConnections, VitalTimeout, ""),
        // Appends run the same few statements with arrays of up to some thousand elements. Their plans are made once, when tables may
        // still be empty; index scans are right for them at any size, so nothing else is allowed and no statistics can lead astray.
        Build(address, MaxAppendConnections, TimeSpan.FromSeconds(20), " -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"));

    private NpgsqlDataSource Build(PostgresHost? address, int maxConnections, TimeSpan timeout, string options)
    {
        var builder = new NpgsqlDataSourceBuilder(given.ConnectionString);
        var settings = builder.ConnectionStringBuilder;
        settings.ApplicationName = ApplicationName;
        settings.Timeout = (int)ConnectTimeout.TotalSeconds;
        settings.CommandTimeout = (int)timeout.TotalSeconds;
        // On a timeout the connection is dropped. A request to cancel could reach the server while it commits.
        settings.CancellationTimeout = -1;
        settings.MaxPoolSize = Math.Min(given.MaxPoolSize, maxConnections);
        settings.MinPoolSize = 0;
        settings.TcpKeepAlive = true;
        settings.TcpKeepAliveTime = 10;
        settings.TcpKeepAliveInterval = 5;
        settings.MaxAutoPrepare = 64;
        settings.AutoPrepareMinUsages = 3;
        settings.NoResetOnClose = true;
        // A batch leaves in as few pieces as can be: a process that stops between two of them holds what the first ones locked.
        settings.WriteBufferSize = 256 * 1024;
        settings.IncludeErrorDetail = false;
        settings.LogParameters = false;
        // The server ends what a frozen or vanished client left behind. Isolation is fixed because the guards of an append look again
        // after they got their turn. JIT compiles plans for milliseconds that run for microseconds.
        settings.Options = $"{given.Options} -c default_transaction_isolation=read\\ committed -c statement_timeout={(int)timeout.TotalMilliseconds}"
            + $" -c lock_timeout={LockTimeoutSeconds * 1000} -c idle_in_transaction_session_timeout=10000 -c jit=off{options}";
        if (address is not null)
        {
            (settings.Host, settings.Port) = (address.Host, address.Port);
            // Its certificate is for the name.
            builder.UseSslClientAuthenticationOptionsCallback(ssl => ssl.TargetHost = address.Name);
        }
        return Primary(builder);
    }

    /// <summary>Of several hosts only the primary is of use; that is ours to say, and Npgsql refuses to be told twice.</summary>
    private static NpgsqlDataSource Primary(NpgsqlDataSourceBuilder builder)
    {
        var settings = builder.ConnectionStringBuilder;
        settings.Remove("Target Session Attributes");
        settings.Remove("Load Balance Hosts");
        return settings.Host?.Contains(',', StringComparison.Ordinal) == true
            ? builder.BuildMultiHost().WithTargetSession(TargetSessionAttributes.Primary)
            : builder.Build();
    }

    private static async Task CheckSettingsAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var command = new NpgsqlCommand(
            """
            SELECT current_setting('server_version_num')::int, current_setting('server_version'), pg_is_in_recovery(), current_setting('fsync'),
                   current_setting('full_page_writes'), current_setting('synchronous_commit'), current_setting('server_encoding')
            """,
            connection);
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        await reader.ReadAsync(cancellationToken);
        var problems = new List<string>();
        if (reader.GetInt32(0) < OldestServer)
        {
            problems.Add($"it is PostgreSQL {reader.GetString(1)}; 14 or newer is needed");
        }
        if (reader.GetBoolean(2))
        {
            problems.Add("it is a replica; Store:ConnectionString has to name the primary (several hosts may be listed, as in Host=db1,db2; the primary is found)");
        }
        if (reader.GetString(3) != "on")
        {
            problems.Add("fsync is off, so a crash loses what was acknowledged; set fsync = on in postgresql.conf");
        }
        if (reader.GetString(4) != "on")
        {
            problems.Add("full_page_writes is off, so a crash can tear pages; set full_page_writes = on in postgresql.conf");
        }
        if (reader.GetString(5) is not ("on" or "remote_apply" or "remote_write"))
        {
            problems.Add($"synchronous_commit is {reader.GetString(5)}, so a commit may be lost after it was acknowledged; set it to on for this server, database and user (ALTER ROLE ... SET synchronous_commit = on)");
        }
        if (reader.GetString(6) != "UTF8")
        {
            problems.Add($"the database's encoding is {reader.GetString(6)}; create it with ENCODING 'UTF8'");
        }
        if (problems.Count > 0)
        {
            throw new StoreSettingsException($"PostgreSQL does not keep what the service has to promise: {string.Join("; ", problems)}.");
        }
    }

    /// <summary>The lock lives and dies with the transaction, so no pooler and no crash can leave it behind; who starts at the same time waits and finds the work done.</summary>
    private static async Task<bool> ApplyAsync(NpgsqlConnection connection, Migration migration, CancellationToken cancellationToken)
    {
        if (await CurrentVersionAsync(connection, cancellationToken) >= migration.Number)
        {
            return false;
        }
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);
        await ExecuteAsync(
            $"""
            SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0;
            SELECT pg_advisory_xact_lock({MigrationLock});
            CREATE TABLE IF NOT EXISTS schema_version (number BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL);
            """);
        if (await CurrentVersionAsync(connection, cancellationToken) >= migration.Number)
        {
            return false;
        }
        await ExecuteAsync($"{migration.Sql.TrimEnd()}\nINSERT INTO schema_version (number, name) VALUES ({migration.Number}, '{migration.Name}')");
        await transaction.CommitAsync(CancellationToken.None);
        return true;

        async Task ExecuteAsync(string sql)
        {
            await using var command = new NpgsqlCommand(sql, connection, transaction) { CommandTimeout = 600 };
            await command.ExecuteNonQueryAsync(cancellationToken);
        }
    }

    private static async Task<long> CurrentVersionAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        await using var exists = new NpgsqlCommand("SELECT to_regclass('schema_version') IS NOT NULL", connection);
        if (await exists.ExecuteScalarAsync(cancellationToken) is not true)
        {
            return 0;
        }
        await using var command = new NpgsqlCommand("SELECT coalesce(max(number), 0) FROM schema_version", connection);
        return (long)(await command.ExecuteScalarAsync(cancellationToken))!;
    }

    /// <summary>The connections: for reads, for writes, for what must never wait for pages, exports or letters (the relay's lease, the question whether the store is there, the end of
    /// sessions that block it), for the keys of customers, and for the log's appends.</summary>
    private sealed record Sources(PostgresHost? Address, NpgsqlDataSource Reads, NpgsqlDataSource Writes, NpgsqlDataSource Vital, NpgsqlDataSource Keys, NpgsqlDataSource Appends) : IAsyncDisposable
    {
        public void Clear()
        {
            foreach (var source in All)
            {
                source.Clear();
            }
        }

        public async ValueTask DisposeAsync()
        {
            foreach (var source in All)
            {
                await source.DisposeAsync();
            }
        }

        private NpgsqlDataSource[] All => [Reads, Writes, Vital, Keys, Appends];
    }

    [LoggerMessage(LogLevel.Information, "The store's schema was brought to {Migration}")]
    private partial void LogMigrated(string migration);

    [LoggerMessage(LogLevel.Warning, "{Sessions} sessions of this service held locks in PostgreSQL and sent nothing; they were ended")]
    private partial void LogFrozenSessionsEnded(long sessions);
}

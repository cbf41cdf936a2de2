using System.Data.Common;
using System.Diagnostics;
using System.Globalization;
using Dapper;
using Microsoft.Data.Sqlite;
using Npgsql;

namespace OrderService.Bench.Measurement;

/// <summary>Which store a contestant writes to.</summary>
internal enum StoreKind
{
    None,
    Sqlite,
    Postgres,
}

/// <summary>One run's store, empty at first and removed at the end.</summary>
internal sealed class StoreRun : IAsyncDisposable
{
    private readonly BenchAddresses addresses;
    private readonly string folder;
    private DbConnection? connection;

    private StoreRun(BenchAddresses addresses, StoreKind kind, string name, string folder)
    {
        this.addresses = addresses;
        this.folder = folder;
        Kind = kind;
        Name = name;
    }

    public StoreKind Kind { get; }

    /// <summary>The database's name.</summary>
    public string Name { get; }

    /// <summary>The SQLite file.</summary>
    public string SqlitePath => Path.Combine(folder, "orders.db");

    /// <summary>PostgreSQL's connection string.</summary>
    public string PostgresConnection => new NpgsqlConnectionStringBuilder(addresses.Postgres) { Database = Name }.ConnectionString;

    public static async Task<StoreRun> CreateAsync(BenchAddresses addresses, StoreKind kind, string name, string dataFolder)
    {
        var run = new StoreRun(addresses, kind, name.Replace('-', '_'), Path.Combine(dataFolder, name));
        if (kind == StoreKind.Sqlite)
        {
            if (Directory.Exists(run.folder))
            {
                Directory.Delete(run.folder, recursive: true);
            }
            Directory.CreateDirectory(run.folder);
        }
        else if (kind == StoreKind.Postgres)
        {
            await run.AdministerAsync($"DROP DATABASE IF EXISTS {run.Name} WITH (FORCE)");
            await run.AdministerAsync($"CREATE DATABASE {run.Name}");
        }
        return run;
    }

    /// <summary>What the last runs left to be written goes to disk now and not in the middle of the next run.</summary>
    public async Task SettleAsync()
    {
        if (Kind == StoreKind.Postgres)
        {
            await AdministerAsync("CHECKPOINT");
        }
    }

    /// <summary>One number out of the contestant's tables, read beside its own connections; null while the table is not there.</summary>
    public async Task<long?> NumberAsync(string sql)
    {
        try
        {
            connection ??= await OpenAsync();
            return await connection.ExecuteScalarAsync<long>(sql);
        }
        catch (PostgresException exception) when (exception.SqlState == PostgresErrorCodes.UndefinedTable)
        {
            return null;
        }
        catch (SqliteException exception) when (exception.SqliteErrorCode is 1 or 14)
        {
            // No such table, or no file yet.
            if (connection is not null)
            {
                await connection.DisposeAsync();
                connection = null;
            }
            return null;
        }
    }

    /// <summary>How many bytes the store takes on disk.</summary>
    public async Task<long> SizeAsync() => Kind == StoreKind.Postgres
        ? await NumberAsync("SELECT pg_database_size(current_database())") ?? 0
        : new DirectoryInfo(folder).EnumerateFiles().Sum(file => file.Length);

    /// <summary>Runs statements that fill or prepare the store; the contestant does not run yet.</summary>
    public async Task ExecuteAsync(string sql, object? parameters = null)
    {
        await using var writing = Kind == StoreKind.Postgres
            ? new NpgsqlConnection(PostgresConnection)
            : (DbConnection)new SqliteConnection($"Data Source={SqlitePath};Pooling=False");
        await writing.OpenAsync();
        await writing.ExecuteAsync(new CommandDefinition(sql, parameters, commandTimeout: 3600));
    }

    public async Task<DbConnection> OpenAsync()
    {
        DbConnection opened = Kind == StoreKind.Postgres
            ? new NpgsqlConnection(PostgresConnection)
            : new SqliteConnection($"Data Source={SqlitePath};Mode=ReadOnly;Pooling=False");
        await opened.OpenAsync();
        return opened;
    }

    public async ValueTask DisposeAsync()
    {
        if (connection is not null)
        {
            await connection.DisposeAsync();
        }
        NpgsqlConnection.ClearAllPools();
        if (Kind == StoreKind.Sqlite)
        {
            Directory.Delete(folder, recursive: true);
        }
        else if (Kind == StoreKind.Postgres)
        {
            await AdministerAsync($"DROP DATABASE IF EXISTS {Name} WITH (FORCE)");
        }
    }

    private async Task AdministerAsync(string sql)
    {
        await using var administering = new NpgsqlConnection(new NpgsqlConnectionStringBuilder(addresses.Postgres) { Pooling = false }.ConnectionString);
        await administering.OpenAsync();
        await administering.ExecuteAsync(sql, commandTimeout: 300, commandType: System.Data.CommandType.Text);
    }

    /// <summary>The settings that decide what a commit means, and the version; the run ends when a commit would not reach the disk.</summary>
    public static async Task<IReadOnlyDictionary<string, string>> PostgresSettingsAsync(BenchAddresses addresses)
    {
        await using var asking = new NpgsqlConnection(addresses.Postgres);
        await asking.OpenAsync();
        var settings = new Dictionary<string, string>(StringComparer.Ordinal) { ["version"] = asking.PostgreSqlVersion.ToString() };
        foreach (var name in new[] { "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers", "max_wal_size" })
        {
            settings[name] = await asking.ExecuteScalarAsync<string>($"SHOW {name}") ?? "";
        }
        if (settings["fsync"] != "on" || settings["synchronous_commit"] != "on")
        {
            throw new BenchException("PostgreSQL runs without fsync or synchronous_commit; its figures would be worth nothing.");
        }
        return settings;
    }
}

/// <summary>How often the disk under the stores confirms a small write: the upper limit for commits one after the other.</summary>
/// <param name="CommitsPerSecond">4 KiB appended and flushed, again and again.</param>
internal sealed record DiskRate(double CommitsPerSecond, double P50Milliseconds, double P99Milliseconds)
{
    public static DiskRate Measure(string folder, TimeSpan duration)
    {
        Directory.CreateDirectory(folder);
        var path = Path.Combine(folder, "disk-rate");
        var times = new List<double>();
        using (var file = File.OpenHandle(path, FileMode.Create, FileAccess.ReadWrite))
        {
            var block = new byte[4096];
            var began = Stopwatch.GetTimestamp();
            for (long offset = 0; Stopwatch.GetElapsedTime(began) < duration; offset += block.Length)
            {
                var start = Stopwatch.GetTimestamp();
                RandomAccess.Write(file, block, offset);
                RandomAccess.FlushToDisk(file);
                times.Add(Stopwatch.GetElapsedTime(start).TotalMilliseconds);
            }
        }
        File.Delete(path);
        times.Sort();
        return new DiskRate(times.Count / (times.Sum() / 1000), Percentile.Of(times, 0.5), Percentile.Of(times, 0.99));
    }

    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{CommitsPerSecond:N0} commits/s of 4 KiB (p50 {P50Milliseconds:F2} ms, p99 {P99Milliseconds:F2} ms)");
}

internal static class Percentile
{
    /// <param name="sorted">In ascending order.</param>
    public static double Of(IReadOnlyList<double> sorted, double share) =>
        sorted.Count == 0 ? double.NaN : sorted[Math.Max(0, (int)Math.Ceiling(share * sorted.Count) - 1)];

    public static double Median(IEnumerable<double> values)
    {
        double[] sorted = [.. values.Order()];
        return sorted.Length == 0 ? double.NaN : sorted.Length % 2 == 1 ? sorted[sorted.Length / 2] : (sorted[sorted.Length / 2 - 1] + sorted[sorted.Length / 2]) / 2;
    }
}

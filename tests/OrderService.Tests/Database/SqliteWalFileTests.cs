using Microsoft.Data.Sqlite;
using OrderService.Database;

namespace OrderService.Tests.Database;

/// <summary>The file system under the embedded store: it may gather what is written to the log, and must never let a commit depend on what it holds.</summary>
public sealed class SqliteWalFileTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("orderservice-wal-").FullName;

    public SqliteWalFileTests() => SqliteWalFile.RegisterFileSystem();

    private string Path => System.IO.Path.Combine(folder, "orders.db");

    [Fact]
    public void Every_commit_is_in_the_files_when_it_returns()
    {
        using var connection = Open(Path, SqliteWalFile.FileSystem);
        Execute(connection, "CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)");
        for (var commit = 1; commit <= 20; commit++)
        {
            // From one page to several buffers full.
            Execute(connection, $"INSERT INTO t (body) SELECT randomblob(3000) FROM generate_series_of({commit * commit})");

            // As a crash of the process leaves them: what was not written to the files is gone.
            var crashed = System.IO.Path.Combine(folder, $"crashed-{commit}.db");
            File.Copy(Path, crashed);
            File.Copy(Path + "-wal", crashed + "-wal");
            using var survivor = Open(crashed, null);
            Assert.Equal(Scalar(connection, "SELECT count(*) || ' ' || sum(id) FROM t"), Scalar(survivor, "SELECT count(*) || ' ' || sum(id) FROM t"));
            Assert.Equal("ok", Scalar(survivor, "PRAGMA integrity_check"));
        }
    }

    [Fact]
    public void A_transaction_larger_than_the_cache_reads_its_own_pages_back_rolls_back_and_is_written_over()
    {
        using var connection = Open(Path, SqliteWalFile.FileSystem);
        Execute(connection, "CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB); PRAGMA cache_size = 10");
        Execute(connection, "INSERT INTO t (body) SELECT zeroblob(3000) FROM generate_series_of(100)");
        Execute(connection, "BEGIN IMMEDIATE; INSERT INTO t (body) SELECT randomblob(3000) FROM generate_series_of(2000)");
        Assert.Equal("2100", Scalar(connection, "SELECT count(*) FROM t WHERE length(body) = 3000"));
        Assert.True(new FileInfo(Path + "-wal").Length > 1_000_000, "the transaction was to reach the log before its end");
        Execute(connection, "ROLLBACK");
        Execute(connection, "INSERT INTO t (body) SELECT zeroblob(2000) FROM generate_series_of(50)");

        using var reader = Open(Path, null);
        Assert.Equal("150", Scalar(reader, "SELECT count(*) FROM t"));
        Assert.Equal("ok", Scalar(reader, "PRAGMA integrity_check"));
    }

    [Fact]
    public void Checkpoints_of_another_connection_that_start_the_log_over_lose_nothing()
    {
        using var connection = Open(Path, SqliteWalFile.FileSystem);
        using var other = Open(Path, SqliteWalFile.FileSystem);
        Execute(connection, "CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)");
        var starts = 0;
        for (var commit = 1; commit <= 60; commit++)
        {
            Execute(connection, $"INSERT INTO t (body) SELECT randomblob(1000) FROM generate_series_of({commit % 7 * 20 + 1}); UPDATE t SET body = randomblob(900) WHERE id % 13 = {commit % 13}");
            if (commit % 5 == 0)
            {
                Execute(other, commit % 2 == 0 ? "PRAGMA wal_checkpoint(TRUNCATE)" : "PRAGMA wal_checkpoint(RESTART)");
                starts++;
            }
            Assert.Equal(Scalar(connection, "SELECT count(*) || ' ' || sum(length(body)) FROM t"), Scalar(other, "SELECT count(*) || ' ' || sum(length(body)) FROM t"));
        }
        Assert.Equal(12, starts);
        using var reader = Open(Path, null);
        Assert.Equal("ok", Scalar(reader, "PRAGMA integrity_check"));
        Assert.Equal(Scalar(connection, "SELECT count(*) FROM t"), Scalar(reader, "SELECT count(*) FROM t"));
    }

    public void Dispose()
    {
        SqliteConnection.ClearAllPools();
        Directory.Delete(folder, recursive: true);
    }

    private static SqliteConnection Open(string path, string? fileSystem)
    {
        var connection = new SqliteConnection(new SqliteConnectionStringBuilder { DataSource = path, Vfs = fileSystem, Pooling = false }.ToString());
        connection.Open();
        Execute(connection, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0");
        return connection;
    }

    private static void Execute(SqliteConnection connection, string sql)
    {
        using var command = connection.CreateCommand();
        command.CommandText = Series(sql);
        command.ExecuteNonQuery();
    }

    private static string? Scalar(SqliteConnection connection, string sql)
    {
        using var command = connection.CreateCommand();
        command.CommandText = sql;
        return Convert.ToString(command.ExecuteScalar(), System.Globalization.CultureInfo.InvariantCulture);
    }

    /// <summary>SQLite's generate_series is an extension that the library does not carry.</summary>
    private static string Series(string sql) => System.Text.RegularExpressions.Regex.Replace(sql, @"generate_series_of\((\d+)\)",
        "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1) SELECT i FROM n)");
}

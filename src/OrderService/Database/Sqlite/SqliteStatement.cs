using Microsoft.Data.Sqlite;
using SQLitePCL;

namespace OrderService.Database;

/// <summary>
/// A prepared statement on the writer's connection, bound and stepped directly: the flow runs some hundred thousand of these a second,
/// and a provider command costs several times what the statement itself does.
/// </summary>
internal sealed class SqliteStatement : IDisposable
{
    private readonly sqlite3 database;
    private readonly sqlite3_stmt statement;

    /// <param name="all">Gets this one too: whoever makes statements disposes all of them before the connection, which is not closed otherwise.</param>
    public SqliteStatement(SqliteConnection connection, List<SqliteStatement> all, string sql)
    {
        database = connection.Handle ?? throw new InvalidOperationException("The connection is closed.");
        statement = Prepare(connection, sql);
        all.Add(this);
    }

    public SqliteStatement Bind(int index, string? value)
    {
        if (value is null)
        {
            raw.sqlite3_bind_null(statement, index);
        }
        else
        {
            Check(raw.sqlite3_bind_text(statement, index, value));
        }
        return this;
    }

    public SqliteStatement Bind(int index, long value)
    {
        Check(raw.sqlite3_bind_int64(statement, index, value));
        return this;
    }

    public SqliteStatement Bind(int index, ReadOnlySpan<byte> value)
    {
        // A zero-length blob must not become NULL.
        Check(value.IsEmpty ? raw.sqlite3_bind_zeroblob(statement, index, 0) : raw.sqlite3_bind_blob(statement, index, value));
        return this;
    }

    public SqliteStatement BindNull(int index)
    {
        raw.sqlite3_bind_null(statement, index);
        return this;
    }

    /// <summary>Runs to the next row; false when there is none, which also makes the statement ready for its next use.</summary>
    public bool Step()
    {
        var code = raw.sqlite3_step(statement);
        if (code == raw.SQLITE_ROW)
        {
            return true;
        }
        if (code != raw.SQLITE_DONE)
        {
            Throw(code);
        }
        raw.sqlite3_reset(statement);
        return false;
    }

    public void Execute()
    {
        while (Step())
        {
        }
    }

    /// <summary>Ends a row loop early.</summary>
    public void Reset() => raw.sqlite3_reset(statement);

    public long Int64(int column) => raw.sqlite3_column_int64(statement, column);

    public string Text(int column) => raw.sqlite3_column_text(statement, column).utf8_to_string();

    public string? TextOrNull(int column) => raw.sqlite3_column_type(statement, column) == raw.SQLITE_NULL ? null : Text(column);

    public byte[] Blob(int column) => raw.sqlite3_column_blob(statement, column).ToArray();

    public void Dispose() => statement.Dispose();

    private static sqlite3_stmt Prepare(SqliteConnection connection, string sql)
    {
        var code = raw.sqlite3_prepare_v3(connection.Handle!, sql, raw.SQLITE_PREPARE_PERSISTENT, out var statement);
        if (code != raw.SQLITE_OK)
        {
            throw new SqliteException(raw.sqlite3_errmsg(connection.Handle!).utf8_to_string(), code, raw.sqlite3_extended_errcode(connection.Handle!));
        }
        return statement;
    }

    private void Check(int code)
    {
        if (code != raw.SQLITE_OK)
        {
            Throw(code);
        }
    }

    private void Throw(int code)
    {
        var exception = new SqliteException(raw.sqlite3_errmsg(database).utf8_to_string(), code & 0xff, raw.sqlite3_extended_errcode(database));
        raw.sqlite3_reset(statement);
        throw exception;
    }
}

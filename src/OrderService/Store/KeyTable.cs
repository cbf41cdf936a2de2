using System.Data.Common;
using System.Text.Json;
using Dapper;

namespace OrderService.Store;

/// <summary>
/// The store of the keys, apart from that of the orders: a file of its own beside SQLite's, a schema of its own in PostgreSQL. Its calls do not wait for one another as those of
/// <see cref="IDatabase"/> do: each is a statement or a short transaction on a connection of its own, so they may be made in the middle of a transaction of the orders' store.
/// </summary>
/// <param name="open">Opens a connection.</param>
/// <param name="exists">Whether there is such a store; looked at until there is.</param>
/// <param name="translate">Makes of the driver's exception the one that stations know.</param>
/// <param name="masterFile">Where a master key of its own lies, and beside it the keys of seals; null for rows in the database.</param>
/// <param name="scrub">Runs after keys were destroyed: nothing of them may be left in the files.</param>
public sealed class KeyTable(
    Func<DbConnection> open, Func<bool> exists, Func<Exception, Exception> translate, bool isSqlite, string? masterFile, Action<DbConnection>? scrub = null)
{
    private readonly string table = isSqlite ? "customer_keys" : "orderservice_keys.customer_keys";
    private const string SealKeyRows = "orderservice_keys.seal_keys";
    private const string SealHeadRows = "orderservice_keys.seal_heads";

    private readonly string masters = isSqlite ? "" : "orderservice_keys.master_key";
    private readonly string? sealFile = masterFile is null ? null : Path.Combine(Path.GetDirectoryName(masterFile)!, "seal.keys");
    private readonly string? headFile = masterFile is null ? null : Path.Combine(Path.GetDirectoryName(masterFile)!, "seal.head");
    private volatile bool isThere;

    /// <summary>Makes the tables, where they are missing.</summary>
    public void Create() => Run(connection =>
    {
        using var transaction = connection.BeginTransaction();
        if (!isSqlite)
        {
            // Instances that start together wait for one another.
            connection.Execute("SELECT pg_advisory_xact_lock(5724437219893379075); CREATE SCHEMA IF NOT EXISTS orderservice_keys", null, transaction);
            connection.Execute($"CREATE TABLE IF NOT EXISTS {masters} (one BOOLEAN NOT NULL DEFAULT true PRIMARY KEY CHECK (one), key BYTEA NOT NULL)", null, transaction);
            connection.Execute($"CREATE TABLE IF NOT EXISTS {SealKeyRows} (number BIGINT NOT NULL PRIMARY KEY, key BYTEA NOT NULL)", null, transaction);
            connection.Execute($"CREATE TABLE IF NOT EXISTS {SealHeadRows} (store TEXT NOT NULL PRIMARY KEY, number BIGINT NOT NULL, hash BYTEA NOT NULL)", null, transaction);
        }
        connection.Execute(
            $"""
            CREATE TABLE IF NOT EXISTS {table} (
                id            TEXT    NOT NULL PRIMARY KEY,
                subject       TEXT    NOT NULL,
                generation    BIGINT  NOT NULL,
                master        TEXT    NOT NULL,
                wrapped       {(isSqlite ? "BLOB" : "BYTEA")},
                created_at    BIGINT  NOT NULL,
                destroyed_at  BIGINT,
                UNIQUE (subject, generation));
            CREATE UNIQUE INDEX IF NOT EXISTS customer_keys_living ON {table} (subject) WHERE wrapped IS NOT NULL;
            CREATE INDEX IF NOT EXISTS customer_keys_destroyed ON {table} (destroyed_at) WHERE destroyed_at IS NOT NULL;
            """, null, transaction);
        transaction.Commit();
        isThere = true;
        return true;
    }, create: true);

    /// <summary>The living keys of these subjects.</summary>
    public List<KeyRow> Living(IReadOnlyCollection<string> subjects) => Run(connection => connection.Query<KeyRow>(
        $"SELECT id, subject, generation, master, wrapped FROM {table} WHERE subject {In("subjects")} AND wrapped IS NOT NULL", new { subjects = List(subjects) }).AsList()) ?? [];

    /// <summary>A key, living or destroyed; null where there is none.</summary>
    public KeyRow? Find(Guid id) => Run(connection => connection.QuerySingleOrDefault<KeyRow>(
        $"SELECT id, subject, generation, master, wrapped FROM {table} WHERE id = @id", new { id = id.ToString("N") }));

    /// <summary>Adds keys, each as the next generation of its subject; where another process was first, its key stays.</summary>
    public void Add(IReadOnlyCollection<KeyRow> rows, long now) => Run(connection =>
    {
        using var transaction = connection.BeginTransaction();
        foreach (var row in rows.OrderBy(row => row.Subject, StringComparer.Ordinal))
        {
            connection.Execute(
                $"""
                INSERT INTO {table} (id, subject, generation, master, wrapped, created_at)
                SELECT @Id, @Subject, coalesce(max(generation), 0) + 1, @Master, @Wrapped, @now FROM {table} WHERE subject = @Subject
                ON CONFLICT DO NOTHING
                """,
                new { row.Id, row.Subject, row.Master, row.Wrapped, now }, transaction);
        }
        transaction.Commit();
        return true;
    }, create: true);

    /// <summary>Destroys the keys of a subject that were made until <paramref name="now"/>. One that had none has a row all the same: the list of the forgotten is here.</summary>
    /// <returns>How many living keys there were.</returns>
    public int Destroy(string subject, long now)
    {
        return Run(connection =>
        {
            int destroyed;
            using (var transaction = connection.BeginTransaction())
            {
                destroyed = connection.Execute(
                    $"UPDATE {table} SET wrapped = NULL, destroyed_at = @now WHERE subject = @subject AND wrapped IS NOT NULL AND created_at <= @now", new { subject, now }, transaction);
                if (destroyed == 0)
                {
                    connection.Execute(
                        $"""
                        INSERT INTO {table} (id, subject, generation, master, created_at, destroyed_at)
                        SELECT @id, @subject, coalesce(max(generation), 0) + 1, '', @now, @now FROM {table} WHERE subject = @subject
                        """,
                        new { id = Guid.NewGuid().ToString("N"), subject, now }, transaction);
                }
                transaction.Commit();
            }
            scrub?.Invoke(connection);
            return destroyed;
        }, create: true);
    }

    /// <summary>Subjects with destroyed keys, and when the last one was destroyed.</summary>
    public List<DestroyedKey> Destroyed(string prefix) => Run(connection => connection.Query<DestroyedKey>(
        $"SELECT subject, max(destroyed_at) AS at FROM {table} WHERE destroyed_at IS NOT NULL AND subject LIKE @like GROUP BY subject ORDER BY 2", new { like = prefix + "%" }).AsList()) ?? [];

    /// <summary>All keys, living and destroyed, from behind one.</summary>
    public List<KeyRow> Page(string after, int limit) => Run(connection => connection.Query<KeyRow>(
        $"SELECT id, subject, generation, master, wrapped, created_at AS made, destroyed_at AS gone FROM {table} WHERE id > @after ORDER BY id LIMIT @limit", new { after, limit }).AsList()) ?? [];

    /// <summary>Adds keys as they are; those that are there stay.</summary>
    public void Insert(IReadOnlyCollection<KeyRow> rows) => Run(connection =>
    {
        using var transaction = connection.BeginTransaction();
        foreach (var row in rows)
        {
            connection.Execute(
                $"""
                INSERT INTO {table} (id, subject, generation, master, wrapped, created_at, destroyed_at)
                VALUES (@Id, @Subject, @Generation, @Master, @Wrapped, @Made, @Gone) ON CONFLICT DO NOTHING
                """,
                row, transaction);
        }
        transaction.Commit();
        return true;
    }, create: true);

    /// <summary>The ids of the master keys that wrap something, with how many keys each.</summary>
    public List<MasterUse> Masters() => Run(connection => connection.Query<MasterUse>(
        $"SELECT master AS id, count(*) AS keys FROM {table} WHERE wrapped IS NOT NULL GROUP BY master ORDER BY master").AsList()) ?? [];

    /// <summary>Some living keys that another master key wraps.</summary>
    public List<KeyRow> WrappedByOthers(string master, int limit) => Run(connection => connection.Query<KeyRow>(
        $"SELECT id, subject, generation, master, wrapped FROM {table} WHERE wrapped IS NOT NULL AND master <> @master ORDER BY id LIMIT @limit", new { master, limit }).AsList()) ?? [];

    /// <summary>Writes keys as another master key wraps them. One that was destroyed meanwhile stays destroyed.</summary>
    public void Rewrap(IReadOnlyCollection<KeyRow> rows) => Run(connection =>
    {
        using var transaction = connection.BeginTransaction();
        foreach (var row in rows)
        {
            connection.Execute($"UPDATE {table} SET wrapped = @Wrapped, master = @Master WHERE id = @Id AND wrapped IS NOT NULL", row, transaction);
        }
        transaction.Commit();
        scrub?.Invoke(connection);
        return true;
    }, create: true);

    /// <summary>The master key that lies beside the keys; null where there is none.</summary>
    public MasterKey? OwnMaster()
    {
        if (masterFile is null)
        {
            return Run(connection => connection.QuerySingleOrDefault<byte[]>($"SELECT key FROM {masters}")) is { } bytes ? MasterKey.Of(bytes) : null;
        }
        return File.Exists(masterFile)
            ? MasterKey.Parse(File.ReadAllText(masterFile)) ?? throw new StoreSettingsException($"{masterFile} holds no master key: 32 bytes as base64. Put the file back as it was; without it no personal data can be read.")
            : null;
    }

    /// <summary>Makes one, unless another process was first.</summary>
    /// <returns>Where it lies.</returns>
    public string AddOwnMaster(MasterKey master)
    {
        if (masterFile is null)
        {
            Run(connection => connection.Execute($"INSERT INTO {masters} (key) VALUES (@Bytes) ON CONFLICT DO NOTHING", new { master.Bytes }), create: true);
            return "the schema orderservice_keys";
        }
        // On the disk at once: a key that wraps others must not be younger there than they are.
        OwnerOnly.WriteNew(masterFile, Line(master.Bytes));
        return masterFile;
    }

    /// <summary>Nothing is wrapped by it any more.</summary>
    public void RemoveOwnMaster()
    {
        if (masterFile is null)
        {
            Run(connection => connection.Execute($"DELETE FROM {masters}"));
        }
        else
        {
            File.Delete(masterFile);
        }
    }

    /// <summary>The keys of seals that lie here, the oldest first; the last one is in use.</summary>
    public List<byte[]> OwnSealKeys()
    {
        if (sealFile is null)
        {
            return Run(connection => connection.Query<byte[]>($"SELECT key FROM {SealKeyRows} ORDER BY number").AsList()) ?? [];
        }
        return File.Exists(sealFile)
            ? [.. File.ReadAllLines(sealFile).Where(line => line.Length > 0).Select(line => SealKey.Parse(line)?.Bytes
                ?? throw new StoreSettingsException($"{sealFile} holds a line that is no key: 32 bytes as base64. Put the file back as it was, or take that line out: what was sealed under it can't be verified then."))]
            : [];
    }

    /// <summary>Makes the first one, unless another process was first.</summary>
    /// <returns>Where it lies.</returns>
    public string AddFirstSealKey(byte[] key)
    {
        if (sealFile is null)
        {
            Run(connection => connection.Execute($"INSERT INTO {SealKeyRows} (number, key) VALUES (1, @key) ON CONFLICT DO NOTHING", new { key }), create: true);
            return "the schema orderservice_keys";
        }
        OwnerOnly.WriteNew(sealFile, Line(key));
        return sealFile;
    }

    /// <summary>Adds one behind the others.</summary>
    public void AddOwnSealKey(byte[] key)
    {
        if (sealFile is null)
        {
            Run(connection => connection.Execute($"INSERT INTO {SealKeyRows} (number, key) SELECT coalesce(max(number), 0) + 1, @key FROM {SealKeyRows}", new { key }), create: true);
            return;
        }
        OwnerOnly.Replace(sealFile, [.. OwnSealKeys().Append(key).SelectMany(Line)]);
    }

    /// <summary>The newest seal of a store that was noted beside the keys.</summary>
    public SealHead? SealHead(string store) => headFile is null
        ? Run(connection => connection.QuerySingleOrDefault<(long Number, byte[]? Hash)>($"SELECT number, hash FROM {SealHeadRows} WHERE store = @store", new { store })) is { Hash: { } hash } row
            ? new SealHead(row.Number, hash)
            : null
        : Heads(headFile).GetValueOrDefault(store);

    public void SetSealHead(string store, SealHead head)
    {
        if (headFile is null)
        {
            // Of two instances the one with the longer chain is right.
            Run(connection => connection.Execute(
                $"""
                INSERT INTO {SealHeadRows} (store, number, hash) VALUES (@store, @Number, @Hash)
                ON CONFLICT (store) DO UPDATE SET number = excluded.number, hash = excluded.hash WHERE seal_heads.number <= excluded.number
                """,
                new { store, head.Number, head.Hash }));
            return;
        }
        var heads = Heads(headFile);
        heads[store] = head;
        WriteHeads(headFile, heads);
    }

    public void RemoveSealHead(string store)
    {
        if (headFile is null)
        {
            Run(connection => connection.Execute($"DELETE FROM {SealHeadRows} WHERE store = @store", new { store }));
            return;
        }
        var heads = Heads(headFile);
        if (heads.Remove(store))
        {
            WriteHeads(headFile, heads);
        }
    }

    // A line for each store whose keys lie here: its name and the head.
    private static Dictionary<string, SealHead> Heads(string file)
    {
        var heads = new Dictionary<string, SealHead>(StringComparer.Ordinal);
        foreach (var line in File.Exists(file) ? File.ReadAllLines(file) : [])
        {
            if (line.Split(' ') is [var store, var text] && Store.SealHead.Parse(text) is { } head)
            {
                heads[store] = head;
            }
        }
        return heads;
    }

    private static void WriteHeads(string file, Dictionary<string, SealHead> heads) =>
        OwnerOnly.Replace(file, System.Text.Encoding.ASCII.GetBytes(string.Concat(heads.OrderBy(pair => pair.Key, StringComparer.Ordinal).Select(pair => $"{pair.Key} {pair.Value}\n"))));

    private static byte[] Line(byte[] key) => System.Text.Encoding.ASCII.GetBytes(Convert.ToBase64String(key) + "\n");

    private string In(string parameter) => isSqlite ? $"IN (SELECT value FROM json_each(@{parameter}))" : $"= ANY(@{parameter})";

    private object List(IReadOnlyCollection<string> values) => isSqlite ? JsonSerializer.Serialize(values) : values.ToArray();

    /// <returns>The default where there is no such store yet.</returns>
    private T? Run<T>(Func<DbConnection, T> work, bool create = false)
    {
        try
        {
            if (!create && !isThere && !(isThere = exists()))
            {
                return default;
            }
            using var connection = open();
            return work(connection);
        }
        catch (DbException exception)
        {
            throw translate(exception);
        }
    }
}

/// <summary>A key as it is stored.</summary>
public sealed class KeyRow
{
    public string Id { get; init; } = "";
    public string Subject { get; init; } = "";
    public long Generation { get; init; }
    public string Master { get; init; } = "";

    /// <summary>Null when it is destroyed.</summary>
    public byte[]? Wrapped { get; init; }

    /// <summary>When it was made, and destroyed (Unix milliseconds); only of <see cref="KeyTable.Page"/>.</summary>
    public long Made { get; init; }

    public long? Gone { get; init; }

    /// <summary>The same key as another master key wraps it.</summary>
    public KeyRow WrappedAs(KeyRow other) =>
        new() { Id = Id, Subject = Subject, Generation = Generation, Master = other.Master, Wrapped = other.Wrapped, Made = Made, Gone = Gone };
}

public sealed class DestroyedKey
{
    public string Subject { get; init; } = "";
    public long At { get; init; }
}

public sealed class MasterUse
{
    public string Id { get; init; } = "";
    public long Keys { get; init; }
}

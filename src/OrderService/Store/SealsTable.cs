using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;

namespace OrderService.Store;

/// <summary>A seal: that some rows of a table were so and not otherwise, and which seal came before.</summary>
internal sealed class Seal
{
    /// <summary>What the first seal of a chain follows.</summary>
    public static byte[] Beginning { get; } = new byte[SHA256.HashSizeInBytes];

    public long Number { get; init; }
    public string Subject { get; init; } = "";
    public long FirstRow { get; init; }
    public long LastRow { get; init; }
    public long RowCount { get; init; }

    /// <summary>Up to this number rows are older than seals and are sealed as they are found; 0 once all of those are.</summary>
    public long FoundTo { get; init; }
    public long SealedAt { get; init; }
    public string KeyId { get; init; } = "";
    public byte[] Previous { get; init; } = [];
    public byte[] Root { get; init; } = [];
    public byte[] Signature { get; set; } = [];
    public byte[] Manifest { get; init; } = [];

    /// <summary>What is signed: the store's own name and everything but the manifest, of which the root speaks.</summary>
    public byte[] Signed(string store)
    {
        using var bytes = new MemoryStream(256);
        foreach (var text in (string[])[store, Subject, KeyId])
        {
            Put(Encoding.UTF8.GetBytes(text));
        }
        Span<byte> number = stackalloc byte[sizeof(long)];
        foreach (var value in (long[])[Number, FirstRow, LastRow, RowCount, FoundTo, SealedAt])
        {
            BinaryPrimitives.WriteInt64BigEndian(number, value);
            bytes.Write(number);
        }
        Put(Previous);
        Put(Root);
        return bytes.ToArray();

        void Put(byte[] part)
        {
            Span<byte> length = stackalloc byte[sizeof(int)];
            BinaryPrimitives.WriteInt32BigEndian(length, part.Length);
            bytes.Write(length);
            bytes.Write(part);
        }
    }

    /// <summary>What the next seal names as the one before it.</summary>
    public byte[] Hash(string store) => SHA256.HashData([.. Signed(store), .. Signature]);

    public SealHead Head(string store) => new(Number, Hash(store));
}

/// <summary>A mark that has no seal yet.</summary>
internal sealed class WaitingMark
{
    public long Id { get; init; }
    public string Subject { get; init; } = "";
    public long RowId { get; init; }
    public long Kind { get; init; }
    public byte[] Nonce { get; init; } = [];
    public byte[] Mark { get; init; } = [];

    public SealMarkKind MarkKind => (SealMarkKind)Kind;

    public SealCheck Check(SealKeys keys) => keys.CheckRow(Subject, MarkKind, RowId, Nonce, Mark);
}

/// <summary>Seals, what waits for one, and where the tables stood when seals began.</summary>
internal static class SealsTable
{
    private const string Header = "number, subject, first_row, last_row, row_count, found_to, sealed_at, key_id, previous, root, signature";

    /// <summary>The newest one, without its manifest; null when there is none.</summary>
    public static Task<Seal?> NewestAsync(StoreConnection connection) =>
        connection.QuerySingleOrDefaultAsync<Seal>($"SELECT {Header} FROM seals ORDER BY number DESC LIMIT 1");

    public static Task<Seal?> FindAsync(StoreConnection connection, long number) =>
        connection.QuerySingleOrDefaultAsync<Seal>($"SELECT {Header} FROM seals WHERE number = @number", new { number });

    /// <summary>The seals behind one, in order, with their manifests, one at a time.</summary>
    public static IAsyncEnumerable<Seal> AfterAsync(StoreConnection connection, long after, int limit) =>
        connection.QueryUnbufferedAsync<Seal>($"SELECT {Header}, manifest FROM seals WHERE number > @after ORDER BY number LIMIT @limit", new { after, limit });

    public static Task<long> CountAsync(StoreConnection connection) => connection.ExecuteScalarAsync<long>("SELECT count(*) FROM seals");

    /// <summary>The manifests of a subject with rows behind one up to another, in the order of the chain.</summary>
    // The plus keeps SQLite from walking the whole chain, which has that order already.
    public static IAsyncEnumerable<Seal> CoveringAsync(StoreConnection connection, string subject, long after, long last) => connection.QueryUnbufferedAsync<Seal>(
        $"SELECT {Header}, manifest FROM seals WHERE subject = @subject AND last_row > @after AND first_row <= @last ORDER BY +number", new { subject, after, last });

    /// <summary>Where a stretch ends of so many rows, or of those that about so many seals speak of; whichever are fewer: what is gone takes no row and much of the seals.</summary>
    /// <returns>The highest number there is where the rest is no longer than that.</returns>
    public static async Task<long> StretchAsync(StoreConnection connection, SealSubject subject, long after, int seals, int rows)
    {
        var (bySeals, byRows) = await connection.QuerySingleAsync<(long? Seals, long? Rows)>(
            $"""
            SELECT (SELECT last_row FROM seals WHERE subject = @Table AND last_row > @after ORDER BY last_row LIMIT 1 OFFSET @seals),
                (SELECT {subject.Row} FROM {subject.Table} WHERE {subject.Row} > @after ORDER BY {subject.Row} LIMIT 1 OFFSET @rows)
            """,
            new { subject.Table, after, seals, rows });
        return Math.Min(bySeals ?? long.MaxValue, byRows ?? long.MaxValue);
    }

    /// <summary>How far the rows of a subject are sealed.</summary>
    /// <returns>The highest number that has a seal, up to where rows are still sealed as they are found (0 when that is over), and whether there is a seal at all.</returns>
    public static async Task<(long SealedTo, long FoundTo, bool HasSeal)> ReachAsync(StoreConnection connection, string subject)
    {
        var (sealedTo, foundTo) = await connection.QuerySingleAsync<(long? SealedTo, long? FoundTo)>(
            """
            SELECT (SELECT max(last_row) FROM seals WHERE subject = @subject),
                coalesce((SELECT found_to FROM seals WHERE subject = @subject ORDER BY number DESC LIMIT 1), (SELECT found_to FROM seal_beginnings WHERE subject = @subject))
            """,
            new { subject });
        return (sealedTo ?? 0, foundTo ?? 0, sealedTo is not null);
    }

    public static Task AddAsync(StoreTransaction transaction, Seal seal) => transaction.ExecuteAsync(
        $"INSERT INTO seals ({Header}, manifest) VALUES (@Number, @Subject, @FirstRow, @LastRow, @RowCount, @FoundTo, @SealedAt, @KeyId, @Previous, @Root, @Signature, @Manifest)", seal);

    public static Task AddMarksAsync(StoreTransaction transaction, IReadOnlyList<SealMark> marks)
    {
        var keys = transaction.Keys.Seals;
        return transaction.InsertManyAsync(
            "seal_marks", [("subject", "text"), ("row_id", "bigint"), ("kind", "bigint"), ("nonce", "bytea"), ("mark", "bytea")],
            [.. marks.Select(mark =>
            {
                var (nonce, signature) = mark.Sign(keys);
                return new object?[] { mark.Subject, mark.Row, (long)mark.Kind, nonce, signature };
            })]);
    }

    /// <summary>Marks that wait, from behind one.</summary>
    public static Task<List<WaitingMark>> MarksAsync(StoreConnection connection, string subject, long after, int limit) => connection.QueryAsync<WaitingMark>(
        "SELECT id, subject, row_id, kind, nonce, mark FROM seal_marks WHERE subject = @subject AND id > @after ORDER BY id LIMIT @limit", new { subject, after, limit });

    /// <summary>The marks that wait for rows behind one up to another.</summary>
    public static Task<List<WaitingMark>> MarksOfRowsAsync(StoreConnection connection, string subject, long after, long last) => connection.QueryAsync<WaitingMark>(
        "SELECT id, subject, row_id, kind, nonce, mark FROM seal_marks WHERE subject = @subject AND row_id > @after AND row_id <= @last ORDER BY id", new { subject, after, last });

    public static async Task RemoveMarksAsync(StoreTransaction transaction, IReadOnlyCollection<long> ids)
    {
        foreach (var some in ids.Chunk(500))
        {
            await transaction.ExecuteAsync($"DELETE FROM seal_marks WHERE id IN {SqlList.Of(some)}");
        }
    }
}

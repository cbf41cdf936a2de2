using System.Buffers;
using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;

namespace OrderService.Store;

/// <summary>What a column holds, which decides how its bytes are read.</summary>
internal enum SealedColumn
{
    Number,
    Text,
    Bytes,
}

/// <summary>A table whose rows are sealed, with all of its columns.</summary>
/// <param name="Row">The column by which its rows are numbered.</param>
/// <param name="Columns">Their places are part of every hash: new ones go to the end, and must be NULL in rows that are sealed already.</param>
internal sealed record SealSubject(string Table, string Row, IReadOnlyList<(string Name, SealedColumn Kind)> Columns)
{
    private const byte NumberTag = 1, TextTag = 2, BytesTag = 3;

    public static readonly SealSubject Events = new("events", "position",
    [
        ("position", SealedColumn.Number), ("stream", SealedColumn.Number), ("order_id", SealedColumn.Text), ("version", SealedColumn.Number), ("type", SealedColumn.Text),
        ("data", SealedColumn.Bytes), ("correlation_id", SealedColumn.Text), ("causation_id", SealedColumn.Text), ("traceparent", SealedColumn.Text),
        ("recorded_at", SealedColumn.Number), ("hash", SealedColumn.Bytes), ("mark", SealedColumn.Bytes),
    ]);

    public static readonly SealSubject Letters = new("dead_letters", "id",
    [
        ("id", SealedColumn.Number), ("key", SealedColumn.Text), ("fingerprint", SealedColumn.Bytes), ("incident", SealedColumn.Text), ("status", SealedColumn.Text),
        ("reason", SealedColumn.Text), ("detail", SealedColumn.Text), ("field", SealedColumn.Text), ("content_type", SealedColumn.Text), ("type", SealedColumn.Text),
        ("message_id", SealedColumn.Text), ("correlation_id", SealedColumn.Text), ("order_id", SealedColumn.Text), ("customer_id", SealedColumn.Text), ("currency", SealedColumn.Text),
        ("value_minor", SealedColumn.Number), ("parked_at", SealedColumn.Number), ("opened_at", SealedColumn.Number), ("copies", SealedColumn.Number), ("replays", SealedColumn.Number),
        ("replayed_at", SealedColumn.Number), ("settled_at", SealedColumn.Number), ("settled_by", SealedColumn.Text), ("settle_reason", SealedColumn.Text), ("alert_id", SealedColumn.Number),
        ("exception", SealedColumn.Text), ("body", SealedColumn.Bytes), ("properties", SealedColumn.Text), ("deaths", SealedColumn.Text), ("twins", SealedColumn.Bytes),
        ("replay_key", SealedColumn.Text), ("keyless", SealedColumn.Number),
    ]);

    public static readonly SealSubject Audit = new("audit", "id",
    [
        ("id", SealedColumn.Number), ("at", SealedColumn.Number), ("who", SealedColumn.Text), ("action", SealedColumn.Text), ("subject", SealedColumn.Text), ("detail", SealedColumn.Text),
    ]);

    public static IReadOnlyList<SealSubject> All { get; } = [Events, Letters, Audit];

    private readonly int rowPlace = Place(Columns, Row);
    private readonly int hashPlace = Place(Columns, "hash");
    private readonly int markPlace = Place(Columns, "mark");

    /// <summary>The rows behind one up to another, in order.</summary>
    public Task<List<SealedRow>> RowsAsync(StoreConnection connection, long after, long last, int limit) =>
        ReadAsync(connection, $"WHERE {Row} > @after AND {Row} <= @last ORDER BY {Row} LIMIT @limit", new { after, last, limit });

    /// <summary>These rows, as far as they are there.</summary>
    public Task<List<SealedRow>> RowsAsync(StoreConnection connection, IReadOnlyCollection<long> rows) => ReadAsync(connection, $"WHERE {Row} IN {SqlList.Of(rows)} ORDER BY {Row}", null);

    private async Task<List<SealedRow>> ReadAsync(StoreConnection connection, string where, object? parameters)
    {
        // SQLite's text is read as its bytes: as text it would end at the first zero.
        var columns = string.Join(", ", Columns.Select(column => column.Kind == SealedColumn.Text ? connection.TextBytes(column.Name) : column.Name));
        var rows = new List<SealedRow>();
        var buffer = new ArrayBufferWriter<byte>(4096);
        // Only the hashes stay in memory.
        await foreach (var values in connection.QueryRowsUnbufferedAsync($"SELECT {columns} FROM {Table} {where}", parameters))
        {
            rows.Add(new SealedRow(
                (long)values[rowPlace]!, Hash(values, buffer), hashPlace < 0 ? null : values[hashPlace] as byte[], markPlace < 0 ? null : values[markPlace] as byte[]));
        }
        return rows;
    }

    private static int Place(IReadOnlyList<(string Name, SealedColumn Kind)> columns, string name) => columns.ToList().FindIndex(column => column.Name == name);

    /// <summary>SHA-256 over every column that has a value: its place, its kind, its length and its bytes.</summary>
    private byte[] Hash(object?[] values, ArrayBufferWriter<byte> buffer)
    {
        buffer.ResetWrittenCount();
        for (var index = 0; index < values.Length; index++)
        {
            switch (values[index])
            {
                case null:
                    break;
                case long number:
                    Head(buffer, index, NumberTag, sizeof(long));
                    BinaryPrimitives.WriteInt64BigEndian(buffer.GetSpan(sizeof(long)), number);
                    buffer.Advance(sizeof(long));
                    break;
                case byte[] bytes:
                    Head(buffer, index, Columns[index].Kind == SealedColumn.Text ? TextTag : BytesTag, bytes.Length);
                    buffer.Write(bytes);
                    break;
                case string text:
                    Head(buffer, index, TextTag, Encoding.UTF8.GetByteCount(text));
                    Encoding.UTF8.GetBytes(text, buffer);
                    break;
                case var other:
                    throw new InvalidDataException($"{Table}.{Columns[index].Name} holds a {other.GetType().Name}.");
            }
        }
        return SHA256.HashData(buffer.WrittenSpan);
    }

    private static void Head(ArrayBufferWriter<byte> buffer, int place, byte kind, int length)
    {
        var head = buffer.GetSpan(6);
        (head[0], head[1]) = ((byte)place, kind);
        BinaryPrimitives.WriteInt32BigEndian(head[2..], length);
        buffer.Advance(6);
    }
}

/// <summary>A row as it lies in the store.</summary>
/// <param name="Hash">Of all of it.</param>
/// <param name="EventHash">Of events: what the mark is for.</param>
/// <param name="Mark">Of events: who wrote it.</param>
internal sealed record SealedRow(long Row, byte[] Hash, byte[]? EventHash, byte[]? Mark);

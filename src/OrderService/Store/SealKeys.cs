using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;

namespace OrderService.Store;

/// <summary>A key that seals are made under.</summary>
/// <param name="Id">Says which one it is, and nothing about it; stands in each seal.</param>
public sealed record SealKey(string Id, byte[] Bytes)
{
    internal const int IdLength = 4;

    public static SealKey Of(byte[] bytes) => new(Convert.ToHexStringLower(HMACSHA256.HashData(bytes, "orderservice seal key id"u8).AsSpan(0, IdLength)), bytes);

    public static SealKey Create() => Of(RandomNumberGenerator.GetBytes(MasterKey.Length));

    /// <summary>Reads base64 or hex; null when it is neither, or not 256 bits.</summary>
    public static SealKey? Parse(string text) => MasterKey.Parse(text) is { } read ? Of(read.Bytes) : null;

    /// <summary>Without the key.</summary>
    public override string ToString() => Id;
}

/// <summary>What a look at a signature says.</summary>
public enum SealCheck
{
    Right,

    /// <summary>Nobody who has the key made it.</summary>
    Wrong,

    /// <summary>The key that it names is not here.</summary>
    UnknownKey,
}

/// <summary>The newest seal of a chain: how many there are, and the hash of the last one.</summary>
public sealed record SealHead(long Number, byte[] Hash)
{
    public override string ToString() => FormattableString.Invariant($"{Number}:{Convert.ToHexStringLower(Hash)}");

    /// <summary>Reads what <see cref="ToString"/> writes; null for anything else.</summary>
    public static SealHead? Parse(string text)
    {
        var parts = text.Trim().Split(':');
        return parts.Length == 2 && long.TryParse(parts[0], System.Globalization.NumberStyles.None, System.Globalization.CultureInfo.InvariantCulture, out var number)
            && parts[1].Length == 2 * SHA256.HashSizeInBytes && parts[1].All(char.IsAsciiHexDigit)
            ? new SealHead(number, Convert.FromHexString(parts[1]))
            : null;
    }
}

/// <summary>Signs what the service writes, and tells whether something was signed by it. The keys lie beside those of customers, or in the settings.</summary>
public sealed partial class SealKeys(KeyTable table, SealsOptions options, ILogger logger)
{
    /// <summary>The id of a key, and half of an HMAC-SHA256: what a row needs.</summary>
    public const int MarkLength = SealKey.IdLength + SignatureLength;

    public const int NonceLength = 16;

    private const int SignatureLength = 16;

    private readonly Lock gate = new();
    private volatile Known? known;

    /// <summary>The key that new seals are made under. Made at the first use where there is none.</summary>
    public SealKey Current => Keys(make: true).Current!;

    /// <summary>Makes a key where there is none.</summary>
    public void Prepare() => Keys(make: true);

    /// <summary>Looks again for keys that another process added. Whoever appends goes on with those that are known, whatever becomes of the file.</summary>
    public void Refresh()
    {
        lock (gate)
        {
            var read = Read();
            known = read.Current is null ? known : read;
        }
    }

    /// <summary>Signs under the present key.</summary>
    public byte[] Sign(ReadOnlySpan<byte> data) => HMACSHA256.HashData(Current.Bytes, data);

    public SealCheck Check(string keyId, ReadOnlySpan<byte> data, ReadOnlySpan<byte> signature) =>
        !Keys(make: false).All.TryGetValue(keyId, out var key) ? SealCheck.UnknownKey
        : CryptographicOperations.FixedTimeEquals(HMACSHA256.HashData(key.Bytes, data), signature) ? SealCheck.Right : SealCheck.Wrong;

    /// <summary>Says of an event that this service wrote it.</summary>
    /// <param name="hash">See <see cref="EventHash"/>: all of the event is in it.</param>
    public byte[] MarkEvent(ReadOnlySpan<byte> hash)
    {
        Span<byte> data = stackalloc byte[64];
        return Mark(data[..EventData(hash, data)]);
    }

    public SealCheck CheckEvent(ReadOnlySpan<byte> hash, ReadOnlySpan<byte> mark)
    {
        Span<byte> data = stackalloc byte[64];
        return hash.Length != SHA256.HashSizeInBytes ? SealCheck.Wrong : CheckMark(data[..EventData(hash, data)], mark);
    }

    /// <summary>Says of a row that this service added, changed or removed it.</summary>
    internal byte[] MarkRow(string subject, SealMarkKind kind, long row, ReadOnlySpan<byte> nonce)
    {
        Span<byte> data = stackalloc byte[64];
        return Mark(data[..RowData(subject, kind, row, nonce, data)]);
    }

    internal SealCheck CheckRow(string subject, SealMarkKind kind, long row, ReadOnlySpan<byte> nonce, ReadOnlySpan<byte> mark)
    {
        Span<byte> data = stackalloc byte[64];
        return nonce.Length != NonceLength ? SealCheck.Wrong : CheckMark(data[..RowData(subject, kind, row, nonce, data)], mark);
    }

    /// <summary>The keys of its own, copied into another place.</summary>
    public void CopyTo(SealKeys target)
    {
        var there = target.Table.OwnSealKeys().Select(SealKey.Of).Select(key => key.Id).ToHashSet(StringComparer.Ordinal);
        foreach (var key in table.OwnSealKeys().Select(SealKey.Of).Where(key => !there.Contains(key.Id)))
        {
            target.Table.AddOwnSealKey(key.Bytes);
        }
        target.Refresh();
    }

    /// <summary>Makes another key of its own. That of before goes on to verify what was sealed under it.</summary>
    /// <returns>Null where the key is one of the settings, and is exchanged there.</returns>
    public SealKey? Rotate()
    {
        if (!string.IsNullOrWhiteSpace(options.Key))
        {
            return null;
        }
        Prepare();
        table.AddOwnSealKey(SealKey.Create().Bytes);
        Refresh();
        return Current;
    }

    /// <summary>The newest seal of a store that this place knows of; null when none was noted.</summary>
    public SealHead? Head(string store) => table.SealHead(store);

    public void NoteHead(string store, SealHead head) => table.SetSealHead(store, head);

    /// <summary>The store was put back: the chain goes on from an earlier end.</summary>
    public void ForgetHead(string store) => table.RemoveSealHead(store);

    private KeyTable Table => table;

    private byte[] Mark(ReadOnlySpan<byte> data)
    {
        var key = Current;
        var mark = new byte[MarkLength];
        Convert.FromHexString(key.Id, mark, out _, out _);
        SignRow(key, data, mark.AsSpan(SealKey.IdLength));
        return mark;
    }

    private SealCheck CheckMark(ReadOnlySpan<byte> data, ReadOnlySpan<byte> mark)
    {
        if (mark.Length != MarkLength)
        {
            return SealCheck.Wrong;
        }
        if (!Keys(make: false).All.TryGetValue(Convert.ToHexStringLower(mark[..SealKey.IdLength]), out var key))
        {
            return SealCheck.UnknownKey;
        }
        Span<byte> signature = stackalloc byte[SignatureLength];
        SignRow(key, data, signature);
        return CryptographicOperations.FixedTimeEquals(signature, mark[SealKey.IdLength..]) ? SealCheck.Right : SealCheck.Wrong;
    }

    /// <summary>Half of an HMAC.</summary>
    private static void SignRow(SealKey key, ReadOnlySpan<byte> data, Span<byte> signature)
    {
        Span<byte> whole = stackalloc byte[SHA256.HashSizeInBytes];
        HMACSHA256.HashData(key.Bytes, data, whole);
        whole[..SignatureLength].CopyTo(signature);
    }

    // The first byte tells the two kinds of marks apart.
    private static int EventData(ReadOnlySpan<byte> hash, Span<byte> data)
    {
        data[0] = 0;
        hash.CopyTo(data[1..]);
        return hash.Length + 1;
    }

    private static int RowData(string subject, SealMarkKind kind, long row, ReadOnlySpan<byte> nonce, Span<byte> data)
    {
        data[0] = (byte)kind;
        BinaryPrimitives.WriteInt64BigEndian(data[1..], row);
        nonce.CopyTo(data[9..]);
        // The only part without a fixed length comes last.
        return 9 + NonceLength + Encoding.ASCII.GetBytes(subject, data[(9 + NonceLength)..]);
    }

    private Known Keys(bool make)
    {
        if (known is { } now && (now.Current is not null || !make))
        {
            return now;
        }
        lock (gate)
        {
            var read = Read();
            if (read.Current is null && make)
            {
                LogMade(table.AddFirstSealKey(SealKey.Create().Bytes));
                read = Read();
            }
            return known = read;
        }
    }

    private Known Read()
    {
        var own = table.OwnSealKeys().ConvertAll(SealKey.Of);
        var current = string.IsNullOrWhiteSpace(options.Key) ? own.LastOrDefault() : SealKey.Parse(options.Key);
        var all = options.Old.Select(old => SealKey.Parse(old.Key)).Concat(own).Append(current).OfType<SealKey>();
        return new Known(current, all.DistinctBy(key => key.Id).ToDictionary(key => key.Id, StringComparer.Ordinal));
    }

    [LoggerMessage(LogLevel.Information,
        "A key for seals was made and lies in {Place}. Whoever has it can forge evidence: set Seals:KeyFile to a key that lies apart from the store, and keep it. Without it nobody can prove that the store was not changed")]
    private partial void LogMade(string place);

    private sealed record Known(SealKey? Current, IReadOnlyDictionary<string, SealKey> All);
}

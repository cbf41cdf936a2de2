using System.Security.Cryptography;

namespace OrderService.Store;

/// <summary>What a seal says of a row. Numbers are stored.</summary>
internal enum SealedState
{
    /// <summary>The service wrote it, and signed that.</summary>
    Added = 1,

    /// <summary>It is older than seals: nobody can say who wrote it.</summary>
    Found = 2,

    /// <summary>Nothing that is known here vouches for it.</summary>
    Foreign = 3,

    /// <summary>The service changed it, and signed that.</summary>
    Changed = 4,

    /// <summary>The service took it out, and signed that.</summary>
    Removed = 5,

    /// <summary>It was changed by the service and was not there any more when the seal was made: either it was taken out since, which the next seal says, or it was not the service.</summary>
    Missing = 6,
}

/// <param name="Hash">SHA-256 of all its columns; null for one that is gone.</param>
/// <param name="Nonces">Of the marks by which it was changed: none counts twice.</param>
internal sealed record SealEntry(long Row, SealedState State, byte[]? Hash, IReadOnlyList<byte[]> Nonces)
{
    public static bool HasHash(SealedState state) => state is not (SealedState.Removed or SealedState.Missing);
}

/// <summary>The rows of a seal as bytes: for each the distance to the number before, its state, its hash, its nonces. 34 bytes for a plain event.</summary>
internal static class SealManifest
{
    private const byte HasNonces = 0x10;

    /// <param name="entries">In the order of their numbers.</param>
    public static byte[] Write(IReadOnlyList<SealEntry> entries)
    {
        using var bytes = new MemoryStream(entries.Count * 36);
        var before = 0L;
        foreach (var entry in entries)
        {
            WriteNumber(bytes, (ulong)(entry.Row - before));
            before = entry.Row;
            bytes.WriteByte((byte)((byte)entry.State | (entry.Nonces.Count > 0 ? HasNonces : 0)));
            if (entry.Hash is { } hash)
            {
                bytes.Write(hash);
            }
            if (entry.Nonces.Count > 0)
            {
                WriteNumber(bytes, (ulong)entry.Nonces.Count);
                foreach (var nonce in entry.Nonces)
                {
                    bytes.Write(nonce);
                }
            }
        }
        return bytes.ToArray();
    }

    /// <exception cref="InvalidDataException">It is no manifest.</exception>
    public static IEnumerable<SealEntry> Read(byte[] manifest)
    {
        var (at, row) = (0, 0L);
        while (at < manifest.Length)
        {
            row += (long)ReadNumber(manifest, ref at);
            var kind = Take(manifest, ref at, 1)[0];
            var state = (SealedState)(kind & ~HasNonces);
            if (!Enum.IsDefined(state))
            {
                throw new InvalidDataException("A manifest says something unknown.");
            }
            var hash = SealEntry.HasHash(state) ? Take(manifest, ref at, SHA256.HashSizeInBytes) : null;
            var nonces = new List<byte[]>();
            if ((kind & HasNonces) != 0)
            {
                for (var left = ReadNumber(manifest, ref at); left > 0; left--)
                {
                    nonces.Add(Take(manifest, ref at, SealKeys.NonceLength));
                }
            }
            yield return new SealEntry(row, state, hash, nonces);
        }
    }

    private static byte[] Take(byte[] manifest, ref int at, int length)
    {
        if (manifest.Length - at < length)
        {
            throw new InvalidDataException("A manifest ends too early.");
        }
        at += length;
        return manifest[(at - length)..at];
    }

    private static void WriteNumber(MemoryStream bytes, ulong number)
    {
        for (; number >= 0x80; number >>= 7)
        {
            bytes.WriteByte((byte)(number | 0x80));
        }
        bytes.WriteByte((byte)number);
    }

    private static ulong ReadNumber(byte[] manifest, ref int at)
    {
        var number = 0UL;
        for (var shift = 0; shift < 64; shift += 7)
        {
            var part = Take(manifest, ref at, 1)[0];
            number |= (ulong)(part & 0x7f) << shift;
            if (part < 0x80)
            {
                return number;
            }
        }
        throw new InvalidDataException("A manifest has a number without an end.");
    }
}

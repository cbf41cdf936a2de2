using System.Security.Cryptography;

namespace OrderService.Store;

/// <summary>A customer's key, or one of those for what names no customer.</summary>
public sealed record SealingKey(Guid Id, byte[] Bytes)
{
    /// <summary>Without the key.</summary>
    public override string ToString() => Id.ToString("N");
}

/// <summary>Bytes for whoever has the key: a mark, the key's id, a nonce, what AES-256-GCM made of them, and its tag.</summary>
public static class SealedBytes
{
    private const int IdLength = 16;
    private const int NonceLength = 12;
    private const int TagLength = 16;

    /// <summary>How much longer they are than the plain ones.</summary>
    public const int Overhead = 8 + IdLength + NonceLength + TagLength;

    /// <summary>How they begin; no text, and no JSON, begins like that.</summary>
    public static ReadOnlySpan<byte> Mark => [0x00, 0xff, (byte)'s', (byte)'e', (byte)'a', (byte)'l', (byte)'e', 0x01];

    /// <summary>What stands in the place of bytes that are gone: there is no such key.</summary>
    public static byte[] Gone { get; } = [.. Mark, .. new byte[Overhead - 8]];

    public static bool IsSealed(ReadOnlySpan<byte> bytes) => bytes.Length >= Overhead && bytes.StartsWith(Mark);

    /// <summary>Which key opens them.</summary>
    public static Guid KeyOf(ReadOnlySpan<byte> bytes) => new(bytes.Slice(Mark.Length, IdLength));

    public static byte[] Seal(SealingKey key, ReadOnlySpan<byte> plain)
    {
        var output = new byte[Overhead + plain.Length];
        var rest = output.AsSpan();
        Mark.CopyTo(rest);
        rest = rest[Mark.Length..];
        key.Id.TryWriteBytes(rest);
        rest = rest[IdLength..];
        var nonce = rest[..NonceLength];
        RandomNumberGenerator.Fill(nonce);
        using var cipher = new AesGcm(key.Bytes, TagLength);
        cipher.Encrypt(nonce, plain, rest.Slice(NonceLength, plain.Length), rest[^TagLength..]);
        return output;
    }

    /// <exception cref="InvalidDataException">They were changed.</exception>
    public static byte[] Open(SealingKey key, ReadOnlySpan<byte> bytes)
    {
        var rest = bytes[(Mark.Length + IdLength)..];
        var plain = new byte[bytes.Length - Overhead];
        using var cipher = new AesGcm(key.Bytes, TagLength);
        try
        {
            cipher.Decrypt(rest[..NonceLength], rest[NonceLength..^TagLength], rest[^TagLength..], plain);
        }
        catch (AuthenticationTagMismatchException exception)
        {
            throw new InvalidDataException("Sealed bytes were changed after they were written.", exception);
        }
        return plain;
    }
}

using System.Security.Cryptography;

namespace OrderService.Store;

/// <summary>Wraps the keys of customers: whoever has their store alone reads nothing.</summary>
/// <param name="Id">Says which one it is, and nothing about it; it stands beside each key that it wraps.</param>
public sealed record MasterKey(string Id, byte[] Bytes)
{
    public const int Length = 32;

    private const int NonceLength = 12;
    private const int TagLength = 16;

    public static MasterKey Of(byte[] bytes) => new(Convert.ToHexStringLower(HMACSHA256.HashData(bytes, "orderservice master key id"u8).AsSpan(0, 6)), bytes);

    public static MasterKey Create() => Of(RandomNumberGenerator.GetBytes(Length));

    /// <summary>Reads base64 or hex; null when it is neither, or not 256 bits.</summary>
    public static MasterKey? Parse(string text)
    {
        text = text.Trim();
        if (text.Length == 2 * Length && text.All(char.IsAsciiHexDigit))
        {
            return Of(Convert.FromHexString(text));
        }
        var bytes = new byte[Length + 1];
        return Convert.TryFromBase64String(text, bytes, out var length) && length == Length ? Of(bytes[..Length]) : null;
    }

    public byte[] Wrap(Guid id, ReadOnlySpan<byte> key)
    {
        var output = new byte[NonceLength + key.Length + TagLength];
        RandomNumberGenerator.Fill(output.AsSpan(0, NonceLength));
        using var cipher = new AesGcm(Bytes, TagLength);
        cipher.Encrypt(output.AsSpan(0, NonceLength), key, output.AsSpan(NonceLength, key.Length), output.AsSpan(^TagLength..), id.ToByteArray());
        return output;
    }

    /// <exception cref="InvalidDataException">The row was changed, or belongs to another key.</exception>
    public SealingKey Unwrap(Guid id, ReadOnlySpan<byte> wrapped)
    {
        var key = new byte[wrapped.Length - NonceLength - TagLength];
        using var cipher = new AesGcm(Bytes, TagLength);
        try
        {
            cipher.Decrypt(wrapped[..NonceLength], wrapped[NonceLength..^TagLength], wrapped[^TagLength..], key, id.ToByteArray());
        }
        catch (AuthenticationTagMismatchException exception)
        {
            throw new InvalidDataException($"The key {id:N} was changed in its store.", exception);
        }
        return new SealingKey(id, key);
    }

    /// <summary>Without the key.</summary>
    public override string ToString() => Id;
}

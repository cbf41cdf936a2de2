using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;

namespace OrderService.Store;

/// <summary>Chains each event to the one before it in its stream, so that a changed, missing or exchanged row is found by <c>verify</c>.</summary>
public static class EventHash
{
    /// <summary>What the first event of a stream is chained to.</summary>
    public static byte[] Genesis { get; } = new byte[SHA256.HashSizeInBytes];

    /// <summary>SHA-256 over the previous hash and every stored field, each preceded by its length.</summary>
    public static byte[] Next(
        ReadOnlySpan<byte> previous, string orderId, long version, string type, ReadOnlySpan<byte> data,
        string correlationId, string causationId, string? traceParent, long recordedAt)
    {
        var length = previous.Length + 16 + (6 * 4) + data.Length
            + Encoding.UTF8.GetMaxByteCount(orderId.Length + type.Length + correlationId.Length + causationId.Length + (traceParent?.Length ?? 0)) + 16;
        byte[]? rented = null;
        var buffer = length <= 2048 ? stackalloc byte[2048] : (rented = System.Buffers.ArrayPool<byte>.Shared.Rent(length));
        var at = 0;
        previous.CopyTo(buffer);
        at += previous.Length;
        BinaryPrimitives.WriteInt64BigEndian(buffer[at..], version);
        BinaryPrimitives.WriteInt64BigEndian(buffer[(at + 8)..], recordedAt);
        at += 16;
        at = Put(buffer, at, orderId);
        at = Put(buffer, at, type);
        at = Put(buffer, at, correlationId);
        at = Put(buffer, at, causationId);
        at = Put(buffer, at, traceParent ?? "");
        BinaryPrimitives.WriteInt32BigEndian(buffer[at..], data.Length);
        at += 4;
        data.CopyTo(buffer[at..]);
        at += data.Length;
        var hash = SHA256.HashData(buffer[..at]);
        if (rented is not null)
        {
            System.Buffers.ArrayPool<byte>.Shared.Return(rented);
        }
        return hash;
    }

    private static int Put(Span<byte> buffer, int at, string text)
    {
        var written = Encoding.UTF8.GetBytes(text, buffer[(at + 4)..]);
        BinaryPrimitives.WriteInt32BigEndian(buffer[at..], written);
        return at + 4 + written;
    }
}

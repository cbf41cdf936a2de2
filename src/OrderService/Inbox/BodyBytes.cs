using System.Runtime.InteropServices;

namespace OrderService.Inbox;

internal static class BodyBytes
{
    /// <summary>The array behind a body where it is that array, else a copy: a large body is in memory once.</summary>
    public static byte[] ToBytes(this ReadOnlyMemory<byte> body) =>
        MemoryMarshal.TryGetArray(body, out var segment) && segment.Array is { } array && segment.Count == array.Length ? array : body.ToArray();
}

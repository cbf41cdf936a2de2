using System.Buffers;
using System.Text.Json;

namespace OrderService.Store;

/// <summary>One reusable JSON writer per thread, so that rendering costs no more than the bytes it returns.</summary>
/// <remarks>Take it, write, take the bytes; nothing in between may await or render a second document.</remarks>
internal static class JsonScratch
{
    // A rare huge order must not keep its buffer for the life of the thread.
    private const int KeptBytes = 256 * 1024;

    [ThreadStatic]
    private static ArrayBufferWriter<byte>? buffer;

    [ThreadStatic]
    private static Utf8JsonWriter? writer;

    /// <summary>An empty document to write into.</summary>
    public static Utf8JsonWriter Begin()
    {
        if (buffer is null || writer is null)
        {
            buffer = new ArrayBufferWriter<byte>(1024);
            writer = new Utf8JsonWriter(buffer);
        }

        // Also drops what a document that failed half way left behind.
        writer.Reset();
        buffer.ResetWrittenCount();
        return writer;
    }

    /// <summary>The bytes of the document begun last on this thread.</summary>
    public static byte[] End()
    {
        writer!.Flush();
        var bytes = buffer!.WrittenSpan.ToArray();
        if (buffer.Capacity > KeptBytes)
        {
            (buffer, writer) = (null, null);
        }

        return bytes;
    }
}

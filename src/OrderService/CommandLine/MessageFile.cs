using System.Buffers;
using System.IO.Pipelines;
using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Json;
using System.Text.Unicode;
using OrderService.Configuration;
using OrderService.Domain;
using OrderService.Inbox;
using OrderService.Outbox;
using OrderService.RabbitMq;

namespace OrderService.CommandLine;

/// <summary>One line of a message file, ready to be sent.</summary>
/// <param name="Number">From 1.</param>
/// <param name="Message">Null when the line can't be sent at all.</param>
/// <param name="Sort">What is counted together in the summary; null where nothing is.</param>
internal sealed record MessageLine(long Number, OutgoingMessage? Message, string? Mistake = null, string? Sort = null);

/// <summary>Reads messages from lines, in bounded memory however long the file is.</summary>
internal static class MessageFile
{
    /// <summary>Somewhat more than the largest message that is accepted, so that one that is too large can be sent too.</summary>
    private const int LongestLine = 4 * 1024 * 1024;

    private static readonly string[] EnvelopeMembers = ["type", "messageId", "correlationId", "contentType", "headers", "body"];

    public static Stream Open(string path)
    {
        if (Directory.Exists(path))
        {
            throw new IOException("it is a folder.");
        }
        return new FileStream(path, new FileStreamOptions { Mode = FileMode.Open, Access = FileAccess.Read, Options = FileOptions.Asynchronous | FileOptions.SequentialScan });
    }

    /// <exception cref="IOException">It is no text that can be read; nothing was sent.</exception>
    public static async IAsyncEnumerable<MessageLine> ReadAsync(Stream stream, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var reader = await OpenTextAsync(PipeReader.Create(stream, new StreamPipeReaderOptions(leaveOpen: true)), cancellationToken);
        long number = 0;
        var skipping = false;
        // What ends a line shows with the first line feed. A file that has none where one must be has carriage returns alone.
        byte? end = null;
        while (true)
        {
            var read = await reader.ReadAsync(cancellationToken);
            var buffer = read.Buffer;
            if (end is null && buffer.PositionOf((byte)'\n') is not null)
            {
                end = (byte)'\n';
            }
            else if (end is null && (read.IsCompleted || buffer.Length > LongestLine))
            {
                end = (byte)'\r';
            }
            while (end is { } separator && TryTakeLine(ref buffer, separator, read.IsCompleted, out var line))
            {
                number++;
                if (skipping)
                {
                    skipping = false;
                    yield return new MessageLine(number, null, $"the line is longer than {LongestLine / 1024 / 1024} MiB");
                }
                else if (!Utf8.IsValid(line))
                {
                    yield return new MessageLine(number, null, "not sent: the line is not UTF-8 text; save the file as UTF-8");
                }
                else if (ExportedLetter.Read(line) is { } exported)
                {
                    yield return new MessageLine(number, exported.Message, exported.Mistake);
                }
                else if (Parse(line) is { } message)
                {
                    yield return new MessageLine(number, message);
                }
            }
            if (buffer.Length > LongestLine)
            {
                skipping = true;
                buffer = buffer.Slice(buffer.End);
            }
            reader.AdvanceTo(buffer.Start, buffer.End);
            if (read.IsCompleted)
            {
                break;
            }
        }
        await reader.CompleteAsync();
    }

    /// <summary>Looks at the beginning: a byte order mark is no part of the first line, and UTF-16 is read as what it says.</summary>
    private static async Task<PipeReader> OpenTextAsync(PipeReader reader, CancellationToken cancellationToken)
    {
        var read = await reader.ReadAtLeastAsync(4, cancellationToken);
        var beginning = read.Buffer.Slice(0, Math.Min(4, read.Buffer.Length)).ToArray();
        var mark = TextFile.MarkOf(beginning);
        reader.AdvanceTo(read.Buffer.GetPosition(mark?.Preamble.Length ?? 0));
        if (mark is null or System.Text.UTF8Encoding)
        {
            return beginning.AsSpan(0, Math.Min(2, beginning.Length)).Contains((byte)0)
                ? throw new IOException("it is not UTF-8 text: it begins with a zero byte, as UTF-16 without a byte order mark does. Save it as UTF-8.")
                : reader;
        }
        return PipeReader.Create(Encoding.CreateTranscodingStream(reader.AsStream(), mark, new UTF8Encoding(encoderShouldEmitUTF8Identifier: false)));
    }

    /// <summary>A line as a message; null for an empty line.</summary>
    internal static OutgoingMessage? Parse(byte[] line)
    {
        var text = line.AsSpan();
        if (text.EndsWith("\r"u8))
        {
            text = text[..^1];
        }
        var content = BodySyntax.WithoutByteOrderMark(text);
        if (content.Trim(" \t"u8).IsEmpty)
        {
            return null;
        }
        return ReadEnvelope(content) ?? Message(CommandType.Place, text.ToArray());
    }

    /// <summary>A message for the queue; its id, where none is given, is the one that its content stands for.</summary>
    public static OutgoingMessage Message(
        string? type, byte[] body, string? messageId = null, string? correlationId = null, string? contentType = "application/json", string? contentEncoding = null, IReadOnlyDictionary<string, object?>? headers = null) => new()
        {
            Exchange = TopologyNames.OrdersIn,
            RoutingKey = TopologyNames.Orders,
            OrderId = BodySyntax.FindOrderId(body),
            MessageId = string.IsNullOrEmpty(messageId) ? EnvelopeDecoder.DerivedKey(EnvelopeDecoder.Fingerprint(string.IsNullOrEmpty(type) ? CommandType.Place : type, body)) : messageId,
            CorrelationId = correlationId,
            Type = type,
            AppId = "orderservice-publish",
            ContentType = contentType,
            ContentEncoding = contentEncoding,
            Headers = headers,
            Body = body,
        };

    private static OutgoingMessage? ReadEnvelope(ReadOnlySpan<byte> line)
    {
        try
        {
            using var document = JsonDocument.Parse(line.ToArray(), new JsonDocumentOptions { MaxDepth = 128 });
            var root = document.RootElement;
            if (root.ValueKind != JsonValueKind.Object || !root.TryGetProperty("body", out var body) || root.EnumerateObject().Any(member => !EnvelopeMembers.Contains(member.Name)))
            {
                return null;
            }
            string? Text(string name) => root.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;
            var headers = root.TryGetProperty("headers", out var given) && given.ValueKind == JsonValueKind.Object
                ? given.EnumerateObject().ToDictionary(member => member.Name, member => Value(member.Value))
                : null;
            var bytes = Encoding.UTF8.GetBytes(body.ValueKind == JsonValueKind.String ? body.GetString()! : body.GetRawText());
            return Message(Text("type") ?? CommandType.Place, bytes, Text("messageId"), Text("correlationId"), root.TryGetProperty("contentType", out _) ? Text("contentType") : "application/json", headers: headers);
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException)
        {
            return null;
        }
    }

    private static object? Value(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.String => value.GetString(),
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        JsonValueKind.Number when value.TryGetInt64(out var number) => number,
        JsonValueKind.Number => value.GetDouble(),
        JsonValueKind.Null => null,
        _ => value.GetRawText(),
    };

    private static bool TryTakeLine(ref ReadOnlySequence<byte> buffer, byte separator, bool isLast, out byte[] line)
    {
        if (buffer.PositionOf(separator) is { } end)
        {
            line = buffer.Slice(0, end).ToArray();
            buffer = buffer.Slice(buffer.GetPosition(1, end));
            return true;
        }
        line = [];
        if (!isLast || buffer.IsEmpty)
        {
            return false;
        }
        line = buffer.ToArray();
        buffer = buffer.Slice(buffer.End);
        return true;
    }
}

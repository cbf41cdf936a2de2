using System.Buffers;
using System.Diagnostics.CodeAnalysis;
using System.Security.Cryptography;
using System.Text;
using System.Text.Unicode;
using OrderService.Domain;

namespace OrderService.Inbox;

/// <summary>
/// Turns a delivery's bytes into a command, or into the reason why it is a dead letter. The one parser of the queue and of HTTP:
/// what one refuses, the other refuses with the same reason. No input makes it throw.
/// </summary>
public static class EnvelopeDecoder
{
    /// <summary>The largest body, in bytes.</summary>
    public const int MaxBodyBytes = 1024 * 1024;

    /// <summary>How deep objects and arrays may be nested.</summary>
    public const int MaxDepth = 32;

    /// <summary>The longest idempotency key and correlation id, in characters.</summary>
    public const int MaxKeyLength = 255;

    /// <summary>The header that names the idempotency key; it wins over <c>message_id</c>.</summary>
    public const string KeyHeader = "idempotency-key";

    /// <summary>The type that the broker gives a message whose AMQP 1.0 body is not bytes. No sender means it.</summary>
    public const string AmqpType = "amqp-1.0";

    /// <summary>What is wrong with such a message.</summary>
    public const string AmqpSectionDetail =
        "The body is an AMQP 1.0 value or sequence section (the broker then sets the type amqp-1.0): send the JSON as bytes in one data section.";

    private const string DerivedKeyPrefix = "sha256:";

    /// <summary>What this process makes of messages of other shapes: one mapping for every way in, set once before the first message is read.</summary>
    public static CommandMapping Mapping { get; internal set; } = CommandMapping.None;

    private static readonly SearchValues<char> KeyCharacters = SearchValues.Create(
        [.. Enumerable.Range('!', '~' - '!' + 1).Select(character => (char)character)]);

    /// <summary>Decodes a delivery.</summary>
    /// <param name="properties">What came with the body; nothing in it is trusted.</param>
    /// <param name="body">The bytes as they came.</param>
    public static Decoded Decode(MessageProperties properties, ReadOnlyMemory<byte> body)
    {
        ArgumentNullException.ThrowIfNull(properties);

        var type = TypeOf(properties);
        var fingerprint = Fingerprint(type, body.Span);
        string? key = null;
        OrderCommand? command = null;
        MappedBody? mapped = null;
        Rejection? rejection;
        try
        {
            mapped = Mapping.Map(properties, body);
            var commandType = mapped?.Rule.Command ?? type;
            PlantedBug.Plant("unknown-command-is-a-place", () => type = commandType = CommandType.IsKnown(commandType) ? commandType : CommandType.Place);
            // A body in AMQP 1.0's own types first: for it the broker makes up a type, which the sender never wrote.
            rejection = ReadKey(properties, out key)
                ?? (BodySyntax.IsAmqpSection(body.Span) ? AmqpSection() : null)
                ?? CheckProperties(properties, commandType)
                ?? mapped?.Rejection;
            if (rejection is null && !TryDecodeBody(commandType, (mapped?.Body ?? body).Span, orderIdFromPath: null, out command, out rejection) && mapped is not null)
            {
                rejection = rejection with { Detail = $"{rejection.Detail} {mapped.Rule.Hint}" };
            }
        }
        catch (Exception exception) when (exception is not OutOfMemoryException)
        {
            // A mistake of ours must cost one message, not the consumer. The property tests show that nothing gets here.
            rejection = InternalError(exception);
        }

        key ??= DerivedKey(fingerprint);
        var correlationId = IsKey(properties.CorrelationId) ? properties.CorrelationId : key;
        if (rejection is not null || command is null)
        {
            return new Decoded.Invalid(
                key, fingerprint, rejection ?? InternalError(null), BodySyntax.FindOrderId((mapped?.Body ?? body).Span), correlationId);
        }

        var traceParent = TraceParent(properties);
        var traceState = traceParent is null ? null : TraceContext.State(Header(properties, "tracestate"));
        var replay = ReplayMark.Parse(AsText(Header(properties, ReplayMark.Header)));
        return new Decoded.Valid(new Envelope(key, fingerprint, command, correlationId, traceParent, traceState, replay));
    }

    /// <summary>The W3C trace context of a message, where well formed.</summary>
    public static string? TraceParent(MessageProperties properties) => TraceContext.Parent(Header(properties, "traceparent"));

    /// <summary>Why a message is a dead letter whose body was too large to be kept. What is wrong with its properties comes first, as in <see cref="Decode"/>.</summary>
    public static Decoded.Invalid Refuse(MessageProperties properties, UnkeptBody body)
    {
        ArgumentNullException.ThrowIfNull(properties);
        ArgumentNullException.ThrowIfNull(body);

        var rejection = ReadKey(properties, out var key)
            ?? (body.IsAmqpSection ? AmqpSection() : null)
            ?? CheckProperties(properties, TypeOf(properties))
            ?? TooLarge(body.Length);
        key ??= DerivedKey(body.Fingerprint);
        return new Decoded.Invalid(key, body.Fingerprint, rejection, body.OrderId, IsKey(properties.CorrelationId) ? properties.CorrelationId : key);
    }

    /// <summary>A delivery's key and fingerprint, as <see cref="Decode"/> gives them, without a look into the body.</summary>
    public static (string Key, byte[] Fingerprint) Identify(MessageProperties properties, ReadOnlyMemory<byte> body, UnkeptBody? unkept = null)
    {
        ArgumentNullException.ThrowIfNull(properties);

        var fingerprint = unkept?.Fingerprint ?? Fingerprint(TypeOf(properties), body.Span);
        ReadKey(properties, out var key);
        return (key ?? DerivedKey(fingerprint), fingerprint);
    }

    /// <summary>Decodes a body whose command is already known.</summary>
    /// <param name="commandType">One of <see cref="CommandType"/>.</param>
    /// <param name="body">The bytes as they came.</param>
    /// <param name="orderIdFromPath">
    /// The order id, where the address names it: the body may then omit it, must not contradict it, and may be empty if the command needs nothing else.
    /// </param>
    /// <param name="command">The command; <see cref="CommandWriter.Write"/> gives its body with the order id in it.</param>
    /// <param name="rejection">Why there is no command.</param>
    public static bool TryDecodeBody(
        string commandType,
        ReadOnlySpan<byte> body,
        string? orderIdFromPath,
        [NotNullWhen(true)] out OrderCommand? command,
        [NotNullWhen(false)] out Rejection? rejection)
    {
        command = null;
        if (!CommandType.IsKnown(commandType))
        {
            rejection = UnknownCommand();
            return false;
        }

        if (orderIdFromPath is not null && !TextRules.IsId(orderIdFromPath))
        {
            rejection = new Rejection(RejectionReason.IdInvalid, $"The order id in the address must be {TextRules.IdRule}.", "/orderId");
            return false;
        }

        if (body.Length > MaxBodyBytes)
        {
            rejection = TooLarge(body.Length);
            return false;
        }

        body = BodySyntax.WithoutByteOrderMark(body);
        if (body.IsEmpty)
        {
            if (orderIdFromPath is null)
            {
                rejection = new Rejection(RejectionReason.BodyEmpty, "The body is empty; send one JSON object.", null);
                return false;
            }

            body = "{}"u8;
        }

        if (BodySyntax.IsAmqpSection(body))
        {
            rejection = AmqpSection();
            return false;
        }

        if (!BodySyntax.IsUtf8(body))
        {
            rejection = new Rejection(
                RejectionReason.InvalidEncoding,
                BodySyntax.LooksLikeUtf16(body) ? "The body is UTF-16 text; encode the JSON as UTF-8." : "The body is not valid UTF-8; encode the JSON as UTF-8.",
                null);
            return false;
        }

        command = CommandParser.Parse(commandType, body, orderIdFromPath, out rejection);
        return command is not null;
    }

    /// <summary>
    /// What makes two messages the same: the SHA-256 over the command type in UTF-8, one line feed, and the body's bytes as they came, without one leading byte order mark.
    /// A message without a type has the type <c>order.place</c> here too.
    /// </summary>
    /// <returns>32 bytes.</returns>
    public static byte[] Fingerprint(string type, ReadOnlySpan<byte> body)
    {
        ArgumentNullException.ThrowIfNull(type);

        body = BodySyntax.WithoutByteOrderMark(body);
        if (body.Length > MaxBodyBytes)
        {
            // Once in memory is enough.
            using var parts = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
            parts.AppendData(Encoding.UTF8.GetBytes(type));
            parts.AppendData("\n"u8);
            parts.AppendData(body);
            return parts.GetHashAndReset();
        }

        var length = Encoding.UTF8.GetMaxByteCount(type.Length) + 1 + body.Length;
        var rented = length <= 1024 ? null : ArrayPool<byte>.Shared.Rent(length);
        var buffer = rented is null ? stackalloc byte[length] : rented;
        var written = Encoding.UTF8.GetBytes(type, buffer);
        buffer[written++] = (byte)'\n';
        body.CopyTo(buffer[written..]);
        var hash = SHA256.HashData(buffer[..(written + body.Length)]);
        if (rented is not null)
        {
            ArrayPool<byte>.Shared.Return(rented);
        }

        return hash;
    }

    /// <summary>The key of a message that brought none: <c>sha256:</c> and the fingerprint in hex.</summary>
    public static string DerivedKey(ReadOnlySpan<byte> fingerprint) => DerivedKeyPrefix + Convert.ToHexStringLower(fingerprint);

    /// <summary>Whether a text may be an idempotency key or a correlation id: 1 to 255 visible ASCII characters, no blanks.</summary>
    public static bool IsKey([NotNullWhen(true)] string? text) =>
        text is { Length: >= 1 and <= MaxKeyLength } && !text.AsSpan().ContainsAnyExcept(KeyCharacters);

    internal static string TypeOf(MessageProperties properties) =>
        string.IsNullOrEmpty(properties.Type) ? CommandType.Place : properties.Type;

    private static Rejection? ReadKey(MessageProperties properties, out string? key)
    {
        key = null;
        var source = "property message_id";
        string? given;
        if (properties.Headers is { } headers && headers.TryGetValue(KeyHeader, out var header))
        {
            source = "header " + KeyHeader;
            given = AsText(header);
            if (given is null)
            {
                return new Rejection(RejectionReason.PropertyInvalid, $"The {source} must be a string in UTF-8.", null);
            }
        }
        else
        {
            given = null;
        }

        // An empty text is absent, as an empty type is.
        if (string.IsNullOrEmpty(given))
        {
            (source, given) = ("property message_id", properties.MessageId);
        }

        if (string.IsNullOrEmpty(given))
        {
            return null;
        }

        if (!IsKey(given))
        {
            return new Rejection(
                RejectionReason.KeyInvalid, $"The {source} must have 1 to {MaxKeyLength} visible ASCII characters without blanks.", null);
        }

        key = given;
        return null;
    }

    private static Rejection? CheckProperties(MessageProperties properties, string type)
    {
        if (!CommandType.IsKnown(type))
        {
            return UnknownCommand();
        }

        if (!IsJson(properties.ContentType))
        {
            return new Rejection(
                RejectionReason.UnsupportedContentType, "The property content_type must be application/json (charset utf-8) or absent.", null);
        }

        return IsIdentity(properties.ContentEncoding)
            ? null
            : new Rejection(
                RejectionReason.UnsupportedContentEncoding, "The property content_encoding must be absent, identity or utf-8: send the body uncompressed.", null);
    }

    /// <summary>Whether a content type is JSON in UTF-8; absent and empty mean JSON.</summary>
    public static bool IsJson(string? contentType)
    {
        if (string.IsNullOrEmpty(contentType) || contentType == "application/json")
        {
            return true;
        }

        var rest = contentType.AsSpan();
        var first = true;
        foreach (var range in rest.Split(';'))
        {
            var part = rest[range].Trim(' ');
            if (first)
            {
                if (!part.Equals("application/json", StringComparison.OrdinalIgnoreCase))
                {
                    return false;
                }

                first = false;
            }
            else if (!part.IsEmpty
                && !part.Equals("charset=utf-8", StringComparison.OrdinalIgnoreCase)
                && !part.Equals("charset=\"utf-8\"", StringComparison.OrdinalIgnoreCase))
            {
                return false;
            }
        }

        return true;
    }

    private static bool IsIdentity(string? contentEncoding) =>
        string.IsNullOrEmpty(contentEncoding)
        || contentEncoding.Equals("identity", StringComparison.OrdinalIgnoreCase)
        || contentEncoding.Equals("utf-8", StringComparison.OrdinalIgnoreCase);

    private static object? Header(MessageProperties properties, string name) =>
        properties.Headers is { } headers && headers.TryGetValue(name, out var value) ? value : null;

    /// <summary>A header's text; null when it is not a string or not UTF-8.</summary>
    private static string? AsText(object? header) => header switch
    {
        string text => text,
        byte[] bytes when Utf8.IsValid(bytes) => Encoding.UTF8.GetString(bytes),
        _ => null,
    };

    private static Rejection AmqpSection() => new(RejectionReason.InvalidEncoding, AmqpSectionDetail, null);

    private static Rejection TooLarge(int length) => new(
        RejectionReason.BodyTooLarge, $"The body has {length} bytes; at most {MaxBodyBytes} are accepted, so split the order.", null);

    private static Rejection UnknownCommand() => new(
        RejectionReason.UnknownCommand,
        $"The property type must be one of {string.Join(", ", CommandType.All)}, or absent for order.place.",
        null);

    private static Rejection InternalError(Exception? exception) => new(
        RejectionReason.InternalError, $"The decoder failed ({exception?.GetType().Name ?? "no result"}); this is a mistake in the order service, please report it.", null);

    private static class TraceContext
    {
        private const int MaxStateLength = 512;
        private static readonly SearchValues<byte> LowerHex = SearchValues.Create("0123456789abcdef"u8);

        /// <summary>A trace parent as W3C has it; anything else is ignored, since tracing must never cost an order.</summary>
        public static string? Parent(object? header)
        {
            var bytes = Bytes(header, MaxStateLength);
            if (bytes.Length < 55 || bytes[2] != '-' || bytes[35] != '-' || bytes[52] != '-')
            {
                return null;
            }

            var version = bytes[..2];
            var wellFormed = IsHex(version) && !version.SequenceEqual("ff"u8)
                && IsHex(bytes[3..35]) && bytes[3..35].ContainsAnyExcept((byte)'0')
                && IsHex(bytes[36..52]) && bytes[36..52].ContainsAnyExcept((byte)'0')
                && IsHex(bytes[53..55])
                && bytes.Length == 55;

            // A later version may have more parts; what this one does not know it must not pass on.
            return wellFormed ? Encoding.ASCII.GetString(bytes) : null;
        }

        public static string? State(object? header)
        {
            var bytes = Bytes(header, MaxStateLength);
            return bytes.IsEmpty || bytes.ContainsAnyExceptInRange((byte)' ', (byte)'~') ? null : Encoding.ASCII.GetString(bytes);
        }

        private static ReadOnlySpan<byte> Bytes(object? header, int max) => header switch
        {
            byte[] bytes when bytes.Length <= max => bytes,
            string text when text.Length <= max => Encoding.UTF8.GetBytes(text),
            _ => [],
        };

        private static bool IsHex(ReadOnlySpan<byte> bytes) => !bytes.ContainsAnyExcept(LowerHex);
    }
}

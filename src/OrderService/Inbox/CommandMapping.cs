using System.Buffers;
using System.Text.Encodings.Web;
using System.Text.Json;
using OrderService.Domain;

namespace OrderService.Inbox;

/// <summary>Turns messages of producers that can't change their JSON into commands, before the strict parser sees them (docs/messages.md, "Other shapes").</summary>
/// <param name="rules">The first that is for a message makes its command.</param>
public sealed class CommandMapping(IReadOnlyList<MappingRule> rules)
{
    private static readonly JsonDocumentOptions Strict = new() { MaxDepth = EnvelopeDecoder.MaxDepth, AllowDuplicateProperties = false };

    private static readonly JsonWriterOptions AsItIs = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>Every message is taken as it is.</summary>
    public static CommandMapping None { get; } = new([]);

    public IReadOnlyList<MappingRule> Rules => rules;

    /// <summary>Makes the command's body. The bytes that came stay what the key, the fingerprint and a dead letter are about.</summary>
    /// <returns>Null when no rule is for this message.</returns>
    public MappedBody? Map(MessageProperties properties, ReadOnlyMemory<byte> body)
    {
        ArgumentNullException.ThrowIfNull(properties);

        // Most shops have no rules, and for those this costs nothing.
        return rules.Count > 0 && Find(properties) is { } found ? Map(found, body) : null;
    }

    private MappingRule? Find(MessageProperties properties) => rules.FirstOrDefault(rule => rule.When.IsFor(properties));

    private static MappedBody Map(MappingRule rule, ReadOnlyMemory<byte> body)
    {
        var text = body[(body.Length - BodySyntax.WithoutByteOrderMark(body.Span).Length)..];
        // What is no JSON at all is refused by the parser, with its own words.
        if (body.Length > EnvelopeDecoder.MaxBodyBytes || text.IsEmpty || !BodySyntax.IsUtf8(text.Span) || BodySyntax.Diagnose(text.Span) is not null)
        {
            return new MappedBody(rule, body, null);
        }

        try
        {
            using var document = JsonDocument.Parse(text, Strict);
            var output = new ArrayBufferWriter<byte>(text.Length);
            using (var writer = new Utf8JsonWriter(output, AsItIs))
            {
                rule.Body.Write(writer, new MappingSource(document.RootElement, document.RootElement, "", rule.CurrencyOf(document.RootElement)));
            }

            return new MappedBody(rule, output.WrittenMemory, null);
        }
        catch (MappingException exception)
        {
            return new MappedBody(rule, body, new Rejection(RejectionReason.WrongType, $"{exception.Message}. {rule.Hint}", null));
        }
        catch (JsonException)
        {
            return new MappedBody(rule, body, new Rejection(RejectionReason.DuplicateField, $"A member appears twice in one object; send it once. {rule.Hint}", null));
        }
    }
}

/// <summary>What a rule made of a body.</summary>
/// <param name="Body">The command's; the bytes that came where they could not be read.</param>
/// <param name="Rejection">Why there is no command; null where the parser decides.</param>
public sealed record MappedBody(MappingRule Rule, ReadOnlyMemory<byte> Body, Rejection? Rejection);

/// <summary>One shape of message and the command that is made of it.</summary>
/// <param name="Name">For messages to people.</param>
/// <param name="When">The messages it is for.</param>
/// <param name="Command">One of <see cref="CommandType"/>.</param>
/// <param name="Body">The command's members.</param>
public sealed record MappingRule(string Name, MappingCondition When, string Command, MappedValue.Members Body)
{
    /// <summary>Stands behind what is wrong with a mapped body.</summary>
    internal string Hint => $"(The rule {Name} of Inbox:MappingFile makes {Command} of it; orderservice map shows how.)";

    /// <summary>The order's currency, which tells what an amount in minor units is; null where the rule names none.</summary>
    internal Currency? CurrencyOf(JsonElement root) =>
        Body.Named.GetValueOrDefault("currency")?.Text(new MappingSource(root, root, "", null)) is { } code && Currency.TryGet(code, out var currency) ? currency : null;
}

/// <summary>Which messages a rule is for: all that is given must be so, letter by letter.</summary>
public sealed record MappingCondition(string? Type, IReadOnlyDictionary<string, string> Headers)
{
    public bool IsFor(MessageProperties properties)
    {
        ArgumentNullException.ThrowIfNull(properties);

        return (Type is null || Type == (properties.Type ?? ""))
            && Headers.All(header => properties.Headers?.GetValueOrDefault(header.Key) as string == header.Value);
    }
}

/// <summary>Where a rule reads: the whole message, and the element of an array that is at hand.</summary>
/// <param name="Root">What a pointer that begins with <c>/</c> starts from, outside of <c>each</c>.</param>
/// <param name="At">The element at hand; the root outside of <c>each</c>.</param>
/// <param name="Pointer">Where that element lies in the message.</param>
/// <param name="Currency">See <see cref="MappingRule.CurrencyOf"/>.</param>
public sealed record MappingSource(JsonElement Root, JsonElement At, string Pointer, Currency? Currency);

/// <summary>A value that can't be made into what the rule wants of it. The message names places, never values.</summary>
public sealed class MappingException(string message) : Exception(message);

using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using OrderService.Domain;
using OrderService.Inbox;

namespace OrderService.DeadLetters;

/// <summary>What of a letter decides its fate.</summary>
public sealed record LetterContent(long LetterId, string? OrderId, string Key, string? Type, string? ContentType, string? ContentEncoding, byte[] Body);

/// <summary>
/// What an operator changes in a letter before it goes out again, written so that it can be applied to others with the same mistake: members of the body, type,
/// content type and key. The letter keeps its bytes; what went out instead is kept with the replay.
/// </summary>
public sealed class LetterPatch
{
    /// <summary>The largest patch, in characters of JSON.</summary>
    public const int Longest = 64 * 1024;

    /// <summary>The key that is derived from the content that goes out, as for a message that brings none.</summary>
    public const string DerivedKey = "derived";

    private const string Json = "application/json";
    private static readonly string[] Members = ["body", "type", "contentType", "key"];
    private static readonly string[] Placeholders = ["{letter}", "{orderId}", "{key}"];
    private static readonly JsonDocumentOptions Reading = new() { MaxDepth = EnvelopeDecoder.MaxDepth, AllowDuplicateProperties = false };

    // Texts stay readable for whoever compares before and after.
    private static readonly JsonSerializerOptions Writing = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    private readonly JsonObject json;

    private LetterPatch(JsonObject json) => this.json = json;

    /// <summary>Replaces the whole body; the way of an edit of one letter.</summary>
    public byte[]? WholeBody { get; private init; }

    /// <summary>An edit of one letter, whose nulls leave what the letter has; null when all are.</summary>
    public static LetterPatch? Edit(byte[]? body, string? type, string? contentType, string? key)
    {
        var json = new JsonObject();
        foreach (var (name, value) in new[] { ("type", type), ("contentType", contentType), ("key", key) })
        {
            if (value is not null)
            {
                json[name] = value;
            }
        }
        return json.Count == 0 && body is null ? null : new LetterPatch(json) { WholeBody = body };
    }

    /// <summary>The patch that does to other letters what an edit did to one; null when that can't be told.</summary>
    public static LetterPatch? Between(LetterContent before, byte[]? editedBody, string? type, string? contentType)
    {
        var json = new JsonObject();
        if (editedBody is not null)
        {
            try
            {
                var difference = JsonPatch.Difference(Read(before.Body), Read(editedBody));
                if (difference.Count > 0)
                {
                    json["body"] = difference;
                }
            }
            catch (PatchNotApplicableException)
            {
                return null;
            }
        }
        if (type is not null && type != before.Type)
        {
            json["type"] = type;
        }
        else if (before.Type == EnvelopeDecoder.AmqpType)
        {
            json["type"] = null;
        }
        if (contentType is not null && contentType != before.ContentType)
        {
            json["contentType"] = contentType;
        }
        return json.Count == 0 || (json["body"] is { } body && JsonPatch.Check(body) is not null) ? null : new LetterPatch(json);
    }

    /// <summary>Reads <c>{body, type, contentType, key}</c>, of which at least one must be there.</summary>
    /// <param name="forMany">A key must then differ from letter to letter.</param>
    /// <param name="pointer">The member that <paramref name="mistake"/> is about.</param>
    public static LetterPatch? Read(JsonNode? patch, bool forMany, out string pointer, out string? mistake)
    {
        (pointer, mistake) = ("", null);
        if (patch is not JsonObject json || json.Count == 0 || json.Any(member => !Members.Contains(member.Key)))
        {
            mistake = $"A patch is an object with at least one of {string.Join(", ", Members)}.";
            return null;
        }
        if (json.ToJsonString().Length > Longest)
        {
            mistake = $"A patch has at most {Longest} characters.";
        }
        else if (json.ContainsKey("body"))
        {
            (pointer, mistake) = ("/body", json["body"] is { } body ? JsonPatch.Check(body) : "The body can't be removed.");
        }
        if (mistake is null && json.ContainsKey("type") && !IsCommand(json["type"]))
        {
            (pointer, mistake) = ("/type", $"type is one of {string.Join(", ", CommandType.All)}, or null for order.place.");
        }
        if (mistake is null && json["contentType"] is { } given && !(Text(given) is { } contentType && EnvelopeDecoder.IsJson(contentType)))
        {
            (pointer, mistake) = ("/contentType", "contentType is application/json, or null for none.");
        }
        if (mistake is null && json.ContainsKey("key"))
        {
            pointer = "/key";
            mistake = Text(json["key"]) is not { Length: > 0 } key ? $"key is {DerivedKey} or a text."
                : forMany && key != DerivedKey && !Placeholders.Any(placeholder => key.Contains(placeholder, StringComparison.Ordinal))
                    ? $"One key for many letters would make them one message: use {DerivedKey}, or a text with {string.Join(" or ", Placeholders)} in it."
                    : null;
        }
        return mistake is null ? new LetterPatch((JsonObject)json.DeepClone()) : null;
    }

    /// <summary>Reads what <see cref="ToJson"/> wrote.</summary>
    public static LetterPatch Parse(string text) => new(JsonNode.Parse(text)!.AsObject());

    public string ToJson() => json.ToJsonString(Writing);

    public JsonElement ToElement() => JsonSerializer.SerializeToElement(json, Writing);

    /// <summary>The letter as it would go out.</summary>
    /// <param name="mistake">Why this patch is not for this letter.</param>
    public LetterContent? Apply(LetterContent letter, out string? mistake)
    {
        mistake = null;
        try
        {
            var body = WholeBody ?? (json["body"] is { } patch ? Patched(letter.Body, patch) : letter.Body);
            // The broker's word for a body that is none; it does not hold for another body.
            var type = json.ContainsKey("type") ? Text(json["type"]) : body != letter.Body && letter.Type == EnvelopeDecoder.AmqpType ? null : letter.Type;
            var contentType = json.ContainsKey("contentType") ? Text(json["contentType"]) : Json;
            var key = json.ContainsKey("key") ? KeyOf(letter, Text(json["key"])!, type, body) : letter.Key;
            // What was edited is neither compressed nor otherwise encoded.
            return letter with { Body = body, Type = type, ContentType = contentType, ContentEncoding = null, Key = key };
        }
        catch (PatchNotApplicableException exception)
        {
            mistake = exception.Message;
            return null;
        }
    }

    /// <summary>What differs in the properties, as <c>{name: {before, after}}</c>; kept beside the bytes that went out.</summary>
    public static string Change(LetterContent before, LetterContent after)
    {
        var change = new JsonObject();
        foreach (var (name, was, isNow) in new[]
        {
            ("type", before.Type, after.Type), ("contentType", before.ContentType, after.ContentType),
            ("contentEncoding", before.ContentEncoding, after.ContentEncoding), ("key", before.Key, after.Key),
        })
        {
            if (was != isNow)
            {
                change[name] = new JsonObject { ["before"] = was, ["after"] = isNow };
            }
        }
        return change.ToJsonString(Writing);
    }

    private static byte[] Patched(byte[] body, JsonNode patch)
    {
        var document = Read(body);
        var before = document.DeepClone();
        var patched = JsonPatch.Apply(document, patch);
        try
        {
            // A patch that changes nothing leaves the bytes, and with them what makes two messages the same.
            return JsonNode.DeepEquals(before, patched) && before.ToJsonString() == patched?.ToJsonString()
                ? body
                : JsonSerializer.SerializeToUtf8Bytes(patched, Writing);
        }
        catch (Exception exception) when (exception is InvalidOperationException or ArgumentException or JsonException)
        {
            throw new PatchNotApplicableException("The patched body has a text that can't be written, or is too deep.");
        }
    }

    private static JsonNode Read(byte[] body)
    {
        try
        {
            return JsonNode.Parse(BodySyntax.WithoutByteOrderMark(body), documentOptions: Reading)
                ?? throw new PatchNotApplicableException("The body is no JSON object.");
        }
        catch (JsonException)
        {
            throw new PatchNotApplicableException("The body is no JSON, or has a member twice: it can't be patched, only replaced.");
        }
    }

    private static string KeyOf(LetterContent letter, string template, string? type, byte[] body)
    {
        if (template == DerivedKey)
        {
            return EnvelopeDecoder.DerivedKey(EnvelopeDecoder.Fingerprint(string.IsNullOrEmpty(type) ? CommandType.Place : type, body));
        }
        if (template.Contains("{orderId}", StringComparison.Ordinal) && letter.OrderId is null)
        {
            throw new PatchNotApplicableException("The key needs an order id, and the letter has none.");
        }
        var key = template.Replace("{letter}", letter.LetterId.ToString(CultureInfo.InvariantCulture), StringComparison.Ordinal)
            .Replace("{orderId}", letter.OrderId, StringComparison.Ordinal).Replace("{key}", letter.Key, StringComparison.Ordinal);
        return EnvelopeDecoder.IsKey(key)
            ? key
            : throw new PatchNotApplicableException($"The key would not have 1 to {EnvelopeDecoder.MaxKeyLength} visible ASCII characters.");
    }

    private static bool IsCommand(JsonNode? type) => type is null || CommandType.IsKnown(Text(type));

    private static string? Text(JsonNode? node) => node is JsonValue value && value.TryGetValue<string>(out var text) ? text : null;
}

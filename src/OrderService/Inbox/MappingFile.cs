using System.Globalization;
using System.Text.Json;
using OrderService.Domain;

namespace OrderService.Inbox;

/// <summary>Reads the file that <see cref="InboxOptions.MappingFile"/> names. Strict: a misspelt word is a mistake, not a rule that does nothing.</summary>
internal sealed class MappingFile
{
    private const int LargestFile = 1 << 20;

    private static readonly JsonDocumentOptions Lenient = new() { AllowTrailingCommas = true, CommentHandling = JsonCommentHandling.Skip, AllowDuplicateProperties = false };

    private static readonly Dictionary<string, MappingKind> Kinds = new(StringComparer.Ordinal)
    {
        ["text"] = MappingKind.Text,
        ["amount"] = MappingKind.Amount,
        ["minor"] = MappingKind.Minor,
        ["integer"] = MappingKind.Integer,
        ["time"] = MappingKind.Time,
    };

    private readonly List<string> mistakes = [];

    private MappingFile()
    {
    }

    /// <summary>Reads a file.</summary>
    /// <param name="mistakes">What is wrong with it, each with the place in the file; empty when all is well.</param>
    public static CommandMapping Read(string path, out IReadOnlyList<string> mistakes)
    {
        var file = new MappingFile();
        CommandMapping mapping = CommandMapping.None;
        try
        {
            if (new FileInfo(path).Length > LargestFile)
            {
                file.mistakes.Add($"is larger than {LargestFile / 1024} KiB");
            }
            else
            {
                var bytes = File.ReadAllBytes(path);
                if (BodySyntax.LooksLikeUtf16(bytes))
                {
                    throw new FormatException("is UTF-16; save it as UTF-8");
                }
                var start = bytes.Length - BodySyntax.WithoutByteOrderMark(bytes).Length;
                using var document = JsonDocument.Parse(bytes.AsMemory(start), Lenient);
                mapping = file.Mapping(document.RootElement);
            }
        }
        catch (JsonException exception)
        {
            file.mistakes.Add(string.Create(CultureInfo.InvariantCulture, $"is no JSON (line {exception.LineNumber + 1}, byte {exception.BytePositionInLine + 1})"));
        }
        catch (FormatException exception)
        {
            file.mistakes.Add(exception.Message);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            file.mistakes.Add($"can't be read ({exception.Message})");
        }

        mistakes = file.mistakes;
        return mapping;
    }

    private CommandMapping Mapping(JsonElement root)
    {
        if (!IsObject(root, "", "rules") || !root.TryGetProperty("rules", out var rules) || rules.ValueKind != JsonValueKind.Array || rules.GetArrayLength() == 0)
        {
            mistakes.Add("/rules must be an array with one rule at least");
            return CommandMapping.None;
        }

        return new CommandMapping([.. rules.EnumerateArray().Select((rule, index) => Rule(rule, string.Create(CultureInfo.InvariantCulture, $"/rules/{index}"))).OfType<MappingRule>()]);
    }

    private MappingRule? Rule(JsonElement rule, string at)
    {
        if (!IsObject(rule, at, "name", "when", "command", "members"))
        {
            return null;
        }

        var name = Text(rule, "name", at) ?? at;
        var command = Text(rule, "command", at) ?? "";
        if (!CommandType.IsKnown(command))
        {
            mistakes.Add($"{at}/command must be one of {string.Join(", ", CommandType.All)}");
        }

        var when = rule.TryGetProperty("when", out var given) ? When(given, at + "/when") : null;
        if (when is null or { Type: null, Headers.Count: 0 })
        {
            mistakes.Add($"{at}/when must name a type or headers: the messages that the rule is for");
        }

        var members = rule.TryGetProperty("members", out var named) ? Members(named, at + "/members") : null;
        if (members is null or { Named.Count: 0 })
        {
            mistakes.Add($"{at}/members must name the command's members");
        }

        return when is null || members is null ? null : new MappingRule(name, when, command, members);
    }

    private MappingCondition? When(JsonElement when, string at)
    {
        if (!IsObject(when, at, "type", "headers"))
        {
            return null;
        }

        return new MappingCondition(Text(when, "type", at), Texts(when, "headers", at));
    }

    private MappedValue.Members? Members(JsonElement members, string at)
    {
        if (members.ValueKind != JsonValueKind.Object)
        {
            mistakes.Add($"{at} must be an object");
            return null;
        }

        var named = new Dictionary<string, MappedValue>(StringComparer.Ordinal);
        foreach (var member in members.EnumerateObject())
        {
            if (Value(member.Value, $"{at}/{member.Name}") is { } value)
            {
                named[member.Name] = value;
            }
        }

        return new MappedValue.Members(named);
    }

    private MappedValue? Value(JsonElement value, string at)
    {
        if (value.ValueKind == JsonValueKind.String)
        {
            return Pointer(value.GetString()!, at) is { } pointer ? new MappedValue.From([pointer], new MappingConversion(MappingKind.AsItIs)) : null;
        }

        if (value.ValueKind != JsonValueKind.Object)
        {
            mistakes.Add($"{at} must be a JSON pointer such as \"/customer/id\", or an object with from, join, each, members or value");
            return null;
        }

        if (value.TryGetProperty("value", out var constant))
        {
            return IsObject(value, at, "value") ? new MappedValue.Constant(constant.Clone()) : null;
        }

        if (value.TryGetProperty("each", out _))
        {
            return IsObject(value, at, "each", "members") && Text(value, "each", at) is { } array && Pointer(array, at + "/each") is { } pointer
                && Members(value.TryGetProperty("members", out var element) ? element : default, at + "/members") is { } members
                    ? new MappedValue.Each(pointer, members)
                    : null;
        }

        if (value.TryGetProperty("members", out var inner))
        {
            return IsObject(value, at, "members") ? Members(inner, at + "/members") : null;
        }

        return From(value, at);
    }

    private MappedValue.From? From(JsonElement value, string at)
    {
        if (!IsObject(value, at, "from", "join", "as", "default", "values", "remove", "prefix", "with", "decimals", "offset"))
        {
            return null;
        }

        var pointers = new List<string>();
        if (value.TryGetProperty("join", out var joined) && joined.ValueKind == JsonValueKind.Array)
        {
            pointers.AddRange(joined.EnumerateArray().Select(one => one.ValueKind == JsonValueKind.String ? Pointer(one.GetString()!, at + "/join") : null).OfType<string>());
        }
        else if (Text(value, "from", at) is { } from && Pointer(from, at + "/from") is { } pointer)
        {
            pointers.Add(pointer);
        }

        if (pointers.Count == 0)
        {
            mistakes.Add($"{at} must have from (a JSON pointer) or join (an array of them)");
            return null;
        }

        var kind = pointers.Count > 1 ? MappingKind.Text : MappingKind.AsItIs;
        if (Text(value, "as", at) is { } word && !Kinds.TryGetValue(word, out kind))
        {
            mistakes.Add($"{at}/as must be one of {string.Join(", ", Kinds.Keys)}");
        }

        var changesText = value.TryGetProperty("remove", out _) || value.TryGetProperty("prefix", out _) || value.TryGetProperty("values", out _);
        return new MappedValue.From(pointers, new MappingConversion(kind == MappingKind.AsItIs && changesText ? MappingKind.Text : kind)
        {
            Default = value.TryGetProperty("default", out var standIn) ? standIn.Clone() : null,
            Values = Texts(value, "values", at),
            Remove = Text(value, "remove", at) ?? "",
            Prefix = Text(value, "prefix", at) ?? "",
            Between = Text(value, "with", at) ?? " ",
            Decimals = Decimals(value, at),
            Offset = Text(value, "offset", at) ?? "Z",
        });
    }

    private int? Decimals(JsonElement value, string at)
    {
        if (!value.TryGetProperty("decimals", out var decimals))
        {
            return null;
        }

        if (decimals.ValueKind == JsonValueKind.Number && decimals.TryGetInt32(out var number) && number is >= 0 and <= 4)
        {
            return number;
        }

        mistakes.Add($"{at}/decimals must be 0 to 4");
        return null;
    }

    private string? Pointer(string text, string at)
    {
        if (JsonPointer.IsOne(text))
        {
            return text;
        }

        mistakes.Add($"{at} must be a JSON pointer, which begins with /; a constant is {{\"value\": ...}}");
        return null;
    }

    private string? Text(JsonElement parent, string name, string at)
    {
        if (!parent.TryGetProperty(name, out var value))
        {
            return null;
        }

        if (value.ValueKind == JsonValueKind.String)
        {
            return value.GetString();
        }

        mistakes.Add($"{at}/{name} must be a string");
        return null;
    }

    private Dictionary<string, string> Texts(JsonElement parent, string name, string at)
    {
        var texts = new Dictionary<string, string>(StringComparer.Ordinal);
        if (parent.TryGetProperty(name, out var values))
        {
            if (values.ValueKind != JsonValueKind.Object || values.EnumerateObject().Any(value => value.Value.ValueKind != JsonValueKind.String))
            {
                mistakes.Add($"{at}/{name} must be an object of strings");
            }
            else
            {
                foreach (var value in values.EnumerateObject())
                {
                    texts[value.Name] = value.Value.GetString()!;
                }
            }
        }

        return texts;
    }

    private bool IsObject(JsonElement value, string at, params string[] known)
    {
        if (value.ValueKind != JsonValueKind.Object)
        {
            mistakes.Add($"{(at.Length == 0 ? "the file" : at)} must be an object");
            return false;
        }

        var unknown = value.EnumerateObject().Select(member => member.Name).Where(name => !known.Contains(name, StringComparer.Ordinal)).ToList();
        mistakes.AddRange(unknown.Select(name => $"{at}/{name} is unknown; there are {string.Join(", ", known)}"));
        return unknown.Count == 0;
    }
}

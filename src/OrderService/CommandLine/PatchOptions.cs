using System.CommandLine;
using System.Text.Json;
using System.Text.Json.Nodes;
using OrderService.DeadLetters;

namespace OrderService.CommandLine;

/// <summary><c>--set</c>, <c>--patch</c> and <c>--edited-body</c>: what is changed in each letter before it goes out.</summary>
internal sealed class PatchOptions
{
    private static readonly JsonDocumentOptions Reading = new() { AllowDuplicateProperties = false };

    private readonly Option<string[]> set = new("--set")
    {
        Description = "Changes each letter: type=order.place, contentType=application/json, key=derived, or a member of the body as /currency=EUR. "
            + "An empty value takes it away.",
    };

    private readonly Option<string?> file = new("--patch")
    {
        Description = "A file with the changes as JSON: {\"body\": a merge patch or a JSON Patch, \"type\": ..., \"contentType\": ..., \"key\": ...}.",
    };

    /// <summary>Goes with one letter alone.</summary>
    public Option<string?> EditedBody { get; } = new("--edited-body")
    {
        Description = "With one ID: a file whose bytes go out in place of the original ones, which are kept.",
    };

    public void AddTo(Command command)
    {
        command.Add(EditedBody);
        command.Add(set);
        command.Add(file);
        command.Validators.Add(result =>
        {
            if (new Option[] { set, file, EditedBody }.Count(option => result.GetResult(option) is { Implicit: false }) > 1)
            {
                result.AddError("--set, --patch and --edited-body exclude one another.");
            }
        });
    }

    /// <summary>The patch that is meant; null when none is.</summary>
    /// <exception cref="PatchMistakeException">It can't be read; says why.</exception>
    public async Task<LetterPatch?> ReadAsync(ParseResult parsed, bool forMany, CancellationToken cancellationToken)
    {
        JsonNode? json;
        if (parsed.GetValue(EditedBody) is { } body)
        {
            return LetterPatch.Edit(await ReadFileAsync(body, File.ReadAllBytesAsync, cancellationToken), null, null, null);
        }
        if (parsed.GetValue(file) is { } path)
        {
            json = ReadJson(path, await ReadFileAsync(path, File.ReadAllTextAsync, cancellationToken));
        }
        else if (parsed.GetValue(set) is { Length: > 0 } settings)
        {
            json = Settings(settings);
        }
        else
        {
            return null;
        }
        return LetterPatch.Read(json, forMany, out var pointer, out var mistake)
            ?? throw new PatchMistakeException($"The patch is not understood{(pointer.Length == 0 ? "" : $" at {pointer}")}: {mistake}");
    }

    private static async Task<T> ReadFileAsync<T>(string path, Func<string, CancellationToken, Task<T>> read, CancellationToken cancellationToken)
    {
        try
        {
            return await read(path, cancellationToken);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new PatchMistakeException($"{path} can't be read: {exception.Message}");
        }
    }

    private static JsonNode? ReadJson(string path, string text)
    {
        try
        {
            return JsonNode.Parse(text, documentOptions: Reading);
        }
        catch (JsonException exception)
        {
            throw new PatchMistakeException(exception.LineNumber is { } line
                ? $"{path} is no JSON: line {line + 1}, byte {exception.BytePositionInLine + 1}."
                : $"{path} has a member twice.");
        }
    }

    private static JsonObject Settings(IEnumerable<string> settings)
    {
        var patch = new JsonObject();
        foreach (var setting in settings)
        {
            var at = setting.IndexOf('=', StringComparison.Ordinal);
            var name = at < 0 ? setting : setting[..at];
            var value = at < 0 ? throw new PatchMistakeException($"--set {setting} has no =.") : setting[(at + 1)..];
            if (name is "type" or "contentType" or "key")
            {
                patch[name] = value.Length == 0 ? null : value;
            }
            else if (name.Length > 1 && name[0] == '/')
            {
                SetMember(patch["body"] as JsonObject ?? (JsonObject)(patch["body"] = new JsonObject()), name[1..].Split('/'), Value(value));
            }
            else
            {
                throw new PatchMistakeException($"--set {name} is none of type, contentType, key or a member of the body, such as /currency.");
            }
        }
        return patch;
    }

    private static void SetMember(JsonObject parent, string[] names, JsonNode? value)
    {
        foreach (var name in names[..^1])
        {
            parent = parent[name] as JsonObject ?? (JsonObject)(parent[name] = new JsonObject());
        }
        parent[names[^1]] = value;
    }

    /// <summary>JSON where it is some (2, 49.90, true, "2"), else the text itself; null takes the member away.</summary>
    private static JsonNode? Value(string text)
    {
        if (text.Length == 0)
        {
            return null;
        }
        try
        {
            return JsonNode.Parse(text, documentOptions: Reading);
        }
        catch (JsonException)
        {
            return text;
        }
    }
}

/// <summary>What was typed as a patch is none.</summary>
internal sealed class PatchMistakeException(string message) : Exception(message);

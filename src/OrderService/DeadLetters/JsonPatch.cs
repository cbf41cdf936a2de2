using System.Globalization;
using System.Text.Json.Nodes;
using OrderService.Inbox;

namespace OrderService.DeadLetters;

/// <summary>Changes of a JSON document: a merge patch (RFC 7396) where it is an object, a list of operations (RFC 6902) where it is an array.</summary>
internal static class JsonPatch
{
    /// <summary>The most operations in one list.</summary>
    public const int MostOperations = 100;

    private static readonly string[] Operations = ["add", "remove", "replace", "move", "copy", "test"];

    /// <summary>What is wrong with a patch before it meets a document; null when nothing is.</summary>
    public static string? Check(JsonNode patch)
    {
        if (patch is JsonObject)
        {
            return null;
        }
        if (patch is not JsonArray { Count: >= 1 and <= MostOperations } operations)
        {
            return $"A patch of the body is an object (a merge patch) or 1 to {MostOperations} operations (a JSON Patch).";
        }
        foreach (var operation in operations)
        {
            if (operation is not JsonObject one || Text(one, "op") is not { } op || !Operations.Contains(op) || !JsonPointer.IsOne(Text(one, "path")))
            {
                return $"An operation has an op ({string.Join(", ", Operations)}) and a path, a JSON pointer such as /currency.";
            }
            if (op is "move" or "copy" && !JsonPointer.IsOne(Text(one, "from")))
            {
                return $"The operation {op} has a from, a JSON pointer.";
            }
            if (op is "add" or "replace" or "test" && !one.ContainsKey("value"))
            {
                return $"The operation {op} has a value.";
            }
        }
        return null;
    }

    /// <summary>The document as the patch leaves it.</summary>
    /// <exception cref="PatchNotApplicableException">The document is not one that this patch is meant for.</exception>
    public static JsonNode? Apply(JsonNode document, JsonNode patch)
    {
        if (patch is JsonObject merge)
        {
            return Merge(document, merge);
        }
        JsonNode? root = document;
        foreach (var operation in patch.AsArray())
        {
            root = Apply(root, operation!.AsObject());
        }
        return root;
    }

    /// <summary>
    /// The operations that lead from one document to the other. What is replaced is tested first: the patch then fits only documents that
    /// have the same mistake, and never writes one order's values over another's. A renamed member is moved with whatever it holds.
    /// </summary>
    public static JsonArray Difference(JsonNode? before, JsonNode? after)
    {
        var operations = new JsonArray();
        Compare(before, after, "", operations);
        return operations;
    }

    private static void Compare(JsonNode? before, JsonNode? after, string path, JsonArray operations)
    {
        if (JsonNode.DeepEquals(before, after) && Written(before) == Written(after))
        {
            return;
        }
        if (before is JsonObject was && after is JsonObject isNow)
        {
            CompareMembers(was, isNow, path, operations);
        }
        else if (before is JsonArray list && after is JsonArray other && list.Count == other.Count)
        {
            for (var index = 0; index < list.Count; index++)
            {
                Compare(list[index], other[index], string.Create(CultureInfo.InvariantCulture, $"{path}/{index}"), operations);
            }
        }
        else
        {
            operations.Add((JsonNode)new JsonObject { ["op"] = "test", ["path"] = path, ["value"] = before?.DeepClone() });
            operations.Add((JsonNode)new JsonObject { ["op"] = "replace", ["path"] = path, ["value"] = after?.DeepClone() });
        }
    }

    private static void CompareMembers(JsonObject before, JsonObject after, string path, JsonArray operations)
    {
        var gone = before.Where(member => !after.ContainsKey(member.Key)).ToList();
        var added = after.Where(member => !before.ContainsKey(member.Key)).ToList();
        foreach (var (name, value) in gone)
        {
            var renamed = added.FindIndex(member => JsonNode.DeepEquals(member.Value, value));
            if (renamed < 0)
            {
                operations.Add((JsonNode)new JsonObject { ["op"] = "remove", ["path"] = $"{path}/{JsonPointer.Escape(name)}" });
                continue;
            }
            operations.Add((JsonNode)new JsonObject { ["op"] = "move", ["from"] = $"{path}/{JsonPointer.Escape(name)}", ["path"] = $"{path}/{JsonPointer.Escape(added[renamed].Key)}" });
            added.RemoveAt(renamed);
        }
        foreach (var (name, value) in added)
        {
            operations.Add((JsonNode)new JsonObject { ["op"] = "add", ["path"] = $"{path}/{JsonPointer.Escape(name)}", ["value"] = value?.DeepClone() });
        }
        foreach (var (name, value) in before)
        {
            if (after.TryGetPropertyValue(name, out var other))
            {
                Compare(value, other, $"{path}/{JsonPointer.Escape(name)}", operations);
            }
        }
    }

    private static JsonObject Merge(JsonNode? target, JsonObject patch)
    {
        var merged = target as JsonObject ?? [];
        foreach (var (name, value) in patch)
        {
            if (value is null)
            {
                merged.Remove(name);
            }
            else if (value is JsonObject inner && merged[name] is JsonObject member)
            {
                // In its place: nothing moves that does not change.
                Merge(member, inner);
            }
            else if (value is JsonObject added)
            {
                merged[name] = Merge(null, added);
            }
            else
            {
                merged[name] = value.DeepClone();
            }
        }
        return merged;
    }

    private static JsonNode? Apply(JsonNode? root, JsonObject operation)
    {
        var path = Text(operation, "path")!;
        switch (Text(operation, "op"))
        {
            case "test":
                return JsonNode.DeepEquals(Find(root, path), operation["value"])
                    ? root
                    : throw new PatchNotApplicableException($"{Name(path)} has another value than the patch is meant for.");
            case "add":
                return Put(root, path, operation["value"]?.DeepClone(), mustExist: false);
            case "replace":
                return Put(root, path, operation["value"]?.DeepClone(), mustExist: true);
            case "remove":
                return Take(root, path).Root;
            case "copy":
                return Bounded(Put(root, path, Find(root, Text(operation, "from")!)?.DeepClone(), mustExist: false));
            default:
                var (without, value) = Take(root, Text(operation, "from")!);
                return Put(without, path, value, mustExist: false);
        }
    }

    /// <summary>A copy may double what is there, in size and in depth; a hundred of them would fill any memory.</summary>
    private static JsonNode? Bounded(JsonNode? root)
    {
        if (!IsAtMost(root, EnvelopeDecoder.MaxDepth))
        {
            throw new PatchNotApplicableException($"The copies make the body more than {EnvelopeDecoder.MaxDepth} levels deep.");
        }
        return root?.ToJsonString().Length > EnvelopeDecoder.MaxBodyBytes
            ? throw new PatchNotApplicableException($"The copies make the body larger than {EnvelopeDecoder.MaxBodyBytes} bytes.")
            : root;
    }

    private static bool IsAtMost(JsonNode? node, int levels) => node switch
    {
        JsonObject members => levels > 0 && members.All(member => IsAtMost(member.Value, levels - 1)),
        JsonArray list => levels > 0 && list.All(item => IsAtMost(item, levels - 1)),
        _ => true,
    };

    private static JsonNode? Find(JsonNode? root, string path)
    {
        var node = root;
        foreach (var token in JsonPointer.Tokens(path))
        {
            node = node switch
            {
                JsonObject parent when parent.TryGetPropertyValue(token, out var member) => member,
                JsonArray list when JsonPointer.TryIndex(token, list.Count - 1, out var index) => list[index],
                _ => throw Missing(path),
            };
        }
        return node;
    }

    private static JsonNode? Put(JsonNode? root, string path, JsonNode? value, bool mustExist)
    {
        if (path.Length == 0)
        {
            return value;
        }
        var (parent, token) = Parent(root, path);
        switch (parent)
        {
            case JsonObject members when !mustExist || members.ContainsKey(token):
                members[token] = value;
                break;
            case JsonArray list when mustExist && JsonPointer.TryIndex(token, list.Count - 1, out var index):
                list[index] = value;
                break;
            case JsonArray list when !mustExist && token == "-":
                list.Add(value);
                break;
            case JsonArray list when !mustExist && JsonPointer.TryIndex(token, list.Count, out var index):
                list.Insert(index, value);
                break;
            default:
                throw Missing(path);
        }
        return root;
    }

    private static (JsonNode? Root, JsonNode? Taken) Take(JsonNode? root, string path)
    {
        if (path.Length == 0)
        {
            throw new PatchNotApplicableException("The whole body can't be removed.");
        }
        var (parent, token) = Parent(root, path);
        switch (parent)
        {
            case JsonObject members when members.Remove(token, out var member):
                return (root, member);
            case JsonArray list when JsonPointer.TryIndex(token, list.Count - 1, out var index):
                var taken = list[index];
                list.RemoveAt(index);
                return (root, taken);
            default:
                throw Missing(path);
        }
    }

    private static (JsonNode? Parent, string Token) Parent(JsonNode? root, string path)
    {
        var last = path.LastIndexOf('/');
        return (Find(root, path[..last]), JsonPointer.Unescape(path[(last + 1)..]));
    }

    private static string? Text(JsonObject operation, string name) =>
        operation.TryGetPropertyValue(name, out var value) && value is JsonValue text && text.TryGetValue<string>(out var found) ? found : null;

    // Numbers count as equal whatever their spelling; an edit that only changes the spelling (1.0 to 1) is an edit all the same.
    private static string Written(JsonNode? node) => node is JsonValue ? node.ToJsonString() : "";

    private static string Name(string path) => path.Length == 0 ? "The body" : path;

    private static PatchNotApplicableException Missing(string path) => new($"There is no {path} in the body, or nothing that could hold it.");
}

/// <summary>A letter is not one that a patch is meant for.</summary>
internal sealed class PatchNotApplicableException(string message) : Exception(message);

using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using OrderService.Domain;
using OrderService.Inbox;

namespace OrderService.Tests.Contracts;

/// <summary>
/// The JSON Schema of a command, read off the decoder by asking it: which members there are, which are required, what each may be. So the schema says what the code does,
/// and one that was written before the code changed is found. What a schema can't say (decimals of a currency, sums, members that appear twice) is left to docs/messages.md.
/// </summary>
internal sealed partial class CommandSchema
{
    private const int Far = 1_000_000_000;

    /// <summary>Stands for any name, where the sender chooses it.</summary>
    private const string FreeName = "key";

    private readonly string type;
    private readonly JsonObject example;

    private CommandSchema(string type, JsonObject example) => (this.type, this.example) = (type, example);

    /// <summary>Reasons about which schema and decoder must be of one mind.</summary>
    public static IReadOnlySet<string> Sayable { get; } = new HashSet<string>(StringComparer.Ordinal)
    {
        RejectionReason.UnknownField, RejectionReason.MissingField, RejectionReason.WrongType, RejectionReason.IdInvalid,
        RejectionReason.CurrencyUnknown, RejectionReason.QuantityOutOfRange, RejectionReason.TooManyLines,
    };

    /// <param name="example">A body that is accepted.</param>
    /// <param name="more">Members that go with it: objects in which something is required are asked about only where it is there.</param>
    public static JsonObject Of(string type, string example, string more = "{}")
    {
        var body = (JsonObject)JsonNode.Parse(example)!;
        foreach (var (name, value) in (JsonObject)JsonNode.Parse(more)!)
        {
            body[name] = value?.DeepClone();
        }
        var schema = new CommandSchema(type, body);
        Assert.Null(schema.Ask([], null, replace: false));
        var whole = new JsonObject
        {
            ["$schema"] = "https://json-schema.org/draft/2020-12/schema",
            ["$id"] = $"/schemas/commands/{type}.json",
            ["title"] = type,
            ["description"] = "Sizes, sums, decimals and members that appear twice: docs/messages.md. A quantity is written without point and exponent. A null for an optional member means absent.",
            ["examples"] = new JsonArray(JsonNode.Parse(example)),
        };
        foreach (var (key, value) in schema.Describe([]))
        {
            whole[key] = value?.DeepClone();
        }
        return whole;
    }

    private JsonObject Describe(List<object> path)
    {
        var kinds = new JsonArray();
        var found = new JsonObject { ["type"] = kinds };
        if (Fits(path, new JsonObject()))
        {
            kinds.Add("object");
            Members(path, found);
        }
        if (Fits(path, new JsonArray()))
        {
            kinds.Add("array");
            found["items"] = Describe([.. path, 0]);
            if (Ask(path, new JsonArray())?.Reason == RejectionReason.MissingField)
            {
                found["minItems"] = 1;
            }
            if (At(example, [.. path, 0]) is { } entry && Largest(2_000, count => Entries(path, entry, count)) is < 2_000 and var most)
            {
                found["maxItems"] = most;
            }
        }
        if (Fits(path, JsonValue.Create("A-1")))
        {
            kinds.Add("string");
            Text(path, found);
        }
        if (Fits(path, JsonValue.Create(1)))
        {
            Number(path, found, kinds);
        }
        if (Fits(path, JsonValue.Create(true)))
        {
            kinds.Add("boolean");
        }
        if (path.Count > 0 && Ask(path, null)?.Reason is not (RejectionReason.MissingField or RejectionReason.WrongType) && path[^1] is string)
        {
            kinds.Add("null");
        }
        if (kinds.Count == 1)
        {
            found["type"] = kinds[0]!.DeepClone();
        }
        return found;
    }

    private void Members(List<object> path, JsonObject found)
    {
        if (Ask(path, new JsonObject { ["zzz-unknown"] = new JsonArray(true) }) is not { Reason: RejectionReason.UnknownField } unknown)
        {
            // Names that the sender chooses.
            found["additionalProperties"] = Describe([.. path, FreeName]);
            return;
        }
        var members = new JsonObject();
        foreach (var name in KnownMembers().Match(unknown.Detail).Groups[1].Value.Split(", "))
        {
            members[name] = Describe([.. path, name]);
        }
        found["properties"] = members;
        found["additionalProperties"] = false;
        if (Ask(path, new JsonObject()) is { Reason: RejectionReason.MissingField } missing)
        {
            var names = missing.Detail[..missing.Detail.IndexOf(" must ", StringComparison.Ordinal)].Split(", ").Select(pointer => pointer.Split('/')[^1]).Where(name => !DoesWithout(path, name));
            found["required"] = new JsonArray([.. names.Select(name => (JsonNode)name)]);
        }
    }

    /// <summary>One of several is enough, and the decoder names one of them: a change of an order, say. A schema does not tell.</summary>
    private bool DoesWithout(List<object> path, string name)
    {
        if (At(example, path)?.DeepClone() is not JsonObject without || !without.Remove(name))
        {
            return false;
        }
        return Ask(path, without) is null;
    }

    private void Text(List<object> path, JsonObject found)
    {
        switch (Ask(path, "\u00a4 x")?.Reason)
        {
            case RejectionReason.IdInvalid:
                found["pattern"] = $"^[A-Za-z0-9._-]{{1,{Largest(1_000, length => Rejects(path, new string('A', length)))}}}$";
                break;
            case RejectionReason.CurrencyUnknown:
                found["enum"] = new JsonArray([.. Currency.All.Select(currency => (JsonNode)currency.Code)]);
                break;
            case RejectionReason.TimeInvalid:
                found["format"] = "date-time";
                break;
            case RejectionReason.TextInvalid when Rejects(path, "aaa"):
                if (!Rejects(path, "someone@example.org"))
                {
                    found["format"] = "idn-email";
                    found["maxLength"] = 254;
                }
                else if (!Rejects(path, "DE"))
                {
                    found["pattern"] = "^[A-Z]{2}$";
                }
                else if (!Rejects(path, "+49 (221) 1.2/3-4 #5 x6"))
                {
                    found["pattern"] = "^[0-9 +\\-()/.#xX]*[0-9][0-9 +\\-()/.#xX]*$";
                    found["maxLength"] = Largest(1_000, length => Rejects(path, new string('1', length)));
                }
                break;
            case null:
                found["minLength"] = 1;
                if (Largest(100_000, length => Rejects(path, new string('a', length))) is < 100_000 and var longest)
                {
                    found["maxLength"] = longest;
                }
                break;
        }
    }

    private void Number(List<object> path, JsonObject found, JsonArray kinds)
    {
        var isWhole = !Fits(path, JsonValue.Create(1.5m));
        kinds.Add(isWhole ? "integer" : "number");
        if (Rejects(path, -1))
        {
            found[Rejects(path, 0) && !isWhole ? "exclusiveMinimum" : "minimum"] = Rejects(path, 0) && isWhole ? 1 : 0;
        }
        if (isWhole && Largest(Far, number => Rejects(path, number)) is < Far and var largest)
        {
            found["maximum"] = largest;
        }
    }

    /// <summary>Whether a value of this kind is read there at all, whatever else is said of it.</summary>
    private bool Fits(List<object> path, JsonNode value) => Ask(path, value) is not { Reason: RejectionReason.WrongType } wrong || !IsAt(wrong, path);

    /// <summary>Whether this very value is refused, for whatever it is.</summary>
    private bool Rejects(List<object> path, JsonNode? value) => Ask(path, value) is { } rejection && (IsAt(rejection, path) || rejection.Reason == RejectionReason.TooManyLines);

    // A name that the sender chooses is not repeated to him: the pointer is that of the object around it.
    private static bool IsAt(Rejection rejection, List<object> path) =>
        rejection.Field == Pointer(path) || (path.Count > 0 && path[^1] is FreeName && rejection.Field == Pointer(path[..^1]));

    private bool Entries(List<object> path, JsonNode entry, int count) =>
        Ask(path, new JsonArray([.. Enumerable.Range(0, count).Select(_ => entry.DeepClone())])) is { } rejection && rejection.Field == Pointer(path);

    /// <summary>The largest number that is not refused, from 1 on; <paramref name="limit"/> when none is.</summary>
    private static int Largest(int limit, Predicate<int> isRefused)
    {
        var (fine, wrong) = (1, limit);
        if (!isRefused(limit))
        {
            return limit;
        }
        while (wrong - fine > 1)
        {
            var middle = fine + ((wrong - fine) / 2);
            (fine, wrong) = isRefused(middle) ? (fine, middle) : (middle, wrong);
        }
        return fine;
    }

    /// <summary>What is said of the example with one value in another one's place.</summary>
    private Rejection? Ask(List<object> path, JsonNode? value, bool replace = true)
    {
        var body = example.DeepClone();
        if (replace)
        {
            body = Put(body, path, 0, value?.DeepClone());
        }
        return EnvelopeDecoder.TryDecodeBody(type, System.Text.Encoding.UTF8.GetBytes(body?.ToJsonString() ?? "null"), null, out _, out var rejection) ? null : rejection;
    }

    private static JsonNode? Put(JsonNode? into, List<object> path, int depth, JsonNode? value)
    {
        if (depth == path.Count)
        {
            return value;
        }
        if (path[depth] is string name)
        {
            var parent = into as JsonObject ?? [];
            var child = parent[name];
            parent.Remove(name);
            // First, so that nothing else is found wrong before.
            parent.Insert(0, name, Put(child, path, depth + 1, value));
            return parent;
        }
        var list = into as JsonArray ?? [];
        var first = list.Count > 0 ? list[0] : null;
        if (list.Count > 0)
        {
            list.RemoveAt(0);
        }
        list.Insert(0, Put(first, path, depth + 1, value));
        return list;
    }

    private static JsonNode? At(JsonNode? node, IEnumerable<object> path) =>
        path.Aggregate(node, (inside, step) => step is string name ? (inside as JsonObject)?[name] : inside is JsonArray { Count: > 0 } list ? list[0] : null);

    private static string Pointer(List<object> path) => string.Concat(path.Select(step => $"/{step}"));

    [GeneratedRegex("the members are ([^;]*), in exactly")]
    private static partial Regex KnownMembers();
}

using System.Text.Json.Nodes;
using CsCheck;
using OrderService.Domain;
using OrderService.Outbox;
using OrderService.Tests.Domain;

namespace OrderService.Tests.Contracts;

/// <summary>The JSON Schemas of the events, read off what is published for thousands of generated ones. Members may be added, so unknown ones are allowed.</summary>
internal static class EventSchema
{
    private static readonly string[] Fixed = ["specversion", "source", "type", "datacontenttype"];
    private static readonly string[] Listed = ["command", "code", "status"];
    private static readonly string[] Times = ["time", "placedAt"];

    /// <summary>By event type.</summary>
    public static SortedDictionary<string, JsonObject> All()
    {
        var published = Published().GroupBy(text => (string)text["type"]!, StringComparer.Ordinal);
        return new SortedDictionary<string, JsonObject>(
            published.ToDictionary(group => group.Key, group =>
            {
                var schema = new JsonObject
                {
                    ["$schema"] = "https://json-schema.org/draft/2020-12/schema",
                    ["$id"] = $"/schemas/events/{group.Key}.json",
                    ["title"] = group.Key,
                    ["description"] = "A CloudEvent 1.0 as published to the exchange order-events. Members may be added; skip those you do not know.",
                };
                foreach (var (key, value) in Describe("", [.. group]))
                {
                    schema[key] = value?.DeepClone();
                }
                return schema;
            }),
            StringComparer.Ordinal);
    }

    private static IEnumerable<JsonNode> Published()
    {
        var events = Generators.Event.Array[4_000].Single(_ => true, "0N0XIzNsQ0O2");
        for (var index = 0; index < events.Length; index++)
        {
            yield return JsonNode.Parse(CloudEventWriter.Write(Head(events[index].Type, index + 1, index % 2 == 0), events[index]))!;
        }
        foreach (var command in CommandType.All)
        {
            foreach (var code in typeof(RefusalCode).GetFields().Where(field => field.IsLiteral).Select(field => (string)field.GetRawConstantValue()!))
            {
                foreach (var status in Enum.GetValues<OrderStatus>().Where(status => status != OrderStatus.None))
                {
                    var refused = new Decision.Refused(code, "A sentence.");
                    yield return JsonNode.Parse(CloudEventWriter.WriteRefusal(Head(EventType.CommandRefused, null, status == OrderStatus.Placed), command, refused, status))!;
                }
            }
        }
    }

    private static CloudEventHead Head(string type, int? version, bool traced) => new(
        $"A-1.{version}", type, "A-1", version, DateTimeOffset.UnixEpoch, "c-1", "k-1", traced ? "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" : null, traced ? 1 : 2);

    private static JsonObject Describe(string name, IReadOnlyList<JsonNode?> values)
    {
        var kinds = values.Select(Kind).Distinct().Order(StringComparer.Ordinal).ToList();
        if (kinds.Contains("number"))
        {
            kinds.Remove("integer");
        }
        var found = new JsonObject { ["type"] = kinds.Count == 1 ? kinds[0] : new JsonArray([.. kinds.Select(kind => (JsonNode)kind)]) };
        var objects = values.OfType<JsonObject>().ToList();
        if (objects.Count > 0)
        {
            var names = objects.SelectMany(one => one.Select(member => member.Key)).Distinct().ToList();
            found["properties"] = new JsonObject(names.Select(member => KeyValuePair.Create(
                member, (JsonNode?)Describe(member, [.. objects.Where(one => one.ContainsKey(member)).Select(one => one[member])]))));
            found["required"] = new JsonArray([.. names.Where(member => objects.All(one => one.ContainsKey(member))).Select(member => (JsonNode)member)]);
        }
        if (values.OfType<JsonArray>().SelectMany(list => list).ToList() is { Count: > 0 } entries)
        {
            found["items"] = Describe("", entries);
        }
        if (Fixed.Contains(name))
        {
            found["const"] = (string)values[0]!;
        }
        if (Listed.Contains(name))
        {
            found["enum"] = new JsonArray([.. values.Select(value => (string)value!).Distinct().Select(value => (JsonNode)value)]);
        }
        if (Times.Contains(name))
        {
            found["format"] = "date-time";
        }
        return found;
    }

    private static string Kind(JsonNode? value) => value switch
    {
        null => "null",
        JsonObject => "object",
        JsonArray => "array",
        _ => value.GetValueKind() switch
        {
            System.Text.Json.JsonValueKind.String => "string",
            System.Text.Json.JsonValueKind.Number => value.ToJsonString().All(char.IsAsciiDigit) ? "integer" : "number",
            _ => "boolean",
        },
    };
}

using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using NJsonSchema;

namespace OrderService.Tests.Http;

/// <summary>The service's OpenAPI document, and what answers are held against it.</summary>
internal sealed class ApiDocument
{
    private const string Components = "#/components/schemas/";

    private readonly Dictionary<string, ApiOperation> operations;
    private readonly JsonObject components;

    private ApiDocument(JsonElement root)
    {
        Root = root;
        operations = root.GetProperty("paths").EnumerateObject()
            .SelectMany(path => path.Value.EnumerateObject().Select(operation => new ApiOperation(path.Name, operation.Name.ToUpperInvariant(), operation.Value)))
            .ToDictionary(operation => operation.Id, StringComparer.Ordinal);
        components = (JsonObject)JsonNode.Parse(root.GetProperty("components").GetProperty("schemas").GetRawText())!;
    }

    public JsonElement Root { get; }

    public IReadOnlyCollection<ApiOperation> Operations => operations.Values;

    public ApiOperation this[string id] => operations[id];

    public static async Task<ApiDocument> ReadAsync(HttpClient http)
    {
        var text = await http.GetStringAsync(new Uri("/openapi/v1.json", UriKind.Relative), TestContext.Current.CancellationToken);
        return new ApiDocument(JsonDocument.Parse(text).RootElement);
    }

    /// <summary>Whether the status is the expected one and documented, the content type is documented for it, and the body is what its schema says.</summary>
    /// <returns>What is wrong, null when nothing is; and the body, where it is JSON.</returns>
    public async Task<(string? Mistake, JsonElement Body)> CheckAsync(string id, int status, HttpResponseMessage response)
    {
        var what = $"{id} ({response.RequestMessage!.Method} {response.RequestMessage.RequestUri!.PathAndQuery})";
        var media = response.Content.Headers.ContentType?.MediaType;
        // A stream of events has no end.
        var body = media == "text/event-stream" ? "..." : await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken);
        if ((int)response.StatusCode != status)
        {
            return ($"{what} answered {(int)response.StatusCode} and not {status}: {body}", default);
        }
        if (!operations[id].Json.GetProperty("responses").TryGetProperty($"{status}", out var answer))
        {
            return ($"{what}: {status} is not documented", default);
        }
        if (!answer.TryGetProperty("content", out var contents))
        {
            return (body.Length == 0 ? null : $"{what}: a body came and none is documented: {body}", default);
        }
        if (media is null || !contents.TryGetProperty(media, out var content))
        {
            return ($"{what}: '{media}' is not documented for {status}, but {contents.GetRawText()}", default);
        }
        if (media is not ("application/json" or "application/problem+json"))
        {
            return (null, default);
        }
        if (!content.TryGetProperty("schema", out var schema))
        {
            return ($"{what}: {status} has no schema", default);
        }
        var mistakes = await MistakesAsync(schema, body);
        return (mistakes.Count == 0 ? null : $"{what}: {string.Join("; ", mistakes)}\n{body}", JsonDocument.Parse(body).RootElement);
    }

    /// <summary>What a text has that the schema does not allow; members that are not documented count.</summary>
    public async Task<IReadOnlyList<string>> MistakesAsync(JsonElement schema, string text)
    {
        var whole = await JsonSchema.FromJsonAsync(Expand(JsonNode.Parse(schema.GetRawText())).ToJsonString(), TestContext.Current.CancellationToken);
        return [.. whole.Validate(text).Select(mistake => mistake.ToString())];
    }

    /// <summary>The schema without references, and closed to members it does not name.</summary>
    private JsonObject Expand(JsonNode? node)
    {
        var schema = (JsonObject)node!.DeepClone();
        if (schema["$ref"] is JsonValue reference)
        {
            return Expand(components[reference.GetValue<string>()[Components.Length..]]);
        }
        schema.Remove("example");
        schema.Remove("examples");
        if (schema["properties"] is JsonObject members)
        {
            schema["properties"] = new JsonObject(members.ToList().Select(member => KeyValuePair.Create(member.Key, (JsonNode?)Expand(member.Value))));
            if (!schema.ContainsKey("additionalProperties"))
            {
                schema["additionalProperties"] = false;
            }
        }
        foreach (var keyword in new[] { "items", "additionalProperties" })
        {
            if (schema[keyword] is JsonObject inner)
            {
                schema[keyword] = Expand(inner);
            }
        }
        foreach (var keyword in new[] { "oneOf", "anyOf", "allOf" })
        {
            if (schema[keyword] is JsonArray choices)
            {
                schema[keyword] = new JsonArray([.. choices.Select(Expand)]);
            }
        }
        return schema;
    }
}

/// <summary>One operation of the document.</summary>
internal sealed partial record ApiOperation(string Path, string Method, JsonElement Json)
{
    public string Id => Json.GetProperty("operationId").GetString()!;

    public IReadOnlyList<JsonElement> Parameters => Json.TryGetProperty("parameters", out var parameters) ? [.. parameters.EnumerateArray()] : [];

    public bool TakesBody => Json.TryGetProperty("requestBody", out _);

    /// <summary>Needs no key.</summary>
    public bool IsForAnybody => Json.TryGetProperty("security", out var security) && security.EnumerateArray().All(requirement => !requirement.EnumerateObject().Any());

    public IReadOnlyList<string> Scopes => IsForAnybody ? [] : [.. Scope().Matches(Json.GetProperty("description").GetString()!.Split("Needs a key")[1]).Select(match => match.Groups[1].Value)];

    public bool Answers(int status) => Json.GetProperty("responses").TryGetProperty($"{status}", out _);

    public HttpRequestMessage Request(string path) => new(new HttpMethod(Method), new Uri(path, UriKind.Relative));

    [GeneratedRegex("`([a-z]+)`")]
    private static partial Regex Scope();
}

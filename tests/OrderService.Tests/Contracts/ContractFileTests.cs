using System.Globalization;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using CsCheck;
using NJsonSchema;
using OrderService.Domain;
using OrderService.Inbox;
using OrderService.Tests.Domain;
using OrderService.Tests.Infrastructure;
using YamlDotNet.Serialization;

namespace OrderService.Tests.Contracts;

/// <summary>
/// The contracts as files, for programs: each is what the code says now. After a change of the code they are written anew by
/// <c>ORDERSERVICE_WRITE_CONTRACTS=1 eng/test --filter-class '*ContractFileTests'</c>; what changed is then in the diff.
/// </summary>
public sealed partial class ContractFileTests(SharedService shared) : IClassFixture<SharedService>
{
    private const string Served = "src/OrderService/wwwroot/schemas";

    private static readonly bool Write = Environment.GetEnvironmentVariable("ORDERSERVICE_WRITE_CONTRACTS") == "1";
    private static readonly JsonSerializerOptions Pretty = new() { WriteIndented = true, NewLine = "\n", Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    private static readonly SortedDictionary<string, JsonObject> Commands = new(
        CommandType.All.ToDictionary(type => type, type => CommandSchema.Of(type, Examples()[type], More(type))), StringComparer.Ordinal);

    private static readonly SortedDictionary<string, JsonObject> Events = EventSchema.All();

    [Fact]
    public void The_schemas_of_commands_are_what_the_decoder_says() => Hold("commands", Commands);

    [Fact]
    public void The_schemas_of_events_are_what_is_published()
    {
        Assert.Equal(
            typeof(EventType).GetFields().Where(field => field.IsLiteral).Select(field => (string)field.GetRawConstantValue()!).Order(StringComparer.Ordinal),
            Events.Keys);
        Hold("events", Events);
    }

    [Fact]
    public void The_asyncapi_document_is_what_the_tables_of_the_code_say()
    {
        var document = AsyncApiDocument.Create(Commands, Events);
        var yaml = "# Written by ContractFileTests from the code; see docs/messages.md for the same in words.\n"
            + new SerializerBuilder().WithQuotingNecessaryStrings().DisableAliases().WithMaximumRecursion(100).Build().Serialize(Plain(document)!).ReplaceLineEndings("\n");

        Same("docs/asyncapi.yaml", yaml);
        Same($"{Served}/asyncapi.json", document.ToJsonString(Pretty) + "\n");
    }

    [Fact]
    public async Task The_openapi_document_is_the_one_that_is_served()
    {
        using var http = shared.Service.Client();
        var running = JsonNode.Parse(await http.GetStringAsync(new Uri("/openapi/v1.json", UriKind.Relative), TestContext.Current.CancellationToken))!;
        // The address is that of whoever asks.
        ((JsonObject)running).Remove("servers");

        Same("docs/openapi.json", running.ToJsonString(Pretty) + "\n");
    }

    [Fact]
    public async Task Schemas_are_served_to_who_has_no_key()
    {
        using var nobody = shared.Service.Client(key: null);
        foreach (var file in Repository.Files(Served, "*.json"))
        {
            using var answer = await nobody.GetAsync(new Uri(file[(Served.Length - "schemas".Length - 1)..], UriKind.Relative), TestContext.Current.CancellationToken);
            Assert.Equal(System.Net.HttpStatusCode.OK, answer.StatusCode);
            Assert.Equal("application/json", answer.Content.Headers.ContentType?.MediaType);
            Assert.Equal(Repository.Read(file), await answer.Content.ReadAsStringAsync(TestContext.Current.CancellationToken));
        }
    }

    [Fact]
    public async Task Ten_thousand_bodies_get_the_same_verdict_from_the_schema_and_from_the_decoder()
    {
        var schemas = new Dictionary<string, JsonSchema>(StringComparer.Ordinal);
        foreach (var (type, schema) in Commands)
        {
            schemas[type] = await JsonSchema.FromJsonAsync(schema.ToJsonString(), TestContext.Current.CancellationToken);
        }
        var (accepted, refused) = (0, 0);

        Bodies.Sample(
            (type, body) =>
            {
                var isCommand = EnvelopeDecoder.TryDecodeBody(type, Encoding.UTF8.GetBytes(body), null, out _, out var rejection);
                var mistakes = schemas[type].Validate(body);
                if (isCommand)
                {
                    Interlocked.Increment(ref accepted);
                    Assert.True(mistakes.Count == 0, $"{type} {body} is accepted, and the schema says {string.Join(", ", mistakes)}");
                }
                else if (CommandSchema.Sayable.Contains(rejection!.Reason) && !(type == CommandType.Amend && rejection is { Reason: RejectionReason.MissingField, Field: "/lines" }))
                {
                    Interlocked.Increment(ref refused);
                    Assert.True(mistakes.Count > 0, $"{type} {body} is {rejection.Reason} ({rejection.Detail}), and the schema says nothing");
                }
            },
            iter: 10_000);

        Assert.True(accepted > 1_000 && refused > 1_000, $"{accepted} accepted, {refused} refused: the generator makes too much of one kind");
    }

    /// <summary>Sound commands, and the same with a member taken away, added, renamed, or of another value.</summary>
    private static Gen<(string Type, string Body)> Bodies { get; } = Gen.Select(
        Generators.Command, Gen.Int[0, 3], Gen.Int[0, 1_000], Gen.Int[0, 1_000],
        (command, change, place, other) =>
        {
            var body = (JsonObject)JsonNode.Parse(CommandWriter.Write(command))!;
            var objects = new List<JsonObject> { body };
            objects.AddRange(body.SelectMany(member => member.Value is JsonArray list ? list.OfType<JsonObject>() : []));
            var target = objects[place % objects.Count];
            var name = target.Select(member => member.Key).ElementAt(place % target.Count);
            switch (change)
            {
                case 1:
                    target.Remove(name);
                    break;
                case 2:
                    target[other % 2 == 0 ? "unheardOf" : name.ToUpperInvariant()] = JsonValue.Create("x");
                    break;
                case 3:
                    target[name] = Other(other);
                    break;
            }
            return (command.Type, body.ToJsonString());
        });

    private static JsonNode? Other(int number) => (number % 14) switch
    {
        0 => null,
        1 => JsonValue.Create(true),
        2 => JsonValue.Create(0),
        3 => JsonValue.Create(-1),
        4 => JsonValue.Create(1_000_001),
        5 => JsonValue.Create(1.5m),
        6 => JsonValue.Create("A-1"),
        7 => JsonValue.Create("A 1"),
        8 => JsonValue.Create(""),
        9 => JsonValue.Create(new string('a', 65)),
        10 => JsonValue.Create("eur"),
        11 => new JsonArray(),
        12 => new JsonObject(),
        _ => new JsonArray(1),
    };

    private static void Hold(string folder, SortedDictionary<string, JsonObject> schemas)
    {
        foreach (var (name, schema) in schemas)
        {
            Same($"{Served}/{folder}/{name}.json", schema.ToJsonString(Pretty) + "\n");
        }
        Assert.Equal(schemas.Keys.Select(name => $"{Served}/{folder}/{name}.json").Order(StringComparer.Ordinal), Repository.Files($"{Served}/{folder}", "*.json"));
    }

    private static void Same(string file, string text)
    {
        if (Write)
        {
            Directory.CreateDirectory(Path.GetDirectoryName(Repository.PathOf(file))!);
            File.WriteAllText(Repository.PathOf(file), text);
        }
        Assert.True(File.Exists(Repository.PathOf(file)), $"{file} is missing: write it with ORDERSERVICE_WRITE_CONTRACTS=1.");
        var kept = Repository.Read(file);
        if (kept != text)
        {
            var line = kept.Split('\n').Zip(text.Split('\n')).TakeWhile(pair => pair.First == pair.Second).Count() + 1;
            Assert.Fail($"{file} is not what the code says from line {line.ToString(CultureInfo.InvariantCulture)} on; look at the change and write it anew with ORDERSERVICE_WRITE_CONTRACTS=1.");
        }
    }

    private static object? Plain(JsonNode? node) => node switch
    {
        null => null,
        JsonObject members => members.ToDictionary(member => member.Key, member => Plain(member.Value)),
        JsonArray entries => entries.Select(Plain).ToList(),
        _ => node.GetValueKind() switch
        {
            JsonValueKind.String => (string)node!,
            JsonValueKind.Number => long.TryParse(node.ToJsonString(), CultureInfo.InvariantCulture, out var whole) ? whole : decimal.Parse(node.ToJsonString(), CultureInfo.InvariantCulture),
            _ => node.GetValueKind() == JsonValueKind.True,
        },
    };

    // Without an id and with small discounts: many lines and many discounts of this kind go into one order.
    private static string More(string type) => type switch
    {
        CommandType.Place => """{"lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90,"tax":{"rate":19,"included":true}}],"shippingCost":4.90,"shippingTax":{"rate":19,"included":true},"discounts":[{"amount":0.01,"code":"SPRING"}]}""",
        CommandType.Amend => """{"lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90,"tax":{"rate":19,"included":true}}],"discounts":[{"amount":0.01,"code":"SPRING"}]}""",
        _ => "{}",
    };

    private static Dictionary<string, string> Examples() => Example().Matches(Repository.Read("docs/messages.md")).ToDictionary(match => match.Groups["name"].Value, match => match.Groups["json"].Value);

    [GeneratedRegex("""^```json (?<name>\S+)\n(?<json>.*?)\n```$""", RegexOptions.Multiline | RegexOptions.Singleline)]
    private static partial Regex Example();
}

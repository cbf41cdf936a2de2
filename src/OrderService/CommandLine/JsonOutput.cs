using System.CommandLine;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace OrderService.CommandLine;

/// <summary><c>--json</c>: one JSON document on standard output and nothing else there, with the names that the API has.</summary>
internal static class JsonOutput
{
    // Everything beyond ASCII is escaped: what a producer sent must not move a cursor.
    private static readonly JsonSerializerOptions Indented = new(JsonSerializerDefaults.Web)
    {
        WriteIndented = true,
        NumberHandling = JsonNumberHandling.Strict,
    };

    public static Option<bool> Option() => new("--json") { Description = "Print one JSON document, for programs." };

    public static void Write<T>(T document) => Console.WriteLine(JsonSerializer.Serialize(document, Indented));
}

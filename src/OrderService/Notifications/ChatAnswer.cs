using System.Text.Json;

namespace OrderService.Notifications;

/// <summary>Reads what a chat says in a 2xx answer. Slack says <c>ok</c>, a Teams connector <c>1</c>, a workflow nothing; whatever else they say is why they did not take the message.</summary>
internal static class ChatAnswer
{
    /// <returns>What it says instead of having taken the message; null when it has.</returns>
    public static string? Problem(string body)
    {
        var text = body.Trim().Trim('\uFEFF');
        if (text.Length == 0 || text is "1" || text.Equals("ok", StringComparison.OrdinalIgnoreCase))
        {
            return null;
        }
        return text[0] is '{' ? ProblemInJson(text) : text;
    }

    // {"ok":true}, {"success":true}, or a workflow's own answer; {"ok":false,"error":"invalid_blocks"}, {"error":{"code":...}}.
    private static string? ProblemInJson(string text)
    {
        try
        {
            using var json = JsonDocument.Parse(text);
            foreach (var member in json.RootElement.EnumerateObject())
            {
                var isBad = member.Name.ToLowerInvariant() switch
                {
                    "ok" or "success" => member.Value.ValueKind == JsonValueKind.False,
                    "error" or "errors" => member.Value.ValueKind is not (JsonValueKind.Null or JsonValueKind.False),
                    _ => false,
                };
                if (isBad)
                {
                    return text;
                }
            }
            return null;
        }
        catch (JsonException)
        {
            return text;
        }
    }
}

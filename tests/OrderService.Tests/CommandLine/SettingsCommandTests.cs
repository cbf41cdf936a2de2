using System.Text.Json;
using OrderService.Configuration;

namespace OrderService.Tests.CommandLine;

/// <summary>What the command line tells of itself: settings and where they came from, JSON for programs, and what a typo was meant to be.</summary>
public sealed class SettingsCommandTests : IDisposable
{
    private readonly string folder = Directory.CreateTempSubdirectory("orderservice-settings-").FullName;

    [Fact]
    public async Task Settings_are_shown_with_where_they_came_from_and_without_secrets()
    {
        var secretFile = Path.Combine(folder, "webhook");
        File.WriteAllText(secretFile, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(secretFile, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        }
        var environment = new Dictionary<string, string>
        {
            ["RabbitMq__Uri"] = "amqp://orders:hunter2-hunter2@broker.example:5672/",
            ["RabbitMq__AllowPlaintext"] = "true",
            ["Store__Path"] = Path.Combine(folder, "orders.db"),
            ["Alerts__Webhook__Enabled"] = "true",
            ["Alerts__Webhook__Url"] = "https://hooks.example/T000/SecretPartOfTheAddress",
            ["Alerts__Webhook__SecretFile"] = secretFile,
            ["Api__Keys__0__Name"] = "shop",
            ["Api__Keys__0__Key"] = "Hq7-8vTzP2mXw4LrB9cYsK3nDf6gJ1aE",
            ["Api__Keys__0__Scopes__0"] = "publish",
            ["OTEL_EXPORTER_OTLP_HEADERS"] = "authorization=Bearer-of-a-token",
        };

        var shown = await Binary.RunAsync(["settings", "--json"], environment);
        var table = await Binary.RunAsync(["settings"], environment);

        Assert.Equal((0, 0), (shown.ExitCode, table.ExitCode));
        var settings = JsonDocument.Parse(shown.Output).RootElement.EnumerateArray().ToDictionary(one => one.GetProperty("key").GetString()!, StringComparer.OrdinalIgnoreCase);
        Assert.Equal(("amqp://(not shown)@broker.example:5672/", "environment variable RabbitMq__Uri"), Of("RabbitMq:Uri"));
        Assert.Equal((environment["Store__Path"], "environment variable Store__Path"), Of("Store:Path"));
        Assert.Equal(("(set, not shown)", $"{secretFile} (environment variable Alerts__Webhook__SecretFile)"), Of("Alerts:Webhook:Secret"));
        Assert.Equal(("(set, not shown)", "environment variable Alerts__Webhook__Url"), Of("Alerts:Webhook:Url"));
        Assert.Equal(("(set, not shown)", "environment variable Api__Keys__0__Key"), Of("Api:Keys:0:Key"));
        Assert.Equal(("shop", "environment variable Api__Keys__0__Name"), Of("Api:Keys:0:Name"));
        Assert.Equal("default", settings["Outbox:MaxInMemory"].GetProperty("origin").GetString());
        Assert.Equal("true", settings["Alerts:Log:Enabled"].GetProperty("value").GetString());
        Assert.All(OrderServiceHost.Rules.Sections.Keys, section => Assert.Contains(settings.Keys, key => key.StartsWith(section + ":", StringComparison.Ordinal)));
        foreach (var secret in new[] { "hunter2", "SecretPartOfTheAddress", "MfKQ9r8GK", "Hq7-8vTz", "Bearer-of-a-token" })
        {
            Assert.DoesNotContain(secret, shown.Output + shown.Error + table.Output + table.Error, StringComparison.Ordinal);
        }

        var changed = await Binary.RunAsync(["settings", "--changed", "--json"], environment);
        Assert.DoesNotContain("\"default\"", changed.Output, StringComparison.Ordinal);
        Assert.Contains("Store:Path", changed.Output, StringComparison.Ordinal);

        (string?, string?) Of(string key) => (settings[key].GetProperty("value").GetString(), settings[key].GetProperty("origin").GetString());
    }

    [Fact]
    public async Task Settings_with_mistakes_are_shown_all_the_same()
    {
        var result = await Binary.RunAsync(["settings"], new() { ["RabbitMq__Prefetch"] = "lots", ["Store__Pth"] = "x" });

        Assert.Equal(78, result.ExitCode);
        Assert.Contains(result.ErrorLines, line => line.StartsWith("RabbitMq:Prefetch", StringComparison.Ordinal));
        Assert.Contains(result.ErrorLines, line => line.StartsWith("Store:Pth", StringComparison.Ordinal));
        Assert.Contains("Outbox:MaxInMemory", result.Output, StringComparison.Ordinal);
    }

    [Fact]
    public void Every_default_on_the_page_of_settings_is_a_setting_that_is_shown()
    {
        var shown = SettingsInForce.Read(OrderServiceHost.LoadSettings(environmentVariables: false).Configuration, OrderServiceHost.Rules);

        Assert.True(shown.Count > 100, $"only {shown.Count} settings are shown");
        Assert.Equal(shown.Select(setting => setting.Key).Distinct(StringComparer.OrdinalIgnoreCase).Count(), shown.Count);
        Assert.All(shown.Where(setting => setting.IsSecret && setting.Value is { Length: > 0 }), setting => Assert.Contains("not shown", setting.Value, StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("dql list", "Did you mean dlq?")]
    [InlineData("dlq lsit", "Did you mean list?")]
    [InlineData("publish --smaple 3", "Did you mean --sample?")]
    [InlineData("dlq list --resaon=malformed_json", "Did you mean --reason?")]
    public async Task A_typo_is_told_what_it_was_meant_to_be(string arguments, string says)
    {
        var result = await Binary.RunAsync(arguments.Split(' '));

        Assert.Equal(2, result.ExitCode);
        Assert.Contains(says, result.ErrorLines);
    }

    [Fact]
    public async Task What_is_like_nothing_gets_no_suggestion()
    {
        var result = await Binary.RunAsync(["frobnicate"]);

        Assert.Equal(2, result.ExitCode);
        Assert.DoesNotContain("Did you mean", result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Whatever_reads_answers_in_json_too()
    {
        var environment = new Dictionary<string, string> { ["Store__Path"] = Path.Combine(folder, "orders.db"), ["ManagementUrls"] = "http://127.0.0.1:1", ["Urls"] = "http://127.0.0.1:2" };
        Assert.Equal(0, (await Binary.RunAsync(["migrate"], environment)).ExitCode);

        Assert.Equal(0, (await ReadAsync("dlq list", 0)).GetProperty("total").GetInt64());
        Assert.Empty((await ReadAsync("dlq list --groups", 0)).GetProperty("items").EnumerateArray());
        Assert.Empty((await ReadAsync("dlq jobs", 0)).GetProperty("items").EnumerateArray());
        Assert.Equal(0, (await ReadAsync("verify", 0)).GetProperty("wrong").GetInt64());
        Assert.Contains((await ReadAsync("topology", 0)).GetProperty("queues").EnumerateArray(), queue => queue.GetProperty("name").GetString() == "orders");
        // No broker is at this address.
        Assert.Contains((await ReadAsync("doctor", 69)).GetProperty("findings").EnumerateArray(), finding => !finding.GetProperty("fine").GetBoolean());

        async Task<JsonElement> ReadAsync(string command, int exitCode)
        {
            var result = await Binary.RunAsync([.. command.Split(' '), "--json"], environment);
            Assert.True(result.ExitCode == exitCode, $"{command} ended with {result.ExitCode}: {result.Error}");
            return JsonDocument.Parse(result.Output).RootElement;
        }
    }

    public void Dispose() => Directory.Delete(folder, recursive: true);
}

using System.Net.Http.Json;
using System.Diagnostics.Metrics;
using System.Text.Json;
using System.Text.RegularExpressions;
using Microsoft.Extensions.DependencyInjection;
using OrderService.Observability;
using OrderService.Tests.Infrastructure;
using YamlDotNet.RepresentationModel;

namespace OrderService.Tests.Health;

/// <summary>What others read numbers from: docs/metrics.md, the alert rules and the dashboard, held against a real scrape.</summary>
/// <remarks>The scrape is of a process of its own: services that share one share their series too, and the end of one takes them from all.</remarks>
public sealed partial class MetricsPageTests(SharedService shared, MetricsPageTests.Scraped scraped) : IClassFixture<SharedService>, IClassFixture<MetricsPageTests.Scraped>
{
    private static readonly IReadOnlyList<Row> Page = [.. PageRow().Matches(Repository.Read("docs/metrics.md")).Select(match =>
        new Row(match.Groups["name"].Value, match.Groups["type"].Value, [.. Name().Matches(match.Groups["labels"].Value).Select(label => label.Groups[1].Value)], match.Groups["what"].Value))];

    [Fact]
    public async Task The_page_names_every_metric_with_its_type_and_its_labels()
    {
        var scrape = await ScrapeAsync();

        Assert.True(Page.Count > 25, $"only {Page.Count} rows were found");
        var own = scrape.Where(family => OwnName().IsMatch(family.Key)).ToDictionary(family => family.Key, family => family.Value);
        Assert.DoesNotContain(own.Keys, name => Page.All(row => row.Name != name));
        foreach (var row in Page.Where(row => !row.IsOptional))
        {
            Assert.True(own.TryGetValue(row.Name, out var family), $"{row.Name} is on the page and not in the scrape");
            Assert.Equal(row.Type, family.Type);
            var labels = family.Series.SelectMany(series => series.Labels.Keys).Distinct().Where(label => label is not ("le" or "otel_scope_name" or "error_type")).ToList();
            Assert.True(row.Labels.ToHashSet().SetEquals(labels), $"{row.Name} has the labels {string.Join(", ", labels)}");
        }
        // What comes from libraries is told by its beginning.
        Assert.DoesNotContain(scrape.Keys.Except(own.Keys), name => !name.StartsWith("http_server_", StringComparison.Ordinal) && !name.StartsWith("kestrel_", StringComparison.Ordinal)
            && !name.StartsWith("dotnet_", StringComparison.Ordinal) && !name.StartsWith("aspnetcore_", StringComparison.Ordinal) && name is not ("target" or "target_info" or "otel_scope_info" or "otel_scope"));
    }

    [Fact]
    public void Instruments_that_this_service_does_not_use_are_on_the_page_too()
    {
        var instruments = new List<Instrument>();
        var own = shared.Service.Services.GetRequiredService<IMeterFactory>().Create(OrderMetrics.MeterName);
        using var listener = new MeterListener
        {
            InstrumentPublished = (instrument, _) =>
            {
                if (ReferenceEquals(instrument.Meter, own))
                {
                    instruments.Add(instrument);
                }
            },
        };
        listener.Start();

        Assert.True(instruments.Count > 20, $"only {instruments.Count} instruments were found");
        Assert.Equal(Page.Select(row => row.Name).Order(StringComparer.Ordinal), instruments.Select(PrometheusName).Distinct().Order(StringComparer.Ordinal));
        Assert.All(instruments, instrument => Assert.False(string.IsNullOrEmpty(instrument.Description), $"{instrument.Name} says nothing of itself"));
    }

    [Fact]
    public async Task Every_selector_of_the_alerts_and_of_the_dashboard_finds_a_series()
    {
        var scrape = await ScrapeAsync();
        List<string> expressions = [.. Alerts().Select(alert => Text(alert["expr"])), .. Queries()];

        Assert.True(expressions.Count > 40, $"only {expressions.Count} expressions were found");
        var missing = new List<string>();
        foreach (Match selector in expressions.SelectMany(expression => Selector().Matches(Grouping().Replace(expression, " "))))
        {
            var name = selector.Groups["name"].Value;
            // Prometheus makes this one itself, and others are there only where they are used.
            if (name == "up" || Page.Any(row => row.IsOptional && row.Name == name))
            {
                continue;
            }
            var matchers = Matcher().Matches(selector.Groups["labels"].Value)
                .Where(matcher => matcher.Groups["label"].Value is not ("job" or "instance"))
                .Select(matcher => (Label: matcher.Groups["label"].Value, Is: matcher.Groups["op"].Value, Value: matcher.Groups["value"].Value.Replace(@"\\", @"\", StringComparison.Ordinal)))
                .ToList();
            var found = scrape.Values.SelectMany(family => family.Series).Any(series => series.Name == name && matchers.All(matcher =>
                series.Labels.TryGetValue(matcher.Label, out var value) && (matcher.Is == "=" ? value == matcher.Value : Regex.IsMatch(value, $"^(?:{matcher.Value})$"))));
            if (!found)
            {
                missing.Add(selector.Value);
            }
        }
        Assert.Empty(missing.Distinct());
    }

    [Fact]
    public async Task Whoever_scrapes_needs_no_key()
    {
        using var nobody = new HttpClient { BaseAddress = new Uri(scraped.Service.Url) };

        var metrics = await nobody.GetStringAsync(new Uri("/metrics", UriKind.Relative), TestContext.Current.CancellationToken);

        Assert.Contains("orders_outbox_pending", metrics, StringComparison.Ordinal);
    }

    [Fact]
    public void Every_alert_says_how_urgent_it_is_and_links_to_what_to_do()
    {
        var anchors = Heading().Matches(Repository.Read("docs/operations.md"))
            .Select(heading => NotInAnchor().Replace(heading.Groups[1].Value.ToLowerInvariant(), "").Replace(' ', '-')).ToHashSet(StringComparer.Ordinal);
        var alerts = Alerts();

        Assert.True(alerts.Count >= 15);
        foreach (var alert in alerts)
        {
            Assert.Contains(Text(alert["labels"]["severity"]), new[] { "page", "ticket" });
            Assert.NotEmpty(Text(alert["annotations"]["summary"]));
            Assert.NotEmpty(Text(alert["annotations"]["description"]));
            var (file, anchor) = Text(alert["annotations"]["runbook_url"]).Split('#') is [var before, var after] ? (before, after) : ("", "");
            Assert.EndsWith("/docs/operations.md", file, StringComparison.Ordinal);
            Assert.Contains(anchor, anchors);
            Assert.Equal(Text(alert["alert"]).ToLowerInvariant(), anchor);
        }
    }

    [Fact]
    public async Task Promtool_finds_that_each_alert_fires_and_falls_silent()
    {
        var promtool = Tool.Require("promtool");
        var tested = ((YamlSequenceNode)Yaml("deploy/prometheus/rules.test.yml")["tests"]).Select(test => Text(test["name"]));

        Assert.Equal(Alerts().Select(alert => Text(alert["alert"])), tested);
        var (checkedCode, checkedOutput) = await Tool.RunAsync(promtool, ["check", "rules", "deploy/prometheus/rules.yml"]);
        Assert.True(checkedCode == 0, checkedOutput);
        (checkedCode, checkedOutput) = await Tool.RunAsync(promtool, ["check", "config", "--syntax-only", "deploy/prometheus/prometheus.yml"]);
        Assert.True(checkedCode == 0, checkedOutput);
        var (code, output) = await Tool.RunAsync(promtool, ["test", "rules", "deploy/prometheus/rules.test.yml"]);
        Assert.True(code == 0, output);
        Assert.Contains("SUCCESS", output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Promtool_reads_the_scrape_and_every_query_of_the_dashboard()
    {
        var promtool = Tool.Require("promtool");
        var folder = Directory.CreateTempSubdirectory("orderservice-promtool-").FullName;
        try
        {
            var rules = "groups:\n- name: dashboard\n  rules:\n" + string.Concat(Queries().Distinct().Select((query, number) =>
                $"  - record: query:{number}\n    expr: {JsonSerializer.Serialize(query.Replace("$__rate_interval", "5m", StringComparison.Ordinal).Replace("$job", ".*", StringComparison.Ordinal))}\n"));
            await File.WriteAllTextAsync(Path.Combine(folder, "dashboard.yml"), rules, TestContext.Current.CancellationToken);
            var (code, output) = await Tool.RunAsync(promtool, ["check", "rules", Path.Combine(folder, "dashboard.yml")]);
            Assert.True(code == 0, output);

            await File.WriteAllTextAsync(Path.Combine(folder, "scrape.txt"), await ReadAsync(), TestContext.Current.CancellationToken);
            (_, output) = await Tool.RunAsync("bash", ["-c", "\"$0\" check metrics <\"$1\"", promtool, Path.Combine(folder, "scrape.txt")]);
            // Three names of .NET's own end in _count, which is for histograms.
            Assert.DoesNotContain(output.Split('\n', StringSplitOptions.RemoveEmptyEntries), line => !line.StartsWith("dotnet_", StringComparison.Ordinal));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    /// <summary>The histograms' numbers of late, for those who look without a collector.</summary>
    [Fact]
    public async Task How_long_orders_took_of_late_is_in_the_statistics()
    {
        await ScrapeAsync();

        var stats = await scraped.Service.Http.GetFromJsonAsync<System.Text.Json.JsonElement>(new Uri("/api/stats", UriKind.Relative), TestContext.Current.CancellationToken);

        foreach (var name in (string[])["critical", "relay"])
        {
            var times = stats.GetProperty("times").GetProperty(name);
            Assert.True(times.GetProperty("count").GetInt64() > 0, times.GetRawText());
            Assert.InRange(times.GetProperty("p50").GetDouble(), 0, times.GetProperty("p95").GetDouble());
            Assert.InRange(times.GetProperty("p99").GetDouble(), times.GetProperty("p95").GetDouble(), 600);
        }
    }

    private Task<string> ReadAsync() => scraped.Service.Http.GetStringAsync(new Uri("/metrics", UriKind.Relative), TestContext.Current.CancellationToken);

    /// <summary>After an order went all its way: histograms have no series before.</summary>
    private async Task<Dictionary<string, Family>> ScrapeAsync()
    {
        using var answer = await scraped.Service.Http.PostAsync(new Uri("/api/orders", UriKind.Relative), HostedService.Json(HostedService.Order($"M-{Guid.NewGuid():N}")), TestContext.Current.CancellationToken);
        Assert.Equal(System.Net.HttpStatusCode.Accepted, answer.StatusCode);
        var scrape = new Dictionary<string, Family>();
        await Eventually.HoldsAsync(async () =>
        {
            scrape = Parse(await ReadAsync());
            foreach (var name in (string[])["orders_relay_delay_seconds", "orders_critical_time_seconds", "messaging_process_duration_seconds"])
            {
                Assert.True(scrape.ContainsKey(name), $"{name} is not there yet");
            }
            Assert.Contains(scrape["orders_relay_delay_seconds"].Series, series => series.Name == "orders_relay_delay_seconds_count");
            // Told once a second.
            Assert.True(scrape.TryGetValue("orders_queue_depth", out var depth) && depth.Series.Count > 3, "the queues are not read yet");
            Assert.Contains("orders_queue_oldest_age_seconds", scrape.Keys);
            Assert.True(scrape["messaging_client_consumed_messages_total"].Series.Count >= 2, "nothing was consumed yet");
        });
        return scrape;
    }

    private static Dictionary<string, Family> Parse(string text)
    {
        var families = new Dictionary<string, Family>(StringComparer.Ordinal);
        foreach (Match match in TypeLine().Matches(text))
        {
            families[match.Groups["name"].Value] = new Family(match.Groups["type"].Value, []);
        }
        foreach (Match match in SeriesLine().Matches(text))
        {
            var name = match.Groups["name"].Value;
            var family = families.GetValueOrDefault(name) ?? families.GetValueOrDefault(HistogramPart().Replace(name, ""));
            Assert.True(family is not null, $"{name} has no type");
            family.Series.Add(new Series(name, Label().Matches(match.Groups["labels"].Value).ToDictionary(label => label.Groups[1].Value, label => label.Groups[2].Value)));
        }
        return families;
    }

    private static string PrometheusName(Instrument instrument)
    {
        var name = instrument.Name.Replace('.', '_') + (instrument.Unit == "s" ? "_seconds" : "");
        return instrument.GetType().Name.Contains("Counter", StringComparison.Ordinal) ? name + "_total" : name;
    }

    private static List<YamlNode> Alerts() => [.. ((YamlSequenceNode)Yaml("deploy/prometheus/rules.yml")["groups"][0]["rules"])];

    private static List<string> Queries()
    {
        using var dashboard = JsonDocument.Parse(Repository.Read("deploy/grafana/orders.json"));
        return
        [
            .. dashboard.RootElement.GetProperty("panels").EnumerateArray()
                .Where(panel => panel.GetProperty("type").GetString() != "row")
                .SelectMany(panel => panel.GetProperty("targets").EnumerateArray())
                .Select(target => target.GetProperty("expr").GetString()!),
        ];
    }

    private static YamlNode Yaml(string name)
    {
        var stream = new YamlStream();
        stream.Load(new StringReader(Repository.Read(name)));
        return stream.Documents[0].RootNode;
    }

    private static string Text(YamlNode node) => ((YamlScalarNode)node).Value!;

    [GeneratedRegex(@"^\| `(?<name>[a-z_]+)` \| (?<type>\w+) \| (?<labels>[^|]*) ?\| \w+ \| (?<what>.*) \|$", RegexOptions.Multiline)]
    private static partial Regex PageRow();

    [GeneratedRegex("`([a-z_]+)`")]
    private static partial Regex Name();

    [GeneratedRegex("^(orders|messaging)_")]
    private static partial Regex OwnName();

    [GeneratedRegex(@"(?<name>[a-z_]+)\{(?<labels>[^}]*)\}|(?<name>(?:orders|messaging|dotnet|http_server)_[a-z_]+)(?![a-z_{])")]
    private static partial Regex Selector();

    [GeneratedRegex(@"\bby \([^)]*\)")]
    private static partial Regex Grouping();

    [GeneratedRegex("""(?<label>\w+)(?<op>=~|=)"(?<value>[^"]*)"?""")]
    private static partial Regex Matcher();

    [GeneratedRegex("^#+ (.+)$", RegexOptions.Multiline)]
    private static partial Regex Heading();

    [GeneratedRegex(@"[^\w\- ]")]
    private static partial Regex NotInAnchor();

    [GeneratedRegex("^# TYPE (?<name>[a-z0-9_]+) (?<type>[a-z]+)$", RegexOptions.Multiline)]
    private static partial Regex TypeLine();

    [GeneratedRegex(@"^(?<name>[a-z0-9_]+)(?:\{(?<labels>[^}]*)\})? \S+(?: \d+)?$", RegexOptions.Multiline)]
    private static partial Regex SeriesLine();

    [GeneratedRegex("(\\w+)=\"((?:[^\"\\\\]|\\\\.)*)\"")]
    private static partial Regex Label();

    [GeneratedRegex("_(bucket|sum|count)$")]
    private static partial Regex HistogramPart();

    private sealed record Row(string Name, string Type, IReadOnlyList<string> Labels, string What)
    {
        /// <summary>There is no series of it where what it counts does not happen; that the instrument is there is another test.</summary>
        public bool IsOptional => What.Contains("only where", StringComparison.Ordinal);
    }

    private sealed record Family(string Type, List<Series> Series);

    private sealed record Series(string Name, IReadOnlyDictionary<string, string> Labels);

    public sealed class Scraped(RabbitMqContainerFixture broker) : IAsyncLifetime
    {
        public RunningService Service { get; private set; } = null!;

        public async ValueTask InitializeAsync() => Service = await RunningService.StartAsync(await broker.AddVirtualHostAsync());

        public ValueTask DisposeAsync() => Service?.DisposeAsync() ?? ValueTask.CompletedTask;
    }
}

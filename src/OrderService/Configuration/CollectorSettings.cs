using System.Globalization;

namespace OrderService.Configuration;

/// <summary>
/// The environment variables of OpenTelemetry. Its library passes over some values that it can't read and ends the process over others; here each is one sentence.
/// No value is shown: headers hold credentials.
/// </summary>
internal static class CollectorSettings
{
    private static readonly string[] Signals = ["", "TRACES_", "METRICS_", "LOGS_"];

    private static readonly Dictionary<string, (Func<string, bool> IsRead, string Expected)> Known = Build();

    // Of the specification, and of no interest to this service.
    private static readonly string[] Others =
    [
        "OTEL_SERVICE_NAME", "OTEL_PROPAGATORS", "OTEL_LOG_LEVEL", "OTEL_CONFIG_FILE", "OTEL_METRICS_EXPORTER", "OTEL_TRACES_EXPORTER",
        .. Signals.SelectMany(signal => new[] { $"OTEL_EXPORTER_OTLP_{signal}INSECURE" }),
    ];

    /// <summary>Where all signals go; null where no collector is set.</summary>
    public static string? Address(IConfiguration configuration) =>
        configuration["OTEL_EXPORTER_OTLP_ENDPOINT"] is { Length: > 0 } given ? given : configuration["OpenTelemetry:OtlpEndpoint"] is { Length: > 0 } own ? own : null;

    public static IEnumerable<SettingMistake> Mistakes(IConfiguration configuration)
    {
        foreach (var section in configuration.GetChildren().Where(child => child.Key.StartsWith("OTEL_", StringComparison.OrdinalIgnoreCase)))
        {
            var name = section.Key.ToUpperInvariant();
            if (section.Value is not { Length: > 0 } value)
            {
                continue;
            }
            if (Known.TryGetValue(name, out var known))
            {
                if (!known.IsRead(value))
                {
                    yield return new(section.Path, $"{section.Key}: {known.Expected}.");
                }
            }
            else if (!Others.Contains(name) && Nearest(name) is { } nearest)
            {
                yield return new(section.Path, $"{section.Key}: nobody reads this, did you mean {nearest}?");
            }
        }
        if (configuration["OpenTelemetry:OtlpEndpoint"] is { Length: > 0 } collector && !IsAddress(collector))
        {
            yield return new("OpenTelemetry:OtlpEndpoint", "OpenTelemetry:OtlpEndpoint: is no address of a collector; write http://collector:4317.");
        }
    }

    // Other programs have names of their own; only a slip of the pen is meant here.
    private static string? Nearest(string name) => Known.Keys.Concat(Others).FirstOrDefault(known => Math.Abs(known.Length - name.Length) <= 1 && Spelling.Distance(known, name) <= 1);

    private static Dictionary<string, (Func<string, bool>, string)> Build()
    {
        var known = new Dictionary<string, (Func<string, bool>, string)>(StringComparer.Ordinal);
        foreach (var signal in Signals)
        {
            known[$"OTEL_EXPORTER_OTLP_{signal}ENDPOINT"] = (IsAddress, "is no address of a collector; write http://collector:4317");
            known[$"OTEL_EXPORTER_OTLP_{signal}HEADERS"] = (IsPairs, "can't be read; write name=value, several with commas between them");
            known[$"OTEL_EXPORTER_OTLP_{signal}TIMEOUT"] = (IsNumber, "is no number of milliseconds");
            known[$"OTEL_EXPORTER_OTLP_{signal}PROTOCOL"] = OneOf("grpc", "http/protobuf");
            known[$"OTEL_EXPORTER_OTLP_{signal}COMPRESSION"] = OneOf("none", "gzip");
            known[$"OTEL_EXPORTER_OTLP_{signal}CERTIFICATE"] = (File.Exists, "names a file that does not exist");
            known[$"OTEL_EXPORTER_OTLP_{signal}CLIENT_CERTIFICATE"] = (File.Exists, "names a file that does not exist");
            known[$"OTEL_EXPORTER_OTLP_{signal}CLIENT_KEY"] = (File.Exists, "names a file that does not exist");
        }
        foreach (var name in new[] { "OTEL_METRIC_EXPORT_INTERVAL", "OTEL_METRIC_EXPORT_TIMEOUT", "OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT", "OTEL_BLRP_SCHEDULE_DELAY", "OTEL_BLRP_EXPORT_TIMEOUT" })
        {
            known[name] = (IsNumber, "is no number of milliseconds");
        }
        foreach (var name in new[]
        {
            "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "OTEL_BLRP_MAX_QUEUE_SIZE", "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "OTEL_ATTRIBUTE_COUNT_LIMIT",
            "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_SPAN_EVENT_COUNT_LIMIT", "OTEL_SPAN_LINK_COUNT_LIMIT",
            "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
        })
        {
            known[name] = (IsNumber, "is no whole number from 0 on");
        }
        known["OTEL_RESOURCE_ATTRIBUTES"] = (IsPairs, "can't be read; write name=value, several with commas between them");
        known["OTEL_LOGS_EXPORTER"] = OneOf("otlp", "none");
        known["OTEL_SDK_DISABLED"] = OneOf("true", "false");
        known["OTEL_METRICS_EXEMPLAR_FILTER"] = OneOf("always_on", "always_off", "trace_based");
        known["OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"] = OneOf("cumulative", "delta", "lowmemory");
        known["OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"] = OneOf("explicit_bucket_histogram", "base2_exponential_bucket_histogram");
        known["OTEL_TRACES_SAMPLER"] = OneOf("always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio");
        known["OTEL_TRACES_SAMPLER_ARG"] = (text => double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out var share) && share is >= 0 and <= 1, "is no share from 0 to 1");
        return known;
    }

    private static (Func<string, bool>, string) OneOf(params string[] values) =>
        (text => values.Contains(text.Trim(), StringComparer.OrdinalIgnoreCase), $"can't be read; there are {string.Join(", ", values)}");

    private static bool IsAddress(string text) => Uri.TryCreate(text, UriKind.Absolute, out var address) && address.Scheme is "http" or "https";

    private static bool IsNumber(string text) => int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out _);

    private static bool IsPairs(string text) => text.Split(',', StringSplitOptions.RemoveEmptyEntries).All(pair => pair.IndexOf('=', StringComparison.Ordinal) > 0 && !pair.Any(char.IsControl));
}

using System.Diagnostics.Metrics;
using OpenTelemetry.Exporter;
using OpenTelemetry.Metrics;
using OpenTelemetry.Resources;
using OpenTelemetry.Trace;
using OrderService.Configuration;
using OrderService.Observability;

namespace OrderService.Health;

public static class HealthSetup
{
    /// <summary>
    /// Series an instrument may have; further ones are counted as one overflow series. Room for all of them is taken at the start: 9 MB with the library's default of 2,000.
    /// The most are wanted for requests: some forty routes with a few answers each.
    /// </summary>
    private const int SeriesLimit = 500;

    /// <summary>Each route and answer has a series for every one of them; the library has fourteen.</summary>
    private static readonly double[] HttpSeconds = [0.01, 0.05, 0.25, 1, 5];

    /// <summary>
    /// Registers metrics, traces and readiness. Metrics are scraped at <c>/metrics</c>; with <c>OTEL_EXPORTER_OTLP_ENDPOINT</c> (or <c>OpenTelemetry:OtlpEndpoint</c>)
    /// metrics and traces also go to a collector, and log lines (<c>CollectorLog</c>). Without one no span is made at all.
    /// </summary>
    public static IServiceCollection AddHealth(this IServiceCollection services, IConfiguration configuration)
    {
        services.AddMetrics();
        services.AddSingleton<OrderMetrics>();
        services.AddSingleton<MessagingMetrics>();
        services.AddSingleton<Readiness>();
        services.AddSingleton<HealthWatch>();
        services.AddSingleton<StationReadings>();
        services.AddSingleton<Store.Committed>(provider => provider.GetRequiredService<StationReadings>().Count);
        var collector = CollectorSettings.Address(configuration);
        var telemetry = services.AddOpenTelemetry()
            .ConfigureResource(resource => Describe(resource, configuration))
            .WithMetrics(metrics =>
            {
                metrics.AddMeter(OrderMetrics.MeterName, "Microsoft.AspNetCore.Hosting", "Microsoft.AspNetCore.Server.Kestrel").AddRuntimeInstrumentation()
                    // Whoever may ask without a key may ask as often as they like.
                    .AddPrometheusExporter(prometheus => prometheus.ScrapeResponseCacheDurationMilliseconds = 1000);
                metrics.AddView(instrument => instrument.Meter.Name.StartsWith("Microsoft.AspNetCore.", StringComparison.Ordinal) && instrument is Histogram<double>
                    ? new ExplicitBucketHistogramConfiguration { CardinalityLimit = SeriesLimit, Boundaries = HttpSeconds }
                    : new MetricStreamConfiguration { CardinalityLimit = SeriesLimit });
                if (collector is not null)
                {
                    metrics.AddOtlpExporter(exporter => Send(exporter, "v1/metrics"));
                }
            });
        if (collector is not null)
        {
            telemetry.WithTracing(tracing => tracing
                .AddSource(Tracing.SourceName, "RabbitMQ.Client.*")
                .AddAspNetCoreInstrumentation(http => http.Filter = context => !context.Request.Path.StartsWithSegments("/health") && !context.Request.Path.StartsWithSegments("/metrics"))
                .AddOtlpExporter(exporter => Send(exporter, "v1/traces")));
        }
        return services;

        void Send(OtlpExporterOptions exporter, string path)
        {
            // The exporter reads the environment by itself. An address that is set is taken as it is, so that the signal's path over HTTP is ours to add.
            if (string.IsNullOrEmpty(configuration["OTEL_EXPORTER_OTLP_ENDPOINT"]))
            {
                exporter.Endpoint = new Uri(exporter.Protocol == OtlpExportProtocol.HttpProtobuf ? $"{collector.TrimEnd('/')}/{path}" : collector);
            }
            // With certificates of its own the exporter makes its own client.
            if (!configuration.GetChildren().Any(setting => setting.Key.StartsWith("OTEL_EXPORTER_OTLP_", StringComparison.OrdinalIgnoreCase) && setting.Key.EndsWith("CERTIFICATE", StringComparison.OrdinalIgnoreCase)))
            {
                var timeout = TimeSpan.FromMilliseconds(exporter.TimeoutMilliseconds);
                exporter.HttpClientFactory = () => new HttpClient(new SocketsHttpHandler { AllowAutoRedirect = false, ConnectCallback = EveryAddress.ForHttp(null, timeout) }) { Timeout = timeout };
            }
        }
    }

    /// <summary>Who this process is to a collector, the same in traces, metrics and log lines.</summary>
    internal static ResourceBuilder Describe(ResourceBuilder resource, IConfiguration configuration) => resource.AddService(
        configuration["OTEL_SERVICE_NAME"] ?? configuration["OpenTelemetry:ServiceName"] ?? "order-service", serviceVersion: typeof(OrderMetrics).Assembly.GetName().Version?.ToString());

    /// <summary>Why the exporters can't be made, where the settings' check found nothing; null when they can. The library throws whatever it likes, and only here is it known whose it is.</summary>
    internal static string? TelemetryMistake(IServiceProvider services)
    {
        try
        {
            _ = services.GetService<MeterProvider>();
            _ = services.GetService<TracerProvider>();
            return null;
        }
        catch (Exception exception)
        {
            return exception.GetBaseException().Message;
        }
    }

    /// <summary>Set on requests whose caller may read what the store and the broker say.</summary>
    internal static readonly object TellsAll = new();

    /// <summary><c>/health/live</c> (the process answers), <c>/health/ready</c> (it can do its work, or every cause why not) and <c>/metrics</c>, all without a key.</summary>
    public static void MapHealth(this WebApplication app)
    {
        // Who only wants the status asks with HEAD.
        app.MapMethods("/health/live", [HttpMethods.Head], () => TypedResults.Ok()).AllowAnonymous().DisableRateLimiting().ExcludeFromDescription();
        app.MapMethods("/health/ready", [HttpMethods.Head], async (Readiness readiness, CancellationToken cancellationToken) =>
            TypedResults.StatusCode((await readiness.CheckAsync(cancellationToken)).IsReady ? StatusCodes.Status200OK : StatusCodes.Status503ServiceUnavailable))
            .AllowAnonymous().DisableRateLimiting().ExcludeFromDescription();
        app.MapGet("/health/live", () => TypedResults.Ok(new Alive("alive"))).AllowAnonymous().DisableRateLimiting()
            .WithTags("Health").WithName("health.live").WithSummary("The process answers.").Produces<Alive>();
        app.MapGet("/health/ready", async (HttpContext context, Readiness readiness, CancellationToken cancellationToken) =>
        {
            var report = await readiness.CheckAsync(cancellationToken);
            if (!context.Items.ContainsKey(TellsAll))
            {
                report = report.InOwnWords();
            }
            return TypedResults.Json(report, statusCode: report.IsReady ? StatusCodes.Status200OK : StatusCodes.Status503ServiceUnavailable);
        }).AllowAnonymous().DisableRateLimiting().WithTags("Health").WithName("health.ready")
            .WithSummary("Whether this process can do its work, and if not, every cause.").Produces<ReadinessReport>().Produces<ReadinessReport>(503);
        app.MapPrometheusScrapingEndpoint("/metrics").AllowAnonymous().DisableRateLimiting();
    }

    internal sealed record Alive(string Status);
}

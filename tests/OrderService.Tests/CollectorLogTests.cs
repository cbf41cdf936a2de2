using System.Diagnostics;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Configuration;
using OrderService.Tests.Infrastructure;
using Serilog.Events;
using Serilog.Parsing;

namespace OrderService.Tests;

/// <summary>The way of a line to the collector: what waits has an end, what is lost is counted, and a collector that comes back gets what waited.</summary>
public sealed class CollectorLogTests
{
    [Theory]
    [InlineData("http/protobuf")]
    [InlineData("grpc")]
    public async Task Lines_wait_for_a_collector_that_hangs_up_to_a_number_and_come_once_when_it_is_back(string protocol)
    {
        await using var collector = await FakeCollector.StartAsync();
        collector.Hangs = true;
        using var log = Log(collector, protocol, timeout: "500");
        for (var number = 0; number < 6000; number++)
        {
            log.Emit(Line($"{number}"));
        }
        Assert.Equal(1000, log.Lost);
        Assert.True(log.IsBehind);

        await Eventually.TrueAsync(() => collector.LogRequests > 0);
        collector.Hangs = false;

        await Eventually.TrueAsync(() => !log.IsBehind && collector.Lines.Count == 5000);
        Assert.Equal(Enumerable.Range(0, 5000).Select(number => $"Line {number}"), collector.Lines.Select(line => line.Text));
        // There is room again.
        log.Emit(Line("6000"));
        await Eventually.TrueAsync(() => collector.Lines.Count == 5001);
        Assert.Equal(1000, log.Lost);
    }

    [Fact]
    public async Task Lines_wait_up_to_a_number_of_bytes_and_one_that_is_too_large_is_left_out()
    {
        await using var collector = await FakeCollector.StartAsync();
        collector.Hangs = true;
        using var log = Log(collector, "http/protobuf");
        log.Emit(Line(new string('x', 20_000)));
        Assert.Equal(1, log.Lost);

        for (var number = 0; number < 1000; number++)
        {
            log.Emit(Line(new string('x', 10_000)));
        }

        Assert.InRange(log.Lost, 750, 850);
    }

    [Fact]
    public async Task What_the_collector_refuses_is_counted_and_not_brought_again()
    {
        await using var collector = await FakeCollector.StartAsync();
        collector.Status = StatusCodes.Status400BadRequest;
        using var log = Log(collector, "http/protobuf");
        log.Emit(Line("1"));

        await Eventually.TrueAsync(() => log.Lost == 1);
        collector.Status = StatusCodes.Status200OK;
        log.Emit(Line("2"));
        await Eventually.TrueAsync(() => collector.Lines.Count == 1);

        Assert.Equal("Line 2", collector.Lines.Single().Text);
        Assert.Equal(2, collector.LogRequests);
        Assert.False(log.IsBehind);
    }

    [Theory]
    [InlineData("http/protobuf")]
    [InlineData("grpc")]
    public async Task A_stop_gives_a_collector_that_hangs_two_seconds(string protocol)
    {
        await using var collector = await FakeCollector.StartAsync();
        collector.Hangs = true;
        var log = Log(collector, protocol);
        for (var number = 0; number < 1000; number++)
        {
            log.Emit(Line($"{number}"));
        }
        await Eventually.TrueAsync(() => collector.LogRequests > 0);

        var stop = Stopwatch.StartNew();
        await Task.Run(log.Dispose, TestContext.Current.CancellationToken).WaitAsync(TimeSpan.FromSeconds(10), TestContext.Current.CancellationToken);

        Assert.True(stop.Elapsed > TimeSpan.FromSeconds(1), $"The stop took {stop.Elapsed}: nobody waited for the collector.");
        Assert.Equal(1000, log.Lost);
    }

    [Theory]
    [InlineData("OTEL_LOGS_EXPORTER", "none")]
    [InlineData("OTEL_SDK_DISABLED", "true")]
    [InlineData("OTEL_EXPORTER_OTLP_ENDPOINT", "")]
    public void There_is_no_way_where_none_is_wanted(string key, string value) =>
        Assert.Null(CollectorAddress.Read(Settings(new() { ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://c:4317", [key] = value })));

    [Fact]
    public void The_variables_of_logs_come_before_those_of_all_signals()
    {
        var all = CollectorAddress.Read(Settings(new()
        {
            ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://c:4318/",
            ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf",
            ["OTEL_EXPORTER_OTLP_HEADERS"] = "a=1,b=x%2Cy",
            ["OTEL_EXPORTER_OTLP_TIMEOUT"] = "3000",
        }))!;
        Assert.Equal(("http://c:4318/v1/logs", false, TimeSpan.FromSeconds(3)), (all.Endpoint, all.IsGrpc, all.Timeout));
        Assert.Equal([new("a", "1"), new("b", "x,y")], all.Headers);

        var own = CollectorAddress.Read(Settings(new()
        {
            ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://c:4317",
            ["OTEL_EXPORTER_OTLP_HEADERS"] = "a=1",
            ["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"] = "http://logs/in",
            ["OTEL_EXPORTER_OTLP_LOGS_PROTOCOL"] = "http/protobuf",
            ["OTEL_EXPORTER_OTLP_LOGS_HEADERS"] = "c=3",
        }))!;
        Assert.Equal(("http://logs/in", false), (own.Endpoint, own.IsGrpc));
        Assert.Equal([new("c", "3")], own.Headers);

        var ours = CollectorAddress.Read(Settings(new() { ["OpenTelemetry:OtlpEndpoint"] = "http://c:4317" }))!;
        Assert.Equal(("http://c:4317", true), (ours.Endpoint, ours.IsGrpc));
    }

    [Fact]
    public void A_header_that_can_not_be_sent_is_one_sentence_without_its_value()
    {
        var thrown = Assert.Throws<LogSettingsException>(() => CollectorLog.Of(Settings(new() { ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://c:4317", ["OTEL_EXPORTER_OTLP_HEADERS"] = "a b=secret" })));

        Assert.StartsWith("OTEL_EXPORTER_OTLP_HEADERS", thrown.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("secret", thrown.Message, StringComparison.Ordinal);
    }

    private static CollectorLog Log(FakeCollector collector, string protocol, string timeout = "10000") => CollectorLog.Of(Settings(new()
    {
        ["OTEL_EXPORTER_OTLP_ENDPOINT"] = protocol == "grpc" ? collector.GrpcUrl : collector.Url,
        ["OTEL_EXPORTER_OTLP_PROTOCOL"] = protocol,
        ["OTEL_EXPORTER_OTLP_TIMEOUT"] = timeout,
    }))!;

    private static IConfiguration Settings(Dictionary<string, string?> settings) => new ConfigurationBuilder().AddInMemoryCollection(settings).Build();

    private static LogEvent Line(string text) => new(
        TimeProvider.System.GetUtcNow(), LogEventLevel.Information, null, new MessageTemplateParser().Parse("Line {Text:l}"), [new LogEventProperty("Text", new ScalarValue(text))]);
}

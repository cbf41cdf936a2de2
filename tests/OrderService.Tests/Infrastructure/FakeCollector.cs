using System.Collections.Concurrent;
using System.Net;
using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.Logging;

namespace OrderService.Tests.Infrastructure;

/// <summary>A span as a collector gets it; ids in hex.</summary>
/// <param name="Resource">Who sent it.</param>
public sealed record CollectedSpan(string Name, string TraceId, string SpanId, string ParentId, IReadOnlyDictionary<string, string> Resource);

/// <summary>A log line as a collector gets it; ids in hex, empty where it has none.</summary>
public sealed record CollectedLine(
    string Category, string Severity, string Text, string TraceId, string SpanId, IReadOnlyDictionary<string, string> Attributes, IReadOnlyDictionary<string, string> Resource);

/// <summary>A collector on loopback that takes OTLP over HTTP and over gRPC, and keeps spans and log lines.</summary>
public sealed class FakeCollector : IAsyncDisposable
{
    private readonly WebApplication app;
    private readonly ConcurrentQueue<CollectedSpan> spans = new();

    private readonly ConcurrentQueue<CollectedLine> lines = new();
    private int requests;

    private FakeCollector(WebApplication app) => this.app = app;

    public IReadOnlyList<CollectedSpan> Spans => [.. spans];

    public IReadOnlyList<CollectedLine> Lines => [.. lines];

    /// <summary>How often somebody brought log lines.</summary>
    public int LogRequests => Volatile.Read(ref requests);

    /// <summary>The header <c>authorization</c> of the last lines.</summary>
    public string? Authorization { get; private set; }

    /// <summary>Lines are taken from the wire and never answered.</summary>
    public bool Hangs { get; set; }

    /// <summary>What lines are answered over HTTP, instead of 200.</summary>
    public int Status { get; set; } = StatusCodes.Status200OK;

    public string Url => app.Urls.First();

    /// <summary>Where it speaks gRPC.</summary>
    public string GrpcUrl => app.Urls.Last();

    public static async Task<FakeCollector> StartAsync()
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.WebHost.ConfigureKestrel(server =>
        {
            server.Listen(IPAddress.Loopback, 0);
            // Without TLS nothing tells the two protocols apart.
            server.Listen(IPAddress.Loopback, 0, listen => listen.Protocols = HttpProtocols.Http2);
        });
        builder.Logging.ClearProviders();
        var collector = new FakeCollector(builder.Build());
        collector.app.MapPost("/v1/{signal}", async (string signal, HttpContext context) =>
        {
            using var body = new MemoryStream();
            await context.Request.Body.CopyToAsync(body);
            if (signal == "traces")
            {
                collector.Read(body.ToArray());
            }
            if (signal == "logs" && await collector.TakesAsync(context))
            {
                collector.ReadLines(body.ToArray());
            }
        });
        collector.app.MapPost("/opentelemetry.proto.collector.{signal}.v1.{service}/Export", async (string signal, HttpContext context) =>
        {
            using var body = new MemoryStream();
            await context.Request.Body.CopyToAsync(body);
            if (signal == "trace")
            {
                // A flag and a length come before the message.
                collector.Read(body.ToArray()[5..]);
            }
            if (signal == "logs" && await collector.TakesAsync(context))
            {
                collector.ReadLines(body.ToArray()[5..]);
            }
            context.Response.ContentType = "application/grpc";
            await context.Response.Body.WriteAsync(new byte[5]);
            context.Response.AppendTrailer("grpc-status", "0");
        });
        await collector.app.StartAsync();
        return collector;
    }

    public ValueTask DisposeAsync() => app.DisposeAsync();

    private async Task<bool> TakesAsync(HttpContext context)
    {
        Interlocked.Increment(ref requests);
        Authorization = context.Request.Headers.Authorization;
        if (Hangs)
        {
            var gone = new TaskCompletionSource();
            using var registered = context.RequestAborted.Register(gone.SetResult);
            await gone.Task;
            return false;
        }
        context.Response.StatusCode = Status;
        return Status == StatusCodes.Status200OK;
    }

    // ExportTraceServiceRequest: 1 resource_spans { 1 resource { 1 attributes }, 2 scope_spans { 2 spans { 1 trace_id, 2 span_id, 4 parent_span_id, 5 name } } }.
    private void Read(byte[] request)
    {
        foreach (var resource in Fields(request, 1))
        {
            var who = Attributes(Fields(resource, 1).First(), 1);
            foreach (var span in Fields(resource, 2).SelectMany(scope => Fields(scope, 2)))
            {
                spans.Enqueue(new CollectedSpan(Text(span, 5), Hex(span, 1), Hex(span, 2), Hex(span, 4), who));
            }
        }
    }

    // ExportLogsServiceRequest: 1 resource_logs { 1 resource, 2 scope_logs { 1 scope { 1 name }, 2 log_records { 3 severity_text, 5 body, 6 attributes, 9 trace_id, 10 span_id } } }.
    private void ReadLines(byte[] request)
    {
        foreach (var resource in Fields(request, 1))
        {
            var who = Attributes(Fields(resource, 1).First(), 1);
            foreach (var scope in Fields(resource, 2))
            {
                var category = Fields(scope, 1).Select(named => Text(named, 1)).FirstOrDefault("");
                foreach (var line in Fields(scope, 2))
                {
                    lines.Enqueue(new CollectedLine(category, Text(line, 3), Fields(line, 5).Select(body => Text(body, 1)).FirstOrDefault(""), Hex(line, 9), Hex(line, 10), Attributes(line, 6), who));
                }
            }
        }
    }

    private static string Hex(byte[] message, int field) => Convert.ToHexStringLower(Fields(message, field).FirstOrDefault() ?? []);

    private static string Text(byte[] message, int field) => Encoding.UTF8.GetString(Fields(message, field).FirstOrDefault() ?? []);

    // KeyValue: 1 key, 2 value { 1 string_value }. What is no text is left empty.
    private static Dictionary<string, string> Attributes(byte[] message, int field) =>
        Fields(message, field).ToDictionary(pair => Text(pair, 1), pair => Fields(pair, 2).Select(value => Text(value, 1)).FirstOrDefault(""), StringComparer.Ordinal);

    private static List<byte[]> Fields(byte[] message, int wanted)
    {
        var found = new List<byte[]>();
        var at = 0;
        while (at < message.Length)
        {
            var tag = Varint();
            switch (tag & 7)
            {
                case 0:
                    Varint();
                    break;
                case 1:
                    at += 8;
                    break;
                case 2:
                    var length = (int)Varint();
                    if (tag >> 3 == (ulong)wanted)
                    {
                        found.Add(message[at..(at + length)]);
                    }
                    at += length;
                    break;
                case 5:
                    at += 4;
                    break;
                default:
                    throw new FormatException($"Wire type {tag & 7}");
            }
        }
        return found;

        ulong Varint()
        {
            ulong value = 0;
            for (var shift = 0; ; shift += 7)
            {
                var next = message[at++];
                value |= (ulong)(next & 0x7F) << shift;
                if (next < 0x80)
                {
                    return value;
                }
            }
        }
    }
}

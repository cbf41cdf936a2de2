using System.Collections.Concurrent;
using System.Globalization;
using System.Net;
using System.Net.Security;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using OpenTelemetry.Resources;
using OrderService.Configuration;
using OrderService.Health;
using Serilog;
using Serilog.Configuration;
using Serilog.Core;
using Serilog.Debugging;
using Serilog.Events;
using Serilog.Sinks.OpenTelemetry;

namespace OrderService;

/// <summary>
/// The lines on their way to a collector, where OpenTelemetry's variables name one. What waits for it has an end in lines, in bytes and in time; what it
/// does not take is lost, counted (<c>orders_log_dropped_total</c>) and told on standard error. Nobody who logs waits for it.
/// </summary>
internal sealed class CollectorLog : ILogEventSink, IDisposable
{
    /// <summary>Lines that wait, as for the other sinks.</summary>
    private const int Room = 5000;

    private const long RoomInBytes = 8 * 1024 * 1024;

    /// <summary>A larger line is left out. The largest batch stays below the 4 MB that a collector takes over gRPC in almost any case.</summary>
    private const int LargestLine = 64 * 1024;

    private const int LinesInBatch = 200;

    /// <summary>How long one batch is tried. Shorter than the 100 s after which the client would end it and the library try it again, with us not knowing.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(1);

    private static readonly TimeSpan ShortPause = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan LongestPause = TimeSpan.FromSeconds(10);

    // The sizes of the lines that wait, in their order.
    private readonly ConcurrentQueue<int> waiting = new();
    private readonly CancellationTokenSource ending = new();
    private readonly CancellationTokenSource end = new();
    private readonly ILogEventSink sink;
    private long waitingLines;
    private long waitingBytes;
    private long lost;
    private volatile bool isAway;

    private CollectorLog(CollectorAddress address)
    {
        var handler = new Delivery(this, address);
        // The library also looks for spans and for resources of its own; here it turns lines into requests and batches them.
        sink = LoggerSinkConfiguration.CreateSink(to => to.OpenTelemetry(
            options =>
            {
                options.Endpoint = "";
                options.LogsEndpoint = address.Endpoint;
                options.Protocol = address.IsGrpc ? OtlpProtocol.Grpc : OtlpProtocol.HttpProtobuf;
                options.Headers = address.Headers;
                options.ResourceAttributes = address.Resource;
                options.IncludedData = IncludedData.MessageTemplateTextAttribute | IncludedData.TraceIdField | IncludedData.SpanIdField;
                options.FormatProvider = CultureInfo.InvariantCulture;
                options.HttpMessageHandler = handler;
                options.BatchingOptions.BatchSizeLimit = LinesInBatch;
                options.BatchingOptions.BufferingTimeLimit = TimeSpan.FromSeconds(1);
                // What is let in below finds room here.
                options.BatchingOptions.QueueLimit = 2 * Room;
            },
            getConfigurationVariable: null));
    }

    /// <summary>Lines that did not reach it.</summary>
    public long Lost => Interlocked.Read(ref lost);

    /// <summary>Whether more will be lost soon.</summary>
    public bool IsBehind => isAway || Interlocked.Read(ref waitingLines) > Room / 2;

    /// <summary>The way to the collector that the settings name; null where they name none, or <c>OTEL_LOGS_EXPORTER=none</c>.</summary>
    /// <exception cref="LogSettingsException">It can't be spoken to as the settings say.</exception>
    public static CollectorLog? Of(IConfiguration settings) => CollectorAddress.Read(settings) is { } address ? Of(address) : null;

    private static CollectorLog Of(CollectorAddress address)
    {
        try
        {
            return new CollectorLog(address);
        }
        catch (Exception exception) when (exception is FormatException or ArgumentException or InvalidOperationException)
        {
            // The library's sentence may quote a header, which holds a credential.
            throw new LogSettingsException(["OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_ENDPOINT: log lines can't be sent with them to a collector."]);
        }
    }

    public void Emit(LogEvent logEvent)
    {
        var size = Size(logEvent);
        if (size > LargestLine || Interlocked.Read(ref waitingLines) >= Room || Interlocked.Read(ref waitingBytes) + size > RoomInBytes)
        {
            Interlocked.Increment(ref lost);
            return;
        }
        Interlocked.Increment(ref waitingLines);
        Interlocked.Add(ref waitingBytes, size);
        waiting.Enqueue(size);
        sink.Emit(logEvent);
    }

    public void Dispose()
    {
        ending.Cancel();
        end.CancelAfter(ServiceLog.FlushTimeout);
        (sink as IDisposable)?.Dispose();
    }

    /// <summary>About what it takes in memory and on the wire.</summary>
    private static int Size(LogEvent logEvent)
    {
        var characters = logEvent.MessageTemplate.Text.Length;
        foreach (var (name, value) in logEvent.Properties)
        {
            // Once by itself and once in the message.
            characters += name.Length + 2 * (value is ScalarValue { Value: var scalar } ? (scalar as string)?.Length ?? 16 : value.ToString().Length);
        }
        return 200 + 2 * (characters + (logEvent.Exception?.ToString().Length ?? 0));
    }

    private void Over(int lines, string? reason)
    {
        for (var line = 0; line < lines && waiting.TryDequeue(out var size); line++)
        {
            Interlocked.Decrement(ref waitingLines);
            Interlocked.Add(ref waitingBytes, -size);
        }
        isAway = reason is not null;
        if (reason is not null)
        {
            Interlocked.Add(ref lost, lines);
            SelfLog.WriteLine("{0} lines did not reach the collector: {1}", lines, reason);
        }
    }

    /// <summary>
    /// Sends one batch until it is taken or given up. To the library each of them is taken: what it would do with one that is not, try it again or throw
    /// away all that wait, can be neither bounded nor counted.
    /// </summary>
    private sealed class Delivery(CollectorLog log, CollectorAddress address) : DelegatingHandler(address.Handler())
    {
        // Of a gRPC message, a flag and a length.
        private const int GrpcPrefix = 5;

        protected override async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
        {
            var body = await request.Content!.ReadAsByteArrayAsync(cancellationToken);
            var reason = await TryAsync(request, body);
            // ExportLogsServiceRequest: 1 resource_logs { 2 scope_logs { 2 log_records } }.
            log.Over(Count(body.AsSpan(address.IsGrpc ? GrpcPrefix : 0), [1, 2, 2]), reason);
            var taken = new HttpResponseMessage(HttpStatusCode.OK) { RequestMessage = request, Version = request.Version, Content = new ByteArrayContent(new byte[address.IsGrpc ? GrpcPrefix : 0]) };
            if (address.IsGrpc)
            {
                taken.Content.Headers.ContentType = new("application/grpc");
                taken.TrailingHeaders.Add("grpc-status", "0");
            }
            return taken;
        }

        /// <summary>Why it was given up; null when it was taken.</summary>
        private async Task<string?> TryAsync(HttpRequestMessage request, byte[] body)
        {
            var type = request.Content!.Headers.ContentType;
            var began = TimeProvider.System.GetTimestamp();
            for (var pause = TimeSpan.FromSeconds(1); ; pause = pause * 2 < LongestPause ? pause * 2 : LongestPause)
            {
                var left = Patience - TimeProvider.System.GetElapsedTime(began);
                string reason;
                try
                {
                    using var attempt = CancellationTokenSource.CreateLinkedTokenSource(log.end.Token);
                    attempt.CancelAfter(left < address.Timeout ? left : address.Timeout);
                    request.Content = new ByteArrayContent(body);
                    request.Content.Headers.ContentType = type;
                    using var response = await base.SendAsync(request, attempt.Token);
                    await response.Content.LoadIntoBufferAsync(64 * 1024, attempt.Token);
                    (var answer, var mayTryAgain) = address.IsGrpc ? OfGrpc(response) : OfHttp(response);
                    if (answer is null || !mayTryAgain)
                    {
                        return answer;
                    }
                    reason = answer;
                }
                catch (OperationCanceledException)
                {
                    reason = "it does not answer";
                }
                catch (Exception exception) when (exception is HttpRequestException or IOException)
                {
                    reason = exception.GetBaseException().Message;
                }
                log.isAway = true;
                if (log.end.IsCancellationRequested || TimeProvider.System.GetElapsedTime(began) + pause >= Patience)
                {
                    return reason;
                }
                await PauseAsync(pause);
            }
        }

        private async Task PauseAsync(TimeSpan pause)
        {
            try
            {
                // A stop does not wait long for the next attempt, and does not hurry a collector that is away either.
                await Task.Delay(log.ending.IsCancellationRequested ? ShortPause : pause, TimeProvider.System, log.ending.IsCancellationRequested ? log.end.Token : log.ending.Token);
            }
            catch (OperationCanceledException)
            {
                // The stop began or its time is over: the next attempt is the last but few, or is given up at once.
            }
        }

        private static (string? Reason, bool MayTryAgain) OfHttp(HttpResponseMessage response) => response.IsSuccessStatusCode
            ? (null, false)
            : (string.Create(CultureInfo.InvariantCulture, $"it answers {(int)response.StatusCode}"), response.StatusCode is HttpStatusCode.TooManyRequests or HttpStatusCode.BadGateway or HttpStatusCode.ServiceUnavailable or HttpStatusCode.GatewayTimeout);

        private static (string? Reason, bool MayTryAgain) OfGrpc(HttpResponseMessage response)
        {
            if (!response.IsSuccessStatusCode)
            {
                return OfHttp(response);
            }
            var status = response.TrailingHeaders.TryGetValues("grpc-status", out var values) || response.Headers.TryGetValues("grpc-status", out values) ? values.First() : "none";
            // What the protocol's specification calls retryable.
            return status == "0" ? (null, false) : ($"it answers the gRPC status {status}", status is "1" or "4" or "8" or "10" or "11" or "14" or "15");
        }

        private static int Count(ReadOnlySpan<byte> message, ReadOnlySpan<int> path)
        {
            var found = 0;
            while (message.Length > 0)
            {
                var tag = Varint(ref message);
                switch (tag & 7)
                {
                    case 0:
                        Varint(ref message);
                        break;
                    case 1:
                        message = message[8..];
                        break;
                    case 2:
                        var length = (int)Varint(ref message);
                        if (tag >> 3 == (ulong)path[0])
                        {
                            found += path.Length == 1 ? 1 : Count(message[..length], path[1..]);
                        }
                        message = message[length..];
                        break;
                    default:
                        message = message[4..];
                        break;
                }
            }
            return found;

            static ulong Varint(ref ReadOnlySpan<byte> from)
            {
                ulong value = 0;
                for (var shift = 0; ; shift += 7)
                {
                    var next = from[0];
                    from = from[1..];
                    value |= (ulong)(next & 0x7F) << shift;
                    if (next < 0x80)
                    {
                        return value;
                    }
                }
            }
        }
    }
}

/// <summary>Where lines go and with what, as OpenTelemetry's variables say it: those of logs alone come before those of all signals.</summary>
internal sealed record CollectorAddress(
    string Endpoint, bool IsGrpc, Dictionary<string, string> Headers, TimeSpan Timeout, Dictionary<string, object> Resource, Func<HttpMessageHandler> Handler)
{
    public static CollectorAddress? Read(IConfiguration settings)
    {
        var own = settings["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"] is { Length: > 0 } ofLogs ? ofLogs : null;
        var isOff = "none".Equals(settings["OTEL_LOGS_EXPORTER"]?.Trim(), StringComparison.OrdinalIgnoreCase) || "true".Equals(settings["OTEL_SDK_DISABLED"]?.Trim(), StringComparison.OrdinalIgnoreCase);
        if (isOff || (own ?? CollectorSettings.Address(settings)) is not { } endpoint)
        {
            return null;
        }
        // The library's default, as for traces and metrics.
        var isGrpc = !"http/protobuf".Equals(Value("PROTOCOL")?.Trim(), StringComparison.OrdinalIgnoreCase);
        var timeout = TimeSpan.FromMilliseconds(int.TryParse(Value("TIMEOUT"), NumberStyles.None, CultureInfo.InvariantCulture, out var given) && given > 0 ? given : 10_000);
        // An address of logs alone is taken as it is.
        return new(
            isGrpc || own is not null ? endpoint : $"{endpoint.TrimEnd('/')}/v1/logs", isGrpc, Pairs(Value("HEADERS")).ToDictionary(StringComparer.OrdinalIgnoreCase), timeout,
            HealthSetup.Describe(ResourceBuilder.CreateEmpty().AddTelemetrySdk().AddAttributes(Pairs(settings["OTEL_RESOURCE_ATTRIBUTES"]).Select(pair => KeyValuePair.Create(pair.Key, (object)pair.Value))), settings)
                .Build().Attributes.ToDictionary(),
            () => Client(Value("CERTIFICATE"), Value("CLIENT_CERTIFICATE"), Value("CLIENT_KEY"), timeout));

        string? Value(string name) => settings[$"OTEL_EXPORTER_OTLP_LOGS_{name}"] is { Length: > 0 } value ? value : settings[$"OTEL_EXPORTER_OTLP_{name}"] is { Length: > 0 } general ? general : null;
    }

    // A later one of the same name wins.
    private static IEnumerable<KeyValuePair<string, string>> Pairs(string? text) => (text ?? "").Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)
        .Select(pair => pair.Split('=', 2, StringSplitOptions.TrimEntries)).Where(pair => pair.Length == 2)
        .Select(pair => KeyValuePair.Create(Uri.UnescapeDataString(pair[0]), Uri.UnescapeDataString(pair[1])))
        .GroupBy(pair => pair.Key, StringComparer.OrdinalIgnoreCase).Select(same => same.Last());

    private static SocketsHttpHandler Client(string? authorities, string? certificate, string? key, TimeSpan timeout)
    {
        var tls = new SslClientAuthenticationOptions();
        try
        {
            if (authorities is not null)
            {
                tls.CertificateChainPolicy = new X509ChainPolicy { TrustMode = X509ChainTrustMode.CustomRootTrust, RevocationMode = X509RevocationMode.NoCheck };
                tls.CertificateChainPolicy.CustomTrustStore.ImportFromPemFile(authorities);
            }
            if (certificate is not null)
            {
                tls.ClientCertificates = [X509Certificate2.CreateFromPemFile(certificate, key)];
            }
        }
        catch (Exception exception) when (exception is CryptographicException or IOException or UnauthorizedAccessException)
        {
            throw new LogSettingsException([$"OTEL_EXPORTER_OTLP_CERTIFICATE, OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: can't be used: {exception.Message}"]);
        }
        // No trace of its own: a batch holds the lines of many.
        return new() { AllowAutoRedirect = false, ActivityHeadersPropagator = null, SslOptions = tls, ConnectCallback = EveryAddress.ForHttp(null, timeout) };
    }
}

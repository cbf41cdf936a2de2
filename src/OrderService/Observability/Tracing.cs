using System.Diagnostics;
using System.Text;

namespace OrderService.Observability;

/// <summary>The service's own spans. The broker's client adds its <c>RabbitMQ.Client.*</c> sources.</summary>
public static class Tracing
{
    public const string SourceName = "OrderService";

    public static readonly ActivitySource Source = new(SourceName);

    /// <summary>
    /// Makes every HTTP request have a trace id, whether or not anybody collects spans: it is what connects a request with its events and log lines.
    /// </summary>
    public static ActivityListener PropagateRequests()
    {
        var listener = new ActivityListener
        {
            ShouldListenTo = source => source.Name == "Microsoft.AspNetCore",
            Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.PropagationData,
        };
        ActivitySource.AddActivityListener(listener);
        return listener;
    }

    /// <summary>Whether spans are collected. Where they are not, a trace context is handed on as it came: nobody would ever see a span of ours.</summary>
    public static bool IsCollected => Source.HasListeners();

    /// <summary>Starts the span of one publish as a child of the context in the message's <paramref name="headers"/>; null when nobody listens.</summary>
    /// <param name="to">The exchange, or the queue behind the default exchange.</param>
    public static Activity? StartSend(string to, IReadOnlyDictionary<string, object?>? headers)
    {
        if (!IsCollected)
        {
            return null;
        }
        _ = ActivityContext.TryParse(Text("traceparent"), Text("tracestate"), isRemote: true, out var parent);
        var activity = Source.StartActivity($"send {to}", ActivityKind.Internal, parent);
        activity?.SetTag("messaging.system", "rabbitmq");
        activity?.SetTag("messaging.destination.name", to);
        return activity;

        string? Text(string name) => headers is not null && headers.TryGetValue(name, out var value)
            ? value switch { string text => text, byte[] bytes => Encoding.ASCII.GetString(bytes), _ => null }
            : null;
    }

    /// <summary>
    /// Starts the span of one processed delivery as a child of the producer's <paramref name="traceparent"/>; null when nobody listens.
    /// End it before the delivery is settled: the client writes tags of its own on whatever span is current while it acks.
    /// </summary>
    public static Activity? StartProcess(string queue, string? traceparent, string? tracestate = null)
    {
        _ = ActivityContext.TryParse(traceparent, tracestate, isRemote: true, out var parent);
        var activity = Source.StartActivity($"process {queue}", ActivityKind.Consumer, parent);
        activity?.SetTag("messaging.system", "rabbitmq");
        activity?.SetTag("messaging.operation.name", "process");
        activity?.SetTag("messaging.operation.type", "process");
        activity?.SetTag("messaging.destination.name", queue);
        return activity;
    }

    [ThreadStatic]
    private static ActivityContext ofLines;

    /// <summary>The trace of the message that this thread is writing log lines about, see <see cref="LinesOf"/>.</summary>
    public static ActivityContext OfLines => ofLines;

    /// <summary>Lines that this thread writes until the answer is disposed of are of <paramref name="trace"/>.</summary>
    public static LinesOfOne LinesOf(ActivityContext trace)
    {
        ofLines = trace;
        return default;
    }

    public static ActivityContext Parse(string? traceparent) => ActivityContext.TryParse(traceparent, null, isRemote: true, out var context) ? context : default;

    /// <summary>Ends with <c>using</c>, on the thread that began.</summary>
    public readonly ref struct LinesOfOne
    {
        // Not static: an end without a beginning makes no sense.
        public void Dispose() => ofLines = default;
    }
}

namespace OrderService.Store;

/// <summary>The column <c>traceparent</c>: a trace parent as W3C has it and, where there is one, a blank and the trace state. Neither begins with a blank, and the first holds none.</summary>
public static class TraceText
{
    public static string? Join(string? parent, string? state) => parent is null || string.IsNullOrEmpty(state) ? parent : $"{parent} {state}";

    public static string? Parent(string? context) => context?.IndexOf(' ', StringComparison.Ordinal) is >= 0 and var end ? context[..end] : context;

    public static string? State(string? context) => context?.IndexOf(' ', StringComparison.Ordinal) is >= 0 and var end ? context[(end + 1)..] : null;

    /// <summary>The two as headers of a message; null where there is no context.</summary>
    public static Dictionary<string, TValue>? Headers<TValue>(string? context) where TValue : class?
    {
        if (Parent(context) is not { } parent)
        {
            return null;
        }
        var headers = new Dictionary<string, TValue> { ["traceparent"] = (TValue)(object)parent };
        if (State(context) is { } state)
        {
            headers["tracestate"] = (TValue)(object)state;
        }
        return headers;
    }
}

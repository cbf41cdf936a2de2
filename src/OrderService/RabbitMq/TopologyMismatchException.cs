namespace OrderService.RabbitMq;

/// <summary>A queue or exchange exists, but not as it is wanted. The message is one sentence for the operator.</summary>
public sealed class TopologyMismatchException(TopologyDifference difference) : Exception(difference.Sentence)
{
    public TopologyDifference Difference { get; } = difference;
}

/// <summary>One argument of a queue or exchange that is not as it is wanted.</summary>
/// <param name="Kind"><c>queue</c>, <c>exchange</c> or <c>binding</c>.</param>
/// <param name="Argument">
/// For instance <c>x-delivery-limit</c>; or <c>existence</c> when the thing is missing, <c>plugin</c> when the broker can't have it, <c>consumers</c> when nobody takes its messages.
/// </param>
/// <param name="Actual">What the broker has; <c>none</c> when it has nothing.</param>
/// <param name="Command">What to run to mend it.</param>
public sealed record TopologyDifference(string Kind, string Name, string Argument, string Actual, string Wanted, string Command)
{
    public string Sentence => Argument switch
    {
        "existence" => $"The {Kind} '{Name}' does not exist; run: {Command}",
        "plugin" => $"The {Kind} '{Name}' needs the broker's plugin {Wanted}, which is not enabled; run on every node: {Command} (or set RabbitMq__Partitions=0)",
        "consumers" => $"The {Kind} '{Name}' holds {Actual} messages that nobody consumes, because RabbitMq:Partitions was lowered; {Command}",
        _ => $"The {Kind} '{Name}' exists with {Argument} {Shown(Actual)}, but {Shown(Wanted)} is wanted; {(Kind == "queue" ? "once it is empty, " : "")}run: {Command}",
    };

    private static string Shown(string value) => value.Length == 0 ? "''" : value;
}

namespace OrderService.RabbitMq;

/// <summary>A queue or exchange exists, but not as it is wanted. The message is one sentence for the operator.</summary>
public sealed class TopologyMismatchException(TopologyDifference difference) : Exception(difference.Sentence)
{
    public TopologyDifference Difference { get; } = difference;
}

/// <summary>One argument of a queue or exchange that is not as it is wanted.</summary>
/// <param name="Kind"><c>queue</c>, <c>exchange</c> or <c>binding</c>.</param>
/// <param name="Argument">For instance <c>x-delivery-limit</c>, or <c>existence</c> when the thing is missing.</param>
/// <param name="Actual">What the broker has; <c>none</c> when it has nothing.</param>
/// <param name="Command">What to run to mend it.</param>
public sealed record TopologyDifference(string Kind, string Name, string Argument, string Actual, string Wanted, string Command)
{
    public string Sentence => Argument == "existence"
        ? $"The {Kind} '{Name}' does not exist; run: {Command}"
        : $"The {Kind} '{Name}' exists with {Argument} {Shown(Actual)}, but {Shown(Wanted)} is wanted; run: {Command}";

    private static string Shown(string value) => value.Length == 0 ? "''" : value;
}

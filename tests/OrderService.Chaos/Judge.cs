using System.Text.Json;

namespace OrderService.Chaos;

/// <summary>A promise that was broken, with the message's story.</summary>
internal sealed record Violation(string Promise, string Story);

/// <summary>Judges each message by what its producer, a subscriber and the HTTP API know.</summary>
internal static class Judge
{
    /// <summary>Every message that was confirmed ended once: its event came out, or it is a dead letter; never both, never neither. One that is unknown ended at most once.</summary>
    public static List<Violation> Conservation(IEnumerable<SentMessage> sent, IEnumerable<HeardEvent> heard, IEnumerable<JsonElement> letters)
    {
        var violations = new List<Violation>();
        var effects = heard.Where(known => known.Cause is not null).GroupBy(known => known.Cause!).ToDictionary(group => group.Key, group => group.Select(one => one.Id).ToHashSet());
        var dead = letters.GroupBy(letter => letter.GetProperty("key").GetString()!).ToDictionary(group => group.Key, group => group.ToList());
        var known = new HashSet<string>();
        foreach (var message in sent)
        {
            known.Add(message.Key);
            var took = effects.GetValueOrDefault(message.Key)?.Count ?? 0;
            var letter = dead.GetValueOrDefault(message.Key);
            var story = $"{message.Key} ({message.Outcome}): {took} effects, {letter?.Count ?? 0} letters {letter?[0].GetRawText()}";
            if (took > 0 && letter is not null)
            {
                violations.Add(new Violation("never both", story));
            }
            else if (took == 0 && letter is null && message.Outcome == Sending.Confirmed)
            {
                violations.Add(new Violation("never neither", story));
            }
            else if (took > 1)
            {
                violations.Add(new Violation("once", story));
            }
            else if (letter is not null && message.IsGood)
            {
                violations.Add(new Violation("no innocent message is a dead letter", story));
            }
            else if (took > 0 && !message.IsGood)
            {
                violations.Add(new Violation("a broken message has no effect", story));
            }
        }
        violations.AddRange(effects.Keys.Where(cause => !known.Contains(cause)).Select(cause => new Violation("no ghosts", $"an event says it was caused by {cause}, which nobody sent")));
        return violations;
    }

    /// <summary>The first occurrences of an order's events came in the order of their sequence, without a gap.</summary>
    public static List<Violation> Order(IEnumerable<HeardEvent> heard)
    {
        var violations = new List<Violation>();
        var last = new Dictionary<string, long>();
        var seen = new HashSet<string>();
        foreach (var one in heard.Where(one => one.Sequence is not null && seen.Add(one.Id)))
        {
            var before = last.GetValueOrDefault(one.OrderId);
            if (one.Sequence != before + 1)
            {
                violations.Add(new Violation("order of first occurrences", $"{one.Id} of order {one.OrderId} came after sequence {before}"));
            }
            last[one.OrderId] = one.Sequence!.Value;
        }
        return violations;
    }

    /// <summary>How many of what was heard are copies of what was heard before.</summary>
    public static int Copies(IReadOnlyCollection<HeardEvent> heard) => heard.Count - heard.Select(one => one.Id).Distinct().Count();
}

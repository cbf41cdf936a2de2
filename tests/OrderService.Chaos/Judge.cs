using System.Globalization;
using System.Text.Json;

namespace OrderService.Chaos;

/// <summary>A promise that was broken, with the message's story.</summary>
internal sealed record Violation(string Promise, string Story);

/// <summary>
/// Judges each message by what its producer, a subscriber, an alert's receiver and the HTTP API know. Each method judges one promise of
/// docs/chaos.md and returns what broke it.
/// </summary>
internal static class Judge
{
    /// <summary>With messages ready, nothing coming out and health green, for this long, health lies.</summary>
    private static readonly TimeSpan Silence = TimeSpan.FromSeconds(30);

    /// <summary>
    /// Every message that was confirmed ended once: its events came out, or it is a dead letter; never both, never neither. One of unknown outcome
    /// ended at most once. Copies are one message.
    /// </summary>
    public static List<Violation> Conservation(IEnumerable<SentMessage> sent, IEnumerable<HeardEvent> heard, IEnumerable<JsonElement> letters)
    {
        var messages = sent.ToList();
        var violations = new List<Violation>();
        var effects = heard.Where(one => one.Cause is not null).GroupBy(one => one.Cause!)
            .ToDictionary(group => group.Key, group => group.Select(one => one.Id).ToHashSet());
        var dead = letters.Where(letter => Status(letter) != "superseded").GroupBy(Key).ToDictionary(group => group.Key, group => group.ToList());
        var unplaced = OrdersNotSurelyPlaced(messages);
        var known = new HashSet<string>();
        foreach (var group in messages.GroupBy(message => message.Key))
        {
            known.Add(group.Key);
            var took = effects.GetValueOrDefault(group.Key)?.Count ?? 0;
            var ends = dead.GetValueOrDefault(group.Key) ?? [];
            var story = $"{string.Join(", ", group)}: {took} events, {ends.Count} letters {(ends.Count > 0 ? ends[0].GetRawText() : "")}";
            var bodies = group.DistinctBy(message => Convert.ToHexString(message.Body)).ToList();
            if (bodies.Count > 1)
            {
                violations.AddRange(Clash(bodies, took, ends).Select(promise => new Violation(promise, story)));
                continue;
            }
            var message = group.First();
            var confirmed = group.Any(copy => copy.Outcome == Sending.Confirmed);
            var mayWait = message.Type != "order.place" && unplaced.Contains(message.OrderId);
            if (took > 0 && ends.Count > 0)
            {
                violations.Add(new Violation("never both", story));
            }
            else if (took == 0 && ends.Count == 0 && confirmed && !mayWait)
            {
                violations.Add(new Violation("never neither", story));
            }
            else if (ends.Count > 1)
            {
                violations.Add(new Violation("one dead letter", story));
            }
            else if (ends.Count > 0 && message.IsGood && !(mayWait && Reason(ends[0]) == "order_unknown"))
            {
                violations.Add(new Violation("no innocent message is a dead letter", story));
            }
            else if (took > 0 && !message.IsGood)
            {
                violations.Add(new Violation("a broken message has no effect", story));
            }
            else if (ends.Count > 0 && !message.IsGood && Reason(ends[0]) != message.Reason)
            {
                violations.Add(new Violation("the reason is the documented one", story));
            }
        }
        violations.AddRange(effects.Keys.Where(cause => !known.Contains(cause))
            .Select(cause => new Violation("no ghosts", $"an event says it was caused by {cause}, which nobody sent")));
        violations.AddRange(dead.Keys.Where(key => !known.Contains(key))
            .Select(key => new Violation("no ghosts", $"a dead letter has the key {key}, which nobody sent")));
        return violations;
    }

    /// <summary>Orders whose <c>order.place</c> may never have arrived: their other commands may wait for it.</summary>
    public static HashSet<string> OrdersNotSurelyPlaced(IEnumerable<SentMessage> sent) =>
    [
        .. sent.GroupBy(message => message.OrderId)
            .Where(order => !order.Any(message => message is { Type: "order.place", IsGood: true, Outcome: Sending.Confirmed }))
            .Select(order => order.Key),
    ];

    /// <summary>One message is one decision: its events lie side by side in one stream, each type once.</summary>
    public static List<Violation> OneDecision(IEnumerable<HeardEvent> heard)
    {
        var violations = new List<Violation>();
        foreach (var cause in heard.Where(one => one.Cause is not null).DistinctBy(one => one.Id).GroupBy(one => one.Cause!))
        {
            var events = cause.OrderBy(one => one.Sequence).ToList();
            var sequences = events.Where(one => one.Sequence is not null).Select(one => one.Sequence!.Value).ToList();
            if (events.Select(one => one.Type).Distinct().Count() != events.Count || events.Select(one => one.OrderId).Distinct().Count() > 1
                || (sequences.Count > 0 && sequences[^1] - sequences[0] != sequences.Count - 1))
            {
                var all = string.Join(", ", events.Select(one => $"{one.Type} {one.OrderId} {one.Sequence} {one.Id}"));
                violations.Add(new Violation("one message is one decision", $"{cause.Key} caused {all}"));
            }
        }
        return violations;
    }

    /// <summary>A dead letter has the bytes that were sent.</summary>
    public static List<Violation> Bytes(IEnumerable<SentMessage> sent, IEnumerable<JsonElement> letters, Dictionary<long, byte[]> bodies)
    {
        var byKey = sent.ToLookup(message => message.Key);
        return [.. letters
            .Where(letter => !byKey[Key(letter)].Any(message => message.Body.AsSpan().SequenceEqual(bodies[Id(letter)])))
            .Select(letter => new Violation("bytes are kept", letter.GetRawText()))];
    }

    /// <summary>Every stored event came out, nothing came out that is not stored, and copies are the same byte for byte.</summary>
    public static List<Violation> Complete(IReadOnlyCollection<HeardEvent> heard, IEnumerable<JsonElement> stored)
    {
        var violations = new List<Violation>();
        var ids = stored.Select(one => one.GetProperty("id").GetString()!).ToHashSet();
        var came = heard.Select(one => one.Id).ToHashSet();
        violations.AddRange(ids.Where(id => !came.Contains(id))
            .Select(id => new Violation("every event comes out", $"{id} is in GET /api/events and never came out")));
        violations.AddRange(heard.Where(one => one.Sequence is not null && !ids.Contains(one.Id))
            .Select(one => new Violation("no ghosts", $"{one.Id} of order {one.OrderId} came out and is not in GET /api/events")));
        violations.AddRange(heard.GroupBy(one => one.Id).Where(copies => copies.Select(copy => copy.Hash).Distinct().Count() > 1)
            .Select(copies => new Violation("copies are the same byte for byte", $"{copies.Key} came out with different bytes")));
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

    /// <summary>One relay at a time publishes an order's first occurrences: their epochs never fall. Builds before November 2026 told none.</summary>
    public static List<Violation> Epochs(IEnumerable<HeardEvent> heard)
    {
        var violations = new List<Violation>();
        var last = new Dictionary<string, long>();
        var seen = new HashSet<string>();
        foreach (var one in heard.Where(one => one.Sequence is not null && seen.Add(one.Id)))
        {
            if (one.Epoch is not { } epoch)
            {
                if (last.Count > 0)
                {
                    violations.Add(new Violation("events carry x-relay-epoch", one.Id));
                }
                continue;
            }
            if (epoch < last.GetValueOrDefault(one.OrderId))
            {
                violations.Add(new Violation("one relay at a time", $"{one.Id} of order {one.OrderId} came with epoch {epoch} after {last[one.OrderId]}"));
            }
            last[one.OrderId] = epoch;
        }
        if (last.Count == 0)
        {
            violations.Add(new Violation("events carry x-relay-epoch", "no event had one"));
        }
        return violations;
    }

    /// <summary>Each stream is 1, 2, 3, ..., and an order's status is what its events say.</summary>
    public static List<Violation> Streams(IEnumerable<JsonElement> stored, IEnumerable<JsonElement> orders)
    {
        var violations = new List<Violation>();
        var streams = stored.GroupBy(Order).ToDictionary(group => group.Key, group => group.OrderBy(Version).ToList());
        foreach (var (order, events) in streams)
        {
            if (events.Select(Version).Where((version, index) => version != index + 1).Any())
            {
                violations.Add(new Violation("streams have no gap", $"{order}: {string.Join(", ", events.Select(Version))}"));
            }
        }
        var shown = orders.ToDictionary(Order, Status);
        foreach (var (order, events) in streams)
        {
            var status = events.Aggregate("none", (state, one) => Next(state, one.GetProperty("type").GetString()!));
            if (shown.GetValueOrDefault(order) != status)
            {
                violations.Add(new Violation(
                    "an order is what its events say", $"{order} is {shown.GetValueOrDefault(order) ?? "not listed"} and its events say {status}"));
            }
        }
        violations.AddRange(shown.Keys.Where(order => !streams.ContainsKey(order))
            .Select(order => new Violation("an order is what its events say", $"{order} is listed without an event")));
        return violations;
    }

    /// <summary>Each dead letter is covered by an alert that was received: named by its incident and number.</summary>
    public static List<Violation> Alerts(IEnumerable<JsonElement> letters, IEnumerable<HeardAlert> alerts)
    {
        var told = alerts
            .Where(alert => alert.Data.TryGetProperty("incidents", out _))
            .SelectMany(alert => alert.Data.GetProperty("incidents").EnumerateArray())
            .ToLookup(Incident, incident => (First: incident.GetProperty("firstLetter").GetInt64(), Last: incident.GetProperty("lastLetter").GetInt64()));
        return [.. letters
            .Where(letter => Status(letter) != "superseded")
            .Where(letter => !told[Incident(letter)].Any(range => range.First <= Id(letter) && Id(letter) <= range.Last))
            .Select(letter => new Violation("a person hears of each dead letter", letter.GetRawText()))];
    }

    /// <summary>Health is not green while orders wait and nothing comes out, and it told of the fault.</summary>
    /// <param name="fault">When the world misbehaved, for a fault that readiness must tell of.</param>
    public static List<Violation> Truth(IReadOnlyList<Sample> samples, (TimeSpan From, TimeSpan To)? fault)
    {
        var violations = new List<Violation>();
        var first = 0;
        for (var index = 1; index < samples.Count; index++)
        {
            var (start, now) = (samples[first], samples[index]);
            if (now.Heard != start.Heard || now.Ready <= 0 || now.Status != 200 || now.IsDegraded)
            {
                first = index;
            }
            else if (now.At - start.At > Silence)
            {
                violations.Add(new Violation("never green while stuck", string.Create(
                    CultureInfo.InvariantCulture,
                    $"from {start.At.TotalSeconds:0} s to {now.At.TotalSeconds:0} s nothing came out with {now.Ready} messages ready, "
                    + $"and readiness said {now.Status}: {now.Text}")));
                first = index;
            }
        }
        if (fault is { } window && !samples.Any(sample => sample.At >= window.From && sample.At <= window.To && (sample.Status != 200 || sample.IsDegraded)))
        {
            violations.Add(new Violation("readiness tells of the fault", "it was green all the time"));
        }
        return violations;
    }

    /// <summary>Keys and personal data appear in no log line, metric or alert.</summary>
    public static List<Violation> Secrets(IEnumerable<Service> services, IEnumerable<HeardAlert> alerts, string metrics)
    {
        string[] canaries = [Workload.Canary, Service.ApiKey];
        var outputs = services.Select(service => (Where: "the log", Text: service.ReadLog()))
            .Append((Where: "the metrics", Text: metrics))
            .Concat(alerts.Select(alert => (Where: "an alert", alert.Text)));
        return [.. outputs.SelectMany(output => canaries.Where(canary => output.Text.Contains(canary, StringComparison.Ordinal))
            .Select(canary => new Violation("no secret comes out", $"{canary} is in {output.Where}")))];
    }

    /// <summary>How many of what was heard are copies of what was heard before.</summary>
    public static int Copies(IReadOnlyCollection<HeardEvent> heard) => heard.Count - heard.Select(one => one.Id).Distinct().Count();

    /// <summary>One key with two bodies: one takes effect, and the other is a dead letter, whichever came first.</summary>
    private static IEnumerable<string> Clash(List<SentMessage> bodies, int events, List<JsonElement> letters)
    {
        var confirmed = bodies.Count(message => message.Outcome == Sending.Confirmed);
        if (letters.Any(letter => Reason(letter) != "key_conflict") || letters.Count > 1)
        {
            yield return "a key's second body is one key_conflict";
        }
        if (confirmed > 0 && events == 0)
        {
            yield return "never neither";
        }
        if (confirmed == bodies.Count && letters.Count == 0)
        {
            yield return "never neither";
        }
    }

    /// <summary>The state machine of the contract, section 2.</summary>
    private static string Next(string state, string type) => type switch
    {
        "ORDER_PLACED" => "placed",
        "ORDER_PAID" when state is "shipped" or "delivered" => state,
        "ORDER_PAID" => "paid",
        "ORDER_SHIPPED" => "shipped",
        "ORDER_DELIVERED" => "delivered",
        "ORDER_CANCELLED" => "cancelled",
        _ => state,
    };

    private static long Id(JsonElement letter) => letter.GetProperty("id").GetInt64();

    private static string Key(JsonElement letter) => letter.GetProperty("key").GetString()!;

    private static string Incident(JsonElement item) => item.GetProperty("fingerprint").GetString()!;

    private static string Order(JsonElement item) => item.GetProperty("orderId").GetString()!;

    private static long Version(JsonElement stored) => stored.GetProperty("version").GetInt64();

    private static string Status(JsonElement item) => item.GetProperty("status").GetString()!;

    private static string Reason(JsonElement letter) => letter.GetProperty("reason").GetString()!;
}

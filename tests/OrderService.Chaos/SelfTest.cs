using System.Globalization;

namespace OrderService.Chaos;

/// <summary>A mistake that is planted in a build with <c>PLANTED_BUGS</c>, and the fault whose trial has to find it.</summary>
/// <param name="Name">What the build knows it by.</param>
/// <param name="Fault">The fault's name.</param>
/// <param name="About">What the mistake is, in a few words.</param>
/// <param name="Instances">How many processes serve the store; more than one on PostgreSQL.</param>
/// <param name="Rounds">As for <see cref="TrialOptions"/>.</param>
internal sealed record Bug(string Name, string Fault, string About, int Instances = 1, int Rounds = 0)
{
    public static IReadOnlyList<Bug> All { get; } =
    [
        new("ack-before-commit", "killed", "an order is acknowledged when it arrives, not when it is durable"),
        new("unknown-is-sent", "resets", "an event without a confirm counts as sent"),
        new("early-command-is-forgotten", "webhook-fails", "a command that comes before its order is acknowledged and dropped"),
        new("letter-acked-before-parking", "killed", "a dead letter is acknowledged before it is parked"),
        new("letter-is-cut", "webhook-fails", "a dead letter loses its last byte"),
        new("failed-alert-is-sent", "webhook-fails", "an alert that nobody took counts as sent"),
        new("always-ready", "broker-frozen", "readiness is green whatever happens"),
        new("ack-takes-the-rest-along", "killed", "an acknowledgement covers whatever was delivered, decided or not"),
        new("sent-before-confirm", "half-open-link", "an event counts as sent before the broker has confirmed it"),
        new("nacked-is-sent", "full-subscriber", "an event that a queue refused counts as sent", Rounds: 500),
        new("refused-is-tried-at-once", "full-subscriber", "what a queue refused goes out again without a pause", Rounds: 500),
        new("copy-differs", "resets", "a copy of an event has other bytes than the first"),
        new("lease-is-ignored", "frozen", "every instance relays every stream", Instances: 3),
        new("epoch-falls", "webhook-fails", "the number of the relay falls within an order"),
        new("epoch-is-missing", "webhook-fails", "events do not carry x-relay-epoch"),
        new("event-is-not-sent", "webhook-fails", "one kind of event is stored and never comes out"),
        new("refusal-is-silent", "webhook-fails", "a refused command has no event"),
        new("cause-is-another", "webhook-fails", "an event names another message as its cause"),
        new("status-is-stale", "webhook-fails", "the list of orders shows the first status for good"),
        new("second-command-is-a-copy", "webhook-fails", "the second command of an order in one batch counts as a copy"),
        new("other-body-is-a-copy", "webhook-fails", "a known key with another body counts as a copy"),
        new("unknown-command-is-a-place", "webhook-fails", "a command that nobody knows is read as order.place"),
        new("reason-is-general", "webhook-fails", "every rejection is an internal_error"),
        new("rejected-is-acknowledged", "killed", "what is rejected is acknowledged and goes to no queue of dead letters"),
        new("letter-has-another-key", "webhook-fails", "a dead letter has a key that nobody sent"),
        new("body-is-not-copied", "webhook-fails", "a body is kept in the client's buffer, which the next one overwrites"),
        new("body-in-log", "webhook-fails", "the log shows each body"),
        new("failed-alert-is-given-up", "webhook-fails", "an alert is given up after its first failure"),
        new("digest-leaves-one-out", "webhook-fails", "a digest leaves out one incident"),
        new("degraded-is-fine", "memory-alarm", "what stands still is not said while orders are decided"),
    ];
}

/// <summary>The judge is judged: each planted bug has to be found.</summary>
internal static class SelfTest
{
    /// <summary>Tries bugs, each with its fault.</summary>
    /// <param name="tryAsync">Makes one trial with a bug planted.</param>
    /// <returns>How many were not found.</returns>
    public static async Task<int> RunAsync(IReadOnlyList<Bug> bugs, Func<Bug, Fault, Task<Verdict>> tryAsync)
    {
        var lines = new List<string>();
        var missed = 0;
        foreach (var (bug, index) in bugs.Select((bug, index) => (bug, index)))
        {
            Console.WriteLine($"== {index + 1} of {bugs.Count}: {bug.Name}: {bug.About}");
            // Each process of the service that the trial starts inherits it.
            Environment.SetEnvironmentVariable("ORDERSERVICE_PLANTED_BUG", bug.Name);
            var began = TimeProvider.System.GetTimestamp();
            var verdict = await tryAsync(bug, Fault.All.Single(fault => fault.Name == bug.Fault));
            // A trial that could not be made has found nothing.
            var broken = verdict.Violations.Select(violation => violation.Promise).Where(promise => promise != Verdict.NotMade).Distinct().ToList();
            missed += broken.Count == 0 ? 1 : 0;
            lines.Add(string.Create(
                CultureInfo.InvariantCulture,
                $"| {bug.Name} | {bug.Fault} | {(broken.Count == 0 ? "NOT FOUND" : string.Join(", ", broken))} | {TimeProvider.System.GetElapsedTime(began).TotalSeconds:0} s |"));
        }
        Console.WriteLine("| planted bug | fault | promises seen broken | found after |\n|---|---|---|---|");
        lines.ForEach(Console.WriteLine);
        return missed;
    }
}

using System.Globalization;

namespace OrderService.Chaos;

/// <summary>A mistake that is planted in a build with <c>PLANTED_BUGS</c>, and the fault whose trial has to find it.</summary>
/// <param name="Name">What the build knows it by.</param>
/// <param name="Fault">The fault's name.</param>
/// <param name="About">What the mistake is, in a few words.</param>
internal sealed record Bug(string Name, string Fault, string About)
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
    ];
}

/// <summary>The judge is judged: each planted bug has to be found.</summary>
internal static class SelfTest
{
    /// <summary>Tries each bug with its fault.</summary>
    /// <param name="tryAsync">Makes one trial with a bug planted.</param>
    /// <returns>How many were not found.</returns>
    public static async Task<int> RunAsync(Func<Fault, Task<Verdict>> tryAsync)
    {
        var lines = new List<string>();
        var missed = 0;
        foreach (var bug in Bug.All)
        {
            Console.WriteLine($"== {bug.Name}: {bug.About}");
            // Each process of the service that the trial starts inherits it.
            Environment.SetEnvironmentVariable("ORDERSERVICE_PLANTED_BUG", bug.Name);
            var began = TimeProvider.System.GetTimestamp();
            var verdict = await tryAsync(Fault.All.Single(fault => fault.Name == bug.Fault));
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

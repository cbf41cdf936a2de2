using System.Globalization;
namespace OrderService.Chaos;

/// <summary>One way in which the world misbehaves, and what must hold all the same.</summary>
/// <param name="Name">What <c>--fault</c> takes.</param>
/// <param name="Number">Its number in the catalogue of faults in docs/chaos.md; empty for one that is not there.</param>
/// <param name="About">One sentence for <c>--list</c>.</param>
internal sealed record Fault(string Name, string Number, string About, Func<World, TrialOptions, Task<Verdict>> RunAsync)
{
    public static IReadOnlyList<Fault> All { get; } =
    [
        new("kills", "F27", "The process is killed again and again while a long queue of good orders drains.", Faults.Kills.RunAsync),
        new("full-subscriber", "", "A subscriber's queue is full and refuses events, beside a healthy one.", Faults.FullSubscriber.RunAsync),
        new("large-bodies", "F31", "Bodies of 4 MiB lie between good orders, and the process has little memory.", Faults.LargeBodies.RunAsync),
        new("rejected-bodies", "F31", "Bodies of 16 MiB between good orders, and the memory of a small container.", Faults.LargeBodies.RunRejectedAsync),
        new("relay-behind-alarm", "F20", "Orders of 500 lines are decided while the broker blocks every publish, and the memory is that of a small container.", Faults.RelayBehindAlarm.RunAsync),
        new("early-commands", "", "50,000 payments wait for one order that comes late.", Faults.EarlyCommands.RunAsync),
        new("upgrade", "F36", "A store of an older build is taken over (ORDERSERVICE_CHAOS_OLDER_BINARY names it).", Faults.Upgrade.RunAsync) { Needs = Faults.Upgrade.Older },
        new("anonymous-flood", "", "A stranger holds 5,000 connections and sends 1,000 requests a second of nonsense (--rounds: for how many seconds).", Faults.AnonymousFlood.RunAsync),
        .. Faults.BrokerFaults.All,
        .. Faults.LinkFaults.All,
        .. Faults.ProcessFaults.All,
        .. Faults.StoreFaults.All,
        .. Faults.AlertFaults.All,
    ];

    /// <summary>The stores it can be tried with; both unless said.</summary>
    public IReadOnlyList<StoreKind> Stores { get; init; } = [StoreKind.Sqlite, StoreKind.Postgres];

    /// <summary>An environment variable without which it can't be tried; null for none.</summary>
    public string? Needs { get; init; }

    /// <summary>A fault of the usual trial: see <see cref="UsualTrial"/>.</summary>
    public static Fault Usual(
        string name, string number, string about, Func<Trial, Task<string>> disturb, bool tells = false, TimeSpan? patience = null) =>
        new(name, number, about, (world, options) => UsualTrial.RunAsync(world, options, disturb, tells, patience));
}

/// <param name="Rounds">How often the fault strikes, where that can be said; 0 for the fault's own number.</param>
/// <param name="Instances">How many processes serve the store.</param>
internal sealed record TrialOptions(int Rounds, int Seed, int Instances);

/// <summary>What came of a trial.</summary>
/// <param name="Figures">What was measured, a line each.</param>
internal sealed record Verdict(IReadOnlyList<Violation> Violations, IReadOnlyList<string> Figures)
{
    /// <summary>The promise of the trial itself; broken, it has shown nothing.</summary>
    public const string NotMade = "the trial can be made";
}

/// <summary>Waits for a state; never a fixed pause.</summary>
internal static class Until
{
    /// <exception cref="ChaosException">The deadline passed.</exception>
    public static async Task TrueAsync(Func<Task<bool>> condition, TimeSpan deadline, string what)
    {
        using var timeout = new CancellationTokenSource(deadline);
        using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(100));
        while (!await condition())
        {
            try
            {
                await tick.WaitForNextTickAsync(timeout.Token);
            }
            catch (OperationCanceledException)
            {
                throw new ChaosException($"This did not become true within {deadline.TotalSeconds:0} s: {what}");
            }
        }
    }

    /// <summary>Waits until a number no longer changes for a while: everything that was to come has come.</summary>
    public static async Task QuietAsync(Func<long> number, TimeSpan quiet, TimeSpan deadline)
    {
        var clock = TimeProvider.System;
        var (began, changed, last) = (clock.GetTimestamp(), clock.GetTimestamp(), number());
        using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(200));
        while (clock.GetElapsedTime(changed) < quiet && await tick.WaitForNextTickAsync())
        {
            if (clock.GetElapsedTime(began) > deadline)
            {
                // Judged now, what is still to come would be taken for lost.
                throw new ChaosException(string.Create(CultureInfo.InvariantCulture, $"It was not quiet within {deadline.TotalSeconds:0} s: {last:N0} and rising"));
            }
            if (number() is var now && now != last)
            {
                (last, changed) = (now, clock.GetTimestamp());
            }
        }
    }
}

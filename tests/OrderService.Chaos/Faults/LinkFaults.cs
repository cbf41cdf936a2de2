using System.Globalization;

namespace OrderService.Chaos.Faults;

/// <summary>The network between the service and its broker or database misbehaves; both ends are well.</summary>
internal static class LinkFaults
{
    public static IReadOnlyList<Fault> All { get; } =
    [
        Fault.Usual("slow-link", "F9", "Everything to and from the broker takes 100 ms longer, for 20 s.", SlowAsync),
        Fault.Usual("half-open-link", "F10", "Connections to the broker stay open and nothing passes, for 40 s.", SilenceAsync, tells: true),
        Fault.Usual("resets", "F11", "Connections to the broker end with a TCP reset, again and again.", ResetAsync),
        Fault.Usual("silent-database", "F40", "Connections to PostgreSQL stay open and nothing passes, for 40 s.", SilenceDatabaseAsync, tells: true) with { Stores = [StoreKind.Postgres] },
        Fault.Usual("database-resets", "F41", "Connections to PostgreSQL end with a TCP reset, again and again, also while they commit.", ResetDatabaseAsync) with { Stores = [StoreKind.Postgres] },
    ];

    private static async Task<string> SlowAsync(Trial trial)
    {
        trial.World.BrokerLink.Delay = TimeSpan.FromMilliseconds(100);
        await Trial.LastAsync(20);
        trial.World.BrokerLink.Delay = TimeSpan.Zero;
        return "each piece waited 100 ms in each direction";
    }

    private static Task<string> SilenceAsync(Trial trial) => SilenceAsync(trial, trial.World.BrokerLink);

    private static Task<string> SilenceDatabaseAsync(Trial trial) => SilenceAsync(trial, trial.World.DatabaseLink);

    private static async Task<string> SilenceAsync(Trial trial, Link link)
    {
        link.Silence();
        await Trial.LastAsync(1);
        var heard = trial.Subscriber.Distinct;
        await Trial.LastAsync(39);
        var during = trial.Subscriber.Distinct - heard;
        link.Speak();
        return link.Held > 0 && during == 0
            ? string.Create(CultureInfo.InvariantCulture, $"{link.Held} pieces waited, and nothing came out")
            : throw new ChaosException($"{during} events came out over a silent link that held {link.Held} pieces.");
    }

    private static Task<string> ResetAsync(Trial trial) => ResetAsync(trial, trial.World.BrokerLink);

    private static Task<string> ResetDatabaseAsync(Trial trial) => ResetAsync(trial, trial.World.DatabaseLink);

    private static async Task<string> ResetAsync(Trial trial, Link link)
    {
        var ended = 0;
        for (var round = 0; round < 10; round++)
        {
            await Trial.LastAsync(0.5 + (2 * trial.World.Random.NextDouble()));
            ended += link.Reset();
        }
        return ended >= 10 ? $"{ended} connections were reset" : throw new ChaosException($"Only {ended} connections were reset.");
    }
}

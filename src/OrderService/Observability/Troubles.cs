using System.Collections.Concurrent;

namespace OrderService.Observability;

/// <summary>What a trouble means for the process.</summary>
public enum TroubleLevel
{
    /// <summary>A person should hear of it; readiness does not change.</summary>
    Notice,

    /// <summary>Something stands still while orders are decided: readiness answers 200 and says it.</summary>
    Degraded,

    /// <summary>Somebody paused it: readiness answers 200 and says it.</summary>
    Paused,

    /// <summary>The process can't do its work: readiness answers 503.</summary>
    NotReady,
}

/// <summary>Something that stands still or went wrong, in words for a person. Free of credentials, bodies and personal data.</summary>
/// <param name="Key">A stable name such as <c>relay:order.cancelled</c>; the same key is the same trouble. At most 200 characters.</param>
/// <param name="Subject">One short sentence, the subject of an alert.</param>
/// <param name="Detail">One or two sentences: what happens, why, since when if that differs from the first report. Shown by readiness too.</param>
/// <param name="Advice">What to do about it; null when nothing is to be done.</param>
public sealed record Trouble(string Key, TroubleLevel Level, string Subject, string Detail, string? Advice = null)
{
    /// <summary>
    /// How long it must stand before an alert tells of it; readiness shows it at once. Zero: an alert tells of it even if it is over before anybody looked.
    /// </summary>
    public TimeSpan Patience { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>How many messages it concerns, where more of them are worth another alert; else 0.</summary>
    public long Size { get; init; }

    /// <summary>It is about the store itself, so an alert of it must not need the store.</summary>
    public bool ConcernsStore { get; init; }
}

/// <summary>A trouble that stands.</summary>
/// <param name="Since">When it was first raised, by the wall clock.</param>
/// <param name="Raised">The same by the monotonic clock, for durations: see <see cref="TimeProvider.GetElapsedTime(long)"/>.</param>
public sealed record StandingTrouble(Trouble Trouble, DateTimeOffset Since, long Raised);

/// <summary>
/// What stands still in this process at the moment. Stations raise and clear; readiness shows it, alerts tell of it. In memory: after a restart each station finds out anew.
/// </summary>
public sealed class Troubles(TimeProvider clock)
{
    /// <summary>Key of the trouble that the store can't be used at all. It covers all that waits for the store: one cause, one alert.</summary>
    public const string Store = "store";

    private readonly ConcurrentDictionary<string, StandingTrouble> standing = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, StandingTrouble> passed = new(StringComparer.Ordinal);

    /// <summary>All that stands, the oldest first.</summary>
    public IReadOnlyList<StandingTrouble> Standing => [.. standing.Values.OrderBy(trouble => trouble.Raised).ThenBy(trouble => trouble.Trouble.Key, StringComparer.Ordinal)];

    /// <summary>Begins a trouble, or gives a standing one new words; its beginning stays.</summary>
    public void Raise(Trouble trouble) => standing.AddOrUpdate(
        trouble.Key,
        static (_, arguments) => new StandingTrouble(arguments.trouble, arguments.clock.GetUtcNow(), arguments.clock.GetTimestamp()),
        static (_, known, arguments) => known.Trouble == arguments.trouble ? known : known with { Trouble = arguments.trouble },
        (trouble, clock));

    /// <summary>Ends a trouble; nothing happens when it does not stand.</summary>
    public void Clear(string key)
    {
        if (standing.TryRemove(key, out var gone) && gone.Trouble.Patience == TimeSpan.Zero)
        {
            passed[key] = gone;
        }
    }

    /// <summary>Those without patience that are over, until <see cref="Tell"/>. They may have been told while they stood.</summary>
    internal IReadOnlyCollection<StandingTrouble> Passed => [.. passed.Values];

    /// <summary>They were looked at, and nothing more is due of them.</summary>
    internal void Tell(IEnumerable<StandingTrouble> told)
    {
        foreach (var one in told)
        {
            // One that came and went again meanwhile is another.
            passed.TryRemove(KeyValuePair.Create(one.Trouble.Key, one));
        }
    }

    /// <summary>Whether a trouble with this key stands.</summary>
    public bool Stands(string key) => standing.ContainsKey(key);
}

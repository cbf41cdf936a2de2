using OrderService.Store;

namespace OrderService.Inbox;

/// <summary>In which order suspects are begun, as their places in the list that was asked about.</summary>
/// <param name="Urgent">Accused, and so often returned that they must not wait every time: begun first, and an end over them is no evidence.</param>
/// <param name="Alone">Begun one by one: a process ended over them and others. They waited longest, so they come before the rest.</param>
/// <param name="Groups">Begun together: little speaks against any of them but that they came back.</param>
/// <param name="Accused">Begun last, one by one, with nothing else in hand: a process ended over each alone.</param>
public sealed record Trials(IReadOnlyList<int> Urgent, IReadOnlyList<int> Alone, IReadOnlyList<IReadOnlyList<int>> Groups, IReadOnlyList<int> Accused);

/// <summary>
/// Which message ends the process: evidence instead of counting. A message that does it ends every process that begins it; a kill from outside hits whatever happens to be in work.
/// docs/decisions/0022 has the figures.
/// </summary>
/// <param name="deliveryLimit">How often the broker returns a message before it gives it up.</param>
public sealed class CrashRule(int suspectAfterReturns, int maxCrashes, int deliveryLimit)
{
    /// <summary>How many suspects are begun together: few enough to be tried alone in one go, many enough to be done with two thousand quickly.</summary>
    public const int LargestGroup = 32;

    /// <summary>How many of a group are begun together in the next process while kills go on.</summary>
    public const int SmallGroup = 8;

    /// <summary>Ends without an explanation ask for as many more crashes, up to this many: before the broker's delivery limit comes near.</summary>
    public const int MostStrangers = 4;

    /// <summary>
    /// Whether an accused message is begun first in this process: kills might keep it from its turn until the broker gives it up. Only every other time, for it might be the one
    /// that ends the process, and then nothing else would get its turn.
    /// </summary>
    public bool IsUrgent(Suspicion suspicion, int returns) =>
        suspicion.Alone > 0 && returns % 2 == 0 && returns >= (Strangers(suspicion) > 0 ? suspectAfterReturns + 2 : deliveryLimit / 5 * 2);

    /// <summary>For how long an end without an explanation speaks for one outside.</summary>
    public static readonly TimeSpan Memory = TimeSpan.FromMinutes(15);

    /// <summary>How many processes ended lately that this message does not explain. Before it became a suspect it ended some as one of many.</summary>
    public int Strangers(Suspicion suspicion) => Math.Max(0, suspicion.Ended - suspicion.InCompany - suspicion.Alone - suspectAfterReturns);

    /// <summary>Whether this message ends the process, beyond doubt. The first end over it alone only makes it stand out.</summary>
    public bool IsToBlame(Suspicion suspicion) => suspicion.Alone > maxCrashes + Math.Min(Strangers(suspicion), MostStrangers);

    /// <summary>Puts suspects in order: from those of whom nothing is known to those that stand accused.</summary>
    /// <param name="returns">How often the one at this place was returned.</param>
    public Trials Arrange(IReadOnlyList<Suspicion> suspects, Func<int, int> returns)
    {
        var unknown = new List<int>(suspects.Count);
        var narrowed = new List<int>();
        var alone = new List<int>();
        var accused = new List<int>();
        var urgent = new List<int>();
        var strangers = false;
        for (var index = 0; index < suspects.Count; index++)
        {
            var isStranger = Strangers(suspects[index]) > 0;
            strangers |= isStranger;
            (suspects[index] switch
            {
                { Alone: > 0 } when IsUrgent(suspects[index], returns(index)) => urgent,
                { Alone: > 0 } => accused,
                // Where kills go on, to begin each alone takes longer than a process lives.
                { InCompany: 1 } when isStranger => narrowed,
                { InCompany: > 0 } => alone,
                _ => unknown,
            }).Add(index);
        }
        if (unknown.Count <= LargestGroup && !strangers)
        {
            // So few are as quickly tried alone, and an end names its message a process earlier.
            alone.InsertRange(0, unknown);
            unknown.Clear();
        }
        return new Trials(urgent, alone, [.. narrowed.Chunk(SmallGroup), .. unknown.Chunk(LargestGroup)], accused);
    }
}

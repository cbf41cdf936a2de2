using OrderService.Observability;
using OrderService.Store;

namespace OrderService.Inbox;

/// <summary>What is known of something that failed alone.</summary>
/// <param name="KnownGoodFailsToo">What is known to be good was tried in the same kind of transaction and failed as well.</param>
/// <param name="NeighbourSucceeded">Something else of the same batch went through.</param>
/// <param name="RefusedByStore">The store refused it: a constraint, a trigger, a value it does not take.</param>
/// <param name="InARow">How many the store refused for the same reason since the last success, this one included.</param>
/// <param name="OutOfMemory">There was no memory for it.</param>
/// <param name="AloneInHand">Nothing else was in hand.</param>
public readonly record struct Evidence(bool KnownGoodFailsToo, bool NeighbourSucceeded, bool RefusedByStore, int InARow, bool OutOfMemory, bool AloneInHand);

/// <summary>
/// The one rule of every station: when things that have nothing in common fail one after the other, the environment is at fault, and they are held.
/// Only what fails alone while its neighbours succeed is blamed; where there are no neighbours, something known to be good takes their part.
/// </summary>
public static class BlameRule
{
    /// <summary>How many in a row may be blamed for one and the same refusal of the store.</summary>
    public const int MostInARow = 2;

    /// <summary>Whether what failed alone, again and again, is at fault itself.</summary>
    public static bool IsItself(Evidence evidence) => evidence switch
    {
        { KnownGoodFailsToo: true } => false,
        // The memory was used up by whatever was in hand together.
        { OutOfMemory: true, AloneInHand: false } => false,
        { RefusedByStore: true, NeighbourSucceeded: false, InARow: > MostInARow } => false,
        _ => true,
    };
}

/// <summary>What a station does with what it has in hand, as <see cref="Blame{T}"/> has to know it. Trouble of the store's reach passes through, or is waited out inside.</summary>
/// <param name="Station">Its name in the key of a trouble: <c>store:orders</c>.</param>
/// <param name="What">What it handles, in the plural: "Orders".</param>
/// <param name="Level">What it means when all of it is held.</param>
/// <param name="Commit">Writes all of them in one transaction, or none.</param>
/// <param name="GiveUp">Ends one that is at fault itself: as a dead letter, or kept as bytes.</param>
/// <param name="Try">Decides and writes something known to be good and undoes it. True: in every kind of transaction that the station has; false: in the commonest.</param>
public sealed record BlamedWork<T>(
    string Station, string What, TroubleLevel Level,
    Func<IReadOnlyList<T>, CancellationToken, Task> Commit,
    Func<T, Exception, CancellationToken, Task> GiveUp,
    Func<bool, CancellationToken, Task> Try)
{
    /// <summary>How often one is tried alone before it can be blamed.</summary>
    public int MaxAttempts { get; init; } = 3;

    /// <summary>Whether it may still be settled; what is not is dropped.</summary>
    public Func<T, bool> IsAlive { get; init; } = static _ => true;

    /// <summary>Whether nothing but what is being tried is in hand.</summary>
    public Func<bool> IsAloneInHand { get; init; } = static () => true;
}

/// <summary>What could not be done and is held.</summary>
/// <param name="All">The store takes nothing: all of them are held, and more would be.</param>
public readonly record struct Held<T>(IReadOnlyList<T> Items, bool All)
{
    public bool IsNothing => Items.Count == 0;
}

/// <summary>Applies <see cref="BlameRule"/> at one station: commits what it is given, finds what fails by itself, gives that up, and says what is held and why.</summary>
public sealed partial class Blame<T>(BlamedWork<T> work, Troubles troubles, ILogger logger)
{
    private string? lastRefusal;
    private int inARow;
    private long successes;
    private long successesWhenHeld;

    /// <summary>Key of the trouble that says what is held here.</summary>
    public string TroubleKey { get; } = $"store:{work.Station}";

    /// <summary>Does the work; when it fails together, halves find what fails by itself.</summary>
    /// <param name="again">They were held before; what went through meanwhile is their neighbour.</param>
    /// <returns>What is neither done nor given up. The caller keeps it, tries it again, and tells by <see cref="Over"/> when none is left.</returns>
    public async Task<Held<T>> DoAsync(IReadOnlyList<T> items, bool again, CancellationToken cancellationToken)
    {
        var wentThrough = again && successes > successesWhenHeld;
        try
        {
            await CommitAsync(items, cancellationToken);
            return Nothing;
        }
        catch (Exception exception) when (IsToBeJudged(exception, cancellationToken))
        {
            return await SortOutAsync(items, exception, wentThrough, cancellationToken);
        }
    }

    /// <summary>The same for what failed already.</summary>
    public async Task<Held<T>> SortOutAsync(IReadOnlyList<T> items, Exception failure, bool neighbourSucceeded, CancellationToken cancellationToken)
    {
        // Before anybody is looked at: does the store take what is known to be good?
        if (await TryAsync(everything: false, cancellationToken) is { } trouble)
        {
            return Hold(items, trouble, all: true);
        }
        var failed = new List<(T Item, Exception Failure)>();
        await HalveAsync(items, failure, failed, cancellationToken);
        return await JudgeAsync(failed, neighbourSucceeded || failed.Count < items.Count, cancellationToken);
    }

    /// <summary>Nothing is held any more.</summary>
    public void Over()
    {
        if (troubles.Stands(TroubleKey))
        {
            troubles.Clear(TroubleKey);
            LogOver(work.What);
        }
    }

    /// <summary>Raises the trouble that says what is held and why.</summary>
    public void Say(string why, bool all)
    {
        if (troubles.Stands(Troubles.Store))
        {
            return;
        }
        if (!troubles.Stands(TroubleKey))
        {
            LogHeld(work.What, why);
        }
        troubles.Raise(new Trouble(
            TroubleKey, work.Level,
            $"{work.What} are held: the store does not take {(all ? "them" : "some of them")}",
            $"{why} {work.What} are held and tried again; nothing is lost and none is blamed.",
            StoreRefusedException.Advice)
        { ConcernsStore = true });
    }

    private Held<T> Hold(IReadOnlyList<T> items, string why, bool all)
    {
        Say(why, all);
        successesWhenHeld = successes;
        return new Held<T>(items, all);
    }

    private static Held<T> Nothing => new([], false);

    private async Task CommitAsync(IReadOnlyList<T> items, CancellationToken cancellationToken)
    {
        await work.Commit(items, cancellationToken);
        successes++;
        lastRefusal = null;
        inARow = 0;
    }

    private async Task HalveAsync(IReadOnlyList<T> items, Exception failure, List<(T, Exception)> failed, CancellationToken cancellationToken)
    {
        if (items.Count == 1)
        {
            failed.Add((items[0], failure));
            return;
        }
        var half = items.Count / 2;
        foreach (var part in new IReadOnlyList<T>[] { [.. items.Take(half)], [.. items.Skip(half)] })
        {
            try
            {
                await CommitAsync(part, cancellationToken);
            }
            catch (Exception exception) when (IsToBeJudged(exception, cancellationToken))
            {
                await HalveAsync(part, exception, failed, cancellationToken);
            }
        }
    }

    private async Task<Held<T>> JudgeAsync(List<(T Item, Exception Failure)> failed, bool neighbourSucceeded, CancellationToken cancellationToken)
    {
        var held = new List<T>();
        string? why = null;
        foreach (var (item, first) in failed)
        {
            if (await TryAloneAsync(item, first, cancellationToken) is not { } failure)
            {
                neighbourSucceeded = true;
                continue;
            }
            var refusal = failure as StoreRefusedException;
            if (refusal is not null)
            {
                var what = $"{refusal.Code} {refusal.Constraint}";
                inARow = what == lastRefusal ? inARow + 1 : 1;
                lastRefusal = what;
            }
            var trouble = await TryAsync(everything: true, cancellationToken);
            if (BlameRule.IsItself(new Evidence(
                trouble is not null, neighbourSucceeded, refusal is not null, Math.Max(inARow, neighbourSucceeded ? 0 : failed.Count), failure is OutOfMemoryException, work.IsAloneInHand())))
            {
                try
                {
                    await work.GiveUp(item, failure, cancellationToken);
                    continue;
                }
                catch (Exception exception) when (IsToBeJudged(exception, cancellationToken))
                {
                    // What ends it can't be written either.
                    trouble = Sentence(exception);
                }
            }
            held.Add(item);
            why = trouble ?? Sentence(failure);
        }
        return why is null ? Nothing : Hold(held, why, all: false);
    }

    /// <returns>The last failure; null when it went through after all.</returns>
    private async Task<Exception?> TryAloneAsync(T item, Exception failure, CancellationToken cancellationToken)
    {
        for (var attempt = 2; attempt <= work.MaxAttempts; attempt++)
        {
            try
            {
                await CommitAsync([item], cancellationToken);
                return null;
            }
            catch (Exception exception) when (IsToBeJudged(exception, cancellationToken))
            {
                failure = exception;
            }
        }
        return failure;
    }

    /// <returns>Why what is known to be good fails; null when it does not.</returns>
    private async Task<string?> TryAsync(bool everything, CancellationToken cancellationToken)
    {
        try
        {
            await work.Try(everything, cancellationToken);
            return null;
        }
        catch (Exception exception) when (IsToBeJudged(exception, cancellationToken))
        {
            return Sentence(exception);
        }
    }

    /// <summary>That the store is out of reach concerns everybody and passes.</summary>
    private static bool IsToBeJudged(Exception exception, CancellationToken cancellationToken) =>
        exception is not StoreUnavailableException && !cancellationToken.IsCancellationRequested;

    // Of an exception of ours the message may quote the input.
    private static string Sentence(Exception exception) => exception switch
    {
        StoreRefusedException refused => refused.Message,
        OutOfMemoryException => "There is not enough memory for it.",
        _ => $"It fails with {exception.GetType().Name}.",
    };

    [LoggerMessage(LogLevel.Error, "{What} are held, for not they are at fault: {Reason}")]
    private partial void LogHeld(string what, string reason);

    [LoggerMessage(LogLevel.Information, "{What} are not held any more")]
    private partial void LogOver(string what);
}

using OrderService.Store;

namespace OrderService.Outbox;

/// <summary>
/// One routing key on its way out: how many of its messages may be unconfirmed, and what happens when a queue refuses one. A refused key is closed. Closed, it has one attempt every
/// ten seconds (a little sooner while copies may be risked); after a success it opens with one message and doubles its pace, up to the queue's own.
/// Not thread-safe: the relay's lock guards it.
/// </summary>
internal sealed class RelayLane(string key, CopyBudget budget, OutboxOptions options, TimeProvider clock)
{
    /// <summary>The lane of what can't be sent as it is: it opens by hand only.</summary>
    public const string Unsendable = "unsendable";

    /// <summary>
    /// How many are risked on a key that nobody refused lately, however few events there were: a burst after a quiet hour must not leave one by one. Below the 32 with which RabbitMQ
    /// begins to hold up the whole connection when a queue has no leader.
    /// </summary>
    private const int Trusted = 16;

    /// <summary>Where the pace begins after a success: doubled with each message it is beyond 100 a second after two seconds, and from there on only the window counts.</summary>
    private static readonly TimeSpan FirstGap = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan NoGap = TimeSpan.FromMilliseconds(10);

    /// <summary>With each success the pace is tried a little higher, so that one attempt in about a hundred is refused where a queue is slow; after a hundred the queue is faster now.</summary>
    private const double Relax = 0.993;
    private const double RelaxMore = 0.9;
    private const int LongRun = 100;

    private TimeSpan gap;
    private TimeSpan slowest;
    private int window = Trusted;
    private int attempts;
    private int run;
    private long nextAt;
    private long refusedAt;
    private long freeAt;
    private bool wasRefused;
    private bool wasFree;
    private long? releasesSeen;

    public string Key => key;

    /// <summary>Messages that were published and have no outcome yet.</summary>
    public int InFlight { get; private set; }

    /// <summary>Messages that have no place among the unconfirmed.</summary>
    public Queue<OutboxRow> Waiting { get; } = new();

    public bool IsClosed { get; private set; }

    /// <summary>Streams that wait for this key may be in the table.</summary>
    public bool HasStuck { get; set; }

    /// <summary>Messages that were taken from the stuck ones and are not published yet.</summary>
    public int Released { get; set; }

    /// <summary>The stream of the one attempt that a closed key has.</summary>
    public string? Attempt { get; private set; }

    /// <summary>Why it was refused last.</summary>
    public string Reason { get; private set; } = "a queue refuses it";

    /// <summary>Since when, by the wall clock; null while it is open and nothing waits.</summary>
    public DateTimeOffset? Since { get; private set; }

    /// <summary>When it last had an outcome.</summary>
    public long LastOutcomeAt { get; private set; } = clock.GetTimestamp();

    /// <summary>How many may be published now.</summary>
    /// <param name="busyLanes">How many keys share the copies that may be risked.</param>
    public int Room(int busyLanes)
    {
        if (IsClosed)
        {
            return 0;
        }
        if (gap > TimeSpan.Zero)
        {
            return InFlight == 0 && IsDue ? 1 : 0;
        }
        return Math.Max(0, Math.Min(window, Most(busyLanes)) - InFlight);
    }

    private int Most(int busyLanes)
    {
        var risked = (int)Math.Min(int.MaxValue / 2, budget.Left / Math.Max(1, busyLanes));
        var trusted = !wasRefused || clock.GetElapsedTime(refusedAt) >= CopyBudget.Window;
        return trusted ? Math.Max(Trusted, risked) : 1 + risked;
    }

    /// <summary>A closed key whose attempt is due, or an open one that may take stuck messages out of the table.</summary>
    public int Due(int busyLanes) => IsClosed
        ? key != Unsendable && IsDue && InFlight == 0 && Released == 0 ? 1 : 0
        : Math.Max(0, Room(busyLanes) - Waiting.Count - Released);

    private bool IsDue => clock.GetTimestamp() >= nextAt;

    /// <summary>How long until something may be due.</summary>
    public TimeSpan UntilDue => clock.GetTimestamp() is var now && nextAt > now ? clock.GetElapsedTime(now, nextAt) : TimeSpan.Zero;

    /// <summary>The stream that goes out although the key is closed.</summary>
    public void Try(string stream)
    {
        Attempt = stream;
        nextAt = After(options.ProbeInterval);
    }

    /// <summary>Another instance had the attempt.</summary>
    public void PutOff(TimeSpan pause) => nextAt = After(pause);

    public void Begin() => InFlight++;

    /// <summary>The outcome does not tell anything about the key.</summary>
    public void Abandon() => InFlight--;

    public void Confirm()
    {
        InFlight--;
        budget.Sent();
        run++;
        LastOutcomeAt = clock.GetTimestamp();
        if (IsClosed)
        {
            if (Attempt is null)
            {
                // One that was sent before the key closed.
                return;
            }
            IsClosed = false;
            Attempt = null;
            attempts = 0;
            window = 1;
            // Where its pace is known it goes on with that.
            gap = slowest > NoGap ? slowest : FirstGap;
        }
        else if (gap > TimeSpan.Zero)
        {
            slowest *= run < LongRun ? Relax : RelaxMore;
            gap = gap / 2 > slowest ? gap / 2 : slowest;
            if (gap <= NoGap)
            {
                (gap, window) = (TimeSpan.Zero, 1);
            }
        }
        else if (window < int.MaxValue / 2)
        {
            // One more for each success: doubled with every round.
            window++;
        }
        if (gap > TimeSpan.Zero)
        {
            nextAt = After(gap);
        }
    }

    /// <returns>Whether it was open until now.</returns>
    public bool Refuse(string reason)
    {
        InFlight--;
        LastOutcomeAt = refusedAt = clock.GetTimestamp();
        wasRefused = true;
        Reason = reason;
        Since ??= clock.GetUtcNow();
        if (wasFree && clock.GetElapsedTime(freeAt) < options.ProbeInterval)
        {
            budget.Spend();
        }
        else
        {
            (wasFree, freeAt) = (true, LastOutcomeAt);
        }
        if (IsClosed && Attempt is null)
        {
            // One of those that were sent before the key closed.
            return false;
        }
        var wasOpen = !IsClosed;
        if (wasOpen)
        {
            // The queue takes less than this. A first refusal tells only that it was full, and so does one at the very beginning.
            slowest = gap >= FirstGap / 2 ? NoGap / 2 : gap > TimeSpan.Zero ? gap * 2 : slowest > TimeSpan.Zero ? NoGap * 2 : NoGap / 2;
        }
        IsClosed = true;
        Attempt = null;
        run = 0;
        attempts++;
        var pause = TimeSpan.FromSeconds(0.25 * (1 << Math.Min(attempts, 10)));
        nextAt = After(budget.Left > 0 && pause < options.ProbeInterval ? pause : options.ProbeInterval);
        PlantedBug.Plant("refused-is-tried-at-once", () => nextAt = clock.GetTimestamp());
        return wasOpen;
    }

    /// <summary>Found in the table at the start: closed, with an attempt at once.</summary>
    public void Find(string? reason, DateTimeOffset since)
    {
        HasStuck = true;
        Since = Since is { } known && known < since ? known : since;
        if (reason is not null)
        {
            Reason = reason;
        }
        if (!wasRefused)
        {
            IsClosed = true;
            wasRefused = true;
            refusedAt = nextAt = clock.GetTimestamp();
        }
    }

    /// <summary>An operator wants it tried now.</summary>
    /// <param name="releases">How often that was asked for; the first reading only sets the count.</param>
    public bool HearOfReleases(long releases)
    {
        var isNew = releasesSeen is { } before && before != releases;
        releasesSeen = releases;
        if (isNew)
        {
            attempts = 0;
            slowest = TimeSpan.Zero;
            nextAt = clock.GetTimestamp();
        }
        return isNew;
    }

    /// <summary>Nothing waits for it in the table any more.</summary>
    public void Empty()
    {
        HasStuck = false;
        if (!IsClosed)
        {
            Since = null;
            gap = TimeSpan.Zero;
        }
    }

    private long After(TimeSpan pause) => clock.GetTimestamp() + (long)(pause.TotalSeconds * clock.TimestampFrequency);
}

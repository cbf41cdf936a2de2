using System.Text.Json;
using Microsoft.Extensions.Options;
using OrderService.Database;
using OrderService.Observability;
using OrderService.Store;

namespace OrderService.Notifications;

/// <summary>
/// Turns what stands still (<see cref="Troubles"/>) into alerts of kind <c>service</c>: one when a trouble has stood for its patience, again every <c>Alerts:RemindAfter</c>, and one
/// when it is over; of each trouble at most one in <c>Alerts:TroublePause</c>. What was told stands in the store, so that a restart repeats nothing and of several instances one
/// speaks. Where the store does not work, refuses the row, or is itself the trouble, this process's own channels are used without it.
/// </summary>
public sealed partial class TroubleAlerts : BackgroundService
{
    /// <summary>How long the store may fail before alerts go without it.</summary>
    private static readonly TimeSpan StorePatience = TimeSpan.FromSeconds(10);

    private static readonly TimeSpan LookTimeout = TimeSpan.FromSeconds(5);

    /// <summary>How long the last words of a process that stops may take.</summary>
    private static readonly TimeSpan StopPatience = TimeSpan.FromSeconds(5);

    /// <summary>How long a trouble that is over is remembered.</summary>
    private static readonly TimeSpan Memory = TimeSpan.FromDays(1);

    /// <summary>Rows that say what was told of a trouble, and those of the list of alerts.</summary>
    private const string News = "news";
    private const string List = "list";

    private readonly Troubles troubles;
    private readonly IDatabase database;
    private readonly AlertsOptions options;
    private readonly StoreTime time;
    private readonly TimeProvider clock;
    private readonly ILogger<TroubleAlerts> logger;
    private readonly DirectAlerts direct;
    private readonly RefusedRows<(string What, string Key)> refused;
    private readonly Dictionary<string, Told> told = new(StringComparer.Ordinal);
    private long? storeFailsSince;

    public TroubleAlerts(
        Troubles troubles, IDatabase database, IEnumerable<INotificationChannel> channels, IOptions<AlertsOptions> options, OrderMetrics metrics, StoreTime time, TimeProvider clock,
        ILogger<TroubleAlerts> logger)
    {
        this.troubles = troubles;
        this.database = database;
        this.options = options.Value;
        this.time = time;
        this.clock = clock;
        this.logger = logger;
        direct = new DirectAlerts([.. channels], this.options, metrics, clock, logger);
        refused = new RefusedRows<(string What, string Key)>("service-alerts", "Alerts of the service itself", troubles, clock, logger);
    }

    /// <summary>The last words: a trouble of the store that ends the process is told although it has not stood for long.</summary>
    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        await base.StopAsync(cancellationToken);
        using var patience = new CancellationTokenSource(StopPatience, clock);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(patience.Token, cancellationToken);
        try
        {
            TellDirectly(troubles.Standing.Where(one => one.Trouble is { ConcernsStore: true, Level: TroubleLevel.NotReady }));
            await direct.SendAsync(either.Token).WaitAsync(either.Token);
        }
        catch (OperationCanceledException)
        {
            LogLastWordsLost();
        }
    }

    protected override Task ExecuteAsync(CancellationToken stoppingToken) =>
        // What stands still goes on standing; the next tick tells of it.
        PeriodicLoop.AtOnceAsync(options.PollInterval, clock, LookAsync, stoppingToken, failed: exception => LogFailed(exception.Message));

    /// <summary>Tells of what is due.</summary>
    internal async Task LookAsync(CancellationToken cancellationToken)
    {
        var passed = troubles.Passed;
        IReadOnlyList<StandingTrouble> standing = [.. troubles.Standing.Concat(passed).DistinctBy(one => one.Trouble.Key)];
        foreach (var one in standing)
        {
            told.GetValueOrDefault(one.Trouble.Key)?.SeenAt = clock.GetTimestamp();
        }
        var isStoreAway = await IsStoreAwayAsync(standing, cancellationToken);
        TellDirectly(standing.Where(one => IsRipe(one) && (one.Trouble.ConcernsStore || isStoreAway || refused.IsResting((News, one.Trouble.Key)))));
        EndDirectly(standing, isStoreAway);
        if (storeFailsSince is null || isStoreAway)
        {
            troubles.Tell(passed);
        }
        await direct.SendAsync(cancellationToken);
    }

    private bool IsRipe(StandingTrouble standing) => clock.GetElapsedTime(standing.Raised) >= standing.Trouble.Patience;

    /// <returns>Whether the store has failed for so long that alerts have to go without it.</returns>
    private async Task<bool> IsStoreAwayAsync(IReadOnlyList<StandingTrouble> standing, CancellationToken cancellationToken)
    {
        try
        {
            using var patience = new CancellationTokenSource(LookTimeout, clock);
            using var either = CancellationTokenSource.CreateLinkedTokenSource(patience.Token, cancellationToken);
            await TellByStoreAsync(standing, either.Token).WaitAsync(either.Token);
            storeFailsSince = null;
            refused.Pass(News);
            return false;
        }
        catch (Exception exception) when (!cancellationToken.IsCancellationRequested)
        {
            // That a store is slow or away is for readiness to say; what it has against these rows nobody else sees.
            if (exception is StoreRefusedException or StoreUnavailableException)
            {
                refused.Fail(News, exception);
            }
            storeFailsSince ??= clock.GetTimestamp();
            return clock.GetElapsedTime(storeFailsSince.Value) >= StorePatience;
        }
    }

    private async Task TellByStoreAsync(IReadOnlyList<StandingTrouble> standing, CancellationToken cancellationToken)
    {
        var now = time.GetUtcNow();
        // A look before the write: an instance without troubles commits nothing.
        var rows = await database.ReadAsync(async connection => (await TroublesTable.ListAsync(connection)).ToDictionary(row => row.Key), cancellationToken);
        foreach (var row in rows.Values.Where(row => row.ToldAt > 0 && told.GetValueOrDefault(row.Key) is not { IsSaved: false }))
        {
            // So that nobody hears it again by the other way, should the store fail now.
            told[row.Key] = new Told(row.Subject, row.Stands, row.Size, Back(row.ToldFor(now))) { SeenAt = Back(row.UnseenFor(now)), IsSaved = true };
        }
        var here = standing.Select(one => one.Trouble.Key).ToHashSet();
        var own = told.Where(entry => !entry.Value.IsSaved && !refused.IsResting((News, entry.Key))).ToList();
        var letters = direct.Unsaved.Where(letter => !refused.IsResting((List, letter.Key))).ToList();
        var steps = standing.Where(one => !refused.IsResting((News, one.Trouble.Key)) && Needs(one, rows.GetValueOrDefault(one.Trouble.Key), now)).ToList();
        var gone = rows.Values.Where(row => !here.Contains(row.Key) && !refused.IsResting((News, row.Key))
            && (TroubleNews.IsOver(row.Told(now), row.UnseenFor(now), options, clock.GetUtcNow()) || IsForgotten(row, now))).ToList();
        if (own.Count == 0 && letters.Count == 0 && steps.Count == 0 && gone.Count == 0)
        {
            return;
        }
        var (savedLetters, savedOwn) = await database.WriteAsync(async transaction =>
        {
            var listed = await WriteAsync(transaction, letters, letter => (List, letter.Key), letter => SaveAsync(transaction, letter));
            var noted = await WriteAsync(transaction, own, entry => (News, entry.Key), entry => SaveAsync(transaction, entry.Key, entry.Value, now));
            await WriteAsync(transaction, steps, one => (News, one.Trouble.Key), one => TakeStepAsync(transaction, one, now));
            await WriteAsync(transaction, gone, row => (News, row.Key), row => EndAsync(transaction, row, now));
            return (listed, noted);
        }, cancellationToken);
        direct.Saved(savedLetters);
        savedOwn.ForEach(entry => entry.Value.IsSaved = true);
    }

    /// <summary>What the store refuses holds up no other; of what it refused a moment ago, in this transaction too, nothing is tried.</summary>
    private Task<List<T>> WriteAsync<T>(StoreTransaction transaction, IEnumerable<T> rows, Func<T, (string What, string Key)> key, Func<T, Task> write) =>
        refused.WriteAsync<T>(transaction, [.. rows.Where(row => !refused.IsResting(key(row)))], key, async some =>
        {
            foreach (var row in some)
            {
                await write(row);
            }
            return some;
        });

    /// <summary>Whether a trouble that stands here has to be written down.</summary>
    private bool Needs(StandingTrouble standing, TroubleRow? row, DateTimeOffset now) =>
        (row is not null && row.UnseenFor(now) >= TroubleNews.OverAfter(options) / 4) || IsDue(standing, row, now);

    private bool IsDue(StandingTrouble standing, TroubleRow? row, DateTimeOffset now) =>
        !standing.Trouble.ConcernsStore && IsRipe(standing) && TroubleNews.IsDue(standing.Trouble, row?.ToldAt > 0 ? row.Told(now) : null, options, clock.GetUtcNow());

    private async Task TakeStepAsync(StoreTransaction transaction, StandingTrouble standing, DateTimeOffset now)
    {
        var trouble = standing.Trouble;
        var (subject, at) = (AlertText.Line(trouble.Subject), now.ToUnixTimeMilliseconds());
        var row = await TroublesTable.SeeAsync(transaction, trouble.Key, subject, at);
        if (IsDue(standing, row, now))
        {
            await TroublesTable.TellAsync(transaction, trouble.Key, subject, trouble.Size, at);
            await AlertsTable.AddAsync(transaction, TroubleNews.Content(trouble, TroubleNews.IsReminder(trouble, row.Told(now))), null, clock.GetUtcNow());
        }
    }

    private async Task EndAsync(StoreTransaction transaction, TroubleRow row, DateTimeOffset now)
    {
        if (!row.Stands)
        {
            await TroublesTable.RemoveAsync(transaction, row);
        }
        else if (await TroublesTable.EndAsync(transaction, row, now.ToUnixTimeMilliseconds()))
        {
            await AlertsTable.AddAsync(transaction, TroubleNews.Over(row.Subject), null, clock.GetUtcNow());
        }
    }

    private static bool IsForgotten(TroubleRow row, DateTimeOffset now) => !row.Stands && row.UnseenFor(now) >= Memory && row.ToldFor(now) >= Memory;

    /// <summary>The way that needs no store: what was told is kept in memory until the store works again.</summary>
    private void TellDirectly(IEnumerable<StandingTrouble> standing)
    {
        foreach (var trouble in standing.Select(one => one.Trouble))
        {
            TroubleTold? last = told.TryGetValue(trouble.Key, out var entry) ? Of(entry) : null;
            if (TroubleNews.IsDue(trouble, last, options, clock.GetUtcNow()))
            {
                told[trouble.Key] = new Told(AlertText.Line(trouble.Subject), true, trouble.Size, clock.GetTimestamp()) { SeenAt = clock.GetTimestamp() };
                direct.Add(trouble.Key, TroubleNews.Content(trouble, TroubleNews.IsReminder(trouble, last)));
            }
        }
    }

    private void EndDirectly(IReadOnlyList<StandingTrouble> standing, bool isStoreAway)
    {
        var here = standing.Select(one => one.Trouble.Key).ToHashSet();
        // What the store knows may stand in another instance: that one says so when the store works again. A row that is refused can be read, and tells whether it does.
        foreach (var (key, entry) in told.Where(entry => !here.Contains(entry.Key) && ((isStoreAway && !entry.Value.IsSaved) || refused.IsResting((News, entry.Key)))).ToList())
        {
            if (TroubleNews.IsOver(Of(entry), clock.GetElapsedTime(entry.SeenAt), options, clock.GetUtcNow()))
            {
                told[key] = entry with { Stands = false, At = clock.GetTimestamp(), IsSaved = false };
                direct.Add(key, TroubleNews.Over(entry.Subject));
            }
        }
    }

    private TroubleTold Of(Told entry) => new(entry.Stands, clock.GetElapsedTime(entry.At), entry.Size);

    /// <summary>A moment of the past on the monotonic clock.</summary>
    private long Back(TimeSpan ago) => clock.GetTimestamp() - (long)(ago.TotalSeconds * clock.TimestampFrequency);

    private Task SaveAsync(StoreTransaction transaction, string key, Told entry, DateTimeOffset now) => TroublesTable.PutAsync(
        transaction,
        new TroubleRow
        {
            Key = key,
            Subject = entry.Subject,
            State = entry.Stands ? "standing" : "over",
            Size = entry.Size,
            ToldAt = (now - clock.GetElapsedTime(entry.At)).ToUnixTimeMilliseconds(),
            SeenAt = (now - clock.GetElapsedTime(entry.SeenAt)).ToUnixTimeMilliseconds(),
        });

    /// <summary>An alert that left without the store takes its place in the list; where it did not leave yet the sender goes on.</summary>
    private async Task SaveAsync(StoreTransaction transaction, DirectAlerts.Letter letter)
    {
        var id = await AlertsTable.AddSentAsync(transaction, letter.Alert);
        foreach (var channel in direct.Channels.Where(channel => !letter.Served.TryGetValue(channel, out var at) || at is not null))
        {
            DateTimeOffset? sent = letter.Served.GetValueOrDefault(channel);
            if (sent is null && channel == options.Fallback)
            {
                continue;
            }
            await DeliveriesTable.AddAsync(
                transaction, id, channel, letter.Attempts, time.Now(), sent?.ToUnixTimeMilliseconds(), sent is null ? letter.Recipients.GetValueOrDefault(channel) : null);
        }
    }

    [LoggerMessage(LogLevel.Warning, "The service's troubles could not be told and are tried again: {Reason}")]
    private partial void LogFailed(string reason);

    [LoggerMessage(LogLevel.Warning, "The last alert of this process may not have left: no channel answered in time")]
    private partial void LogLastWordsLost();

    /// <summary>What was told, by the monotonic clock.</summary>
    private sealed record Told(string Subject, bool Stands, long Size, long At)
    {
        /// <summary>When it stood here last.</summary>
        public long SeenAt { get; set; }

        public bool IsSaved { get; set; }
    }
}

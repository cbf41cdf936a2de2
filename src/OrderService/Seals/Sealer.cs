using Microsoft.Extensions.Options;
using OrderService.Observability;
using OrderService.Store;

namespace OrderService.Seals;

/// <summary>Seals what was committed, again and again, and once more when the process stops: see docs/decisions/0037-seals-behind-the-commit.md.</summary>
public sealed partial class Sealer : BackgroundService
{
    private const string Failing = "seals";
    private const string Forged = "seals:forged";

    /// <summary>Between two seals it rests for so many times as long as the last one took: orders come first.</summary>
    private const int PauseFactor = 3;

    private static readonly TimeSpan ShortestPause = TimeSpan.FromMilliseconds(5);
    private static readonly TimeSpan LongestPause = TimeSpan.FromMilliseconds(500);

    /// <summary>What the stop may take for it; the next start seals the rest.</summary>
    private static readonly TimeSpan LongestGoodbye = TimeSpan.FromSeconds(5);

    private readonly IDatabase database;
    private readonly SealsOptions options;
    private readonly Troubles troubles;
    private readonly TimeProvider clock;
    private readonly ILogger<Sealer> logger;
    private readonly SealMaker maker;
    private volatile bool hasBegun;
    private long mine;
    private long foreign;
    private long told;
    private long complete;

    public Sealer(IDatabase database, IOptions<SealsOptions> options, OrderMetrics metrics, Troubles troubles, TimeProvider clock, ILogger<Sealer> logger)
    {
        this.database = database;
        this.options = options.Value;
        this.troubles = troubles;
        this.clock = clock;
        this.logger = logger;
        maker = new SealMaker(database, clock);
        complete = clock.GetTimestamp();
        metrics.SetSealing(() => clock.GetElapsedTime(Volatile.Read(ref complete)));
    }

    protected override Task ExecuteAsync(CancellationToken stoppingToken)
    {
        hasBegun = true;
        return PeriodicLoop.AtOnceAsync(options.Interval, clock, TryAsync, stoppingToken);
    }

    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        await base.StopAsync(cancellationToken);
        if (!hasBegun)
        {
            // It never came so far as to have a store.
            return;
        }
        // Stations that write have stopped before: what they wrote last is under seal when the process is gone.
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        patience.CancelAfter(LongestGoodbye);
        try
        {
            await maker.RunAsync(_ => Task.CompletedTask, patience.Token);
        }
        catch (Exception exception)
        {
            LogFailed(exception.Message);
        }
    }

    private async Task TryAsync(CancellationToken stoppingToken)
    {
        try
        {
            await RoundAsync(stoppingToken);
            troubles.Clear(Failing);
        }
        catch (StoreConflictException)
        {
            // Another instance was faster: it seals what is there.
        }
        catch (StoreUnavailableException)
        {
            // Readiness says so; the next tick seals all that came meanwhile.
        }
        catch (Exception exception) when (!stoppingToken.IsCancellationRequested)
        {
            LogFailed(exception.Message);
            troubles.Raise(new Trouble(
                Failing, TroubleLevel.Degraded, "Evidence is not sealed", $"What was written last has no seal yet, and that is tried again: {exception.Message}",
                "Orders are not affected. Until it is mended nobody can prove that new rows were not changed. Look at the store, and at Seals:KeyFile and its rights.")
            {
                Patience = TimeSpan.FromMinutes(2),
            });
        }
    }

    /// <summary>Seals all that is there, unless another instance does.</summary>
    internal async Task<SealRound> RoundAsync(CancellationToken cancellationToken)
    {
        var began = clock.GetTimestamp();
        var newest = await database.ReadAsync(SealsTable.NewestAsync, cancellationToken);
        var age = newest is null ? TimeSpan.MaxValue : clock.GetUtcNow() - DateTimeOffset.FromUnixTimeMilliseconds(newest.SealedAt);
        if (newest is not null && newest.Number > mine && mine > 0 && age >= TimeSpan.Zero && age < options.Interval)
        {
            mine = newest.Number;
            Volatile.Write(ref complete, began - (long)(age.TotalSeconds * clock.TimestampFrequency));
            return SealRound.Nothing;
        }
        var round = await maker.RunAsync(
            took => Task.Delay(TimeSpan.FromTicks(Math.Clamp(took.Ticks * PauseFactor, ShortestPause.Ticks, LongestPause.Ticks)), clock, cancellationToken), cancellationToken);
        mine = (await database.ReadAsync(SealsTable.NewestAsync, cancellationToken))?.Number ?? 0;
        Volatile.Write(ref complete, began);
        foreign += round.Foreign;
        if (foreign + round.Unknown == 0)
        {
            troubles.Clear(Forged);
            return round;
        }
        if (round.Foreign + round.Unknown != told)
        {
            told = round.Foreign + round.Unknown;
            LogForged(round.Foreign, round.Unknown);
        }
        troubles.Raise(new Trouble(
            Forged, TroubleLevel.Degraded, "Somebody else wrote to the store",
            $"{foreign} events and {round.Unknown} notes of changes are not signed by a key that is known here: another program wrote them, or an instance with another key.",
            "orderservice verify names the rows. Instances of one store need the same key: Seals:KeyFile, and Seals:Old for those of before."));
        return round;
    }

    [LoggerMessage(LogLevel.Warning, "Rows could not be sealed and are tried again: {Reason}")]
    private partial void LogFailed(string reason);

    [LoggerMessage(LogLevel.Error, "{Events} events and {Marks} notes of changes are not signed by a key that is known here; orderservice verify names the rows")]
    private partial void LogForged(long events, long marks);
}

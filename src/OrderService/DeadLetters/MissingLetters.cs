using Microsoft.Extensions.Options;
using OrderService.Inbox;
using OrderService.Observability;
using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>
/// Parks rejected messages whose dead letter never came: the bytes are kept with the rejection until then, so a broker that loses a letter loses nothing.
/// Of a body beyond the limit the rejection has size and fingerprint only; its letter is parked without, and has them when the broker's letter comes after all.
/// </summary>
public sealed partial class MissingLetters : BackgroundService
{
    private const int BatchSize = 100;

    // Of bodies read and parked together, beyond the first: a hundred of the largest would not fit into the memory.
    private const int BatchBytes = 1 << 20;

    private readonly IDatabase database;
    private readonly DeadLetterParking parking;
    private readonly IOptions<DeadLettersOptions> options;
    private readonly TimeProvider clock;
    private readonly ILogger<MissingLetters> logger;
    private readonly Blame<MissingLetter> blame;

    public MissingLetters(
        IDatabase database, DeadLetterParking parking, IOptions<DeadLettersOptions> options, Troubles troubles, TimeProvider clock, ILogger<MissingLetters> logger)
    {
        this.database = database;
        this.parking = parking;
        this.options = options;
        this.clock = clock;
        this.logger = logger;
        blame = new Blame<MissingLetter>(
            new BlamedWork<MissingLetter>(
                "missing-letters", "Dead letters that the broker lost", TroubleLevel.Degraded,
                (rows, token) => database.WriteAsync(async transaction => await parking.ParkAsync(transaction, await LettersAsync(transaction, rows)), token),
                GiveUpAsync,
                (_, token) => parking.TryAsync(database, token)),
            troubles, logger);
    }

    protected override Task ExecuteAsync(CancellationToken stoppingToken) =>
        PeriodicLoop.AfterTickAsync(options.Value.MissingAfter / 10, clock, ParkMissingAsync, stoppingToken, failed: exception =>
        {
            // The rejections keep their bytes; the next tick tries again.
            LogFailed(exception.Message);
            if (exception is StoreUnavailableException)
            {
                blame.Say(exception.Message, all: true);
            }
        });

    /// <returns>How many were found.</returns>
    internal async Task<int> ParkMissingAsync(CancellationToken cancellationToken)
    {
        var now = clock.GetUtcNow();
        var before = (now - options.Value.MissingAfter).ToUnixTimeMilliseconds();
        // Nothing is rejected in the future: what says so is from before the clock was set back.
        var beyond = (now + TimeSpan.FromMinutes(1)).ToUnixTimeMilliseconds();
        var (found, held) = (0, 0);
        while (await database.ReadAsync(connection => RejectionsTable.AnyMissingAsync(connection, before, beyond), cancellationToken))
        {
            // Those that are held stay in front and are passed over.
            var rows = await database.ReadAsync(connection => RejectionsTable.MissingAsync(connection, before, beyond, held, BatchSize), cancellationToken);
            if (rows.Count == 0)
            {
                break;
            }
            // What was held at the last tick is tried again; what went through meanwhile speaks against it.
            var together = Together(rows);
            var batch = await blame.DoAsync(together, again: true, cancellationToken);
            held += batch.Items.Count;
            found += together.Count - batch.Items.Count;
            if (batch.All || (together.Count == rows.Count && rows.Count < BatchSize))
            {
                break;
            }
        }
        if (held == 0)
        {
            blame.Over();
        }
        if (found > 0)
        {
            LogFound(found, options.Value.MissingAfter);
        }
        return found;
    }

    /// <summary>A message that fails by itself: its bytes are kept and nothing of it is looked at.</summary>
    private Task GiveUpAsync(MissingLetter row, Exception failure, CancellationToken cancellationToken)
    {
        LogLetterFailed(failure);
        return database.WriteAsync(
            async transaction => await parking.ParkAsync(
                transaction, DeadLetter.Raw(await RejectionsTable.BodyAsync(transaction, row.Key, row.Fingerprint)) with { Key = row.Key, Fingerprint = row.Fingerprint }), cancellationToken);
    }

    /// <summary>The first ones, as far as their bodies are small enough together.</summary>
    private static List<MissingLetter> Together(List<MissingLetter> rows)
    {
        var bytes = rows[0].Size ?? 0;
        var count = 1;
        while (count < rows.Count && (bytes += rows[count].Size ?? 0) <= BatchBytes)
        {
            count++;
        }
        return rows.GetRange(0, count);
    }

    private static async Task<List<DeadLetter>> LettersAsync(StoreTransaction transaction, IReadOnlyList<MissingLetter> rows)
    {
        var letters = new List<DeadLetter>(rows.Count);
        foreach (var row in rows)
        {
            letters.Add(LetterOf(row, await RejectionsTable.BodyAsync(transaction, row.Key, row.Fingerprint)));
        }
        return letters;
    }

    private static DeadLetter LetterOf(MissingLetter row, byte[] body) => DeadLetter.Of(
        row.Key, row.Fingerprint, new Rejection(row.Reason, row.Size is null ? row.Detail + DeadLetter.NoBytes : row.Detail, row.Field), row.Exception, body,
        row.Properties is null ? MessageProperties.Empty : MessagePropertiesJson.Read(row.Properties), row.OrderId);

    [LoggerMessage(LogLevel.Warning, "{Count} dead letters did not come within {After}; they were parked from the bytes kept with their rejection")]
    private partial void LogFound(int count, TimeSpan after);

    [LoggerMessage(LogLevel.Warning, "The search for missing dead letters failed and is tried again: {Reason}")]
    private partial void LogFailed(string reason);

    [LoggerMessage(LogLevel.Error, "A rejected message failed by itself; only its bytes are kept")]
    private partial void LogLetterFailed(Exception exception);
}

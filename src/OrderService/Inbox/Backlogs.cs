using OrderService.Observability;
using OrderService.Store;

namespace OrderService.Inbox;

/// <summary>
/// Decides the rest of the commands that waited for an order when more did than one transaction decides. One order's follow one another in turn, and what comes for the order
/// meanwhile stands behind them; between two transactions other orders go on.
/// </summary>
public sealed partial class Backlogs : BackgroundService
{
    private static readonly TimeSpan Interval = TimeSpan.FromMilliseconds(100);

    /// <summary>What a process that ended left behind is looked for this often; the process itself knows of its own.</summary>
    private static readonly TimeSpan SearchInterval = TimeSpan.FromMinutes(1);

    private readonly InboxCommit commit;
    private readonly IDatabase database;
    private readonly TimeProvider clock;
    private readonly ILogger<Backlogs> logger;
    private readonly Blame<string> blame;

    public Backlogs(InboxCommit commit, IDatabase database, Troubles troubles, TimeProvider clock, ILogger<Backlogs> logger)
    {
        this.commit = commit;
        this.database = database;
        this.clock = clock;
        this.logger = logger;
        blame = new Blame<string>(
            new BlamedWork<string>(
                "early-commands", "Commands that came before their orders", TroubleLevel.Degraded,
                static (_, _) => Task.CompletedTask, static (_, _, _) => Task.CompletedTask, static (_, _) => Task.CompletedTask),
            troubles, logger);
    }

    protected override Task ExecuteAsync(CancellationToken stoppingToken)
    {
        long? searched = null;
        return PeriodicLoop.AtOnceAsync(Interval, clock, LookAsync, stoppingToken, failed: exception =>
        {
            // They go on waiting, in turn; the search finds them again.
            searched = null;
            var isOfStore = exception is StoreUnavailableException or StoreRefusedException;
            blame.Say(isOfStore ? exception.Message : $"It fails with {exception.GetType().Name}.", all: true);
        });

        async Task LookAsync(CancellationToken cancellationToken)
        {
            if (searched is not { } last || clock.GetElapsedTime(last) > SearchInterval)
            {
                foreach (var orderId in await FindAsync(cancellationToken))
                {
                    await DecideAllAsync(orderId, cancellationToken);
                }
                searched = clock.GetTimestamp();
            }
            while (commit.NextBacklog() is { } orderId)
            {
                await DecideAllAsync(orderId, cancellationToken);
            }
            blame.Over();
        }
    }

    /// <summary>Orders that exist and for which commands wait still.</summary>
    internal Task<List<string>> FindAsync(CancellationToken cancellationToken) => database.ReadAsync(DeferredTable.ExistingOrdersAsync, cancellationToken);

    internal async Task DecideAllAsync(string orderId, CancellationToken cancellationToken)
    {
        var transactions = 1;
        while (await commit.DecideBacklogAsync(orderId, cancellationToken))
        {
            transactions++;
        }
        LogDecided(orderId, transactions);
    }

    [LoggerMessage(LogLevel.Debug, "The rest of the commands that had waited for order {OrderId} was decided in {Transactions} transactions")]
    private partial void LogDecided(string orderId, int transactions);
}

using OrderService.Inbox;
using OrderService.Observability;
using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>Commands whose order did not appear in time: they stop waiting and become dead letters (<c>order_unknown</c>). One that can't be given up never holds up the others.</summary>
public sealed partial class OverdueCommands : BackgroundService
{
    private const int BatchSize = 100;

    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(1);

    private readonly IDatabase database;
    private readonly DeadLetterParking parking;
    private readonly ClockSteps steps;
    private readonly TimeProvider clock;
    private readonly ILogger<OverdueCommands> logger;
    private readonly Blame<string> blame;

    public OverdueCommands(IDatabase database, DeadLetterParking parking, ClockSteps steps, Troubles troubles, TimeProvider clock, ILogger<OverdueCommands> logger)
    {
        this.database = database;
        this.parking = parking;
        this.steps = steps;
        this.clock = clock;
        this.logger = logger;
        blame = new Blame<string>(
            new BlamedWork<string>(
                "overdue-commands", "Commands whose order never came", TroubleLevel.Degraded,
                (keys, token) => ParkAsync(keys, ToLetter, token),
                GiveUpAsync,
                (_, token) => parking.TryAsync(database, token)),
            troubles, logger);
    }

    protected override Task ExecuteAsync(CancellationToken stoppingToken) =>
        PeriodicLoop.AfterTickAsync(Interval, clock, ParkOverdueAsync, stoppingToken, failed: exception =>
        {
            // They go on waiting; the next tick tries again.
            LogFailed(exception.Message);
            if (exception is StoreUnavailableException)
            {
                blame.Say(exception.Message, all: true);
            }
        });

    /// <returns>How many were given up.</returns>
    internal async Task<int> ParkOverdueAsync(CancellationToken cancellationToken)
    {
        // A clock that was set a moment ago makes no command late.
        var now = (await steps.LookAsync(cancellationToken)).ToUnixTimeMilliseconds();
        var parked = 0;
        var held = 0;
        var last = (Key: "", ExpiresAt: long.MinValue);
        while (true)
        {
            // From where the last batch ended, so that what stays behind is passed over.
            var due = await database.ReadAsync(connection => DeferredTable.OverdueAsync(connection, now, last, BatchSize), cancellationToken);
            if (due.Count > 0)
            {
                // What was held at the last tick is tried again; what went through meanwhile speaks against it.
                var batch = await blame.DoAsync(due.ConvertAll(row => row.Key), again: true, cancellationToken);
                parked += due.Count - batch.Items.Count;
                held += batch.Items.Count;
                if (batch.All)
                {
                    break;
                }
            }
            if (due.Count < BatchSize)
            {
                break;
            }
            last = due[^1];
        }
        if (held == 0)
        {
            blame.Over();
        }
        if (parked > 0)
        {
            LogParked(parked);
        }
        return parked;
    }

    /// <summary>A command that fails by itself: its bytes are kept and nothing of it is looked at.</summary>
    private Task GiveUpAsync(string key, Exception failure, CancellationToken cancellationToken)
    {
        LogCommandFailed(key, failure);
        return ParkAsync([key], ToRawLetter, cancellationToken);
    }

    private Task<int> ParkAsync(IReadOnlyList<string> keys, Func<GivenUpCommand, DeadLetter> letter, CancellationToken cancellationToken) => database.WriteAsync(
        async transaction =>
        {
            var rows = await DeferredTable.TakeAsync(transaction, keys);
            if (rows.Count > 0)
            {
                await parking.ParkAsync(transaction, rows.ConvertAll(row => letter(row)));
            }
            return rows.Count;
        },
        cancellationToken);

    private static Rejection InVain { get; } = new(
        RejectionReason.OrderUnknown,
        "The order did not appear while the command waited for it; check the order id, or replay the command once the order exists.", "/orderId");

    private static DeadLetter ToLetter(GivenUpCommand command) => DeadLetter.Of(
        command.Key, command.Fingerprint, InVain, null, command.Body, MessagePropertiesJson.Read(command.Properties), command.OrderId) with { Claims = true };

    // The type is needed for a replay, and was found valid when the command began to wait.
    private static DeadLetter ToRawLetter(GivenUpCommand command) => DeadLetter.Raw(command.Body) with
    {
        Key = command.Key,
        Fingerprint = command.Fingerprint,
        Rejection = InVain,
        Properties = new MessageProperties { Type = command.Type },
        Facts = LetterFacts.None with { OrderId = command.OrderId },
        Claims = true,
    };

    [LoggerMessage(LogLevel.Warning, "{Count} commands waited in vain for their orders and are dead letters now")]
    private partial void LogParked(int count);

    [LoggerMessage(LogLevel.Warning, "Overdue commands could not be given up yet: {Reason}")]
    private partial void LogFailed(string reason);

    [LoggerMessage(LogLevel.Error, "The overdue command {Key} failed by itself; only its bytes are kept")]
    private partial void LogCommandFailed(string key, Exception exception);
}

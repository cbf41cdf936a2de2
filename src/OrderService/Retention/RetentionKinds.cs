using OrderService.DeadLetters;
using OrderService.Domain;
using OrderService.Notifications;
using OrderService.Projections;
using OrderService.Store;

namespace OrderService.Retention;

/// <summary>A kind of rows that goes when it is old.</summary>
/// <param name="Name">As the settings, the metrics and the commands call it.</param>
/// <param name="Days">How long it is kept; null for ever.</param>
/// <param name="CountAsync">How many are older than a time (Unix milliseconds) and may go.</param>
/// <param name="Begin">The steps of one round: each call takes some out, the oldest first, and looks at 0 when none is left.</param>
internal sealed record RetentionKind(
    string Name, Func<RetentionOptions, int?> Days, Func<StoreConnection, long, Task<long>> CountAsync, Func<RetentionContext, Func<CancellationToken, Task<StepResult>>> Begin);

/// <summary>What the steps of a round work with.</summary>
/// <param name="Before">What is older goes, Unix milliseconds.</param>
/// <param name="Archive">Where orders are written to first; null where they need not be kept.</param>
internal sealed record RetentionContext(IDatabase Database, RetentionStep Step, long Before, long Now, RetentionOptions Options, OrderArchive? Archive);

/// <summary>Every kind, in the order of a round: letters before the incidents and alerts that they keep, orders last.</summary>
internal sealed class RetentionKinds(ILogger<RetentionKinds> logger)
{
    public const string ClosedOrders = "closed_orders";

    // As many as may fit into a step; what does not is read again with the next one.
    private const int PerStep = 200;
    private const int JobLettersPerStep = 500;

    public IReadOnlyList<RetentionKind> All { get; } =
    [
        OfAge("settled_dead_letters", options => options.SettledDeadLetters, LettersTable.CountOldAsync, LettersTable.OldAsync, LettersTable.RemoveOldAsync),
        new("resolved_incidents", options => Kept(options.ResolvedIncidents), IncidentsTable.CountOldAsync, context => async token => await context.Step.RunAsync(
            await context.Database.ReadAsync(connection => IncidentsTable.OldAsync(connection, context.Before, PerStep), token),
            (transaction, fingerprint) => IncidentsTable.RemoveOldAsync(transaction, fingerprint, context.Before), token)),
        OfAge("alerts", options => options.Alerts, AlertsTable.CountOldAsync, AlertsTable.OldAsync, AlertsTable.RemoveOldAsync),
        OfAge("history", options => options.History, HistoryTable.CountOldAsync, HistoryTable.OldAsync, HistoryTable.RemoveAsync),
        OfAge("history", options => options.History, RefusedPaymentsTable.CountOldAsync, RefusedPaymentsTable.OldAsync, (transaction, id, _) => RefusedPaymentsTable.RemoveAsync(transaction, id)),
        new("replay_jobs", options => Kept(options.ReplayJobs), ReplayJobsTable.CountOldAsync, context => async token => await context.Step.RunAsync(
            await context.Database.ReadAsync(connection => ReplayJobsTable.OldAsync(connection, context.Before, 1), token),
            (transaction, job) => ReplayJobsTable.RemoveOldAsync(transaction, job.Id, context.Before, JobLettersPerStep), token)),
        OfAge("audit", options => options.Audit, AuditTrail.CountOldAsync, AuditTrail.OldAsync, AuditTrail.RemoveAsync),
        .. Projections.ClosedOrders.Statuses.Select(status => Orders(status, logger)),
    ];

    /// <summary>The names without repetition.</summary>
    public IReadOnlyList<string> Names => [.. All.Select(kind => kind.Name).Distinct(StringComparer.Ordinal)];

    private static int? Kept(int days) => days == 0 ? null : days;

    private static RetentionKind OfAge(
        string name, Func<RetentionOptions, int> days, Func<StoreConnection, long, Task<long>> count,
        Func<StoreConnection, long, OldRow, int, Task<List<OldRow>>> old, Func<StoreTransaction, long, long, Task<long>> remove) => new(
        name, options => Kept(days(options)), count, context =>
        {
            var last = OldRow.First;
            return async token =>
            {
                var candidates = await context.Database.ReadAsync(connection => old(connection, context.Before, last, PerStep), token);
                var result = await context.Step.RunAsync(candidates, (transaction, row) => remove(transaction, row.Id, context.Before), token);
                // What could not be taken out is passed over in this round.
                last = result.Looked == 0 ? last : candidates[result.Looked - 1];
                return result;
            };
        });

    private static RetentionKind Orders(OrderStatus status, ILogger logger) => new(
        ClosedOrders, options => options.ClosedOrders, (connection, before) => OrderQueries.CountClosedAsync(connection, status, before),
        context =>
        {
            var steps = new ClosedOrderSteps(context, status, logger);
            return steps.NextAsync;
        });
}

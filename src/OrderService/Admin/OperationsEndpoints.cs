using System.Reflection;
using OrderService.Configuration;
using OrderService.DeadLetters;
using OrderService.Health;
using OrderService.Notifications;
using OrderService.Observability;
using OrderService.RabbitMq;
using OrderService.Store;

namespace OrderService.Admin;

/// <summary>What an operator looks at first: how it runs, how full the queues are, who did what.</summary>
internal static class OperationsEndpoints
{
    public static void MapOperations(this IEndpointRouteBuilder api)
    {
        var operations = api.MapGroup("").RequireAuthorization(Scopes.Read).WithTags("Operations");
        operations.MapGet("/stats", StatsAsync).WithName("stats").WithSummary("Rates, totals, backlogs, money held by dead letters, and the last minutes second by second.").Produces<Stats>().ProducesProblem(400);
        operations.MapGet("/queues", Queues).WithName("queues").WithSummary("Depths and consumers of the service's queues.").Produces<QueuesAnswer>();
        operations.MapGet("/audit", AuditAsync).WithName("audit").WithSummary("Who did what, newest first.").Produces<Page<AuditEntry>>().ProducesProblem(400);
    }

    private static async Task<IResult> StatsAsync(
        HttpContext context, StationReadings readings, Readiness readiness, OrderMetrics metrics, ServiceRoles roles, Troubles troubles, StoreCounts counts, QueueMonitor monitor, IntakeView intake, IDatabase database, MessagingMetrics times,
        TimeProvider clock, string? samples)
    {
        var wanted = 0;
        var given = context.Request.Query["samples"];
        if (given.Count > 1 || (given.Count == 1 && (!int.TryParse(given[0], out wanted) || wanted is < 0 or > StationReadings.MaxSamples)))
        {
            return Paging.BadParameter("samples", $"samples is a number from 0 to {StationReadings.MaxSamples}.");
        }
        var now = clock.GetUtcNow();
        var report = await readiness.CheckAsync(context.RequestAborted);
        var standing = troubles.Standing;
        var series = readings.Samples;
        var recent = series.TakeLast(10).ToList();
        double Rate(Func<Sample, long> of) => recent.Count == 0 ? 0 : Math.Round(recent.Sum(of) / (double)recent.Count, 2);
        var totals = metrics.Totals;
        var queue = monitor.Orders;
        var stored = await counts.ReadAsync(context.RequestAborted);
        var taken = await intake.ReadAsync(context.RequestAborted);
        var shown = series.TakeLast(wanted).ToList();
        return TypedResults.Ok(new Stats(
            now,
            new(Version, Environment.MachineName, readings.StartedAt, roles.ToString().Split(", "), database.Provider),
            report.IsReady,
            report.Degraded,
            report.Paused,
            report.Causes,
            [.. report.Checks.Select(check => new StatsComponent(check.Key, check.Value.State, check.Value.Detail))],
            new(Rate(sample => sample.Received), Rate(sample => sample.Accepted), Rate(sample => sample.Duplicates), Rate(sample => sample.Refused), Rate(sample => sample.DeadLettered), Rate(sample => sample.Published)),
            new(totals.Received, totals.Accepted, totals.Duplicates, totals.Refused, totals.Deferred, totals.DeadLettered, totals.Relayed),
            new(queue?.Ready, queue?.Unacknowledged, queue?.Consumers, Age(now, queue?.OldestSince)),
            new(metrics.Outbox.Pending, metrics.Outbox.Pending == 0 ? null : Math.Round(metrics.Outbox.OldestAge.TotalSeconds, 1)),
            new(stored.Waiting, Age(now, Time(stored.OldestWaiting))),
            new(stored.Held.Letters, Time(stored.NewestParked), stored.Held.OldestSince),
            stored.Incidents,
            new(stored.Held.Orders, stored.Held.Customers, [.. stored.Held.Value.Select(value => new Amount(value.Currency, value.Amount))], stored.Held.OldestSince),
            new(1, [.. shown.Select(sample => sample.At)], [.. shown.Select(sample => sample.Received)], [.. shown.Select(sample => sample.Accepted)],
                [.. shown.Select(sample => sample.DeadLettered)], [.. shown.Select(sample => sample.Published)], [.. shown.Select(sample => sample.Ready)],
                [.. shown.Select(sample => sample.Unacknowledged)], [.. shown.Select(sample => sample.DeadLetterDepth)]),
            [.. standing.Select(one => new StatsTrouble(one.Trouble.Key, Level(one.Trouble.Level), one.Trouble.Subject, one.Trouble.Detail, one.Trouble.Advice, one.Since))],
            taken,
            new(times.DecidedOfLate, times.RelayedOfLate)));
    }

    private static string Level(TroubleLevel level) => level switch
    {
        TroubleLevel.NotReady => "not ready",
        TroubleLevel.Degraded => "degraded",
        TroubleLevel.Paused => "paused",
        _ => "notice",
    };

    private static Microsoft.AspNetCore.Http.HttpResults.Ok<QueuesAnswer> Queues(QueueMonitor monitor, TimeProvider clock)
    {
        var now = clock.GetUtcNow();
        return TypedResults.Ok(new QueuesAnswer(
            [.. monitor.Depths.Select(depth => new QueueView(
                depth.Queue,
                depth.Queue switch
                {
                    TopologyNames.Orders => "commands in",
                    TopologyNames.DeadLetters => "dead letters on their way to the store",
                    TopologyNames.Unreadable => "dead letters that can't be read",
                    TopologyNames.UnroutedEvents => "events nobody subscribed to",
                    _ when TopologyNames.IsPartition(depth.Queue) => "commands in, by order id",
                    _ => "",
                },
                depth.Exists,
                depth.Exists ? depth.Ready : null,
                depth.Unacknowledged,
                depth.Total,
                depth.Exists ? depth.Consumers : null,
                Age(now, depth.OldestSince),
                depth.At))],
            monitor.UnsafePolicies,
            monitor.PoliciesUnknown,
            monitor.ManagementError,
            monitor.Unconsumed,
            monitor.LastError));
    }

    private static async Task<IResult> AuditAsync(HttpContext context, AuditLog audit, string? who, string? action, string? after, string? limit)
    {
        if (!Paging.TryReadOne(context, "who", out who, out var problem) || !Paging.TryReadOne(context, "action", out action, out problem))
        {
            return problem;
        }
        var list = $"audit|{who}|{action}";
        if (Paging.Read(context, list, out problem) is not { } page)
        {
            return problem;
        }
        var found = await audit.ReadAsync(who, action, page.After, page.Limit + 1, context.RequestAborted);
        return TypedResults.Ok(new Page<AuditEntry>([.. found.Take(page.Limit)], found.Count > page.Limit ? Paging.Encode(list, found[page.Limit - 1].Id) : null));
    }

    private static string Version => typeof(OperationsEndpoints).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion.Split('+')[0] ?? "0.0.0";

    private static DateTimeOffset? Time(long? milliseconds) => milliseconds is { } known ? DateTimeOffset.FromUnixTimeMilliseconds(known) : null;

    private static double? Age(DateTimeOffset now, DateTimeOffset? since) => since is { } time ? Math.Round((now - time).TotalSeconds, 1) : null;
}

/// <summary>Counts over the whole store, see <see cref="Kept{T}"/>.</summary>
internal sealed class StoreCounts(IDatabase database, TimeProvider clock) : IDisposable
{
    private readonly Kept<Counted> counted = new(token => database.ReadAsync(connection => CountAsync(connection, clock.GetUtcNow().ToUnixTimeMilliseconds()), token), clock);

    public Task<Counted> ReadAsync(CancellationToken cancellationToken) => counted.ReadAsync(cancellationToken);

    public void Dispose() => counted.Dispose();

    private static async Task<Counted> CountAsync(StoreConnection connection, long now)
    {
        var held = await LetterAlerts.HeldAsync(connection, null);
        var newest = await LettersTable.NewestParkedAsync(connection);
        var waiting = await DeferredTable.CountAsync(connection);
        var incidents = await IncidentsTable.CountsAsync(connection, now);
        long Count(string state) => incidents.Where(row => row.State == state && row.Muted == 0).Sum(row => row.Incidents);
        return new Counted(
            held, newest, waiting.Waiting, waiting.OldestAt,
            new(Count("new") + Count("acknowledged") + Count("regressed"), Count("new"), Count("regressed"), Count("acknowledged"), incidents.Where(row => row.Muted == 1).Sum(row => row.Incidents)));
    }

    internal sealed record Counted(AlertHeld Held, long? NewestParked, long Waiting, long? OldestWaiting, StatsIncidents Incidents);
}

internal sealed record Stats(
    DateTimeOffset At, StatsService Service, bool Ready, bool Degraded, bool Paused, IReadOnlyList<string> Causes, IReadOnlyList<StatsComponent> Components, StatsRates Rates, StatsTotals Totals,
    StatsQueue Queue, StatsBacklog Outbox, StatsWaiting Deferred, StatsLetters DeadLetters, StatsIncidents Incidents, StatsHeld Held, StatsSeries Series, IReadOnlyList<StatsTrouble> Troubles,
    IReadOnlyList<QueueIntake> Intake, StatsTimes Times);

/// <summary>How long messages took in this process in the last five minutes, in seconds; null where there were none.</summary>
/// <param name="Critical">From sending, in whole seconds by the producer's clock, to the commit.</param>
/// <param name="Relay">From the commit of an event to the broker's confirm.</param>
internal sealed record StatsTimes(TimesOfLate? Critical, TimesOfLate? Relay);

internal sealed record StatsService(string Version, string Instance, DateTimeOffset StartedAt, IReadOnlyList<string> Roles, string Store);

/// <summary>Something that stands still or went wrong in this process.</summary>
/// <param name="Key">The same key is the same trouble.</param>
/// <param name="Level"><c>not ready</c>, <c>degraded</c>, <c>paused</c> or <c>notice</c>.</param>
/// <param name="Advice">What to do about it; null when nothing is to be done.</param>
internal sealed record StatsTrouble(string Key, string Level, string Subject, string Detail, string? Advice, DateTimeOffset Since);

/// <param name="State"><c>ok</c>, <c>paused</c>, <c>degraded</c> or <c>down</c>.</param>
internal sealed record StatsComponent(string Name, string State, string Detail);

/// <summary>Per second, over the last ten seconds.</summary>
internal sealed record StatsRates(double Received, double Accepted, double Duplicates, double Refused, double DeadLettered, double Published);

/// <summary>Since this process started.</summary>
internal sealed record StatsTotals(long Received, long Accepted, long Duplicates, long Refused, long Deferred, long DeadLettered, long Published);

/// <param name="UnsafePolicies">Policies that could lose messages, one sentence each; null where that is not known.</param>
/// <param name="PoliciesUnknown">Why it is not known.</param>
/// <param name="ManagementError">Why the management API did not answer, or not all of it.</param>
/// <param name="LastError">Why the newest reading failed.</param>
/// <param name="Unconsumed">What is left in partitions above those that are consumed, one sentence for each.</param>
internal sealed record QueuesAnswer(
    IReadOnlyList<QueueView> Items, IReadOnlyList<string>? UnsafePolicies, string? PoliciesUnknown, string? ManagementError, IReadOnlyList<string> Unconsumed, string? LastError);

/// <param name="Unacknowledged">In hand of consumers; known with the management API only, as is <paramref name="Total"/>.</param>
/// <param name="OldestAgeSeconds">How long the oldest message that is ready has waited at the least; null when none waits or it is not known.</param>
internal sealed record QueueView(
    string Name, string Purpose, bool Exists, long? Ready, long? Unacknowledged, long? Total, int? Consumers, double? OldestAgeSeconds, DateTimeOffset At);

internal sealed record StatsQueue(long? Ready, long? Unacknowledged, int? Consumers, double? OldestAgeSeconds);

internal sealed record StatsBacklog(long Pending, double? OldestAgeSeconds);

internal sealed record StatsWaiting(long Waiting, double? OldestAgeSeconds);

internal sealed record StatsLetters(long Parked, DateTimeOffset? NewestAt, DateTimeOffset? OldestAt);

internal sealed record StatsIncidents(long Open, long New, long Regressed, long Acknowledged, long Muted);

internal sealed record StatsHeld(long Orders, long Customers, IReadOnlyList<Amount> Value, DateTimeOffset? OldestSince);

/// <summary>Second by second, oldest first; arrays are equally long, a null is a gap.</summary>
internal sealed record StatsSeries(
    int StepSeconds, IReadOnlyList<long> At, IReadOnlyList<long> Received, IReadOnlyList<long> Accepted, IReadOnlyList<long> DeadLettered, IReadOnlyList<long> Published,
    IReadOnlyList<long?> Ready, IReadOnlyList<long?> Unacknowledged, IReadOnlyList<long?> DeadLetterDepth);

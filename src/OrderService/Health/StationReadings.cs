using Dapper;
using OrderService.Configuration;
using OrderService.Database;
using OrderService.EventStore;
using OrderService.Inbox;
using OrderService.Observability;
using OrderService.Outbox;
using OrderService.RabbitMq;

namespace OrderService.Health;

/// <summary>Reads what the stations know about themselves every two seconds and hands it to the metrics.</summary>
public sealed partial class StationReadings(
    ServiceRoles roles, IServiceProvider stations, IDatabase database, OrderMetrics metrics, TimeProvider clock, ILogger<StationReadings> logger) : BackgroundService
{
    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(2);

    private readonly long[] counted = new long[Enum.GetValues<Fate>().Length];
    private long sent;

    /// <summary>Counts dead letters by their reasons; called after each commit.</summary>
    internal void Count(Append append)
    {
        foreach (var rejection in append.Rejections)
        {
            metrics.DeadLettered(rejection.Reason);
        }
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var tick = new PeriodicTimer(Interval, clock);
        do
        {
            try
            {
                if (roles.Orders)
                {
                    ReadInbox(stations.GetRequiredService<InboxProcessor>());
                }
                if (roles.Relay)
                {
                    var relayed = stations.GetRequiredService<OutboxRelay>().Sent;
                    metrics.Relayed((int)(relayed - sent));
                    sent = relayed;
                }
                metrics.SetQueues([.. stations.GetRequiredService<QueueMonitor>().Depths.Where(depth => depth.Exists)
                    .Select(depth => new QueueReading(depth.Queue, depth.Ready, depth.Unacknowledged, depth.Consumers))]);
                await ReadStoreAsync(stoppingToken);
            }
            catch (StoreUnavailableException)
            {
                // Readiness says so; the last readings stay.
            }
            catch (Exception exception) when (!stoppingToken.IsCancellationRequested)
            {
                LogReadingFailed(exception);
            }
        }
        while (await NextTickAsync(tick, stoppingToken));
    }

    private static async Task<bool> NextTickAsync(PeriodicTimer tick, CancellationToken stoppingToken)
    {
        try
        {
            return await tick.WaitForNextTickAsync(stoppingToken);
        }
        catch (OperationCanceledException)
        {
            return false;
        }
    }

    private void ReadInbox(InboxProcessor inbox)
    {
        metrics.SetCircuit(inbox.StoreCircuit switch
        {
            Polly.CircuitBreaker.CircuitState.Closed => CircuitState.Closed,
            Polly.CircuitBreaker.CircuitState.HalfOpen => CircuitState.HalfOpen,
            _ => CircuitState.Open,
        });
        var all = 0;
        foreach (var fate in Enum.GetValues<Fate>())
        {
            var now = inbox.Fates[(int)fate];
            var more = (int)(now - counted[(int)fate]);
            counted[(int)fate] = now;
            all += more;
            switch (fate)
            {
                case Fate.Accepted:
                    metrics.Processed("accepted", more);
                    break;
                case Fate.Refused:
                    metrics.Processed("refused", more);
                    break;
                case Fate.Deferred:
                    metrics.Processed("deferred", more);
                    break;
                case Fate.Duplicate:
                    metrics.Duplicate(more);
                    break;
            }
        }
        metrics.Received(all);
    }

    private async Task ReadStoreAsync(CancellationToken cancellationToken)
    {
        var (pending, oldest) = await stations.GetRequiredService<OutboxStore>().BacklogAsync(cancellationToken);
        metrics.SetOutbox(pending, oldest is { } at ? clock.GetUtcNow() - DateTimeOffset.FromUnixTimeMilliseconds(at) : TimeSpan.Zero);
        metrics.SetOpenLetters(await database.ReadAsync(
            async connection => (await connection.QueryAsync<(string Reason, long Letters)>(
                "SELECT reason, count(*) FROM dead_letters WHERE status = 'parked' GROUP BY reason")).ToDictionary(row => row.Reason, row => row.Letters),
            cancellationToken));
    }

    [LoggerMessage(LogLevel.Warning, "The stations' readings failed; the metrics keep the last ones")]
    private partial void LogReadingFailed(Exception exception);
}

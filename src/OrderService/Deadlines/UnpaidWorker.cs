using Microsoft.Extensions.Options;
using OrderService.Inbox;
using OrderService.Store;

namespace OrderService.Deadlines;

/// <summary>Begins a round for unpaid orders now and then, when all is calm.</summary>
internal sealed partial class UnpaidWorker(
    UnpaidRound round, IntakeCalm calm, IOptions<OrdersOptions> options, TimeProvider clock, ILogger<UnpaidWorker> logger) : BackgroundService
{
    private static readonly TimeSpan Tick = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan LongestInterval = TimeSpan.FromMinutes(1);

    /// <summary>So long nobody need know that it waits.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(10);

    private long? began;
    private long waitsSince;
    private bool isTold;

    protected override Task ExecuteAsync(CancellationToken stoppingToken)
    {
        waitsSince = clock.GetTimestamp();
        return PeriodicLoop.AfterTickAsync(Tick, clock, LookAsync, stoppingToken, OnFailure);
    }

    private void OnFailure(Exception exception)
    {
        // Of a store that is out of reach readiness tells. Nothing is lost: what is unpaid still is due at the next round.
        if (exception is not StoreUnavailableException)
        {
            LogFailed(exception);
        }
    }

    internal async Task LookAsync(CancellationToken cancellationToken)
    {
        var reason = calm.WhyNot();
        if (began is { } last && clock.GetElapsedTime(last) < Interval())
        {
            waitsSince = clock.GetTimestamp();
            return;
        }
        if (reason is not null)
        {
            if (!isTold && clock.GetElapsedTime(waitsSince) >= Patience)
            {
                isTold = true;
                LogWaits(reason);
            }
            return;
        }
        (began, waitsSince, isTold) = (clock.GetTimestamp(), clock.GetTimestamp(), false);
        calm.Forget();
        if ((await round.RunAsync(cancellationToken)).HasMore)
        {
            began = null;
        }
    }

    /// <summary>Often enough that none is late by much more than a tenth.</summary>
    private TimeSpan Interval() => options.Value.CancelUnpaidAfter / 10 is { } tenth && tenth < LongestInterval ? tenth : LongestInterval;

    [LoggerMessage(LogLevel.Warning, "A round for unpaid orders failed and is tried again")]
    private partial void LogFailed(Exception exception);

    [LoggerMessage(LogLevel.Warning, "Unpaid orders are not cancelled for now: {Reason}")]
    private partial void LogWaits(string reason);
}

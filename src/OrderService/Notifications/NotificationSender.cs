using System.Collections.Concurrent;
using Microsoft.Extensions.Options;
using OrderService.Database;
using OrderService.Observability;
using OrderService.Store;

namespace OrderService.Notifications;

/// <summary>
/// Sends alerts. Each pair of alert and channel is a row of its own, tried again with growing pauses until it is sent, so that a dead channel
/// delays only itself. Any number of processes may run it: an alert is sent at least once, and twice only when a process dies between sending and recording.
/// A channel that does not work is a trouble that the other channels tell of, and so is an alert that reached nobody.
/// </summary>
public sealed partial class NotificationSender : BackgroundService
{
    /// <summary>How long an attempt belongs to the process that began it; longer than any channel's own time limit.</summary>
    private static readonly TimeSpan Lease = TimeSpan.FromMinutes(3);

    /// <summary>An alert that makes a channel throw this often is set aside.</summary>
    private const int MostUnexpectedFailures = 5;

    private const int BatchSize = 20;

    private const int DispatchSize = 100;

    private const string Dispatch = "dispatch";

    private const string Undelivered = "alerts:undelivered";

    /// <summary>How often it is looked for alerts that reached nobody.</summary>
    private static readonly TimeSpan UndeliveredInterval = TimeSpan.FromMinutes(1);

    private readonly IDatabase database;
    private readonly IReadOnlyList<INotificationChannel> channels;
    private readonly AlertsOptions options;
    private readonly OrderMetrics metrics;
    private readonly TimeProvider clock;
    private readonly ILogger<NotificationSender> logger;
    private readonly Troubles troubles;
    private readonly StoreTime time;
    private readonly ConcurrentDictionary<string, ChannelState> states = new();
    private readonly RefusedRows<(string Step, long Alert)> refused;

    /// <summary>What left and could not be noted, because the store refuses the row.</summary>
    private readonly ConcurrentDictionary<(string Channel, long Alert), ChannelAnswer> unrecorded = new();
    private (string Subject, long LastAlert)? undelivered;
    private long? undeliveredLookedAt;

    public NotificationSender(
        IDatabase database, IEnumerable<INotificationChannel> channels, IOptions<AlertsOptions> options, OrderMetrics metrics, Troubles troubles, StoreTime time, TimeProvider clock,
        ILogger<NotificationSender> logger)
    {
        this.troubles = troubles;
        this.time = time;
        this.database = database;
        this.channels = [.. channels];
        this.options = options.Value;
        this.metrics = metrics;
        this.clock = clock;
        this.logger = logger;
        refused = new RefusedRows<(string Step, long Alert)>("alerts", "Alerts", troubles, clock, logger);
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        if (channels.Count == 0)
        {
            LogNoChannels();
        }
        await Task.WhenAll(Steps.Select(step => PeriodicLoop.AtOnceAsync(options.PollInterval, clock, token => TryAsync(step, token), stoppingToken)));
    }

    /// <summary>What is done again and again, each for itself.</summary>
    internal IEnumerable<(string Name, Func<CancellationToken, Task> Do)> Steps =>
    [
        (Dispatch, DispatchAsync),
        ("undelivered", LookForUndeliveredAsync),
        .. channels.Select(channel => (channel.Name, (Func<CancellationToken, Task>)(token => SendDueAsync(channel, token)))),
    ];

    /// <summary>Gives each new alert a delivery for each channel.</summary>
    /// <returns>How many alerts were new.</returns>
    internal async Task<int> DispatchAsync(CancellationToken cancellationToken)
    {
        // Of what waits in quiet hours only this is written before they end: an incident is over when it is over, the notice can wait.
        var held = options.QuietHours.Include(clock.GetUtcNow()) ? AlertKind.Recovery : "";
        var dispatched = 0;
        var last = 0L;
        while (true)
        {
            // A look before the write: an idle service commits nothing. From where the last page ended, so that what stays behind is passed over.
            var page = await database.ReadAsync(connection => AlertsTable.UndispatchedAsync(connection, held, last, DispatchSize), cancellationToken);
            var waiting = page.Where(id => !refused.IsResting((Dispatch, id))).ToList();
            if (waiting.Count > 0)
            {
                dispatched += (await database.WriteAsync(
                    transaction => refused.WriteAsync(transaction, waiting, id => (Dispatch, id), ids => DispatchAsync(transaction, ids)), cancellationToken)).Count;
            }
            if (page.Count < DispatchSize)
            {
                return dispatched;
            }
            last = page[^1];
        }
    }

    private async Task<IReadOnlyList<long>> DispatchAsync(StoreTransaction transaction, IReadOnlyList<long> alerts)
    {
        foreach (var channel in channels.Where(channel => channel.Name != options.Fallback))
        {
            await DeliveriesTable.AddAsync(transaction, alerts, channel.Name, time.Now());
        }
        await AlertsTable.MarkDispatchedAsync(transaction, alerts);
        return alerts;
    }

    /// <summary>Tries what is due on one channel. When the channel itself fails the rest waits for the next round: the first one is the probe.</summary>
    /// <returns>How many were sent.</returns>
    internal async Task<int> SendDueAsync(INotificationChannel channel, CancellationToken cancellationToken)
    {
        if (!states.TryGetValue(channel.Name, out var state))
        {
            state = await RememberAsync(channel.Name, cancellationToken);
        }
        if (state is { Name: ChannelState.Off, AskedAt: { } asked } && clock.GetElapsedTime(asked) is var since && since < options.MaxRetryDelay)
        {
            await PassOnAsync(channel.Name, state, options.MaxRetryDelay - since, cancellationToken);
            return 0;
        }
        var sent = 0;
        var last = (DueAt: long.MinValue, Id: 0L);
        while (await DueAsync(channel.Name, last, cancellationToken) is { Count: > 0 } due)
        {
            last = (due[^1].DueAt, due[^1].Id);
            var claimed = await ClaimAsync(channel.Name, due, cancellationToken);
            for (var index = 0; index < claimed.Count; index++)
            {
                var key = (channel.Name, claimed[index].Id);
                var answer = unrecorded.TryGetValue(key, out var known) ? known : await TryAsync(channel, claimed[index], cancellationToken);
                if (await RecordAsync(channel, claimed[index], answer, cancellationToken))
                {
                    unrecorded.TryRemove(key, out _);
                }
                else if (answer is ChannelAnswer.Sent)
                {
                    // It is due again when its claim ends: then it is only noted.
                    unrecorded[key] = answer;
                }
                if (answer is ChannelAnswer.Sent)
                {
                    sent++;
                }
                else if (answer is ChannelAnswer.Gone or ChannelAnswer.Retry { IsOwn: false })
                {
                    await ReleaseAsync(channel.Name, [.. claimed.Skip(index + 1)], cancellationToken);
                    return sent;
                }
            }
        }
        return sent;
    }

    /// <summary>What a process before this one, or another, found out about a channel.</summary>
    private async Task<ChannelState> RememberAsync(string channel, CancellationToken cancellationToken)
    {
        var known = await database.ReadAsync(connection => ChannelsTable.FindAsync(connection, channel), cancellationToken);
        var state = known is null ? new ChannelState(ChannelState.Ok, null, null) : new ChannelState(known.State, known.Reason, null);
        states[channel] = state;
        Raise(channel, state);
        return state;
    }

    /// <summary>What is due on a channel that is off waits until it is asked again, and goes to the fallback at once.</summary>
    private async Task PassOnAsync(string channel, ChannelState state, TimeSpan wait, CancellationToken cancellationToken)
    {
        var last = (DueAt: long.MinValue, Id: 0L);
        while (await DueAsync(channel, last, cancellationToken) is { Count: > 0 } due)
        {
            last = (due[^1].DueAt, due[^1].Id);
            var waiting = due.Where(delivery => !refused.IsResting(("pass on " + channel, delivery.Id))).ToList();
            if (waiting.Count > 0)
            {
                await database.WriteAsync(transaction => refused.WriteAsync(
                    transaction, waiting, delivery => ("pass on " + channel, delivery.Id), some => PassOnAsync(transaction, channel, state, wait, some)), cancellationToken);
            }
        }
    }

    private async Task<IReadOnlyList<DueDelivery>> PassOnAsync(StoreTransaction transaction, string channel, ChannelState state, TimeSpan wait, IReadOnlyList<DueDelivery> due)
    {
        var now = time.Now();
        var alerts = due.Select(delivery => delivery.Id).ToList();
        if (FallbackOf(channel) is { } fallback)
        {
            await DeliveriesTable.PassOnAsync(transaction, alerts, channel, fallback, now);
        }
        await DeliveriesTable.PostponeAsync(transaction, alerts, channel, now + (long)wait.TotalMilliseconds, state.Reason);
        return due;
    }

    private string? FallbackOf(string channel) => string.IsNullOrEmpty(options.Fallback) || channel == options.Fallback ? null : options.Fallback;

    /// <summary>No deadline that is written lies further away: one that does is from before the clock was set back.</summary>
    private long Beyond(long now) => now + (long)((options.MaxRetryDelay > Lease ? options.MaxRetryDelay : Lease) + TimeSpan.FromMinutes(1)).TotalMilliseconds;

    /// <param name="last">The last one of the page before: what stays behind is passed over.</param>
    private Task<List<DueDelivery>> DueAsync(string channel, (long DueAt, long Id) last, CancellationToken cancellationToken)
    {
        var now = time.Now();
        return database.ReadAsync(connection => DeliveriesTable.DueAsync(connection, channel, now, Beyond(now), last, BatchSize), cancellationToken);
    }

    private async Task<List<DueDelivery>> ClaimAsync(string channel, List<DueDelivery> due, CancellationToken cancellationToken)
    {
        var step = "claim for " + channel;
        var free = due.Where(delivery => !refused.IsResting((step, delivery.Id))).ToList();
        return free.Count == 0
            ? []
            : await database.WriteAsync(transaction => refused.WriteAsync(transaction, free, delivery => (step, delivery.Id), some => ClaimAsync(transaction, channel, some)), cancellationToken);
    }

    private async Task<IReadOnlyList<DueDelivery>> ClaimAsync(StoreTransaction transaction, string channel, IReadOnlyList<DueDelivery> due)
    {
        var mine = new List<DueDelivery>(due.Count);
        foreach (var delivery in due)
        {
            if (await DeliveriesTable.ClaimAsync(transaction, delivery, channel, time.Now() + (long)Lease.TotalMilliseconds))
            {
                mine.Add(delivery with { Attempts = delivery.Attempts + 1 });
            }
        }
        return mine;
    }

    private async Task<ChannelAnswer> TryAsync(INotificationChannel channel, DueDelivery delivery, CancellationToken cancellationToken)
    {
        try
        {
            return await channel.SendAsync(delivery.ToAlert(), cancellationToken);
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
            // Whether it left is not known; it is tried again, here or elsewhere, when the claim ends.
            throw;
        }
        catch (Exception exception)
        {
            LogUnexpected(channel.Name, delivery.Id, exception);
            var reason = $"{exception.GetType().Name}: {AlertText.Line(exception.Message)}";
            return delivery.Attempts >= MostUnexpectedFailures ? new ChannelAnswer.Refused(reason) : new ChannelAnswer.Retry(reason) { IsOwn = true };
        }
    }

    /// <returns>False when the store refuses to note it.</returns>
    private async Task<bool> RecordAsync(INotificationChannel channel, DueDelivery delivery, ChannelAnswer answer, CancellationToken cancellationToken)
    {
        PlantedBug.Plant("failed-alert-is-sent", () => answer = new ChannelAnswer.Sent());
        PlantedBug.Plant("failed-alert-is-given-up", () => answer = answer is ChannelAnswer.Retry retry ? new ChannelAnswer.Refused(retry.Reason) : answer);
        var now = time.GetUtcNow();
        var age = now - DateTimeOffset.FromUnixTimeMilliseconds(delivery.BegunAt ?? delivery.CreatedAt);
        var (status, error, pause) = NextStep(answer, delivery.Attempts, age);
        var fallback = status == "failed" || answer is ChannelAnswer.Gone || (status == "pending" && age >= options.FallbackAfter) ? FallbackOf(channel.Name) : null;
        var state = Learn(channel.Name, answer);
        var record = new DeliveryRecord(
            status, error, (now + pause).ToUnixTimeMilliseconds(), status == "sent" ? clock.GetUtcNow().ToUnixTimeMilliseconds() : null, answer.Recipients ?? delivery.Recipients);
        // The alert left, or did not; stopping must not turn that into a second one.
        var isRecorded = await StoreRetry.Pipeline.ExecuteAsync(async token => await database.WriteAsync(async transaction =>
        {
            var recorded = await refused.WriteAsync(transaction, [delivery], _ => ("note for " + channel.Name, delivery.Id), async some =>
            {
                await DeliveriesTable.RecordAsync(transaction, delivery.Id, channel.Name, record);
                if (fallback is not null)
                {
                    await DeliveriesTable.AddAsync(transaction, delivery.Id, fallback, now.ToUnixTimeMilliseconds());
                }
                return some;
            });
            if (state is not null)
            {
                // For the page only: no alert has to wait for it.
                await refused.WriteAsync(transaction, [state], _ => ("show " + channel.Name, 0), some => ShowAsync(transaction, channel.Name, some));
            }
            if (status == "sent" && channel.Name != "log" && undelivered is { } told && delivery.Kind == AlertKind.Service && delivery.Subject.EndsWith(told.Subject, StringComparison.Ordinal))
            {
                await refused.WriteAsync(transaction, [told.LastAlert], alert => (Undelivered, alert), async some =>
                {
                    await SchedulesTable.PutAsync(transaction, Undelivered, told.LastAlert);
                    return some;
                });
                undeliveredLookedAt = null;
            }
            return recorded.Count > 0;
        }, CancellationToken.None), cancellationToken);
        if (!isRecorded)
        {
            return false;
        }

        metrics.AlertSent(channel.Name, status == "pending" ? "retried" : status);
        switch (status)
        {
            case "sent" when error is not null:
                LogPartlyRefused(channel.Name, delivery.Id, error);
                break;
            case "failed":
                undeliveredLookedAt = null;
                LogSetAside(channel.Name, delivery.Id, error!);
                break;
            case "pending":
                LogRetry(channel.Name, delivery.Id, delivery.Attempts, error!, (int)pause.TotalSeconds);
                break;
        }
        return true;
    }

    private (string Status, string? Error, TimeSpan Pause) NextStep(ChannelAnswer answer, long attempts, TimeSpan age) => answer switch
    {
        ChannelAnswer.Sent sent => ("sent", sent.Note, TimeSpan.Zero),
        ChannelAnswer.Refused refused => ("failed", refused.Reason, TimeSpan.Zero),
        ChannelAnswer.Retry { HasReached: true } retry when age >= options.GiveUpAfter => ("sent", $"given up after {attempts} attempts: {retry.Reason}", TimeSpan.Zero),
        _ when age >= options.GiveUpAfter => ("failed", $"given up after {attempts} attempts: {answer.Text}", TimeSpan.Zero),
        ChannelAnswer.Gone gone => ("pending", gone.Reason, options.MaxRetryDelay),
        ChannelAnswer.Retry retry when Backoff.Pause(attempts, options) is var pause =>
            ("pending", retry.Reason, retry.After is { } after && after > pause ? Shorter(after, options.MaxRetryDelay) : pause),
        _ => throw new InvalidOperationException($"An answer nobody knows: {answer}"),
    };

    /// <summary>What an answer says about its channel.</summary>
    /// <returns>The new state; null when nothing changed.</returns>
    private ChannelState? Learn(string channel, ChannelAnswer answer)
    {
        var known = states.GetValueOrDefault(channel);
        var learned = answer switch
        {
            ChannelAnswer.Sent => new ChannelState(ChannelState.Ok, null, null),
            ChannelAnswer.Gone gone => new ChannelState(ChannelState.Off, gone.Reason, clock.GetTimestamp()),
            ChannelAnswer.Retry { IsOwn: false } retry => new ChannelState(ChannelState.Failing, retry.Reason, null),
            // The alert's own affair.
            _ => known,
        };
        if (learned is null || learned == known)
        {
            return null;
        }
        states[channel] = learned;
        Raise(channel, learned);
        if (learned.Name != known?.Name && learned.Name == ChannelState.Off)
        {
            LogOff(channel, learned.Reason!, options.MaxRetryDelay);
        }
        return learned;
    }

    private void Raise(string channel, ChannelState state)
    {
        var key = $"alerts:{channel}";
        switch (state.Name)
        {
            case ChannelState.Ok:
                troubles.Clear(key);
                break;
            case ChannelState.Off:
                troubles.Raise(new Trouble(
                    key, TroubleLevel.Degraded, $"The alert channel {channel} is off", $"The alert channel {channel} is off: {state.Reason}. It is asked again every {options.MaxRetryDelay:c}.",
                    $"Set its new address, or switch it off in the settings under Alerts. Try it with a test alert."));
                break;
            default:
                troubles.Raise(new Trouble(
                    key, TroubleLevel.Degraded, $"The alert channel {channel} does not work", $"Alerts do not leave by {channel}: {state.Reason}.",
                    $"Look at what is behind it (docs/operations.md); every alert is tried again for {options.GiveUpAfter:c}.") { Patience = TimeSpan.FromMinutes(1) });
                break;
        }
    }

    /// <summary>For the page, which another process may serve.</summary>
    private async Task<IReadOnlyList<ChannelState>> ShowAsync(StoreTransaction transaction, string channel, IReadOnlyList<ChannelState> state)
    {
        await ChannelsTable.PutAsync(transaction, channel, state[^1].Name, state[^1].Reason, clock.GetUtcNow().ToUnixTimeMilliseconds());
        return state;
    }

    /// <summary>An alert that no channel to people could deliver is a trouble itself, until a channel has told of it.</summary>
    internal async Task LookForUndeliveredAsync(CancellationToken cancellationToken)
    {
        if (undeliveredLookedAt is { } before && clock.GetElapsedTime(before) < UndeliveredInterval)
        {
            return;
        }
        var found = await database.ReadAsync(connection => AlertsTable.UndeliveredAsync(connection, Undelivered), cancellationToken);
        undeliveredLookedAt = clock.GetTimestamp();
        if (found.Count == 0)
        {
            undelivered = null;
            troubles.Clear(Undelivered);
            return;
        }
        var subject = found.Count == 1 ? "1 alert reached nobody" : FormattableString.Invariant($"{found.Count:N0} alerts reached nobody");
        undelivered = (subject, found[^1].Id);
        troubles.Raise(new Trouble(
            Undelivered, TroubleLevel.Degraded, subject,
            $"No channel could deliver {string.Join(", ", found.Take(5).Select(alert => $"'{alert.Subject}'"))}{(found.Count > 5 ? " and others" : "")}.",
            "Read them on the page under Alerts, and look why the channels failed.") { Size = found.Count });
    }

    /// <summary>Gives back what was claimed and not tried.</summary>
    private async Task ReleaseAsync(string channel, IReadOnlyList<DueDelivery> untried, CancellationToken cancellationToken)
    {
        if (untried.Count == 0)
        {
            return;
        }
        await database.WriteAsync(transaction => refused.WriteAsync(transaction, untried, delivery => ("release for " + channel, delivery.Id), async some =>
        {
            await DeliveriesTable.ReleaseAsync(transaction, [.. some.Select(delivery => delivery.Id)], channel, time.Now());
            return some;
        }), cancellationToken);
    }

    private static TimeSpan Shorter(TimeSpan one, TimeSpan other) => one < other ? one : other;

    internal async Task TryAsync((string Name, Func<CancellationToken, Task> Do) step, CancellationToken stoppingToken)
    {
        try
        {
            await step.Do(stoppingToken);
            refused.Pass(step.Name);
        }
        catch (Exception exception) when (!stoppingToken.IsCancellationRequested)
        {
            // What was not recorded is still pending, or due again when its claim ends.
            LogStepFailed(step.Name, exception.Message);
            refused.Fail(step.Name, exception);
        }
    }

    [LoggerMessage(LogLevel.Warning, "No alert channel is switched on: nobody is told of dead letters (set Alerts:Log:Enabled, Alerts:Email:Enabled or Alerts:Webhook:Enabled)")]
    private partial void LogNoChannels();

    [LoggerMessage(LogLevel.Warning, "Sending alerts ({Step}) failed and is tried again: {Reason}")]
    private partial void LogStepFailed(string step, string reason);

    [LoggerMessage(LogLevel.Error, "The channel {Channel} threw on alert {AlertId}")]
    private partial void LogUnexpected(string channel, long alertId, Exception exception);

    [LoggerMessage(LogLevel.Warning, "Alert {AlertId} did not leave by {Channel} in attempt {Attempt}: {Reason}; the next attempt is in {Seconds} s")]
    private partial void LogRetry(string channel, long alertId, long attempt, string reason, int seconds);

    [LoggerMessage(LogLevel.Error, "Alert {AlertId} will not leave by {Channel}: {Reason}")]
    private partial void LogSetAside(string channel, long alertId, string reason);

    [LoggerMessage(LogLevel.Warning, "Alert {AlertId} left by {Channel}, but it was {Note}")]
    private partial void LogPartlyRefused(string channel, long alertId, string note);

    [LoggerMessage(LogLevel.Error, "The alert channel {Channel} is off and is asked again every {Pause}: {Reason}")]
    private partial void LogOff(string channel, string reason, TimeSpan pause);

    /// <summary>How a channel does.</summary>
    /// <param name="AskedAt">When a channel that is off was asked last.</param>
    private sealed record ChannelState(string Name, string? Reason, long? AskedAt)
    {
        public const string Ok = "ok";
        public const string Failing = "failing";
        public const string Off = "off";
    }
}

using System.Collections.Concurrent;
using System.Data.Common;
using System.Text.Json;
using Dapper;
using Microsoft.Extensions.Options;
using OrderService.Database;
using OrderService.Observability;

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
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        if (channels.Count == 0)
        {
            LogNoChannels();
        }
        await Task.WhenAll([
            RepeatAsync("dispatch", async () =>
            {
                await DispatchAsync(stoppingToken);
                await LookForUndeliveredAsync(stoppingToken);
            }, stoppingToken),
            .. channels.Select(channel => RepeatAsync(channel.Name, () => SendDueAsync(channel, stoppingToken), stoppingToken)),
        ]);
    }

    /// <summary>Gives each new alert a delivery for each channel.</summary>
    /// <returns>How many alerts were new.</returns>
    internal async Task<int> DispatchAsync(CancellationToken cancellationToken)
    {
        // Of what waits in quiet hours only this is written before they end: an incident is over when it is over, the notice can wait.
        var held = options.QuietHours.Include(clock.GetUtcNow()) ? AlertKind.Recovery : "";
        // A look before the write: an idle service commits nothing.
        var waiting = await database.ReadAsync(
            async connection => (await connection.QueryAsync<long>("SELECT id FROM alerts WHERE dispatched = 0 AND kind <> @held ORDER BY id LIMIT 100", new { held })).AsList(), cancellationToken);
        if (waiting.Count == 0)
        {
            return 0;
        }
        var parameters = new DynamicParameters(new { now = time.Now() });
        var list = SqlList.Add(parameters, "id", waiting);
        await database.WriteAsync(async transaction =>
        {
            foreach (var channel in channels.Where(channel => channel.Name != options.Fallback))
            {
                parameters.Add("channel", channel.Name);
                await transaction.Connection!.ExecuteAsync(
                    $"""
                    INSERT INTO alert_deliveries (alert_id, channel, status, attempts, next_attempt_at, begun_at)
                    SELECT id, @channel, 'pending', 0, @now, @now FROM alerts WHERE id IN {list} AND dispatched = 0
                    ON CONFLICT (alert_id, channel) DO NOTHING
                    """,
                    parameters, transaction);
            }
            await transaction.Connection!.ExecuteAsync($"UPDATE alerts SET dispatched = 1 WHERE id IN {list}", parameters, transaction);
        }, cancellationToken);
        return waiting.Count;
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
        while (await ClaimAsync(channel.Name, cancellationToken) is { Count: > 0 } claimed)
        {
            for (var index = 0; index < claimed.Count; index++)
            {
                var key = (channel.Name, claimed[index].Id);
                var answer = unrecorded.TryGetValue(key, out var known) ? known : await TryAsync(channel, claimed[index], cancellationToken);
                try
                {
                    await RecordAsync(channel, claimed[index], answer, cancellationToken);
                    unrecorded.TryRemove(key, out _);
                }
                catch (StoreRefusedException exception)
                {
                    // It is due again when its claim ends: then it is only noted, if it left.
                    if (answer is ChannelAnswer.Sent)
                    {
                        unrecorded[key] = answer;
                    }
                    LogRefused(channel.Name, claimed[index].Id, exception.Message);
                }
                if (answer is ChannelAnswer.Sent)
                {
                    sent++;
                }
                else if (answer is ChannelAnswer.Gone or ChannelAnswer.Retry { IsOwn: false })
                {
                    await ReleaseAsync(channel.Name, claimed.Skip(index + 1), cancellationToken);
                    return sent;
                }
            }
        }
        return sent;
    }

    /// <summary>What a process before this one, or another, found out about a channel.</summary>
    private async Task<ChannelState> RememberAsync(string channel, CancellationToken cancellationToken)
    {
        var rows = await database.ReadAsync(async connection => (await connection.QueryAsync<(string State, string? Reason)>(
            "SELECT state, reason FROM alert_channels WHERE channel = @channel", new { channel })).AsList(), cancellationToken);
        var state = rows is [var known] ? new ChannelState(known.State, known.Reason, null) : new ChannelState(ChannelState.Ok, null, null);
        states[channel] = state;
        Raise(channel, state);
        return state;
    }

    /// <summary>What is due on a channel that is off waits until it is asked again, and goes to the fallback at once.</summary>
    private async Task PassOnAsync(string channel, ChannelState state, TimeSpan wait, CancellationToken cancellationToken)
    {
        var now = time.Now();
        var parameters = new { now, until = now + (long)wait.TotalMilliseconds, beyond = Beyond(now), channel, reason = state.Reason, options.Fallback };
        const string Due = "channel = @channel AND status = 'pending' AND (next_attempt_at <= @now OR next_attempt_at > @beyond)";
        if (!await database.ReadAsync(connection => connection.ExecuteScalarAsync<bool>($"SELECT EXISTS (SELECT 1 FROM alert_deliveries WHERE {Due})", parameters), cancellationToken))
        {
            return;
        }
        await database.WriteAsync(async transaction =>
        {
            if (HasFallback(channel))
            {
                await transaction.Connection!.ExecuteAsync(
                    $"""
                    INSERT INTO alert_deliveries (alert_id, channel, status, attempts, next_attempt_at, begun_at)
                    SELECT alert_id, @Fallback, 'pending', 0, @now, @now FROM alert_deliveries WHERE {Due} ON CONFLICT (alert_id, channel) DO NOTHING
                    """,
                    parameters, transaction);
            }
            await transaction.Connection!.ExecuteAsync($"UPDATE alert_deliveries SET next_attempt_at = @until, last_error = @reason WHERE {Due}", parameters, transaction);
        }, cancellationToken);
    }

    private bool HasFallback(string channel) => !string.IsNullOrEmpty(options.Fallback) && channel != options.Fallback;

    /// <summary>No deadline that is written lies further away: one that does is from before the clock was set back.</summary>
    private long Beyond(long now) => now + (long)((options.MaxRetryDelay > Lease ? options.MaxRetryDelay : Lease) + TimeSpan.FromMinutes(1)).TotalMilliseconds;

    private async Task<List<DueDelivery>> ClaimAsync(string channel, CancellationToken cancellationToken)
    {
        var now = time.Now();
        var due = await database.ReadAsync(async connection => (await connection.QueryAsync<DueDelivery>(
            """
            SELECT a.id AS Id, a.kind AS Kind, a.incident AS Incident, a.subject AS Subject, a.text AS Text, a.data AS Data, a.letters AS Letters,
                   a.created_at AS CreatedAt, d.attempts AS Attempts, d.next_attempt_at AS DueAt, d.begun_at AS BegunAt, d.recipients AS Recipients
            FROM alert_deliveries d JOIN alerts a ON a.id = d.alert_id
            WHERE d.status = 'pending' AND (d.next_attempt_at <= @now OR d.next_attempt_at > @beyond) AND d.channel = @channel
            ORDER BY d.next_attempt_at, d.alert_id LIMIT @BatchSize
            """,
            new { now, beyond = Beyond(now), channel, BatchSize })).AsList(), cancellationToken);
        if (due.Count == 0)
        {
            return due;
        }
        try
        {
            return await ClaimAsync(channel, due, now, cancellationToken);
        }
        catch (StoreRefusedException)
        {
            // One row that the store refuses must not hold up the others. It stays due.
            var mine = new List<DueDelivery>(due.Count);
            foreach (var delivery in due)
            {
                try
                {
                    mine.AddRange(await ClaimAsync(channel, [delivery], now, cancellationToken));
                }
                catch (StoreRefusedException exception)
                {
                    LogRefused(channel, delivery.Id, exception.Message);
                }
            }
            return mine;
        }
    }

    private Task<List<DueDelivery>> ClaimAsync(string channel, List<DueDelivery> due, long now, CancellationToken cancellationToken) =>
        database.WriteAsync(async transaction =>
        {
            var mine = new List<DueDelivery>(due.Count);
            foreach (var delivery in due)
            {
                // Of two processes that saw the same row, the second finds it moved.
                var claimed = await transaction.Connection!.ExecuteAsync(
                    "UPDATE alert_deliveries SET attempts = attempts + 1, next_attempt_at = @until WHERE alert_id = @Id AND channel = @channel AND status = 'pending' AND next_attempt_at = @DueAt",
                    new { until = now + (long)Lease.TotalMilliseconds, delivery.Id, channel, delivery.DueAt }, transaction);
                if (claimed == 1)
                {
                    mine.Add(delivery with { Attempts = delivery.Attempts + 1 });
                }
            }
            return mine;
        }, cancellationToken);

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

    private async Task RecordAsync(INotificationChannel channel, DueDelivery delivery, ChannelAnswer answer, CancellationToken cancellationToken)
    {
        var now = time.GetUtcNow();
        var age = now - DateTimeOffset.FromUnixTimeMilliseconds(delivery.BegunAt ?? delivery.CreatedAt);
        var (status, error, pause) = NextStep(answer, delivery.Attempts, age);
        var needsFallback = HasFallback(channel.Name) && (status == "failed" || answer is ChannelAnswer.Gone || (status == "pending" && age >= options.FallbackAfter));
        var state = Learn(channel.Name, answer);
        // The alert left, or did not; stopping must not turn that into a second one.
        var parameters = new
        {
            status,
            error,
            now = now.ToUnixTimeMilliseconds(),
            next = (now + pause).ToUnixTimeMilliseconds(),
            sentAt = status == "sent" ? clock.GetUtcNow().ToUnixTimeMilliseconds() : (long?)null,
            recipients = answer.Recipients ?? delivery.Recipients,
            delivery.Id,
            channel = channel.Name,
            options.Fallback,
        };
        await StoreRetry.Pipeline.ExecuteAsync(async token => await database.WriteAsync(async transaction =>
        {
            await transaction.Connection!.ExecuteAsync(
                """
                UPDATE alert_deliveries SET status = @status, last_error = @error, next_attempt_at = @next, sent_at = @sentAt, recipients = @recipients
                WHERE alert_id = @Id AND channel = @channel AND status = 'pending'
                """,
                parameters, transaction);
            if (needsFallback)
            {
                await transaction.Connection!.ExecuteAsync(
                    """
                    INSERT INTO alert_deliveries (alert_id, channel, status, attempts, next_attempt_at, begun_at) VALUES (@Id, @Fallback, 'pending', 0, @now, @now)
                    ON CONFLICT (alert_id, channel) DO NOTHING
                    """,
                    parameters, transaction);
            }
            if (state is not null)
            {
                await ShowAsync(transaction, channel.Name, state);
            }
            if (status == "sent" && channel.Name != "log" && undelivered is { } told && delivery.Kind == AlertKind.Service && delivery.Subject.EndsWith(told.Subject, StringComparison.Ordinal))
            {
                await transaction.Connection!.ExecuteAsync(
                    "INSERT INTO schedules (name, last_at) VALUES (@Undelivered, @LastAlert) ON CONFLICT (name) DO UPDATE SET last_at = excluded.last_at", new { Undelivered, told.LastAlert }, transaction);
                undeliveredLookedAt = null;
            }
        }, CancellationToken.None), cancellationToken);

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
    private Task ShowAsync(DbTransaction transaction, string channel, ChannelState state) => transaction.Connection!.ExecuteAsync(
        """
        INSERT INTO alert_channels (channel, state, reason, since) VALUES (@channel, @Name, @Reason, @now)
        ON CONFLICT (channel) DO UPDATE SET reason = excluded.reason, since = CASE WHEN alert_channels.state = excluded.state THEN alert_channels.since ELSE excluded.since END, state = excluded.state
        """,
        new { channel, state.Name, state.Reason, now = clock.GetUtcNow().ToUnixTimeMilliseconds() }, transaction);

    /// <summary>An alert that no channel to people could deliver is a trouble itself, until a channel has told of it.</summary>
    internal async Task LookForUndeliveredAsync(CancellationToken cancellationToken)
    {
        if (undeliveredLookedAt is { } before && clock.GetElapsedTime(before) < UndeliveredInterval)
        {
            return;
        }
        var found = await database.ReadAsync(async connection => (await connection.QueryAsync<(long Id, string Subject)>(
            """
            SELECT a.id, a.subject FROM alerts a
            WHERE a.id > coalesce((SELECT last_at FROM schedules WHERE name = @Undelivered), 0)
              AND EXISTS (SELECT 1 FROM alert_deliveries d WHERE d.alert_id = a.id AND d.status = 'failed')
              AND NOT EXISTS (SELECT 1 FROM alert_deliveries d WHERE d.alert_id = a.id AND (d.status = 'pending' OR (d.status = 'sent' AND d.channel <> 'log')))
            ORDER BY a.id LIMIT 1000
            """,
            new { Undelivered })).AsList(), cancellationToken);
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
    private async Task ReleaseAsync(string channel, IEnumerable<DueDelivery> untried, CancellationToken cancellationToken)
    {
        var rest = untried.Select(delivery => delivery.Id).ToList();
        if (rest.Count == 0)
        {
            return;
        }
        var parameters = new DynamicParameters(new { next = time.Now(), channel });
        var list = SqlList.Add(parameters, "id", rest);
        await database.WriteAsync(transaction => transaction.Connection!.ExecuteAsync(
            $"UPDATE alert_deliveries SET attempts = attempts - 1, next_attempt_at = @next WHERE channel = @channel AND alert_id IN {list} AND status = 'pending'",
            parameters, transaction), cancellationToken);
    }

    private static TimeSpan Shorter(TimeSpan one, TimeSpan other) => one < other ? one : other;

    private async Task RepeatAsync(string what, Func<Task> step, CancellationToken stoppingToken)
    {
        using var tick = new PeriodicTimer(options.PollInterval, clock);
        try
        {
            do
            {
                try
                {
                    await step();
                }
                catch (Exception exception) when (!stoppingToken.IsCancellationRequested)
                {
                    // What was not recorded is still pending, or due again when its claim ends.
                    LogStepFailed(what, exception.Message);
                }
            }
            while (await tick.WaitForNextTickAsync(stoppingToken));
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // The process stops.
        }
    }

    [LoggerMessage(LogLevel.Warning, "No alert channel is switched on: nobody is told of dead letters (set Alerts:Log:Enabled, Alerts:Email:Enabled or Alerts:Webhook:Enabled)")]
    private partial void LogNoChannels();

    [LoggerMessage(LogLevel.Warning, "Sending alerts ({Step}) failed and is tried again: {Reason}")]
    private partial void LogStepFailed(string step, string reason);

    [LoggerMessage(LogLevel.Error, "The store refuses to note what became of alert {AlertId} on the channel {Channel}; the others go on: {Reason}")]
    private partial void LogRefused(string channel, long alertId, string reason);

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

    private sealed record DueDelivery(
        long Id, string Kind, string? Incident, string Subject, string Text, string Data, long Letters, long CreatedAt, long Attempts, long DueAt, long? BegunAt,
        string? Recipients)
    {
        public Alert ToAlert() => new(
            Id, Kind, Incident, Subject, Text,
            JsonSerializer.Deserialize(Data, AlertJson.Default.AlertContent) ?? throw new FormatException("The alert's data is empty."),
            Letters, DateTimeOffset.FromUnixTimeMilliseconds(CreatedAt)) { Recipients = Recipients };
    }
}

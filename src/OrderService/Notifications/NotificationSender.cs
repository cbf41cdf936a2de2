using System.Collections.Concurrent;
using System.Text.Json;
using Dapper;
using Microsoft.Extensions.Options;
using OrderService.Database;
using OrderService.Observability;

namespace OrderService.Notifications;

/// <summary>
/// Sends alerts. Each pair of alert and channel is a row of its own, tried again with growing pauses until it is sent, so that a dead channel
/// delays only itself. Any number of processes may run it: an alert is sent at least once, and twice only when a process dies between sending and recording.
/// </summary>
public sealed partial class NotificationSender : BackgroundService
{
    /// <summary>How long an attempt belongs to the process that began it; longer than any channel's own time limit.</summary>
    private static readonly TimeSpan Lease = TimeSpan.FromMinutes(3);

    /// <summary>An alert that makes a channel throw this often is set aside.</summary>
    private const int MostUnexpectedFailures = 5;

    private const int BatchSize = 20;

    private readonly IDatabase database;
    private readonly IReadOnlyList<INotificationChannel> channels;
    private readonly AlertsOptions options;
    private readonly OrderMetrics metrics;
    private readonly TimeProvider clock;
    private readonly ILogger<NotificationSender> logger;
    private readonly ConcurrentDictionary<string, string> gone = new();

    public NotificationSender(
        IDatabase database, IEnumerable<INotificationChannel> channels, IOptions<AlertsOptions> options, OrderMetrics metrics, TimeProvider clock, ILogger<NotificationSender> logger)
    {
        this.database = database;
        this.channels = [.. channels];
        this.options = options.Value;
        this.metrics = metrics;
        this.clock = clock;
        this.logger = logger;
    }

    /// <summary>The channels that are switched on, and why one of them is off until the next start.</summary>
    public IReadOnlyList<(string Name, string? OffBecause)> Channels => [.. channels.Select(channel => (channel.Name, gone.GetValueOrDefault(channel.Name)))];

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        if (channels.Count == 0)
        {
            LogNoChannels();
        }
        await Task.WhenAll([
            RepeatAsync("dispatch", () => DispatchAsync(stoppingToken), stoppingToken),
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
        var parameters = new DynamicParameters(new { now = clock.GetUtcNow().ToUnixTimeMilliseconds() });
        var list = SqlList.Add(parameters, "id", waiting);
        await database.WriteAsync(async transaction =>
        {
            foreach (var channel in channels.Where(channel => channel.Name != options.Fallback))
            {
                parameters.Add("channel", channel.Name);
                await transaction.Connection!.ExecuteAsync(
                    $"""
                    INSERT INTO alert_deliveries (alert_id, channel, status, attempts, next_attempt_at)
                    SELECT id, @channel, 'pending', 0, @now FROM alerts WHERE id IN {list} AND dispatched = 0
                    ON CONFLICT (alert_id, channel) DO NOTHING
                    """,
                    parameters, transaction);
            }
            await transaction.Connection!.ExecuteAsync($"UPDATE alerts SET dispatched = 1 WHERE id IN {list}", parameters, transaction);
        }, cancellationToken);
        return waiting.Count;
    }

    /// <summary>Tries what is due on one channel. After a failure the rest waits for the next round: the first one is the probe.</summary>
    /// <returns>How many were sent.</returns>
    internal async Task<int> SendDueAsync(INotificationChannel channel, CancellationToken cancellationToken)
    {
        if (gone.ContainsKey(channel.Name))
        {
            return 0;
        }
        var sent = 0;
        while (await ClaimAsync(channel.Name, cancellationToken) is { Count: > 0 } claimed)
        {
            for (var index = 0; index < claimed.Count; index++)
            {
                var answer = await TryAsync(channel, claimed[index], cancellationToken);
                await RecordAsync(channel, claimed[index], answer, cancellationToken);
                if (answer is ChannelAnswer.Sent)
                {
                    sent++;
                }
                else if (answer is not ChannelAnswer.Refused)
                {
                    await ReleaseAsync(channel.Name, claimed.Skip(index + 1), cancellationToken);
                    return sent;
                }
            }
        }
        return sent;
    }

    private async Task<List<DueDelivery>> ClaimAsync(string channel, CancellationToken cancellationToken)
    {
        var now = clock.GetUtcNow();
        var due = await database.ReadAsync(async connection => (await connection.QueryAsync<DueDelivery>(
            """
            SELECT a.id AS Id, a.kind AS Kind, a.incident AS Incident, a.subject AS Subject, a.text AS Text, a.data AS Data, a.letters AS Letters,
                   a.created_at AS CreatedAt, d.attempts AS Attempts, d.next_attempt_at AS DueAt
            FROM alert_deliveries d JOIN alerts a ON a.id = d.alert_id
            WHERE d.status = 'pending' AND d.next_attempt_at <= @now AND d.channel = @channel
            ORDER BY d.next_attempt_at, d.alert_id LIMIT @BatchSize
            """,
            new { now = now.ToUnixTimeMilliseconds(), channel, BatchSize })).AsList(), cancellationToken);
        if (due.Count == 0)
        {
            return due;
        }
        return await database.WriteAsync(async transaction =>
        {
            var mine = new List<DueDelivery>(due.Count);
            foreach (var delivery in due)
            {
                // Of two processes that saw the same row, the second finds it moved.
                var claimed = await transaction.Connection!.ExecuteAsync(
                    "UPDATE alert_deliveries SET attempts = attempts + 1, next_attempt_at = @until WHERE alert_id = @Id AND channel = @channel AND status = 'pending' AND next_attempt_at = @DueAt",
                    new { until = (now + Lease).ToUnixTimeMilliseconds(), delivery.Id, channel, delivery.DueAt }, transaction);
                if (claimed == 1)
                {
                    mine.Add(delivery with { Attempts = delivery.Attempts + 1 });
                }
            }
            return mine;
        }, cancellationToken);
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
            return delivery.Attempts >= MostUnexpectedFailures ? new ChannelAnswer.Refused(reason) : new ChannelAnswer.Retry(reason);
        }
    }

    private async Task RecordAsync(INotificationChannel channel, DueDelivery delivery, ChannelAnswer answer, CancellationToken cancellationToken)
    {
        var now = clock.GetUtcNow();
        var pause = Pause(delivery.Attempts);
        var (status, error, next) = answer switch
        {
            ChannelAnswer.Sent sent => ("sent", sent.Note, now),
            ChannelAnswer.Refused refused => ("failed", refused.Reason, now),
            ChannelAnswer.Gone gone => ("failed", gone.Reason, now),
            ChannelAnswer.Retry retry when now - delivery.CreatedAtTime >= options.GiveUpAfter => ("failed", $"given up after {delivery.Attempts} attempts: {retry.Reason}", now),
            ChannelAnswer.Retry retry => ("pending", retry.Reason, now + (retry.After is { } after && after > pause ? Shorter(after, options.MaxRetryDelay) : pause)),
            _ => throw new InvalidOperationException($"An answer nobody knows: {answer}"),
        };
        // The alert left, or did not; stopping must not turn that into a second one.
        var parameters = new
        {
            status,
            error,
            now = now.ToUnixTimeMilliseconds(),
            next = next.ToUnixTimeMilliseconds(),
            sentAt = status == "sent" ? now.ToUnixTimeMilliseconds() : (long?)null,
            delivery.Id,
            channel = channel.Name,
            options.Fallback,
        };
        var needsFallback = !string.IsNullOrEmpty(options.Fallback) && channel.Name != options.Fallback
            && (status == "failed" || (status == "pending" && now - delivery.CreatedAtTime >= options.FallbackAfter));
        await StoreRetry.Pipeline.ExecuteAsync(async token => await database.WriteAsync(async transaction =>
        {
            await transaction.Connection!.ExecuteAsync(
                "UPDATE alert_deliveries SET status = @status, last_error = @error, next_attempt_at = @next, sent_at = @sentAt WHERE alert_id = @Id AND channel = @channel AND status = 'pending'",
                parameters, transaction);
            if (needsFallback)
            {
                await transaction.Connection!.ExecuteAsync(
                    """
                    INSERT INTO alert_deliveries (alert_id, channel, status, attempts, next_attempt_at) VALUES (@Id, @Fallback, 'pending', 0, @now)
                    ON CONFLICT (alert_id, channel) DO NOTHING
                    """,
                    parameters, transaction);
            }
        }, CancellationToken.None), cancellationToken);

        metrics.AlertSent(channel.Name, status == "pending" ? "retried" : status);
        switch (status)
        {
            case "sent" when error is not null:
                LogPartlyRefused(channel.Name, delivery.Id, error);
                break;
            case "failed":
                LogSetAside(channel.Name, delivery.Id, error!);
                break;
            case "pending":
                LogRetry(channel.Name, delivery.Id, delivery.Attempts, error!, (int)(next - now).TotalSeconds);
                break;
        }
        if (answer is ChannelAnswer.Gone && gone.TryAdd(channel.Name, error!))
        {
            LogGone(channel.Name, error!);
        }
    }

    /// <summary>Gives back what was claimed and not tried.</summary>
    private async Task ReleaseAsync(string channel, IEnumerable<DueDelivery> untried, CancellationToken cancellationToken)
    {
        var rest = untried.Select(delivery => delivery.Id).ToList();
        if (rest.Count == 0)
        {
            return;
        }
        var parameters = new DynamicParameters(new { next = clock.GetUtcNow().ToUnixTimeMilliseconds(), channel });
        var list = SqlList.Add(parameters, "id", rest);
        await database.WriteAsync(transaction => transaction.Connection!.ExecuteAsync(
            $"UPDATE alert_deliveries SET attempts = attempts - 1, next_attempt_at = @next WHERE channel = @channel AND alert_id IN {list} AND status = 'pending'",
            parameters, transaction), cancellationToken);
    }

    private TimeSpan Pause(long attempts)
    {
        var full = Shorter(options.RetryDelay * Math.Pow(2, Math.Min(attempts - 1, 30)), options.MaxRetryDelay);
        return full * (0.5 + (Random.Shared.NextDouble() / 2));
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

    [LoggerMessage(LogLevel.Error, "The channel {Channel} threw on alert {AlertId}")]
    private partial void LogUnexpected(string channel, long alertId, Exception exception);

    [LoggerMessage(LogLevel.Warning, "Alert {AlertId} did not leave by {Channel} in attempt {Attempt}: {Reason}; the next attempt is in {Seconds} s")]
    private partial void LogRetry(string channel, long alertId, long attempt, string reason, int seconds);

    [LoggerMessage(LogLevel.Error, "Alert {AlertId} will not leave by {Channel}: {Reason}")]
    private partial void LogSetAside(string channel, long alertId, string reason);

    [LoggerMessage(LogLevel.Warning, "Alert {AlertId} left by {Channel}, but it was {Note}")]
    private partial void LogPartlyRefused(string channel, long alertId, string note);

    [LoggerMessage(LogLevel.Error, "The alert channel {Channel} is off until the next start: {Reason}")]
    private partial void LogGone(string channel, string reason);

    private sealed record DueDelivery(
        long Id, string Kind, string? Incident, string Subject, string Text, string Data, long Letters, long CreatedAt, long Attempts, long DueAt)
    {
        public DateTimeOffset CreatedAtTime => DateTimeOffset.FromUnixTimeMilliseconds(CreatedAt);

        public Alert ToAlert() => new(
            Id, Kind, Incident, Subject, Text,
            JsonSerializer.Deserialize(Data, AlertJson.Default.AlertContent) ?? throw new FormatException("The alert's data is empty."),
            Letters, CreatedAtTime);
    }
}

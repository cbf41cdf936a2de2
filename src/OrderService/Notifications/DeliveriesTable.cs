using System.Text.Json;
using OrderService.Store;

namespace OrderService.Notifications;

/// <summary>Each pair of alert and channel: how far it is, and when it is tried again.</summary>
internal static class DeliveriesTable
{
    /// <summary>Gives alerts that have none yet a delivery by a channel.</summary>
    public static Task AddAsync(StoreTransaction transaction, IReadOnlyCollection<long> alertIds, string channel, long now) => transaction.ExecuteAsync(
        $"""
        INSERT INTO alert_deliveries (alert_id, channel, status, attempts, next_attempt_at, begun_at)
        SELECT id, @channel, 'pending', 0, @now, @now FROM alerts WHERE id IN {SqlList.Of(alertIds)} AND dispatched = 0
        ON CONFLICT (alert_id, channel) DO NOTHING
        """,
        new { channel, now });

    /// <summary>Another channel tries the alert as well, where it does not do so already.</summary>
    public static Task AddAsync(StoreTransaction transaction, long alertId, string channel, long now) => transaction.ExecuteAsync(
        """
        INSERT INTO alert_deliveries (alert_id, channel, status, attempts, next_attempt_at, begun_at) VALUES (@alertId, @channel, 'pending', 0, @now, @now)
        ON CONFLICT (alert_id, channel) DO NOTHING
        """,
        new { alertId, channel, now });

    /// <summary>The same for all of a channel's alerts that wait.</summary>
    public static Task PassOnAsync(StoreTransaction transaction, IReadOnlyCollection<long> alertIds, string channel, string fallback, long now) =>
        transaction.ExecuteAsync(
            $"""
            INSERT INTO alert_deliveries (alert_id, channel, status, attempts, next_attempt_at, begun_at)
            SELECT alert_id, @fallback, 'pending', 0, @now, @now FROM alert_deliveries WHERE {Waiting(alertIds)} ON CONFLICT (alert_id, channel) DO NOTHING
            """,
            new { channel, fallback, now });

    /// <summary>A delivery of an alert that left without the store, or that is still to leave by this channel.</summary>
    public static Task AddAsync(StoreTransaction transaction, long alertId, string channel, long attempts, long now, long? sentAt, string? recipients) =>
        transaction.ExecuteAsync(
            """
            INSERT INTO alert_deliveries (alert_id, channel, status, attempts, next_attempt_at, sent_at, recipients, begun_at)
            VALUES (@alertId, @channel, @status, @attempts, @now, @sentAt, @recipients, @now)
            """,
            new { alertId, channel, status = sentAt is null ? "pending" : "sent", attempts, now, sentAt, recipients });

    public static Task PostponeAsync(StoreTransaction transaction, IReadOnlyCollection<long> alertIds, string channel, long until, string? reason) =>
        transaction.ExecuteAsync(
            $"UPDATE alert_deliveries SET next_attempt_at = @until, last_error = @reason WHERE {Waiting(alertIds)}", new { channel, until, reason });

    /// <summary>What is due on a channel, with the alert.</summary>
    /// <param name="beyond">No deadline that is written lies further away: one that does is from before the clock was set back.</param>
    /// <param name="last">The last one of the page before.</param>
    public static Task<List<DueDelivery>> DueAsync(StoreConnection connection, string channel, long now, long beyond, (long DueAt, long Id) last, int limit) =>
        connection.QueryAsync<DueDelivery>(
            """
            SELECT a.id, a.kind, a.incident, a.subject, a.text, a.data, a.letters, a.created_at,
                   d.attempts, d.next_attempt_at AS due_at, d.begun_at, d.recipients
            FROM alert_deliveries d JOIN alerts a ON a.id = d.alert_id
            WHERE d.status = 'pending' AND (d.next_attempt_at <= @now OR d.next_attempt_at > @beyond) AND d.channel = @channel
              AND (d.next_attempt_at, d.alert_id) > (@DueAt, @Id)
            ORDER BY d.next_attempt_at, d.alert_id LIMIT @limit
            """,
            new { now, beyond, channel, last.DueAt, last.Id, limit });

    /// <summary>Begins an attempt, which nobody else makes until then.</summary>
    /// <returns>False for the second of two processes that saw the same row: it finds it moved.</returns>
    public static async Task<bool> ClaimAsync(StoreTransaction transaction, DueDelivery delivery, string channel, long until) => await transaction.ExecuteAsync(
        """
        UPDATE alert_deliveries SET attempts = attempts + 1, next_attempt_at = @until
        WHERE alert_id = @Id AND channel = @channel AND status = 'pending' AND next_attempt_at = @DueAt
        """,
        new { until, delivery.Id, channel, delivery.DueAt }) == 1;

    /// <summary>Gives back what was claimed and not tried.</summary>
    public static Task ReleaseAsync(StoreTransaction transaction, IReadOnlyCollection<long> alertIds, string channel, long now) => transaction.ExecuteAsync(
        $"UPDATE alert_deliveries SET attempts = attempts - 1, next_attempt_at = @now WHERE {Waiting(alertIds)}", new { channel, now });

    /// <summary>Notes how an attempt ended.</summary>
    public static Task RecordAsync(StoreTransaction transaction, long alertId, string channel, DeliveryRecord record) => transaction.ExecuteAsync(
        """
        UPDATE alert_deliveries SET status = @Status, last_error = @Error, next_attempt_at = @NextAttemptAt, sent_at = @SentAt, recipients = @Recipients
        WHERE alert_id = @alertId AND channel = @channel AND status = 'pending'
        """,
        new { alertId, channel, record.Status, record.Error, record.NextAttemptAt, record.SentAt, record.Recipients });

    public static Task<List<DeliveryRow>> OfAlertsAsync(StoreConnection connection, IReadOnlyCollection<long> alertIds) => connection.QueryAsync<DeliveryRow>(
        $"""
        SELECT alert_id, channel, status, attempts, next_attempt_at, last_error, sent_at FROM alert_deliveries WHERE alert_id IN {SqlList.Of(alertIds)}
        ORDER BY alert_id, channel
        """);

    /// <summary>How each channel does.</summary>
    public static Task<List<ChannelCounts>> CountsAsync(StoreConnection connection) => connection.QueryAsync<ChannelCounts>(
        """
        SELECT channel, max(sent_at) AS last_sent_at,
               sum(CASE WHEN status = 'pending' THEN 1 ELSE 0 END) AS pending, sum(CASE WHEN status = 'failed' THEN 1 ELSE 0 END) AS failed
        FROM alert_deliveries GROUP BY channel
        """);

    /// <summary>The newest errors first.</summary>
    public static Task<List<(string Channel, string Error)>> ErrorsAsync(StoreConnection connection, int most) => connection.QueryAsync<(string, string)>(
        "SELECT channel, last_error FROM alert_deliveries WHERE last_error IS NOT NULL ORDER BY alert_id DESC LIMIT @most", new { most });

    public static Task RemoveAsync(StoreTransaction transaction, long alertId) =>
        transaction.ExecuteAsync("DELETE FROM alert_deliveries WHERE alert_id = @alertId", new { alertId });

    /// <summary>Follows a step of the store's clock.</summary>
    public static Task MoveAsync(StoreTransaction transaction, long step) => transaction.ExecuteAsync(
        "UPDATE alert_deliveries SET next_attempt_at = next_attempt_at + @step, begun_at = begun_at + @step WHERE status = 'pending'", new { step });

    private static string Waiting(IReadOnlyCollection<long> alertIds) => $"channel = @channel AND status = 'pending' AND alert_id IN {SqlList.Of(alertIds)}";
}

internal sealed record DeliveryRow(long AlertId, string Channel, string Status, long Attempts, long NextAttemptAt, string? LastError, long? SentAt);

/// <summary>How an attempt ended; times in Unix milliseconds.</summary>
internal sealed record DeliveryRecord(string Status, string? Error, long NextAttemptAt, long? SentAt, string? Recipients);

internal sealed class ChannelCounts
{
    public string Channel { get; init; } = "";
    public long? LastSentAt { get; init; }
    public long Pending { get; init; }
    public long Failed { get; init; }
}

/// <summary>An alert that is to leave by a channel now.</summary>
internal sealed record DueDelivery(
    long Id, string Kind, string? Incident, string Subject, string Text, string Data, long Letters, long CreatedAt, long Attempts, long DueAt, long? BegunAt,
    string? Recipients)
{
    public Alert ToAlert() => new(
        Id, Kind, Incident, Subject, Text,
        JsonSerializer.Deserialize(Data, AlertJson.Default.AlertContent) ?? throw new FormatException("The alert's data is empty."),
        Letters, DateTimeOffset.FromUnixTimeMilliseconds(CreatedAt)) { Recipients = Recipients };
}

using System.Text.Json;
using OrderService.Store;

namespace OrderService.Notifications;

/// <summary>Alerts on their way: a row that is committed with what it tells of, sent later, and kept afterwards as the list of what was sent.</summary>
internal static class AlertsTable
{
    /// <summary>Adds an alert to the caller's transaction. <see cref="NotificationSender"/> gives it a delivery for each channel and sends it.</summary>
    /// <returns>The alert's number.</returns>
    public static async Task<long> AddAsync(StoreTransaction transaction, AlertContent content, string? incident, DateTimeOffset now) =>
        await transaction.ExecuteScalarAsync<long>(
            """
            INSERT INTO alerts (kind, incident, subject, text, data, letters, created_at)
            VALUES (@Kind, @incident, @Subject, @Text, @Data, @Letters, @CreatedAt) RETURNING id
            """,
            new
            {
                content.Kind,
                incident,
                Subject = AlertText.Line(content.Subject),
                Text = AlertText.Plain(content),
                Data = JsonSerializer.Serialize(content, AlertJson.Default.AlertContent),
                content.Letters,
                CreatedAt = now.ToUnixTimeMilliseconds(),
            });

    /// <summary>Gives an alert of the same transaction its words, once it is known what it covers.</summary>
    public static Task FillAsync(StoreTransaction transaction, long alertId, AlertContent content) => transaction.ExecuteAsync(
        "UPDATE alerts SET subject = @Subject, text = @Text, data = @Data, letters = @Letters WHERE id = @alertId",
        new
        {
            Subject = AlertText.Line(content.Subject),
            Text = AlertText.Plain(content),
            Data = JsonSerializer.Serialize(content, AlertJson.Default.AlertContent),
            content.Letters,
            alertId,
        });

    /// <summary>An alert that left without the store takes its place in the list; its deliveries are written with it.</summary>
    /// <returns>The alert's number.</returns>
    public static Task<long> AddSentAsync(StoreTransaction transaction, Alert alert) => transaction.ExecuteScalarAsync<long>(
        """
        INSERT INTO alerts (kind, subject, text, data, letters, created_at, dispatched) VALUES (@Kind, @Subject, @Text, @data, @Letters, @createdAt, 1)
        RETURNING id
        """,
        new
        {
            alert.Kind,
            alert.Subject,
            alert.Text,
            data = JsonSerializer.Serialize(alert.Content, AlertJson.Default.AlertContent),
            alert.Letters,
            createdAt = alert.CreatedAt.ToUnixTimeMilliseconds(),
        });

    /// <summary>Takes out an alert that turned out to cover nothing.</summary>
    public static Task RemoveAsync(StoreTransaction transaction, long alertId) =>
        transaction.ExecuteAsync("DELETE FROM alerts WHERE id = @alertId", new { alertId });

    /// <summary>Alerts that have no deliveries yet, from behind <paramref name="last"/>.</summary>
    /// <param name="held">A kind that is not wanted now.</param>
    public static Task<List<long>> UndispatchedAsync(StoreConnection connection, string held, long last, int limit) => connection.QueryAsync<long>(
        "SELECT id FROM alerts WHERE dispatched = 0 AND kind <> @held AND id > @last ORDER BY id LIMIT @limit", new { held, last, limit });

    public static Task MarkDispatchedAsync(StoreTransaction transaction, IReadOnlyCollection<long> alertIds) =>
        transaction.ExecuteAsync($"UPDATE alerts SET dispatched = 1 WHERE id IN {SqlList.Of(alertIds)}");

    /// <summary>Alerts, newest first.</summary>
    public static Task<List<AlertRow>> ListAsync(StoreConnection connection, long before, int limit) =>
        connection.QueryAsync<AlertRow>($"{Select} WHERE id < @before ORDER BY id DESC LIMIT @limit", new { before, limit });

    public static Task<AlertRow?> FindAsync(StoreConnection connection, long? alertId) =>
        connection.QuerySingleOrDefaultAsync<AlertRow>($"{Select} WHERE id = @alertId", new { alertId });

    /// <summary>How many first alerts were written after a time.</summary>
    public static Task<long> FirstsSinceAsync(StoreConnection connection, long since) =>
        connection.ExecuteScalarAsync<long>("SELECT count(*) FROM alerts WHERE kind = 'first' AND created_at > @since", new { since });

    /// <summary>Alerts that no channel to people could deliver, after the last one that somebody was told of.</summary>
    /// <param name="schedule">Where the number of that one stands, see <see cref="SchedulesTable"/>.</param>
    public static Task<List<(long Id, string Subject)>> UndeliveredAsync(StoreConnection connection, string schedule) => connection.QueryAsync<(long, string)>(
        """
        SELECT a.id, a.subject FROM alerts a
        WHERE a.id > coalesce((SELECT last_at FROM schedules WHERE name = @schedule), 0)
          AND EXISTS (SELECT 1 FROM alert_deliveries d WHERE d.alert_id = a.id AND d.status = 'failed')
          AND NOT EXISTS (SELECT 1 FROM alert_deliveries d WHERE d.alert_id = a.id AND (d.status = 'pending' OR (d.status = 'sent' AND d.channel <> 'log')))
        ORDER BY a.id LIMIT 1000
        """,
        new { schedule });

    // One that tells of a letter which is open still is a part of that letter's story.
    private const string Old =
        """
        created_at <= @before AND dispatched = 1
        AND NOT EXISTS (SELECT 1 FROM alert_deliveries d WHERE d.alert_id = alerts.id AND d.status = 'pending')
        AND NOT EXISTS (SELECT 1 FROM dead_letters l WHERE l.alert_id = alerts.id AND l.status IN ('parked', 'replayed'))
        """;

    /// <summary>How many are older, have left, and tell of no open letter.</summary>
    public static Task<long> CountOldAsync(StoreConnection connection, long before) =>
        connection.ExecuteScalarAsync<long>($"SELECT count(*) FROM alerts WHERE {Old}", new { before });

    /// <summary>The oldest of them from behind <paramref name="last"/>.</summary>
    public static Task<List<OldRow>> OldAsync(StoreConnection connection, long before, OldRow last, int most) => connection.QueryAsync<OldRow>(
        $"SELECT created_at AS at, id FROM alerts WHERE {Old} AND (created_at, id) > (@At, @Id) ORDER BY created_at, id LIMIT @most", new { before, last.At, last.Id, most });

    public static async Task<long> RemoveOldAsync(StoreTransaction transaction, long id, long before)
    {
        if (await transaction.ExecuteAsync($"DELETE FROM alerts WHERE id = @id AND {Old}", new { id, before }) == 0)
        {
            return 0;
        }
        await DeliveriesTable.RemoveAsync(transaction, id);
        return 1;
    }

    private const string Select = "SELECT id, kind, incident, subject, text, letters, created_at FROM alerts";
}

internal sealed record AlertRow(long Id, string Kind, string? Incident, string Subject, string Text, long Letters, long CreatedAt);

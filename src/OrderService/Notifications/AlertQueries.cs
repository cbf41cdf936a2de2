using OrderService.Store;

namespace OrderService.Notifications;

/// <summary>What was sent, what waits, what was set aside.</summary>
public sealed class AlertQueries(IDatabase database)
{
    private const int MostRows = 200;

    /// <summary>Alerts, newest first, each with its deliveries.</summary>
    /// <param name="before">Only alerts with a lower number: the cursor of the page before.</param>
    /// <param name="limit">1 to 200.</param>
    public Task<IReadOnlyList<AlertRecord>> ListAsync(long? before, int limit, CancellationToken cancellationToken) => database.ReadAsync<IReadOnlyList<AlertRecord>>(async connection =>
    {
        var alerts = await AlertsTable.ListAsync(connection, before ?? long.MaxValue, Math.Clamp(limit, 1, MostRows));
        if (alerts.Count == 0)
        {
            return [];
        }
        var deliveries = (await DeliveriesTable.OfAlertsAsync(connection, alerts.ConvertAll(alert => alert.Id))).ToLookup(row => row.AlertId);
        return [.. alerts.Select(alert => new AlertRecord(
            alert.Id, alert.Kind, alert.Incident, alert.Subject, alert.Text, alert.Letters, DateTimeOffset.FromUnixTimeMilliseconds(alert.CreatedAt),
            [.. deliveries[alert.Id].Select(row => new AlertDeliveryRecord(
                row.Channel, row.Status, row.Attempts, row.Status == "pending" ? DateTimeOffset.FromUnixTimeMilliseconds(row.NextAttemptAt) : null, row.LastError,
                row.SentAt is { } sent ? DateTimeOffset.FromUnixTimeMilliseconds(sent) : null))]))];
    }, cancellationToken);
}

/// <summary>An alert with what became of it on each channel.</summary>
public sealed record AlertRecord(
    long Id, string Kind, string? Incident, string Subject, string Text, long Letters, DateTimeOffset CreatedAt, IReadOnlyList<AlertDeliveryRecord> Deliveries);

/// <param name="Status"><c>pending</c>, <c>sent</c> or <c>failed</c>.</param>
/// <param name="NextAttemptAt">While pending.</param>
/// <param name="LastError">Why the last attempt failed; beside <c>sent</c>, what did not work all the same.</param>
public sealed record AlertDeliveryRecord(string Channel, string Status, long Attempts, DateTimeOffset? NextAttemptAt, string? LastError, DateTimeOffset? SentAt);

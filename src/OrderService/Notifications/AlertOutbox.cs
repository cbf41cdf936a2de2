using System.Text.Json;
using OrderService.Store;

namespace OrderService.Notifications;

/// <summary>Alerts on their way: a row that is committed with what it tells of, sent later, and kept afterwards as the list of what was sent.</summary>
public static class AlertOutbox
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
}

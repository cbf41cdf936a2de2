namespace OrderService.Notifications;

/// <summary>One warning line for each alert.</summary>
public sealed partial class LogChannel(ILogger<LogChannel> logger) : INotificationChannel
{
    public string Name => "log";

    public Task<ChannelAnswer> SendAsync(Alert alert, CancellationToken cancellationToken)
    {
        LogAlert(alert.Kind, alert.Id, alert.Subject, alert.Incident ?? "several", alert.Letters);
        return Task.FromResult<ChannelAnswer>(new ChannelAnswer.Sent());
    }

    [LoggerMessage(LogLevel.Warning, "Alert {AlertId} ({AlertKind}): {Subject} [incident {Incident}, {Letters} new dead letters]")]
    private partial void LogAlert(string alertKind, long alertId, string subject, string incident, long letters);
}

namespace OrderService.Notifications;

/// <summary>The pauses between attempts.</summary>
internal static class Backoff
{
    /// <summary>Doubles from <see cref="AlertsOptions.RetryDelay"/> to <see cref="AlertsOptions.MaxRetryDelay"/>; half of it is by chance.</summary>
    /// <param name="attempts">How many were made.</param>
    public static TimeSpan Pause(long attempts, AlertsOptions options) => Pause(attempts, options.RetryDelay, options.MaxRetryDelay);

    public static TimeSpan Pause(long attempts, TimeSpan first, TimeSpan longest)
    {
        var full = first * Math.Pow(2, Math.Clamp(attempts - 1, 0, 30));
        return (full < longest ? full : longest) * (0.5 + (Random.Shared.NextDouble() / 2));
    }
}

namespace OrderService.RabbitMq;

/// <summary>
/// Why a station has no connection. The retries of an outage meet one error after the other, most of them only its echo: what is told is the cause, with what the last attempt met behind it,
/// and a line is written once for each reason and once in ten seconds at the most.
/// </summary>
internal sealed class Outage(TimeProvider clock)
{
    private const int MostReasons = 50;
    private static readonly TimeSpan Pause = TimeSpan.FromSeconds(10);

    private readonly Lock gate = new();
    private readonly HashSet<string> told = new(StringComparer.Ordinal);
    private string? cause;
    private long? toldAt;

    /// <summary>Notes a reason.</summary>
    /// <param name="news">Whether it deserves a line.</param>
    /// <returns>What to tell.</returns>
    public string Meet(string reason, out bool news)
    {
        lock (gate)
        {
            // What the broker itself says tells more than how the network puts it; the last such word counts.
            if (cause is null || IsTelling(reason))
            {
                cause = reason;
            }

            news = (toldAt is not { } last || clock.GetElapsedTime(last) >= Pause) && (told.Count < MostReasons ? told.Add(reason) : !told.Contains(reason));
            if (news)
            {
                toldAt = clock.GetTimestamp();
            }

            return reason == cause ? cause : $"{cause}; at the last attempt: {reason}";
        }
    }

    /// <summary>The connection stands.</summary>
    public void End()
    {
        lock (gate)
        {
            told.Clear();
            cause = null;
        }
    }

    private static bool IsTelling(string reason) =>
        reason.Contains("closed by the broker", StringComparison.Ordinal) || reason.StartsWith("access refused", StringComparison.Ordinal) || reason.StartsWith("TLS", StringComparison.Ordinal);
}

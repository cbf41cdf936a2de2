using OrderService.Observability;

namespace OrderService.Notifications;

/// <summary>What was told of a trouble, and how long ago.</summary>
/// <param name="Stands">It was told and not called over.</param>
/// <param name="Size">How much of it was told.</param>
internal readonly record struct TroubleTold(bool Stands, TimeSpan Ago, long Size);

/// <summary>Decides when a trouble is news. Pure: the same for what stands in the store and for what is kept in memory.</summary>
internal static class TroubleNews
{
    /// <summary>Whether an alert is due for a trouble that stands.</summary>
    /// <param name="told">Null when nothing was told.</param>
    public static bool IsDue(Trouble trouble, TroubleTold? told, AlertsOptions options, DateTimeOffset now)
    {
        if (told is not { } last)
        {
            return !options.QuietHours.HoldFirst(now);
        }
        // However often it comes and goes or grows, one alert in this time is enough.
        if (last.Ago < options.TroublePause)
        {
            return false;
        }
        return IsReminder(trouble, last)
            ? last.Ago >= options.RemindAfter && !options.QuietHours.Include(now)
            : !options.QuietHours.HoldFirst(now);
    }

    /// <summary>Whether what stands still stands just as it was told.</summary>
    public static bool IsReminder(Trouble trouble, TroubleTold? told) => told is { Stands: true } last && trouble.Size <= last.Size;

    /// <summary>Whether it may be called over.</summary>
    /// <param name="unseen">How long it has stood nowhere.</param>
    public static bool IsOver(TroubleTold told, TimeSpan unseen, AlertsOptions options, DateTimeOffset now) =>
        told.Stands && unseen >= OverAfter(options) && told.Ago >= options.TroublePause && !options.QuietHours.Include(now);

    /// <summary>What comes back within this time was never over. Long enough for a restart.</summary>
    public static TimeSpan OverAfter(AlertsOptions options) => options.TroublePause < LongestOver ? options.TroublePause : LongestOver;

    public static AlertContent Content(Trouble trouble, bool isReminder) => new()
    {
        Kind = AlertKind.Service,
        Subject = isReminder ? $"Still: {trouble.Subject}" : trouble.Subject,
        Summary = trouble.Detail,
        Advice = trouble.Advice,
        Letters = trouble.Size,
    };

    public static AlertContent Over(string subject) => new() { Kind = AlertKind.Service, Subject = $"Over: {subject}", Summary = $"It is over: {subject.TrimEnd('.')}." };

    private static readonly TimeSpan LongestOver = TimeSpan.FromSeconds(90);
}

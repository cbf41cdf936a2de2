namespace OrderService.Notifications;

/// <summary>A way to reach an admin: the log, e-mail, a webhook.</summary>
public interface INotificationChannel
{
    /// <summary>A stable lower-case word, for example <c>email</c>.</summary>
    string Name { get; }

    /// <summary>Tries once. Trouble that was to be expected is an answer; an exception means that this alert can't be handled.</summary>
    Task<ChannelAnswer> SendAsync(Alert alert, CancellationToken cancellationToken);
}

/// <summary>What became of one attempt.</summary>
public abstract record ChannelAnswer
{
    private ChannelAnswer() { }

    /// <param name="Note">What the operator should know nevertheless, for instance a recipient that was refused while others were not.</param>
    public sealed record Sent(string? Note = null) : ChannelAnswer;

    /// <param name="After">The earliest time for the next attempt that the other side asked for.</param>
    public sealed record Retry(string Reason, TimeSpan? After = null) : ChannelAnswer;

    /// <summary>The other side will never take this alert.</summary>
    public sealed record Refused(string Reason) : ChannelAnswer;

    /// <summary>The other side wants no alerts any more; the channel is off until the next start.</summary>
    public sealed record Gone(string Reason) : ChannelAnswer;
}

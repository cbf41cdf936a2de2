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

    /// <summary>What the other side said, if that is worth telling.</summary>
    public abstract string? Text { get; }

    /// <summary>What the channel wants to know at the next attempt: which recipients are done with.</summary>
    public string? Recipients { get; init; }

    /// <param name="Note">What the operator should know nevertheless, for instance a recipient that was refused while others were not.</param>
    public sealed record Sent(string? Note = null) : ChannelAnswer
    {
        public override string? Text => Note;
    }

    /// <param name="After">The earliest time for the next attempt that the other side asked for.</param>
    public sealed record Retry(string Reason, TimeSpan? After = null) : ChannelAnswer
    {
        public override string? Text => Reason;

        /// <summary>It concerns this alert's recipients alone: the next alert may go through.</summary>
        public bool IsOwn { get; init; }

        /// <summary>Some of its recipients have it.</summary>
        public bool HasReached { get; init; }
    }

    /// <summary>The other side will never take this alert.</summary>
    public sealed record Refused(string Reason) : ChannelAnswer
    {
        public override string? Text => Reason;
    }

    /// <summary>The other side wants no alerts any more; it is asked again from time to time.</summary>
    public sealed record Gone(string Reason) : ChannelAnswer
    {
        public override string? Text => Reason;
    }
}

namespace OrderService.Outbox;

/// <summary>What became of a publish. Only <see cref="Confirmed"/> allows to call the message sent.</summary>
public abstract record PublishOutcome
{
    private PublishOutcome() { }

    /// <summary>The broker has it in a queue: confirmed and not returned.</summary>
    public sealed record Confirmed : PublishOutcome
    {
        public static Confirmed Instance { get; } = new();
    }

    /// <summary>No queue wanted it (mandatory). Publishing again helps once somebody binds a queue.</summary>
    /// <param name="Code">The AMQP reply code, 312 for NO_ROUTE.</param>
    public sealed record Returned(int Code, string Text) : PublishOutcome;

    /// <summary>A queue refused it, for instance because it is full. Publishing again later is right.</summary>
    public sealed record Nacked : PublishOutcome
    {
        public static Nacked Instance { get; } = new();
    }

    /// <summary>It may or may not have arrived. Publish it again with the same message id.</summary>
    /// <param name="IsUnanswered">The broker answered others on the same channel and this one not: a queue that it goes to has no leader or hangs.</param>
    public sealed record Unknown(string Reason, bool IsUnanswered = false) : PublishOutcome;

    /// <summary>It was not sent and never can be as it is (too large a header, too long a name).</summary>
    public sealed record Refused(string Reason) : PublishOutcome;
}

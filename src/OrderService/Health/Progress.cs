using OrderService.RabbitMq;

namespace OrderService.Health;

/// <summary>Since when a station has work in hand and decides none of it. Looked at every second, so it costs the work itself nothing.</summary>
internal sealed class Progress(TimeProvider clock)
{
    /// <summary>A commit that takes this long is no commit of an order's any more.</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    private long decided;
    private long? since;
    private DateTimeOffset at;

    /// <summary>When the work in hand was begun of which nothing was decided for too long; null while all goes on.</summary>
    public DateTimeOffset? StuckSince { get; private set; }

    /// <param name="inHand">Whether anything is in hand that could be decided.</param>
    /// <param name="decidedInAll">How much was ever decided.</param>
    public void Look(bool inHand, long decidedInAll)
    {
        if (!inHand || decidedInAll != decided)
        {
            since = null;
        }
        decided = decidedInAll;
        if (inHand && since is null)
        {
            (since, at) = (clock.GetTimestamp(), clock.GetUtcNow());
        }
        StuckSince = since is { } began && clock.GetElapsedTime(began) >= Patience ? at : null;
    }

    /// <inheritdoc cref="Look(bool, long)"/>
    public void Look(SubscriptionState state) =>
        // Between two generations nothing is in hand: the broker has taken it back.
        Look(state is { InHand: > 0, Phase: SubscriptionPhase.Consuming or SubscriptionPhase.Held }, state.Acknowledged + state.Rejected);
}

/// <summary>Since when messages wait in a queue and none of it is decided, by the counts of the broker.</summary>
internal sealed class Waiting
{
    private long decided;
    private DateTimeOffset? since;

    /// <summary>The first of the readings that counted messages with nothing decided between them; null while all goes on.</summary>
    public DateTimeOffset? StuckSince { get; private set; }

    /// <param name="at">When the broker was asked. A count that nobody has taken anew proves nothing about now.</param>
    /// <param name="ready">How many messages waited then.</param>
    /// <param name="decidedInAll">How much was ever decided.</param>
    public void Look(DateTimeOffset at, long ready, long decidedInAll, TimeSpan patience)
    {
        since = ready == 0 ? null : decidedInAll != decided || since is null ? at : since;
        decided = decidedInAll;
        StuckSince = since is { } began && at - began >= patience ? began : null;
    }
}

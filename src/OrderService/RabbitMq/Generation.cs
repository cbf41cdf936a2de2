using RabbitMQ.Client;

namespace OrderService.RabbitMq;

/// <summary>One connection, channel and consumer, built together and thrown away together. A delivery can be settled only while its generation lives.</summary>
public sealed class Generation
{
    private readonly TaskCompletionSource<string> dead = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private volatile bool isAlive = true;

    internal Generation(int number) => Number = number;

    /// <summary>1 for the first; never reused.</summary>
    public int Number { get; }

    /// <summary>False once nothing more can be settled: the broker has taken back, or will, what was unsettled.</summary>
    public bool IsAlive => isAlive;

    /// <summary>Completes with the reason, in plain words, when the generation is dead.</summary>
    public Task<string> Dead => dead.Task;

    internal IConnection? Connection { get; set; }

    internal IChannel? Channel { get; set; }

    internal DeliveryLedger Ledger { get; } = new();

    /// <summary>One writer at a time: rejects and acks of a batch stay together and in order.</summary>
    internal SemaphoreSlim Settling { get; } = new(1, 1);

    internal SettlePlan Plan { get; } = new();

    /// <summary>Set while the broker delivers.</summary>
    internal QueueSubscription.Consumer? Consumer { get; set; }

    /// <summary>How many deliveries the broker may hand out unsettled to this consumer.</summary>
    internal ushort Prefetch { get; set; }

    /// <summary>It ended because of a message that the client library can't read.</summary>
    internal volatile bool MetUnreadable;

    /// <summary>The broker may hand out deliveries, until it has confirmed that the consumer is cancelled.</summary>
    internal volatile bool MayDeliver;

    /// <summary>When a delivery came, room was made for the next or a consumer began last; a timestamp of the clock.</summary>
    internal long HandedOutAt;

    /// <summary>A message waited when the consumer began.</summary>
    internal volatile bool IsHeadKnown;

    /// <summary>We ended it, for a reason that is no message's.</summary>
    internal volatile bool EndedByUs;

    /// <summary>More came than there is room for: no more is asked for until there is.</summary>
    internal volatile bool HasTooMuch;

    /// <summary>There was no memory for a delivery.</summary>
    internal volatile bool HasNoMemory;

    /// <summary>The consumer may be allowed more.</summary>
    internal volatile bool IsSlow;

    /// <summary>The question that the channel was asked last, and when; see <see cref="QueueSubscription"/>.</summary>
    internal volatile Task? Answer;

    internal DateTimeOffset AskedAt;

    /// <summary>The log has told of it.</summary>
    internal bool IsAnnounced;

    internal long Settled;

    /// <summary>The first reason stays.</summary>
    internal bool Kill(string reason)
    {
        isAlive = false;
        return dead.TrySetResult(reason);
    }

    public override string ToString() => $"generation {Number}";
}

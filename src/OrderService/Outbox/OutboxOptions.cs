using System.ComponentModel.DataAnnotations;
using Microsoft.Extensions.Options;

namespace OrderService.Outbox;

/// <summary>How what was committed is published.</summary>
public sealed class OutboxOptions
{
    public const string Section = "Outbox";

    /// <summary>How often the relay looks for rows that nobody handed to it: from before a restart, from another process.</summary>
    [Range(typeof(TimeSpan), "00:00:00.010", "00:01:00")]
    public TimeSpan PollInterval { get; init; } = TimeSpan.FromMilliseconds(500);

    /// <summary>
    /// How many messages the relay holds in memory, 200 of one order at most; the rest waits in the store. From half of it on, the intake gives way to a relay that is at work.
    /// </summary>
    [Range(100, 1_000_000)]
    public int MaxInMemory { get; init; } = 5_000;

    /// <summary>How many bytes of messages the relay holds in memory, each counted twice because it is rendered to be sent; the rest waits in the store.</summary>
    [Range(1024 * 1024, 1024 * 1024 * 1024)]
    public int MaxBytesInMemory { get; init; } = 16 * 1024 * 1024;

    /// <summary>How long the relay leaves a message alone after a publish whose outcome is not known.</summary>
    [Range(typeof(TimeSpan), "00:00:00.010", "00:05:00")]
    public TimeSpan RetryDelay { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>How often a routing key that a queue refuses is tried again: one message each time, which is a copy for every other subscriber.</summary>
    [Range(typeof(TimeSpan), "00:00:00.100", "00:05:00")]
    public TimeSpan ProbeInterval { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>How long a lease on a share of the streams lasts without being renewed. Only with several instances.</summary>
    [Range(typeof(TimeSpan), "00:00:02", "00:05:00")]
    public TimeSpan LeaseDuration { get; init; } = TimeSpan.FromSeconds(10);
}

/// <summary>What is published of an order. Section <c>Events</c>.</summary>
public sealed class EventsOptions
{
    public const string Section = "Events";

    /// <summary>Publish what is personal (e-mail, name, phone, addresses) in the data of <c>ORDER_PLACED</c>, for every subscriber, Kafka included. What is out can't be forgotten there.</summary>
    public bool Personal { get; init; }
}

[OptionsValidator]
internal sealed partial class OutboxOptionsValidator : IValidateOptions<OutboxOptions>;

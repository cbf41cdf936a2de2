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

    /// <summary>How many messages the relay holds in memory; the rest waits in the store.</summary>
    [Range(100, 1_000_000)]
    public int MaxInMemory { get; init; } = 10_000;

    /// <summary>How long the relay leaves a message alone after a publish that failed.</summary>
    [Range(typeof(TimeSpan), "00:00:00.010", "00:05:00")]
    public TimeSpan RetryDelay { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>How long a lease on a share of the streams lasts without being renewed. Only with several instances.</summary>
    [Range(typeof(TimeSpan), "00:00:02", "00:05:00")]
    public TimeSpan LeaseDuration { get; init; } = TimeSpan.FromSeconds(10);
}

[OptionsValidator]
internal sealed partial class OutboxOptionsValidator : IValidateOptions<OutboxOptions>;

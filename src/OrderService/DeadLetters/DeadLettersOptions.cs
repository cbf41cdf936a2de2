using System.ComponentModel.DataAnnotations;
using Microsoft.Extensions.Options;

namespace OrderService.DeadLetters;

/// <summary>How dead letters are taken in and sent again.</summary>
public sealed class DeadLettersOptions
{
    public const string Section = "DeadLetters";

    /// <summary>How many letters one transaction may hold. What is there is taken; nothing waits for a batch to fill.</summary>
    [Range(1, 2000)]
    public int MaxBatch { get; init; } = 500;

    /// <summary>A rejected message whose dead letter has not come after this long is parked from the bytes kept with its rejection.</summary>
    [Range(typeof(TimeSpan), "00:00:10", "1.00:00:00")]
    public TimeSpan MissingAfter { get; init; } = TimeSpan.FromMinutes(10);

    /// <summary>How often a letter may be replayed; after that the fault is in the message.</summary>
    [Range(1, 1000)]
    public int MaxReplays { get; init; } = 10;

    /// <summary>Replay jobs pause while more messages than this are ready in the queue <c>orders</c>, or while so many of their own letters are on their way.</summary>
    [Range(1, 1_000_000)]
    public int PauseReplaysAbove { get; init; } = 1000;

    /// <summary>The share of letters that may fail again before a canary replay stops by itself.</summary>
    [Range(0.0, 1.0)]
    public double CanaryFailures { get; init; } = 0.1;

    /// <summary>How often replay jobs are looked after.</summary>
    [Range(typeof(TimeSpan), "00:00:00.010", "00:01:00")]
    public TimeSpan ReplayPollInterval { get; init; } = TimeSpan.FromMilliseconds(250);

    /// <summary>When the store is out of reach for this long, no more letters are taken until it is back.</summary>
    [Range(typeof(TimeSpan), "00:00:00.100", "00:10:00")]
    public TimeSpan HoldAfter { get; init; } = TimeSpan.FromSeconds(3);
}

[OptionsValidator]
internal sealed partial class DeadLettersOptionsValidator : IValidateOptions<DeadLettersOptions>;

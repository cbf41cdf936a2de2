using System.ComponentModel.DataAnnotations;
using Microsoft.Extensions.Options;

namespace OrderService.Retention;

/// <summary>How long what is over is kept, in days. 0 keeps it for ever.</summary>
public sealed class RetentionOptions
{
    public const string Section = "Retention";

    /// <summary>Resolved, discarded and superseded dead letters with their bodies and replays, counted from the day they were settled.</summary>
    [Range(0, 36_500)]
    public int SettledDeadLetters { get; init; } = 90;

    /// <summary>Resolved incidents without a letter.</summary>
    [Range(0, 36_500)]
    public int ResolvedIncidents { get; init; } = 90;

    /// <summary>Alerts that were sent and tell of no open letter.</summary>
    [Range(0, 36_500)]
    public int Alerts { get; init; } = 90;

    /// <summary>What happened to orders beside their events: refusals, waits, letters, replays. Lines about open letters stay.</summary>
    [Range(0, 36_500)]
    public int History { get; init; } = 90;

    /// <summary>Replay jobs that ended, with their lists of letters.</summary>
    [Range(0, 36_500)]
    public int ReplayJobs { get; init; } = 90;

    /// <summary>The audit log.</summary>
    [Range(0, 36_500)]
    public int Audit { get; init; } = 400;

    /// <summary>
    /// Delivered and cancelled orders, counted from their last event, with their events, their messages' keys and their history; kept while this is not set. Needs <see cref="ArchiveFolder"/> or <see cref="WithoutArchive"/>.
    /// </summary>
    [Range(1, 36_500)]
    public int? ClosedOrders { get; init; }

    /// <summary>Where orders are written to before they are taken out of the store, a file a day.</summary>
    public string? ArchiveFolder { get; init; }

    /// <summary>Closed orders are deleted without being archived.</summary>
    public bool WithoutArchive { get; init; }

    /// <summary>Hashes of the ids and keys of orders that were taken out are kept, so that a late copy is known for one. Without them it is placed anew.</summary>
    public bool Tombstones { get; init; } = true;

    /// <summary>How often a round begins.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "7.00:00:00")]
    public TimeSpan Interval { get; init; } = TimeSpan.FromHours(1);
}

[OptionsValidator]
internal sealed partial class RetentionOptionsValidator : IValidateOptions<RetentionOptions>;

/// <summary>What the settings of one another ask for.</summary>
internal sealed class RetentionRules : IValidateOptions<RetentionOptions>
{
    public ValidateOptionsResult Validate(string? name, RetentionOptions options)
    {
        var hasFolder = !string.IsNullOrWhiteSpace(options.ArchiveFolder);
        return options switch
        {
            { ClosedOrders: not null, WithoutArchive: false } when !hasFolder => ValidateOptionsResult.Fail(
                "Retention:ClosedOrders: set Retention:ArchiveFolder, where orders are kept once they leave the store, or Retention:WithoutArchive to true if they need not be kept."),
            { WithoutArchive: true } when hasFolder => ValidateOptionsResult.Fail("Retention:WithoutArchive: contradicts Retention:ArchiveFolder; remove one of them."),
            _ => ValidateOptionsResult.Success,
        };
    }
}

using System.ComponentModel.DataAnnotations;
using Microsoft.Extensions.Options;

namespace OrderService.Store;

/// <summary>Evidence that nobody without the key changed events, dead letters or the audit log. Section <c>Seals</c>.</summary>
public sealed class SealsOptions
{
    public const string Section = "Seals";

    /// <summary>256 bits as base64 or hex, under which seals are made. A secret: prefer <c>Seals:KeyFile</c>. Without one the first start makes one beside the keys of customers.</summary>
    public string? Key { get; init; }

    /// <summary>Keys of before, which the seals of their time are verified with.</summary>
    public IList<OldSealKey> Old { get; init; } = [];

    /// <summary>No row that is older is without a seal, while all is well.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "00:01:00")]
    public TimeSpan Interval { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>An alert a day names the newest seal, so that the end of the chain can be compared with something that is not in the store.</summary>
    public bool DailyHead { get; init; } = true;
}

public sealed class OldSealKey
{
    /// <summary>As <c>Seals:Key</c>.</summary>
    public string Key { get; init; } = "";
}

[OptionsValidator]
internal sealed partial class SealsOptionsValidator : IValidateOptions<SealsOptions>;

/// <summary>What attributes can't say.</summary>
internal sealed class SealKeyRules : IValidateOptions<SealsOptions>
{
    private const string Wanted = "must be 32 bytes as base64 or hex; make one with: openssl rand -base64 32";

    public ValidateOptionsResult Validate(string? name, SealsOptions options)
    {
        var mistakes = new List<string>();
        if (!string.IsNullOrWhiteSpace(options.Key) && SealKey.Parse(options.Key) is null)
        {
            mistakes.Add($"Seals:Key: {Wanted}");
        }
        for (var index = 0; index < options.Old.Count; index++)
        {
            if (SealKey.Parse(options.Old[index].Key) is null)
            {
                mistakes.Add($"Seals:Old:{index}:Key: {Wanted}");
            }
        }
        return mistakes.Count == 0 ? ValidateOptionsResult.Success : ValidateOptionsResult.Fail(mistakes);
    }
}

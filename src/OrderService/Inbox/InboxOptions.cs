using System.ComponentModel.DataAnnotations;
using Microsoft.Extensions.Options;
using OrderService.Domain;

namespace OrderService.Inbox;

/// <summary>How deliveries are taken in and decided.</summary>
public sealed class InboxOptions
{
    public const string Section = "Inbox";

    /// <summary>How many deliveries one transaction may hold; never more than half of what the queues hand out at once, so that the other half arrives meanwhile.</summary>
    [Range(1, 10_000)]
    public int MaxBatch { get; init; } = 2000;

    /// <summary>How many bytes of bodies one transaction may hold. What is decided, written and announced of them needs several times as much memory.</summary>
    [Range(1 << 20, 256 << 20)]
    public int MaxBatchBytes { get; init; } = 4 << 20;

    /// <summary>How often a message that fails by itself is tried, alone, before it is dead-lettered.</summary>
    [Range(1, 10)]
    public int MaxAttempts { get; init; } = 3;

    /// <summary>From this many returns on, a delivery is taken alone and noted as started, to find the one that kills the process.</summary>
    [Range(1, 15)]
    public int SuspectAfterReturns { get; init; } = 2;

    /// <summary>How often a message may be started alone without an end before it is dead-lettered as a crash suspect.</summary>
    [Range(1, 10)]
    public int MaxCrashes { get; init; } = 2;

    /// <summary>When the store is out of reach for this long, the consumer is cancelled so that other instances get the messages.</summary>
    [Range(typeof(TimeSpan), "00:00:00.100", "00:10:00")]
    public TimeSpan HoldAfter { get; init; } = TimeSpan.FromSeconds(3);

    /// <summary>A file with rules that make commands of messages of other shapes (docs/messages.md, "Other shapes"); null takes every message as it is.</summary>
    public string? MappingFile { get; init; }
}

/// <summary>The rules of the shop.</summary>
public sealed class OrdersOptions
{
    public const string Section = "Orders";

    /// <summary>How long a command waits for its order before it becomes a dead letter (<c>order_unknown</c>).</summary>
    [Range(typeof(TimeSpan), "00:00:01", "30.00:00:00")]
    public TimeSpan DeferFor { get; init; } = TimeSpan.FromMinutes(15);

    /// <summary>
    /// An order of which nothing is paid, authorized or shipped is cancelled when nothing happened to it for this long; never while this is not set.
    /// </summary>
    [Range(typeof(TimeSpan), "00:00:01", "3650.00:00:00")]
    public TimeSpan? CancelUnpaidAfter { get; init; }

    /// <summary>Refuse to ship what is not paid.</summary>
    public bool RequirePaymentBeforeShipping { get; init; }

    /// <summary>How taxes are rounded: each line's, or once for all of a rate; a half goes up, or to the even neighbour.</summary>
    [EnumDataType(typeof(TaxRounding))]
    public TaxRounding TaxRounding { get; init; } = TaxRounding.LineHalfUp;

    /// <summary>The attributes of orders that can be searched for (<c>?attribute=channel:web</c>); the order's channel is the attribute <c>channel</c>. Holds for orders placed or amended from then on.</summary>
    [MaxLength(20)]
    public IList<string> SearchableAttributes { get; init; } = [];

    /// <summary>What of this the decisions need.</summary>
    internal OrderRules Rules => new(RequirePaymentBeforeShipping, TaxRounding);
}

[OptionsValidator]
internal sealed partial class InboxOptionsValidator : IValidateOptions<InboxOptions>;

/// <summary>All that is wrong with the mapping, each with its place in the file.</summary>
internal sealed class MappingFileValidator : IValidateOptions<InboxOptions>
{
    public ValidateOptionsResult Validate(string? name, InboxOptions options)
    {
        if (string.IsNullOrEmpty(options.MappingFile))
        {
            return ValidateOptionsResult.Success;
        }
        MappingFile.Read(options.MappingFile, out var mistakes);
        return mistakes.Count == 0
            ? ValidateOptionsResult.Success
            : ValidateOptionsResult.Fail(mistakes.Select(mistake => $"{InboxOptions.Section}:{nameof(InboxOptions.MappingFile)}: {options.MappingFile} {(mistake[0] == '/' ? "is wrong: " : "")}{mistake}."));
    }
}

[OptionsValidator]
internal sealed partial class OrdersOptionsValidator : IValidateOptions<OrdersOptions>;

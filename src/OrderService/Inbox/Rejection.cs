using OrderService.Domain;

namespace OrderService.Inbox;

/// <summary>Why a message becomes a dead letter.</summary>
/// <param name="Reason">One of <see cref="RejectionReason"/>.</param>
/// <param name="Detail">One sentence that says what is wrong and how to mend it. It never repeats a value from the body, but for the two totals of <c>total_mismatch</c>.</param>
/// <param name="Field">The JSON pointer of the known field it is about (the parent's for an unknown one); null when it is not about a field.</param>
public sealed record Rejection(string Reason, string Detail, string? Field)
{
    /// <summary>The reason of an order that can't be priced.</summary>
    internal static string ReasonOf(PricingFaultKind kind) => kind switch
    {
        PricingFaultKind.Precision => RejectionReason.AmountPrecision,
        PricingFaultKind.OutOfRange => RejectionReason.AmountOutOfRange,
        _ => RejectionReason.TotalMismatch,
    };

    /// <summary>The rejection of an order that contradicts itself.</summary>
    public static Rejection Of(Decision.Contradiction contradiction) => new(ReasonOf(contradiction.Kind), contradiction.Detail, contradiction.Pointer);
}

/// <summary>Every reason a dead letter can have: stable strings that other programs compare.</summary>
public static class RejectionReason
{
    public const string MalformedJson = "malformed_json";
    public const string BodyEmpty = "body_empty";
    public const string BodyTooLarge = "body_too_large";
    public const string UnsupportedContentType = "unsupported_content_type";
    public const string UnsupportedContentEncoding = "unsupported_content_encoding";
    public const string InvalidEncoding = "invalid_encoding";
    public const string DepthExceeded = "depth_exceeded";
    public const string DuplicateField = "duplicate_field";
    public const string UnknownField = "unknown_field";
    public const string MissingField = "missing_field";
    public const string WrongType = "wrong_type";
    public const string UnknownCommand = "unknown_command";
    public const string KeyInvalid = "key_invalid";
    public const string KeyConflict = "key_conflict";
    public const string IdInvalid = "id_invalid";
    public const string TextInvalid = "text_invalid";
    public const string AmountOutOfRange = "amount_out_of_range";
    public const string AmountPrecision = "amount_precision";
    public const string TotalMismatch = "total_mismatch";
    public const string TooManyEntries = "too_many_entries";
    public const string CurrencyUnknown = "currency_unknown";
    public const string QuantityOutOfRange = "quantity_out_of_range";
    public const string TooManyLines = "too_many_lines";
    public const string TimeInvalid = "time_invalid";
    public const string PropertyInvalid = "property_invalid";
    public const string OrderUnknown = "order_unknown";
    public const string DeliveryLimit = "delivery_limit";
    public const string Expired = "expired";
    public const string CrashSuspect = "crash_suspect";
    public const string ForeignDeadLetter = "foreign_dead_letter";
    public const string ReplayExhausted = "replay_exhausted";
    public const string InternalError = "internal_error";

    /// <summary>All of them.</summary>
    public static IReadOnlyList<string> All { get; } =
    [
        MalformedJson, BodyEmpty, BodyTooLarge, UnsupportedContentType, UnsupportedContentEncoding, InvalidEncoding, DepthExceeded,
        DuplicateField, UnknownField, MissingField, WrongType, UnknownCommand, KeyInvalid, KeyConflict, IdInvalid, TextInvalid,
        AmountOutOfRange, AmountPrecision, TotalMismatch, TooManyEntries, CurrencyUnknown, QuantityOutOfRange, TooManyLines, TimeInvalid, PropertyInvalid,
        OrderUnknown, DeliveryLimit, Expired, CrashSuspect, ForeignDeadLetter, ReplayExhausted, InternalError,
    ];
}

using System.Security.Cryptography;
using System.Text;
using System.Text.RegularExpressions;
using OrderService.Inbox;

namespace OrderService.DeadLetters;

/// <summary>One kind of failure: letters that fail in the same way belong together. Nothing a sender chooses freely goes into it, so the number of incidents stays small.</summary>
/// <param name="Fingerprint">16 lower-case hex digits over reason, exception type, first frame of ours and field.</param>
/// <param name="Field">The known field it is about, with <c>*</c> for a position in a list.</param>
/// <param name="Exception">The exception's type.</param>
/// <param name="Title">A sentence for people, without a full stop.</param>
public sealed partial record Incident(string Fingerprint, string Reason, string? Field, string? Exception, string Title)
{
    public static Incident Of(Rejection rejection, string? exception)
    {
        var field = rejection.Field is { } pointer ? Position().Replace(pointer, "/*") : null;
        var type = exception?.Split('\n', 2)[0].Trim();
        var frame = exception is null ? null : OwnFrame().Match(exception) is { Success: true } match ? match.Groups[1].Value : null;
        // Its cause is another than that of other encodings, and another mends it.
        var isAmqp = rejection.Detail == EnvelopeDecoder.AmqpSectionDetail;
        if (isAmqp)
        {
            type = EnvelopeDecoder.AmqpType;
        }
        var hash = SHA256.HashData(Encoding.UTF8.GetBytes($"{rejection.Reason}\n{type}\n{frame}\n{field}"));
        return new Incident(Convert.ToHexStringLower(hash.AsSpan(0, 8)), rejection.Reason, field, isAmqp ? null : type,
            isAmqp ? "A message is an AMQP 1.0 value instead of bytes" : TitleOf(rejection.Reason, field, type, frame));
    }

    /// <summary>Whole names: what tells two incidents apart tells their titles apart, in lists and in the subjects of mails.</summary>
    private static string TitleOf(string reason, string? field, string? exception, string? frame)
    {
        var at = string.IsNullOrEmpty(field) ? "" : $" ({field.TrimStart('/').Replace('/', '.')})";
        return reason switch
        {
            RejectionReason.MalformedJson => "A message is not valid JSON",
            RejectionReason.BodyEmpty => "A message has no body",
            RejectionReason.BodyTooLarge => "A message is too large",
            RejectionReason.UnsupportedContentType => "A message is not declared as JSON",
            RejectionReason.UnsupportedContentEncoding => "A message is compressed or otherwise encoded",
            RejectionReason.InvalidEncoding => "A message is not valid UTF-8",
            RejectionReason.DepthExceeded => "A message is nested too deeply",
            RejectionReason.DuplicateField => $"A field occurs twice{at}",
            RejectionReason.UnknownField => $"A message has a field that is not known{at}",
            RejectionReason.MissingField => $"A field is missing{at}",
            RejectionReason.WrongType => $"A field has the wrong type{at}",
            RejectionReason.UnknownCommand => "A message asks for a command that does not exist",
            RejectionReason.KeyInvalid => "An idempotency key is not valid",
            RejectionReason.KeyConflict => "An idempotency key was used again with another body",
            RejectionReason.IdInvalid => $"An id is not valid{at}",
            RejectionReason.TextInvalid => $"A text is not valid{at}",
            RejectionReason.AmountOutOfRange => $"An amount is out of range{at}",
            RejectionReason.AmountPrecision => $"An amount has more decimals than its currency{at}",
            RejectionReason.CurrencyUnknown => "A currency is not known",
            RejectionReason.QuantityOutOfRange => $"A quantity is out of range{at}",
            RejectionReason.TooManyLines => "An order has too many lines",
            RejectionReason.TimeInvalid => $"A time is not valid{at}",
            RejectionReason.PropertyInvalid => "A message property is not valid",
            RejectionReason.OrderUnknown => "A command waited too long for its order",
            RejectionReason.DeliveryLimit => "A message was returned to the queue too often",
            RejectionReason.Expired => "A message expired before it was processed",
            RejectionReason.CrashSuspect => "A message seems to crash the process",
            RejectionReason.ForeignDeadLetter => "A message was put among the dead letters by another program",
            RejectionReason.ReplayExhausted => "A message was replayed too often",
            RejectionReason.InternalError when exception is not null => $"Processing failed with {exception}{(frame is null ? "" : $" in {frame["OrderService.".Length..]}")}",
            _ => "Processing failed",
        };
    }

    [GeneratedRegex(@"/\d+(?=/|$)")]
    private static partial Regex Position();

    // "   at OrderService.Inbox.BatchDecider.Run.Decide(Incoming incoming) in ...": the name without its parameters, which change with every build.
    [GeneratedRegex(@"^\s*at (OrderService\.[^(\r\n]+)", RegexOptions.Multiline)]
    private static partial Regex OwnFrame();
}

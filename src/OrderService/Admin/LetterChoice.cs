using OrderService.DeadLetters;
using OrderService.Inbox;

namespace OrderService.Admin;

/// <summary>A filter of parked letters in a request's body, as in the query of the list.</summary>
internal sealed record ChosenLetters(string? Status = null, string? Reason = null, string? Fingerprint = null, string? OrderId = null, string? Q = null);

/// <summary>Reads which letters a request about many of them means.</summary>
internal static class LetterChoice
{
    public static bool TryRead(IReadOnlyList<long>? ids, ChosenLetters? filter, long? upTo, long? limit, bool confirmed, out LetterSelection selection, out IResult? mistake)
    {
        selection = new LetterSelection(null, new LetterFilter());
        mistake = null;
        if ((ids is null) == (filter is null))
        {
            mistake = Bad("", "Send either ids or filter.");
        }
        else if (ids?.Count is 0 or > LetterSelection.MostIds)
        {
            mistake = Bad("/ids", $"ids has 1 to {LetterSelection.MostIds} numbers.");
        }
        else if (limit is < 1)
        {
            mistake = Bad("/limit", "limit is at least 1.");
        }
        else if (filter?.Status is not (null or "all" or LetterStatus.Parked))
        {
            mistake = Bad("/filter/status", "Only parked letters can be chosen.");
        }
        else if (filter?.Reason is { } reason && !RejectionReason.All.Contains(reason))
        {
            mistake = Bad("/filter/reason", "reason is none of the stable reasons.");
        }
        else
        {
            selection = new LetterSelection(
                ids, new LetterFilter(LetterStatus.Parked, filter?.Reason, filter?.Fingerprint, filter?.OrderId, string.IsNullOrEmpty(filter?.Q) ? null : filter.Q), upTo, limit, confirmed);
        }
        return mistake is null;
    }

    public static IResult Bad(string pointer, string detail) => Problems.Result(StatusCodes.Status400BadRequest, "bad_request", detail, new FieldError(pointer, "bad_request", detail));
}

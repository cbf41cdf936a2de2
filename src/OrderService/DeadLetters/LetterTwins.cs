using OrderService.Domain;
using OrderService.Inbox;

namespace OrderService.DeadLetters;

/// <summary>
/// The fingerprints that a letter's bytes have as other commands. A fingerprint holds the type, so the same bytes sent once more with the right
/// type look like another message; with these the letter closes when they are decided.
/// </summary>
/// <param name="Others">Under every known type that understands the bytes, but for the letter's own.</param>
/// <param name="ByContent">
/// Under the one command that the bytes can mean, for a letter that brought no valid key: it is found by its content, whatever key the bytes
/// come back with. Null where more than one command fits: who knows which was meant.
/// </param>
internal sealed record LetterTwins(IReadOnlyList<byte[]> Others, byte[]? ByContent)
{
    public static LetterTwins None { get; } = new([], null);

    public static LetterTwins Of(DeadLetter letter)
    {
        // What may have killed a process is not read again; a conflict's key belongs to another message.
        if (letter.Rejection.Reason is RejectionReason.CrashSuspect or RejectionReason.KeyConflict || letter.Body.Length > EnvelopeDecoder.MaxBodyBytes)
        {
            return None;
        }
        var understood = CommandType.All.Where(type => EnvelopeDecoder.TryDecodeBody(type, letter.Body, null, out _, out _)).ToList();
        if (understood.Count == 0)
        {
            return None;
        }
        var others = understood.Select(type => EnvelopeDecoder.Fingerprint(type, letter.Body))
            .Where(fingerprint => !fingerprint.AsSpan().SequenceEqual(letter.Fingerprint)).ToList();
        return new LetterTwins(others, IsKeyless(letter) ? ContentOf(letter, understood) : null);
    }

    private static bool IsKeyless(DeadLetter letter) => letter.Key == EnvelopeDecoder.DerivedKey(letter.Fingerprint);

    private static byte[]? ContentOf(DeadLetter letter, List<string> understood)
    {
        var meant = CommandType.IsKnown(letter.Properties.Type) ? understood.Where(type => type == letter.Properties.Type).ToList() : understood;
        return meant.Count == 1 ? EnvelopeDecoder.Fingerprint(meant[0], letter.Body) : null;
    }

    /// <summary>As they are stored: one after the other.</summary>
    public byte[]? Stored() => Others.Count == 0 ? null : [.. Others.SelectMany(fingerprint => fingerprint)];
}

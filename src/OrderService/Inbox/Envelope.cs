using OrderService.Domain;
using OrderService.Store;

namespace OrderService.Inbox;

/// <summary>A delivery that was understood.</summary>
/// <param name="Key">The idempotency key: 1 to 255 visible ASCII characters.</param>
/// <param name="Fingerprint">32 bytes; two messages with one key and different fingerprints are a conflict. See <see cref="EnvelopeDecoder.Fingerprint"/>.</param>
/// <param name="Command">What to do.</param>
/// <param name="CorrelationId">The sender's, where it is 1 to 255 visible ASCII characters; else the key.</param>
/// <param name="TraceParent">The W3C trace context, where well formed.</param>
/// <param name="TraceState">Only ever beside a trace parent.</param>
/// <param name="Replay">Set when a parked dead letter was sent again.</param>
public sealed record Envelope(
    string Key, byte[] Fingerprint, OrderCommand Command, string CorrelationId, string? TraceParent, string? TraceState, ReplayMark? Replay)
{
    /// <summary>Both parts as they are stored.</summary>
    public string? TraceContext => TraceText.Join(TraceParent, TraceState);
}

/// <summary>Says that a message is a dead letter's next attempt.</summary>
/// <param name="LetterId">The dead letter it was.</param>
/// <param name="Replays">How often it has been replayed, this time included.</param>
public sealed record ReplayMark(long LetterId, int Replays)
{
    /// <summary>The header that carries it: <c>letterId/replays</c>, both decimal.</summary>
    public const string Header = "x-orderservice-replay";

    public override string ToString() => $"{LetterId}/{Replays}";

    /// <summary>Reads the header's text; null when it is malformed.</summary>
    public static ReplayMark? Parse(string? text)
    {
        var slash = text?.IndexOf('/') ?? -1;
        return slash > 0
            && long.TryParse(text.AsSpan(0, slash), System.Globalization.NumberStyles.None, null, out var letter)
            && int.TryParse(text.AsSpan(slash + 1), System.Globalization.NumberStyles.None, null, out var replays)
            && letter > 0 && replays > 0
                ? new ReplayMark(letter, replays)
                : null;
    }
}

/// <summary>What became of a delivery's bytes.</summary>
public abstract record Decoded
{
    private Decoded() { }

    public sealed record Valid(Envelope Envelope) : Decoded;

    /// <param name="Key">The given key where that is valid; else the one derived from the content.</param>
    /// <param name="Fingerprint">As in <see cref="Envelope"/>.</param>
    /// <param name="Rejection">Why it becomes a dead letter.</param>
    /// <param name="OrderId">The order it seems to be about, where a valid id could still be read.</param>
    /// <param name="CorrelationId">The sender's where usable; else the key.</param>
    public sealed record Invalid(string Key, byte[] Fingerprint, Rejection Rejection, string? OrderId, string? CorrelationId) : Decoded;
}

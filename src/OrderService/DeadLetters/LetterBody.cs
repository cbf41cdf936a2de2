using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>A letter's exact bytes.</summary>
/// <param name="IsForgotten">They were about a customer who is forgotten, and nobody reads them any more.</param>
public sealed record LetterBody(byte[] Bytes, bool IsForgotten)
{
    internal static LetterBody Open(byte[] stored, PersonalKeys keys) => keys.Open(stored) is { } bytes ? new(bytes, false) : new([], true);
}

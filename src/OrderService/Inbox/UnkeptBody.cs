namespace OrderService.Inbox;

/// <summary>
/// What is kept of a body beyond the limit: it is refused whatever it says, so it is not copied. Its bytes stay with the broker, which hands them to the dead letters.
/// </summary>
/// <param name="Length">In bytes.</param>
/// <param name="Fingerprint">As that of any message, so that the rejection and the dead letter find each other.</param>
/// <param name="OrderId">Where its beginning names one.</param>
/// <param name="IsAmqpSection">It is in one of AMQP 1.0's own types.</param>
public sealed record UnkeptBody(int Length, byte[] Fingerprint, string? OrderId, bool IsAmqpSection)
{
    /// <summary>Looks at a body while it is there.</summary>
    public static UnkeptBody Of(MessageProperties properties, ReadOnlySpan<byte> body) =>
        new(body.Length, EnvelopeDecoder.Fingerprint(EnvelopeDecoder.TypeOf(properties), body), BodySyntax.FindOrderId(body), BodySyntax.IsAmqpSection(body));
}

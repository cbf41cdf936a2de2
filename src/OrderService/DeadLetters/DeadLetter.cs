using System.Text.Json;
using OrderService.Inbox;

namespace OrderService.DeadLetters;

/// <summary>Where a dead letter stands; stable strings.</summary>
public static class LetterStatus
{
    /// <summary>Waits for an operator.</summary>
    public const string Parked = "parked";

    /// <summary>On its way through the queue again.</summary>
    public const string Replayed = "replayed";

    /// <summary>A replay was accepted.</summary>
    public const string Resolved = "resolved";

    /// <summary>An operator gave it up.</summary>
    public const string Discarded = "discarded";

    /// <summary>Another copy of the same message was accepted after all: nothing is lost and nobody is told.</summary>
    public const string Superseded = "superseded";

    public static IReadOnlyList<string> All { get; } = [Parked, Replayed, Resolved, Discarded, Superseded];
}

/// <summary>A message that was given up, ready to be parked.</summary>
public sealed record DeadLetter
{
    /// <summary>The idempotency key; derived from the content when the message brought no valid one.</summary>
    public required string Key { get; init; }

    /// <summary>32 bytes: of type and body.</summary>
    public required byte[] Fingerprint { get; init; }

    /// <summary>Behind the detail of a letter whose bytes did not come.</summary>
    internal const string NoBytes = " The broker has not brought its bytes; they are added when it does.";

    /// <summary>Why it was given up.</summary>
    public required Rejection Rejection { get; init; }

    /// <summary>The type and stack of the exception behind it, never its message.</summary>
    public string? Exception { get; init; }

    /// <summary>The exact bytes.</summary>
    public required byte[] Body { get; init; }

    public required MessageProperties Properties { get; init; }

    /// <summary>As much as could be read.</summary>
    public LetterFacts Facts { get; init; } = LetterFacts.None;

    /// <summary>The message may be sound, so its key is taken: no other copy can be accepted beside the letter.</summary>
    public bool Claims { get; init; }

    /// <summary>Its source knows that it may hand out the same message twice, and that this may be the second time. Dead letters of the broker tell by their headers: <see cref="IsSameDelivery"/>.</summary>
    public bool Redelivered { get; init; }

    /// <summary>Its bytes under other types.</summary>
    internal LetterTwins Twins => twins ??= LetterTwins.Of(this);

    private LetterTwins? twins;

    /// <summary>A message with a known fate and nothing else known about it.</summary>
    public static DeadLetter Of(string key, byte[] fingerprint, Rejection rejection, string? exception, byte[] body, MessageProperties properties, string? orderId = null)
    {
        // What may have killed a process is not read again.
        var facts = rejection.Reason == RejectionReason.CrashSuspect ? LetterFacts.None : FactsOf(properties, body);
        return new DeadLetter
        {
            Key = key,
            Fingerprint = fingerprint,
            Rejection = rejection,
            Exception = exception,
            Body = body,
            Properties = properties,
            Facts = facts with { OrderId = facts.OrderId ?? orderId },
        };
    }

    /// <summary>The last resort for a letter that can't be looked at: its bytes and nothing else.</summary>
    internal static DeadLetter Raw(byte[] body)
    {
        var fingerprint = EnvelopeDecoder.Fingerprint("?", body);
        return new DeadLetter
        {
            Key = EnvelopeDecoder.DerivedKey(fingerprint),
            Fingerprint = fingerprint,
            Rejection = new Rejection(RejectionReason.InternalError, "The dead letter could not be read; only its bytes were kept. This is a mistake in the order service, please report it.", null),
            Body = body,
            Properties = MessageProperties.Empty,
        };
    }

    private static LetterFacts FactsOf(MessageProperties properties, byte[] body) => EnvelopeDecoder.Mapping.Map(properties, body) is { } mapped
        ? LetterFacts.Read(mapped.Rule.Command, mapped.Body)
        : LetterFacts.Read(properties.Type, body);

    internal string PropertiesJson() => MessagePropertiesJson.Write(Properties);

    /// <summary>
    /// Whether this is a message that was parked before, handed out once more: it died at the same time and was returned more often since.
    /// The delivery's own mark does not tell: the broker sets it on every dead letter. And it may repeat one with the same count, which then looks like a copy.
    /// </summary>
    internal static bool IsSameDelivery(string parkedProperties, string properties) =>
        DeathsJson(properties) is { } deaths && deaths == DeathsJson(parkedProperties)
        && Returns(properties) is { } returns && Returns(parkedProperties) is { } before && returns > before;

    private static long? Returns(string propertiesJson)
    {
        using var document = JsonDocument.Parse(propertiesJson);
        return document.RootElement.TryGetProperty("headers", out var headers) && headers.TryGetProperty("x-delivery-count", out var count)
            && count.ValueKind == JsonValueKind.Number && count.TryGetInt64(out var returns) ? returns : null;
    }

    /// <summary>The broker's death table out of the stored properties.</summary>
    internal static string? DeathsJson(string propertiesJson)
    {
        using var document = JsonDocument.Parse(propertiesJson);
        return document.RootElement.TryGetProperty("headers", out var headers) && headers.TryGetProperty("x-death", out var deaths) ? deaths.GetRawText() : null;
    }
}

using OrderService.Inbox;
using OrderService.Store;

namespace OrderService.DeadLetters;

/// <summary>A message out of the dead-letter queue.</summary>
public sealed record LetterArrival(ReadOnlyMemory<byte> Body, MessageProperties Properties)
{
    /// <summary>Finds out why each message was given up: from the rejection that the order flow committed, else from what the broker wrote on it.</summary>
    public static async Task<IReadOnlyList<DeadLetter>> ExplainAsync(StoreTransaction transaction, IReadOnlyList<LetterArrival> arrivals)
    {
        var identities = arrivals.Select(arrival => EnvelopeDecoder.Identify(arrival.Properties, arrival.Body)).ToList();
        var keys = identities.Select(identity => identity.Key).Distinct(StringComparer.Ordinal).ToList();
        var rejections = (await RejectionsTable.FindAsync(transaction, keys)).ToLookup(row => row.Key, StringComparer.Ordinal);
        return [.. arrivals.Select((arrival, index) => arrival.Explain(
            identities[index].Key, identities[index].Fingerprint,
            rejections[identities[index].Key].FirstOrDefault(row => row.Fingerprint.AsSpan().SequenceEqual(identities[index].Fingerprint))))];
    }

    private DeadLetter Explain(string key, byte[] fingerprint, FoundRejection? rejection)
    {
        var death = BrokerDeath.Find(Properties);
        if (rejection is not null && death is null or { Reason: "rejected" })
        {
            return DeadLetter.Of(key, fingerprint, new Rejection(rejection.Reason, rejection.Detail, rejection.Field), rejection.Exception, Body.ToBytes(), Properties, rejection.OrderId);
        }
        if (death is null)
        {
            return DeadLetter.Of(key, fingerprint, new Rejection(
                RejectionReason.ForeignDeadLetter,
                "It came into the dead-letter queue without having been in the queue orders: another program put it there. Look at it before you replay it.", null), null, Body.ToBytes(), Properties);
        }
        var decoded = EnvelopeDecoder.Decode(Properties, Body);
        return decoded switch
        {
            // Nothing was recorded, but what is wrong can still be seen.
            Decoded.Invalid invalid when death.Reason == "rejected" => DeadLetter.Of(key, fingerprint, invalid.Rejection, null, Body.ToBytes(), Properties, invalid.OrderId),
            Decoded.Valid => DeadLetter.Of(key, fingerprint, death.Explain(), null, Body.ToBytes(), Properties) with { Claims = true },
            _ => DeadLetter.Of(key, fingerprint, death.Explain(), null, Body.ToBytes(), Properties),
        };
    }
}

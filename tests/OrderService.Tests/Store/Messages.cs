using System.Security.Cryptography;
using System.Text;
using OrderService.Domain;
using OrderService.Inbox;

namespace OrderService.Tests.Store;

/// <summary>Messages as they come from the queue, for tests of what is stored.</summary>
internal static class Messages
{
    public static Incoming Place(string key, string orderId, int quantity = 2) => Of(
        key, CommandType.Place,
        $$"""{"orderId":"{{orderId}}","customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":{{quantity}},"unitPrice":49.90}]}""");

    public static Incoming Payment(string key, string orderId, string reference, string amount) =>
        Of(key, CommandType.Pay, $$"""{"orderId":"{{orderId}}","paymentReference":"{{reference}}","amount":{{amount}}}""");

    public static Incoming Pay(string key, string orderId) => Of(key, CommandType.Pay, $$"""{"orderId":"{{orderId}}","paymentReference":"P-{{key}}"}""");

    public static Incoming Ship(string key, string orderId) => Of(key, CommandType.Ship, $$"""{"orderId":"{{orderId}}","carrier":"Post"}""");

    public static Incoming Cancel(string key, string orderId) => Of(key, CommandType.Cancel, $$"""{"orderId":"{{orderId}}","reason":"changed my mind"}""");

    public static Incoming Of(string key, string type, string json, Dictionary<string, object?>? headers = null)
    {
        var properties = new MessageProperties { MessageId = key, Type = type, CorrelationId = "c-" + key, Headers = headers };
        var body = Encoding.UTF8.GetBytes(json);
        return new Incoming(EnvelopeDecoder.Decode(properties, body), body, properties);
    }

    /// <summary>The same message as the replay of a dead letter.</summary>
    public static Incoming AsReplayOf(this Incoming incoming, long letterId) => Of(
        incoming.Properties.MessageId!, incoming.Properties.Type!, Encoding.UTF8.GetString(incoming.Body.Span),
        new Dictionary<string, object?> { [ReplayMark.Header] = new ReplayMark(letterId, 1).ToString() });

    /// <summary>The same message, given up for a failure of ours: its rejection takes the key.</summary>
    public static Incoming GivenUp(this Incoming incoming)
    {
        var (key, fingerprint) = EnvelopeDecoder.Identify(incoming.Properties, incoming.Body);
        return new Incoming(
            new Decoded.Invalid(key, fingerprint, new Rejection(RejectionReason.InternalError, "Processing failed.", null), null, null), incoming.Body, incoming.Properties)
        {
            Claims = true,
            Exception = "System.InvalidOperationException",
            StartedHash = SHA256.HashData(incoming.Body.Span),
        };
    }

    public static byte[] Fingerprint(this Incoming incoming) => EnvelopeDecoder.Identify(incoming.Properties, incoming.Body).Fingerprint;
}

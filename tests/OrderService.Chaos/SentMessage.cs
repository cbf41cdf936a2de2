using System.Security.Cryptography;
using System.Text;

namespace OrderService.Chaos;

/// <summary>What the producer knows of a message: the judge goes by this, never by what the service says it received.</summary>
internal enum Sending
{
    /// <summary>Neither confirmed nor refused: it may or may not have arrived.</summary>
    Unknown,

    Confirmed,
}

/// <summary>A message as its producer sees it.</summary>
/// <param name="Key">The idempotency key; <c>message_id</c> unless <paramref name="IsKeyDerived"/>.</param>
/// <param name="Reason">Why it must become a dead letter; null for a good message, which must take effect.</param>
internal sealed record SentMessage(string Key, string OrderId, string? Type, byte[] Body, string? Reason = null)
{
    public bool IsGood => Reason is null;

    /// <summary>Sent without a message id: the service derives the key from type and body.</summary>
    public bool IsKeyDerived { get; init; }

    /// <summary><c>content_type</c>; absent unless set.</summary>
    public string? ContentType { get; init; }

    /// <summary>Whether the same message, byte for byte, was sent before under the same key.</summary>
    public bool IsCopy { get; init; }

    public Sending Outcome { get; set; }

    public static SentMessage Place(string orderId) => Of("order.place", orderId,
        $$"""{"orderId":"{{orderId}}","customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}]}""");

    public static SentMessage Cancel(string orderId) => Of("order.cancel", orderId, $$"""{"orderId":"{{orderId}}","reason":"trial"}""");

    /// <summary>An order whose body is no JSON.</summary>
    public static SentMessage Malformed(string orderId) => Of("order.place", orderId, "{", "malformed_json");

    /// <summary>A message whose key names its order and command.</summary>
    public static SentMessage Of(string type, string orderId, string body, string? reason = null) =>
        new($"{type["order.".Length..]}-{orderId}", orderId, type, Encoding.UTF8.GetBytes(body), reason);

    /// <summary>The same without a message id; the key as contract and docs/messages.md derive it.</summary>
    public SentMessage WithoutKey() => this with
    {
        IsKeyDerived = true,
        Key = "sha256:" + Convert.ToHexStringLower(SHA256.HashData([.. Encoding.UTF8.GetBytes(Type ?? "order.place"), (byte)'\n', .. Body])),
    };

    public override string ToString() => $"{Key} ({Outcome}{(IsCopy ? ", a copy" : "")}, {(IsGood ? "good" : Reason)})";
}

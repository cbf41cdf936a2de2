using System.Text;
using OrderService.Tests.Infrastructure;

namespace OrderService.Tests.Journeys;

/// <summary>One message for each reason that a message's own content can have.</summary>
public static class Poison
{
    public static IReadOnlyList<(string Reason, TestMessage Message)> Messages { get; } =
    [
        ("malformed_json", Body("p-1", "{\"orderId\":")),
        ("body_empty", Body("p-2", "")),
        ("body_too_large", Body("p-3", new string(' ', (1 << 20) + 1))),
        ("unsupported_content_type", Body("p-4", Valid("P-4")) with { More = properties => properties.ContentType = "text/plain" }),
        ("unsupported_content_encoding", Body("p-5", Valid("P-5")) with { More = properties => properties.ContentEncoding = "gzip" }),
        ("invalid_encoding", new TestMessage(null, "p-6", [.. Encoding.UTF8.GetBytes("{\"orderId\":\"P-6\",\"customerId\":\""), 0xff, 0xfe, .. Encoding.UTF8.GetBytes("\"}")])),
        ("depth_exceeded", Body("p-7", new string('[', 40) + new string(']', 40))),
        ("duplicate_field", Body("p-8", "{\"orderId\":\"P-8\",\"orderId\":\"P-8\"}")),
        ("unknown_field", Body("p-9", Valid("P-9").Replace("\"currency\"", "\"isAdmin\":true,\"currency\"", StringComparison.Ordinal))),
        ("missing_field", Body("p-10", "{\"orderId\":\"P-10\"}")),
        ("wrong_type", Body("p-11", "[]")),
        ("unknown_command", Body("p-12", Valid("P-12")) with { Type = "order.explode" }),
        ("key_invalid", Body("key with spaces", Valid("P-13"))),
        ("id_invalid", Body("p-14", Valid("../../etc/passwd"))),
        ("text_invalid", TestMessage.Of("order.cancel", "p-15", "{\"orderId\":\"P-15\",\"reason\":\"zero \\u0000 byte\"}")),
        ("amount_out_of_range", Body("p-16", Valid("P-16").Replace("49.90", "-1", StringComparison.Ordinal))),
        ("amount_precision", Body("p-17", Valid("P-17").Replace("49.90", "49.901", StringComparison.Ordinal))),
        ("currency_unknown", Body("p-18", Valid("P-18").Replace("EUR", "XXX", StringComparison.Ordinal))),
        ("quantity_out_of_range", Body("p-19", Valid("P-19").Replace("\"quantity\":2", "\"quantity\":0", StringComparison.Ordinal))),
        ("too_many_lines", Body("p-20", TooManyLines())),
        ("time_invalid", Body("p-21", Valid("P-21").Replace("\"currency\"", "\"placedAt\":\"2026-02-30T00:00:00Z\",\"currency\"", StringComparison.Ordinal))),
        ("property_invalid", Body(null, Valid("P-22")) with { More = properties => properties.Headers = new Dictionary<string, object?> { ["idempotency-key"] = 42 } }),
    ];

    private static TestMessage Body(string? key, string body) => new(null, key, Encoding.UTF8.GetBytes(body));

    private static string Valid(string orderId) =>
        $$"""{"orderId":"{{orderId}}","customerId":"C-7","currency":"EUR","lines":[{"sku":"KB-01","quantity":2,"unitPrice":49.90}]}""";

    private static string TooManyLines() =>
        $$"""{"orderId":"P-20","customerId":"C-7","currency":"EUR","lines":[{{string.Join(',', Enumerable.Repeat("{\"sku\":\"A\",\"quantity\":1,\"unitPrice\":1}", 501))}}]}""";
}

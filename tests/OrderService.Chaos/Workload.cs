using System.Globalization;
using System.Text;

namespace OrderService.Chaos;

/// <summary>
/// What a shop's producers send, from one seed: orders with some of their later commands, in any order, with copies, keys that clash, keys left
/// out, and one order in fifty that is broken. All messages of one order come from one producer.
/// </summary>
/// <param name="prefix">Begins each order's id.</param>
internal sealed class Workload(Random random, string prefix)
{
    /// <summary>An e-mail address that may appear in no log, metric or alert.</summary>
    public const string Canary = "canary-7f3a@example.com";

    private static readonly IReadOnlyList<Func<string, SentMessage>> Broken =
    [
        SentMessage.Malformed,
        id => SentMessage.Of("order.place", id, "", "body_empty"),
        id => SentMessage.Of("order.place", id, $$"""{"orderId":"{{id}}"}""", "missing_field"),
        id => SentMessage.Of("order.place", id, Body(id, more: ",\"isAdmin\":true"), "unknown_field"),
        id => SentMessage.Of("order.place", id, Body(id, quantity: "0"), "quantity_out_of_range"),
        id => SentMessage.Of("order.place", id, Body(id, quantity: "\"2\""), "wrong_type"),
        id => SentMessage.Of("order.place", id, Body(id, price: "1.999"), "amount_precision"),
        id => SentMessage.Of("order.place", id, Body(id, currency: "XYZ"), "currency_unknown"),
        id => SentMessage.Of("order.place", id, Body(id + "\\u0000"), "text_invalid"),
        id => SentMessage.Of("order.place", id, Body(id + "/x"), "id_invalid"),
        id => SentMessage.Of("order.explode", id, Body(id), "unknown_command"),
        id => SentMessage.Of("order.place", id, Body(id), "unsupported_content_type") with { ContentType = "application/xml" },
    ];

    private int orders;

    /// <summary>The messages of one more order, shuffled.</summary>
    public IReadOnlyList<SentMessage> Next()
    {
        var id = string.Create(CultureInfo.InvariantCulture, $"{prefix}-{++orders}");
        if (random.Next(50) == 0)
        {
            return [Broken[random.Next(Broken.Count)](id)];
        }
        var place = SentMessage.Of("order.place", id, Body(id));
        List<SentMessage> messages = [random.Next(20) == 0 ? place.WithoutKey() : place];
        switch (random.Next(6))
        {
            case 0:
                messages.Add(SentMessage.Cancel(id));
                break;
            case 1:
                messages.Add(SentMessage.Of("order.pay", id, $$"""{"orderId":"{{id}}","paymentReference":"P-{{id}}","amount":99.80}"""));
                messages.Add(SentMessage.Of("order.ship", id, $$"""{"orderId":"{{id}}","carrier":"DHL"}"""));
                break;
            case 2:
                messages.Add(SentMessage.Of("order.ship", id, $$"""{"orderId":"{{id}}"}"""));
                messages.Add(SentMessage.Of("order.deliver", id, $$"""{"orderId":"{{id}}"}"""));
                break;
        }
        if (random.Next(20) == 0)
        {
            var again = messages[random.Next(messages.Count)];
            messages.AddRange(Enumerable.Range(0, random.Next(1, 4)).Select(_ => again with { IsCopy = true }));
        }
        if (random.Next(200) == 0 && !messages[0].IsKeyDerived)
        {
            // The same key with another body: one of the two takes effect, whichever comes first, and the other is a dead letter.
            messages.Add(SentMessage.Of("order.place", id, Body(id, quantity: "3")));
        }
        random.Shuffle(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(messages));
        return messages;
    }

    private static string Body(string id, string quantity = "2", string price = "49.90", string currency = "EUR", string more = "") => new StringBuilder()
        .Append(CultureInfo.InvariantCulture, $$"""{"orderId":"{{id}}","customerId":"C-7","currency":"{{currency}}","email":"{{Canary}}",""")
        .Append(CultureInfo.InvariantCulture, $$""" "lines":[{"sku":"KB-01","quantity":{{quantity}},"unitPrice":{{price}}}]{{more}}}""").ToString();
}
